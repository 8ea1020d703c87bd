"""M/G/1 with capped work: the workload tail between two bounds ([Pollaczek1930], [Khinchine1932]).

The workload is a geometric sum of ladder heights with density P(S > x) / E S. Rounding every height up to a
lattice gives an upper bound, rounding down a lower one; the lattice sum is a compound geometric law, inverted
by one FFT under exponential tilting. Aliasing adds (never subtracts) mass in the upper law and is subtracted
from the lower one through Lundberg's inequality.

Beyond `levels` caps the tail needs no lattice: exp(theta x) P(V > x) is an average of itself over the last
cap, for theta = theta*, so it never leaves the range it had there. Proof: `docs/background/calculus/pollaczek.md`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aipaging.core.calculus.errors import NoMomentGeneratingFunctionError, UnstableError, overloaded, require_positive
from aipaging.core.calculus.rounding import exp_up, largest_root
from aipaging.core.calculus.work import CappedWork, Work

Floats: TypeAlias = NDArray[np.float64]

CELLS_PER_CAP: Final = 8192
ROOT_CELLS: Final = 32768
LEVELS: Final = 8
"""Caps computed on the lattice; beyond, the tail is continued by its exponential rate."""

SERVICE_CELLS: Final = 1024
"""Cells of one's own service in `sojourn_tail`."""

_WRAP: Final = 32.0
"""Tilting leaves exp(-_WRAP) of the mass to wrap around."""

_ROUNDING: Final = 1e-7
"""Relative allowance for the FFT: machine epsilon times exp(_WRAP / 2) is 2e-9; the rest covers the FFT's own."""

