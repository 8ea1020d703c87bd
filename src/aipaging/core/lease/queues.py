"""Queues that sessions share, and how much longer each session could bear them to be.

Where a domain serves several sessions in one queue, everybody's burst is part of everybody's delay. A session that was
admitted tolerates so many milliseconds of queueing in all the shared queues on its path together: what its target
leaves when the rest of the path has what it needs. Nobody is let into a queue whose new delay is more than one of
those who are in it tolerates.

Sessions with the same queues on their paths form a group; the least tolerance of a group decides for all of it.
Tolerances are derived from sessions and envelopes: snapshots leave them out.
"""

import math
from bisect import bisect_left, insort
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from aipaging.core.envelope.reserved import Harm
from aipaging.core.envelope.service import QueueCurve
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import DomainName, SessionId, TenantId

EVERYBODY = TenantId("")
"""The tenant of a queue that all tenants share."""

QueueKey: TypeAlias = tuple[DomainName, TenantId]
Entry: TypeAlias = tuple[float, SessionId, Epoch]


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedQueue:
    """A queue on a session's path.

    Attributes:
        key: Whose queue it is, and where.
        curve: What serves it, as the session's envelope says.
    """

    key: QueueKey
    curve: QueueCurve


@dataclass(slots=True)
class Tolerances:
    """What the sessions in shared queues tolerate, least first in every group."""

    groups: dict[tuple[SharedQueue, ...], list[Entry]] = field(
        default_factory=dict[tuple[SharedQueue, ...], list[Entry]]
    )
    places: dict[tuple[SessionId, Epoch], tuple[tuple[SharedQueue, ...], float]] = field(
        default_factory=dict[tuple[SessionId, Epoch], tuple[tuple[SharedQueue, ...], float]]
    )

    def protect(self, session: SessionId, epoch: Epoch, queues: tuple[SharedQueue, ...], tolerated_ms: float) -> None:
        """Take note of what a COMMIT tolerates, in place of what it tolerated before."""
        self.forget(session, epoch)
        self.places[session, epoch] = (queues, tolerated_ms)
        insort(self.groups.setdefault(queues, []), (tolerated_ms, session, epoch))

    def forget(self, session: SessionId, epoch: Epoch) -> None:
        """Forget a COMMIT."""
        place = self.places.pop((session, epoch), None)
        if place is None:
            return
        queues, tolerated_ms = place
        entries = self.groups[queues]
        del entries[bisect_left(entries, (tolerated_ms, session, epoch))]
        if not entries:
            del self.groups[queues]

    def move(self, session: SessionId, old: Epoch, new: Epoch) -> None:
        """Put what a COMMIT tolerates under another epoch."""
        place = self.places.get((session, old))
        if place is not None:
            self.forget(session, old)
            self.protect(session, new, *place)

    def harm(
        self,
        bursts: Mapping[QueueKey, int],
        adding: Mapping[QueueKey, int],
        but: SessionId,
        gone: Container[tuple[SessionId, Epoch]] = (),
    ) -> Harm:
        """Return who would be harmed if `adding` came on top of `bursts`; `but` itself and `gone` do not count."""
        harmed_in, burst_max = "", math.inf
        for queues, entries in self.groups.items():
            touched = [queue for queue in queues if adding.get(queue.key)]
            tolerated_ms = (
                next((entry[0] for entry in entries if entry[1] != but and entry[1:] not in gone), None)
                if touched
                else None
            )
            if tolerated_ms is None:
                continue
            before_ms = math.fsum(queue.curve.delay_ms(bursts.get(queue.key, 0)) for queue in queues)
            after_ms = math.fsum(
                queue.curve.delay_ms(bursts.get(queue.key, 0) + adding.get(queue.key, 0)) for queue in queues
            )
            if after_ms > tolerated_ms:
                harmed_in = touched[0].key[0]
            slope = math.fsum(1.0 / queue.curve.rate_per_ms for queue in touched)
            burst_max = min(burst_max, max(0.0, (tolerated_ms - before_ms) / slope * (1.0 - 1e-9)))
        return Harm(domain=harmed_in, burst_max=burst_max)
