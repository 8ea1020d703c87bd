"""From counts to estimates with intervals that respect dependence.

Delays within a replication depend on one another; replications do not. So every interval is built from the spread
between replications (Student's t), never from the number of packets:

* mean: the mean of all delays, with the interval of a ratio of replication totals;
* probability above a target: the same, with an exact count;
* quantile: the probability above the pooled quantile gets its interval first, and the pooled law turns the ends of that
  back into delays. Quantiles of single replications, which are biased when they are short, are never averaged.

Exceedances come in clusters: one long queue delays many packets. Where there are fewer than `RARE` of them, or fewer
than `RARE_CLUSTERS` clusters, the spread between replications says little, and nothing if there are none. Then the
count is divided by the size of a cluster (how much more the counts vary than independent ones would, and at least what
the memory of the queues suggests), and gets the exact interval of Clopper and Pearson for such a smaller independent
sample. An upper end that lies beyond the largest delay seen is extrapolated exponentially, and the result says so.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, stdtrit

from aipaging.simulation.counts import Counted
from aipaging.simulation.kernels.tally import CELLS, EXPONENT_LOW, MANTISSA_BITS

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

CONFIDENCE: Final = 0.95
LEVELS: Final = (0.5, 0.9, 0.99, 0.999)
RARE: Final = 200
RARE_CLUSTERS: Final = 25.0

EXTRAPOLATED_MAX: Final = 100.0
"""How far below its level the probability above a quantile is believed to lie at most, where too little is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantResult:
    """What was found for one tenant.

    Attributes:
        name: The tenant.
        sent: Packets that were sent and counted.
        lost: Those of them that were lost.
        loss: The probability of that.
        mean_ms: Mean delay of those that arrived.
        quantiles: By level, of the delays of those that arrived.
        exceedance: By target, the share of those sent that came later than it or never.
        too_few: Levels whose interval reaches beyond the largest delay seen: its upper end is extrapolated.
    """

    name: str
    sent: int
    lost: int
    loss: Estimate
    mean_ms: Estimate
    quantiles: dict[float, Estimate]
    exceedance: dict[float, Estimate]
    too_few: tuple[float, ...]


def estimate(
    name: str, targets_ms: Sequence[float], replications: Sequence[Counted], memory_packets: float
) -> TenantResult:
    """Return the estimates of one tenant from its replications.

    Args:
        name: The tenant.
        targets_ms: Its targets, in the order of the counts.
        replications: The counts.
        memory_packets: Packets of the tenant that meet much the same queue, of the order of magnitude.
    """
    law = _Law(replications)
    sent = np.array([r.sent for r in replications], float)
    lost = np.array([r.lost for r in replications], float)
    arrived = sent - lost
    inflation = max(law.inflation(0.99), memory_packets)
    quantiles: dict[float, Estimate] = {}
    too_few: list[float] = []
    for level in LEVELS:
        quantiles[level], enough = law.quantile(level, inflation)
        if not enough:
            too_few.append(level)
    exceedance = {
        target: _share(np.array([r.above[k] + r.lost for r in replications], float), sent, inflation)
        for k, target in enumerate(targets_ms)
    }
    return TenantResult(
        name=name,
        sent=int(sent.sum()),
        lost=int(lost.sum()),
        loss=_share(lost, sent, inflation),
        mean_ms=_ratio(np.array([r.total_ms for r in replications]), arrived),
        quantiles=quantiles,
        exceedance=exceedance,
        too_few=tuple(too_few),
    )


