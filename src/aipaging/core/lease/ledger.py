"""What is reserved where: capacity is never sold twice.

A reservation belongs to one COMMIT, that is to one (session, epoch). It counts once per session at the anchor and
once per session in every domain of the path, however many epochs of the session hold it there: a relocation
inside one domain does not charge that domain twice. It is taken with the COMMIT and given back only by `release`,
which the issuer calls after the holder's deadline, drift and grace (`hold` remembers until when).
"""

from dataclasses import dataclass, field, replace

from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import AipagingError, Who
from aipaging.core.foundation.names import AnchorId, DomainName, SessionId
from aipaging.core.foundation.time import BootUs


@dataclass(frozen=True, slots=True)
class Reservation:
    """Rate reserved for one COMMIT, not to be freed before `hold_us`."""

    anchor: AnchorId
    domains: tuple[DomainName, ...]
    rate_mrps: int
    hold_us: BootUs


@dataclass(slots=True)
class Ledger:
    """Sums of reserved rate, kept incrementally."""

    reservations: dict[tuple[SessionId, Epoch], Reservation] = field(default_factory=dict)
    at_anchor: dict[AnchorId, int] = field(default_factory=dict)
    in_domain: dict[DomainName, int] = field(default_factory=dict)
    holders: dict[tuple[SessionId, str, str], int] = field(default_factory=dict)

    def anchor_mrps(self, anchor: AnchorId) -> int:
        """Return what is reserved at the anchor."""
        return self.at_anchor.get(anchor, 0)

    def domain_mrps(self, domain: DomainName) -> int:
        """Return what is reserved in the domain."""
        return self.in_domain.get(domain, 0)

    def holds_domain(self, session: SessionId, domain: DomainName) -> bool:
        """Return whether the session holds its rate in the domain: a second reservation there is free."""
        return (session, "domain", domain) in self.holders

    def holds_anchor(self, session: SessionId, anchor: AnchorId) -> bool:
        """Return whether the session holds its rate at the anchor."""
        return (session, "anchor", anchor) in self.holders

    def reserve(self, session: SessionId, epoch: Epoch, reservation: Reservation) -> None:
        """Take the rate of a COMMIT."""
        self.reservations[session, epoch] = reservation
        if self._hold((session, "anchor", reservation.anchor)):
            self.at_anchor[reservation.anchor] = self.anchor_mrps(reservation.anchor) + reservation.rate_mrps
        for domain in reservation.domains:
            if self._hold((session, "domain", domain)):
                self.in_domain[domain] = self.domain_mrps(domain) + reservation.rate_mrps

    def hold(self, session: SessionId, epoch: Epoch, until_us: BootUs) -> BootUs:
        """Keep the reservation at least until `until_us`; return until when it is kept."""
        reservation = self._of(session, epoch)
        kept_us = max(reservation.hold_us, until_us)
        self.reservations[session, epoch] = replace(reservation, hold_us=kept_us)
        return kept_us

    def move(self, session: SessionId, old: Epoch, new: Epoch) -> None:
        """Put the reservation of one epoch under another: the same rate, granted anew after a recovery."""
        self.reservations[session, new] = self._of(session, old)
        del self.reservations[session, old]

    def release(self, session: SessionId, epoch: Epoch) -> None:
        """Give the rate of a COMMIT back.

        Raises:
            AipagingError: There is no such reservation; the caller has lost count.
        """
        reservation = self._of(session, epoch)
        del self.reservations[session, epoch]
        if self._let_go((session, "anchor", reservation.anchor)):
            self.at_anchor[reservation.anchor] -= reservation.rate_mrps
        for domain in reservation.domains:
            if self._let_go((session, "domain", domain)):
                self.in_domain[domain] -= reservation.rate_mrps

    def _of(self, session: SessionId, epoch: Epoch) -> Reservation:
        reservation = self.reservations.get((session, epoch))
        if reservation is None:
            raise AipagingError(f"no reservation of {session} at epoch {epoch}", code="LEDGER_BROKEN", who=Who.BUG)
        return reservation

    def _hold(self, key: tuple[SessionId, str, str]) -> bool:
        """Count one more hold; return whether it is the first."""
        held = self.holders.get(key, 0)
        self.holders[key] = held + 1
        return not held

    def _let_go(self, key: tuple[SessionId, str, str]) -> bool:
        """Count one hold less; return whether it was the last."""
        held = self.holders[key] - 1
        if held:
            self.holders[key] = held
            return False
        del self.holders[key]
        return True
