"""What a gateway says of one request, as the live audit takes it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """One request through a gateway; delays in microseconds, negative where unknown.

    Delays have a least value where a client may have made them longer by itself (a body that trickles in, an answer
    that is not read): only the least can be held against a service.

    Attributes:
        session: Whose, as the gateway knew it; "" where it was refused before a session was known.
        anchor: Where it went; "" where it went nowhere.
        trace: Trace id (W3C trace context), or "".
        start_us: When its first byte came, wall clock.
        status: Code of `core.audit.Status`.
        total_us: Until the last byte was sent to the client.
        first_us: Until the first byte was sent to the client.
        anchor_us: What the anchor's sidecar says of its queue and of the inference, until the first byte of the answer.
        body_us: From the first byte of the answer to the last, at the gateway.
        parent: Id of the client's span (W3C trace context), or "".
        least_total_us: Of `total_us`, what the client had no part in.
        least_first_us: Of `first_us`, likewise.
        least_anchor_us: Of `anchor_us`, likewise.
    """

    session: str
    anchor: str
    trace: str
    start_us: int
    status: int
    total_us: int
    first_us: int
    anchor_us: int
    body_us: int = 0
    parent: str = ""
    least_total_us: int = 0
    least_first_us: int = 0
    least_anchor_us: int = 0
