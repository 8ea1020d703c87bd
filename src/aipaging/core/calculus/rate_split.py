"""Two flows that may depend on each other in any way, at one server that may serve them in any order.

Give each a share of the capacity, c1 + c2 = C. If the first waits longer than d, its own backlog at c1 plus
the other's at c2, d slots later, exceeds c1 d; so one of them exceeds its part, and the union bound needs no
independence. 16 to 30 times tighter than Hoelder's inequality on the reference cases. Proof: rate_split.md.
"""

from collections.abc import Callable
from typing import Final

from aipaging.core.calculus.errors import UnstableError, overloaded
from aipaging.core.calculus.queue_exact import Ladder
from aipaging.core.calculus.risk_budget import DelayContract, epsilon_any_dependence

_GOLDEN: Final = 0.6180339887498949

RATE_TOLERANCE: Final = 1e-7
"""Of the share, relative to the spare capacity; any share gives a bound."""

RATE_TOLERANCE_FAST: Final = 0.1

BacklogTail = Callable[[float], Ladder]
"""From a share of the capacity to the backlog law of a flow served at that share."""


def rate_split_tail(
    own: BacklogTail,
    cross: BacklogTail,
    *,
    means: tuple[float, float],
    capacity: float,
    delay: float,
    tolerance: float = RATE_TOLERANCE,
) -> tuple[float, float]:
    """Return (a bound on P(W > delay) of the own flow, the share c1 that gives it).

    Args:
        own: Backlog law of the flow of interest, served alone.
        cross: Backlog law of the cross traffic, served alone.
        means: Mean work per slot of the two.
        capacity: C, per slot.
        delay: d, in whole slots.
        tolerance: Where the search over shares ends.

    Raises:
        UnstableError: The mean rates reach the capacity.
    """
    spare = capacity - means[0] - means[1]
    if overloaded(means[0] + means[1], capacity):
        raise UnstableError

    def bound(fraction: float) -> float:
        share = means[0] + spare * fraction
        parts = (own(share), cross(capacity - share))
        contracts = [
            DelayContract(offset_ms=0.0, prefactor=max(0.0, law.weights[0]), decay_per_ms=law.rates[0] * capacity)
            for law in parts
        ]
        # Work in units of the capacity, so that the budget sees the order of delays.
        return epsilon_any_dependence(contracts, share * delay / capacity).epsilon

    low, high = 1e-6, 1.0 - 1e-6
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = bound(left), bound(right)
    for _ in range(60):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = bound(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = bound(right)
        if high - low < tolerance:
            break
    best = min((at_left, left), (at_right, right))
    return best[0], means[0] + spare * best[1]
