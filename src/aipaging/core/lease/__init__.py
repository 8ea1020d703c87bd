"""Grant, renew, revoke, expire: leases on both sides, the reservations behind them, and the expiry queue."""
