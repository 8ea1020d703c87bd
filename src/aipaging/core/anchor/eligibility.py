"""Which anchors are eligible for an intent, and why the others are not.

Constraints are checked in the order of `CHECKS`, cheapest and most telling first; the first that fails names the
refusal. Hard constraints fail closed: what is not known to hold does not hold. Nothing here trades one constraint
against another; `ranked` only orders what passed all of them.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from aipaging.core.anchor.catalogue import Anchor, AnchorState, Catalogue, Domain, Path, Service
from aipaging.core.anchor.intent import Intent, Preference
from aipaging.core.envelope.admission import TailBound, least_delay_ms, tail_bound
from aipaging.core.envelope.envelope import Envelope
from aipaging.core.foundation.names import AnchorId, DomainName, ServiceUri
from aipaging.core.foundation.time import WallUs


class Reserved(Protocol):
    """What others hold; a session that holds its share already is not counted against itself."""

    def anchor_mrps(self, anchor: AnchorId) -> int:
        """Return the rate that others have reserved at the anchor."""
        ...

    def domain_mrps(self, domain: DomainName) -> int:
        """Return the rate that others have reserved in the domain."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearest:
    """What would pass the constraint that failed, everything else in the intent as it is; None where nothing would.

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
    """The constraint that failed, the sentence that says how, and what would have passed it."""

    constraint: str
    message: str
    nearest: Nearest | None = None


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
class _Look:
    """What one check may see, and what it leaves for the next."""

    offer: Offer
    intent: Intent
    anchor: Anchor
    service: Service
    path: Path | None
    domains: tuple[Domain, ...] = ()
    envelopes: tuple[Envelope, ...] = ()
    bound: TailBound | None = None
    nearest: Nearest | None = None


Check: TypeAlias = Callable[[_Look], str | None]


def _task(look: _Look) -> str | None:
    wanted, offered = look.intent.task, look.service.task
    return None if wanted == offered else f"wanted {wanted}, offers {offered}"


def _modality(look: _Look) -> str | None:
    wanted, offered = look.intent.modality, look.service.modality
    return None if wanted == offered else f"wanted {wanted}, offers {offered}"


def _language(look: _Look) -> str | None:
    wanted, offered = look.intent.language, look.service.languages
    if not wanted or not offered or wanted in offered:
        return None
    return f"wanted {wanted}, offers {', '.join(offered)}"


def _quality(look: _Look) -> str | None:
    quality = look.intent.quality
    if quality is None:
        return None
    for benchmark, score in look.service.scores:
        if benchmark == quality.benchmark:
            return None if score >= quality.score_min else f"{benchmark} {score:g} is below {quality.score_min:g}"
    return f"no score on {quality.benchmark} is vouched for"


def _licence(look: _Look) -> str | None:
    wanted, offered = look.intent.licences, look.service.licence
    return None if not wanted or offered in wanted else f"licence {offered or 'unknown'} is not among those accepted"


def _cost(look: _Look) -> str | None:
    most, price = look.intent.cost_max, look.service.price
    return None if most is None or price <= most else f"price {price} per 1,000 requests is above {most}"


def _health(look: _Look) -> str | None:
    state = look.anchor.state
    return None if state is AnchorState.READY else f"the anchor is {state.value}"


def _path(look: _Look) -> str | None:
    path = look.path
    if path is None:
        return f"no path from {look.intent.place} to {look.anchor.domain} is registered"
    missing = [name for name in path.domains if name not in look.offer.catalogue.domains]
    if missing:
        return f"the path crosses {missing[0]}, which is not registered"
    look.domains = tuple(look.offer.catalogue.domains[name] for name in path.domains)
    return None


def _place(look: _Look) -> str | None:
    compute = look.domains[-1]
    for what, wanted, offered in (
        ("region", look.intent.regions, compute.region),
        ("jurisdiction", look.intent.jurisdictions, compute.jurisdiction),
    ):
        if wanted and offered not in wanted:
            return f"{what} {offered} is not among {', '.join(wanted)}"
    return None


def _trust(look: _Look) -> str | None:
    for domain in look.domains:
        if domain.trust < look.intent.trust_min:
            return f"{domain.name} has trust {domain.trust}, below {look.intent.trust_min}"
    return None


def _data_class(look: _Look) -> str | None:
    for domain in look.domains:
        if domain.data_class_max < look.intent.data_class:
            return f"{domain.name} is cleared up to {domain.data_class_max.name}, not {look.intent.data_class.name}"
    return None


def _envelope(look: _Look) -> str | None:
    found: list[Envelope] = []
    for domain in look.domains:
        envelope = look.offer.catalogue.envelope_of(domain.name, look.anchor.aisi)
        if envelope is None:
            return f"{domain.name} has no envelope"
        if not envelope.valid_from_us <= look.offer.wall_us < envelope.valid_until_us:
            return f"the envelope of {domain.name} is not valid now"
        if envelope.digest in look.offer.catalogue.suspect:
            return f"the envelope of {domain.name} is suspect: {look.offer.catalogue.suspect[envelope.digest]}"
        found.append(envelope)
    look.envelopes = tuple(found)
    return None


def _guardrail(look: _Look) -> str | None:
    for envelope in look.envelopes:
        if look.intent.rate_mrps > envelope.rate_mrps_max:
            look.nearest = Nearest(rate_rps=min(one.rate_mrps_max for one in look.envelopes) / 1000)
            return f"{envelope.domain} carries at most {envelope.rate_mrps_max / 1000:g} requests/s in one session"
        if look.intent.burst > envelope.burst_max:
            look.nearest = Nearest(burst=min(one.burst_max for one in look.envelopes))
            return f"{envelope.domain} carries a burst of at most {envelope.burst_max} in one session"
    return None


def _capacity(look: _Look) -> str | None:
    rate = look.intent.rate_mrps
    spare = look.anchor.capacity_mrps - look.offer.reserved.anchor_mrps(look.anchor.anchor)
    where = "at the anchor"
    for domain, envelope in zip(look.domains, look.envelopes, strict=True):
        limits = [limit for limit in (domain.capacity_mrps, envelope.capacity_mrps) if limit]
        left = min(limits) - look.offer.reserved.domain_mrps(domain.name) if limits else spare
        if left < spare:
            spare, where = left, f"in {domain.name}"
    if rate <= spare:
        return None
    if spare > 0:
        look.nearest = Nearest(rate_rps=spare / 1000)
    return f"{max(spare, 0) / 1000:g} requests/s are left {where}"


def _delay(look: _Look) -> str | None:
    intent = look.intent
    look.bound = tail_bound(look.envelopes, intent.delay_ms)
    if look.bound.epsilon_bound <= intent.epsilon:
        return None
    delay_ms = least_delay_ms(look.envelopes, intent.epsilon)
    epsilon = look.bound.epsilon_bound
    look.nearest = Nearest(delay_ms=delay_ms, epsilon=epsilon if epsilon < 1 else None)
    least = f"; the least that can be promised is {delay_ms:.4g} ms" if delay_ms is not None else ""
    if epsilon >= 1:
        return f"nothing can be proven about P(delay > {intent.delay_ms:g} ms){least}"
    return f"P(delay > {intent.delay_ms:g} ms) is provably at most {epsilon:.3g}, not {intent.epsilon:g}{least}"


CHECKS: Final[Sequence[tuple[str, Check]]] = (
    ("TASK", _task),
    ("MODALITY", _modality),
    ("LANGUAGE", _language),
    ("QUALITY", _quality),
    ("LICENCE", _licence),
    ("COST", _cost),
    ("HEALTH", _health),
    ("PATH", _path),
    ("PLACE", _place),
    ("TRUST", _trust),
    ("DATA_CLASS", _data_class),
    ("ENVELOPE", _envelope),
    ("GUARDRAIL", _guardrail),
    ("CAPACITY", _capacity),
    ("DELAY", _delay),
)
"""Every hard constraint, in the order in which it is checked."""


def examine(offer: Offer, intent: Intent, anchors: Iterable[Anchor]) -> list[Candidate]:
    """Return one candidate per anchor, eligible or with the constraint that failed."""
    return [_examined(offer, intent, anchor) for anchor in anchors]


def _examined(offer: Offer, intent: Intent, anchor: Anchor) -> Candidate:
    service = offer.catalogue.services.get(anchor.aisi)
    rejection: Rejection | None = None
    path = offer.catalogue.path_to(intent.place, anchor.domain)
    look: _Look | None = None
    if service is None:
        rejection = Rejection(constraint="SERVICE", message=f"{anchor.aisi} is not in the catalogue")
    else:
        look = _Look(offer, intent, anchor, service, path)
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
        envelopes=tuple(envelope.digest for envelope in look.envelopes) if look else (),
        rejection=rejection,
    )


def ranked(catalogue: Catalogue, intent: Intent, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the eligible candidates, best first: by the intent's preference, then cost, bound and name."""

    def key(candidate: Candidate) -> tuple[float, ...]:
        service = catalogue.services[candidate.aisi]
        bound = candidate.bound.epsilon_bound if candidate.bound else 1.0
        if intent.prefer is Preference.DELAY:
            return bound, service.price
        if intent.prefer is Preference.QUALITY and intent.quality is not None:
            return -dict(service.scores).get(intent.quality.benchmark, -math.inf), service.price, bound
        return service.price, bound

    eligible = [candidate for candidate in candidates if candidate.rejection is None]
    return sorted(eligible, key=lambda candidate: (key(candidate), candidate.anchor))
