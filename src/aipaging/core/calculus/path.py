"""One question about one path: an arrival, the domains it crosses in order, a delay or a probability.

The path is reduced exactly first (reserved shares, deterministic composition), then handed to the ladder of
the shape that is left. A shape for which no rung has a proof is refused by name, never approximated:
`NotAttestedError` says which assumption would be needed.
"""

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from aipaging.core.calculus.arrivals import SLOTTED, Arrival, CompoundPoisson, SlottedWork, mean_rate, superpose
from aipaging.core.calculus.bound import RungClass, TailBound, certain, delay_for, least
from aipaging.core.calculus.deficit import ImpairedRateLatency, deficit_bound
from aipaging.core.calculus.deterministic import RateLatency, TokenBucket, convolve, horizontal_deviation
from aipaging.core.calculus.errors import NotAttestedError, UnstableError, require_non_negative, require_positive
from aipaging.core.calculus.onoff import SlottedOnOff
from aipaging.core.calculus.priority import low_priority_tail
from aipaging.core.calculus.queue_exact import exponential_slots
from aipaging.core.calculus.rate_split import rate_split_tail
from aipaging.core.calculus.risk_budget import BudgetPart, DelayContract, delay_any_dependence, epsilon_any_dependence
from aipaging.core.calculus.risk_sharp import epsilon_any_dependence_sharp, epsilon_conditional
from aipaging.core.calculus.rounding import whole_slots
from aipaging.core.calculus.single_hop import backlog_tail
from aipaging.core.calculus.tandem_hop import (
    exponential_cross_bound,
    exponential_onoff_bound,
    exponential_servers_tail,
)
from aipaging.core.calculus.work import ExponentialWork
from aipaging.core.foundation.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class OnOffService:
    """A slot gives `rate` with probability `availability`, else nothing; independent from slot to slot."""

    rate: float
    availability: float

    def __post_init__(self) -> None:
        require_positive(rate=self.rate, availability=self.availability)
        if self.availability > 1.0:
            raise InvalidInputError("availability must be at most 1", field="availability")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExponentialServer:
    """A FIFO server whose service times are Exp(1 / rate), drawn afresh for every job."""

    rate: float

    def __post_init__(self) -> None:
        require_positive(rate=self.rate)


Service: TypeAlias = RateLatency | ImpairedRateLatency | OnOffService | ExponentialServer | DelayContract


class Discipline(enum.Enum):
    """What is known of how a domain serves the flow beside its cross traffic."""

    FIFO = "fifo"
    RESERVED = "reserved"
    BLIND = "blind"
    PRIORITY = "priority"


class Dependence(enum.Enum):
    """What is known of how a domain depends on the others and on the past."""

    INDEPENDENT = "independent"
    CONDITIONAL = "conditional"
    ANY = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """One domain of a path.

    Attributes:
        name: For the answer.
        service: What it gives; with RESERVED, what it gives this flow alone.
        cross: Fresh cross traffic that leaves after the domain.
        discipline: How it is multiplexed; PRIORITY means that the cross traffic goes first.
        dependence: Its clause.
    """

    name: str
    service: Service
    cross: tuple[Arrival, ...] = ()
    discipline: Discipline = Discipline.RESERVED
    dependence: Dependence = Dependence.INDEPENDENT


@dataclass(frozen=True, slots=True, kw_only=True)
class PathAnswer:
    """A delay and a bound on the probability that it is exceeded; `parts` where the rung splits the risk."""

    delay: float
    bound: TailBound
    parts: tuple[BudgetPart | None, ...]


def bound_path(
    arrival: Arrival | None, domains: Sequence[Domain], delay: float, *, rung_class: RungClass = RungClass.SHARP
) -> PathAnswer:
    """Return the least bound on P(end-to-end delay > delay).

    Args:
        arrival: The flow; may be None where every domain is a delay contract.
        domains: In the order in which they are crossed.
        delay: In the unit of time of the arrival and the domains.
        rung_class: FAST for admission.

    Raises:
        UnstableError: Some domain is overloaded.
        NotAttestedError: No rung is proven for this path.
        InvalidInputError: Nonsense.
    """
    require_non_negative(delay=delay)
    if not domains:
        raise InvalidInputError("a path needs at least one domain", field="domains")
    if all(isinstance(domain.service, DelayContract) for domain in domains):
        return _contracts(domains, delay, rung_class)
    if arrival is None:
        raise InvalidInputError("only delay contracts can be bounded without an arrival", field="arrival")
    bound = _bound(arrival, domains, delay, rung_class)
    return PathAnswer(delay=delay, bound=bound, parts=(None,) * len(domains))


