"""Protocols between the runtime and the world; at most five methods each."""
