"""Public conformance kits: prove a driver or a journal against the contract."""
