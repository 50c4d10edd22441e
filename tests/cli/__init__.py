"""The command line: from words to an exit status."""
