"""What the domains are offered: utilisation, who is overloaded, and how long a run takes to forget its empty start."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from aipaging.core.foundation.errors import InvalidInputError
from aipaging.simulation.laws import mean_tokens
from aipaging.simulation.scenario import Batching, Correlated, Domain, Modulated, Scenario, Tenant, Trace, Work

WARM_UP_RELAXATIONS: Final = 5.0
"""Relaxation times that are thrown away: exp(-5) of the start is left at the first packet that counts."""

WARM_UP_PACKETS_MIN: Final = 200
"""Thrown away at least: the relaxation time says nothing about latencies and batches on the way."""

UNITS_SUSPECT: Final = 50.0
"""From this utilisation on a factor of 1,000 between s and ms is a likelier reason than an overload."""

IDLE_SUSPECT: Final = 2e-3
"""Below this utilisation of every queue the same factor is a likelier reason than a wish to see nothing wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A server, or one tenant's reserved part of it, and what it is offered.

    Attributes:
        name: Where it is, for people.
        field: Where it is in the scenario: `domain.NAME` or `tenant.NAME.regulator`.
        utilisation: Offered work per work that can be done, in the long run.
        relaxation_ms: How long it remembers its state, of the order of magnitude.
        sheds: Whether it is stable whatever it is offered, since it loses packets.
    """

    name: str
    field: str
    utilisation: float
    relaxation_ms: float
    sheds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a scenario offers its domains.

    Attributes:
        queues: All queues.
        packets_per_ms: Packets of all tenants.
        relaxation_ms: How long the network remembers its state, of the order of magnitude.
        warm_up_ms: What each replication throws away at its start.
        warm_up_short: Whether that is less than was wanted, for want of packets.
    """

    queues: tuple[Queue, ...]
    packets_per_ms: float
    relaxation_ms: float
    warm_up_ms: float
    warm_up_short: bool

    @property
    def overloaded(self) -> tuple[Queue, ...]:
        """The queues that grow without end."""
        return tuple(queue for queue in self.queues if queue.utilisation >= 1.0 and not queue.sheds)

    @property
    def idle(self) -> bool:
        """Whether every queue is so empty that a rate is likely to have the wrong unit."""
        return bool(self.queues) and max(queue.utilisation for queue in self.queues) < IDLE_SUSPECT


def offered_load(scenario: Scenario, packets: int) -> Load:
    """Return what a scenario offers, with a warm-up fit for replications that count `packets` each."""
    queues = tuple(_queues(scenario))
    rate = sum(tenant.rate_per_ms for tenant in scenario.tenants)
    relaxation = sum(queue.relaxation_ms for queue in queues if queue.utilisation < 1.0)
    relaxation += max((_memory_ms(tenant) for tenant in scenario.tenants), default=0.0)
    relaxation += max((d.impairment.memory_ms for d in scenario.domains if d.impairment is not None), default=0.0)
    wanted = WARM_UP_RELAXATIONS * relaxation + sum(domain.latency_ms for domain in scenario.domains)
    wanted = max(wanted, WARM_UP_PACKETS_MIN / rate)
    most = max(packets, 20 * WARM_UP_PACKETS_MIN) / rate
    return Load(
        queues=queues,
        packets_per_ms=rate,
        relaxation_ms=relaxation,
        warm_up_ms=min(wanted, most),
        warm_up_short=wanted > most,
    )


def require_stable(load: Load) -> None:
    """Refuse an overload.

    Raises:
        InvalidInputError: A queue is offered at least what it can do.
    """
    if not load.overloaded:
        return
    named = ", ".join(f"{queue.name} (utilisation {queue.utilisation:.3g})" for queue in load.overloaded)
    worst = max(queue.utilisation for queue in load.overloaded)
    units = (
        " (a utilisation as high as this is often a rate per second where one per ms is wanted: see `rate_per_ms` of "
        "the arrivals and of the domain)"
        if worst >= UNITS_SUSPECT
        else ""
    )
    raise InvalidInputError(
        f"unstable: more work is offered than can be done in {named}, so delays grow for ever and have no law{units}; "
        "lower the arrivals, raise the rate, or run it on demand with --allow-overload",
        code="UNSTABLE",
        field=load.overloaded[0].field,
    )


def _memory_ms(tenant: Tenant) -> float:
    if isinstance(tenant.arrivals, Correlated):
        return tenant.arrivals.copula.slot_ms
    return tenant.arrivals.modulator.memory_ms() if isinstance(tenant.arrivals, Modulated) else 0.0


