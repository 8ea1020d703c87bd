"""The controller: one engine and one driver per life on one disk, and what it answers to gateways, sidecars, clients.

After `adapters.steering.envoy.steering_endpoint` and `adapters.southbound.app`: nothing that grants time is answered
by a controller that is recovering or whose journal is ill, and a gateway's first take-up of an epoch is durable
before it is answered.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import AipagingError
from aipaging.core.foundation.names import AnchorId, GatewayId, SessionId
from aipaging.core.foundation.time import MS, Now, shrunk_us
from aipaging.core.lease.holder import HolderState, LeaseAnswer, LeaseQuestion
from aipaging.core.paging import commands as c
from aipaging.core.paging.settings import Settings
from aipaging.core.paging.state import State
from aipaging.simulation.system.cache import SteeringAnswer
from aipaging.simulation.system.catalogue import registrations
from aipaging.simulation.system.disk import Disk
from aipaging.simulation.system.driver import Driver, Effects, Wires
from aipaging.simulation.system.driver import Observer as DriverObserver
from aipaging.simulation.system.engine import Engine, Failed
from aipaging.simulation.system.engine import Observer as EngineObserver
from aipaging.simulation.system.kernel import Agenda, Node, NodeClock
from aipaging.simulation.system.network import Respond
from aipaging.simulation.system.parts import Batch, Parts, Steered

DRIFT_PPM: Final = 500
READS_MAX: Final = 3
SUBSCRIBE_US: Final = 2 * MS


class Observer(EngineObserver, DriverObserver, Protocol):
    """Who watches the controller from outside."""

    def granted_time(self, to: str, *, writer: int, newest: int) -> None:
        """It answers a question for time; the store is another's when `writer` is not the newest."""
        ...


class Configuration(Protocol):
    """What is read at every start."""

    settings: Settings

    def configured(self) -> Sequence[c.Command]:
        """Return what it says of tenants, clients and policies."""
        ...


@dataclass(slots=True)
class _Poll:
    """A sidecar that waits for revocations."""

    term: int
    sequence: int
    respond: Respond
    over: bool = False


