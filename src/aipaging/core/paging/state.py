"""The state of the control plane.

It is changed in one place only, `core.paging.evolve`, and only by events; `step` reads it. The expiry queue is an
agenda, not a fact: it is derived from the sessions, and popping it decides nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from aipaging.core.anchor.catalogue import Catalogue
from aipaging.core.anchor.intent import Intent
from aipaging.core.envelope.reserved import NOTHING, Harm, Sum
from aipaging.core.envelope.service import QueueCurve
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import InvalidInputError, RefusedError
from aipaging.core.foundation.names import AnchorId, ClientId, DomainName, ServiceUri, SessionId, TenantId
from aipaging.core.foundation.time import BootUs, WallUs
from aipaging.core.lease.difference import Difference
from aipaging.core.lease.expiry import ExpiryQueue
from aipaging.core.lease.ledger import Ledger
from aipaging.core.lease.machine import Lease
from aipaging.core.lease.queues import EVERYBODY
from aipaging.core.paging.promises import Contract, ContractState, Promises
from aipaging.core.paging.relocation_machine import UNDER_WAY, RelocationCause, RelocationPhase
from aipaging.core.paging.session_machine import SessionPhase, StatusInfo
from aipaging.core.paging.settings import Settings
from aipaging.core.paging.sinks import Sink
from aipaging.core.paging.standing import Audits
from aipaging.core.paging.tenancy import Tenancy


@dataclass(frozen=True, slots=True, kw_only=True)
class Relocation:
    """The latest relocation of a session; `failures` counts those that failed one after the other before it."""

    number: int
    phase: RelocationPhase
    cause: RelocationCause
    source: AnchorId
    target: AnchorId
    message: str
    since_us: BootUs
    failures: int = 0

    @property
    def under_way(self) -> bool:
        """Whether it may still fail, the source serving."""
        return self.phase in UNDER_WAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """The latest charge for a session: in which period, how much, at which price per 1,000 requests."""

    period: int
    amount: int
    price: int


class Session(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One session.

    Attributes:
        session: Its id.
        tenant: Who the reservation belongs to.
        client: Who asked.
        aisi: The service it was resolved to.
        intent: What was asked for.
        token_id: `jti` of its AIST.
        salt: The salt of its commitments in the evidence.
        phase: Where it stands.
        status_info: Why it is UNAVAILABLE, or None.
        key: Digest of the idempotency key that it was asked for with, or "".
        certificate: SHA-256 of the certificate that its token is bound to, in hex, or "".
        requested_wall_us: When it was asked for, wall clock.
        ended_wall_us: When it ended, wall clock, or None.
        duration_ms: How long it may last from then on.
        ends_us: When it ends unless extended, boot clock.
        n: The highest `n` of its epochs.
        lease: The COMMIT that serves, or None before the grant.
        target: The COMMIT of a relocation's target before the switch, or None.
        source: The COMMIT of a relocation's source after the switch, while it drains, or None.
        relocation: The latest relocation, or None.
        contract: How what it was promised stands, or None before the grant.
        sink: Where its client hears of it, or None.
        charge: What its tenant was charged for it last, or None.
        policies: The policies that permitted where it is.
        metered: Requests that sidecars have counted for it.
    """

    session: SessionId
    tenant: TenantId
    client: ClientId
    aisi: ServiceUri
    intent: Intent
    token_id: str
    salt: bytes
    phase: SessionPhase
    key: str = ""
    certificate: str = ""
    status_info: StatusInfo | None = None
    requested_wall_us: WallUs
    ended_wall_us: WallUs | None = None
    duration_ms: int
    ends_us: BootUs
    n: int = 0
    lease: Lease | None = None
    target: Lease | None = None
    source: Lease | None = None
    relocation: Relocation | None = None
    contract: Contract | None = None
    sink: Sink | None = None
    charge: Charge | None = None
    policies: tuple[str, ...] = ()
    metered: int = 0

    @property
    def degraded(self) -> bool:
        """Whether its client was told that its contract is not provable now."""
        return self.contract is not None and self.contract.state is ContractState.DEGRADED

    @property
    def available(self) -> bool:
        """Whether it may be used."""
        return self.phase is SessionPhase.AVAILABLE

    @property
    def leases(self) -> Iterator[Lease]:
        """Its COMMITs that may still be live."""
        return (lease for lease in (self.lease, self.target, self.source) if lease is not None)

    def lease_of(self, epoch: Epoch) -> Lease | None:
        """Return the COMMIT of the epoch, if the session still holds it."""
        for lease in (self.lease, self.target, self.source):  # a generator takes three times as long
            if lease is not None and lease.epoch == epoch:
                return lease
        return None


