"""Extreme quantiles with intervals, each labelled with what it assumes. Estimates are reports: no verdict uses them.

Four methods. What cannot be had honestly is refused, with the reason:
an interval that is 95 % by name and 10 % in truth is worse than none.
"""

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from aipaging.core.audit.contract import Contract
from aipaging.core.audit.dependence import cluster_effect, design_effect
from aipaging.core.audit.dice import Dice
from aipaging.core.audit.pareto import fit_tail
from aipaging.core.audit.sketch import DelaySketch, bucket_of, upper_edge_us
from aipaging.core.audit.special import Floats, binomial_quantile
from aipaging.core.audit.tally import Tally
from aipaging.core.audit.telemetry import Integers

QUANTILES: Final = (0.99, 0.999, 0.9999)
"""What is estimated where nobody says otherwise."""

CONFIDENCE: Final = 0.95

RESAMPLES: Final = 400
"""Of the windows; the ends of a 95 % interval are then known to about a percentile."""

WINDOWS_MIN: Final = 16
"""Windows, or groups of sessions, with requests: fewer cannot be resampled."""

DESIGN_EFFECT_MAX: Final = 2.0
"""Above it requests depend on one another and intervals for independent ones are wrong; independent requests stay below
it in 99.9 % of periods."""

TAIL_SHARE: Final = 0.05
"""Of the delays, the latest: the share at which the profile interval keeps its word."""

TAIL_MIN: Final = 100
"""Delays above the threshold, less would not show a bad fit."""

SIGNIFICANCE: Final = 0.05
"""Of the adequacy test."""

EXPECTED_MIN: Final = 0.1
"""Requests that the period holds above an extrapolated quantile: beyond a tenth of one, no model is believed."""


class EstimateMethod(enum.Enum):
    """How a quantile was estimated."""

    ORDER_STATISTICS = "order-statistics"
    BLOCK_BOOTSTRAP = "block-bootstrap"
    SESSION_BOOTSTRAP = "session-bootstrap"
    GENERALISED_PARETO = "generalised-pareto"


