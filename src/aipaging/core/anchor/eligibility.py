"""Which anchors are eligible for an intent, and why the others are not.

Constraints are checked in the order of `CHECKS`, cheapest and most telling first; the first that fails names the
refusal. Hard constraints fail closed: what is not known to hold does not hold. Nothing here trades one constraint
against another; `ranked` only orders what passed all of them.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from aipaging.core.anchor.catalogue import Anchor, AnchorState, Catalogue, Domain, Path, Service
from aipaging.core.anchor.intent import EPSILON_MAX, Intent, Preference
from aipaging.core.anchor.offer import (
    Offer,
    highest_rate_rps,
    largest_burst,
    least_epsilon,
    limits_mrps,
    queue_full,
    session_path,
    shared_queues,
)
from aipaging.core.envelope.admission import TailBound, kept_bound, session_bound, session_delay_ms
from aipaging.core.envelope.envelope import Envelope
from aipaging.core.envelope.path_delay import Frame, frame_of
from aipaging.core.foundation.names import AnchorId, DomainName, ServiceUri


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearest:
    """What would pass the constraint that failed, everything else in the intent as it is; None where nothing would.

    Each alone would do: they are alternatives, not a set.

    Attributes:
        delay_ms: The least delay target that can be promised at the intent's epsilon.
        epsilon: The least epsilon that can be promised at the intent's delay.
        rate_rps: The highest rate.
        burst: The largest burst.
    """

    delay_ms: float | None = None
    epsilon: float | None = None
    rate_rps: float | None = None
    burst: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """The constraint that failed, the sentence that says how, what would have passed it, and which policies forbid."""

    constraint: str
    message: str
    nearest: Nearest | None = None
    policies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One anchor, looked at for one intent.

    Attributes:
        anchor: The anchor.
        aisi: What it executes.
        path: The domains from the client to it; empty if there is no path.
        bound: The tail bound along the path, where it came to that.
        envelopes: Digests of the envelopes that the bound rests on, in path order.
        rejection: The first constraint that failed, or None: the candidate is eligible.
    """

    anchor: AnchorId
    aisi: ServiceUri
    path: tuple[DomainName, ...]
    bound: TailBound | None
    envelopes: tuple[str, ...]
    rejection: Rejection | None


@dataclass(slots=True)
class Look:
    """What one check may see, and what it leaves for the next; `bounds` remembers paths that were bounded already."""

    offer: Offer
    intent: Intent
    anchor: Anchor
    service: Service
    path: Path | None
    domains: tuple[Domain, ...] = ()
    envelopes: tuple[Envelope, ...] = ()
    bound: TailBound | None = None
    nearest: Nearest | None = None
    bounds: "Bounds" = field(default_factory=dict[tuple[Envelope, ...], tuple[TailBound, Nearest | None]])


Bounds: TypeAlias = dict[tuple[Envelope, ...], tuple[TailBound, Nearest | None]]
"""Bounds, and what would be admitted instead, by the envelopes of a path."""

Check: TypeAlias = Callable[[Look], str | None]


def _task(look: Look) -> str | None:
    wanted, offered = look.intent.task, look.service.task
    return None if wanted == offered else f"wanted {wanted}, offers {offered}"


def _modality(look: Look) -> str | None:
    wanted, offered = look.intent.modality, look.service.modality
    return None if wanted == offered else f"wanted {wanted}, offers {offered}"


def _language(look: Look) -> str | None:
    wanted, offered = look.intent.language, look.service.languages
    if not wanted or not offered or wanted in offered:
        return None
    return f"wanted {wanted}, offers {', '.join(offered)}"


def _quality(look: Look) -> str | None:
    quality = look.intent.quality
    if quality is None:
        return None
    for benchmark, score in look.service.scores:
        if benchmark == quality.benchmark:
            return None if score >= quality.score_min else f"{benchmark} {score:g} is below {quality.score_min:g}"
    return f"no score on {quality.benchmark} is vouched for"


def _licence(look: Look) -> str | None:
    wanted, offered = look.intent.licences, look.service.licence
    return None if not wanted or offered in wanted else f"licence {offered or 'unknown'} is not among those accepted"


def _cost(look: Look) -> str | None:
    most, price = look.intent.cost_max, look.service.price
    return None if most is None or price <= most else f"price {price} per 1,000 requests is above {most}"


def _health(look: Look) -> str | None:
    state = look.anchor.state
    return None if state is AnchorState.READY else f"the anchor is {state.value}"


def _path(look: Look) -> str | None:
    path = look.path
    if path is None:
        return f"no path from {look.intent.place} to {look.anchor.domain} is registered"
    missing = [name for name in path.domains if name not in look.offer.catalogue.domains]
    if missing:
        return f"the path crosses {missing[0]}, which is not registered"
    look.domains = tuple(look.offer.catalogue.domains[name] for name in path.domains)
    return None


