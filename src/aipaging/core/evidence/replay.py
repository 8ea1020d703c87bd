"""The replay of the invariants over a stream of records.

    (a) steering only under a live COMMIT     (e) reservations freed only after deadline, drift and grace
    (b) relocation makes before it breaks     (f) sessions are requested, granted, ended, and then nothing
    (c) epochs and terms rise                 (g) order: within a term the clock does not go back
    (d) capacity is not sold twice           (h) every bound rests on envelopes in force, or its client was told
    (i) quotas hold, what was killed is not steered, and only a higher class displaces

Each record costs O(1) (a batch, O(its leaves)); memory follows the live sessions. The hash chain and the tree are
`core.evidence.verify`'s; records that reach the replay fit the schema. The replay stops at the first violation:
what follows from a broken state says nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from aipaging.core.evidence import replay_envelopes, replay_leases, replay_relocation, replay_tenancy
from aipaging.core.evidence.finding import Finding, Invariant, Violation
from aipaging.core.evidence.replay_world import Capacity, Phase, Session, World
from aipaging.core.foundation.time import MS

Record = Mapping[str, Any]


class Replay:
    """Reads records one after the other and says when one breaks an invariant.

    Attributes:
        finding: The first violation, or None so far.
    """

    __slots__ = ("_world", "finding")

    def __init__(self) -> None:
        self._world = World()
        self.finding: Finding | None = None

    @property
    def sessions(self) -> int:
        """How many sessions were requested or refused."""
        return self._world.seen

    def feed(self, record: Record, leaves: Iterable[Record] = ()) -> None:
        """Judge the next record; after a violation nothing is judged any more."""
        if self.finding is not None:
            return
        record_type: str = record["type"]
        try:
            _in_order(self._world, record)
            batch = _BATCHES.get(record_type)
            if batch is not None:
                batch(self._world, record, leaves)
            else:
                _SINGLES[record_type](self._world, record)
        except Violation as violation:
            self.finding = Finding(
                seq=record["seq"], type=record_type, what=violation.what, invariant=violation.invariant
            )


def _in_order(world: World, record: Record) -> None:
    if record["type"] == "TERM_STARTED":
        return
    if record["term"] != world.term:
        raise Violation(Invariant.EPOCHS, f"a record of term {record['term']} in term {world.term}, which never ended")
    if record["boot_us"] < world.boot_us:
        raise Violation(Invariant.ORDER, f"the boot clock goes back by {world.boot_us - record['boot_us']} us")
    if record["node"] != world.node or record["boot"] != world.boot:
        raise Violation(Invariant.ORDER, "another node or boot writes without having started a term")
    world.boot_us = record["boot_us"]


def _term_started(world: World, record: Record) -> None:
    term = record["term"]
    if term <= world.term or record["previous_term"] != world.term:
        raise Violation(
            Invariant.EPOCHS,
            f"term {term} (after {record['previous_term']}) starts, and the log is in term {world.term}",
        )
    world.term = term
    world.node, world.boot = record["node"], record["boot"]
    world.boot_us = world.started_us = record["boot_us"]
    world.drift_ppm, world.grace_us = record["drift_ppm"], record["grace_ms"] * MS
    world.drain_ms_max, world.lease_ms_max = record["drain_ms_max"], record["lease_ms_max"]


def _domain_registered(world: World, record: Record) -> None:
    _register(world.domains, record["domain"], record["capacity_mrps"])


def _anchor_registered(world: World, record: Record) -> None:
    _register(world.anchors, record["anchor"], record["capacity_mrps"])
    world.aisi_of[record["anchor"]] = record["aisi"]


def _register(known: dict[str, Capacity], name: str, capacity_mrps: int) -> None:
    place = known.get(name)
    if place is None:
        known[name] = Capacity(capacity_mrps=capacity_mrps)
    else:  # described anew: what is reserved stays, what was removed is back
        place.capacity_mrps = capacity_mrps
        place.state = "" if place.state == "REMOVED" else place.state


def _anchor_changed(world: World, record: Record) -> None:
    place = world.anchors.get(record["anchor"])
    if place is None:
        raise Violation(Invariant.CAPACITY, f"anchor {record['anchor']} is not registered")
    place.state = record["state"]


def _requested(world: World, record: Record) -> None:
    _new(world, record["session"])
    world.sessions[record["session"]] = Session(tenant=record["tenant"])


def _refused(world: World, record: Record) -> None:
    name = record["session"]
    if name in world.sessions:
        world.session(name, Phase.REQUESTED)
        del world.sessions[name]
    else:
        _new(world, name)
    world.remember(name)


def _new(world: World, name: str) -> None:
    if name in world.sessions or name in world.ended:
        raise Violation(Invariant.SESSION, f"session {name} is requested a second time")
    world.seen += 1


def _lives(world: World, record: Record) -> None:
    world.session(record["session"], Phase.AVAILABLE)


def _session_ended(world: World, record: Record) -> None:
    name = record["session"]
    session = world.session(name, Phase.REQUESTED, Phase.AVAILABLE)
    replay_tenancy.ends(session, record)
    replay_tenancy.left(world, session)
    session.phase = Phase.ENDED
    world.forget(name, session)


def _forgotten(world: World, record: Record) -> None:
    session = world.sessions.get(record["session"])
    if session is not None and session.phase is not Phase.ENDED:
        raise Violation(Invariant.SESSION, f"session {record['session']} is forgotten while it is {session.phase.name}")


def _erased(world: World, record: Record) -> None:
    name = record["for_session"]
    session = world.sessions.get(name)
    if session is not None and session.phase is not Phase.ENDED:
        raise Violation(Invariant.SESSION, f"session {name} is erased while it is {session.phase.name}")


def _restrictive(world: World, record: Record) -> None:
    """Taking steering away is always right, even when the log does not know of it: reconciliation does that."""


def _described(world: World, record: Record) -> None:
    """What is described here is not judged by the invariants."""


_SINGLES: Final[Mapping[str, Callable[[World, Record], None]]] = MappingProxyType(
    {
        "TERM_STARTED": _term_started,
        "SETTINGS_CHANGED": _described,
        "SERVICE_REGISTERED": _described,
        "SERVICE_REMOVED": _described,
        "DOMAIN_REGISTERED": _domain_registered,
        "ENVELOPE_ACCEPTED": replay_envelopes.accepted,
        "ENVELOPE_SUSPECTED": replay_envelopes.suspected,
        "ENVELOPE_CLEARED": replay_envelopes.cleared,
        "KEYS_REGISTERED": _described,
        "AUDIT_ALARM": _described,
        "AUDIT_VERDICT": _described,
        "TRUST_CHANGED": _described,
        "PATH_REGISTERED": _described,
        "ANCHOR_REGISTERED": _anchor_registered,
        "ANCHOR_STATE_CHANGED": _anchor_changed,
        "SESSION_REQUESTED": _requested,
        "SESSION_REFUSED": _refused,
        "COMMIT_GRANTED": replay_leases.granted,
        "COMMIT_REBOUND": replay_envelopes.rebound,
        "SESSION_DEGRADED": replay_envelopes.degraded,
        "SESSION_RESTORED": replay_envelopes.restored,
        "COMMIT_REVOKED": replay_leases.ended,
        "COMMIT_EXPIRED": replay_leases.ended,
        "COMMIT_DRAINING": replay_leases.draining,
        "STEER_INSTALLED": replay_leases.installed,
        "STEER_REMOVED": _restrictive,
        "RESERVATION_RELEASED": replay_leases.released,
        "RELOCATION_DETECTED": replay_relocation.advanced,
        "RELOCATION_DECIDED": replay_relocation.advanced,
        "RELOCATION_TARGET_PREPARED": replay_relocation.advanced,
        "RELOCATION_SWITCHED": replay_relocation.advanced,
        "RELOCATION_SOURCE_RELEASED": replay_relocation.advanced,
        "RELOCATION_FAILED": replay_relocation.advanced,
        "SESSION_EXTENDED": _lives,
        "SESSION_ENDED": _session_ended,
        "CLIENT_MOVED": _lives,
        "SINK_SET": _lives,
        "SESSION_FORGOTTEN": _forgotten,
        "OPERATOR_ACTION": _described,
        "SESSION_ERASED": _erased,
        "TENANT_REGISTERED": replay_tenancy.registered,
        "SWITCH_KILLED": replay_tenancy.killed,
        "SWITCH_RESTORED": replay_tenancy.restored,
        "SPEND_CHARGED": replay_tenancy.charged,
        "SPEND_REFUNDED": replay_tenancy.refunded,
        "POLICIES_IN_FORCE": _described,
        "POLICY_APPLIED": _described,
        "ROOM_CLAIMED": replay_tenancy.room_claimed,
        "ROOM_LET_GO": replay_tenancy.room_let_go,
        "SESSION_PREEMPTED": replay_tenancy.preempted,
    }
)

_BATCHES: Final[Mapping[str, Callable[[World, Record, Iterable[Record]], None]]] = MappingProxyType(
    {
        "LEASES_RENEWED": replay_leases.renewed,
        "LEASES_REGRANTED": replay_leases.regranted,
        "SESSIONS_METERED": replay_tenancy.metered,
    }
)
