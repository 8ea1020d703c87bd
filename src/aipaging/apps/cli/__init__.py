"""The `aipaging` command."""