def delay_of_path(
    arrival: Arrival | None, domains: Sequence[Domain], epsilon: float, *, rung_class: RungClass = RungClass.SHARP
) -> PathAnswer:
    """Return the least delay that `bound_path` proves for epsilon; delay inf where none is proven.

    Raises:
        UnstableError: Some domain is overloaded.
        NotAttestedError: No rung is proven for this path.
        InvalidInputError: Nonsense.
    """
    if not 0.0 < epsilon < 1.0:
        raise InvalidInputError("epsilon must lie strictly between 0 and 1", field="query.epsilon")
    if isinstance(arrival, TokenBucket) and not any(isinstance(d.service, DelayContract) for d in domains):
        worst = _worst_case(arrival, domains)
        return bound_path(arrival, domains, worst, rung_class=rung_class)
    slotted = isinstance(arrival, SLOTTED)
    scale = _scale(arrival, domains)

    def probability_at(delay: float) -> float:
        return bound_path(arrival, domains, delay, rung_class=rung_class).bound.probability

    delay = delay_for(probability_at, epsilon, scale=scale, slotted=slotted)
    if math.isinf(delay):
        return PathAnswer(delay=delay, bound=certain(1.0, "trivial", ()), parts=(None,) * len(domains))
    return bound_path(arrival, domains, delay, rung_class=rung_class)


def _scale(arrival: Arrival | None, domains: Sequence[Domain]) -> float:
    contracts = [d.service for d in domains if isinstance(d.service, DelayContract)]
    if contracts:
        return delay_any_dependence(contracts, 0.01).delay_ms or 1.0
    if isinstance(arrival, CompoundPoisson):
        return 1.0 / arrival.rate
    return 1.0


def _contracts(domains: Sequence[Domain], delay: float, rung_class: RungClass) -> PathAnswer:
    contracts = [domain.service for domain in domains if isinstance(domain.service, DelayContract)]
    splits = [epsilon_any_dependence(contracts, delay)]
    if all(domain.dependence is not Dependence.ANY for domain in domains):
        splits.append(epsilon_conditional(contracts, delay))
    elif rung_class is RungClass.SHARP:
        splits.append(epsilon_any_dependence_sharp(contracts, delay))
    best = min(splits, key=lambda split: split.epsilon)
    bound = TailBound(probability=best.epsilon, rung=best.rung, assumptions=best.assumptions)
    return PathAnswer(delay=delay, bound=bound, parts=best.parts or (None,) * len(domains))


def _bound(arrival: Arrival, domains: Sequence[Domain], delay: float, rung_class: RungClass) -> TailBound:
    if isinstance(arrival, TokenBucket):
        worst = _worst_case(arrival, domains)
        return certain(0.0 if delay >= worst else 1.0, "deterministic", ("regulated", "strict-service-curves"))
    services = [domain.service for domain in domains]
    if isinstance(arrival, CompoundPoisson) and all(isinstance(s, ExponentialServer) for s in services):
        if any(domain.cross for domain in domains):
            raise NotAttestedError("exponential servers with cross traffic: give the total arrival rate instead")
        rates = [s.rate for s in services if isinstance(s, ExponentialServer)]
        return exponential_servers_tail(arrival.rate, rates, delay)
    alone = all(not domain.cross or domain.discipline is Discipline.RESERVED for domain in domains)
    if alone and all(isinstance(s, RateLatency) for s in services):
        return _reserved(arrival, [s for s in services if isinstance(s, RateLatency)], delay, rung_class)
    if alone and all(isinstance(s, OnOffService) for s in services) and _one_exponential(arrival) is not None:
        _require_independent(domains)
        pairs = [(s.rate, s.availability) for s in services if isinstance(s, OnOffService)]
        mean = _one_exponential(arrival) or 0.0
        return exponential_onoff_bound(mean, pairs, delay=whole_slots(delay), rung_class=rung_class)
    if alone and isinstance(arrival, SlottedWork) and all(isinstance(s, ImpairedRateLatency) for s in services):
        _require_independent(domains)
        impaired = [s for s in services if isinstance(s, ImpairedRateLatency)]
        return deficit_bound(arrival, impaired, whole_slots(delay))
    return _shared(arrival, domains, delay, rung_class)


