"""Benchmarks: each runs its peer or the physical limit in the same run and prints the ratio."""
