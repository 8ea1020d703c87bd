"""A domain of which only measured delays are known: a step function above its tail, and sums of such.

P(D > delays[i]) <= exceedances[i]. Nothing is extrapolated: beyond the last delay the last exceedance stays.
Sums under any dependence take the least over all splits at the steps; of independent domains the steps convolve.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final

import numpy as np

from aipaging.core.calculus.errors import require_non_negative
from aipaging.core.calculus.rounding import round_up
from aipaging.core.foundation.errors import InvalidInputError

STEPS_MAX: Final = 512
"""Steps of a tail that are kept; fewer steps are a weaker promise, never a wrong one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredLatency:
    """P(D > delays[i]) <= exceedances[i]: rising delays, falling exceedances.

    Attributes:
        delays: In the unit of the question.
        exceedances: Each between 0 and 1, confidence included by whoever measured.
    """

    delays: tuple[float, ...]
    exceedances: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.delays or len(self.delays) != len(self.exceedances):
            raise InvalidInputError("needs one exceedance per delay, at least one", field="delays")
        for delay in self.delays:
            require_non_negative(delays=delay)
        if any(a >= b for a, b in pairwise(self.delays)):
            raise InvalidInputError("must rise", field="delays")
        steps = (1.0, *self.exceedances, 0.0)
        if any(not a >= b for a, b in pairwise(steps)):
            raise InvalidInputError("must fall and lie between 0 and 1", field="exceedances")

    def exceedance(self, delay: float) -> float:
        """Return the promised bound on P(D > delay)."""
        at = int(np.searchsorted(np.array(self.delays), delay, side="right"))
        return self.exceedances[at - 1] if at else 1.0


def measured_latency(delays: Sequence[float], *, confidence: float = 0.95, timeouts: int = 0) -> MeasuredLatency:
    """Return a step function that lies above the true tail with this confidence, from independent delays.

    The band of Dvoretzky, Kiefer and Wolfowitz with Massart's constant ([Massart1990]); timeouts count as
    exceedances of every delay.

    Raises:
        InvalidInputError: Too few delays, or a confidence outside (0, 1).
    """
    if not 0.0 < confidence < 1.0:
        raise InvalidInputError("must lie strictly between 0 and 1", field="confidence")
    if not len(delays) or timeouts < 0:
        raise InvalidInputError("needs at least one delay, and timeouts >= 0", field="delays")
    ordered = np.sort(np.asarray(delays, dtype=np.float64))
    require_non_negative(first=float(ordered[0]), last=float(ordered[-1]))
    total = len(ordered) + timeouts
    band = math.sqrt(math.log(1.0 / (1.0 - confidence)) / (2.0 * total))
    at = np.unique(np.linspace(0, len(ordered) - 1, min(len(ordered), STEPS_MAX)).round().astype(int))
    values = np.unique(ordered[at])
    above = total - np.searchsorted(ordered, values, side="right")
    exceed = np.minimum(1.0, above / total + band)
    return MeasuredLatency(delays=tuple(map(float, values)), exceedances=tuple(map(float, exceed)))


def sum_tail(
    parts: Sequence[MeasuredLatency], rest: Callable[[float], float], delay: float, *, independent: bool
) -> float:
    """Return a bound on P(D_1 + ... + D_n + X > delay), rounded up.

    Args:
        parts: D_i.
        rest: A bound on P(X > x), falling, 1 for x < 0.
        delay: In the unit of the parts.
        independent: Whether all of them are; otherwise any dependence is covered.
    """
    if not parts:
        return rest(delay)
    joined = parts[0]
    for part in parts[1:]:
        joined = _joined(joined, part, independent=independent)
    if independent:
        steps = (1.0, *joined.exceedances)
        late = math.fsum(
            (before - after) * rest(delay - at)
            for at, before, after in zip(joined.delays, steps, joined.exceedances, strict=False)
        )
        return round_up(late + joined.exceedances[-1])
    splits = (p + rest(delay - at) for at, p in zip(joined.delays, joined.exceedances, strict=True))
    return round_up(min(1.0, *splits))


@lru_cache(maxsize=32)
def _joined(first: MeasuredLatency, second: MeasuredLatency, *, independent: bool) -> MeasuredLatency:
    """Return steps above the tail of the sum of two."""
    sums = np.add.outer(np.array(first.delays), np.array(second.delays)).ravel()
    if independent:
        masses = [-np.diff(np.concatenate([[1.0], part.exceedances])) for part in (first, second)]
        mass = np.multiply.outer(masses[0], masses[1]).ravel()
        order = np.argsort(sums, kind="stable")
        delays, tail = sums[order], np.clip(1.0 - np.cumsum(mass[order]), 0.0, 1.0)
    else:
        both = np.add.outer(np.array(first.exceedances), np.array(second.exceedances)).ravel()
        order = np.lexsort((both, sums))
        delays, tail = sums[order], np.minimum.accumulate(np.minimum(both[order], 1.0))
    # Of equal delays the last has the least tail; of many steps every n-th is kept, the last among them.
    keep = np.append(np.diff(delays) > 0.0, True)
    delays, tail = delays[keep], tail[keep]
    at = np.unique(np.linspace(0, len(delays) - 1, min(len(delays), STEPS_MAX)).round().astype(int))
    return MeasuredLatency(
        delays=tuple(map(float, delays[at])), exceedances=tuple(float(min(1.0, p + 1e-15)) for p in tail[at])
    )
