"""What a path looks like to the rungs: its flows, its domains as stages, which of its parts are independent."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from aipaging.core.calculus.arrivals import CONTINUOUS, SLOTTED, Arrival, SlottedWork, mean_rate, parts_of, superpose
from aipaging.core.calculus.bound import RungClass
from aipaging.core.calculus.deficit import ImpairedRateLatency, impaired_stage
from aipaging.core.calculus.deterministic import RateLatency, convolve
from aipaging.core.calculus.domain import (
    CrossFlow,
    Dependence,
    Discipline,
    Domain,
    ExponentialServer,
    Measure,
    OnOffService,
    RandomService,
    Service,
)
from aipaging.core.calculus.errors import NotAttestedError, UnstableError, overloaded
from aipaging.core.calculus.interval import each, no_factor
from aipaging.core.calculus.tandem import log_constant, log_onoff
from aipaging.core.calculus.tandem_union import Stage
from aipaging.core.calculus.work import ExponentialWork
from aipaging.core.foundation.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """A question in the form that the rungs take it.

    Attributes:
        arrival: The flow.
        domains: In order; reserved ones have no cross traffic any more.
        crossing: Cross traffic over several domains.
        measure: Whose delay is meant.
        rung_class: FAST leaves out what takes long.
    """

    arrival: Arrival
    domains: tuple[Domain, ...]
    crossing: tuple[CrossFlow, ...]
    measure: Measure
    rung_class: RungClass

    @property
    def any_dependence(self) -> bool:
        """Whether independence between the parts of the path must not be used.

        A domain's clause is about other domains and about the flows it serves beside this one: a single domain
        without cross traffic depends on nothing, and one with it may be conditional on the past.
        """
        if len(self.domains) == 1:
            shared = bool(self.crossing or self.domains[0].cross)
            return shared and self.domains[0].dependence is Dependence.ANY
        return any(domain.dependence is not Dependence.INDEPENDENT for domain in self.domains)


def path_of(
    arrival: Arrival,
    domains: Sequence[Domain],
    crossing: Sequence[CrossFlow],
    *,
    measure: Measure = Measure.VIRTUAL,
    rung_class: RungClass = RungClass.FAST,
) -> Path:
    """Return a path without what does not matter: cross traffic of reserved domains."""
    kept = tuple(replace(d, cross=()) if d.discipline is Discipline.RESERVED else d for d in domains)
    for flow in crossing:
        if flow.last >= len(kept):
            raise InvalidInputError("there is no domain of this index", field="last")
        if any(d.discipline is Discipline.RESERVED for d in kept[flow.first : flow.last + 1]):
            raise NotAttestedError("cross traffic over several domains needs domains that it shares, not reserved ones")
    return Path(
        arrival=superpose([arrival]) or arrival,
        domains=kept,
        crossing=tuple(crossing),
        measure=measure,
        rung_class=rung_class,
    )


def require_one_time(path: Path) -> None:
    """Refuse a path that mixes slots and continuous time."""
    parts = parts_of(flows_of(path))
    services = [d.service for d in path.domains]
    slotted = any(isinstance(p, SLOTTED) for p in parts) or any(
        isinstance(s, OnOffService | RandomService | ImpairedRateLatency) for s in services
    )
    continuous = any(isinstance(p, CONTINUOUS) for p in parts) or any(
        isinstance(s, ExponentialServer) for s in services
    )
    if slotted and continuous:
        raise NotAttestedError("no rung is proven for slots and continuous time on one path")


def require_stable(path: Path) -> None:
    """Refuse an overloaded domain by name."""
    for i, domain in enumerate(path.domains):
        demand = mean_rate(path.arrival) + sum(mean_rate(x) for x in domain.cross)
        demand += sum(mean_rate(c.arrival) for c in path.crossing if c.first <= i <= c.last)
        if overloaded(demand, mean_service(domain)):
            raise UnstableError


def mean_service(domain: Domain) -> float:
    """Return the mean service per unit of time."""
    match domain.service:
        case RateLatency() | ImpairedRateLatency() | ExponentialServer():
            return domain.service.rate
        case OnOffService():
            return domain.service.rate * domain.service.availability
        case RandomService():
            return domain.service.work.mean
        case _:
            raise NotAttestedError("a delay contract may only stand behind the domains with queues")


def in_slots(path: Path) -> bool:
    """Return whether nothing on the path lives in continuous time."""
    return not any(isinstance(part, CONTINUOUS) for part in parts_of(flows_of(path)))


def flows_of(path: Path) -> list[Arrival]:
    """Return every flow on the path."""
    return [path.arrival, *(x for d in path.domains for x in d.cross), *(c.arrival for c in path.crossing)]


def one_exponential(arrival: Arrival | None) -> float | None:
    """Return the mean of slots of one exponential work, or None for anything else."""
    if isinstance(arrival, SlottedWork) and len(arrival.works) == 1 and isinstance(arrival.works[0], ExponentialWork):
        return arrival.works[0].mean
    return None


def stages_of(path: Path) -> tuple[list[Stage], list[tuple[Arrival, int, int]]]:
    """Return the domains as stages, neighbours of constant rate without cross traffic composed exactly."""
    crossed = {h for c in path.crossing for h in range(c.first, c.last + 1)}
    stages: list[Stage] = []
    index: list[int] = []
    run: RateLatency | None = None
    for h, domain in enumerate(path.domains):
        plain = isinstance(domain.service, RateLatency) and not domain.cross and h not in crossed
        if plain and run is not None and isinstance(domain.service, RateLatency):
            run = convolve([run, domain.service])
            stages[-1] = _constant(run)
        else:
            stages.append(_stage(domain.service))
            run = domain.service if plain and isinstance(domain.service, RateLatency) else None
        index.append(len(stages) - 1)
    spans = [(x, index[h], index[h]) for h, d in enumerate(path.domains) for x in d.cross]
    spans.extend((c.arrival, index[c.first], index[c.last]) for c in path.crossing)
    if any(first < last for _, first, last in spans):
        # Lengthening a cut would shorten the stretch of a flow that leaves at its start: latencies are paid for.
        stages = [replace(stage, shifts=False) for stage in stages]
    return stages, spans


@lru_cache(maxsize=512)
def _constant(server: RateLatency) -> Stage:
    return Stage(
        log_service=log_constant(server.rate), log_sigma=no_factor, latency=server.latency, rate=server.rate,
        theta_max=math.inf, memoryless=True, constant=True,
    )  # fmt: skip


@lru_cache(maxsize=512)
def _stage(service: Service) -> Stage:
    match service:
        case RateLatency():
            return _constant(service)
        case ImpairedRateLatency():
            return impaired_stage(service)
        case OnOffService(rate=rate, availability=availability):
            return Stage(
                log_service=log_onoff(rate, availability), log_sigma=no_factor, latency=0.0,
                rate=rate * availability, theta_max=math.inf, memoryless=True,
            )  # fmt: skip
        case RandomService(work=work):
            return Stage(
                log_service=each(lambda theta: work.log_mgf(-theta)), log_sigma=no_factor, latency=0.0,
                rate=work.mean, theta_max=math.inf, memoryless=True,
            )  # fmt: skip
        case _:
            raise NotAttestedError("a delay contract may only stand behind the domains with queues")
