"""What the replay knows while it reads: live sessions, their COMMITs, what is reserved where.

Everything here is forgotten as soon as no later record can be judged by it, so that memory follows the live
sessions and not the length of the log.
"""

import enum
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from aipaging.core.evidence.finding import Invariant, Violation
from aipaging.core.foundation.time import MS, stretched_us

ENDED_SESSIONS_MAX: Final = 200_000
"""Ended sessions that are remembered to catch an id used twice: tens of megabytes, as many as may be live at once."""

EpochPair: TypeAlias = tuple[int, int]
"""`(term, n)`."""


class Standing(enum.Enum):
    """What is left of a COMMIT."""

    GRANTED = enum.auto()
    DRAINING = enum.auto()
    ENDED = enum.auto()


class Phase(enum.Enum):
    """Where a session stands."""

    REQUESTED = enum.auto()
    AVAILABLE = enum.auto()
    ENDED = enum.auto()


@dataclass(slots=True, kw_only=True)
class Commit:
    """One epoch of a session at one anchor, until its reservation is released.

    Attributes:
        anchor: Where.
        domains: Where its rate is reserved beside the anchor.
        rate_mrps: The rate.
        term: Of the grant.
        began_us: When the present duration began.
        deadline_us: When it ends.
        promised_us: The longest time that a holder may have been told was left.
        renewal: How often it was renewed.
        standing: Where it stands.
        envelopes: Digests that its bound rests on; empty where the log does not say.
        epsilon: What its session asked for; 0 where the log does not say.
        looked: The count of changes of envelopes at which all of them were last seen in force.
        valid_until_us: Until when they are valid then, wall clock.
    """

    anchor: str
    domains: tuple[str, ...]
    rate_mrps: int
    term: int
    began_us: int
    deadline_us: int
    promised_us: int = 0
    renewal: int = 0
    standing: Standing = Standing.GRANTED
    envelopes: tuple[str, ...] = ()
    epsilon: float = 0.0
    looked: int = -1
    valid_until_us: int = 0

    def begin(self, now_us: int, lease_ms: int) -> None:
        """Count the lease from now: it was granted or renewed."""
        self.began_us = now_us
        self.deadline_us = now_us + lease_ms * MS
        self.promised_us = max(self.promised_us, lease_ms * MS)

    def drain(self, now_us: int, drain_ms: int) -> None:
        """Let work in flight end: no deadline that a holder was told comes nearer."""
        self.deadline_us = max(self.deadline_us, now_us + drain_ms * MS)
        self.promised_us = max(self.promised_us, drain_ms * MS)


@dataclass(slots=True, kw_only=True)
class Relocation:
    """The open relocation of a session.

    Attributes:
        number: Its name in the records.
        phase: The last phase recorded.
        cause: Why.
        source: The anchor it leaves.
        target: The anchor it goes to.
        epoch: The target's epoch, once granted.
        source_lived: Whether the source's COMMIT was live when the target's was granted.
    """

    number: str
    phase: str
    cause: str
    source: str
    target: str
    epoch: EpochPair | None = None
    source_lived: bool = False


@dataclass(slots=True, kw_only=True)
class Session:
    """A session that later records may still be about."""

    tenant: str
    aisi: str = ""
    rate_mrps: int = 0
    phase: Phase = Phase.REQUESTED
    highest: EpochPair = (0, 0)
    commits: dict[EpochPair, Commit] = field(default_factory=dict)
    relocation: Relocation | None = None
    degraded: str = ""
    preempted: bool = False


@dataclass(slots=True, kw_only=True)
class Capacity:
    """An anchor or a domain: what it can carry, what is reserved; 0 mrps is unlimited."""

    capacity_mrps: int
    reserved_mrps: int = 0
    state: str = ""


@dataclass(slots=True, kw_only=True)
class Promise:
    """An envelope in force.

    Attributes:
        sequence: Its sequence number.
        from_us: Begin of validity, wall clock.
        until_us: End of validity, wall clock.
        suspect: Whether it is not believed.
        suspected: Term and boot clock since when.
    """

    sequence: int
    from_us: int
    until_us: int
    suspect: bool = False
    suspected: tuple[int, int] = (0, 0)


