"""Tandems of slotted domains, as a ladder: exact-local where the work is exponential, else the two series."""

from collections.abc import Sequence
from typing import Final

from aipaging.core.calculus.bound import RungClass, TailBound, bound_of_log, least
from aipaging.core.calculus.errors import UnstableError, overloaded
from aipaging.core.calculus.hypoexponential import hypoexponential_tail
from aipaging.core.calculus.tandem import (
    PASSES,
    PASSES_FAST,
    LogMoment,
    SlottedTandem,
    log_constant,
    log_exponential,
    log_leftover,
    log_onoff,
    tandem_log_bound,
)
from aipaging.core.calculus.tandem_local import (
    ExponentialCrossTandem,
    ExponentialOnOffTandem,
    cross_tail,
    onoff_tail,
)

_ASSUMPTIONS: Final = ("independent-slots", "stationary", "independent-domains")


def series_bound(tandem: SlottedTandem, delay: int, rung_class: RungClass) -> TailBound:
    """Return the one-Doob or the union bound, whichever is less, for any independent slots.

    Raises:
        UnstableError: The arrivals reach the service of some domain.
    """
    log_bound, theta, rung = tandem_log_bound(tandem, delay, PASSES if rung_class is RungClass.SHARP else PASSES_FAST)
    return bound_of_log(log_bound, rung, _ASSUMPTIONS, theta=theta)


def exponential_cross_bound(
    mean: float, cross_means: Sequence[float], capacities: Sequence[float], *, delay: int, rung_class: RungClass
) -> TailBound:
    """Return a bound on P(W > delay) of Exp(mean) work per slot through servers with fresh exponential cross work.

    Blind multiplexing: nothing is known of the order in which a server takes the two. Unequal domains are
    bounded by the series as they are, and by exact-local with every domain as slow and as busy as the worst.

    Args:
        mean: Mean work per slot of the flow.
        cross_means: Mean work per slot of the cross traffic of each domain.
        capacities: Capacity of each domain.
        delay: In slots.
        rung_class: FAST leaves exact-local out.

    Raises:
        UnstableError: Some domain is overloaded.
    """
    if any(overloaded(mean + x, c) for x, c in zip(cross_means, capacities, strict=True)):
        raise UnstableError
    moments: dict[tuple[float, float], LogMoment] = {}
    for x, c in zip(cross_means, capacities, strict=True):
        if (x, c) not in moments:
            moments[x, c] = log_leftover(log_constant(c), (log_exponential(x),))
    tandem = SlottedTandem(
        log_arrival=log_exponential(mean),
        log_services=tuple(moments[x, c] for x, c in zip(cross_means, capacities, strict=True)),
        theta_max=1.0 / max(mean, *cross_means),
    )
    rungs = [series_bound(tandem, delay, rung_class)]
    worst, least_capacity = max(cross_means), min(capacities)
    if rung_class is RungClass.SHARP and not overloaded(mean + worst, least_capacity):
        local = ExponentialCrossTandem(mean=mean, cross_mean=worst, capacity=least_capacity, hops=len(capacities))
        rungs.insert(0, _local(cross_tail(local, delay)))
    return least(rungs)


def exponential_onoff_bound(
    mean: float, services: Sequence[tuple[float, float]], *, delay: int, rung_class: RungClass
) -> TailBound:
    """Return a bound on P(W > delay) of Exp(mean) work per slot through domains that are on or off in a slot.

    Args:
        mean: Mean work per slot.
        services: (capacity while on, probability of on) of each domain.
        delay: In slots.
        rung_class: FAST leaves exact-local out, except on one domain, where it is a closed form.

    Raises:
        UnstableError: Some domain is overloaded.
    """
    if any(overloaded(mean, c * p) for c, p in services):
        raise UnstableError
    moments = {(c, p): log_onoff(c, p) for c, p in services}
    tandem = SlottedTandem(
        log_arrival=log_exponential(mean),
        log_services=tuple(moments[service] for service in services),
        theta_max=1.0 / mean,
    )
    rungs = [series_bound(tandem, delay, rung_class)]
    capacity, availability = min(c for c, _ in services), min(p for _, p in services)
    if (rung_class is RungClass.SHARP or len(services) == 1) and not overloaded(mean, capacity * availability):
        local = ExponentialOnOffTandem(mean=mean, capacity=capacity, availability=availability, hops=len(services))
        rungs.insert(0, _local(onoff_tail(local, delay)))
    return least(rungs)


def _local(probability: float) -> TailBound:
    return TailBound(probability=probability, rung="exact-local", assumptions=_ASSUMPTIONS, numeric_error=1e-9)


def exponential_servers_tail(arrival_rate: float, service_rates: Sequence[float], delay: float) -> TailBound:
    """Return P(sojourn > delay) of Poisson jobs through exponential FIFO servers: exact, sums of Exp(mu - lambda).

    By Burke's theorem the sojourn times at the servers are independent ([Reich1963]); work is drawn afresh at
    every server, which is the assumption that a packet network violates.

    Raises:
        UnstableError: The arrival rate reaches some service rate.
    """
    if any(overloaded(arrival_rate, mu) for mu in service_rates):
        raise UnstableError
    value = hypoexponential_tail([mu - arrival_rate for mu in service_rates], delay)
    assumptions = ("poisson-arrivals", "exponential-service-independent-per-domain", "fifo", "stationary")
    return TailBound(probability=value, rung="jackson-exact", assumptions=assumptions, numeric_error=1e-9)
