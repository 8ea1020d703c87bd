"""AISI, AIST claims, COMMIT claims: what tokens say, not how they are signed."""
