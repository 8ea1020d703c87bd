"""What is reserved where, and for whom: capacity is never sold twice.

A reservation belongs to one COMMIT, that is to one (session, epoch). It counts once per session at the anchor and
once per session in every domain of the path, however many epochs of the session hold it there: a relocation
inside one domain does not charge that domain twice. It is taken with the COMMIT and given back only by `release`,
which the issuer calls after the holder's deadline, drift and grace (`hold` remembers until when). What nobody renews
any more is `leaving`: its rate will be free, and is not yet.

In a domain the rate and the burst are reserved for the session's *tenant*: sums are kept for every tenant, and for all.
"""

from dataclasses import dataclass, field, replace

from aipaging.core.envelope.reserved import NOTHING, Sum
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import AipagingError, Who
from aipaging.core.foundation.names import AnchorId, DomainName, SessionId, TenantId
from aipaging.core.foundation.time import BootUs
from aipaging.core.lease.queues import EVERYBODY, QueueKey, Tolerances


@dataclass(frozen=True, slots=True)
class Reservation:
    """Rate and burst reserved for one COMMIT of a tenant, not to be freed before `hold_us`."""

    anchor: AnchorId
    domains: tuple[DomainName, ...]
    rate_mrps: int
    hold_us: BootUs
    tenant: TenantId = EVERYBODY
    burst: int = 0


@dataclass(slots=True)
class Ledger:
    """Sums of what is reserved, kept incrementally."""

    reservations: dict[tuple[SessionId, Epoch], Reservation] = field(default_factory=dict)
    at_anchor: dict[AnchorId, int] = field(default_factory=dict)
    sums: dict[QueueKey, Sum] = field(default_factory=dict[QueueKey, Sum])
    bursts: dict[QueueKey, int] = field(default_factory=dict[QueueKey, int])
    tenants: dict[DomainName, int] = field(default_factory=dict[DomainName, int])
    by_tenant: dict[TenantId, int] = field(default_factory=dict[TenantId, int])
    epochs: dict[SessionId, tuple[Epoch, ...]] = field(default_factory=dict[SessionId, tuple[Epoch, ...]])
    tolerances: Tolerances = field(default_factory=Tolerances)
    leaving: dict[tuple[SessionId, Epoch], None] = field(default_factory=dict[tuple[SessionId, Epoch], None])

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
        return any(domain in held.domains for held in self._held_by(session))

    def holds_anchor(self, session: SessionId, anchor: AnchorId) -> bool:
        """Return whether the session holds its rate at the anchor."""
        return any(anchor == held.anchor for held in self._held_by(session))

    def reserve(self, session: SessionId, epoch: Epoch, reservation: Reservation) -> None:
        """Take the rate of a COMMIT."""
        others = self._held_by(session)
        self.reservations[session, epoch] = reservation
        self.epochs[session] = (*self.epochs.get(session, ()), epoch)
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
        reservation = self._of(session, epoch)
        kept_us = max(reservation.hold_us, until_us)
        self.reservations[session, epoch] = replace(reservation, hold_us=kept_us)
        self.tolerances.forget(session, epoch)
        self.leave(session, epoch)
        return kept_us

    def leave(self, session: SessionId, epoch: Epoch) -> None:
        """Take note that a COMMIT is over, or drains: nobody renews it any more."""
        self.leaving[session, epoch] = None

    def move(self, session: SessionId, old: Epoch, new: Epoch) -> None:
        """Put the reservation of one epoch under another: the same rate, granted anew after a recovery."""
        self.reservations[session, new] = self._of(session, old)
        del self.reservations[session, old]
        self.epochs[session] = tuple(new if epoch == old else epoch for epoch in self.epochs[session])
        self.tolerances.move(session, old, new)

    def release(self, session: SessionId, epoch: Epoch) -> None:
        """Give the rate of a COMMIT back.

        Raises:
            AipagingError: There is no such reservation; the caller has lost count.
        """
        reservation = self._of(session, epoch)
        del self.reservations[session, epoch]
        self.leaving.pop((session, epoch), None)
        left = tuple(one for one in self.epochs.pop(session) if one != epoch)
        if left:
            self.epochs[session] = left
        self.tolerances.forget(session, epoch)
        others = self._held_by(session)
        if all(held.anchor != reservation.anchor for held in others):
            self.at_anchor[reservation.anchor] -= reservation.rate_mrps
        if all(held.tenant != reservation.tenant for held in others):
            self._less_of_tenant(reservation)
        for domain in dict.fromkeys(reservation.domains):
            if all(domain not in held.domains for held in others):
                self._count(domain, reservation, more=False)

    def _held_by(self, session: SessionId) -> list[Reservation]:
        """Return what a session holds: usually one reservation, two during a relocation."""
        return [self.reservations[session, epoch] for epoch in self.epochs.get(session, ())]

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

    def _of(self, session: SessionId, epoch: Epoch) -> Reservation:
        reservation = self.reservations.get((session, epoch))
        if reservation is None:
            raise AipagingError(f"no reservation of {session} at epoch {epoch}", code="LEDGER_BROKEN", who=Who.BUG)
        return reservation
