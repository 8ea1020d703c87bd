"""Clients: they page, send requests and streams through either gateway, move, extend, relocate and end.

Requests are also sent at the worst instants: whoever holds a COMMIT's end in true time can ask just after it. Those
probes come through every gateway that the session used, and count for the lease alone, not for availability.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Final

from aipaging.core.foundation.names import DomainName, SessionId, TenantId
from aipaging.core.foundation.time import MS, SECOND
from aipaging.core.paging import commands as c
from aipaging.core.paging.governing import PREEMPTING
from aipaging.core.paging.relocation_machine import RelocationCause
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.simulation.system.catalogue import CLIENTS, DELAY_MS, intent
from aipaging.simulation.system.gateway import Request
from aipaging.simulation.system.kernel import Agenda, Node, NodeClock
from aipaging.simulation.system.schedule import Act
from aipaging.simulation.system.wiring import Wiring

REQUESTS_MEAN: Final = 12
INTERVAL_US: Final = 250 * MS
STREAM_SHARE: Final = 0.2
STREAM_US_MAX: Final = 6_000 * MS
WORK_US_MAX: Final = 40 * MS
ROAM_SHARE: Final = 0.15
PROBE_US_MAX: Final = 4 * MS
"""Probes come within this much after a COMMIT's end: margins of drift are milliseconds."""

TIGHT_DELAY_MS: Final = 50.0
"""A target that no path here can promise: refused."""

AGAIN_MAX: Final = 3
AGAIN_STEP: Final = 1_000_000
"""How often a page is asked again that was answered PREEMPTING, and how far apart the ids of its sessions are."""


@dataclass(slots=True)
class Held:
    """A session that a client was given."""

    session: SessionId
    gateway: str
    used: dict[str, None] = field(default_factory=dict[str, None])
    left: int = 0


class Clients(Node):
    """All clients, as one node that never fails and whose clock is true.

    Attributes:
        answers: How many pages were answered with a session or a refusal.
    """

    def __init__(self, agenda: Agenda, wiring: Wiring, *, duration_s: tuple[int, int], requests: int) -> None:
        super().__init__("clients", agenda, NodeClock(0, 0))
        self.answers = 0
        self._wiring = wiring
        self._duration_s = duration_s
        self._requests = requests
        self._held: dict[int, Held] = {}

    def act(self, act: Act) -> None:
        """Do what the schedule says."""
        if act.kind == "page":
            self._page(act)
            return
        held = self._held.get(act.number)
        if held is None:
            return
        if act.kind == "end":
            self._end(held)
        elif act.kind == "extend":
            self._ask(c.Extend(session=held.session, additional_s=3))
        elif act.kind == "relocate":
            self._ask(c.Relocate(session=held.session, cause=RelocationCause.CLIENT))
        elif act.kind == "move":
            self._ask(c.MoveClient(session=held.session, place=DomainName(act.who)))

    def _ask(self, command: c.Command) -> None:
        self._wiring.submit(self, command, lambda _: None)

    def _page(self, act: Act) -> None:
        dice = self.agenda.dice
        wanted = intent(
            DomainName(act.who),
            rate_rps=int(act.amount),
            duration_s=dice.randint(*self._duration_s),
            delay_ms=TIGHT_DELAY_MS if dice.random() < 0.04 else DELAY_MS,
        )
        command = c.Page(
            session=SessionId(f"00000000-0000-4000-8000-{act.number:012x}"),
            tenant=TenantId(f"tenant-{act.number % 3}"),
            client=CLIENTS[act.number % len(CLIENTS)],
            token_id=f"token-{act.number}",
            salt=act.number.to_bytes(16, "big"),
            intent=wanted,
        )

        self._ask_for(command, act.number, AGAIN_MAX)

    def _ask_for(self, command: c.Page, number: int, left: int) -> None:
        """Page, and ask again where room is being made."""

        def answered(reply: Any) -> None:
            if isinstance(reply, c.Admitted | c.Refused):
                self.answers += 1
            if isinstance(reply, c.Admitted):
                self._admitted(number, command.session)
            elif isinstance(reply, c.Refused) and reply.constraint == PREEMPTING and reply.retry_after_s and left:
                again = SessionId(f"00000000-0000-4000-8000-{number + left * AGAIN_STEP:012x}")
                page = replace(command, session=again, token_id=f"{command.token_id}-{left}")
                self.after(reply.retry_after_s * SECOND, self._ask_for, page, number, left - 1)

        self._wiring.submit(self, command, answered)

    def _admitted(self, number: int, session: SessionId) -> None:
        dice = self.agenda.dice
        self._wiring.watch.answered(session, ended=False)
        count = 1 + int(dice.expovariate(1 / self._requests))
        held = Held(session, dice.choice(list(self._wiring.gateways)), left=count)
        self._held[number] = held
        self._next(held)
        self._probe_later(held)

    def _end(self, held: Held) -> None:
        def answered(reply: Any) -> None:
            if isinstance(reply, c.Done):
                self._wiring.watch.answered(held.session, ended=True)

        self._wiring.submit(self, c.End(session=held.session, status_info=StatusInfo.DELETE_REQUESTED), answered)

    # -- requests

    def _next(self, held: Held) -> None:
        if not held.left or self._wiring.watch.book.sessions[held.session].over:
            return
        held.left -= 1
        dice = self.agenda.dice
        if dice.random() < ROAM_SHARE:
            held.gateway = dice.choice(list(self._wiring.gateways))
        stream = dice.random() < STREAM_SHARE
        work_us = int(dice.random() * (STREAM_US_MAX if stream else WORK_US_MAX))
        sent_us = self.agenda.us

        def over(outcome: str) -> None:
            self._wiring.watch.outcome(held.session, sent_us, outcome)

        self._send(held, held.gateway, Request(held.session, work_us, over))
        self.after(int(dice.expovariate(1 / INTERVAL_US)), self._next, held)

    def _send(self, held: Held, gateway: str, request: Request) -> None:
        held.used[gateway] = None
        to = self._wiring.gateways[gateway]
        self.agenda.at(self.agenda.us, to.fire, to.life, to.request, (request,))

    def _probe_later(self, held: Held) -> None:
        session = self._wiring.watch.book.sessions[held.session]
        ends_us = max(lease.ends_us for lease in session.leases.values())
        if ends_us > self.agenda.us:
            wait_us = ends_us - self.agenda.us + 1 + int(self.agenda.dice.random() * PROBE_US_MAX)
            self.after(wait_us, self._probe_later, held)
            return
        for gateway in held.used:
            self._send(held, gateway, Request(held.session, WORK_US_MAX, lambda _: None))
        if not session.over:
            self.after(PROBE_US_MAX * 25, self._probe_later, held)
