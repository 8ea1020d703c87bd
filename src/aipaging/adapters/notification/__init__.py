"""CloudEvents to sinks: checked addresses, signed messages, retries, dead letters."""
