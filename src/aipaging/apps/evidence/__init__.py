"""`aipaging evidence`: verifying and reading evidence logs, offline, on files alone."""
