"""The anchor sidecar as a program: settings from the command line, identity from a folder, signals."""
