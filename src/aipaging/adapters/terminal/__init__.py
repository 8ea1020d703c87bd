"""The people and programs at a terminal: one form of output, of errors and of exit statuses for every command."""