def _queues(scenario: Scenario) -> Iterator[Queue]:
    for tenant in scenario.tenants:
        if tenant.bucket is not None and tenant.bucket.holds:
            at = (f"the shaper of tenant {tenant.name!r}", f"tenant.{tenant.name}.regulator")
            yield _queue(at, tenant.bucket.rate_per_ms, [(tenant, tenant.work)])
    for domain in scenario.domains:
        users = [tenant for tenant in scenario.tenants if domain.name in tenant.route]
        if users and domain.delays is None:
            yield from _queues_of(domain, [(tenant, tenant.work_in(domain.name)) for tenant in users])


def _queues_of(domain: Domain, users: list[tuple[Tenant, Work]]) -> Iterator[Queue]:
    if domain.batching is not None:
        yield _batching(domain, domain.batching, users)
    elif domain.discipline == "reserved" and not domain.work_conserving:
        for tenant, work in users:
            at = (f"domain {domain.name!r}, reservation of tenant {tenant.name!r}", f"domain.{domain.name}")
            yield _queue(at, tenant.reserved_rate_per_ms[domain.name], [(tenant, work)])
    else:
        rate = domain.mean_rate_per_ms / (domain.retry.attempts_mean if domain.retry else 1.0)
        varies = 0.0 if domain.impairment is None else domain.impairment.dispersion(domain.rate_per_ms)
        at = (f"domain {domain.name!r}", f"domain.{domain.name}")
        yield _queue(at, rate, users, sheds=domain.loses, varies=varies)


def _queue(
    at: tuple[str, str], rate: float, users: list[tuple[Tenant, Work]], *, sheds: bool = False, varies: float = 0.0
) -> Queue:
    """Return a queue: `at` is its name and its field, `varies` the variance per ms of the work that it can do."""
    utilisation = sum(_offered(tenant, work) for tenant, work in users) / rate
    variance = varies + sum(_variance(tenant, work) for tenant, work in users)
    slack = 1.0 - utilisation
    # A reflected Brownian motion of this drift and variance forgets its start at this rate.
    relaxation = 4.0 * variance / (rate * slack) ** 2 if slack > 0.0 else math.inf
    return Queue(name=at[0], field=at[1], utilisation=utilisation, relaxation_ms=relaxation, sheds=sheds)


def _batching(domain: Domain, timing: Batching, users: list[tuple[Tenant, Work]]) -> Queue:
    step = timing.iteration_ms + timing.per_slot_ms * timing.slots
    means = [(tenant.rate_per_ms, _tokens(tenant, work), _prefill_ms(tenant, timing)) for tenant, work in users]
    busy = sum(rate * (mean * step / timing.slots + prefill) for rate, mean, prefill in means)
    busy *= domain.retry.attempts_mean if domain.retry else 1.0
    service = max((mean for _, mean, _ in means), default=0.0) * step
    relaxation = 4.0 * service / (1.0 - busy) ** 2 if busy < 1.0 else math.inf
    return Queue(
        name=f"domain {domain.name!r}",
        field=f"domain.{domain.name}",
        utilisation=busy,
        relaxation_ms=relaxation,
        sheds=False,
    )


def _prefill_ms(tenant: Tenant, timing: Batching) -> float:
    tokens = 0.0 if tenant.prompt is None else tenant.prompt.mean
    return timing.prefill_ms + timing.prefill_ms_per_token * tokens


def _tokens(tenant: Tenant, work: Work) -> float:
    """Return the mean number of tokens of a request."""
    recorded = tenant.arrivals.works if isinstance(tenant.arrivals, Trace) and work is tenant.work else None
    if recorded is None:
        return mean_tokens(work)
    return float(np.maximum(np.ceil(recorded), 1.0).mean())


def _offered(tenant: Tenant, work: Work) -> float:
    """Return the work per millisecond behind the tenant's entrance."""
    offered = tenant.rate_per_ms * work.mean
    if tenant.bucket is None or tenant.bucket.holds or tenant.work.mean == 0.0:
        return offered
    return min(offered, tenant.bucket.rate_per_ms * work.mean / tenant.work.mean)


def _variance(tenant: Tenant, work: Work) -> float:
    """Return the long-run variance of the work per millisecond."""
    variance = tenant.rate_per_ms * work.second_moment
    if isinstance(tenant.arrivals, Correlated | Trace):
        variance += work.mean**2 * tenant.arrivals.dispersion
    if isinstance(tenant.arrivals, Modulated):
        variance += work.mean**2 * tenant.arrivals.modulator.dispersion(tenant.arrivals.rates_per_ms)
    return variance
