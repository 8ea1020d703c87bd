"""Many candidates at once: the union split of the risk budget and single queues, vectorised.

Admission bounds every candidate's path; one call for all of them costs less than a microsecond each. The
numbers are those of `risk_budget` and `queue_exact`, with the same rounding.
"""

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aipaging.core.calculus.errors import LOAD_MARGIN
from aipaging.core.calculus.rounding import PROBABILITY_MIN, RELATIVE_UP
from aipaging.core.foundation.errors import InvalidInputError

Floats: TypeAlias = NDArray[np.float64]

_UP: Final = 1.0 + RELATIVE_UP


def epsilons_any_dependence(offsets: Floats, prefactors: Floats, decays: Floats, delays: Floats) -> Floats:
    """Return the union bound on P(sum of delays > delay) of every candidate.

    Args:
        offsets: T, one row per candidate, one column per domain.
        prefactors: M, positive; a candidate with fewer domains has M so small that it does not count.
        decays: eta, positive.
        delays: One per candidate.

    Returns:
        One probability per candidate, rounded up; 1 where the offsets alone exceed the delay.

    Raises:
        InvalidInputError: Shapes that differ, or numbers outside their ranges.
    """
    if not offsets.shape == prefactors.shape == decays.shape == (len(delays), offsets.shape[-1]):
        raise InvalidInputError("offsets, prefactors and decays need one row per delay", field="offsets")
    if not (np.all(offsets >= 0.0) and np.all(prefactors > 0.0) and np.all(decays > 0.0)):
        raise InvalidInputError("offsets must be >= 0, prefactors and decays > 0", field="prefactors")
    hops = offsets.shape[1]
    slack = delays - offsets.sum(axis=1)
    safe = np.maximum(0.0, slack - 4e-15 * hops * np.abs(delays))
    slopes = np.log(prefactors * decays)
    order = np.argsort(-slopes, axis=1)
    slopes = np.take_along_axis(slopes, order, axis=1)
    scales = 1.0 / np.take_along_axis(decays, order, axis=1)
    sorted_prefactors = np.take_along_axis(prefactors, order, axis=1)
    weights = np.cumsum(scales, axis=1)
    levels = (np.cumsum(slopes * scales, axis=1) - safe[:, None]) / weights
    # The active domains are the longest prefix whose every member lies above the level of the prefix.
    active = slopes > levels
    active[:, 0] = True
    count = np.logical_and.accumulate(active, axis=1).sum(axis=1) - 1
    rows = np.arange(len(delays))
    inactive = (sorted_prefactors * (np.arange(hops) > count[:, None])).sum(axis=1)
    total = np.exp(levels[rows, count]) * weights[rows, count] + inactive
    bound: Floats = np.clip(total * _UP * _UP, PROBABILITY_MIN, 1.0)
    return np.where(slack >= 0.0, bound, 1.0)


def poisson_exponential_tails(arrival_rates: Floats, means: Floats, capacities: Floats, delays: Floats) -> Floats:
    """Return P(workload / C > d) of M/M/1 queues, exactly, one per candidate; 1 where overloaded."""
    load = arrival_rates * means / capacities
    with np.errstate(divide="ignore"):
        log_tail = np.log(load) - capacities / means * (1.0 - load) * delays
    tail: Floats = np.clip(np.exp(np.minimum(log_tail, 0.0)) * _UP, PROBABILITY_MIN, 1.0)
    return np.where(load < 1.0 - LOAD_MARGIN, tail, 1.0)
