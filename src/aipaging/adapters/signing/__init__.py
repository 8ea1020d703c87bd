"""Keys, tokens, signed notes and the controller's certificate authority.

The only place where private keys are read. The rest of the package sees `ports.signing` and verified claims.
"""
