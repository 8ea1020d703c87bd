"""What a gateway says of one request, as the live audit takes it, and what the audit keeps of those that were late."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


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
        sent_us: When its first byte went to the anchor, after `start_us`.
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
    sent_us: int = -1
    least_total_us: int = 0
    least_first_us: int = 0
    least_anchor_us: int = 0


@dataclass(frozen=True, slots=True)
class LateRequest:
    """A request that exceeded a contracted delay for certain, or failed; its trace is kept.

    Attributes:
        seen: What the gateway said.
        tenant: Whose.
        task: Of its session's intent.
        service: Identity of the AI service.
        domain: That executed it.
        exceeded: The domains whose contract it exceeded, `end-to-end` among them.
        delay_ms: The delay that its session was promised.
    """

    seen: SeenRequest
    tenant: str
    task: str
    service: str
    domain: str
    exceeded: tuple[str, ...]
    delay_ms: float


class LateRequests(Protocol):
    """Keeps the traces of requests that were late; bounded by the caller, and never waits."""

    def keep(self, requests: Sequence[LateRequest]) -> None:
        """Keep their traces."""
        ...
