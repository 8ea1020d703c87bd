"""The records about COMMITs and steering, judged: invariants (a), (c), (d), (e)."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

from aipaging.core.evidence import replay_envelopes, replay_tenancy
from aipaging.core.evidence.finding import Invariant, Violation
from aipaging.core.evidence.replay_world import Commit, EpochPair, Phase, Session, Standing, World

Record: TypeAlias = Mapping[str, Any]
"""A decoded record that fits its type (`core.evidence.record`)."""

_ANY: Final = tuple(Phase)


def granted(world: World, record: Record) -> None:
    """COMMIT_GRANTED."""
    name, cause = record["session"], record["cause"]
    session = world.session(name, Phase.REQUESTED if cause == "PAGED" else Phase.AVAILABLE)
    if session.tenant != record["tenant"]:
        raise Violation(
            Invariant.SESSION, f"the COMMIT is for tenant {record['tenant']}, {name} is of {session.tenant}"
        )
    epoch = _next_epoch(world, session, record)
    _lease_within(world, record["lease_ms"])
    if cause == "RELOCATION":
        _granted_to_target(world, session, record, epoch)
    commit = Commit(
        anchor=record["anchor"],
        domains=tuple(filter(None, record["domains"].split(","))),
        rate_mrps=record["rate_mrps"],
        term=world.term,
        began_us=0,
        deadline_us=0,
    )
    commit.begin(world.boot_us, record["lease_ms"])
    if world.anchors.get(commit.anchor, None) is not None and world.anchors[commit.anchor].state == "REMOVED":
        raise Violation(Invariant.CAPACITY, f"anchor {commit.anchor} was removed")
    world.reserve(session, epoch, commit)
    replay_envelopes.bind(world, commit, record)
    replay_tenancy.may_be_steered(world, session, commit.anchor, what="a COMMIT is granted")
    if session.phase is Phase.REQUESTED:
        replay_tenancy.joined(world, session, record["rate_mrps"])
    session.phase = Phase.AVAILABLE


def renewed(world: World, record: Record, leaves: Iterable[Record]) -> None:
    """LEASES_RENEWED."""
    for leaf in leaves:
        name, epoch = leaf["session"], _epoch(leaf)
        session = world.session(name, Phase.AVAILABLE)
        commit = world.commit(name, epoch)
        if why := world.why_not_live(commit):
            raise Violation(Invariant.STEERING, f"the COMMIT {epoch[0]}.{epoch[1]} of {name} is renewed, and {why}")
        if commit.standing is Standing.DRAINING:
            raise Violation(Invariant.RELOCATION, f"the source of a relocation of {name} is renewed while it drains")
        if leaf["renewal"] <= commit.renewal:
            raise Violation(Invariant.EPOCHS, f"renewal {leaf['renewal']} of {name} follows renewal {commit.renewal}")
        _lease_within(world, leaf["lease_ms"])
        replay_envelopes.renewed(world, session, commit, name=name, wall_us=record["wall_us"])
        commit.renewal = leaf["renewal"]
        commit.begin(world.boot_us, leaf["lease_ms"])


def regranted(world: World, record: Record, leaves: Iterable[Record]) -> None:
    """LEASES_REGRANTED: the reservation of an earlier term goes on under a new epoch."""
    _ = record
    for leaf in leaves:
        name = leaf["session"]
        session = world.session(name, Phase.AVAILABLE)
        replay_tenancy.may_be_steered(world, session, leaf["anchor"], what="a COMMIT is granted anew")
        epoch = _next_epoch(world, session, leaf)
        _lease_within(world, leaf["lease_ms"])
        held = [e for e, commit in session.commits.items() if commit.anchor == leaf["anchor"]]
        void = [e for e in held if session.commits[e].term < world.term]
        live = [e for e in void if session.commits[e].standing is not Standing.ENDED]
        if not live:
            why = "it has ended" if void else "it holds no reservation of an earlier term there"
            invariant = Invariant.STEERING if void else Invariant.CAPACITY
            raise Violation(invariant, f"the COMMIT of {name} at {leaf['anchor']} is granted anew, and {why}")
        old = max(live)
        commit = session.commits.pop(old)
        commit.term, commit.renewal, commit.standing = world.term, 0, Standing.GRANTED
        commit.begin(world.boot_us, leaf["lease_ms"])
        session.commits[epoch] = commit
        if session.relocation is not None and session.relocation.epoch == old:
            session.relocation.epoch = epoch


def ended(world: World, record: Record) -> None:
    """COMMIT_REVOKED or COMMIT_EXPIRED."""
    commit = world.commit(record["session"], _epoch(record))
    commit.standing = Standing.ENDED


def draining(world: World, record: Record) -> None:
    """COMMIT_DRAINING: work in flight may go on, for at most `drain_ms_max`."""
    commit = world.commit(record["session"], _epoch(record))
    if record["drain_ms"] > world.drain_ms_max:
        raise Violation(
            Invariant.RELOCATION, f"the source may drain {record['drain_ms']} ms, the most is {world.drain_ms_max}"
        )
    if commit.standing is Standing.ENDED or commit.term != world.term:
        raise Violation(Invariant.RELOCATION, "the source drains after its COMMIT ended")
    commit.standing = Standing.DRAINING
    commit.drain(world.boot_us, record["drain_ms"])


def installed(world: World, record: Record) -> None:
    """STEER_INSTALLED: only under a live COMMIT, to its anchor."""
    name, epoch = record["session"], _epoch(record)
    session = world.sessions.get(name)
    commit = session.commits.get(epoch) if session is not None else None
    if session is None or commit is None:
        raise Violation(
            Invariant.STEERING, f"{name} is steered by epoch {epoch[0]}.{epoch[1]}, which is no COMMIT of it"
        )
    if session.phase is not Phase.AVAILABLE:
        raise Violation(Invariant.STEERING, f"{name} is steered after it ended")
    if why := world.why_not_live(commit):
        raise Violation(Invariant.STEERING, f"{name} is steered by a COMMIT that {why}")
    replay_tenancy.may_be_steered(world, session, commit.anchor, what="steering is installed")
    if commit.anchor != record["anchor"]:
        raise Violation(
            Invariant.STEERING, f"{name} is steered to {record['anchor']}, its COMMIT is for {commit.anchor}"
        )
    relocation = session.relocation
    if relocation is not None and relocation.epoch == epoch and relocation.phase == "RELOCATION_DECIDED":
        raise Violation(Invariant.RELOCATION, f"{name} is steered to a target that is not prepared")
    if commit.standing is Standing.DRAINING:
        raise Violation(Invariant.RELOCATION, f"{name} is steered to the source after the switch")


def released(world: World, record: Record) -> None:
    """RESERVATION_RELEASED: not before the last holder has let go."""
    name, epoch = record["session"], _epoch(record)
    session = world.session(name, *_ANY)
    commit = session.commits.get(epoch)
    if commit is None or commit.anchor != record["anchor"]:
        raise Violation(Invariant.RELEASE, f"{name} holds no reservation at {record['anchor']} under this epoch")
    early_us = world.release_us(commit) - world.boot_us
    if early_us > 0:
        raise Violation(Invariant.RELEASE, f"the reservation of {name} is released {early_us} us too early")
    world.release(session, epoch)
    world.forget(name, session)


def _epoch(record: Record) -> EpochPair:
    return record["epoch_term"], record["epoch_n"]


def _next_epoch(world: World, session: Session, record: Record) -> EpochPair:
    """Return the epoch of a grant, which must be of this term and above every epoch of the session."""
    epoch = _epoch(record)
    if epoch[0] != world.term:
        raise Violation(Invariant.EPOCHS, f"epoch {epoch[0]}.{epoch[1]} is granted in term {world.term}")
    if epoch <= session.highest:
        highest = session.highest
        raise Violation(
            Invariant.EPOCHS,
            f"epoch {epoch[0]}.{epoch[1]} of {record['session']} is not above {highest[0]}.{highest[1]}",
        )
    session.highest = epoch
    return epoch


def _lease_within(world: World, lease_ms: int) -> None:
    if lease_ms > world.lease_ms_max:
        # What is held after a restart rests on this limit.
        raise Violation(Invariant.RELEASE, f"a lease of {lease_ms} ms is granted, the most is {world.lease_ms_max}")


def _granted_to_target(world: World, session: Session, record: Record, epoch: EpochPair) -> None:
    relocation = session.relocation
    if relocation is None or relocation.phase != "RELOCATION_DECIDED" or relocation.epoch is not None:
        raise Violation(Invariant.RELOCATION, "a target is granted, and no relocation has just been decided")
    if relocation.target != record["anchor"]:
        raise Violation(
            Invariant.RELOCATION, f"{record['anchor']} is granted, the relocation goes to {relocation.target}"
        )
    relocation.epoch = epoch
    relocation.source_lived = serves(world, session, relocation.source, but=epoch)


def serves(world: World, session: Session, anchor: str, *, but: EpochPair) -> bool:
    """Tell whether the session has a live COMMIT at the anchor, other than the one of epoch `but`."""
    return any(
        epoch != but and commit.anchor == anchor and world.why_not_live(commit) is None
        for epoch, commit in session.commits.items()
    )
