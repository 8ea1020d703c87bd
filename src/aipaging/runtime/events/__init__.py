"""What has become durable, told to those whom it concerns: one event per record, in the order of the journal."""
