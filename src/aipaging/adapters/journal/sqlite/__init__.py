"""The embedded journal: one SQLite file, one writer, any number of readers."""
