"""Packet-level Monte-Carlo: what delays tenants meet in tandems and feed-forward networks of domains.

Usable alone: `scenario` holds what is simulated, `reading` makes it from a file and checks it, `run.simulate` runs it.
`kernels` is compiled (Numba, the extra `simulation`); nothing outside `run` and what it imports needs it.
"""