def _worst_case(arrival: TokenBucket, domains: Sequence[Domain]) -> float:
    servers: list[RateLatency] = []
    for domain in domains:
        if not isinstance(domain.service, RateLatency):
            raise NotAttestedError("a worst case needs rate-latency services on the whole path")
        server = domain.service
        if domain.discipline is not Discipline.RESERVED:
            for cross in domain.cross:
                if not isinstance(cross, TokenBucket):
                    raise NotAttestedError("a worst case needs cross traffic regulated by token buckets")
                server = server.leftover(cross)
        servers.append(server)
    return horizontal_deviation(arrival, convolve(servers))


def _reserved(arrival: Arrival, servers: Sequence[RateLatency], delay: float, rung_class: RungClass) -> TailBound:
    """Compose exactly: the backlog at the least rate exceeds R (d - sum T)."""
    whole = convolve(servers)
    if isinstance(arrival, SLOTTED) and not (len(servers) == 1 and whole.latency == 0.0):
        delay = float(whole_slots(delay))
    if delay < whole.latency:
        if mean_rate(arrival) >= whole.rate:
            raise UnstableError
        return certain(1.0, "trivial", ())
    return backlog_tail(arrival, whole.rate, whole.rate * (delay - whole.latency), rung_class)


def _shared(arrival: Arrival, domains: Sequence[Domain], delay: float, rung_class: RungClass) -> TailBound:
    """Bound domains with cross traffic at constant rates without latency."""
    rates: list[float] = []
    for domain in domains:
        if not (isinstance(domain.service, RateLatency) and domain.service.latency == 0.0):
            raise NotAttestedError(
                "cross traffic is bounded at constant rates only (rate-latency with latency 0), "
                "or reserve a rate so that the cross traffic does not matter"
            )
        rates.append(domain.service.rate)
    rungs: list[TailBound] = []
    if len(domains) == 1:
        rungs.extend(_one_shared(arrival, domains[0], rate=rates[0], delay=delay, rung_class=rung_class))
    mean = _one_exponential(arrival)
    crosses = [_one_exponential(superpose(d.cross)) if d.cross else None for d in domains]
    means = [c for c in crosses if c is not None]
    if mean is not None and len(means) == len(domains) and all(d.dependence is not Dependence.ANY for d in domains):
        rungs.append(exponential_cross_bound(mean, means, rates, delay=whole_slots(delay), rung_class=rung_class))
    if not rungs:
        raise NotAttestedError("no rung is proven for these arrivals, cross traffic and disciplines together")
    return least(rungs)


def _one_shared(
    arrival: Arrival, domain: Domain, *, rate: float, delay: float, rung_class: RungClass
) -> list[TailBound]:
    rungs: list[TailBound] = []
    independent = domain.dependence is not Dependence.ANY
    together = superpose((arrival, *domain.cross)) if independent else None
    if together is not None and domain.discipline is Discipline.FIFO:
        rungs.append(backlog_tail(together, rate, rate * delay, rung_class))
    cross = superpose(domain.cross)
    if isinstance(arrival, SlottedOnOff) and isinstance(cross, SlottedOnOff) and independent:
        rungs.append(low_priority_tail(arrival, cross, capacity=rate, delay=whole_slots(delay), rung_class=rung_class))
    own_mean, cross_mean = _one_exponential(arrival), _one_exponential(cross)
    if own_mean is not None and cross_mean is not None:
        value, share = rate_split_tail(
            lambda c: exponential_slots(own_mean, c),
            lambda c: exponential_slots(cross_mean, c),
            means=(own_mean, cross_mean),
            capacity=rate,
            delay=whole_slots(delay),
        )
        assumptions = ("independent-slots-per-flow", "stationary", "any-dependence-between-flows")
        rungs.append(
            TailBound(probability=value, rung="rate-split", assumptions=assumptions, parameters={"share": share})
        )
    return rungs


def _one_exponential(arrival: Arrival | None) -> float | None:
    """Return the mean of slots of one exponential work, or None for anything else."""
    if isinstance(arrival, SlottedWork) and len(arrival.works) == 1 and isinstance(arrival.works[0], ExponentialWork):
        return arrival.works[0].mean
    return None


def _require_independent(domains: Sequence[Domain]) -> None:
    if len(domains) > 1 and any(domain.dependence is not Dependence.INDEPENDENT for domain in domains):
        raise NotAttestedError("this bound needs domains that are independent of one another")
