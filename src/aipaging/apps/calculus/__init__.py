"""The calculus on the command line: case files, single questions, plots."""
