"""What a rung of the ladder returns, and how the least is chosen."""

import enum
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from aipaging.core.calculus.rounding import RELATIVE_UP, exp_up, round_up


class NamedEnum(enum.Enum):
    """An enumeration whose `repr` rebuilds its member."""

    def __repr__(self) -> str:
        """Return the member as it is written."""
        return f"{type(self).__name__}.{self.name}"


class RungClass(NamedEnum):
    """How long a rung may take: FAST for admission, SHARP for questions asked offline."""

    FAST = "fast"
    SHARP = "sharp"


_NOTHING: Final[Mapping[str, float]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class TailBound:
    """An upper bound on P(delay > d), and what it rests on.

    Attributes:
        probability: The bound, rounded up and at most 1.
        rung: Name of the rung; `docs/background/calculus/` has a chapter for each.
        assumptions: What must hold of the system; an envelope attests them.
        parameters: The parameters that the rung chose, such as theta.
        numeric_error: Relative allowance for arithmetic that is included in `probability`.
        ladder: Every rung that was tried and its bound, this one included, where there were several.
    """

    probability: float
    rung: str
    assumptions: tuple[str, ...]
    parameters: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
    numeric_error: float = RELATIVE_UP
    ladder: tuple[tuple[str, float], ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", MappingProxyType(dict(self.parameters)))

    def __repr__(self) -> str:
        """Return an expression that rebuilds the bound."""
        return (
            f"TailBound(probability={self.probability!r}, rung={self.rung!r}, assumptions={self.assumptions!r}, "
            f"parameters={dict(self.parameters)!r}, numeric_error={self.numeric_error!r})"
        )


def bound_of(probability: float, rung: str, assumptions: tuple[str, ...], **parameters: float) -> TailBound:
    """Return a bound from a probability that has not been rounded yet."""
    return TailBound(probability=round_up(probability), rung=rung, assumptions=assumptions, parameters=parameters)


def bound_of_log(log_probability: float, rung: str, assumptions: tuple[str, ...], **parameters: float) -> TailBound:
    """Return a bound from the logarithm of a probability."""
    return TailBound(probability=exp_up(log_probability), rung=rung, assumptions=assumptions, parameters=parameters)


def certain(probability: float, rung: str, assumptions: tuple[str, ...]) -> TailBound:
    """Return a bound that is exactly 0 or 1 by a theorem."""
    return TailBound(probability=probability, rung=rung, assumptions=assumptions, numeric_error=0.0)


def least(bounds: Iterable[TailBound]) -> TailBound:
    """Return the least bound, which remembers the others; of equals the earlier: the best rung is written first."""
    tried = tuple(bounds)
    best = min(tried, key=lambda bound: bound.probability)
    if len(tried) == 1:
        return best
    ladder: dict[str, float] = {}
    for bound in tried:
        for rung, probability in bound.ladder or ((bound.rung, bound.probability),):
            ladder[rung] = min(probability, ladder.get(rung, 1.0))
    return replace(best, ladder=tuple(ladder.items()))


def delay_for(probability_at: Callable[[float], float], epsilon: float, *, scale: float, slotted: bool) -> float:
    """Return the least delay at which a falling bound is at most epsilon, rounded up.

    Args:
        probability_at: The bound as a function of the delay.
        epsilon: The probability to stay within.
        scale: A delay of the right order, in the unit of the answer.
        slotted: Whether only whole slots count.

    Returns:
        The delay; inf when no delay up to 2**40 times the scale will do.
    """
    if probability_at(0.0) <= epsilon:
        return 0.0
    low, high = 0.0, float(max(1, round(scale))) if slotted else scale
    for _ in range(40):
        if probability_at(high) <= epsilon:
            break
        low, high = high, 2.0 * high
    else:
        return math.inf
    while (high - low > 1.0) if slotted else (high - low > 1e-10 * high):
        middle = float((low + high) // 2) if slotted else 0.5 * (low + high)
        if probability_at(middle) <= epsilon:
            high = middle
        else:
            low = middle
    return high
