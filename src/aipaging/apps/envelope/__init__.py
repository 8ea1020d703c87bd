"""`aipaging envelope`: fit, sign, verify, show, compose and compare Tail-Risk Envelopes."""
