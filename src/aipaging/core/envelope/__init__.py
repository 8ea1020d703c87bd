"""Tail-Risk Envelopes: what a domain promises, and whether a path of promises admits a session."""
