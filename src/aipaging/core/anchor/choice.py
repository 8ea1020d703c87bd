"""The best eligible anchor, found without looking at more than it takes.

`examine` looks at every anchor and says why it is not eligible; a page that succeeds needs none of that. Here anchors
fall into *routes* (same domain, same service) that share everything but health and capacity; every domain is checked
once; and the routes that cost the same are bounded together, vectorised. What is chosen is what `ranked(examine(...))`
puts first, for every constraint that there is: `HELD_TO` says where each is looked at.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np

from aipaging.core.anchor.catalogue import Anchor, AnchorState, Service
from aipaging.core.anchor.eligibility import SERVICE_CHECKS, Candidate, Look, promised, rank
from aipaging.core.anchor.intent import Intent, Preference
from aipaging.core.anchor.offer import Offer, bursts_ahead, limits_mrps, queue_full, shared_queues
from aipaging.core.calculus.candidates import epsilons_any_dependence
from aipaging.core.envelope.admission import session_bound
from aipaging.core.envelope.envelope import Envelope
from aipaging.core.envelope.path_delay import Frame, PathDelay, frame_of, framed_delay
from aipaging.core.envelope.service import Traffic
from aipaging.core.foundation.names import DomainName, ServiceUri

HELD_TO: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys((constraint for constraint, _ in SERVICE_CHECKS), "_wanted"),
        "HEALTH": "_open_routes",
        "PATH": "_envelopes",
        "PLACE": "_envelopes",
        "TRUST": "_passed",
        "DATA_CLASS": "_passed",
        "ENVELOPE": "_passed",
        "GUARDRAIL": "_passed",
        "CAPACITY": "_open_routes, _passed",
        "QUEUE": "_passed",
        "DELAY": "_in_order",
        "OTHERS": "_bearable",
    }
)
"""Every constraint of `eligibility.CHECKS`, and what keeps routes out that fail it; a test compares the two tables."""

TOGETHER_MIN: Final = 4
"""Routes from which on one vectorised call is cheaper than one call each."""

Key: TypeAlias = tuple[float, ...]


@dataclass(slots=True)
class _Route:
    """Anchors of one service in one domain: the first by name, and what they share."""

    anchor: Anchor
    service: Service
    frame: Frame
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
        for route in _in_order(intent, _bearable(offer, intent, tiers[tier])):
            found = _candidate(intent, route)
            if found is not None:
                return found
    return None


def _candidate(intent: Intent, route: _Route) -> Candidate | None:
    """Return the candidate of a route with the bound that admits it; None if its sharpest bound does not after all."""
    bound = session_bound(route.delay, intent.delay_ms, intent.epsilon)
    if bound.epsilon_bound > intent.epsilon:
        return None
    return Candidate(
        anchor=route.anchor.anchor,
        aisi=route.anchor.aisi,
        path=route.frame.path.domains,
        bound=promised(bound, intent, route.frame),
        envelopes=tuple([envelope.digest for envelope in route.frame.envelopes]),
        rejection=None,
    )


def _tier(intent: Intent, service: Service) -> Key:
    """Return what ranks before the bound: routes of one tier differ by their bounds alone."""
    return () if intent.prefer is Preference.DELAY else rank(intent, service, 0.0)


def _open_routes(offer: Offer, intent: Intent, anchors: Iterable[Anchor]) -> list[_Route]:
    """Return the routes that pass everything but the delay, each with its first anchor that has room."""
    services: dict[ServiceUri, Service | None] = {}
    routes: dict[tuple[DomainName, ServiceUri], _Route | None] = {}
    domains: dict[tuple[DomainName, ServiceUri], Envelope | None] = {}
    rate_mrps, anchor_mrps = intent.rate_mrps, offer.reserved.anchor_mrps
    for anchor in anchors:
        if anchor.state is not AnchorState.READY:
            continue
        aisi = anchor.aisi
        if aisi not in services:
            services[aisi] = _wanted(offer, intent, anchor)
        service = services[aisi]
        if service is None or rate_mrps > anchor.capacity_mrps - anchor_mrps(anchor.anchor):
            continue
        key = (anchor.domain, aisi)
        if key not in routes:
            envelopes = _envelopes(offer, intent, anchor, domains)
            routes[key] = None if envelopes is None else _Route(anchor, service, frame_of(envelopes))
            continue
        route = routes[key]
        if route is not None and anchor.anchor < route.anchor.anchor:
            route.anchor = anchor
    return [route for route in routes.values() if route is not None]


def _wanted(offer: Offer, intent: Intent, anchor: Anchor) -> Service | None:
    """Return the anchor's service if it passes what does not depend on the anchor."""
    service = offer.catalogue.services.get(anchor.aisi)
    if service is None:
        return None
    look = Look(offer, intent, anchor, service, None)
    return service if all(check(look) is None for _, check in SERVICE_CHECKS) else None


