"""Train, classify, index and search medical images from the command line."""
