"""The generalised Pareto tail: fitted, tested, and given an interval only by profile likelihood.

P(D > u + y | D > u) = (1 + xi y / sigma)^(-1/xi). The fit searches the shape alone, as [Grimshaw1993] does.
Delta-method and bootstrap intervals err on the unsafe side, so there are none. Adequacy is the Anderson-Darling
statistic against its simulated law under the fitted shape; a model that fails it is refused, by the caller.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from aipaging.core.audit.special import Floats, chi2_quantile

SHAPE_MIN: Final = -0.5
"""Below it the likelihood has no regular maximum, and delays have no such short tail."""

SHAPE_MAX: Final = 2.0
"""Above it the mean of the excess is hopelessly infinite; no service is sold with such delays."""

SHAPES: Final = (-0.4, -0.2, 0.0, 0.2, 0.4, 0.7, 1.0)
"""Shapes of the table of critical values."""

LEVELS: Final = (0.25, 0.10, 0.05, 0.02, 0.01)
"""Significance levels of the table."""

CRITICAL: Final = (
    (0.648, 0.909, 1.107, 1.428, 1.678),
    (0.604, 0.845, 1.037, 1.325, 1.530),
    (0.567, 0.785, 0.962, 1.210, 1.428),
    (0.533, 0.738, 0.899, 1.139, 1.340),
    (0.511, 0.701, 0.846, 1.082, 1.231),
    (0.485, 0.656, 0.800, 0.984, 1.151),
    (0.466, 0.632, 0.764, 0.945, 1.099),
)
"""Anderson-Darling statistics that samples of the law itself exceed with these probabilities, both parameters fitted
(10,000 samples of 400 each); `tests/core/audit` draws some of them again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParetoTail:
    """A fitted tail.

    Attributes:
        excess: What the delays are above the threshold, in ascending order.
        scale: sigma, in the unit of the excess.
        shape: xi.
        log_likelihood: At the maximum.
        statistic: Anderson-Darling.
        p_value: Its significance, as the nearest level of the table that it reaches; 1 above the first.
    """

    excess: Floats
    scale: float
    shape: float
    log_likelihood: float
    statistic: float
    p_value: float

    def excess_at(self, tail: float) -> float:
        """Return the excess that is exceeded with probability `tail`, given that the threshold is."""
        return self.scale * _growth(self.shape, tail)

    def interval_at(self, tail: float, *, confidence: float = 0.95) -> tuple[float, float]:
        """Return the profile-likelihood interval of `excess_at(tail)`; the upper end may be infinite."""
        drop = chi2_quantile(confidence) / 2
        middle = self.excess_at(tail)

        def inside(value: float) -> bool:
            return self.log_likelihood - _profile(self.excess, value, tail) <= drop

        return _edge(inside, middle, 0.93), _edge(inside, middle, 1.07)


def fit_tail(excess: Floats) -> ParetoTail:
    """Return the fit to excesses over a threshold, all positive."""
    ordered = np.sort(np.asarray(excess, dtype=np.float64))
    shape = _peak(lambda shape: _at_shape(ordered, shape), SHAPE_MIN, SHAPE_MAX)
    scale = _scale_for(ordered, shape)
    statistic = _anderson_darling(ordered, scale, shape)
    return ParetoTail(
        excess=ordered,
        scale=scale,
        shape=shape,
        log_likelihood=_log_likelihood(ordered, scale, shape),
        statistic=statistic,
        p_value=_significance(statistic, shape),
    )


def _growth(shape: float, tail: float) -> float:
    """Return (tail^-xi - 1) / xi, continuous at 0."""
    return -math.log(tail) if abs(shape) < 1e-9 else math.expm1(-shape * math.log(tail)) / shape


def _log_likelihood(excess: Floats, scale: float, shape: float) -> float:
    if abs(shape) < 1e-9:
        return float(-len(excess) * math.log(scale) - excess.sum() / scale)
    grown = shape * excess / scale
    if shape < 0 and grown[-1] <= -1.0:
        return -math.inf
    return float(-len(excess) * math.log(scale) - (1 + 1 / shape) * np.log1p(grown).sum())


def _at_shape(excess: Floats, shape: float) -> float:
    return _log_likelihood(excess, _scale_for(excess, shape), shape)


def _scale_for(excess: Floats, shape: float) -> float:
    """Return the likeliest scale of a shape: the root of the score, which is monotone in the scale."""
    mean, longest = float(excess.mean()), float(excess[-1])
    if abs(shape) < 1e-9:
        return mean

    def score(log_scale: float) -> float:
        ratio = excess / math.exp(log_scale)
        return float(((1 + shape) * ratio / (1 + shape * ratio)).mean()) - 1.0

    least = math.log(-shape * longest) + 1e-9 if shape < 0 else math.log(mean) - 12.0
    return math.exp(_root(score, least, math.log(mean) + 6.0))


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    from scipy import optimize  # noqa: PLC0415 - slow to import

    if function(low) <= 0:
        return low
    if function(high) >= 0:
        return high
    found: Any = optimize.brentq(function, low, high, xtol=1e-9)
    return float(found)


def _peak(function: Callable[[float], float], low: float, high: float) -> float:
    from scipy import optimize  # noqa: PLC0415 - slow to import

    def negative(value: float) -> float:
        return -function(value)

    found: Any = optimize.minimize_scalar(negative, bounds=(low, high), method="bounded", options={"xatol": 1e-5})
    return float(found.x)


def _profile(excess: Floats, value: float, tail: float) -> float:
    """Return the greatest likelihood under which the excess at `tail` is `value`."""
    return _peak_value(lambda shape: _log_likelihood(excess, value / _growth(shape, tail), shape))


def _peak_value(function: Callable[[float], float]) -> float:
    def bounded(shape: float) -> float:
        found = function(shape)
        return found if math.isfinite(found) else -1e300

    return bounded(_peak(bounded, SHAPE_MIN, SHAPE_MAX))


def _edge(inside: Callable[[float], bool], middle: float, factor: float) -> float:
    """Return where `inside` ends on one side of the middle: steps that grow, then halving."""
    last, step = middle, factor
    for _ in range(40):
        trial = last * step
        if not inside(trial):
            break
        last, step = trial, step * factor
    else:
        return 0.0 if factor < 1 else math.inf
    for _ in range(12):
        half = math.sqrt(last * trial)
        last, trial = (half, trial) if inside(half) else (last, half)
    return trial  # the outer end of the last bracket: to the safe side


def _anderson_darling(excess: Floats, scale: float, shape: float) -> float:
    if abs(shape) < 1e-9:
        log_survival = -excess / scale
    else:
        log_survival = -np.log1p(np.maximum(shape * excess / scale, -1 + 1e-12)) / shape
    log_survival = np.minimum(log_survival, -1e-300)
    log_distribution = np.log(-np.expm1(log_survival))
    n = len(excess)
    weight = 2 * np.arange(1, n + 1) - 1
    return float(-n - (weight * (log_distribution + log_survival[::-1])).sum() / n)


def _significance(statistic: float, shape: float) -> float:
    reached = 1.0
    for level, column in zip(LEVELS, zip(*CRITICAL, strict=True), strict=True):
        if statistic > float(np.interp(shape, SHAPES, column)):
            reached = level
    return reached
