"""The best eligible anchor, found without looking at more than it takes.

`examine` looks at every anchor and says why it is not eligible; a page that succeeds needs none of that. Here anchors
fall into *routes* (same domain, same service) that share everything but health and capacity; every domain is checked
once; and the routes that cost the same are bounded together, vectorised. What is chosen is what `ranked(examine(...))`
puts first, and the chosen anchor is examined in full before it is returned.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from aipaging.core.anchor.catalogue import Anchor, AnchorState, Service
from aipaging.core.anchor.eligibility import ROUTE_CHECKS, SERVICE_CHECKS, Candidate, Look, examine, rank
from aipaging.core.anchor.intent import Intent, Preference
from aipaging.core.anchor.offer import Offer, session_path, shared_queues
from aipaging.core.calculus.candidates import epsilons_any_dependence
from aipaging.core.envelope.admission import session_bound
from aipaging.core.envelope.envelope import Envelope
from aipaging.core.envelope.path_delay import PathDelay
from aipaging.core.foundation.names import DomainName, ServiceUri

TOGETHER_MIN: Final = 4
"""Routes from which on one vectorised call is cheaper than one call each."""

ABSENT: Final = 1e-300
"""The prefactor of a domain without a tail: nothing of it is left after rounding."""

Key: TypeAlias = tuple[float, ...]


@dataclass(slots=True)
class _Route:
    """Anchors of one service in one domain: the first by name, and what they share."""

    anchor: Anchor
    service: Service
    envelopes: tuple[Envelope, ...] = ()
    delay: PathDelay | None = None


def best(offer: Offer, intent: Intent, anchors: Iterable[Anchor]) -> Candidate | None:
    """Return the candidate that ranks first, or None if no anchor is eligible.

    Args:
        offer: What is on offer.
        intent: What is wanted.
        anchors: Where to look.
    """
    tiers: dict[Key, list[_Route]] = {}
    for route in _open_routes(offer, intent, anchors):
        tiers.setdefault(_tier(intent, route.service), []).append(route)
    for tier in sorted(tiers):
        for route in _in_order(offer, intent, tiers[tier]):
            found = examine(offer, intent, [route.anchor])[0]
            if found.rejection is None:
                return found
    return None


def _tier(intent: Intent, service: Service) -> Key:
    """Return what ranks before the bound: routes of one tier differ by their bounds alone."""
    return () if intent.prefer is Preference.DELAY else rank(intent, service, 0.0)


def _open_routes(offer: Offer, intent: Intent, anchors: Iterable[Anchor]) -> Iterable[_Route]:
    """Return the routes that pass everything but the delay, each with its first anchor that has room."""
    services: dict[ServiceUri, Service | None] = {}
    routes: dict[tuple[DomainName, ServiceUri], _Route | None] = {}
    domains: dict[tuple[DomainName, ServiceUri], Envelope | None] = {}
    rate_mrps = intent.rate_mrps
    for anchor in anchors:
        if anchor.state is not AnchorState.READY:
            continue
        if anchor.aisi not in services:
            services[anchor.aisi] = _wanted(offer, intent, anchor)
        service = services[anchor.aisi]
        key = (anchor.domain, anchor.aisi)
        if service is None or (key in routes and routes[key] is None):
            continue
        if rate_mrps > anchor.capacity_mrps - offer.reserved.anchor_mrps(anchor.anchor):
            continue
        route = routes.get(key)
        if route is None:
            path = offer.catalogue.path_to(intent.place, anchor.domain)
            routes[key] = _route(Look(offer, intent, anchor, service, path), domains)
        elif anchor.anchor < route.anchor.anchor:
            route.anchor = anchor
    return [route for route in routes.values() if route is not None]


def _wanted(offer: Offer, intent: Intent, anchor: Anchor) -> Service | None:
    """Return the anchor's service if it passes what does not depend on the anchor."""
    service = offer.catalogue.services.get(anchor.aisi)
    if service is None:
        return None
    look = Look(offer, intent, anchor, service, None)
    return service if all(check(look) is None for _, check in SERVICE_CHECKS) else None


def _route(base: Look, known: dict[tuple[DomainName, ServiceUri], Envelope | None]) -> _Route | None:
    """Return the route to an anchor's domain, or None if there is no path or a domain on it fails."""
    if base.path is None:
        return None
    envelopes: list[Envelope] = []
    for name in base.path.domains:
        key = (name, base.anchor.aisi)
        # Place is asked of the last domain alone; every other check is of each domain by itself.
        if key not in known or name == base.anchor.domain:
            known[key] = _passes(base, name)
        envelope = known[key]
        if envelope is None:
            return None
        envelopes.append(envelope)
    return _Route(base.anchor, base.service, tuple(envelopes))


def _passes(base: Look, name: DomainName) -> Envelope | None:
    """Return the envelope of a domain if the domain passes every check that is of one domain."""
    domain = base.offer.catalogue.domains.get(name)
    if domain is None:
        return None
    look = Look(base.offer, base.intent, base.anchor, base.service, None, domains=(domain,))
    for constraint, check in ROUTE_CHECKS:
        if constraint == "PLACE" and name != base.anchor.domain:
            continue
        if check(look) is not None:
            return None
    return look.envelopes[0]


def _in_order(offer: Offer, intent: Intent, routes: Sequence[_Route]) -> list[_Route]:
    """Return the routes of one tier whose bound may admit, in the order of their rank."""
    for route in routes:
        route.delay = session_path(offer, intent, route.envelopes)
    possible = [route for route in routes if route.delay is not None and not _harms(offer, route)]
    bounds = _unions(intent, possible)
    order: list[tuple[Key, str, _Route]] = []
    for route, bound in zip(possible, bounds, strict=True):
        epsilon = bound
        if epsilon > intent.epsilon:  # a sharper rung may do
            epsilon = session_bound(route.delay, intent.delay_ms, intent.epsilon).epsilon_bound
        if epsilon <= intent.epsilon:
            order.append((rank(intent, route.service, epsilon), route.anchor.anchor, route))
    order.sort(key=lambda entry: entry[:2])
    return [route for _, _, route in order]


def _harms(offer: Offer, route: _Route) -> bool:
    queues = shared_queues(route.envelopes)
    return bool(queues) and bool(offer.reserved.harm(queues).domain)


def _unions(intent: Intent, routes: Sequence[_Route]) -> list[float]:
    """Return the union bound of every route, all in one call if they are many."""
    delays = [route.delay for route in routes if route.delay is not None]
    if len(delays) < TOGETHER_MIN:
        return [session_bound(delay, intent.delay_ms, intent.epsilon).epsilon_bound for delay in delays]
    width = max(1, *(len(delay.tails) for delay in delays))
    table = np.zeros((3, len(delays), width))
    table[1] = ABSENT
    table[2] = 1.0
    for i, delay in enumerate(delays):
        for j, tail in enumerate(delay.tails):
            contract = tail.contract
            table[:, i, j] = contract.offset_ms, contract.prefactor, contract.decay_per_ms
    left_ms = np.array([intent.delay_ms - delay.fixed_total_ms for delay in delays])
    bounds = np.where(
        left_ms >= 0.0, epsilons_any_dependence(table[0], table[1], table[2], np.maximum(left_ms, 0.0)), 1.0
    )
    return [
        min(1.0, math.nextafter((float(bound) if delay.tails or bound >= 1.0 else 0.0) + delay.failure, math.inf))
        for bound, delay in zip(bounds, delays, strict=True)
    ]
