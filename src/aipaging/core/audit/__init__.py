"""Verdicts about tail delays, uncertainty, and blame."""
