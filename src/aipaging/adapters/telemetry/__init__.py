"""Telemetry tables in files: CSV, JSON lines and Parquet, read in batches, larger than memory."""
