"""One schedule in; findings, counts and the digest of the trace out."""

from dataclasses import dataclass, field
from typing import Final

from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.foundation.names import AnchorId, DomainName
from aipaging.core.foundation.time import MS, PPM, SECOND, stretched_us
from aipaging.core.paging import commands as c
from aipaging.core.paging.operate import TERMS_BEGIN_US
from aipaging.simulation.system.catalogue import (
    ANCHOR_MRPS,
    ANCHORS,
    BAD_OFFSET_MS,
    EDGE_MRPS,
    GATEWAYS,
    OFFSET_MS,
    VALID_S,
    envelope,
    settings,
)
from aipaging.simulation.system.checkers import Found, FoundError, Place, Watch
from aipaging.simulation.system.clients import REQUESTS_MEAN, Clients
from aipaging.simulation.system.controller import Controller
from aipaging.simulation.system.disk import Disk, DiskState
from aipaging.simulation.system.engine import BrokenDecisionError
from aipaging.simulation.system.gateway import Gateway
from aipaging.simulation.system.governance import Governance
from aipaging.simulation.system.kernel import Agenda, NodeClock
from aipaging.simulation.system.network import Link, Network
from aipaging.simulation.system.parts import Parts
from aipaging.simulation.system.schedule import DRIFT_PPM, GOVERNING_KINDS, SESSION_KINDS, Act, Schedule
from aipaging.simulation.system.sidecar import Sidecar
from aipaging.simulation.system.wiring import Wiring

SETTLE_US: Final = 8 * SECOND
"""How long after a fault its traces may last: a lease, a lost anchor, a relocation that is tried again."""

DURATION_S: Final = (2, 9)
AFTER_S: Final = 16 + 9
"""Sessions last up to nine seconds and some extensions; then reservations are held for a lease and more."""

MACHINE_BOOT_US: Final = 3_600 * SECOND


SUPERVISOR_US: Final = 500 * MS
"""How soon a controller that gave up is started again."""


TORN_ONE_IN: Final = 2
"""Of the batches that a machine dies over and that did not arrive: so many are torn."""

LEADERSHIP_US: Final = 1 * SECOND
GRACE_US: Final = 100 * MS
"""A leadership is itself a lease: the holder stops at its end, the successor waits for drift and grace."""

