"""What is to be counted beside the ledger: room that is claimed and not reserved, less what leaves and is not free.

The ledger says what is held. Whoever looks ahead asks what would be held if some let go, or if others came; a
difference is that much more or less, place by place, without a second ledger.
"""

from collections import ChainMap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from aipaging.core.envelope.reserved import NOTHING, Sum
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import AnchorId, DomainName, SessionId, TenantId
from aipaging.core.lease.ledger import Ledger, Reservation
from aipaging.core.lease.queues import EVERYBODY, QueueKey


@dataclass(slots=True)
class Difference:
    """More or less than the ledger holds.

    Attributes:
        at_anchor: Rate, by anchor.
        sums: Rate, burst and sessions, by domain and tenant.
        gone: The reservations that are counted as let go: they tolerate everything.
    """

    at_anchor: dict[AnchorId, int] = field(default_factory=dict[AnchorId, int])
    sums: dict[QueueKey, Sum] = field(default_factory=dict[QueueKey, Sum])
    gone: set[tuple[SessionId, Epoch]] = field(default_factory=set[tuple[SessionId, Epoch]])

    def copy(self) -> "Difference":
        """Return one that may be changed."""
        return Difference(dict(self.at_anchor), dict(self.sums), set(self.gone))

    def come(self, reservation: Reservation) -> None:
        """Count a session more, in all places of a reservation."""
        self._count_anchor(reservation.anchor, reservation.rate_mrps)
        share = Sum(reservation.rate_mrps, reservation.burst, 1)
        for domain in dict.fromkeys(reservation.domains):
            self._count_domain(domain, reservation.tenant, share)

    def let_go(self, ledger: Ledger, leaving: Iterable[tuple[SessionId, Epoch]]) -> None:
        """Count reservations as let go, where no other of the same session holds its share.

        Those of one session are to be named together: what is let go later does not know what went before.
        """
        by_session: dict[SessionId, list[Epoch]] = {}
        for session, epoch in leaving:
            by_session.setdefault(session, []).append(epoch)
            self.gone.add((session, epoch))
        for session, epochs in by_session.items():
            stay = [held for held in ledger.held[session] if held.epoch not in epochs]
            anchors = {held.anchor for held in stay}
            domains = {domain for held in stay for domain in held.domains}
            for held in ledger.held[session]:
                if held.epoch not in epochs:
                    continue
                share = Sum(-held.rate_mrps, -held.burst, -1)
                if held.anchor not in anchors:
                    anchors.add(held.anchor)
                    self._count_anchor(held.anchor, -held.rate_mrps)
                for domain in held.domains:
                    if domain not in domains:
                        domains.add(domain)
                        self._count_domain(domain, held.tenant, share)

    def tenants(self, ledger: Ledger, domain: DomainName, *, but: TenantId) -> int:
        """Return how many tenants more, or less, have something in a domain; `but` does not count."""
        more = 0
        for (name, owner), share in self.sums.items():
            if name == domain and owner not in {EVERYBODY, but}:
                before = ledger.sum_of(name, owner).sessions
                more += (before + share.sessions > 0) - (before > 0)
        return more

    def bursts(self, ledger: Ledger) -> Mapping[QueueKey, int]:
        """Return what stands in every queue then."""
        changed = {key: ledger.bursts.get(key, 0) + share.burst for key, share in self.sums.items()}
        return ChainMap(changed, ledger.bursts)

    def _count_anchor(self, anchor: AnchorId, rate_mrps: int) -> None:
        self.at_anchor[anchor] = self.at_anchor.get(anchor, 0) + rate_mrps

    def _count_domain(self, domain: DomainName, tenant: TenantId, share: Sum) -> None:
        for owner in {EVERYBODY, tenant}:
            self.sums[domain, owner] = self.sums.get((domain, owner), NOTHING).with_all(share)
