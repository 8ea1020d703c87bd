"""Flows of which only a regulator or an exponential envelope is known: leaky buckets and EBB.

Both are given per interval, so the union over the start of the busy period stays; both are evaluated term by
term, which never costs more than one theta for all terms.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aipaging.core.calculus.errors import UnstableError, overloaded, require_non_negative, require_positive
from aipaging.core.calculus.rounding import exp_up, round_up

_TERMS_MAX = 200_000
_THETAS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakyBuckets:
    """`count` independent stationary flows, each with A(s, t) <= burst + rate (t - s); nothing else is known.

    Referred to as (sigma, rho)-regulated sources in [MassoulieBusson2000].
    """

    count: int
    burst: float
    rate: float

    def __post_init__(self) -> None:
        require_positive(count=self.count)
        require_non_negative(burst=self.burst, rate=self.rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExponentiallyBounded:
    """P(A(s, t) > rate (t - s) + x) <= prefactor exp(-decay x) for all s <= t (EBB, [YaronSidi1993])."""

    rate: float
    prefactor: float
    decay: float

    def __post_init__(self) -> None:
        require_positive(prefactor=self.prefactor, decay=self.decay)
        require_non_negative(rate=self.rate)


def deterministic_delay(flows: LeakyBuckets, capacity: float) -> float:
    """Return the delay that the regulators alone exclude: n sigma / C.

    Raises:
        UnstableError: The sustained rates reach the capacity.
    """
    require_positive(capacity=capacity)
    if overloaded(flows.count * flows.rate, capacity):
        raise UnstableError
    return flows.count * flows.burst / capacity


def leaky_bucket_tail(flows: LeakyBuckets, capacity: float, delay: float) -> float:
    """Return a bound on P(backlog > C delay) in slotted time; exactly 0 from n sigma / C on.

    Over k slots a flow lies between 0 and sigma + rho k with mean at most rho k, so its moment is at most that
    of the two-point law; and it exceeds rho k by at most the growth of its bucket between two instants of the
    same law, so its moment is at most exp(theta rho k) cosh(theta sigma) ([MassoulieBusson2000], Lemma 2).
    The better of the two, and the best theta, are taken for every k; the sum ends where the regulators do.

    Raises:
        UnstableError: The sustained rates reach the capacity.
    """
    if delay >= deterministic_delay(flows, capacity) * (1.0 - 1e-13):
        return 0.0
    n, sigma, rho = flows.count, flows.burst, flows.rate
    gap = capacity - n * rho
    terms = math.ceil((n * sigma - capacity * delay) / gap)
    if terms > _TERMS_MAX:
        return 1.0
    k = np.arange(1, terms + 1, dtype=np.float64)
    level = capacity * (k + delay)
    # Two-point law: the Chernoff bound in closed form is a relative entropy, per flow.
    top = sigma + rho * k
    reach = np.minimum(level / (n * top), 1.0)
    mean = rho * k / top
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = reach * np.log(reach / mean) + np.where(
            reach < 1.0, (1.0 - reach) * np.log((1.0 - reach) / (1.0 - mean)), 0.0
        )
    two_point = np.where(level < n * top, np.exp(-n * np.where(reach > mean, entropy, 0.0)), 0.0)
    # cosh: maximise theta z - ln cosh(theta), z the excess per flow in bursts; an arc tangent.
    z = np.minimum((level - n * rho * k) / (n * sigma), 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = 0.5 * ((1.0 + z) * np.log1p(z) + np.where(z < 1.0, (1.0 - z) * np.log1p(-z), 0.0))
    cosh = np.exp(-n * np.maximum(rate, 0.0))
    return round_up(float(np.minimum(two_point, cosh).sum()))


def unlike_buckets_tail(classes: Sequence[LeakyBuckets], capacity: float, backlog: float) -> float:
    """Return a bound on P(backlog > x) of independent leaky buckets of unequal parameters, in slots.

    As for alike ones the better of the two moments is taken for every k and class, at the best theta of a grid;
    the sum ends where the regulators do.

    Raises:
        UnstableError: The sustained rates reach the capacity.
    """
    if overloaded(math.fsum(c.count * c.rate for c in classes), capacity):
        raise UnstableError
    bursts = math.fsum(c.count * c.burst for c in classes)
    if backlog >= bursts:
        return 0.0
    terms = math.ceil((bursts - backlog) / (capacity - math.fsum(c.count * c.rate for c in classes)))
    if terms > _TERMS_MAX // _THETAS:
        return 1.0
    k = np.arange(1, terms + 1, dtype=np.float64)[:, None]
    theta = np.geomspace(1e-4, 50.0, _THETAS)[None, :] * (sum(c.count for c in classes) / bursts)
    log_moment = -theta * (capacity * k + backlog)
    for flow in classes:
        mean, top = flow.rate * k, flow.burst + flow.rate * k
        two_point = np.log1p(mean / top * np.expm1(np.minimum(theta * top, 600.0)))
        two_point = np.where(theta * top > 600.0, theta * top, two_point)
        cosh = theta * mean + np.logaddexp(theta * flow.burst, -theta * flow.burst) - math.log(2.0)
        log_moment = log_moment + flow.count * np.minimum(two_point, cosh)
    possible = bursts + math.fsum(c.count * c.rate for c in classes) * k[:, 0] > capacity * k[:, 0] + backlog
    late = np.where(possible, np.exp(np.minimum(log_moment.min(axis=1), 0.0)), 0.0)
    return round_up(float(late.sum()))


def exponentially_bounded_tail(flow: ExponentiallyBounded, capacity: float, delay: float) -> float:
    """Return sum_{k >= 1} M exp(-b (C (k + d) - rho k)), a bound on P(backlog > C delay) in slotted time.

    The detour over the moment generating function would cost a factor of 20 to 70.

    Raises:
        UnstableError: The rate reaches the capacity.
    """
    if overloaded(flow.rate, capacity):
        raise UnstableError
    require_non_negative(delay=delay)
    gap = flow.decay * (capacity - flow.rate)
    log_sum = -gap - math.log(-math.expm1(-gap))
    return exp_up(math.log(flow.prefactor) - flow.decay * capacity * delay + log_sum)
