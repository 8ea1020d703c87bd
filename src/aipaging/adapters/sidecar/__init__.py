"""The anchor's sidecar: the second enforcement point, before a model server on the anchor's host.

`framing`, `heads`, `event_stream` and `answers` know bytes; `gate` keeps the lease holder in step with the controller
and cuts; `exchange` takes one request through gate, fair queue and upstream; `gateway_side` and `upstream` are the two
ends of the data path (callbacks, no task per request); `controller` talks southbound; `sidecar` puts them together.
"""