@dataclass(slots=True, kw_only=True)
class Tenant:
    """What a tenant may hold at most, as far as it is registered, and what it holds.

    Attributes:
        quotas: The fields of its latest TENANT_REGISTERED, or empty.
        sessions: Its sessions that are AVAILABLE.
        requests_mrps: The sum of their rates.
        period: The latest period that was charged.
        spent: What was charged in it, less what was refunded.
    """

    quotas: Mapping[str, Any] = field(default_factory=dict[str, Any])
    sessions: int = 0
    requests_mrps: int = 0
    period: int = 0
    spent: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Room that is kept for a page: for which tenant, in which class."""

    tenant: str
    priority: int


@dataclass(slots=True, kw_only=True)
class World:
    """Everything that later records are judged by."""

    term: int = 0
    node: str = ""
    boot: str = ""
    boot_us: int = 0
    started_us: int = 0
    drift_ppm: int = 0
    grace_us: int = 0
    drain_ms_max: int = 0
    lease_ms_max: int = 0
    sessions: dict[str, Session] = field(default_factory=dict)
    ended: OrderedDict[str, None] = field(default_factory=OrderedDict)
    seen: int = 0
    anchors: dict[str, Capacity] = field(default_factory=dict)
    domains: dict[str, Capacity] = field(default_factory=dict)
    in_force: dict[tuple[str, str], str] = field(default_factory=dict)
    promises: dict[str, Promise] = field(default_factory=dict)
    over: OrderedDict[str, tuple[int, int]] = field(default_factory=OrderedDict)
    changes: int = 0
    tenants: dict[str, Tenant] = field(default_factory=dict[str, Tenant])
    switches: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    claims: dict[str, Claim] = field(default_factory=dict[str, Claim])
    aisi_of: dict[str, str] = field(default_factory=dict[str, str])

    def session(self, name: str, *phases: Phase) -> Session:
        """Return a session in one of `phases`.

        Raises:
            Violation: There is none, or it is in another phase.
        """
        session = self.sessions.get(name)
        if session is None:
            past = "has ended" if name in self.ended else "was never requested"
            raise Violation(Invariant.SESSION, f"session {name} {past}")
        if session.phase not in phases:
            raise Violation(Invariant.SESSION, f"session {name} is {session.phase.name}")
        return session

    def commit(self, name: str, epoch: EpochPair) -> Commit:
        """Return a COMMIT whose reservation is not released.

        Raises:
            Violation: The session has no such epoch.
        """
        session = self.session(name, *Phase)
        commit = session.commits.get(epoch)
        if commit is None:
            raise Violation(Invariant.EPOCHS, f"session {name} holds no COMMIT of epoch {epoch[0]}.{epoch[1]}")
        return commit

    def why_not_live(self, commit: Commit) -> str | None:
        """Return why nothing may be steered by a COMMIT now, or None."""
        if commit.term != self.term:
            return f"was granted in term {commit.term} and not granted anew in term {self.term}"
        if commit.standing is Standing.ENDED:
            return "was revoked or has expired"
        if self.boot_us > commit.deadline_us:
            return f"had its deadline {self.boot_us - commit.deadline_us} us before"
        return None

    def forget(self, name: str, session: Session) -> None:
        """Drop a session that has ended and holds nothing."""
        if session.phase is Phase.ENDED and not session.commits:
            del self.sessions[name]
            self.remember(name)

    def remember(self, name: str) -> None:
        """Remember that a session has ended."""
        self.ended[name] = None
        if len(self.ended) > ENDED_SESSIONS_MAX:
            self.ended.popitem(last=False)  # a plain dict would look for its first key past all deleted ones

    def reserve(self, session: Session, epoch: EpochPair, commit: Commit) -> None:
        """Reserve the rate of a COMMIT at its anchor and in its domains, once per session each.

        Raises:
            Violation: A place is not registered, or its capacity is sold twice.
        """
        before = _held(session, commit)
        session.commits[epoch] = commit
        self._charge(session, commit, before)

    def release(self, session: Session, epoch: EpochPair) -> None:
        """Give the rate of a COMMIT back, where no other epoch of the session holds it."""
        commit = session.commits[epoch]
        before = _held(session, commit)
        del session.commits[epoch]
        self._charge(session, commit, before)

    def release_us(self, commit: Commit) -> int:
        """Return the instant before which the reservation of a COMMIT must be kept."""
        if commit.term == self.term:
            lease_us = commit.deadline_us - commit.began_us
            return commit.began_us + stretched_us(lease_us, self.drift_ppm) + self.grace_us
        # The instants of an earlier term mean nothing on this clock: a holder may just have been told the longest.
        longest_us = max(self.lease_ms_max * MS, commit.promised_us)
        return self.started_us + stretched_us(longest_us, self.drift_ppm) + self.grace_us

    def _charge(self, session: Session, commit: Commit, before: tuple[int, ...]) -> None:
        places = [("anchor", commit.anchor, self.anchors), *(("domain", d, self.domains) for d in commit.domains)]
        for (kind, name, known), had, has in zip(places, before, _held(session, commit), strict=True):
            place = known.get(name)
            if place is None:
                raise Violation(Invariant.CAPACITY, f"{kind} {name} is not registered: nothing can be reserved there")
            place.reserved_mrps += has - had
            if has > had and 0 < place.capacity_mrps < place.reserved_mrps:
                raise Violation(
                    Invariant.CAPACITY,
                    f"{kind} {name} can carry {place.capacity_mrps} mrps, and {place.reserved_mrps} are reserved",
                )


def _held(session: Session, commit: Commit) -> tuple[int, ...]:
    """Return what the session holds at the commit's anchor and in each of its domains."""
    commits = session.commits.values()
    at_anchor = max((c.rate_mrps for c in commits if c.anchor == commit.anchor), default=0)
    return (at_anchor, *(max((c.rate_mrps for c in commits if d in c.domains), default=0) for d in commit.domains))