def _envelopes(
    offer: Offer, intent: Intent, anchor: Anchor, known: dict[tuple[DomainName, ServiceUri], Envelope | None]
) -> tuple[Envelope, ...] | None:
    """Return the envelopes on the path to an anchor, or None if there is no path, or a domain on it fails."""
    path = offer.catalogue.path_to(intent.place, anchor.domain)
    if path is None:
        return None
    envelopes: list[Envelope] = []
    for name in path.domains:
        key = (name, anchor.aisi)
        if key not in known:
            known[key] = _passed(offer, intent, name, anchor.aisi)
        envelope = known[key]
        if envelope is None:
            return None
        envelopes.append(envelope)
    compute = offer.catalogue.domains[anchor.domain]
    if intent.regions and compute.region not in intent.regions:
        return None
    if intent.jurisdictions and compute.jurisdiction not in intent.jurisdictions:
        return None
    return tuple(envelopes)


def _passed(offer: Offer, intent: Intent, name: DomainName, aisi: ServiceUri) -> Envelope | None:
    """Return the envelope of a domain if the domain passes every check of `eligibility` that is of one domain."""
    domain, envelope = offer.catalogue.domains.get(name), offer.catalogue.envelope_of(name, aisi)
    if domain is None or envelope is None:
        return None
    rate_mrps = intent.rate_mrps
    good = (
        domain.trust >= intent.trust_min
        and domain.data_class_max >= intent.data_class
        and envelope.valid_from_us <= offer.wall_us < envelope.valid_until_us
        and envelope.digest not in offer.catalogue.suspect
        and rate_mrps <= envelope.rate_mrps_max
        and rate_mrps <= min(limits_mrps(offer, domain, envelope), default=rate_mrps)
        and intent.burst <= envelope.burst_max
        and queue_full(offer, intent, domain, envelope) is None
    )
    return envelope if good else None


def _in_order(intent: Intent, routes: Sequence[_Route]) -> list[_Route]:
    """Return the routes of one tier whose bound may admit, in the order of their rank."""
    order: list[tuple[Key, str, _Route]] = []
    for route, bound in zip(routes, _unions(intent, routes), strict=True):
        epsilon = bound
        if epsilon > intent.epsilon:  # a sharper rung may do
            epsilon = session_bound(route.delay, intent.delay_ms, intent.epsilon).epsilon_bound
        if epsilon <= intent.epsilon:
            if route.frame.queues:
                epsilon = intent.epsilon  # what is promised where others may join: see `kept_bound`
            order.append((rank(intent, route.service, epsilon), route.anchor.anchor, route))
    order.sort(key=lambda entry: entry[:2])
    return [route for _, _, route in order]


def _bearable(offer: Offer, intent: Intent, routes: Iterable[_Route]) -> list[_Route]:
    """Return the routes that serve the session and whose queues can bear it; their delays are noted."""
    traffic = Traffic.of(intent.rate_mrps, intent.burst)
    # What stands in queues, and who is harmed, is the same for all routes through the same queues.
    met: dict[tuple[tuple[DomainName, bool], ...], tuple[list[int], bool]] = {(): ([], False)}
    bearable: list[_Route] = []
    for route in routes:
        frame = route.frame
        if frame.shares not in met:
            harm = offer.reserved.harm(shared_queues(frame))
            met[frame.shares] = (bursts_ahead(offer, frame), bool(harm.domain))
        ahead, harmed = met[frame.shares]
        if harmed:
            continue
        route.delay = framed_delay(frame, traffic, intent.epsilon, ahead)
        if route.delay is not None:
            bearable.append(route)
    return bearable


def _unions(intent: Intent, routes: Sequence[_Route]) -> list[float]:
    """Return the union bound of every route, all in one call if they are many."""
    delays = [route.delay for route in routes if route.delay is not None]
    if len(delays) < TOGETHER_MIN:
        return [session_bound(delay, intent.delay_ms, intent.epsilon).epsilon_bound for delay in delays]
    width = max(1, *(len(delay.tails) for delay in delays))
    rows = [delay.row(width) for delay in delays]
    table = np.array(rows).reshape(len(rows), width, 3)
    left_ms = np.array([intent.delay_ms - delay.fixed_total_ms for delay in delays])
    unions = epsilons_any_dependence(table[:, :, 0], table[:, :, 1], table[:, :, 2], np.maximum(left_ms, 0.0))
    certain = np.array([0.0 if delay.tails else -1.0 for delay in delays])
    failures = np.array([delay.failure for delay in delays])
    unions = np.where(left_ms < 0.0, 1.0, np.where(certain < 0.0, 0.0, unions))
    bounds: list[float] = np.minimum(1.0, np.nextafter(unions + failures, np.inf)).tolist()
    return bounds
