"""Steering drivers: what holds a session's steering in a user plane, until its lease ends at the latest."""
