"""The whole road, one file per thing a user sets out to do; what the command line calls."""
