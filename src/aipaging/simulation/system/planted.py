"""How the planted bugs of `mutants` are planted: what each replaces, and by what.

Every function returns `(object, attribute, replacement)` triples, or other parts for a run.
"""

from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from msgspec import structs

from aipaging.core.anchor import eligibility
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.time import MS
from aipaging.core.lease.expiry import Due, ExpiryQueue
from aipaging.core.lease.holder import HolderTerms, LeaseHolder, Verdict
from aipaging.core.lease.machine import LeaseTerms
from aipaging.core.paging import commands as c
from aipaging.core.paging import due, operate, relocation
from aipaging.core.paging import evolve as evolution
from aipaging.core.paging import step as deciding
from aipaging.core.paging.effects import RevokeSteering
from aipaging.core.paging.events import CommitRevoked, LeasesRenewed, Renewal
from aipaging.core.paging.state import OthersReserved
from aipaging.core.steering.grant import Fence
from aipaging.simulation.system import cache, controller, driver, engine, gateway, sidecar
from aipaging.simulation.system.parts import Parts

Patch = tuple[Any, str, Any]
"""(object, attribute, replacement)."""


# -- fencing and epochs


def any_epoch() -> list[Patch]:
    """Plant it: any epoch."""
    original = LeaseHolder.sight

    def sight(self: LeaseHolder, session: Any, epoch: Epoch, now_us: Any) -> Verdict:
        verdict = original(self, session, epoch, now_us)
        return Verdict.ADMIT if verdict is Verdict.FENCED and not self.must_cut(session, epoch, now_us) else verdict

    return [(LeaseHolder, "sight", sight)]


def term_stays() -> list[Patch]:
    """Plant it: term stays."""
    original = operate.start_term

    def start_term(state: Any, command: Any, now: Any) -> Any:
        decision = original(state, command, now)
        term = max(state.term, 1)
        before: list[Any] = list(decision.events)
        events: list[Any] = []
        for event in before:
            if hasattr(event, "term"):
                events.append(replace(event, term=term))
            elif hasattr(event, "regrants"):
                regrants = tuple(replace(each, epoch=Epoch(term, each.epoch.n)) for each in event.regrants)
                events.append(replace(event, regrants=regrants))
            else:
                events.append(event)
        decision.events = events
        return decision

    return stepping(c.StartTerm, start_term)


def renew_any_epoch() -> list[Patch]:
    """A renewal names the session's newest epoch, whatever epoch it was asked for."""

    def renewed(state: Any, event: LeasesRenewed) -> None:
        for renewal in event.renewals:
            session = state.sessions[renewal.session]
            lease = session.lease
            longer = structs.replace(
                lease,
                granted_us=event.boot_us,
                deadline_us=event.boot_us + renewal.lease_ms * MS,
                renewal=renewal.renewal,
            )
            state.sessions[renewal.session] = structs.replace(session, lease=longer)
            evolution.arm_renewal(state, renewal.session, longer)

    def renew(work: Any, session: Any, epoch: Epoch) -> None:
        lease = session.lease
        if lease is None or not session.available:
            return
        granted_ms = work.state.settings.lease.lease_ms
        work.renewals.append(
            Renewal(session=session.session, epoch=epoch, renewal=lease.renewal + 1, lease_ms=granted_ms)
        )
        work.touched.add(session.session)

    return [*handling(Due.RENEW, renew), *evolving(LeasesRenewed, renewed)]


# -- time


def from_the_answer() -> list[Patch]:
    """Plant it: from the answer."""
    original = cache.read_answer

    def read_answer(answer: Any, asked_us: int, now_us: int) -> Any:
        del asked_us
        return original(answer, now_us, now_us)

    return [(cache, "read_answer", read_answer)]


def no_margin() -> list[Patch]:
    """Plant it: no margin."""
    return [(cache, "DRIFT_PPM", 0), (controller, "DRIFT_PPM", 0)]


