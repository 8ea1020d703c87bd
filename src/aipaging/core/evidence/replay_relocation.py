"""The records about relocations, judged: invariant (b), make-before-break.

The order is a table. What the table cannot say is checked at SWITCHED: the target's COMMIT is live, and the source
served until it was taken over, unless its anchor was lost.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from aipaging.core.evidence.finding import Invariant, Violation
from aipaging.core.evidence.replay_leases import serves
from aipaging.core.evidence.replay_world import Phase, Relocation, Session, Standing, World

FOLLOWS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "RELOCATION_DECIDED": frozenset({"RELOCATION_DETECTED"}),
        "RELOCATION_TARGET_PREPARED": frozenset({"RELOCATION_DECIDED"}),
        "RELOCATION_SWITCHED": frozenset({"RELOCATION_TARGET_PREPARED"}),
        "RELOCATION_SOURCE_RELEASED": frozenset({"RELOCATION_SWITCHED"}),
        "RELOCATION_FAILED": frozenset({"RELOCATION_DETECTED", "RELOCATION_DECIDED", "RELOCATION_TARGET_PREPARED"}),
    }
)
"""Phase -> the phases that it may follow; after SWITCHED a relocation cannot fail."""

OVER: Final = frozenset({"RELOCATION_SOURCE_RELEASED", "RELOCATION_FAILED"})
"""The phases that close a relocation."""


def advanced(world: World, record: Mapping[str, Any]) -> None:
    """Any RELOCATION_… record."""
    name, phase = record["session"], record["type"]
    session = world.session(name, Phase.AVAILABLE, *([Phase.ENDED] if phase in OVER else []))
    if phase == "RELOCATION_DETECTED":
        _detected(session, record)
        return
    relocation = session.relocation
    if relocation is None or relocation.number != record["relocation"]:
        raise Violation(Invariant.RELOCATION, f"relocation {record['relocation']} of {name} was never detected")
    if relocation.phase not in FOLLOWS[phase]:
        raise Violation(Invariant.RELOCATION, f"{phase} follows {relocation.phase} in a relocation of {name}")
    if relocation.source != record["source"]:
        raise Violation(Invariant.RELOCATION, f"the source changes from {relocation.source} to {record['source']}")
    if phase == "RELOCATION_DECIDED":
        relocation.target = record["target"]
    elif phase != "RELOCATION_FAILED":
        _made(world, session, relocation, record)
    relocation.phase = phase
    if phase in OVER:
        session.relocation = None


def _detected(session: Session, record: Mapping[str, Any]) -> None:
    if session.relocation is not None:
        raise Violation(
            Invariant.RELOCATION,
            f"a relocation of {record['session']} begins while {session.relocation.number} is in "
            f"{session.relocation.phase}",
        )
    session.relocation = Relocation(
        number=record["relocation"],
        phase=record["type"],
        cause=record["cause"],
        source=record["source"],
        target=record["target"],
    )


def _made(world: World, session: Session, relocation: Relocation, record: Mapping[str, Any]) -> None:
    """Check TARGET_PREPARED, SWITCHED or SOURCE_RELEASED against what was made."""
    name, phase = record["session"], record["type"]
    if relocation.target != record["target"]:
        raise Violation(Invariant.RELOCATION, f"the target changes from {relocation.target} to {record['target']}")
    if phase == "RELOCATION_SOURCE_RELEASED":
        return
    commit = session.commits.get(relocation.epoch) if relocation.epoch is not None else None
    if commit is None:
        raise Violation(Invariant.RELOCATION, f"{phase}, and no COMMIT was granted to the target of {name}")
    if why := world.why_not_live(commit):
        raise Violation(Invariant.RELOCATION, f"{phase}, and the COMMIT of the target of {name} {why}")
    if phase == "RELOCATION_SWITCHED":
        _switched(world, session, relocation, name)


def _switched(world: World, session: Session, relocation: Relocation, name: str) -> None:
    if relocation.epoch != session.highest:
        raise Violation(Invariant.EPOCHS, f"{name} is switched to an epoch below one that was granted since")
    _source_served(world, session, relocation, name)
    for epoch, source in session.commits.items():
        if source.anchor == relocation.source and epoch != relocation.epoch and source.standing is Standing.GRANTED:
            source.standing = Standing.DRAINING


def _source_served(world: World, session: Session, relocation: Relocation, name: str) -> None:
    source = world.anchors.get(relocation.source)
    if relocation.cause == "ANCHOR_LOST" or (source is not None and source.state in {"LOST", "REMOVED"}):
        return
    if relocation.epoch is None or not relocation.source_lived:
        raise Violation(
            Invariant.RELOCATION, f"the COMMIT of the source of {name} was not live when the target was granted"
        )
    if not serves(world, session, relocation.source, but=relocation.epoch):
        raise Violation(Invariant.RELOCATION, f"the COMMIT of the source of {name} ended before the switch")
