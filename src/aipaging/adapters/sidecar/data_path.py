"""What all requests of a sidecar share, and what a request sees of its gateway's side."""

from dataclasses import dataclass, field
from typing import Protocol

from aipaging.adapters.sidecar.gate import LeaseGate
from aipaging.adapters.sidecar.instruments import Instruments
from aipaging.adapters.sidecar.settings import SidecarSettings
from aipaging.adapters.sidecar.upstream import UpstreamPool
from aipaging.adapters.sidecar.usage import UsageMeter
from aipaging.core.anchor.fair_queue import FairQueue
from aipaging.core.steering.guardrail import Guardrails


class Asker(Protocol):
    """The gateway's side of a request."""

    def write(self, piece: bytes) -> None:
        """Send bytes to the gateway."""
        ...

    def hold(self, *, held: bool) -> None:
        """Stop (or go on) reading the request's body."""
        ...

    def break_off(self, last: bytes | None) -> None:
        """Send `last` if that is possible at once, and close without an end."""
        ...

    def request_over(self, *, keep: bool) -> None:
        """The request has been answered; `keep` where the connection is still in step."""
        ...


class Waiting(Protocol):
    """Who waits for a slot."""

    def dispatched(self) -> None:
        """Go on: a slot is yours."""
        ...


@dataclass(slots=True, kw_only=True)
class DataPath:
    """What all requests share.

    Attributes:
        settings: What the operator set.
        instruments: Clocks, log, metrics.
        gate: Who may pass.
        queue: Who is next.
        pool: Connections to the upstream.
        meter: What sessions used.
        guardrails: What sessions may still send.
        now_s: The loop's time, read a few times a second: precise enough for the limits in `Timeouts`.
        closing: Whether new requests are refused.
        service_us: Mean service time of late.
    """

    settings: SidecarSettings
    instruments: Instruments
    gate: LeaseGate
    queue: FairQueue[Waiting]
    pool: UpstreamPool
    meter: UsageMeter
    guardrails: Guardrails = field(default_factory=Guardrails)
    now_s: float = 0.0
    closing: bool = False
    service_us: float = 100_000.0

    def dispatch_waiting(self) -> None:
        """Give free slots to those who wait."""
        while (waiting := self.queue.dispatch()) is not None:
            waiting.dispatched()

    def retry_after_s(self) -> int:
        """Return about how long the queue takes to empty."""
        return min(60, 1 + int(self.queue.waiting * self.service_us / self.queue.limits.slots / 1e6))