def no_margin_parts(parts: Parts) -> Parts:
    """Plant it: no margin parts."""

    def remaining(state: Any, anchor: Any, session_id: Any, *, asked: Epoch, now: Any) -> Any:
        found = parts.remaining(state, anchor, session_id, asked=asked, now=now)
        session = state.sessions.get(session_id)
        lease = session.lease_of(found.current) if session is not None else None
        if found.state == "ENDED" or lease is None:
            return found
        return replace(found, remaining_ms=-(-(lease.deadline_us - now.boot_us) // MS))

    return replace(parts, remaining=remaining, holder=lambda: LeaseHolder(terms=HolderTerms(drift_ppm=0)))


def from_a_receipt() -> list[Patch]:
    """Plant it: from a receipt."""
    original = LeaseHolder.sight

    def sight(self: LeaseHolder, session: Any, epoch: Epoch, now_us: Any) -> Verdict:
        verdict = original(self, session, epoch, now_us)
        held = self._held[session]  # pyright: ignore[reportPrivateUsage]
        if verdict is Verdict.ASK and held.granted != epoch:
            held.granted, held.deadline_us = epoch, now_us + 800 * MS
            held.ask_at_us = now_us + 400 * MS
            return Verdict.ADMIT
        return verdict

    return [(LeaseHolder, "sight", sight)]


def survives_suspend() -> list[Patch]:
    """Plant it: survives suspend."""

    def clock_us(self: gateway.Gateway) -> int:
        return self.boot_us - self.clock.slept_us

    return [(gateway.Gateway, "clock_us", clock_us)]


def used_when_silent() -> list[Patch]:
    """Plant it: used when silent."""

    def still_held(self: gateway.Gateway, entry: cache.Entry) -> bool:
        return self.cache.is_live(entry)

    def usable(self: cache.LeaseCache, session: Any, now_us: int) -> cache.Entry | None:
        del now_us
        entry = self.entries.get(session)
        return entry if entry is not None and self.is_live(entry) else None

    return [(gateway.Gateway, "still_held", still_held), (cache.LeaseCache, "usable", usable)]


def never_cut() -> list[Patch]:
    """Plant it: never cut."""

    def must_cut(self: sidecar.Sidecar, request: Any) -> bool:
        del self, request
        return False

    return [(sidecar.Sidecar, "must_cut", must_cut)]


def renew_after_expiry() -> list[Patch]:
    """Plant it: renew after expiry."""
    original = due._HANDLERS[Due.RENEW]  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

    def renew(work: Any, session: Any, epoch: Epoch) -> None:
        lease = session.lease_of(epoch)
        if lease is not None and lease.deadline_us <= work.now.boot_us and session.available:
            session = structs.replace(session, lease=structs.replace(lease, deadline_us=work.now.boot_us + 1))
        original(work, session, epoch)

    def pop_due(self: Any, until_us: Any) -> Any:
        # Renewals come first, whatever has expired meanwhile.
        late = list(iter(lambda: pop(self, until_us), None))
        first = next((entry for entry in late if entry[1] is Due.RENEW), late[0] if late else None)
        for when_us, why, subject, epoch in late:
            if first is None or (when_us, why, subject, epoch) != first:
                self.add(when_us, why, subject, epoch=epoch)
        return first

    queue = ExpiryQueue
    pop = queue.pop_due
    return [*handling(Due.RENEW, renew), (queue, "pop_due", pop_due)]


# -- capacity


def _nothing(*_: object) -> int:
    return 0


def free_at_deadline() -> list[Patch]:
    """Plant it: free at deadline."""

    def release_us(self: LeaseTerms, granted_us: int, deadline_us: int) -> int:
        del self, granted_us
        return deadline_us

    return [(LeaseTerms, "release_us", release_us)]


def free_on_revoke() -> list[Patch]:
    """Plant it: free on revoke."""

    def release_us(self: LeaseTerms, granted_us: int, deadline_us: int) -> int:
        del self, deadline_us
        return granted_us

    return [(LeaseTerms, "release_us", release_us)]


def not_held_over_terms() -> list[Patch]:
    """Plant it: not held over terms."""
    return [(evolution, "stretched_us", _nothing)]


def sold_twice() -> list[Patch]:
    """Plant it: sold twice."""
    return [(OthersReserved, "anchor_mrps", _nothing)]


# -- relocation


def source_first() -> list[Patch]:
    """Plant it: source first."""
    original = relocation.target_prepared

    def target_prepared(state: Any, command: Any, now: Any) -> Any:
        decision = original(state, command, now)
        session = state.sessions.get(command.session)
        if decision.effects and session is not None and session.lease is not None:
            lease = session.lease
            decision.events.append(
                CommitRevoked(session=session.session, epoch=lease.epoch, cause="RELOCATED", boot_us=now.boot_us)
            )
            fence = Fence(session=session.session, epoch=lease.epoch, keep_until_us=lease.deadline_us)
            decision.effects.insert(0, RevokeSteering(fences=(fence,)))
        return decision

    return stepping(c.TargetPrepared, target_prepared)


def drains_for_ever() -> list[Patch]:
    """Plant it: drains for ever."""
    original = due._HANDLERS[Due.EXPIRE]  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

    def expire(work: Any, session: Any, epoch: Epoch) -> None:
        if session.source is None or session.source.epoch != epoch:
            original(work, session, epoch)

    return handling(Due.EXPIRE, expire)


def drains_for_ever_parts(parts: Parts) -> Parts:
    """Plant it: drains for ever parts."""

    def remaining(state: Any, anchor: Any, session_id: Any, *, asked: Epoch, now: Any) -> Any:
        found = parts.remaining(state, anchor, session_id, asked=asked, now=now)
        session = state.sessions.get(session_id)
        if session is not None and session.source is not None and session.source.anchor == anchor:
            return replace(found, state="DRAINING", remaining_ms=800, current=session.source.epoch)
        return found

    return replace(parts, remaining=remaining)


def relocate_unprepared() -> list[Patch]:
    """Plant it: relocate unprepared."""

    def prepare(self: driver.Effects, effect: Any) -> None:
        session = self._engine.state.sessions[effect.session]  # pyright: ignore[reportPrivateUsage]
        if session.target is not None:
            grant = self._parts.grant(session, session.target)  # pyright: ignore[reportPrivateUsage]
            self._driver.install([grant], lambda: None, lambda _: None)  # pyright: ignore[reportPrivateUsage]

    return [(driver.Effects, "_prepare", prepare)]


# -- durability and leadership


def before_the_sync() -> list[Patch]:
    """Plant it: before the sync."""
    original = engine.Engine.enqueued

    def enqueued(self: engine.Engine, item: engine.Item) -> None:
        self.settle(item)
        original(self, replace(item))

    def settled(self: engine.Engine, item: engine.Item) -> None:
        if id(item) not in done:
            done.add(id(item))
            kept.append(item)
            settle(self, item)

    done: set[int] = set()
    kept: list[engine.Item] = []
    settle = engine.Engine.settle
    return [(engine.Engine, "enqueued", enqueued), (engine.Engine, "settle", settled)]


def reads_do_not_wait() -> list[Patch]:
    """Plant it: reads do not wait."""

    def view(self: engine.Engine, read: Any, seen: Any, failed: Any) -> None:
        del failed
        seen(read(self.state, self._node.now()))  # pyright: ignore[reportPrivateUsage]

    return [(engine.Engine, "view", view)]


def deposed_answers() -> list[Patch]:
    """Plant it: deposed answers."""

    def gate(self: controller.Controller) -> bool:
        return self.engine.ready

    return [(controller.Controller, "gate", gate)]


def not_on_record() -> list[Patch]:
    """The first answer to a gateway is given without a record of it."""

    def installed(self: controller.Controller, steered: Any, gateway: Any, done: Any, *_: Any) -> None:
        self.driver.table.took_up(steered, gateway)
        done()

    return [(controller.Controller, "_installed", installed)]


def no_record_of_ends() -> list[Patch]:
    """Plant it: no record of ends."""
    original = engine.Engine._apply  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

    def apply(self: engine.Engine, events: Any, now: Any, entries: Any) -> None:
        for event in events:
            if isinstance(event, CommitRevoked):
                evolution.evolve(self.state, event)
            else:
                original(self, [event], now, entries)

    return [(engine.Engine, "_apply", apply)]


# -- the revocation list


def list_replaced() -> list[Patch]:
    """Plant it: list replaced."""

    def absorb(self: cache.LeaseCache, told: str) -> None:
        fresh = cache.LeaseCache()
        absorbed(fresh, told)
        self.generation, self.fences = fresh.generation, fresh.fences
        self.version += 1

    absorbed = cache.LeaseCache.absorb
    return [(cache.LeaseCache, "absorb", absorb)]


def not_pushed() -> list[Patch]:
    """Plant it: not pushed."""

    def fence(self: driver.Driver, fences: Any, done: Any, failed: Any, *, known: bool) -> None:
        original(self, [], done, failed, known=known)
        gateways = {name: each.gateway.life for name, each in self.streams.items()}
        for each in fences:
            self._observer.confirmed(each.session, each.epoch, gateways)  # pyright: ignore[reportPrivateUsage]

    original = driver.Driver._fence  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    return [(driver.Driver, "_fence", fence)]


def unjudged_answers() -> list[Patch]:
    """Plant it: unjudged answers."""

    def accept(self: cache.LeaseCache, answer: Any, asked_us: int, now_us: int) -> cache.Entry | None:
        entry = cache.read_answer(answer, asked_us, now_us)
        entry.version = self.version
        return entry if entry.deadline_us > now_us else None

    return [(cache.LeaseCache, "accept", accept)]


# -- what is promised, and what was really wrong once


def any_bound() -> list[Patch]:
    """Plant it: any bound."""
    checks = tuple((name, check) if name != "DELAY" else (name, _bound_only) for name, check in eligibility.CHECKS)
    return [(eligibility, "CHECKS", checks)]


_DELAY: Final = dict(eligibility.CHECKS)["DELAY"]


def _bound_only(look: Any) -> None:
    _DELAY(look)


def token_of_the_grant() -> list[Patch]:
    """Found by this simulator: an extended session was refused at its first end, for the table kept its first token."""

    def token_us(self: controller.Controller, steered: Any, now: Any) -> int:
        del self
        return int(steered.token_expires_us - now.wall_us)

    return [(controller.Controller, "token_us", token_us)]


def stepping(command: type[Any], decide: Callable[..., Any]) -> list[Patch]:
    """Return the patch that has a command decided otherwise."""
    table = {**deciding._STEPS, command: decide}  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    return [(deciding, "_STEPS", MappingProxyType(table))]


def handling(why: Due, handler: Callable[..., None]) -> list[Patch]:
    """Return the patch that has what is due done otherwise."""
    table = {**due._HANDLERS, why: handler}  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    return [(due, "_HANDLERS", MappingProxyType(table))]


def evolving(event: type[Any], change: Callable[..., None]) -> list[Patch]:
    """Return the patch that has an event change the state otherwise."""
    table = {**evolution._EVOLVERS, event: change}  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    return [(evolution, "_EVOLVERS", MappingProxyType(table))]


def reconcile_overtakes(parts: Parts) -> Parts:
    """Found by this simulator: a term that reached the table late put a relocation's source back over its target."""

    def table() -> Any:
        made: Any = parts.table()
        begin = made.begin

        def forgetful(_self: Any, term: int, grants: Any) -> None:
            made._sessions = {}  # noqa: SLF001
            begin(term, grants)

        kind = type("ForgetfulTable", (type(made),), {"begin": forgetful})
        made.__class__ = kind
        return made

    return replace(parts, table=table)
