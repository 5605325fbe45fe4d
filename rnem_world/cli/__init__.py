"""The command line: one click group, one file a command, the only place that prints."""
