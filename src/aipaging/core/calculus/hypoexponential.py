"""Sums of independent exponential stages, some of which may be skipped: phase-type tails without cancellation.

Partial fractions go negative (8 equal rates: -6e-23). Here the tail is a row sum of exp(Q t), computed as
repeated squares of a short positive series of Q + Lambda I: every number is a sum of positive terms.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from aipaging.core.calculus.rounding import round_up

_TERMS: Final = 20
"""Terms of the series at Lambda tau <= 1/2: the rest is below 2e-25 of the sum."""

RELATIVE: Final = 1e-9


def hypoexponential_tail(rates: Sequence[float], x: float, *, present: Sequence[float] | None = None) -> float:
    """Return P(X_1 + ... + X_n > x), X_i = Exp(rates[i]) with probability present[i], else 0; rounded up.

    Args:
        rates: One per stage, positive.
        x: Threshold; at most 0 asks for the probability that any stage is present, or 1 if negative.
        present: Probability of each stage, 1 where left out.
    """
    if x < 0.0:
        return 1.0
    n = len(rates)
    chance = np.ones(n) if present is None else np.asarray(present, dtype=np.float64)
    # enter[i, j]: having left stage i - 1 (0: at the start), the next stage present is j.
    enter = np.zeros((n + 1, n))
    for i in range(n + 1):
        skipped = 1.0
        for j in range(i, n):
            enter[i, j] = skipped * chance[j]
            skipped *= 1.0 - chance[j]
    if x == 0.0:
        return round_up(float(enter[0].sum()), RELATIVE) if enter[0].sum() > 0.0 else 0.0
    speed = np.asarray(rates, dtype=np.float64)
    fastest = float(speed.max())
    squarings = max(0, math.ceil(math.log2(2.0 * fastest * x)))
    tau = x / 2.0**squarings
    # (Q + Lambda I) tau, entrywise non-negative.
    step = np.diag((fastest - speed) * tau) + speed[:, None] * tau * enter[1:]
    matrix = np.eye(n)
    for k in range(_TERMS, 0, -1):
        matrix = np.eye(n) + step @ matrix / k
    matrix *= math.exp(-fastest * tau)
    log_scale = 0.0
    for _ in range(squarings):
        matrix = matrix @ matrix
        log_scale *= 2.0
        largest = float(matrix.max())
        if 0.0 < largest < 1e-100:
            matrix /= largest
            log_scale += math.log(largest)
    tail = float(enter[0] @ matrix.sum(axis=1))
    # Each squaring doubles the relative error of a few ulp.
    relative = max(RELATIVE, 1e-15 * n * 2.0**squarings)
    return round_up(tail * math.exp(log_scale), relative) if tail > 0.0 else 0.0
