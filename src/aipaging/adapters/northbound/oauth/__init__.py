"""OAuth2: an authorization server for the clients of the configuration, and tokens of issuers that are elsewhere."""