STALE_SHARE: Final = 0.6
"""How many gateways go on asking a deposed leader for a while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What sessions are like.

    Attributes:
        duration_s: The least and the longest they last.
        requests: The mean number of requests of one.
        after_s: How long a run goes on after its last act.
    """

    duration_s: tuple[int, int] = DURATION_S
    requests: int = REQUESTS_MEAN
    after_s: int = AFTER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a run.

    Attributes:
        seed: Its seed.
        found: What a checker found, or None.
        digest: Of the whole trace: the same for the same schedule and code.
        pages: Page transactions on record, refusals included.
        records: Records of the journal in the end.
        requests: Requests that were admitted at anchors.
        simulated_us: True time that passed.
        reached: How often what kind of fault met something, and what operators did.
        kinds: How many records there were of each type.
    """

    seed: int
    found: Found | None
    digest: str
    pages: int
    records: int
    requests: int
    simulated_us: int
    reached: dict[str, int] = field(default_factory=dict[str, int])
    kinds: dict[str, int] = field(default_factory=dict[str, int])


class _Run:
    """One run."""

    def __init__(self, plan: Schedule, parts: Parts, workload: Workload) -> None:
        self._plan = plan
        self._parts = parts
        self._workload = workload
        self.agenda = Agenda(plan.seed)
        self._strays = {act.who: int(act.amount) for act in plan.acts if act.kind == "drift"}
        excess_ppm = max(map(abs, self._strays.values()), default=0)
        tolerance_us = plan.lease_ms * 3 // 2 * MS * (excess_ppm and excess_ppm + 2 * DRIFT_PPM) // PPM
        places = {name: Place(ANCHOR_MRPS, edge, EDGE_MRPS[edge]) for name, edge in ANCHORS.items()}
        self.watch = Watch(self.agenda, tolerance_us=tolerance_us, places=places)
        self.network = Network(self.agenda)
        self.wiring = Wiring(self.network, self.watch)
        self.controller = Controller(self.agenda, self._clock("controller"), parts=parts, disk=Disk())
        self.wiring.controller = self.controller
        for name in GATEWAYS:
            self.wiring.gateways[name] = Gateway(name, self.agenda, self._clock(name), self.wiring)
        for name in ANCHORS:
            self.wiring.sidecars[name] = Sidecar(name, self.agenda, self._clock(name), wires=self.wiring, parts=parts)
            self.wiring.sidecars[name].counts = plan.counts
        self.clients = Clients(self.agenda, self.wiring, duration_s=workload.duration_s, requests=workload.requests)
        self.governance = Governance(self.agenda, self.wiring, self.clients, settings=settings(plan.lease_ms))
        self._sequences: dict[str, int] = {}

    def _clock(self, name: str) -> NodeClock:
        ppm = self._strays.get(name, self.agenda.dice.randint(-DRIFT_PPM, DRIFT_PPM))
        return NodeClock(ppm, MACHINE_BOOT_US + self.agenda.dice.randrange(SECOND))

    def ran(self) -> Outcome:
        found: Found | None = None
        try:
            self._go()
        except FoundError as error:
            found = error.found
        except (BrokenDecisionError, AssertionError) as error:
            found = Found(checker="ENGINE", us=self.agenda.us, what=str(error) or type(error).__name__)
        return Outcome(
            seed=self._plan.seed,
            found=found,
            digest=self.watch.digest,
            pages=self.watch.book.pages,
            records=len(self.controller.disk.entries),
            requests=self.watch.served,
            simulated_us=self.agenda.us,
            reached=dict(+self.agenda.reached),
            kinds=dict(self.watch.book.kinds),
        )

    def _go(self) -> None:
        self._begin_controller()
        for gateway in self.wiring.gateways.values():
            gateway.begin()
        for sidecar in self.wiring.sidecars.values():
            sidecar.begin()
        for act in self._plan.acts:
            if act.fault:
                self.watch.troubled.append((act.us, act.us + act.for_us + SETTLE_US))
            self.agenda.at(act.us, self._act, act)
        self.watch.troubled.append((0, 400 * MS))
        over_us = self._plan.ends_us + self._workload.after_s * SECOND
        self.agenda.run(over_us)
        self.watch.ended(self.controller.engine, self.controller.disk)

    def _begin_controller(self) -> None:
        self.controller.up = True
        self.controller.leads_until_us = None
        controller = self.controller
        controller.begin(self.wiring, self.watch, lambda: self._gave_up(controller), self.governance)
        self.watch.recovered(self.controller.engine, self.controller.disk)

    # -- acts

    def _act(self, act: Act) -> None:
        if not act.fault:
            self.agenda.reached[act.kind] += 1
        if act.kind in SESSION_KINDS:
            self.clients.act(act)
        elif act.kind in GOVERNING_KINDS:
            self.governance.act(act)
        else:
            getattr(self, f"_{act.kind.replace('-', '_')}")(act)

    def _later(self, act: Act) -> int:
        return min(self.agenda.us + act.for_us, self._plan.ends_us)

    def _drain(self, act: Act) -> None:
        self._operate(act, AnchorState.DRAINING)

    def _undrain(self, act: Act) -> None:
        self._operate(act, AnchorState.READY)

    def _operate(self, act: Act, state: AnchorState) -> None:
        command = c.SetAnchorState(anchor=AnchorId(act.who), state=state, cause="OPERATOR")
        self.wiring.submit(self.clients, command, lambda _: None)

    def _envelope(self, act: Act) -> None:
        """A domain promises anew: the same for a while or for long, or something that helps nobody for a while."""
        self._promise(act.who, bad=bool(act.amount))
        if act.amount:
            self.agenda.at(self.agenda.us + act.for_us, self._promise, act.who)

    def _promise(self, domain: str, *, bad: bool = False) -> None:
        sequence = self._sequences[domain] = self._sequences.get(domain, 1) + 1
        offset_ms = BAD_OFFSET_MS if bad else OFFSET_MS
        promised = envelope(DomainName(domain), sequence=sequence, valid_s=VALID_S, offset_ms=offset_ms)
        self.wiring.submit(self.clients, self._parts.accept(promised), lambda _: None)

    def _backup(self, _act: Act) -> None:
        if self.controller.up:
            self.controller.disk.save_backup()

    # -- faults

    def _cut(self, act: Act) -> None:
        self._reached(act.kind)
        self.wiring.cut(act.who, act.other, max(1, self._later(act) - self.agenda.us))

    def _slow(self, act: Act) -> None:
        link = self.network.link(act.who, act.other)
        link.slow_us = int(act.amount)
        self._reached(act.kind)
        self.agenda.at(self._later(act), _better, link)

    def _slow_calls(self, act: Act) -> None:
        link = self.network.link(act.who, act.other)
        link.slow_calls_us = int(act.amount)
        self._reached(act.kind)
        self.agenda.at(self._later(act), _better, link)

    def _loss(self, act: Act) -> None:
        link = self.network.link(act.who, act.other)
        link.loss = link.doubled = act.amount
        self._reached(act.kind)
        self.agenda.at(self._later(act), _better, link)

    def _overtaking(self, act: Act) -> None:
        link = self.network.link(act.who, act.other)
        link.overtaking = 1
        self._reached(act.kind)
        self.agenda.at(self._later(act), _better, link)

    def _crash(self, act: Act) -> None:
        if not self.controller.up or self.controller.leads_until_us is not None:
            return
        engine, disk = self.controller.engine, self.controller.disk
        in_flight = engine.in_flight
        self._reached(act.kind)
        if in_flight and act.number and disk.state is DiskState.WELL:
            # The sync had come through when the process died, and nobody was told.
            self._reached("batch durable and not told")
            disk.append(in_flight, engine.in_flight_head, writer=engine.writer, restrictive=False)
            self.watch.durable(in_flight, self.controller.clock)
        elif in_flight and act.us % TORN_ONE_IN == 0:
            self._reached("batch torn")
            disk.torn = in_flight[: -(-len(in_flight) // 2)]
        elif in_flight:
            self._reached("batch lost")
        self._controller_died()
        self.agenda.at(self._later(act), self._start_controller, act)

    def _reached(self, what: str) -> None:
        self.agenda.reached[what] += 1

    def _reboot(self, act: Act) -> None:
        self._crash(act)

    def _restore(self, act: Act) -> None:
        if self.controller.up and self.controller.disk.backup is not None:
            self._crash(act)

    def _start_controller(self, act: Act) -> None:
        if act.kind == "reboot":
            self.controller.clock.reboot(self.agenda.us, 20 * SECOND)
        if act.kind == "restore":
            # Terms are counted from the wall clock: who restores a backup within the millisecond in which the
            # last term began, or with a clock that went back, has that term a second time. See the documentation.
            wait_us = TERMS_BEGIN_US + (self.watch.book.term + 1) * MS - self.controller.clock.wall_us(self.agenda.us)
            if wait_us > 0:
                self.agenda.at(self.agenda.us + wait_us, self._start_controller, act)
                return
            self._reached("backup restored" if self.controller.disk.restore() else "backup restored, nothing lost")
            self.watch.restored(self.controller.disk.entries)
        self._begin_controller()

    def _gave_up(self, controller: Controller) -> None:
        if controller is self.controller and controller.up:
            self._reached("controller gave up")
            self._controller_died()
            self.agenda.at(self.agenda.us + SUPERVISOR_US, self._try_to_begin, controller)

    def _try_to_begin(self, controller: Controller) -> None:
        if controller is self.controller and not controller.up:
            self._begin_controller()

    def _controller_died(self) -> None:
        self.controller.die()
        for gateway in self.wiring.gateways.values():
            self.wiring.stream_lost(gateway)

    def _restart_gateway(self, act: Act) -> None:
        gateway = self.wiring.gateways[act.who]
        if not gateway.up:
            return
        self._reached(act.kind)
        self.wiring.break_stream(gateway, gateway.stream)
        gateway.die()
        self.agenda.at(self._later(act), _start, gateway)

    def _restart_sidecar(self, act: Act) -> None:
        sidecar = self.wiring.sidecars[act.who]
        if not sidecar.up:
            return
        self._reached(act.kind)
        sidecar.die()
        self.watch.sidecar_died(act.who)
        self.agenda.at(self._later(act), _start, sidecar)

    def _sidecar_down(self, act: Act) -> None:
        self._restart_sidecar(act)

    def _unhealthy(self, act: Act) -> None:
        sidecar = self.wiring.sidecars[act.who]
        sidecar.says = AnchorState.LOST
        self._reached(act.kind)
        self.agenda.at(self._later(act), _healthy, sidecar)

    def _disk_full(self, act: Act) -> None:
        self._disk_ill(act, DiskState.FULL)

    def _disk_failing(self, act: Act) -> None:
        self._disk_ill(act, DiskState.FAILING)

    def _disk_slow(self, act: Act) -> None:
        disk = self.controller.disk
        disk.slow = True
        self._reached(act.kind)

        def quick() -> None:
            disk.slow = False

        self.agenda.at(self._later(act), quick)

    def _disk_ill(self, act: Act, state: DiskState) -> None:
        disk = self.controller.disk
        disk.state = state
        self._reached(act.kind)

        def well() -> None:
            disk.state = DiskState.WELL

        self.agenda.at(self._later(act), well)

    def _jump(self, act: Act) -> None:
        self._node(act.who).clock.jump(int(act.amount))
        self._reached(act.kind)

    def _suspend(self, act: Act) -> None:
        self._node(act.who).stop(max(1, self._later(act) - self.agenda.us), suspended=True)

    def _pause(self, act: Act) -> None:
        self._node(act.who).stop(max(1, self._later(act) - self.agenda.us), suspended=False)

    def _takeover(self, act: Act) -> None:
        """The leader loses the store that its leadership rests on; when that has run out, another takes over."""
        old = self.controller
        if old.up and old.leads_until_us is None:
            old.leads_until_us = old.boot_us + LEADERSHIP_US
            wait_us = stretched_us(LEADERSHIP_US, 2 * DRIFT_PPM) + GRACE_US
            self.agenda.at(self.agenda.us + wait_us, self._succeed, act, old)

    def _succeed(self, act: Act, old: Controller) -> None:
        if self.controller is not old:
            return
        self._reached(act.kind)
        new = Controller(self.agenda, self._clock("controller"), parts=self._parts, disk=old.disk)
        self.controller = self.wiring.controller = new
        self.wiring.deposed = {name: old for name in GATEWAYS if self.agenda.dice.random() < STALE_SHARE}
        for gateway in self.wiring.gateways.values():
            self.wiring.stream_lost(gateway)
        self._begin_controller()
        self.agenda.at(self.agenda.us + act.for_us, self._forgotten, old)

    def _forgotten(self, old: Controller) -> None:
        old.die()
        if old in self.wiring.deposed.values():
            self.wiring.deposed = {}

    def _drift(self, act: Act) -> None:
        """Applied when the clocks were made."""
        self._reached(act.kind)

    def _node(self, name: str) -> Controller | Gateway | Sidecar:
        if name in self.wiring.gateways:
            return self.wiring.gateways[name]
        return self.wiring.sidecars.get(name, self.controller)


def _better(link: Link) -> None:
    link.slow_us, link.slow_calls_us, link.loss, link.doubled, link.overtaking = 0, 0, 0.0, 0.0, 0


def _healthy(sidecar: Sidecar) -> None:
    sidecar.says = AnchorState.READY


def _start(node: Gateway | Sidecar) -> None:
    node.up = True
    node.begin()


def run(plan: Schedule, parts: Parts, workload: Workload | None = None) -> Outcome:
    """Run a schedule."""
    return _Run(plan, parts, workload or Workload()).ran()
