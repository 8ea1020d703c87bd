"""Bounds on delay, backlog and output: numbers, then algebra, then networking."""
