"""The command line: gather, call, show; one file per command."""
