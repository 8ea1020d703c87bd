"""What is reserved where, and for whom: capacity is never sold twice.

A reservation belongs to one COMMIT, that is to one (session, epoch). It counts once per session at the anchor and
once per session in every domain of the path, however many epochs of the session hold it there: a relocation
inside one domain does not charge that domain twice. It is taken with the COMMIT and given back only by `release`,
which the issuer calls after the holder's deadline, drift and grace (`hold` remembers until when). What nobody renews
any more is `leaving`: its rate will be free, and is not yet.

In a domain the rate and the burst are reserved for the session's *tenant*: sums are kept for every tenant, and for all.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

from aipaging.core.envelope.reserved import NOTHING, Sum
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import AipagingError, Who
from aipaging.core.foundation.names import AnchorId, DomainName, SessionId, TenantId
from aipaging.core.foundation.time import BootUs
from aipaging.core.lease.expiry import NO_EPOCH
from aipaging.core.lease.queues import EVERYBODY, QueueKey, Tolerances

SHARED_MAX: Final = 4_096
"""Different reservations that are remembered to be shared; the others are held once more."""

NOT_OVER: Final = BootUs(0)
"""When a reservation may be freed whose COMMIT is granted: that is not known before it is over."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """Rate and burst reserved for one COMMIT of a tenant.

    Attributes:
        anchor: Where.
        domains: In which domains on the way.
        rate_mrps: The rate.
        tenant: For whom.
        burst: The burst.
        epoch: Of which COMMIT of its session; none for room that is claimed and not held.
        hold_us: When it may be freed at the earliest, once the COMMIT is over.
    """

    anchor: AnchorId
    domains: tuple[DomainName, ...]
    rate_mrps: int
    tenant: TenantId = EVERYBODY
    burst: int = 0
    epoch: Epoch = NO_EPOCH
    hold_us: BootUs = NOT_OVER


@lru_cache(maxsize=SHARED_MAX)
def _same(held: tuple[Reservation, ...]) -> tuple[Reservation, ...]:
    """Return what other sessions hold too: their first COMMITs for the same intent at the same anchor are equal."""
    return held


@dataclass(slots=True)
class Ledger:
    """Sums of what is reserved, kept incrementally.

    Attributes:
        held: What each session holds: usually one reservation, two during a relocation.
        at_anchor: Rate, by anchor.
        sums: Rate, burst and sessions, by domain and tenant.
        bursts: The bursts alone.
        tenants: How many tenants have something in a domain.
        by_tenant: Rate, by tenant.
        tolerances: What the COMMITs in shared queues tolerate.
        leaving: What nobody renews any more, in that order.
    """

    held: dict[SessionId, tuple[Reservation, ...]] = field(default_factory=dict[SessionId, tuple[Reservation, ...]])
    at_anchor: dict[AnchorId, int] = field(default_factory=dict)
    sums: dict[QueueKey, Sum] = field(default_factory=dict[QueueKey, Sum])
    bursts: dict[QueueKey, int] = field(default_factory=dict[QueueKey, int])
    tenants: dict[DomainName, int] = field(default_factory=dict[DomainName, int])
    by_tenant: dict[TenantId, int] = field(default_factory=dict[TenantId, int])
    tolerances: Tolerances = field(default_factory=Tolerances)
    leaving: dict[tuple[SessionId, Epoch], None] = field(default_factory=dict[tuple[SessionId, Epoch], None])

    def __len__(self) -> int:
        """Return how many reservations there are."""
        return sum(map(len, self.held.values()))

    def reservations(self) -> Iterator[tuple[SessionId, Reservation]]:
        """Yield every reservation, with whose it is."""
        for session, held in self.held.items():
            for reservation in held:
                yield session, reservation

    def of(self, session: SessionId, epoch: Epoch) -> Reservation | None:
        """Return the reservation of a COMMIT, if it is not free yet."""
        for reservation in self.held.get(session, ()):
            if reservation.epoch == epoch:
                return reservation
        return None

    def anchor_mrps(self, anchor: AnchorId) -> int:
        """Return what is reserved at the anchor."""
        return self.at_anchor.get(anchor, 0)

    def tenant_mrps(self, tenant: TenantId) -> int:
        """Return what a tenant has reserved, once per session wherever it is held."""
        return self.by_tenant.get(tenant, 0)

    def domain_mrps(self, domain: DomainName) -> int:
        """Return what is reserved in the domain."""
        return self.sum_of(domain).rate_mrps

    def sum_of(self, domain: DomainName, tenant: TenantId = EVERYBODY) -> Sum:
        """Return what is reserved in the domain, by one tenant or by all."""
        return self.sums.get((domain, tenant), NOTHING)

    def holds_domain(self, session: SessionId, domain: DomainName) -> bool:
        """Return whether the session holds its rate in the domain: a second reservation there is free."""
        return any(domain in each.domains for each in self.held.get(session, ()))

    def holds_anchor(self, session: SessionId, anchor: AnchorId) -> bool:
        """Return whether the session holds its rate at the anchor."""
        return any(anchor == each.anchor for each in self.held.get(session, ()))

    def reserve(self, session: SessionId, reservation: Reservation) -> None:
        """Take the rate of a COMMIT."""
        others = self.held.get(session, ())
        self.held[session] = (*others, reservation) if others else _same((reservation,))
        if all(held.anchor != reservation.anchor for held in others):
            self.at_anchor[reservation.anchor] = self.anchor_mrps(reservation.anchor) + reservation.rate_mrps
        if all(held.tenant != reservation.tenant for held in others):
            self.by_tenant[reservation.tenant] = self.tenant_mrps(reservation.tenant) + reservation.rate_mrps
        for domain in dict.fromkeys(reservation.domains):
            if all(domain not in held.domains for held in others):
                self._count(domain, reservation, more=True)

    def hold(self, session: SessionId, epoch: Epoch, until_us: BootUs) -> BootUs:
        """Keep the reservation of a COMMIT that is over at least until `until_us`; return until when it is kept.

        From now on the COMMIT tolerates everything: nobody is promised anything under it any more.
        """
        reservation = self.known(session, epoch)
        kept_us = max(reservation.hold_us, until_us)
        self._put(session, epoch, replace(reservation, hold_us=kept_us))
        self.tolerances.forget(session, epoch)
        self.leave(session, epoch)
        return kept_us

    def hold_all(self, until_us: BootUs) -> None:
        """Keep everything until then, and no longer: a term begins, and instants of before mean nothing now."""
        for session, held in self.held.items():
            self.held[session] = _same(tuple([replace(each, hold_us=until_us) for each in held]))

    def leave(self, session: SessionId, epoch: Epoch) -> None:
        """Take note that a COMMIT is over, or drains: nobody renews it any more."""
        self.leaving[session, epoch] = None

    def move(self, session: SessionId, old: Epoch, new: Epoch) -> None:
        """Put the reservation of one epoch under another: the same rate, granted anew after a recovery."""
        self._put(session, old, replace(self.known(session, old), epoch=new))
        self.tolerances.move(session, old, new)

    def release(self, session: SessionId, epoch: Epoch) -> None:
        """Give the rate of a COMMIT back.

        Raises:
            AipagingError: There is no such reservation; the caller has lost count.
        """
        reservation = self.known(session, epoch)
        others = tuple([each for each in self.held[session] if each.epoch != epoch])
        if others:
            self.held[session] = others
        else:
            del self.held[session]
        self.leaving.pop((session, epoch), None)
        self.tolerances.forget(session, epoch)
        if all(held.anchor != reservation.anchor for held in others):
            self.at_anchor[reservation.anchor] -= reservation.rate_mrps
        if all(held.tenant != reservation.tenant for held in others):
            self._less_of_tenant(reservation)
        for domain in dict.fromkeys(reservation.domains):
            if all(domain not in held.domains for held in others):
                self._count(domain, reservation, more=False)

    def _put(self, session: SessionId, epoch: Epoch, reservation: Reservation) -> None:
        """Put a reservation in the place of the one of an epoch."""
        held = self.held[session]
        self.held[session] = _same(tuple([reservation if each.epoch == epoch else each for each in held]))

    def _less_of_tenant(self, reservation: Reservation) -> None:
        left = self.by_tenant[reservation.tenant] - reservation.rate_mrps
        if left:
            self.by_tenant[reservation.tenant] = left
        else:
            del self.by_tenant[reservation.tenant]

    def _count(self, domain: DomainName, reservation: Reservation, *, more: bool) -> None:
        """Count a session more or less in a domain, for its tenant and for all."""
        for owner in {EVERYBODY, reservation.tenant}:
            key = (domain, owner)
            before = self.sums.get(key, NOTHING)
            change = before.plus if more else before.minus
            after = change(reservation.rate_mrps, reservation.burst)
            if owner != EVERYBODY and bool(before.sessions) != bool(after.sessions):
                self.tenants[domain] = self.tenants.get(domain, 0) + (1 if more else -1)
            if after.sessions:
                self.sums[key], self.bursts[key] = after, after.burst
            else:
                del self.sums[key], self.bursts[key]

    def known(self, session: SessionId, epoch: Epoch) -> Reservation:
        """Return the reservation of a COMMIT.

        Raises:
            AipagingError: There is none; the caller has lost count.
        """
        reservation = self.of(session, epoch)
        if reservation is None:
            raise AipagingError(f"no reservation of {session} at epoch {epoch}", code="LEDGER_BROKEN", who=Who.BUG)
        return reservation
