"""The records about envelopes and contracts, judged: a promise is a theorem, or its client was told.

A COMMIT is granted or rebound under envelopes that are in force at that instant: accepted, not superseded, not suspect,
valid. Afterwards, whenever a lease is renewed, its envelopes are still in force, or they ended not longer ago than the
longest lease, or its session is recorded as degraded.

Logs of earlier software name the envelopes of a COMMIT by one digest over all; of those nothing is judged here.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from aipaging.core.evidence.finding import Invariant, Violation
from aipaging.core.evidence.replay_world import Commit, Phase, Promise, Session, World
from aipaging.core.foundation.time import MS

Record: TypeAlias = Mapping[str, Any]

ROUNDING: Final = 2e-5
"""Bound and epsilon have six digits in a record, each rounded by itself."""

ENDED_PROMISES_MAX: Final = 10_000
"""Promises that are over and whose end is remembered; a renewal under an older one is judged as long over."""

FRESH: Final = frozenset({"PAGED", "RELOCATION"})
"""Causes of grants that were admitted; the others put a COMMIT that is held already under a new epoch."""


def accepted(world: World, record: Record) -> None:
    """ENVELOPE_ACCEPTED: sequence numbers rise, and the one before is over."""
    # Earlier software did not record the segment: then nothing is known to be superseded.
    key = (record["domain"], record.get("segment", f"digest:{record['digest']}"))
    before = world.in_force.get(key)
    if before is not None:
        known = world.promises[before]
        if record["sequence"] <= known.sequence and "segment" in record:
            raise Violation(
                Invariant.CONTRACT,
                f"an envelope of {key[0]} with sequence {record['sequence']} follows one with {known.sequence}",
            )
        del world.promises[before]
        _over(world, before)
    digest = record["digest"]
    world.in_force[key] = digest
    world.promises[digest] = Promise(
        sequence=record["sequence"], from_us=record.get("valid_from_us", 0), until_us=record["valid_until_us"]
    )
    world.changes += 1


def suspected(world: World, record: Record) -> None:
    """ENVELOPE_SUSPECTED: of one in force."""
    promise = _promise(world, record)
    if not promise.suspect:
        promise.suspect, promise.suspected = True, (world.term, world.boot_us)
    world.changes += 1


def cleared(world: World, record: Record) -> None:
    """ENVELOPE_CLEARED: of one that was suspect."""
    promise = _promise(world, record)
    if not promise.suspect:
        raise Violation(Invariant.CONTRACT, f"the envelope {record['digest']} is cleared, and was not suspect")
    promise.suspect = False
    world.changes += 1


def _promise(world: World, record: Record) -> Promise:
    promise = world.promises.get(record["digest"])
    if promise is None:
        raise Violation(Invariant.CONTRACT, f"the envelope {record['digest']} is not in force")
    return promise


def _over(world: World, digest: str) -> None:
    world.over[digest] = (world.term, world.boot_us)
    if len(world.over) > ENDED_PROMISES_MAX:
        world.over.popitem(last=False)


def bind(world: World, commit: Commit, record: Record) -> None:
    """COMMIT_GRANTED: note what the COMMIT rests on; a fresh one rests on what is in force."""
    if "assumptions" not in record or record["envelopes"].startswith("sha256:"):
        return
    commit.epsilon = float(record["epsilon"])
    _rest(world, commit, record, judged=record["cause"] in FRESH)


def rebound(world: World, record: Record) -> None:
    """COMMIT_REBOUND: a live COMMIT rests on other envelopes, which are in force, within the same epsilon."""
    name, epoch = record["session"], (record["epoch_term"], record["epoch_n"])
    world.session(name, Phase.AVAILABLE)
    commit = world.commit(name, epoch)
    if why := world.why_not_live(commit):
        raise Violation(Invariant.CONTRACT, f"the COMMIT {epoch[0]}.{epoch[1]} of {name} is rebound, and {why}")
    if not record["envelopes"].startswith("sha256:"):
        _rest(world, commit, record, judged=True)


def _rest(world: World, commit: Commit, record: Record, *, judged: bool) -> None:
    name = record["session"]
    commit.envelopes = tuple(record["envelopes"].split(","))
    commit.looked = -1
    if not judged:
        return
    for digest in commit.envelopes:
        promise = world.promises.get(digest)
        if promise is None:
            raise Violation(Invariant.CONTRACT, f"the bound of {name} rests on {digest}, which is not in force")
        if promise.suspect:
            raise Violation(Invariant.CONTRACT, f"the bound of {name} rests on {digest}, which is suspect")
        if not promise.from_us <= record["wall_us"] < promise.until_us:
            raise Violation(Invariant.CONTRACT, f"the bound of {name} rests on {digest}, which is not valid then")
    if commit.epsilon and float(record["epsilon_bound"]) > commit.epsilon * (1 + ROUNDING):
        raise Violation(
            Invariant.CONTRACT,
            f"the bound of {name} is {record['epsilon_bound']}, and {commit.epsilon:g} was asked for",
        )


def degraded(world: World, record: Record) -> None:
    """SESSION_DEGRADED: once for every constraint that fails."""
    session = world.session(record["session"], Phase.AVAILABLE)
    if session.degraded == record["constraint"]:
        raise Violation(Invariant.CONTRACT, f"{record['session']} is degraded by {session.degraded} already")
    session.degraded = record["constraint"]


def restored(world: World, record: Record) -> None:
    """SESSION_RESTORED: of one that was degraded."""
    session = world.session(record["session"], Phase.AVAILABLE)
    if not session.degraded:
        raise Violation(Invariant.CONTRACT, f"{record['session']} is restored, and was not degraded")
    session.degraded = ""


def renewed(world: World, session: Session, commit: Commit, *, name: str, wall_us: int) -> None:
    """Judge the promise behind a lease that is renewed."""
    if session.degraded or not commit.envelopes:
        return
    late_us = world.lease_ms_max * MS
    if commit.looked == world.changes and wall_us < commit.valid_until_us + late_us:
        return
    ages = [_over_for_us(world, digest, wall_us) for digest in commit.envelopes]
    if max(ages) > late_us:
        digest = commit.envelopes[ages.index(max(ages))]
        raise Violation(
            Invariant.CONTRACT,
            f"the lease of {name} is renewed under {digest}, which ended more than {late_us} us before, and nobody was "
            "told",
        )
    if not any(ages):
        commit.looked = world.changes
        commit.valid_until_us = min(world.promises[digest].until_us for digest in commit.envelopes)


def _over_for_us(world: World, digest: str, wall_us: int) -> int:
    """Return for how long a promise has been over, 0 if it is in force."""
    promise = world.promises.get(digest)
    if promise is None:
        return _since_us(world, world.over.get(digest, (0, 0)))
    suspect_us = _since_us(world, promise.suspected) if promise.suspect else 0
    return max(suspect_us, wall_us - promise.until_us, 0)


def _since_us(world: World, when: tuple[int, int]) -> int:
    """Return how long ago something was; what was in an earlier term counts from the start of this one."""
    term, boot_us = when
    return max(world.boot_us - (boot_us if term == world.term else world.started_us), 1)
