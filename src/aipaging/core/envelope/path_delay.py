"""The delay of one session along a path of envelopes, as numbers that a bound can be computed from.

Every domain contributes a fixed delay or a tail:

* Rate-latency parts are composed exactly first: latencies add, the least rate serves the burst once, and every part
  but the slowest adds one request at that rate (a request goes on when all of it is there).
* A queue that sessions share contributes what all bursts in it, this session's included, can delay at most.
* Everything else is a delay contract, measured or derived from the service model and the session's token bucket.

A random delay in one domain makes bursts for the next. A contract on single requests therefore does not say what a
*server* further on will see. The shift lemma (docs/background/envelopes-and-bounds.md) pays for that: a tail before a
server is multiplied with b + 1 / (exp(eta delta / r) - 1), and the server is computed for the rate r / (1 - sum delta).
It needs the order of a session's requests to be kept, and nothing of the dependence between the domains.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

from aipaging.core.calculus.risk_budget import DelayContract, combined_failure
from aipaging.core.envelope.envelope import Dependence, Envelope
from aipaging.core.envelope.service import (
    EXPONENT_MAX,
    UP,
    OnOffSlots,
    QueueCurve,
    ReservedRate,
    ReservedRateDeficit,
    ServiceModel,
    Traffic,
    mean_rate_per_ms,
    queue_curve,
    session_contract,
)
from aipaging.core.foundation.names import DomainName

RATE_SHARE: Final = 0.5
"""Of the room between a session's rate and its slowest server, what the shift lemma spends."""

ABSENT: Final = 1e-300
"""The prefactor of a domain without a tail: nothing of it is left after rounding."""

FRAMES_CACHED: Final = 8192
"""Paths that are remembered: a thousand anchors seen from a handful of places."""

