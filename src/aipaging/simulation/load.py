"""What the domains are offered: utilisation, who is overloaded, and how long a run takes to forget its empty start."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from aipaging.core.foundation.errors import InvalidInputError
from aipaging.simulation.scenario import Batching, Correlated, Domain, Modulated, Scenario, Tenant, Work

WARM_UP_RELAXATIONS: Final = 5.0
"""Relaxation times that are thrown away: exp(-5) of the start is left at the first packet that counts."""

WARM_UP_PACKETS_MIN: Final = 200
"""Thrown away at least: the relaxation time says nothing about latencies and batches on the way."""

UNITS_SUSPECT: Final = 50.0
"""From this utilisation on a factor of 1,000 between s and ms is a likelier reason than an overload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A server, or one tenant's reserved part of it, and what it is offered.

    Attributes:
        name: Where it is, for people.
        utilisation: Offered work per work that can be done, in the long run.
        relaxation_ms: How long it remembers its state, of the order of magnitude.
        sheds: Whether it is stable whatever it is offered, since it loses packets.
    """

    name: str
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


def offered_load(scenario: Scenario, packets: int) -> Load:
    """Return what a scenario offers, with a warm-up fit for replications that count `packets` each."""
    queues = tuple(_queues(scenario))
    rate = sum(tenant.rate_per_ms for tenant in scenario.tenants)
    relaxation = sum(queue.relaxation_ms for queue in queues if queue.utilisation < 1.0)
    relaxation += max((_memory_ms(tenant) for tenant in scenario.tenants), default=0.0)
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
        field=load.overloaded[0].name,
    )


def _memory_ms(tenant: Tenant) -> float:
    if isinstance(tenant.arrivals, Correlated):
        return tenant.arrivals.copula.slot_ms
    return tenant.arrivals.modulator.memory_ms() if isinstance(tenant.arrivals, Modulated) else 0.0


def _queues(scenario: Scenario) -> Iterator[Queue]:
    for tenant in scenario.tenants:
        if tenant.bucket is not None and tenant.bucket.holds:
            yield _queue(f"the shaper of tenant {tenant.name!r}", tenant.bucket.rate_per_ms, [(tenant, tenant.work)])
    for domain in scenario.domains:
        users = [tenant for tenant in scenario.tenants if domain.name in tenant.route]
        if users and domain.delays is None:
            yield from _queues_of(domain, [(tenant, tenant.work_in(domain.name)) for tenant in users])


def _queues_of(domain: Domain, users: list[tuple[Tenant, Work]]) -> Iterator[Queue]:
    if domain.batching is not None:
        yield _batching(domain, domain.batching, users)
    elif domain.discipline == "reserved" and not domain.work_conserving:
        for tenant, work in users:
            name = f"domain {domain.name!r}, reservation of tenant {tenant.name!r}"
            yield _queue(name, tenant.reserved_rate_per_ms[domain.name], [(tenant, work)])
    else:
        rate = domain.mean_rate_per_ms / (domain.retry.attempts_mean if domain.retry else 1.0)
        yield _queue(f"domain {domain.name!r}", rate, users, sheds=domain.loses)


def _queue(name: str, rate: float, users: list[tuple[Tenant, Work]], *, sheds: bool = False) -> Queue:
    utilisation = sum(_offered(tenant, work) for tenant, work in users) / rate
    variance = sum(_variance(tenant, work) for tenant, work in users)
    slack = 1.0 - utilisation
    # A reflected Brownian motion of this drift and variance forgets its start at this rate.
    relaxation = 4.0 * variance / (rate * slack) ** 2 if slack > 0.0 else math.inf
    return Queue(name=name, utilisation=utilisation, relaxation_ms=relaxation, sheds=sheds)


def _batching(domain: Domain, timing: Batching, users: list[tuple[Tenant, Work]]) -> Queue:
    step = timing.iteration_ms + timing.per_slot_ms * timing.slots
    # Work is rounded up to whole tokens: half a token more on the average is on the safe side of the truth.
    means = [(tenant.rate_per_ms, work.mean) for tenant, work in users]
    busy = sum(rate * ((mean + 0.5) * step / timing.slots + timing.prefill_ms) for rate, mean in means)
    busy *= domain.retry.attempts_mean if domain.retry else 1.0
    service = max((mean for _, mean in means), default=0.0) * step
    relaxation = 4.0 * service / (1.0 - busy) ** 2 if busy < 1.0 else math.inf
    return Queue(name=f"domain {domain.name!r}", utilisation=busy, relaxation_ms=relaxation, sheds=False)


def _offered(tenant: Tenant, work: Work) -> float:
    """Return the work per millisecond behind the tenant's entrance."""
    offered = tenant.rate_per_ms * work.mean
    if tenant.bucket is None or tenant.bucket.holds or tenant.work.mean == 0.0:
        return offered
    return min(offered, tenant.bucket.rate_per_ms * work.mean / tenant.work.mean)


def _variance(tenant: Tenant, work: Work) -> float:
    """Return the long-run variance of the work per millisecond."""
    variance = tenant.rate_per_ms * work.second_moment
    if isinstance(tenant.arrivals, Correlated):
        variance += work.mean**2 * tenant.arrivals.dispersion
    if isinstance(tenant.arrivals, Modulated):
        variance += work.mean**2 * tenant.arrivals.modulator.dispersion(tenant.arrivals.rates_per_ms)
    return variance
