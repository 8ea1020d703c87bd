"""Single queues whose tail is known exactly: M/M/1, M/D/1, and slots of exponential work.

A sum of random slots whose upward jumps are exponential or a sum of exponentials is climbed in ladder steps
of known shape, which makes the law of its supremum a mixture of exponentials ([Asmussen2003], ch. VIII).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Final

from aipaging.core.calculus.errors import UnstableError, overloaded, require_non_negative, require_positive
from aipaging.core.calculus.rounding import exp_up, largest_root, round_up

CROMMELIN_TERMS_MAX: Final = 400
"""Beyond this many service times the alternating series costs more than the `sharp` class allows."""

CROMMELIN_DIGITS_MAX: Final = 800
"""Beyond it the tail is below 1e-300 or the sum too slow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """P(sup > x) = sum_i weights[i] exp(-rates[i] x): the supremum of a random walk, exactly.

    Attributes:
        rates: theta_i, the slowest first.
        weights: May be negative after the first.
        phases: l_i, the rates of the exponential parts of one upward jump.
    """

    rates: tuple[float, ...]
    weights: tuple[float, ...]
    phases: tuple[float, ...]

    def tail(self, x: float) -> float:
        """Return P(sup > x), rounded up."""
        if x < 0.0:
            return 1.0
        # Relative to the slowest exponential, so that 1e-300 is no special case.
        slowest = self.rates[0]
        scaled = math.fsum(w * math.exp(-(r - slowest) * x) for r, w in zip(self.rates, self.weights, strict=True))
        return exp_up(math.log(scaled) - slowest * x) if scaled > 0.0 else round_up(0.0)


def exponential_slots(mean: float, capacity: float) -> Ladder:
    """Return the backlog law of slots of Exp(mean) work served at `capacity` per slot (D/M/1).

    The overshoot of an exponential jump is that exponential, so the Doob bound holds with equality:
    P(q > x) = (1 - theta* mean) exp(-theta* x), theta* > 0 the root of E exp(theta (a - C)) = 1.

    Raises:
        UnstableError: mean >= capacity.
    """
    require_positive(mean=mean, capacity=capacity)
    if overloaded(mean, capacity):
        raise UnstableError
    load = capacity / mean
    root = largest_root(lambda u: -math.log1p(-u) - u * load, 1.0)
    # 1 - root, without cancellation at light load, is exp(-root * load) at the root.
    return Ladder(rates=(root / mean,), weights=(math.exp(-root * load),), phases=(1.0 / mean,))


def exponential_slots_onoff_service(mean: float, capacity: float, availability: float) -> Ladder:
    """Return the backlog law of Exp(mean) work per slot, served at `capacity` in a slot with probability p.

    Args:
        mean: Mean work per slot.
        capacity: Service of a slot that is on.
        availability: p, the probability that a slot is on; independent from slot to slot.

    Raises:
        UnstableError: mean >= capacity * p.
    """
    require_positive(mean=mean, capacity=capacity, availability=availability)
    if overloaded(mean, capacity * availability):
        raise UnstableError
    load = capacity / mean

    def exponent(u: float) -> float:
        return -math.log1p(-u) + math.log1p(availability * math.expm1(-u * load))

    root = largest_root(exponent, 1.0)
    weight = 1.0 + availability * math.expm1(-root * load)
    return Ladder(rates=(root / mean,), weights=(weight,), phases=(1.0 / mean,))


def two_exponentials_per_slot(means: Sequence[float], capacity: float) -> Ladder:
    """Return the backlog law of slots that bring one Exp(means[0]) and one Exp(means[1]), at `capacity`.

    With jumps that are sums of exponentials of rates l_1, l_2 the Wiener-Hopf factor is rational:
    E exp(-s sup) = prod_i (1 + s/l_i) / (1 + s/theta_i), theta_i the two positive roots of
    prod l_i / (l_i - theta) = exp(theta C): one below both rates, one above both.

    Raises:
        UnstableError: The mean work of a slot reaches the capacity.
    """
    require_positive(mean_first=means[0], mean_second=means[1], capacity=capacity)
    if overloaded(means[0] + means[1], capacity):
        raise UnstableError
    unit = max(means)
    a, b, load = means[0] / unit, means[1] / unit, capacity / unit
    low = largest_root(lambda u: -math.log1p(-u * a) - math.log1p(-u * b) - u * load, 1.0)
    high = _root_beyond(a, b, load)
    # prod (1 - theta_i / l_j) is exp(-theta_i C) at a root: no cancellation at light load.
    w_low = high / (high - low) * math.exp(-low * load)
    w_high = low / (low - high) * math.exp(-high * load)
    return Ladder(rates=(low / unit, high / unit), weights=(w_low, w_high), phases=(1.0 / means[0], 1.0 / means[1]))


def _root_beyond(a: float, b: float, load: float) -> float:
    """Solve 1 / ((u a - 1)(u b - 1)) = exp(u load) beyond both poles; the left side falls, the right rises."""
    low = 1.0 / min(a, b)
    high = 2.0 * low
    for _ in range(200):
        middle = 0.5 * (low + high)
        excess = (middle * a - 1.0) * (middle * b - 1.0)
        if excess > 0.0 and math.log(excess) + middle * load > 0.0:
            high = middle
        else:
            low = middle
        if high - low <= 1e-15 * high:
            break
    return high


def poisson_exponential_tail(*, arrival_rate: float, mean: float, capacity: float, delay: float) -> float:
    """Return P(workload / C > d) of an M/M/1 queue, exactly: rho exp(-(C/mean - lambda) d).

    Raises:
        UnstableError: The load reaches 1.
    """
    require_positive(arrival_rate=arrival_rate, mean=mean, capacity=capacity)
    require_non_negative(delay=delay)
    load = arrival_rate * mean / capacity
    if overloaded(load, 1.0):
        raise UnstableError
    return exp_up(math.log(load) - (capacity / mean) * (1.0 - load) * delay)


def poisson_constant_tail(*, arrival_rate: float, size: float, capacity: float, delay: float) -> float | None:
    """Return P(workload / C > d) of an M/D/1 queue by the series of [Crommelin1932], or None if too long.

    The series alternates; it is summed with as many digits as lie between its largest term and its sum, plus 40.

    Raises:
        UnstableError: The load reaches 1.
    """
    require_positive(arrival_rate=arrival_rate, size=size, capacity=capacity)
    require_non_negative(delay=delay)
    load = arrival_rate * size / capacity
    if overloaded(load, 1.0):
        raise UnstableError
    services = delay * capacity / size
    if services > CROMMELIN_TERMS_MAX:
        return None
    last = math.floor(services)
    decay = largest_root(lambda u: load * math.expm1(u) - u if u < 700.0 else math.inf, math.inf)
    digits = (2.0 * load + decay) * services / math.log(10.0)
    if digits > CROMMELIN_DIGITS_MAX:
        return None
    with localcontext() as context:
        context.prec = int(digits) + 40
        rho, x = Decimal(load), Decimal(services)
        total = Decimal(0)
        factorial = Decimal(1)
        for k in range(last + 1):
            if k:
                factorial *= k
            u = rho * (k - x)
            total += (-u).exp() * (u**k if k else Decimal(1)) / factorial
        tail = 1 - (1 - rho) * total
        return round_up(float(tail))