WITHIN_BUCKET: Final = "the session keeps within its token bucket"
AT_ENTRANCE: Final = "sessions in a shared queue keep within their token buckets at its entrance"
IN_ORDER: Final = "domains keep the order of a session's requests"
UNAIMED: Final = "traffic does not depend on impairments"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One domain of a path as a session finds it.

    Attributes:
        envelope: What it promises.
        ahead: Requests that the bursts of others in the queue that it would share amount to; 0 where nothing is shared.
    """

    envelope: Envelope
    ahead: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """The random part of one domain."""

    hop: int
    contract: DelayContract


@dataclass(frozen=True, slots=True, kw_only=True)
class PathDelay:
    """A session's delay along a path.

    Attributes:
        domains: In order.
        fixed_ms: What each domain adds for certain; 0 where it has a tail.
        tails: The domains with tails, in order.
        failures: Probability of loss or error in each domain.
        failure: The same for the path.
        conditional: Whether every tail after the first is attested to hold whatever happened in the domains before.
        assumptions: What all of this rests on, beside the envelopes themselves.
    """

    domains: tuple[DomainName, ...]
    fixed_ms: tuple[float, ...]
    tails: tuple[Tail, ...]
    failures: tuple[float, ...]
    failure: float
    conditional: bool
    assumptions: tuple[str, ...]
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Bounds are remembered by path. A path is asked about by every page, and its tails take long to hash.
        parts = (self.domains, self.fixed_ms, self.tails, self.failures, self.conditional, self.assumptions)
        object.__setattr__(self, "_hash", hash(parts))

    def __hash__(self) -> int:
        return self._hash

    @property
    def fixed_total_ms(self) -> float:
        """The sum of the fixed delays, rounded up."""
        return math.fsum(self.fixed_ms) * UP if any(self.fixed_ms) else 0.0

    def row(self, width: int) -> list[float]:
        """Return T, M, eta of every tail, one after the other, filled up to `width` tails with ones that do not count.

        What `calculus.candidates` takes: many paths at once, of different lengths.
        """
        found: list[float] = []
        for tail in self.tails:
            contract = tail.contract
            found += (contract.offset_ms, contract.prefactor, contract.decay_per_ms)
        return found + [0.0, ABSENT, 1.0] * (width - len(self.tails))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """What does not depend on the session: worked out once for every path of envelopes, and the same object then.

    Attributes:
        envelopes: The path.
        path: The delay of any session within the guardrails, by the contracts alone.
        served: Whether some domain says how it serves, so that sessions differ.
        queues: The hops where sessions share a queue, and what serves it.
        shares: The same queues, by domain and whether each tenant has one of its own.
        servers: The hops whose delay a burst at the entrance lengthens.
        before: The hops with tails before the last of them.
        assumptions: What a session's own delay rests on.
    """

    envelopes: tuple[Envelope, ...]
    path: PathDelay
    served: bool
    queues: tuple[tuple[int, QueueCurve], ...]
    shares: tuple[tuple[DomainName, bool], ...]
    servers: tuple[int, ...]
    before: tuple[int, ...]
    assumptions: tuple[str, ...]


@lru_cache(maxsize=FRAMES_CACHED)
def frame_of(envelopes: tuple[Envelope, ...]) -> Frame:
    """Return what a path of envelopes is, whoever uses it."""
    independent = attests_independence(envelopes)
    losses = "losses and errors of domains independent" if independent else "losses and errors added (union)"
    failures = tuple(combined_failure([one.loss, one.error], independent=False) for one in envelopes)
    frame = PathDelay(
        domains=tuple(envelope.domain for envelope in envelopes),
        fixed_ms=(0.0,) * len(envelopes),
        tails=(),
        failures=failures,
        failure=combined_failure(failures, independent=independent),
        conditional=False,
        assumptions=(losses,),
    )
    queues = tuple((i, curve) for i, one in enumerate(envelopes) if (curve := queue_curve(one.service)) is not None)
    servers = tuple(i for i, envelope in enumerate(envelopes) if _is_server(envelope.service))
    contracts = {i: envelope.contract for i, envelope in enumerate(envelopes)}
    return Frame(
        envelopes=envelopes,
        path=_with_contracts(frame, envelopes, contracts, [0.0] * len(envelopes)),
        served=any(envelope.service is not None for envelope in envelopes),
        queues=queues,
        shares=tuple((envelopes[i].domain, curve.per_tenant) for i, curve in queues),
        servers=servers,
        before=tuple(i for i, one in enumerate(envelopes) if _is_random(one) and servers and i < servers[-1]),
        assumptions=(*sorted(_assumed(envelopes)), losses),
    )


def path_delay(hops: Sequence[Hop], traffic: Traffic | None, epsilon: float) -> PathDelay | None:
    """Return the delay of a session along a path, or None where some domain is overloaded by it.

    Args:
        hops: In order; at least one.
        traffic: The session's token bucket; None: any within the guardrails, by the contracts alone.
        epsilon: Where tails should be tight, if there is a choice.
    """
    frame = frame_of(tuple([hop.envelope for hop in hops]))
    if traffic is None:
        return frame.path
    return framed_delay(frame, traffic, epsilon, [hops[i].ahead for i, _ in frame.queues])


def framed_delay(frame: Frame, traffic: Traffic, epsilon: float, ahead: Sequence[int]) -> PathDelay | None:
    """Return the delay of a session along a framed path, or None where some domain is overloaded by it.

    Args:
        frame: The path.
        traffic: The session's token bucket.
        epsilon: Where tails should be tight, if there is a choice.
        ahead: Requests that the bursts of others amount to in each of the frame's queues.
    """
    if not frame.served:
        return frame.path
    path = _without_queues(frame, traffic.rate_per_ms, traffic.burst, epsilon)
    if path is None or not frame.queues:
        return path
    fixed_ms = list(path.fixed_ms)
    for (i, queue), others in zip(frame.queues, ahead, strict=True):
        fixed_ms[i] = queue.delay_ms(others + traffic.burst)
    return PathDelay(
        domains=path.domains,
        fixed_ms=tuple(fixed_ms),
        tails=path.tails,
        failures=path.failures,
        failure=path.failure,
        conditional=path.conditional,
        assumptions=path.assumptions,
    )


@lru_cache(maxsize=FRAMES_CACHED)
def _without_queues(frame: Frame, rate_per_ms: float, burst: int, epsilon: float) -> PathDelay | None:
    """Return the path as a session finds it but for the queues that it shares: nobody else changes that."""
    envelopes, traffic = frame.envelopes, Traffic(rate_per_ms=rate_per_ms, burst=burst)
    fixed_ms = [0.0] * len(envelopes)
    contracts = _served(frame, envelopes, traffic, epsilon, fixed_ms=fixed_ms)
    if contracts is None:
        return None
    return _with_contracts(replace(frame.path, assumptions=frame.assumptions), envelopes, contracts, fixed_ms)


def _with_contracts(
    path: PathDelay, envelopes: Sequence[Envelope], contracts: dict[int, DelayContract], fixed_ms: list[float]
) -> PathDelay:
    """Return the path with these contracts, those without a tail as fixed delays."""
    for i, contract in contracts.items():
        if contract.prefactor == 0.0:
            fixed_ms[i] += contract.offset_ms
    tails = tuple(
        Tail(hop=i, contract=contract) for i, contract in sorted(contracts.items()) if contract.prefactor > 0.0
    )
    return PathDelay(
        domains=path.domains,
        fixed_ms=tuple(fixed_ms),
        tails=tails,
        failures=path.failures,
        failure=path.failure,
        conditional=attests_conditional([envelopes[tail.hop] for tail in tails]),
        assumptions=path.assumptions,
    )


def attests_independence(envelopes: Sequence[Envelope]) -> bool:
    """Return whether all domains attest independence and no two of them name the same common cause."""
    return (
        len(envelopes) > 1
        and not _common_cause(envelopes)
        and all(envelope.dependence is Dependence.INDEPENDENT for envelope in envelopes)
    )


def attests_conditional(envelopes: Sequence[Envelope]) -> bool:
    """Return whether each after the first attests to hold whatever happened before, and none shares a cause."""
    return (
        len(envelopes) > 1
        and not _common_cause(envelopes)
        and all(envelope.dependence is not Dependence.ANY for envelope in envelopes[1:])
    )


def _common_cause(envelopes: Sequence[Envelope]) -> bool:
    causes = [envelope.common_cause for envelope in envelopes if envelope.common_cause]
    return len(set(causes)) < len(causes)


def _assumed(envelopes: Sequence[Envelope]) -> set[str]:
    models = [envelope.service for envelope in envelopes if envelope.service is not None]
    assumed = {WITHIN_BUCKET, IN_ORDER}
    if any(queue_curve(model) is not None for model in models):
        assumed.add(AT_ENTRANCE)
    if any(isinstance(model, ReservedRateDeficit | OnOffSlots) for model in models):
        assumed.add(UNAIMED)
    return assumed


def _is_server(model: ServiceModel | None) -> bool:
    """Whether a burst at its entrance lengthens its delay; shared queues assume their entrances to be kept."""
    return isinstance(model, ReservedRate | ReservedRateDeficit | OnOffSlots)


def _is_random(envelope: Envelope) -> bool:
    model = envelope.service
    return envelope.contract.prefactor > 0.0 if model is None else isinstance(model, ReservedRateDeficit | OnOffSlots)


def _served(
    frame: Frame, envelopes: Sequence[Envelope], traffic: Traffic, epsilon: float, *, fixed_ms: list[float]
) -> dict[int, DelayContract] | None:
    """Return a contract for every hop that is not fixed yet, and write the fixed delays of the others but queues."""
    if any(_overloaded(envelope.service, traffic) for envelope in envelopes):
        return None
    delta = _delta(envelopes, traffic, frame)
    if delta is None:
        return None
    contracts: dict[int, DelayContract] = {}
    run: list[tuple[int, ReservedRate]] = []
    for i, envelope in enumerate(envelopes):
        model = envelope.service
        if isinstance(model, ReservedRate):
            run.append((i, model))
            continue
        if queue_curve(model) is not None:
            continue
        contract: DelayContract | None = envelope.contract
        if model is not None:
            _composed(run, traffic.burst, fixed_ms)
            rate_per_ms = traffic.rate_per_ms / (1.0 - delta * sum(1 for j in frame.before if j < i)) * UP
            contract = session_contract(model, rate_per_ms, traffic.burst, epsilon)
        if contract is None:
            return None
        contracts[i] = _before_a_server(contract, traffic, delta) if i in frame.before else contract
    _composed(run, traffic.burst, fixed_ms)
    return contracts


def _overloaded(model: ServiceModel | None, traffic: Traffic) -> bool:
    """Whether a session alone sends more than the domain serves it."""
    return model is not None and traffic.rate_per_ms > mean_rate_per_ms(model)


def _delta(envelopes: Sequence[Envelope], traffic: Traffic, frame: Frame) -> float | None:
    """Return the share of time that each tail before a server may fall behind, or None if there is no room for it."""
    if not frame.before:
        return 0.0
    models = [envelopes[i].service for i in frame.servers]
    slowest = min(mean_rate_per_ms(model) for model in models if model is not None)
    room = 1.0 - traffic.rate_per_ms / slowest
    return RATE_SHARE * room / len(frame.before) if room > 1e-6 else None


def _before_a_server(contract: DelayContract, traffic: Traffic, delta: float) -> DelayContract:
    """Return a contract for the worst of all requests up to one, each allowed delta times its age (shift lemma)."""
    if contract.prefactor == 0.0:
        return contract
    exponent = contract.decay_per_ms * delta / traffic.rate_per_ms
    older = 1.0 / math.expm1(exponent) if exponent < EXPONENT_MAX else 0.0
    return DelayContract(
        offset_ms=contract.offset_ms,
        prefactor=contract.prefactor * (traffic.burst + older) * (1.0 + 1e-9),
        decay_per_ms=contract.decay_per_ms,
    )


def _composed(run: list[tuple[int, ReservedRate]], burst: int, fixed_ms: list[float]) -> None:
    """Write the delays of rate-latency parts in series: the slowest serves the burst, the others one request each."""
    if not run:
        return
    slowest = min(run, key=lambda part: part[1].rate_per_ms)
    for i, model in run:
        requests = burst if i == slowest[0] else 1
        fixed_ms[i] = (model.latency_ms + requests / slowest[1].rate_per_ms) * UP
    run.clear()
