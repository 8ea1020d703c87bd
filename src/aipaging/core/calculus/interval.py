"""Moments over intervals: E exp(theta A(s, t)) <= exp(sigma(theta)) q(theta)^(t - s), and the like for service.

The form in which any kind of arrival enters the union bounds of a tandem. Independent flows multiply; flows whose
dependence is not known are joined by splitting the excess instead (`any_dependence`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from aipaging.core.calculus.arrivals import Arrival, CompoundPoisson, SimpleArrival, SlottedWork, parts_of
from aipaging.core.calculus.deterministic import TokenBucket
from aipaging.core.calculus.modulated import MarkovFluid, MarkovPoisson, MarkovSlots, exp_minus_one, modulation_of
from aipaging.core.calculus.onoff import FluidOnOff, SlottedOnOff
from aipaging.core.calculus.regulated import ExponentiallyBounded, LeakyBuckets
from aipaging.core.calculus.tandem import log_exponential
from aipaging.core.calculus.work import ExponentialWork

Floats: TypeAlias = NDArray[np.float64]
LogMoment: TypeAlias = Callable[[Floats], Floats]
Pair: TypeAlias = Callable[[float], tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IntervalMoments:
    """E exp(theta X(s, t)) <= exp(sigma(theta)) q(theta)^(t - s) for theta in (0, theta_max).

    Attributes:
        log_sigma: ln of the constant factor, vectorised.
        log_growth: ln q, per slot or per unit of time, vectorised.
        theta_max: End of the domain.
        memoryless: Whether increments are independent with no constant factor, as Doob's inequality needs.
    """

    log_sigma: LogMoment
    log_growth: LogMoment
    theta_max: float
    memoryless: bool


def moments_of(arrivals: Sequence[Arrival]) -> IntervalMoments:
    """Return the moments of independent arrivals together."""
    return _moments_together(tuple(arrivals))


@lru_cache(maxsize=512)
def _moments_together(arrivals: tuple[Arrival, ...]) -> IntervalMoments:
    parts = [_moments(part) for part in parts_of(arrivals)]
    if len(parts) == 1:
        return parts[0]
    return IntervalMoments(
        log_sigma=_sum([part.log_sigma for part in parts]),
        log_growth=_sum([part.log_growth for part in parts]),
        theta_max=min((part.theta_max for part in parts), default=math.inf),
        memoryless=all(part.memoryless for part in parts),
    )


def _sum(terms: Sequence[LogMoment]) -> LogMoment:
    def total(theta: Floats) -> Floats:
        value = np.zeros_like(theta)
        for term in terms:
            value = value + term(theta)
        return value

    return total


def no_factor(theta: Floats) -> Floats:
    """Return ln 1."""
    return np.zeros_like(theta)


def each(of: Callable[[float], float]) -> LogMoment:
    """Return a scalar function of theta as one of arrays, which remembers: like questions ask for like theta."""
    known = lru_cache(maxsize=1024)(of)
    return lambda theta: np.array([known(t) for t in theta.tolist()])


def _memoryless(log_moment: Callable[[float], float], theta_max: float) -> IntervalMoments:
    return IntervalMoments(
        log_sigma=no_factor, log_growth=each(log_moment), theta_max=theta_max, memoryless=True
    )  # fmt: skip


@lru_cache(maxsize=512)
def _moments(arrival: SimpleArrival) -> IntervalMoments:
    match arrival:
        case SlottedWork():
            return _slots(arrival)
        case CompoundPoisson(rate=rate, work=work):
            return _memoryless(lambda theta: rate * exp_minus_one(work.log_mgf(theta)), work.theta_max)
        case TokenBucket() | ExponentiallyBounded() | LeakyBuckets():
            return _regulated(arrival)
        case SlottedOnOff():
            return _on_off(arrival)
        case FluidOnOff():
            return IntervalMoments(
                log_sigma=no_factor, log_growth=each(lambda theta: theta * arrival.rho(theta)),
                theta_max=math.inf, memoryless=False,
            )  # fmt: skip
        case MarkovSlots() | MarkovFluid() | MarkovPoisson():
            return _chain(arrival)


def _slots(arrival: SlottedWork) -> IntervalMoments:
    means = [work.mean for work in arrival.works if isinstance(work, ExponentialWork)]
    if len(means) < len(arrival.works):
        return _memoryless(arrival.log_mgf, arrival.theta_max)
    return IntervalMoments(
        log_sigma=no_factor,
        log_growth=_sum([log_exponential(mean) for mean in means]),
        theta_max=arrival.theta_max,
        memoryless=True,
    )


def _regulated(arrival: TokenBucket | ExponentiallyBounded | LeakyBuckets) -> IntervalMoments:
    match arrival:
        case TokenBucket(burst=burst, rate=rate):
            return IntervalMoments(
                log_sigma=lambda theta: theta * burst, log_growth=lambda theta: theta * rate,
                theta_max=math.inf, memoryless=False,
            )  # fmt: skip
        case ExponentiallyBounded(rate=rate, prefactor=prefactor, decay=decay):
            return IntervalMoments(
                log_sigma=lambda theta: log_bounded_moment(theta, prefactor, decay),
                log_growth=lambda theta: theta * rate, theta_max=decay, memoryless=False,
            )  # fmt: skip
        case LeakyBuckets(count=count, burst=burst, rate=rate):
            # The interval form of [MassoulieBusson2000]; ln cosh without overflow.
            return IntervalMoments(
                log_sigma=lambda theta: count * (np.logaddexp(theta * burst, -theta * burst) - math.log(2.0)),
                log_growth=lambda theta: theta * count * rate, theta_max=math.inf, memoryless=False,
            )  # fmt: skip


def log_bounded_moment(theta: Floats, prefactor: float, decay: float) -> Floats:
    """Return ln of E exp(theta X^+) <= 1 + M theta / (b - theta) where P(X > x) <= M exp(-b x); inf beyond b."""
    inside = np.where(theta < decay, theta, 0.0)
    return np.where(theta < decay, np.log1p(prefactor * inside / (decay - inside)), np.inf)


def _on_off(arrival: SlottedOnOff) -> IntervalMoments:
    def factor(theta: float) -> float:
        # Stationary flows with p + q >= 1 are positively associated: no factor.
        if arrival.stay_off + arrival.stay_on >= 1.0:
            return 0.0
        return arrival.count * abs(arrival.log_on_weight(theta, arrival.log_eigenvalue(theta)))

    return IntervalMoments(
        log_sigma=each(factor), log_growth=each(lambda theta: arrival.count * arrival.log_eigenvalue(theta)),
        theta_max=math.inf, memoryless=False,
    )  # fmt: skip


def _chain(arrival: MarkovSlots | MarkovFluid | MarkovPoisson) -> IntervalMoments:
    """Return E exp(theta A(n)) <= (pi g / min g) growth^n, g the right Perron vector of the chain itself."""
    chain = modulation_of(arrival)

    @lru_cache(maxsize=1024)
    def growth(theta: float) -> tuple[float, Floats]:
        return chain.growth(theta, backwards=False)

    log_law = np.log(chain.law)

    def factor(theta: float) -> float:
        _, vector = growth(theta)
        return chain.count * float(np.logaddexp.reduce(log_law + vector) - vector.min())

    return IntervalMoments(
        log_sigma=each(factor), log_growth=each(lambda theta: chain.count * growth(theta)[0]),
        theta_max=chain.theta_max, memoryless=False,
    )  # fmt: skip
