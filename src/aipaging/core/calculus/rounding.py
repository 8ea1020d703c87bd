"""Rounding to the safe side: probabilities up, delays up, decay rates down.

A bound that floating point pushed below the true value would not be a bound. Every rung therefore computes
in the log domain where numbers may underflow, and passes its result through one of these functions with a
relative allowance that covers its arithmetic.
"""

import math
import sys
from collections.abc import Callable
from typing import Final

PROBABILITY_MIN: Final = sys.float_info.min
"""What underflows is rounded up to this, never to zero: zero is a theorem (a deterministic cap)."""

RELATIVE_UP: Final = 1e-10
"""Default allowance. exp() of an argument of size 745 is off by at most 745 ulp = 1.7e-13."""

WHOLE: Final = 1e-9
"""A delay this close (relatively) to a whole slot, or a ratio to a whole number, is that number."""


def round_up(probability: float, relative: float = RELATIVE_UP) -> float:
    """Round a positive probability up by `relative` and clip it at 1."""
    return min(1.0, max(probability * (1.0 + relative), PROBABILITY_MIN))


def exp_up(log_probability: float, relative: float = RELATIVE_UP) -> float:
    """Return exp(log_probability) as a probability, rounded up and clipped at 1."""
    if log_probability >= 0.0:
        return 1.0
    return round_up(math.exp(log_probability), relative)


def whole_slots(delay: float) -> int:
    """Return the whole slots in a delay: in discrete time P(W > d) = P(W > floor(d))."""
    nearest = round(delay)
    if abs(delay - nearest) <= WHOLE * max(1.0, abs(delay)):
        return int(nearest)
    return math.floor(delay)


def whole_below(ratio: float) -> int:
    """Return the largest whole number <= ratio, taking a ratio within 1e-12 of a whole number as that number."""
    nearest = round(ratio)
    return int(nearest) if abs(ratio - nearest) <= 1e-12 * max(1.0, abs(ratio)) else math.floor(ratio)


def largest_root(exponent: Callable[[float], float], upper: float) -> float:
    """Return the positive root of a convex function that is 0 at 0 and falls there, rounded down.

    Referred to as theta* where `exponent` is log E exp(theta X) of an increment X with negative mean.

    Args:
        exponent: The function; may return inf at and beyond `upper`.
        upper: End of its domain, or inf. With inf, the scale at which it has turned positive is sought
            from 1 by powers of two, so the caller should make theta dimensionless.
    """
    high = _positive_end(exponent, upper)
    if exponent(high) <= 0.0:
        return high * (1.0 - 1e-14)
    low = high / 2.0
    while exponent(low) > 0.0:
        high = low
        low /= 2.0
        if low < 1e-300:
            return 0.0
    return _bisect(exponent, low, high)


def _positive_end(exponent: Callable[[float], float], upper: float) -> float:
    if math.isfinite(upper):
        gap = 0.5
        while exponent(upper * (1.0 - gap)) <= 0.0:
            gap /= 4.0
            if gap < 1e-15:  # the root is the end of the domain, to rounding
                break
        return upper * (1.0 - gap)
    high = 1.0
    while exponent(high) <= 0.0:
        high *= 2.0
        if high > 1e12:
            return high
    return high


def _bisect(exponent: Callable[[float], float], low: float, high: float) -> float:
    """Illinois false position between a point that is <= 0 and one that is > 0; returns the lower end."""
    f_low, f_high = exponent(low), exponent(high)
    for _ in range(200):
        if high - low <= 4e-15 * high or f_low == 0.0:
            break
        slope = f_high - f_low
        middle = high - f_high * (high - low) / slope if math.isfinite(slope) else 0.5 * (low + high)
        if not low < middle < high:
            middle = 0.5 * (low + high)
        value = exponent(middle)
        if value <= 0.0:
            low, f_low = middle, value
            f_high *= 0.5
        else:
            high, f_high = middle, value
            f_low *= 0.5
    return low * (1.0 - 1e-14)