def _place(look: Look) -> str | None:
    compute = look.domains[-1]
    regions, jurisdictions = look.intent.regions, look.intent.jurisdictions
    if regions and compute.region not in regions:
        return f"region {compute.region} is not among {', '.join(regions)}"
    if jurisdictions and compute.jurisdiction not in jurisdictions:
        return f"jurisdiction {compute.jurisdiction} is not among {', '.join(jurisdictions)}"
    return None


def _trust(look: Look) -> str | None:
    least = look.intent.trust_min
    for domain in look.domains:
        if domain.trust < least:
            return f"{domain.name} has trust {domain.trust}, below {least}"
    return None


def _data_class(look: Look) -> str | None:
    wanted = look.intent.data_class
    for domain in look.domains:
        if domain.data_class_max < wanted:
            return f"{domain.name} is cleared up to {domain.data_class_max.name}, not {wanted.name}"
    return None


def _envelope(look: Look) -> str | None:
    found: list[Envelope] = []
    catalogue, wall_us = look.offer.catalogue, look.offer.wall_us
    for domain in look.domains:
        envelope = catalogue.envelope_of(domain.name, look.anchor.aisi)
        if envelope is None:
            return f"{domain.name} has no envelope"
        if not envelope.valid_from_us <= wall_us < envelope.valid_until_us:
            return f"the envelope of {domain.name} is not valid now"
        if envelope.digest in catalogue.suspect:
            return f"the envelope of {domain.name} is suspect: {catalogue.suspect[envelope.digest]}"
        found.append(envelope)
    look.envelopes = tuple(found)
    return None


def _guardrail(look: Look) -> str | None:
    rate_mrps, burst = look.intent.rate_mrps, look.intent.burst
    for envelope in look.envelopes:
        if rate_mrps > envelope.rate_mrps_max:
            look.nearest = Nearest(rate_rps=min(one.rate_mrps_max for one in look.envelopes) / 1000)
            return f"{envelope.domain} carries at most {envelope.rate_mrps_max / 1000:g} requests/s in one session"
        if burst > envelope.burst_max:
            look.nearest = Nearest(burst=min(one.burst_max for one in look.envelopes))
            return f"{envelope.domain} carries a burst of at most {envelope.burst_max} in one session"
    return None


def _capacity(look: Look) -> str | None:
    rate = look.intent.rate_mrps
    spare = look.anchor.capacity_mrps - look.offer.reserved.anchor_mrps(look.anchor.anchor)
    where = "at the anchor"
    for domain, envelope in zip(look.domains, look.envelopes, strict=True):
        left = min(limits_mrps(look.offer, domain, envelope), default=spare)
        if left < spare:
            spare, where = left, f"in {domain.name}"
    if rate <= spare:
        return None
    if spare > 0:
        look.nearest = Nearest(rate_rps=spare / 1000)
    return f"{max(spare, 0) / 1000:g} requests/s are left {where}"


def _queue(look: Look) -> str | None:
    for domain, envelope in zip(look.domains, look.envelopes, strict=True):
        full = queue_full(look.offer, look.intent, domain, envelope)
        if full is not None:
            look.nearest = Nearest(burst=full[1]) if full[1] else None
            return full[0]
    return None


def _delay(look: Look) -> str | None:
    intent, path = look.intent, look.envelopes
    if path not in look.bounds:
        look.bounds[path] = _bounded(look.offer, intent, path)
    look.bound, look.nearest = look.bounds[path]
    if look.nearest is None:
        return None
    epsilon, delay_ms = look.bound.epsilon_bound, look.nearest.delay_ms
    least = f"; the least that can be promised is {delay_ms:.4g} ms" if delay_ms is not None else ""
    if epsilon >= 1:
        return f"nothing can be proven about P(delay > {intent.delay_ms:g} ms){least}"
    return f"P(delay > {intent.delay_ms:g} ms) is provably at most {epsilon:.3g}, not {intent.epsilon:g}{least}"


def _bounded(offer: Offer, intent: Intent, envelopes: tuple[Envelope, ...]) -> tuple[TailBound, Nearest | None]:
    """Return the bound of a path, and what could be promised instead where it does not admit."""
    frame = frame_of(envelopes)
    path = session_path(offer, intent, frame)
    bound = session_bound(path, intent.delay_ms, intent.epsilon)
    if bound.epsilon_bound <= intent.epsilon:
        return promised(bound, intent, frame), None
    return bound, Nearest(
        delay_ms=session_delay_ms(path, intent.epsilon),
        epsilon=bound.epsilon_bound if bound.epsilon_bound <= EPSILON_MAX else None,
        rate_rps=highest_rate_rps(offer, intent, frame),
        burst=largest_burst(offer, intent, frame),
    )


