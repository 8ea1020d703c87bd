"""The embedded journal: SQLite files one after the other, one writer, any number of readers."""
