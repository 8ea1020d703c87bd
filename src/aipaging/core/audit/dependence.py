"""How much less a series of dependent requests tells than so many independent ones.

The design effect of a count is its variance over windows, divided by what independent requests would give. It grows
with the window until windows are long against the correlation; the largest is taken, which errs to the safe side.
"""

import math
from typing import Final

import numpy as np

from aipaging.core.audit.telemetry import Integers

WINDOWS: Final = 4096
"""Windows of equal length over the period, the finest that are counted."""

WINDOWS_MIN: Final = 32
"""Fewer windows estimate a variance too badly (to 25 %) to say anything."""


def design_effect(requests: Integers, exceedances: Integers) -> float | None:
    """Return the design effect of a number of exceedances, at least 1, or None where nothing can be said.

    Args:
        requests: Requests by window, in the order of time.
        exceedances: Of those, how many exceeded.
    """
    total, exceeding = int(requests.sum()), int(exceedances.sum())
    if exceeding in (0, total):
        return None
    share = exceeding / total
    largest = None
    count, missed = requests, exceedances
    while len(count) >= WINDOWS_MIN:
        effect = _effect(count, missed, share)
        if effect is not None:
            largest = effect if largest is None else max(largest, effect)
        count, missed = _halved(count), _halved(missed)
    return None if largest is None else max(1.0, largest)


def cluster_effect(requests: Integers, exceedances: Integers) -> float | None:
    """Return the design effect of clusters that are independent of one another, at least 1, or None as above.

    Args:
        requests: Requests by cluster.
        exceedances: Of those, how many exceeded.
    """
    total, exceeding = int(requests.sum()), int(exceedances.sum())
    effect = None if exceeding in (0, total) else _effect(requests, exceedances, exceeding / total)
    return None if effect is None else max(1.0, effect)


def _effect(count: Integers, missed: Integers, share: float) -> float | None:
    full = int(np.count_nonzero(count))
    if full < WINDOWS_MIN:
        return None
    deviation = float(np.sum((missed - share * count) ** 2))
    return deviation / (share * (1 - share) * int(count.sum())) * full / (full - 1)


def effective_requests(requests: int, effect: float | None) -> float | None:
    """Return how many independent requests would tell as much."""
    return None if effect is None or not math.isfinite(effect) else requests / effect


def _halved(counts: Integers) -> Integers:
    even = counts[: len(counts) // 2 * 2]
    return np.asarray(even.reshape(-1, 2).sum(axis=1), dtype=np.int64)
