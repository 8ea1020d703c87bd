"""Finds the likely mistakes on a machine, and says who repairs them and how."""
