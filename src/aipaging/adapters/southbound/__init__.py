"""What sidecars and gateways ask the controller over mutual TLS; `app.southbound_app` is the factory.

The look-up of a gateway is answered by the steering driver's own endpoint, which is mounted here.
"""
