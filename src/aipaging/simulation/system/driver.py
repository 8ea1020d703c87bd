"""The steering driver of the gateways, and who carries the engine's effects out: models without tasks.

After `adapters.steering.envoy.driver`, `.ads` and `runtime.effects`. The table, the list and the feed are the parts
that the run was given. A push is confirmed when every connected gateway has acknowledged it and its workers have had
time to follow; a gateway that is not connected holds what it has until the COMMIT's deadline.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import AipagingError, RefusedError, UnavailableError
from aipaging.core.foundation.names import AnchorId, SessionId
from aipaging.core.foundation.time import MS, SECOND, BootUs
from aipaging.core.paging import commands as c
from aipaging.core.paging import effects as x
from aipaging.core.steering.grant import Fence, SteeringGrant
from aipaging.simulation.system.engine import Engine, Failed, nobody
from aipaging.simulation.system.kernel import Node
from aipaging.simulation.system.parts import Parts, Steered

CONFIRM_US_MAX: Final = 2 * SECOND
WORKERS_APPLY_US: Final = 20 * MS
FENCE_KEPT_US: Final = 1 * SECOND
PLACE_US_MAX: Final = 20 * MS
"""Telling the gateways about anchors takes a round trip; anchors are known to every gateway here."""

RESTRICT_US_MAX: Final = 2 * SECOND

Done = Callable[[], None]


class Wires(Protocol):
    """What the driver and the effects send."""

    def push(self, stream: "Stream", revision: int, revoked: str) -> None:
        """Send the list to a gateway."""
        ...

    def prepare(self, target: AnchorId, done: Done, failed: Done, limit_us: int) -> None:
        """Ask a sidecar whether it is ready."""
        ...


class Observer(Protocol):
    """Who sees, from outside, what was confirmed."""

    def confirmed(self, session: SessionId, epoch: Epoch, gateways: dict[str, int]) -> None:
        """No gateway of these (by name, with its life) starts a request under the epoch or a lower one any more."""
        ...


@dataclass(slots=True)
class Stream:
    """One gateway's subscription."""

    gateway: Node
    number: int
    acknowledged: int = 0


@dataclass(slots=True)
class _Waiting:
    revision: int
    done: Done
    over: bool = False


class Driver:
    """Steers by the table, the list and the feed."""

    def __init__(self, node: Node, parts: Parts, wires: Wires, observer: Observer) -> None:
        self.table = parts.table()
        self.revocations = parts.revocations()
        self.feed = parts.feed()
        self.streams: dict[str, Stream] = {}
        self.opened = False
        self.on_feed: Done = nobody
        self._node = node
        self._wires = wires
        self._observer = observer
        self._revision = 1
        self._revoked = ""
        self._waiting: list[_Waiting] = []

    def install(self, grants: Sequence[SteeringGrant], done: Done, failed: Failed) -> None:
        """Steer these sessions; see the port."""
        now_us = self._node.boot_us
        try:
            self.table.check(grants, now_us)
        except AipagingError as error:
            failed(error)
            return
        known = any(self.table.knows(grant.session) for grant in grants)
        replaced: list[Steered] = [old for grant in grants if (old := self.table.put(grant)) is not None]
        fences = [
            Fence(session=old.session, epoch=old.epoch, keep_until_us=BootUs(old.deadline_us + FENCE_KEPT_US))
            for old in replaced
            if old.gateways and old.deadline_us > now_us
        ]
        self._fence(fences, done, failed, known=known)

    def revoke(self, fences: Sequence[Fence], done: Done, failed: Failed) -> None:
        """Stop steering these epochs; see the port."""
        now_us = self._node.boot_us
        self.feed.add(fences)
        known = any(self.table.knows(fence.session) for fence in fences)
        removed = [(fence, self.table.remove(fence, now_us)) for fence in fences]
        held = [fence for fence, old in removed if old is not None and old.gateways and old.deadline_us > now_us]
        self._fence(held, done, failed, known=known)
        self.on_feed()

    def reconcile(self, term: int, grants: Sequence[SteeringGrant], done: Done, failed: Failed) -> None:
        """Begin a term; see the port."""
        self.table.begin(term, grants)
        self.revocations.begin(term)
        self.feed.begin(term)
        self._publish()
        self.opened = True
        for stream in self.streams.values():
            self._wires.push(stream, self._revision, self._revoked)
        self._confirm(done, failed)
        self.on_feed()

    # -- gateways

    def subscribed(self, gateway: Node, number: int) -> None:
        """Take a gateway's stream, and tell it what is in force."""
        stream = Stream(gateway, number)
        self.streams[gateway.name] = stream
        if self.opened:
            self._wires.push(stream, self._revision, self._revoked)

    def left(self, gateway: str, number: int) -> None:
        """A gateway's stream broke."""
        stream = self.streams.get(gateway)
        if stream is not None and stream.number == number:
            del self.streams[gateway]
            self._progress()

    def acknowledged(self, gateway: str, number: int, revision: int) -> None:
        """A gateway has taken a list over."""
        stream = self.streams.get(gateway)
        if stream is not None and stream.number == number:
            stream.acknowledged = max(stream.acknowledged, revision)
            self._progress()

    def _fence(self, fences: list[Fence], done: Done, failed: Failed, *, known: bool) -> None:
        if fences and self.revocations.add(fences, self._node.boot_us):
            self._publish()
        if not (fences or known):
            done()
            return

        revision = self._revision

        def in_force() -> None:
            streams = self.streams.items()
            gateways = {name: each.gateway.life for name, each in streams if each.acknowledged >= revision}
            for fence in fences:
                self._observer.confirmed(fence.session, fence.epoch, gateways)
            done()

        self._confirm(in_force, failed)

    def _publish(self) -> None:
        self._revoked = self.revocations.encoded()
        self._revision += 1
        if self.opened:
            for stream in self.streams.values():
                self._wires.push(stream, self._revision, self._revoked)

    def _confirm(self, done: Done, failed: Failed) -> None:
        if not self.opened or not self.streams:
            done()
            return
        waiting = _Waiting(self._revision, done)
        self._waiting.append(waiting)

        def late() -> None:
            if not waiting.over:
                waiting.over = True
                self._waiting.remove(waiting)
                failed(UnavailableError("a gateway did not confirm", code="GATEWAY_SILENT"))

        self._node.after(CONFIRM_US_MAX, late)
        self._progress()

    def _progress(self) -> None:
        least = min((stream.acknowledged for stream in self.streams.values()), default=self._revision)
        for waiting in [each for each in self._waiting if each.revision <= least]:
            waiting.over = True
            self._waiting.remove(waiting)
            self._node.after(WORKERS_APPLY_US, waiting.done)


