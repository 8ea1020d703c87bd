"""`aipaging token-server`: a load generator with the timing of a language model, and no model.

It answers `/v1/chat/completions` with placeholder words whose instants follow a distribution or a trace, so that
streams, cuts and queues can be tried where no weights are. Every answer says so.
"""