_ABSOLUTE: Final = 1e-7
"""Allowance of the complement: wrapped mass below exp(-_WRAP), and the same rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enclosure:
    """lower <= P(V > x) <= upper."""

    lower: float
    upper: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadLaw:
    """The stationary workload of an M/G/1 queue in seconds of work, enclosed.

    Attributes:
        upper: ln of the upper bound on P(V > j cell), j = 0, 1, ...
        lower: ln of the lower bound.
        cell: Width of a cell.
        cap: Largest job.
        decay_low: A lower bound on theta*.
        decay_high: An upper bound on theta*.
    """

    upper: Floats
    lower: Floats
    cell: float
    cap: float
    decay_low: float
    decay_high: float

    def tail(self, x: float) -> Enclosure:
        """Return bounds on P(V > x)."""
        if x < 0.0:
            return Enclosure(lower=1.0, upper=1.0)
        j = int(x / self.cell * (1.0 + 1e-13))
        if j + 1 < len(self.upper):
            return Enclosure(lower=math.exp(self.lower[j + 1]) * (1.0 - 1e-12), upper=exp_up(float(self.upper[j])))
        last = len(self.upper) - 1
        first = last - math.ceil(self.cap / self.cell) - 1
        at = np.arange(first, last) * self.cell
        # On [j cell, (j + 1) cell) the tail is at most its value at the left end, exp(theta x) that at the right.
        high = float(np.max(self.upper[first:last] + self.decay_low * (at + self.cell)))
        low = float(np.min(self.lower[first + 1 : last + 1] + self.decay_high * at))
        return Enclosure(
            lower=math.exp(low - self.decay_high * x) * (1.0 - 1e-12), upper=exp_up(high - self.decay_low * x)
        )


@lru_cache(maxsize=1024)
def lundberg_decay(work: Work, *, arrival_rate: float, capacity: float = 1.0) -> float:
    """Return theta*: lambda (E exp(theta S) - 1) = theta C, rounded down.

    Raises:
        UnstableError: The load reaches 1.
    """
    require_positive(arrival_rate=arrival_rate, capacity=capacity)
    load = arrival_rate * work.mean / capacity
    if overloaded(load, 1.0):
        raise UnstableError
    if math.isinf(work.largest):
        if math.isinf(work.theta_max):
            raise NoMomentGeneratingFunctionError("this work has no moment generating function; cap it")
        return work.theta_max * (1.0 - load) * (1.0 - 1e-14)
    scale = work.largest
    return largest_root(lambda u: _lundberg(work, u / scale, arrival_rate, capacity), math.inf) / scale


def _lundberg(work: Work, theta: float, arrival_rate: float, capacity: float) -> float:
    log_mgf = work.log_mgf(theta)
    if log_mgf > 600.0:
        return math.inf
    return arrival_rate / capacity * math.expm1(log_mgf) - theta


def workload_law(work: CappedWork, *, arrival_rate: float, capacity: float = 1.0) -> WorkloadLaw:
    """Return the workload law, in units of time (work / capacity), enclosed from both sides.

    Raises:
        UnstableError: The load reaches 1.
    """
    require_positive(arrival_rate=arrival_rate, capacity=capacity)
    load = arrival_rate * work.mean / capacity
    if overloaded(load, 1.0):
        raise UnstableError
    cap = work.largest / capacity
    decay_low, decay_high = _decay_between(work, load, cap)
    cell = cap / CELLS_PER_CAP
    size = 1 << math.ceil(math.log2(2 * LEVELS * CELLS_PER_CAP))
    heights = _heights(work, CELLS_PER_CAP)
    kept = LEVELS * CELLS_PER_CAP
    tilt = _tilt(heights, load, size)
    upper = _compound(np.concatenate([[0.0], heights]), load, size, tilt)
    # Beyond the transform: P(V > size cells) <= exp(-theta* size cell), by Lundberg.
    tail_upper = _tails(upper, kept) * (1.0 + _ROUNDING) + math.exp(-decay_low * cell * size)
    lower = _compound(heights, load, size, tilt)
    tail_lower = _tails(lower, kept) * (1.0 - _ROUNDING - 4.0 * math.exp(-_WRAP) * size)
    # Near load 1 nothing decays within the transform; there the complement is accurate, absolutely.
    np.minimum(tail_upper, 1.0 - _heads(upper, kept) + _ABSOLUTE, out=tail_upper)
    np.maximum(tail_lower, 1.0 - _heads(lower, kept) - _ABSOLUTE, out=tail_lower)
    with np.errstate(divide="ignore"):
        return WorkloadLaw(
            upper=np.log(tail_upper), lower=np.log(np.maximum(tail_lower, 0.0)),
            cell=cell, cap=cap, decay_low=decay_low, decay_high=decay_high,
        )  # fmt: skip


def sojourn_tail(work: CappedWork, *, arrival_rate: float, delay: float, capacity: float = 1.0) -> float:
    """Return an upper bound on P(waiting + own service > delay), FIFO: the laws convolved, never quantiles added.

    With S rounded up to the cells of the law, P(V + S > d) <= sum_j P(S in cell j) P(V > d - (j + 1) cell).

    Raises:
        UnstableError: The load reaches 1.
    """
    law = workload_law(work, arrival_rate=arrival_rate, capacity=capacity)
    edges = np.linspace(0.0, work.largest, SERVICE_CELLS + 1)
    # P(S > x) from below the cell: E min(S, x) is concave, so its slope before x is at least P(S >= x).
    slopes = np.diff(work.truncated_mean(edges)) / np.diff(edges)
    exceed = np.concatenate([[1.0], np.minimum(slopes, 1.0)])
    # exceed[j] >= P(S > edge_j): the step function of these limits dominates S stochastically.
    mass = -np.diff(np.concatenate([exceed[:-1], [0.0]]))
    late = (law.tail(delay - float(x) / capacity).upper for x in edges[1:])
    return min(1.0, math.fsum(float(m) * p for m, p in zip(mass, late, strict=True)))


def _heights(work: CappedWork, cells: int) -> Floats:
    """Return the probabilities of the cells of a ladder height: increments of E min(S, x) / E S."""
    means = work.truncated_mean(np.linspace(0.0, work.largest, cells + 1))
    heights: Floats = np.maximum(np.diff(means), 0.0) / means[-1]
    return heights


def _decay_between(work: CappedWork, load: float, cap: float) -> tuple[float, float]:
    """Return theta* from below (heights rounded up) and from above (rounded down), per unit of time."""
    heights = _heights(work, ROOT_CELLS)
    steps = np.arange(1, ROOT_CELLS + 1) / ROOT_CELLS

    def excess(u: float, shift: float) -> float:
        return math.log(load * float((heights * np.exp(u * (steps - 1.0))).sum())) + u * (1.0 - shift)

    low = largest_root_of_log(lambda u: excess(u, 0.0))[0]
    high = largest_root_of_log(lambda u: excess(u, 1.0 / ROOT_CELLS))[1]
    return low * (1.0 - 1e-13) / cap, high * (1.0 + 1e-13) / cap


def _tilt(heights: Floats, load: float, size: int) -> float:
    """Return an exponent per cell below the root of the rounded-up law by _WRAP over the transform."""
    steps = np.arange(1, len(heights) + 1)

    def excess(u: float) -> float:
        return math.log(load * float((heights * np.exp(u * (steps - len(heights)))).sum())) + u * len(heights)

    low, _ = largest_root_of_log(lambda u: excess(u / len(heights)))
    return low / len(heights) - _WRAP / size


def largest_root_of_log(excess: Callable[[float], float]) -> tuple[float, float]:
    """Return points on both sides of the root of a rising function that is negative at 0."""
    low, high = 0.0, 1.0
    while excess(high) <= 0.0:
        low, high = high, 2.0 * high
    for _ in range(60):
        middle = 0.5 * (low + high)
        if excess(middle) <= 0.0:
            low = middle
        else:
            high = middle
        if high - low <= 1e-13 * high:
            break
    return low, high


def _compound(heights: Floats, load: float, size: int, tilt: float) -> tuple[Floats, float]:
    """Return the compound geometric law on the lattice, times exp(tilt j), and the tilt."""
    tilted = np.zeros(size)
    tilted[: len(heights)] = heights * np.exp(tilt * np.arange(len(heights)))
    spectrum = np.fft.rfft(tilted)
    law = np.fft.irfft((1.0 - load) / (1.0 - load * spectrum), size)
    return np.maximum(law, 0.0), tilt


def _tails(law: tuple[Floats, float], kept: int) -> Floats:
    """Return sum_{i > j} of the law for j = 0..kept - 1, undoing the tilt without underflow."""
    tilted, tilt = law
    size = len(tilted)
    weights = tilted * np.exp(-tilt * np.arange(size))
    tail: Floats = np.cumsum(weights[::-1])[::-1]
    return tail[1 : kept + 1]


def _heads(law: tuple[Floats, float], kept: int) -> Floats:
    """Return sum_{i <= j} of the law for j = 0..kept - 1."""
    tilted, tilt = law
    head: Floats = np.cumsum(tilted[:kept] * np.exp(-tilt * np.arange(kept)))
    return head