class Effects:
    """The effects of one engine on the driver and the sidecars."""

    def __init__(self, node: Node, engine: Engine, driver: Driver, *, wires: Wires, parts: Parts) -> None:
        self._node = node
        self._parts = parts
        self._engine = engine
        self._driver = driver
        self._wires = wires

    def restrict(self, effects: Sequence[x.RevokeSteering], done: Done) -> None:
        """Fence at once; done when in force, or when that took too long."""
        fences = [fence for effect in effects for fence in effect.fences]
        once = _Once(done)
        self._node.after(RESTRICT_US_MAX, once)
        self._driver.revoke(fences, once, once)

    def permit(self, effects: Sequence[x.Effect], done: Done, failed: Failed) -> None:
        """Carry permissive effects out, one after the other."""
        if not effects:
            done()
            return
        effect, rest = effects[0], effects[1:]

        def on() -> None:
            self.permit(rest, done, failed)

        if isinstance(effect, x.InstallSteering):
            self._install(effect.session, effect.epoch, on, failed)
        elif isinstance(effect, x.ReconcileSteering):
            self._reconcile(effect.term, on, failed)
        elif isinstance(effect, x.PlaceAnchors):
            self._node.after(int(self._node.agenda.dice.random() * PLACE_US_MAX), on)
        else:
            self._begun(effect)
            on()

    def _begun(self, effect: x.Effect) -> None:
        """Begin what nobody waits for."""
        if isinstance(effect, x.RenewSteering):
            for renewal in effect.renewals:
                self._driver.table.renew(renewal)
        elif isinstance(effect, x.PrepareTarget):
            self._prepare(effect)
        elif isinstance(effect, x.SwitchSteering):
            self._switch(effect)
        else:
            raise TypeError(f"{type(effect).__name__} is not a permissive effect")

    def _granted(self, session_id: SessionId, epoch: Epoch) -> SteeringGrant | None:
        session = self._engine.state.sessions.get(session_id)
        lease = session.lease_of(epoch) if session is not None else None
        if session is None or lease is None or not lease.live:
            return None
        return self._parts.grant(session, lease)

    def _install(self, session: SessionId, epoch: Epoch, done: Done, failed: Failed) -> None:
        grant = self._granted(session, epoch)
        if grant is None:
            done()
            return

        def broken(error: AipagingError) -> None:
            if isinstance(error, UnavailableError | RefusedError):
                self._engine.submit(c.SteeringFailed(session=session, epoch=epoch, message=error.message))
            failed(error)

        self._driver.install([grant], done, broken)

    def _reconcile(self, term: int, done: Done, failed: Failed) -> None:
        sessions = self._engine.state.sessions.values()
        live = [self._parts.grant(s, s.lease) for s in sessions if s.available and s.lease is not None and s.lease.live]
        try:
            self._driver.reconcile(term, live, done, failed)
        except AipagingError as error:
            failed(error)

    def _prepare(self, effect: x.PrepareTarget) -> None:
        limit_us = self._engine.state.settings.prepare_ms_max * MS

        def done() -> None:
            self._engine.submit(c.TargetPrepared(session=effect.session, number=effect.number))

        def failed() -> None:
            self._broken(effect.session, effect.number)

        self._wires.prepare(effect.target, done, failed, limit_us)

    def _switch(self, effect: x.SwitchSteering) -> None:
        grant = self._granted(effect.session, effect.epoch)
        if grant is None:
            return
        over = [False]

        def done() -> None:
            if not over[0]:
                over[0] = True
                self._engine.submit(c.SwitchConfirmed(session=effect.session, number=effect.number))

        def failed(*_: Any) -> None:
            if not over[0]:
                over[0] = True
                self._broken(effect.session, effect.number)

        self._node.after(self._engine.state.settings.prepare_ms_max * MS, failed)
        self._driver.install([grant], done, failed)

    def _broken(self, session: SessionId, number: int) -> None:
        self._engine.submit(c.RelocationBroken(session=session, number=number, message="not in time"))


class _Once:
    """A continuation that goes on once."""

    __slots__ = ("_done", "_over")

    def __init__(self, done: Done) -> None:
        self._done = done
        self._over = False

    def __call__(self, *_: object) -> None:
        if not self._over:
            self._over = True
            self._done()
