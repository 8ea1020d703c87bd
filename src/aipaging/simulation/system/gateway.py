"""A gateway: the lease cache with requests, look-ups and the subscription around it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import AnchorId, SessionId
from aipaging.core.foundation.time import MS
from aipaging.core.lease.expiry import NO_EPOCH
from aipaging.simulation.system.cache import ATTEMPTS_MAX, Entry, LeaseCache, SteeringAnswer
from aipaging.simulation.system.kernel import Agenda, Node, NodeClock

LOOK_UP_US_MAX: Final = 1_000 * MS
REFRESH_US_MAX: Final = 500 * MS
WORKER_US_MAX: Final = 8 * MS
"""A worker follows its main thread, which acknowledges, within a few milliseconds; the driver waits 20."""

RECONNECT_US: Final = 150 * MS

Refused = Callable[[str], None]


@dataclass(slots=True)
class Request:
    """A client's request on its way.

    Attributes:
        session: Whose.
        work_us: How long it takes at the anchor; a stream delivers all that time.
        over: Told the outcome: "served", "cut", or why it was refused.
        epoch: The epoch that it was forwarded under.
    """

    session: SessionId
    work_us: int
    over: Callable[[str], None]
    epoch: Epoch = NO_EPOCH


class GatewayWires(Protocol):
    """What a gateway sends, and who watches it."""

    def look_up(
        self, gateway: "Gateway", session: SessionId, answered: Callable[[object], None], limit_us: int
    ) -> None:
        """Ask the controller; `answered` takes a `SteeringAnswer`, or a status as text."""
        ...

    def subscribe(self, gateway: "Gateway", number: int) -> None:
        """Begin a stream; `joined` or `left` follows."""
        ...

    def acknowledge(self, gateway: "Gateway", number: int, revision: int) -> None:
        """Acknowledge a list."""
        ...

    def forward(self, gateway: "Gateway", anchor: AnchorId, epoch: Epoch, request: Request) -> None:
        """Send a request to an anchor; it is seen from outside here."""
        ...


class Gateway(Node):
    """One Envoy with one worker.

    Attributes:
        cache: Its lease cache.
        ready: Whether it was told a list: without one it serves nobody.
        stream: The number of its present stream.
    """

    def __init__(self, name: str, agenda: Agenda, clock: NodeClock, wires: GatewayWires) -> None:
        super().__init__(name, agenda, clock)
        self._wires = wires
        self.cache = LeaseCache()
        self.ready = False
        self.stream = 0
        self._applied_us = 0

    def begin(self) -> None:
        """Begin a life: nothing is known."""
        self.cache = LeaseCache()
        self.ready = False
        self._subscribe()

    def clock_us(self) -> int:
        """The clock by which entries end: it counts suspend."""
        return self.boot_us

    # -- requests

    def request(self, request: Request) -> None:
        """Steer a request, or refuse it."""
        if not self.ready:
            request.over("NOT_READY")
            return
        now_us = self.clock_us()
        entry = self.cache.ready(request.session, now_us)
        if entry is not None:
            self._forward(entry, request)
            return
        entry = self.cache.usable(request.session, now_us)
        if entry is None:
            self._look_up(request, None, 1)
        elif now_us < entry.refresh_us:
            self._forward(entry, request)
        else:
            self.cache.begin_refresh(entry, now_us)
            self._look_up(request, entry, 1)

    def _look_up(self, request: Request, held: Entry | None, attempt: int) -> None:
        asked_us = self.clock_us()

        def answered(answer: object) -> None:
            if isinstance(answer, SteeringAnswer):
                fresh = self.cache.accept(answer, asked_us, self.clock_us())
                if fresh is not None:
                    self._go_on(self.cache.keep(fresh), request)
                    return
                if attempt < ATTEMPTS_MAX:
                    self._look_up(request, held, attempt + 1)
                    return
            self._unanswered(request, held, answer if isinstance(answer, str) else "503")

        limit_us = LOOK_UP_US_MAX if held is None else REFRESH_US_MAX
        self._wires.look_up(self, request.session, answered, limit_us)

    def _unanswered(self, request: Request, held: Entry | None, status: str) -> None:
        if held is not None and status != "503":
            self.cache.entries.pop(request.session, None)
        if held is not None and status == "503":
            self._go_on(held, request)
            return
        request.over(status)

    def _go_on(self, entry: Entry, request: Request) -> None:
        """Steer a request that has waited: the entry is judged again."""
        if self.still_held(entry):
            self._forward(entry, request)
        else:
            request.over("503")

    def still_held(self, entry: Entry) -> bool:
        """Whether an entry holds after a wait."""
        return entry.deadline_us > self.clock_us() and self.cache.is_live(entry)

    def _forward(self, entry: Entry, request: Request) -> None:
        request.epoch = entry.epoch
        self._wires.forward(self, entry.anchor, entry.epoch, request)

    # -- the subscription

    def _subscribe(self) -> None:
        self.stream += 1
        self._wires.subscribe(self, self.stream)

    def left(self, number: int) -> None:
        """The stream broke: begin another."""
        if number == self.stream:
            self.stream += 1
            self.after(RECONNECT_US, self._again, self.stream)

    def _again(self, number: int) -> None:
        if number == self.stream:
            self._subscribe()

    def listed(self, number: int, revision: int, revoked: str) -> None:
        """Take a list over."""
        if number != self.stream:
            return
        self._wires.acknowledge(self, number, revision)
        # A worker takes lists over in the order in which its main thread got them.
        us = max(self._applied_us + 1, self.agenda.us + int(self.agenda.dice.random() * WORKER_US_MAX))
        self._applied_us = us
        self.after(us - self.agenda.us, self.applied, revoked)

    def applied(self, revoked: str) -> None:
        """The worker sees the list from now on; the filter merges it at the next request, which comes to the same."""
        self.ready = True
        self.cache.absorb(revoked)
