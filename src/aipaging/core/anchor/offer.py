"""What is on offer to one intent: catalogue, what others hold of it, and what that makes of a path.

Reservations are of a tenant: its share of a domain is its own, whatever other tenants do with theirs. Queues that
sessions share are looked at with everybody's bursts in them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from msgspec import structs

from aipaging.core.anchor.catalogue import Catalogue, Domain
from aipaging.core.anchor.intent import EPSILON_MAX, EPSILON_MIN, Intent
from aipaging.core.envelope.admission import session_bound
from aipaging.core.envelope.envelope import Envelope
from aipaging.core.envelope.path_delay import Frame, PathDelay, framed_delay
from aipaging.core.envelope.reserved import Harm, Sum
from aipaging.core.envelope.service import QueueCurve, ReservedSlots, SharedRate, Traffic, queue_curve
from aipaging.core.foundation.names import AnchorId, DomainName
from aipaging.core.foundation.time import WallUs

RETUNED_MAX: Final = 24
"""Looks at one path for its least epsilon: what is told was proven, however soon the search ends."""

RETUNED_LEAST: Final = 0.99
"""What is told as the least epsilon was proven, and this much of it was not."""


class Reserved(Protocol):
    """What others hold; a session that holds its share already is not counted against itself."""

    def anchor_mrps(self, anchor: AnchorId) -> int:
        """Return the rate that others have reserved at the anchor."""
        ...

    def domain_sum(self, domain: DomainName) -> Sum:
        """Return what others have reserved in the domain."""
        ...

    def tenant_sum(self, domain: DomainName) -> Sum:
        """Return what other sessions of the same tenant have reserved in the domain."""
        ...

    def tenants(self, domain: DomainName) -> int:
        """Return how many tenants have reserved something in the domain, this one not counted."""
        ...

    def harm(self, queues: Mapping[DomainName, QueueCurve]) -> Harm:
        """Return what the session's burst would do to the others in these queues, as far as it is not in them yet."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What is on offer at one instant.

    Attributes:
        catalogue: Services, domains, paths, anchors, envelopes.
        reserved: What others hold of it.
        wall_us: The instant, for the validity of envelopes.
    """

    catalogue: Catalogue
    reserved: Reserved
    wall_us: WallUs


def limits_mrps(offer: Offer, domain: Domain, envelope: Envelope) -> list[int]:
    """Return how much rate every limit of a domain leaves: of the domain, of its envelope, of its queue."""
    queue = queue_curve(envelope.service)
    if queue is None and not (domain.capacity_mrps or envelope.capacity_mrps or envelope.tenant_capacity_mrps):
        return []
    everybody, tenant = offer.reserved.domain_sum(domain.name), offer.reserved.tenant_sum(domain.name)
    limits = [limit - everybody.rate_mrps for limit in (domain.capacity_mrps, envelope.capacity_mrps) if limit]
    if envelope.tenant_capacity_mrps:
        limits.append(envelope.tenant_capacity_mrps - tenant.rate_mrps)
    if queue is not None:
        inside = tenant if queue.per_tenant else everybody
        limits.append(math.floor(queue.rate_per_ms * 1e6) - inside.rate_mrps)
    return limits


def queue_full(offer: Offer, intent: Intent, domain: Domain, envelope: Envelope) -> tuple[str, int] | None:
    """Return why the queue of a domain takes no more, and the burst that it would take; None if it does."""
    model, queue = envelope.service, queue_curve(envelope.service)
    if queue is None or model is None:
        return None
    tenant = offer.reserved.tenant_sum(domain.name)
    slots_gone = isinstance(model, ReservedSlots) and offer.reserved.tenants(domain.name) >= model.tenants_max
    if slots_gone and not tenant.sessions:
        return f"all slots of {domain.name} are reserved for other tenants", 0
    inside = tenant if queue.per_tenant else offer.reserved.domain_sum(domain.name)
    burst_max = model.burst_total_max if isinstance(model, SharedRate | ReservedSlots) else 0
    if inside.burst + intent.burst <= burst_max:
        return None
    left = max(0, burst_max - inside.burst)
    return f"the queue of {domain.name} holds bursts of {burst_max} requests, of which {left} are left", left


def session_path(offer: Offer, intent: Intent, frame: Frame) -> PathDelay | None:
    """Return the delay of the intent's traffic along a path, or None where it overloads a domain."""
    traffic = Traffic.of(intent.rate_mrps, intent.burst)
    return framed_delay(frame, traffic, intent.epsilon, bursts_ahead(offer, frame))


def bursts_ahead(offer: Offer, frame: Frame) -> list[int]:
    """Return what the bursts of others amount to in each queue that sessions share on a path."""
    everybody, tenant = offer.reserved.domain_sum, offer.reserved.tenant_sum
    return [(tenant if per_tenant else everybody)(domain).burst for domain, per_tenant in frame.shares]


def _provable(offer: Offer, intent: Intent, frame: Frame) -> bool:
    path = session_path(offer, intent, frame)
    return session_bound(path, intent.delay_ms, intent.epsilon).epsilon_bound <= intent.epsilon


def highest_rate_rps(offer: Offer, intent: Intent, frame: Frame) -> float | None:
    """Return a rate, within 1 % of the highest, at which the target could be promised; None if there is none."""
    if not frame.served:
        return None  # the contracts do not depend on it
    low, high = 0, intent.rate_mrps
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        if _provable(offer, structs.replace(intent, rate_rps=middle / 1000), frame):
            low = middle
        else:
            high = middle
    return low / 1000 if low else None


def largest_burst(offer: Offer, intent: Intent, frame: Frame) -> int | None:
    """Return the largest burst with which the target could be promised; None if there is none."""
    if not frame.served:
        return None
    low, high = 0, intent.burst
    while high - low > 1:
        middle = (low + high) // 2
        if _provable(offer, structs.replace(intent, burst=middle), frame):
            low = middle
        else:
            high = middle
    return low or None


def least_epsilon(offer: Offer, intent: Intent, frame: Frame) -> float | None:
    """Return an epsilon that could be promised at the delay target, and a hundredth less could not; None if none can.

    The tails of slots are tight at the epsilon that is asked for, and change in steps: what is proven when one is
    asked for may be out of reach when it is asked for itself. So each is tried.
    """

    def proven(epsilon: float) -> float:
        path = session_path(offer, structs.replace(intent, epsilon=epsilon), frame)
        return session_bound(path, intent.delay_ms).epsilon_bound

    least = min(proven(intent.epsilon), EPSILON_MAX)
    found = proven(least)
    if found > least and found <= EPSILON_MAX:
        least, found = found, proven(found)
    if found > least:
        return None
    refused = 0.0
    for _ in range(RETUNED_MAX):
        below = max(found, refused, EPSILON_MIN)
        last = below > least * RETUNED_LEAST
        if last:
            tried = max(least * RETUNED_LEAST, EPSILON_MIN)
        else:
            tried = below if below > refused else math.sqrt(refused * least)
        found = proven(tried)
        if found <= tried:
            least = tried
        elif last:
            break
        else:
            refused = tried
    return least


def shared_queues(frame: Frame) -> dict[DomainName, QueueCurve]:
    """Return the queues on a path that sessions share."""
    return {frame.envelopes[i].domain: queue for i, queue in frame.queues}