def promised(bound: TailBound, intent: Intent, frame: Frame) -> TailBound:
    """Return the bound that a session carries which a bound admits."""
    return kept_bound(bound, intent.epsilon) if frame.queues else bound


def least_promised(offer: Offer, intent: Intent, envelopes: tuple[Envelope, ...]) -> Nearest:
    """Return the least delay and the least epsilon that any rung proves along a path: some ms of work.

    What a refused page is told rests on the quick rungs alone, which may ask for up to some percent more delay.
    """
    frame = frame_of(envelopes)
    path = session_path(offer, intent, frame)
    return Nearest(
        delay_ms=session_delay_ms(path, intent.epsilon, sharp=True), epsilon=least_epsilon(offer, intent, frame)
    )


def _others(look: Look) -> str | None:
    frame = frame_of(look.envelopes)
    harm = look.offer.reserved.harm(shared_queues(frame)) if frame.queues else None
    if harm is None or not harm.domain:
        return None
    burst = math.floor(min(harm.burst_max, look.intent.burst - 1))
    look.nearest = Nearest(burst=burst) if burst >= 1 else None
    most = f": a burst of {burst} would be admitted" if burst >= 1 else ""
    return f"sessions in {harm.domain} could not be promised their delay any more{most}"


Checks: TypeAlias = Sequence[tuple[str, Check]]

SERVICE_CHECKS: Final[Checks] = (
    ("TASK", _task),
    ("MODALITY", _modality),
    ("LANGUAGE", _language),
    ("QUALITY", _quality),
    ("LICENCE", _licence),
    ("COST", _cost),
)
"""What depends on the service alone."""

ROUTE_CHECKS: Final[Checks] = (
    ("PLACE", _place),
    ("TRUST", _trust),
    ("DATA_CLASS", _data_class),
    ("ENVELOPE", _envelope),
    ("GUARDRAIL", _guardrail),
    ("CAPACITY", _capacity),
    ("QUEUE", _queue),
)
"""What can be said of the domains of a path."""

CHECKS: Final[Checks] = (
    *SERVICE_CHECKS,
    ("HEALTH", _health),
    ("PATH", _path),
    *ROUTE_CHECKS,
    ("DELAY", _delay),
    ("OTHERS", _others),
)
"""Every hard constraint, in the order in which it is checked."""


def examine(offer: Offer, intent: Intent, anchors: Iterable[Anchor]) -> list[Candidate]:
    """Return one candidate per anchor, eligible or with the constraint that failed."""
    bounds: Bounds = {}
    return [_examined(offer, intent, anchor, bounds) for anchor in anchors]


def _examined(offer: Offer, intent: Intent, anchor: Anchor, bounds: Bounds) -> Candidate:
    service = offer.catalogue.services.get(anchor.aisi)
    rejection: Rejection | None = None
    path = offer.catalogue.path_to(intent.place, anchor.domain)
    look: Look | None = None
    if service is None:
        rejection = Rejection(constraint="SERVICE", message=f"{anchor.aisi} is not in the catalogue")
    else:
        look = Look(offer, intent, anchor, service, path, bounds=bounds)
        for constraint, check in CHECKS:
            message = check(look)
            if message is not None:
                rejection = Rejection(constraint=constraint, message=message, nearest=look.nearest)
                break
    return Candidate(
        anchor=anchor.anchor,
        aisi=anchor.aisi,
        path=path.domains if path else (),
        bound=look.bound if look else None,
        envelopes=tuple([envelope.digest for envelope in look.envelopes]) if look else (),
        rejection=rejection,
    )


def rank(intent: Intent, service: Service, bound: float) -> tuple[float, ...]:
    """Return what orders the eligible, least first: by the intent's preference, then cost and bound."""
    if intent.prefer is Preference.DELAY:
        return bound, service.price
    if intent.prefer is Preference.QUALITY and intent.quality is not None:
        return -dict(service.scores).get(intent.quality.benchmark, -math.inf), service.price, bound
    return service.price, bound


def ranked(catalogue: Catalogue, intent: Intent, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the eligible candidates, best first: by `rank`, then by name."""

    def key(candidate: Candidate) -> tuple[tuple[float, ...], AnchorId]:
        bound = candidate.bound.epsilon_bound if candidate.bound else 1.0
        return rank(intent, catalogue.services[candidate.aisi], bound), candidate.anchor

    return sorted((candidate for candidate in candidates if candidate.rejection is None), key=key)
