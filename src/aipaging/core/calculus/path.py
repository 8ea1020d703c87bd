"""One question about one path: an arrival, the domains it crosses in order, a delay or a probability.

Delays, backlogs and outputs, and their inverses. Domains known by a delay contract or by measured delays stand behind
those with queues; their part of the delay is split off, and added under any dependence.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from aipaging.core.calculus.arrivals import Arrival, CompoundPoisson, is_slotted, mean_rate, parts_of
from aipaging.core.calculus.bound import RungClass, TailBound, certain, delay_for, least
from aipaging.core.calculus.deterministic import (
    RateLatency,
    TokenBucket,
    convolve,
    horizontal_deviation,
    vertical_deviation,
)
from aipaging.core.calculus.domain import CrossFlow, Dependence, Discipline, Domain, Measure
from aipaging.core.calculus.errors import NotAttestedError, UnstableError, require_non_negative
from aipaging.core.calculus.llm import BatchingServer
from aipaging.core.calculus.measured import MeasuredLatency, sum_tail
from aipaging.core.calculus.path_rungs import path_backlog_tail, path_tail
from aipaging.core.calculus.path_shape import Path, path_of
from aipaging.core.calculus.risk_budget import BudgetPart, DelayContract, delay_any_dependence, epsilon_any_dependence
from aipaging.core.calculus.risk_sharp import epsilon_any_dependence_sharp, epsilon_conditional
from aipaging.core.calculus.rounding import round_up
from aipaging.core.foundation.errors import InvalidInputError

SPLITS: Final = 24
"""Ways to part a delay between the queues and what stands behind them; any is valid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathAnswer:
    """A delay and a bound on the probability that it is exceeded; `parts` where the rung splits the risk."""

    delay: float
    bound: TailBound
    parts: tuple[BudgetPart | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BacklogAnswer:
    """Work of the flow inside the path, and a bound on the probability that it is exceeded."""

    backlog: float
    bound: TailBound


def bound_path(
    arrival: Arrival | None,
    domains: Sequence[Domain],
    delay: float,
    *,
    crossing: Sequence[CrossFlow] = (),
    measure: Measure = Measure.VIRTUAL,
    rung_class: RungClass = RungClass.SHARP,
) -> PathAnswer:
    """Return the least bound on P(end-to-end delay > delay).

    Args:
        arrival: The flow; may be None where every domain is a delay contract or measured.
        domains: In the order in which they are crossed.
        delay: In the unit of time of the arrival and the domains.
        crossing: Cross traffic that shares several domains.
        measure: The virtual delay, or the sojourn of a job.
        rung_class: FAST for admission.

    Raises:
        UnstableError: Some domain is overloaded.
        NotAttestedError: No rung is proven for this path.
        InvalidInputError: Nonsense.
    """
    require_non_negative(delay=delay)
    queues, behind = _parted(domains)
    if not queues:
        if crossing:
            raise InvalidInputError("cross traffic needs domains with queues", field="crossing")
        return _promised(behind, delay, rung_class)
    if arrival is None:
        raise InvalidInputError("only delay contracts can be bounded without an arrival", field="arrival")
    tail = _queue_tail(arrival, queues, crossing, (measure, rung_class))
    if not behind:
        return PathAnswer(delay=delay, bound=tail(delay), parts=(None,) * len(domains))
    best = min((_split_off(tail, behind, delay, i / SPLITS) for i in range(SPLITS + 1)), key=lambda b: b.probability)
    return PathAnswer(delay=delay, bound=best, parts=(None,) * len(domains))


def delay_of_path(
    arrival: Arrival | None,
    domains: Sequence[Domain],
    epsilon: float,
    *,
    crossing: Sequence[CrossFlow] = (),
    measure: Measure = Measure.VIRTUAL,
    rung_class: RungClass = RungClass.SHARP,
) -> PathAnswer:
    """Return the least delay that `bound_path` proves for epsilon; delay inf where none is proven.

    Raises:
        UnstableError: Some domain is overloaded.
        NotAttestedError: No rung is proven for this path.
        InvalidInputError: Nonsense.
    """
    _require_epsilon(epsilon)

    def answer_at(delay: float) -> PathAnswer:
        return bound_path(arrival, domains, delay, crossing=crossing, measure=measure, rung_class=rung_class)

    queues, behind = _parted(domains)
    if isinstance(arrival, TokenBucket) and not behind and _regulated(queues, crossing):
        return answer_at(horizontal_deviation(arrival, _worst_service(queues, crossing)))
    slotted = arrival is not None and is_slotted(arrival) and not behind
    scale = _scale(arrival, domains)
    delay = delay_for(lambda d: answer_at(d).bound.probability, epsilon, scale=scale, slotted=slotted)
    if math.isinf(delay):
        return PathAnswer(delay=delay, bound=certain(1.0, "trivial", ()), parts=(None,) * len(domains))
    return answer_at(delay)


def bound_backlog(
    arrival: Arrival,
    domains: Sequence[Domain],
    backlog: float,
    *,
    crossing: Sequence[CrossFlow] = (),
    rung_class: RungClass = RungClass.SHARP,
) -> BacklogAnswer:
    """Return the least bound on P(work of the flow inside the path > backlog).

    Raises:
        UnstableError: Some domain is overloaded.
        NotAttestedError: No rung is proven for this path.
        InvalidInputError: Nonsense.
    """
    require_non_negative(backlog=backlog)
    queues, behind = _parted(domains)
    if behind:
        raise NotAttestedError("a delay contract says nothing of the work inside a domain")
    if isinstance(arrival, TokenBucket) and _regulated(queues, crossing):
        worst = vertical_deviation(arrival, _worst_service(queues, crossing))
        value = 0.0 if backlog >= worst else 1.0
        return BacklogAnswer(backlog=backlog, bound=certain(value, "deterministic", _WORST))
    path = _path(arrival, queues, crossing, (Measure.VIRTUAL, rung_class))
    return BacklogAnswer(backlog=backlog, bound=path_backlog_tail(path, backlog))


def backlog_of_path(
    arrival: Arrival,
    domains: Sequence[Domain],
    epsilon: float,
    *,
    crossing: Sequence[CrossFlow] = (),
    rung_class: RungClass = RungClass.SHARP,
) -> BacklogAnswer:
    """Return the least backlog that `bound_backlog` proves for epsilon; inf where none is proven.

    Raises:
        UnstableError: Some domain is overloaded.
        NotAttestedError: No rung is proven for this path.
        InvalidInputError: Nonsense.
    """
    _require_epsilon(epsilon)

    def answer_at(backlog: float) -> BacklogAnswer:
        return bound_backlog(arrival, domains, backlog, crossing=crossing, rung_class=rung_class)

    queues, _ = _parted(domains)
    if isinstance(arrival, TokenBucket) and _regulated(queues, crossing):
        return answer_at(vertical_deviation(arrival, _worst_service(queues, crossing)))
    scale = mean_rate(arrival) * (_scale(arrival, domains) if not is_slotted(arrival) else 1.0)
    backlog = delay_for(lambda x: answer_at(x).bound.probability, epsilon, scale=scale, slotted=False)
    if math.isinf(backlog):
        return BacklogAnswer(backlog=backlog, bound=certain(1.0, "trivial", ()))
    return answer_at(backlog)


_WORST: Final = ("regulated", "strict-service-curves")
_Ladder: TypeAlias = tuple[Measure, RungClass]


def _require_epsilon(epsilon: float) -> None:
    if not 0.0 < epsilon < 1.0:
        raise InvalidInputError("epsilon must lie strictly between 0 and 1", field="query.epsilon")


def _parted(domains: Sequence[Domain]) -> tuple[tuple[Domain, ...], tuple[Domain, ...]]:
    """Return (domains with queues, domains known by their delays behind them)."""
    if not domains:
        raise InvalidInputError("a path needs at least one domain", field="domains")
    known = [isinstance(domain.service, DelayContract | MeasuredLatency) for domain in domains]
    first = known.index(True) if True in known else len(domains)
    if not all(known[first:]):
        raise NotAttestedError(
            "a domain known only by its delays may not stand before a queue: nothing bounds what leaves it, "
            "unless it is shaped again; then ask for the parts"
        )
    return tuple(domains[:first]), tuple(domains[first:])


def _served(arrival: Arrival, domain: Domain) -> Domain:
    """Return the domain with a batching server read as its service curve in tokens."""
    server = domain.service
    if not isinstance(server, BatchingServer):
        return domain
    works = [part.work.largest for part in parts_of([arrival]) if isinstance(part, CompoundPoisson)]
    if any(largest > server.tokens_max for largest in works):
        raise InvalidInputError("requests may bring more tokens than the server's tokens_max", field="tokens_max")
    return Domain(
        name=domain.name, service=server.token_service_curve(), cross=domain.cross, discipline=domain.discipline,
        dependence=domain.dependence,
    )  # fmt: skip


def _path(arrival: Arrival, queues: Sequence[Domain], crossing: Sequence[CrossFlow], ladder: _Ladder) -> Path:
    return path_of(
        arrival, [_served(arrival, domain) for domain in queues], crossing, measure=ladder[0], rung_class=ladder[1]
    )


def _queue_tail(
    arrival: Arrival, queues: Sequence[Domain], crossing: Sequence[CrossFlow], ladder: _Ladder
) -> Callable[[float], TailBound]:
    if isinstance(arrival, TokenBucket) and _regulated(queues, crossing):
        worst = horizontal_deviation(arrival, _worst_service(queues, crossing))
        return lambda delay: certain(0.0 if delay >= worst else 1.0, "deterministic", _WORST)
    path = _path(arrival, queues, crossing, ladder)
    return lambda delay: path_tail(path, delay)


def _split_off(tail: Callable[[float], TailBound], behind: Sequence[Domain], delay: float, share: float) -> TailBound:
    """Bound P(W > x) + P(the rest > delay - x): no independence is used."""
    queues = tail(delay * share)
    rest = _promised(behind, delay * (1.0 - share), RungClass.FAST).bound
    value = queues.probability + rest.probability
    assumptions = (*queues.assumptions, *(a for a in rest.assumptions if a not in queues.assumptions))
    return TailBound(
        probability=round_up(value) if value > 0.0 else 0.0, rung=f"{queues.rung}+{rest.rung}",
        assumptions=assumptions, parameters={**queues.parameters, "share": share}, numeric_error=queues.numeric_error,
    )  # fmt: skip


def _scale(arrival: Arrival | None, domains: Sequence[Domain]) -> float:
    contracts = [d.service for d in domains if isinstance(d.service, DelayContract)]
    if contracts:
        return delay_any_dependence(contracts, 0.01).delay_ms or 1.0
    measured = [d.service.delays[-1] for d in domains if isinstance(d.service, MeasuredLatency)]
    if measured:
        return sum(measured) or 1.0
    if isinstance(arrival, CompoundPoisson):
        return 1.0 / arrival.rate
    latencies = [d.service.latency for d in domains if isinstance(d.service, RateLatency) and d.service.latency > 0.0]
    return math.fsum(latencies) or 1.0


def _promised(domains: Sequence[Domain], delay: float, rung_class: RungClass) -> PathAnswer:
    """Bound domains known by contracts and measurements."""
    measured = [domain.service for domain in domains if isinstance(domain.service, MeasuredLatency)]
    if not measured:
        return _contracts(domains, delay, rung_class)
    others = [domain for domain in domains if isinstance(domain.service, DelayContract)]

    def rest(left: float) -> float:
        if left < 0.0:
            return 1.0
        return _contracts(others, left, rung_class).bound.probability if others else 0.0

    independent = all(domain.dependence is Dependence.INDEPENDENT for domain in domains)
    values = {"any-dependence": sum_tail(measured, rest, delay, independent=False)}
    if independent:
        values["independent-domains"] = sum_tail(measured, rest, delay, independent=True)
    clause = min(values, key=lambda name: values[name])
    bound = TailBound(
        probability=values[clause], rung="measured", assumptions=("measured-tails-hold", "delay-contracts-hold", clause)
    )
    return PathAnswer(delay=delay, bound=bound, parts=(None,) * len(domains))


def _contracts(domains: Sequence[Domain], delay: float, rung_class: RungClass) -> PathAnswer:
    contracts = [domain.service for domain in domains if isinstance(domain.service, DelayContract)]
    splits = [epsilon_any_dependence(contracts, delay)]
    if all(domain.dependence is not Dependence.ANY for domain in domains):
        splits.append(epsilon_conditional(contracts, delay))
    elif rung_class is RungClass.SHARP:
        splits.append(epsilon_any_dependence_sharp(contracts, delay))
    best = min(splits, key=lambda split: split.epsilon)
    bound = least(
        TailBound(probability=split.epsilon, rung=split.rung, assumptions=split.assumptions) for split in splits
    )
    return PathAnswer(delay=delay, bound=bound, parts=best.parts or (None,) * len(domains))


def _regulated(queues: Sequence[Domain], crossing: Sequence[CrossFlow]) -> bool:
    """Return whether the whole path has a worst case: rate-latency servers, cross traffic in token buckets."""
    flows = [x for d in queues if d.discipline is not Discipline.RESERVED for x in d.cross]
    flows.extend(c.arrival for c in crossing)
    return all(isinstance(d.service, RateLatency) for d in queues) and all(isinstance(x, TokenBucket) for x in flows)


def _worst_service(queues: Sequence[Domain], crossing: Sequence[CrossFlow]) -> RateLatency:
    """Return the service curve of the path under blind multiplexing: bursts of shared flows are paid once.

    Raises:
        UnstableError: Cross traffic takes a whole rate.
    """
    path = path_of(TokenBucket(burst=0.0, rate=0.0), queues, crossing)
    servers: list[RateLatency] = []
    for domain in path.domains:
        server = domain.service
        for cross in domain.cross:
            if isinstance(server, RateLatency) and isinstance(cross, TokenBucket):
                server = server.leftover(cross)
        if isinstance(server, RateLatency):
            servers.append(server)
    shared = [(c.arrival, c.first, c.last) for c in path.crossing if isinstance(c.arrival, TokenBucket)]
    taken = [math.fsum(b.rate for b, f, t in shared if f <= h <= t) for h in range(len(servers))]
    rate = min(s.rate - r for s, r in zip(servers, taken, strict=True))
    if rate <= 0.0:
        raise UnstableError
    if not shared:
        return convolve(servers)
    ahead = math.fsum(b.burst for b, _, _ in shared)
    ahead += math.fsum(r * s.latency for s, r in zip(servers, taken, strict=True))
    return RateLatency(rate=rate, latency=math.fsum(s.latency for s in servers) + ahead / rate)
