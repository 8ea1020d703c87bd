"""Steering by Envoy: a lease cache in Lua, xDS for anchors and revocations, look-ups for everything else.

Ordering rules: a grant is in the table before any gateway can ask for it; a fence is on the revocation list, and
confirmed by every connected gateway, before the call that raised it returns; nothing is served over xDS before the
first reconciliation.

| Module | Decides |
|---|---|
| `filter.lua` | per request, inside Envoy: which anchor, or a refusal |
| `bootstrap` | what an Envoy is started with |
| `resources` | clusters and the route as xDS documents |
| `ads` | who has been told what, and who has confirmed it |
| `revocations` | the list that gateways compare with, and the feed that sidecars read |
| `table` | which session goes where until when |
| `steering_endpoint` | the answer to a look-up |
| `driver` | the order of all of this |
| `supervisor` | that an Envoy is running |
"""
