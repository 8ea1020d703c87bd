"""The continuous audit of what is promised: telemetry in, findings out, in batches beside the engine."""