ASSUMPTIONS: Final = {
    EstimateMethod.ORDER_STATISTICS: "requests are independent of one another; any law of delays",
    EstimateMethod.BLOCK_BOOTSTRAP: "windows of a 64th of the period are long against the dependence, and alike",
    EstimateMethod.SESSION_BOOTSTRAP: "sessions are independent of one another, and alike; what happens inside one is "
    "free",
    EstimateMethod.GENERALISED_PARETO: "requests are independent, and no regime lies hidden above the threshold",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A quantile of the delays of a period, or why there is none.

    Attributes:
        contract: Whose delays.
        quantile: Which.
        method: How.
        assumption: What the interval rests on.
        delay_ms: The estimate; infinite where more requests than the rest failed. None where refused.
        low_ms: Lower end of the 95 % interval.
        high_ms: Upper end; infinite where the data cannot bound it.
        refused: Why there is no estimate.
        design_effect: How many requests tell as much as one independent one, by what the method resamples: sessions,
            else windows of time. None where it is unknown.
    """

    contract: Contract
    quantile: float
    method: EstimateMethod
    assumption: str
    delay_ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    refused: str | None = None
    design_effect: float | None = None


def estimates(tally: Tally, dice: Dice, *, quantiles: Sequence[float] = QUANTILES) -> list[Estimate]:
    """Return the estimates of one contract's delays, by quantile and method; by sessions where they are known."""
    sketch, top = tally.sketch, np.sort(tally.top.values())
    if sketch.answered == 0:
        return [_refused(tally, level, method, "no delay is known") for level in quantiles for method in EstimateMethod]
    found: list[Estimate] = []
    pareto = _ParetoEstimator(tally, top)
    blocks = _Resampled.of(sketch, dice)
    sessions = None if tally.by_session is None else _Resampled.of(tally.by_session, dice)
    effect = largest_effect(tally, quantiles)
    for level in quantiles:
        windowed, clustered = _effects_at(tally, level)
        found.append(replace(_order_statistics(tally, top, level, effect), design_effect=effect))
        found.append(replace(_bootstrapped(tally, blocks, level), design_effect=windowed))
        if tally.by_session is not None:
            found.append(replace(_of_sessions(tally, sessions, level), design_effect=clustered))
        found.append(replace(pareto.at(level), design_effect=effect))
    return found


def _refused(tally: Tally, level: float, method: EstimateMethod, reason: str) -> Estimate:
    assumption = ASSUMPTIONS[method]
    return Estimate(contract=tally.contract, quantile=level, method=method, assumption=assumption, refused=reason)


def _estimate(
    tally: Tally, level: float, method: EstimateMethod, *, value_us: float, interval_us: tuple[float, float]
) -> Estimate:
    return Estimate(
        contract=tally.contract,
        quantile=level,
        method=method,
        assumption=ASSUMPTIONS[method],
        delay_ms=value_us / 1e3,
        low_ms=interval_us[0] / 1e3,
        high_ms=interval_us[1] / 1e3,
    )


def _order_statistics(tally: Tally, top: Integers, level: float, effect: float | None) -> Estimate:
    method = EstimateMethod.ORDER_STATISTICS
    if effect is not None and effect > DESIGN_EFFECT_MAX:
        return _refused(tally, level, method, f"requests depend on one another: design effect {effect:.2f}")
    low, high = order_ranks(tally.sketch.requests, level)
    return _estimate(
        tally,
        level,
        method,
        value_us=_at_rank(tally.sketch, top, math.ceil(tally.sketch.requests * level))[1],
        interval_us=(_at_rank(tally.sketch, top, low)[0], _at_rank(tally.sketch, top, high)[1]),
    )


def largest_effect(tally: Tally, levels: Sequence[float]) -> float | None:
    """Return the largest design effect, over windows and sessions, of being in the latest 5 % or beyond a quantile."""
    effects = [effect for level in (1 - TAIL_SHARE, *levels) for effect in _effects_at(tally, level)]
    return max((effect for effect in effects if effect is not None), default=None)


def _effects_at(tally: Tally, level: float) -> tuple[float | None, float | None]:
    return _effects_above(tally, tally.sketch.at_rank_us(math.ceil(tally.sketch.answered * level))[1])


def _effects_above(tally: Tally, threshold_us: float) -> tuple[float | None, float | None]:
    """Return the design effects over windows, and over sessions, of being later than a delay."""
    if not math.isfinite(threshold_us):
        return None, None
    first = int(bucket_of(np.asarray([max(threshold_us, 1.0)]))[0]) + 2
    windowed = design_effect(*_parted(tally.sketch, first))
    return windowed, None if tally.by_session is None else cluster_effect(*_parted(tally.by_session, first))


def _parted(sketch: DelaySketch, first: int) -> tuple[Integers, Integers]:
    later = sketch.counts[:, first:].sum(axis=1)
    return np.asarray(sketch.counts.sum(axis=1), dtype=np.int64), np.asarray(later, dtype=np.int64)


def order_ranks(requests: int, level: float, *, confidence: float = CONFIDENCE) -> tuple[int, int]:
    """Return the ranks between which a quantile lies, from 1; the upper is `requests + 1` where none bounds it."""
    tail = (1 - confidence) / 2
    low = binomial_quantile(tail, requests, level)
    high = binomial_quantile(1 - tail, requests, level) + 1
    return max(low, 0), min(high, requests + 1)


def _at_rank(sketch: DelaySketch, top: Integers, rank: int) -> tuple[float, float]:
    """Return an interval that holds the delay of a rank: exact among the latest, a bucket otherwise."""
    if rank < 1:
        return 0.0, 0.0
    from_top = sketch.answered - rank
    if 0 <= from_top < len(top):
        return float(top[-1 - from_top]), float(top[-1 - from_top])
    return sketch.at_rank_us(rank)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Resampled:
    """Cumulative counts of resampled periods, by bucket that anybody is in."""

    cumulative: Floats
    requests: Floats
    edges_us: Floats

    @staticmethod
    def of(sketch: DelaySketch, dice: Dice) -> "_Resampled | None":
        per_window = sketch.counts.sum(axis=1) + sketch.infinite
        windows = np.flatnonzero(per_window)
        if len(windows) < WINDOWS_MIN:
            return None
        buckets = np.flatnonzero(sketch.counts.sum(axis=0))
        drawn = np.asarray(
            dice.multinomial(len(windows), np.full(len(windows), 1 / len(windows)), size=RESAMPLES), dtype=np.float64
        )
        counts = drawn @ sketch.counts[np.ix_(windows, buckets)].astype(np.float64)
        return _Resampled(
            cumulative=np.cumsum(counts, axis=1),
            requests=drawn @ per_window[windows].astype(np.float64),
            edges_us=upper_edge_us(buckets - 1),
        )

    def interval_us(self, level: float) -> tuple[float, float]:
        position = (self.cumulative < level * self.requests[:, None] - 1e-9).sum(axis=1)
        values = np.append(self.edges_us, np.inf)[position]
        values.sort()
        tail = (1 - CONFIDENCE) / 2
        return float(values[math.floor(tail * len(values))]), float(values[math.ceil((1 - tail) * len(values)) - 1])


def _bootstrapped(tally: Tally, resampled: _Resampled | None, level: float) -> Estimate:
    method = EstimateMethod.BLOCK_BOOTSTRAP
    if resampled is None:
        return _refused(tally, level, method, f"requests in fewer than {WINDOWS_MIN} windows of the period")
    return _interval_of(tally, resampled, level, method)


def _interval_of(tally: Tally, resampled: _Resampled, level: float, method: EstimateMethod) -> Estimate:
    requests = tally.sketch.requests
    if requests * (1 - level) < 1:
        return _refused(tally, level, method, f"{requests} requests hold less than one beyond it")
    rank = math.ceil(requests * level)
    value = tally.sketch.at_rank_us(rank)[1]
    return _estimate(tally, level, method, value_us=value, interval_us=resampled.interval_us(level))


def _of_sessions(tally: Tally, resampled: _Resampled | None, level: float) -> Estimate:
    method = EstimateMethod.SESSION_BOOTSTRAP
    if resampled is None:
        return _refused(tally, level, method, f"fewer than {WINDOWS_MIN} groups of sessions hold requests")
    return _interval_of(tally, resampled, level, method)


class _ParetoEstimator:
    """One fit for all quantiles, behind its gates."""

    def __init__(self, tally: Tally, top: Integers) -> None:
        self._tally = tally
        requests = tally.sketch.requests
        count = min(int(TAIL_SHARE * tally.sketch.answered), len(top) - 1)
        self.refused: str | None = None
        if count < TAIL_MIN:
            self.refused = f"{max(count, 0)} delays above the threshold; the fit needs {TAIL_MIN}"
            return
        self._threshold = float(top[-1 - count])
        beyond = top[-count:] - self._threshold
        excess: Floats = beyond[beyond > 0].astype(np.float64)
        self._share = len(excess) / requests
        self._failed = float(tally.sketch.infinite.sum()) / requests
        self.refused = self._dependence(len(excess))
        if self.refused is not None:
            return
        self._tail = fit_tail(excess)
        if self._tail.p_value <= SIGNIFICANCE:
            statistic, p = self._tail.statistic, self._tail.p_value
            self.refused = f"the model does not fit: Anderson-Darling {statistic:.2f}, p <= {p}"

    def _dependence(self, count: int) -> str | None:
        if count < TAIL_MIN:
            return f"{count} distinct delays above the threshold; the fit needs {TAIL_MIN}"
        windowed, clustered = _effects_above(self._tally, self._threshold)
        effect = max(windowed or 0.0, clustered or 0.0)
        if windowed is None:
            return "the effective sample size is unknown: too few windows hold requests"
        if effect > DESIGN_EFFECT_MAX:
            return f"requests depend on one another: design effect {effect:.2f} above the threshold"
        return None

    def at(self, level: float) -> Estimate:
        method = EstimateMethod.GENERALISED_PARETO
        if self.refused is not None:
            return _refused(self._tally, level, method, self.refused)
        beyond = 1 - level - self._failed
        if beyond <= 0:
            return _refused(self._tally, level, method, "more requests failed than may be beyond it")
        if beyond >= self._share:
            return _refused(self._tally, level, method, "it lies below the threshold: see the order statistics")
        if self._tally.sketch.requests * (1 - level) < EXPECTED_MIN:
            return _refused(self._tally, level, method, "too far beyond the period's requests")
        tail = beyond / self._share
        low, high = self._tail.interval_at(tail)
        value = self._threshold + self._tail.excess_at(tail)
        return _estimate(
            self._tally,
            level,
            method,
            value_us=value,
            interval_us=(self._threshold + low, self._threshold + high),
        )