class _Law:
    """The pooled histogram of the delays, and the counts of each replication beside it."""

    def __init__(self, replications: Sequence[Counted]) -> None:
        self._replications = replications
        self._pooled = np.zeros(CELLS, np.int64)
        for each in replications:
            self._pooled[each.cells] += each.counts
        self._cells = np.flatnonzero(self._pooled)
        self._cumulated = np.cumsum(self._pooled[self._cells])
        self._arrived = np.array([each.counts.sum() for each in replications], float)
        self._smallest = min(each.smallest_ms for each in replications)
        self._largest = max(each.largest_ms for each in replications)

    def inflation(self, level: float) -> float:
        """Return how much more the counts above a quantile vary between replications than independent ones."""
        if not len(self._cells):
            return 1.0
        above = self._above(self._cell(level))
        share = above.sum() / self._arrived.sum()
        independent = share * (1.0 - share) / self._arrived.sum()
        if independent <= 0.0:
            return 1.0
        return max(_standard_error(above, self._arrived) ** 2 / float(independent), 1.0)

    def quantile(self, level: float, inflation: float) -> tuple[Estimate, bool]:
        """Return a quantile, and whether there are enough delays for both ends of its interval."""
        if not len(self._cells):
            return Estimate(value=math.nan, low=math.nan, high=math.nan), False
        above = self._above(self._cell(level))
        share = _share(above, self._arrived, inflation)
        # The interval of the share above the cell, moved to the level: cells are much narrower than intervals.
        low, high = level - (share.high - share.value), level + (share.value - share.low)
        if _is_rare((1.0 - level) * self._arrived.sum(), max(inflation, self.inflation(level))):
            rare = _rare(
                (1.0 - level) * self._arrived.sum(), self._arrived.sum(), max(inflation, self.inflation(level))
            )
            low, high = 1.0 - rare.high, 1.0 - rare.low
        enough = high <= 1.0 - 1.0 / self._arrived.sum()
        value = self._value(level)
        top = self._value(high) if enough else self._beyond(max(1.0 - high, (1.0 - level) / EXTRAPOLATED_MAX))
        return Estimate(value=value, low=min(self._value(low), value), high=max(top, value)), enough

    def _beyond(self, probability: float) -> float:
        """Return the delay that is exceeded so rarely, were the tail beyond the 0.9 quantile as steep as before it."""
        steepness = (self._value(0.9) - self._value(0.5)) / math.log(5.0)
        return max(self._value(0.9) + steepness * math.log(0.1 / probability), self._largest)

    def _above(self, cell: int) -> Floats:
        return np.array([each.counts[each.cells > cell].sum() for each in self._replications], float)

    def _cell(self, level: float) -> int:
        place = int(np.searchsorted(self._cumulated, level * self._cumulated[-1]))
        return int(self._cells[min(place, len(self._cells) - 1)])

    def _value(self, level: float) -> float:
        """Return the delay at a level, interpolated within its cell."""
        if level <= 0.0:
            return self._smallest
        if level >= 1.0:
            return self._largest
        wanted = level * self._cumulated[-1]
        place = min(int(np.searchsorted(self._cumulated, wanted)), len(self._cells) - 1)
        before = self._cumulated[place - 1] if place else 0
        part = (wanted - before) / (self._cumulated[place] - before)
        low, high = _edge(int(self._cells[place])), _edge(int(self._cells[place]) + 1)
        return float(min(max(low + part * (high - low), self._smallest), self._largest))


def _edge(cell: int) -> float:
    exponent, mantissa = divmod(cell, 1 << MANTISSA_BITS)
    return math.ldexp(1.0 + mantissa / (1 << MANTISSA_BITS), exponent + EXPONENT_LOW)


def _standard_error(parts: Floats, wholes: Floats) -> float:
    """Return the standard error of sum(parts) / sum(wholes), replications being independent (delta method)."""
    count = len(parts)
    if count < 2 or wholes.sum() <= 0.0:
        return math.inf
    residuals = parts - parts.sum() / wholes.sum() * wholes
    return math.sqrt(float(residuals @ residuals) / (count - 1) * count) / float(wholes.sum())


def _ratio(parts: Floats, wholes: Floats) -> Estimate:
    if wholes.sum() <= 0.0:
        return Estimate(value=math.nan, low=math.nan, high=math.nan)
    value = float(parts.sum() / wholes.sum())
    half = float(stdtrit(len(parts) - 1, 0.5 + CONFIDENCE / 2.0)) * _standard_error(parts, wholes)
    shift = _skewness_shift(parts, wholes)
    return Estimate(value=value, low=value - half + min(shift, 0.0), high=value + half + max(shift, 0.0))


def _skewness_shift(parts: Floats, wholes: Floats) -> float:
    """Return how far t-intervals of skewed numbers should be moved; here the end on that side is.

    Referred to as the modified t in Johnson, "Modified t tests and confidence intervals for asymmetrical populations"
    (1978). Long queues are rare and long: means of replications lean to the right.
    """
    residuals = parts - parts.sum() / wholes.sum() * wholes
    square = float(residuals @ residuals)
    return float((residuals**3).sum()) / (6.0 * square) / float(wholes.sum()) if square > 0.0 else 0.0


def _share(parts: Floats, wholes: Floats, inflation: float) -> Estimate:
    """Return the estimate of a probability."""
    hits, all_of_them = float(parts.sum()), float(wholes.sum())
    if all_of_them <= 0.0:
        return Estimate(value=math.nan, low=0.0, high=1.0)
    own = _standard_error(parts, wholes) ** 2 * all_of_them**2 / hits if hits > 0.0 else 1.0
    if _is_rare(min(hits, all_of_them - hits), max(inflation, own)):
        return _rare(hits, all_of_them, max(inflation, own))
    plain = _ratio(parts, wholes)
    return Estimate(value=plain.value, low=max(plain.low, 0.0), high=min(plain.high, 1.0))


def _is_rare(hits: float, inflation: float) -> bool:
    return hits < RARE or hits < RARE_CLUSTERS * inflation


def _rare(hits: float, all_of_them: float, inflation: float) -> Estimate:
    """Return the exact interval for independent trials, had there been `inflation` times fewer."""
    few, trials = hits / inflation, all_of_them / inflation
    tail = (1.0 - CONFIDENCE) / 2.0
    low = float(betaincinv(few, trials - few + 1.0, tail)) if hits > 0.0 else 0.0
    high = float(betaincinv(few + 1.0, max(trials - few, 1e-9), 1.0 - tail)) if hits < all_of_them else 1.0
    return Estimate(value=hits / all_of_them, low=low, high=high)
