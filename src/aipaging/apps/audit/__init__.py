"""`aipaging audit`: verdicts about telemetry against contracts."""
