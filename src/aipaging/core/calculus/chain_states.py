"""The states of independent chains together: the least weight from which a queue can rise, and what they send next.

Used by the product martingale; a lower bound on the one and an upper bound on the other keep its bound one.
"""

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aipaging.core.calculus.modulated import Modulation

Floats: TypeAlias = NDArray[np.float64]

COMBINATIONS_MAX: Final = 4096
"""States of all chains together that are looked through one by one; beyond, a dual bound is used."""


def log_least_rising(weights: Sequence[tuple[Modulation, Floats]], rate: float) -> float:
    """Return a lower bound on ln prod g over the states whose work exceeds the rate.

    Over all numbers of chains per state where these are few; else the Lagrangian dual, which is never above.
    """
    sizes = [math.comb(chain.count + len(vector) - 1, chain.count) for chain, vector in weights]
    if math.prod(sizes) > COMBINATIONS_MAX:
        return _log_least_dual(weights, rate)
    work, log_weight = np.zeros(1), np.zeros(1)
    for chain, vector in weights:
        counts = _compositions(chain.count, len(vector))
        with np.errstate(invalid="ignore"):
            sent = np.where(counts > 0, counts * chain.largest, 0.0).sum(axis=1)
        work = np.add.outer(work, sent).ravel()
        log_weight = np.add.outer(log_weight, counts @ vector).ravel()
    rising = work > rate * (1.0 - 1e-12)
    return float(log_weight[rising].min()) if rising.any() else 0.0


@lru_cache(maxsize=64)
def _compositions(count: int, states: int) -> NDArray[np.int64]:
    """Return all ways to put `count` chains into states, one per row."""
    if states == 1:
        return np.array([[count]])
    rows = [np.insert(_compositions(count - first, states - 1), 0, first, axis=1) for first in range(count + 1)]
    return np.concatenate(rows)


def _log_least_dual(weights: Sequence[tuple[Modulation, Floats]], rate: float) -> float:
    """Return the dual of the least over states: concave and piecewise linear in its multiplier.

    Its breaks are at slopes between two states of one class.
    """
    slopes = {0.0}
    for chain, vector in weights:
        bounded = np.isfinite(chain.largest)
        for i, j in itertools.permutations(np.flatnonzero(bounded), 2):
            run = float(chain.largest[i] - chain.largest[j])
            if run > 0.0 and vector[i] > vector[j]:
                slopes.add(float(vector[i] - vector[j]) / run)
    best = -math.inf
    for slope in slopes:
        value = slope * rate
        for chain, vector in weights:
            shifted = vector - (slope * chain.largest if slope > 0.0 else 0.0)
            value += chain.count * float(np.min(shifted))
        best = max(best, value)
    return best


def log_ahead(chain: Modulation, theta: float, delay: float) -> Floats:
    """Return ln E exp(theta A(t, t + delay)) given each state at t, of one chain; rounded up."""
    moments = chain.log_moments(theta)
    if not np.all(np.isfinite(moments)):
        return np.full(len(moments), math.inf)
    if len(moments) == 1:
        return moments * delay
    if chain.slotted:
        top = float(moments.max())
        return top * delay + log_power(chain.kernel * np.exp(moments - top)[None, :], round(delay))
    kernel = chain.kernel + np.diag(moments)
    # exp(K d) 1 = (exp(K d / 2^m))^(2^m) 1, with a positive Taylor series of K plus a multiple of the identity.
    shift = float(np.max(np.maximum(0.0, -np.diag(kernel))))
    speed = float((kernel + shift * np.eye(len(kernel))).sum(axis=1).max())
    doublings = max(0, math.ceil(math.log2(max(2.0 * speed * delay, 1.0))))
    step = delay / 2.0**doublings
    small = (kernel + shift * np.eye(len(kernel))) * step
    series = np.eye(len(kernel))
    for k in range(20, 0, -1):
        series = np.eye(len(kernel)) + small @ series / k
    return log_power(series, 2**doublings) - shift * delay + 1e-12 * (1.0 + shift * delay)


def log_power(matrix: Floats, exponent: int) -> Floats:
    """Return ln (matrix^exponent 1) for a non-negative matrix, scaled on the way so that nothing underflows."""
    vector, log_scale = np.ones(len(matrix)), 0.0
    factor, log_factor = matrix.copy(), 0.0
    # Squaring doubles the relative error of a few ulp.
    allowance = 1e-15 * len(matrix) * exponent
    while exponent:
        if exponent & 1:
            vector = factor @ vector
            top = float(vector.max())
            vector, log_scale = vector / top, log_scale + log_factor + math.log(top)
        exponent >>= 1
        if exponent:
            factor = factor @ factor
            top = float(factor.max())
            factor, log_factor = factor / top, 2.0 * log_factor + math.log(top)
    with np.errstate(divide="ignore"):
        found: Floats = np.log(vector) + log_scale + allowance
    return found
