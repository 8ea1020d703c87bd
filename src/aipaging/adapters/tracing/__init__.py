"""Traces by OpenTelemetry, where the extra `tracing` is installed and an endpoint is configured."""