@dataclass(slots=True)
class State:
    """Everything that the control plane knows."""

    term: int = 0
    settings: Settings = field(default_factory=Settings)
    catalogue: Catalogue = field(default_factory=Catalogue)
    sessions: dict[SessionId, Session] = field(default_factory=dict)
    promises: Promises = field(default_factory=Promises)
    audits: Audits = field(default_factory=Audits)
    ledger: Ledger = field(default_factory=Ledger)
    tenancy: Tenancy = field(default_factory=Tenancy)
    keyed: dict[tuple[ClientId, str], SessionId] = field(default_factory=dict)
    live: int = 0
    on_anchor: dict[AnchorId, dict[SessionId, None]] = field(default_factory=dict)
    heard_us: dict[AnchorId, BootUs] = field(default_factory=dict)
    entitled: frozenset[ClientId] | None = None
    queue: ExpiryQueue = field(default_factory=ExpiryQueue)

    def session(self, session: SessionId) -> Session:
        """Return a session.

        Raises:
            InvalidInputError: There is none of that id (`NOT_FOUND`).
        """
        found = self.sessions.get(session)
        if found is None:
            raise InvalidInputError(f"there is no session {session}", code="NOT_FOUND", field="sessionId")
        return found

    def available(self, session: SessionId) -> Session:
        """Return a session that may be used.

        Raises:
            InvalidInputError: There is none of that id (`NOT_FOUND`).
            RefusedError: It is not AVAILABLE (`INCOMPATIBLE_STATE`).
        """
        found = self.session(session)
        if not found.available:
            raise RefusedError(
                f"session {session} is {found.phase.value}: only an AVAILABLE one can be changed",
                code="INCOMPATIBLE_STATE",
            )
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class OthersReserved:
    """The ledger, less what one session holds itself.

    Attributes:
        ledger: Everything that is reserved.
        session: Who asks.
        tenant: For whom it would reserve; empty where nobody is named: a tenant that has nothing yet.
        rate_mrps: What it would reserve, and holds where it is already.
        burst: Likewise.
        difference: What else is to be counted where the session holds nothing yet: room that is claimed by others.
        everywhere: Count it also where the session holds its share: it is the one that has to make room.
    """

    ledger: Ledger
    session: SessionId
    tenant: TenantId
    rate_mrps: int
    burst: int
    difference: Difference | None = None
    everywhere: bool = False

    def anchor_mrps(self, anchor: AnchorId) -> int:
        """Return the rate that others have reserved at the anchor."""
        holds = self.ledger.holds_anchor(self.session, anchor)
        reserved_mrps = self.ledger.anchor_mrps(anchor) - (self.rate_mrps if holds else 0)
        if self.difference is not None and (self.everywhere or not holds):
            reserved_mrps += self.difference.at_anchor.get(anchor, 0)
        return reserved_mrps

    def domain_sum(self, domain: DomainName) -> Sum:
        """Return what others have reserved in the domain."""
        return self._others(domain, EVERYBODY)

    def tenant_sum(self, domain: DomainName) -> Sum:
        """Return what other sessions of the tenant have reserved in the domain."""
        return self._others(domain, self.tenant) if self.tenant else NOTHING

    def tenants(self, domain: DomainName) -> int:
        """Return how many other tenants have reserved something in the domain."""
        own = bool(self.tenant) and bool(self.ledger.sum_of(domain, self.tenant).sessions)
        others = self.ledger.tenants.get(domain, 0) - own
        if self.difference is not None and (self.everywhere or not self.ledger.holds_domain(self.session, domain)):
            others += self.difference.tenants(self.ledger, domain, but=self.tenant)
        return others

    def harm(self, queues: Mapping[DomainName, QueueCurve]) -> Harm:
        """Return what the session's burst would do to the others in these queues, as far as it is not in them yet."""
        adding = {
            (domain, self.tenant if curve.per_tenant else EVERYBODY): self.burst
            for domain, curve in queues.items()
            if not self.ledger.holds_domain(self.session, domain)
        }
        if self.difference is None:
            return self.ledger.tolerances.harm(self.ledger.bursts, adding, self.session)
        bursts = self.difference.bursts(self.ledger)
        return self.ledger.tolerances.harm(bursts, adding, self.session, self.difference.gone)

    def _others(self, domain: DomainName, owner: TenantId) -> Sum:
        everything = self.ledger.sum_of(domain, owner)
        holds = self.ledger.holds_domain(self.session, domain)
        if self.difference is not None and (self.everywhere or not holds):
            everything = everything.with_all(self.difference.sums.get((domain, owner), NOTHING))
        return everything.minus(self.rate_mrps, self.burst) if holds else everything
