"""Journals, and the static files that a log is published as."""