class Controller(Node):
    """The controller.

    Attributes:
        disk: What outlives it.
        leads_until_us: Until when it may lead, on its boot clock; None while it renews its leadership.
        engine: Of this life.
        driver: Of this life.
    """

    def __init__(self, agenda: Agenda, clock: NodeClock, *, parts: Parts, disk: Disk) -> None:
        super().__init__("controller", agenda, clock)
        self.disk = disk
        self.leads_until_us: int | None = None
        self._parts = parts
        self._polls: list[_Poll] = []
        self._installing: dict[tuple[SessionId, Epoch, str], list[tuple[Callable[[], None], Failed]]] = {}
        self.engine: Engine
        self.driver: Driver
        self._observer: Observer
        self._configuration: Configuration

    def begin(
        self,
        wires: Wires,
        observer: Observer,
        gave_up: Callable[[], None],
        configuration: Configuration,
    ) -> None:
        """Begin a life: recover, begin a term, reconcile; only then is anything admitted.

        A process that cannot begin its term gives up, and whoever supervises it starts it again.
        """
        self._observer = observer
        self._configuration = configuration
        self.disk.recover()
        self.engine = Engine(self, self.disk, self._parts, observer=observer, settings=configuration.settings)
        self.driver = Driver(self, self._parts, wires, observer)
        self.driver.on_feed = self._fed
        self.engine.effects = Effects(self, self.engine, self.driver, wires=wires, parts=self._parts)
        self._polls, self._installing = [], {}
        self.engine.recover()
        self.engine.start(self._ready, lambda _: gave_up())

    def _ready(self) -> None:
        for command in (*registrations(self._parts), *self._configuration.configured()):
            self.engine.submit(command)

    def gate(self) -> bool:
        """Whether it may grant time now: it leads, by its own clock, and its journal is well."""
        return self.engine.healthy and (self.leads_until_us is None or self.boot_us < self.leads_until_us)

    # -- gateways

    def look_up(self, respond: Respond, gateway: str, session: SessionId) -> None:
        """Answer a gateway: a `SteeringAnswer`, or a status as text."""
        if not self.gate():
            respond("503")
            return
        self._steering(respond, gateway, session, READS_MAX)

    def _steering(self, respond: Respond, gateway: str, session: SessionId, reads: int) -> None:
        steered: Steered | None = self.driver.table.get(session)
        now = self.now()
        if steered is None or steered.deadline_us <= now.boot_us:
            respond("403")
        elif GatewayId(gateway) in steered.gateways:
            respond(self._granted(steered, now))
        elif not reads:
            respond("503")
        else:

            def done() -> None:
                if self.gate():
                    self._steering(respond, gateway, session, reads - 1)
                else:
                    respond("503")

            def failed(_: AipagingError) -> None:
                respond("503")

            self._installed(steered, gateway, done, failed)

    def _installed(self, steered: Steered, gateway: str, done: Callable[[], None], failed: Failed) -> None:
        """Journal that a gateway takes up an epoch; concurrent misses share one record."""
        key = (steered.session, steered.epoch, gateway)
        waiting = self._installing.get(key)
        if waiting is not None:
            waiting.append((done, failed))
            return
        self._installing[key] = [(done, failed)]

        def taken(_: c.Reply) -> None:
            self.driver.table.took_up(steered, GatewayId(gateway))
            for on, _failed in self._installing.pop(key):
                on()

        def refused(error: AipagingError) -> None:
            for _, off in self._installing.pop(key):
                off(error)

        command = c.ConfirmInstalled(
            session=steered.session, anchor=steered.anchor, epoch=steered.epoch, gateway=GatewayId(gateway)
        )
        self.engine.submit(command, taken, refused)

    def _granted(self, steered: Steered, now: Now) -> SteeringAnswer | str:
        lease_us = shrunk_us(steered.deadline_us - now.boot_us, DRIFT_PPM) // MS * MS
        token_us = self.token_us(steered, now)
        if lease_us <= 0 or token_us <= 0:
            return "403"
        term, _, generation = self.driver.revocations.generation.partition(".")
        self._observer.granted_time("a gateway", writer=self.engine.writer, newest=self.disk.writer)
        return SteeringAnswer(
            session=steered.session,
            anchor=steered.anchor,
            epoch=steered.epoch,
            lease_us=lease_us,
            token_us=token_us,
            generation=(int(term), int(generation)),
        )

    def token_us(self, steered: Steered, now: Now) -> int:
        """Return what remains of the session's token: clients use the newest, which ends with the session."""
        session = self.engine.state.sessions.get(steered.session)
        if session is None:
            return 0
        return session.requested_wall_us + session.duration_ms * MS - now.wall_us

    # -- sidecars

    def remaining(self, respond: Respond, anchor: AnchorId, questions: Sequence[LeaseQuestion]) -> None:
        """Answer how long leases may go on: a list of `LeaseAnswer`, or None."""
        if not self.gate():
            respond(None)
            return

        def read(state: State, now: Now) -> list[LeaseAnswer]:
            return [self._remains(state, anchor, question, now) for question in questions]

        def seen(answers: list[LeaseAnswer]) -> None:
            if not self.gate():
                respond(None)
                return
            self._observer.granted_time(anchor, writer=self.engine.writer, newest=self.disk.writer)
            respond(answers)

        def failed(_: AipagingError) -> None:
            respond(None)

        self.engine.view(read, seen, failed)

    def _remains(self, state: State, anchor: AnchorId, question: LeaseQuestion, now: Now) -> LeaseAnswer:
        found = self._parts.remaining(state, anchor, question.session, asked=question.epoch, now=now)
        return LeaseAnswer(
            session=question.session,
            asked=question.epoch,
            state=HolderState[found.state],
            remaining_ms=found.remaining_ms,
            current=found.current,
        )

    def follow(self, respond: Respond, term: int, sequence: int, wait_us: int) -> None:
        """Answer what was revoked since a place, as soon as there is something."""
        page = self.driver.feed.page(term, sequence)
        if page.entries or page.reset:
            respond(page)
            return
        poll = _Poll(term, sequence, respond)
        self._polls.append(poll)

        def waited() -> None:
            if not poll.over:
                poll.over = True
                self._polls.remove(poll)
                respond(self.driver.feed.page(term, sequence))

        self.after(wait_us, waited)

    def _fed(self) -> None:
        polls, self._polls = self._polls, []
        for poll in polls:
            poll.over = True
            poll.respond(self.driver.feed.page(poll.term, poll.sequence))

    def beat(self, _respond: Respond, anchor: AnchorId, state: AnchorState) -> None:
        """Take note of an anchor."""
        if self.engine.ready:
            self.engine.submit(c.Heartbeat(anchor=anchor, state=state))

    def usage(self, respond: Respond, anchor: AnchorId, boot: str, batch: Batch) -> None:
        """Take counts: answered once they are on record."""
        if self.engine.ready:
            used = tuple((session, *counts) for session, counts in batch.used.items())
            command = c.MeterSessions(anchor=anchor, boot=boot, batch=batch.number, used=used)
            self.engine.submit(command, respond, respond)

    # -- clients and operators

    def command(self, respond: Respond, command: c.Command) -> None:
        """Carry out what somebody asks for: the reply, or the error."""
        if self.engine.ready:
            self.engine.submit(command, respond, respond)

    def reload(self, respond: Respond) -> None:
        """Read the configuration anew, as it is by now."""
        if self.engine.ready:
            for command in self._configuration.configured():
                self.engine.submit(command, respond, respond)

    def subscribe(self, respond: Respond, gateway: Node, number: int) -> None:
        """Take a gateway's stream."""
        self.driver.subscribed(gateway, number)
        respond(None)

    def acknowledged(self, gateway: str, number: int, revision: int) -> None:
        """Take a gateway's acknowledgement."""
        self.driver.acknowledged(gateway, number, revision)

    def gone(self, gateway: str, number: int) -> None:
        """A gateway's stream broke."""
        self.driver.left(gateway, number)
