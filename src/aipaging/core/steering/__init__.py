"""Desired against installed steering, and the make-before-break plan."""
