"""How much work one job or one slot brings: constant, exponential, or heavy-tailed under a guardrail.

Tokens of a language model are log-normal or Pareto-like: without a cap E exp(theta X) is infinite. The
`max_tokens` guardrail makes every moment finite, so the capped laws are the ones that exist here.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from aipaging.core.calculus.errors import require_positive
from aipaging.core.calculus.special import ndtr
from aipaging.core.foundation.errors import InvalidInputError

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantWork:
    """Every job brings `value`."""

    value: float

    def __post_init__(self) -> None:
        require_positive(value=self.value)

    @property
    def mean(self) -> float:
        """E X."""
        return self.value

    @property
    def largest(self) -> float:
        """The essential supremum of X."""
        return self.value

    @property
    def theta_max(self) -> float:
        """End of the domain of the moment generating function."""
        return math.inf

    def log_mgf(self, theta: float) -> float:
        """Return ln E exp(theta X)."""
        return theta * self.value

    def truncated_mean(self, x: Floats) -> Floats:
        """Return E min(X, x)."""
        return np.minimum(x, self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExponentialWork:
    """P(X > x) = exp(-x / mean)."""

    mean: float

    def __post_init__(self) -> None:
        require_positive(mean=self.mean)

    @property
    def largest(self) -> float:
        """The essential supremum of X."""
        return math.inf

    @property
    def theta_max(self) -> float:
        """End of the domain of the moment generating function."""
        return 1.0 / self.mean

    def log_mgf(self, theta: float) -> float:
        """Return ln E exp(theta X)."""
        part = theta * self.mean
        return -math.log1p(-part) if part < 1.0 else math.inf

    def truncated_mean(self, x: Floats) -> Floats:
        """Return E min(X, x)."""
        return -self.mean * np.expm1(-x / self.mean)


@dataclass(frozen=True, slots=True, kw_only=True)
class TruncatedLogNormalWork:
    """min(X, cap), ln X normal with mean ln(median) and deviation `sigma`."""

    median: float
    sigma: float
    cap: float

    def __post_init__(self) -> None:
        require_positive(median=self.median, sigma=self.sigma, cap=self.cap)

    @property
    def mean(self) -> float:
        """E min(X, cap)."""
        return float(self.truncated_mean(np.array([self.cap]))[0])

    @property
    def largest(self) -> float:
        """The essential supremum."""
        return self.cap

    @property
    def theta_max(self) -> float:
        """End of the domain of the moment generating function."""
        return math.inf

    def log_mgf(self, theta: float) -> float:
        """Return an upper bound on ln E exp(theta X); see `log_mgf_of_capped`."""
        return log_mgf_of_capped(self, theta)

    def truncated_mean(self, x: Floats) -> Floats:
        """Return E min(X, cap, x)."""
        y = np.minimum(np.maximum(x, 0.0), self.cap)
        with np.errstate(divide="ignore"):
            z = np.log(y / self.median) / self.sigma
        whole = self.median * math.exp(0.5 * self.sigma * self.sigma)
        mean: Floats = whole * ndtr(z - self.sigma) + y * ndtr(-z)
        return mean


@dataclass(frozen=True, slots=True, kw_only=True)
class TruncatedParetoWork:
    """min(X, cap) with P(X > x) = (minimum / x)**alpha for x >= minimum."""

    minimum: float
    alpha: float
    cap: float

    def __post_init__(self) -> None:
        require_positive(minimum=self.minimum, alpha=self.alpha, cap=self.cap)
        if self.cap < self.minimum:
            raise InvalidInputError("cap must be at least the minimum", field="cap")

    @property
    def mean(self) -> float:
        """E min(X, cap)."""
        return float(self.truncated_mean(np.array([self.cap]))[0])

    @property
    def largest(self) -> float:
        """The essential supremum."""
        return self.cap

    @property
    def theta_max(self) -> float:
        """End of the domain of the moment generating function."""
        return math.inf

    def log_mgf(self, theta: float) -> float:
        """Return an upper bound on ln E exp(theta X); see `log_mgf_of_capped`."""
        return log_mgf_of_capped(self, theta)

    def truncated_mean(self, x: Floats) -> Floats:
        """Return E min(X, cap, x)."""
        y = np.minimum(np.maximum(x, 0.0), self.cap)
        log_ratio = np.log(np.maximum(y, self.minimum) / self.minimum)
        power = 1.0 - self.alpha
        # integral of (minimum/u)**alpha from the minimum to y; expm1 keeps alpha near 1 exact.
        above = log_ratio if power == 0.0 else np.expm1(power * log_ratio) / power
        mean: Floats = np.minimum(y, self.minimum) + self.minimum * above
        return mean


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscreteWork:
    """One of finitely many `values` >= 0, with `probabilities` that sum to 1: a histogram, dice, a batch size."""

    values: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(map(float, self.values)))
        object.__setattr__(self, "probabilities", tuple(map(float, self.probabilities)))
        require_positive(largest=max(self.values, default=0.0))
        if len(self.values) != len(self.probabilities) or min(self.values) < 0.0:
            raise InvalidInputError("needs one value >= 0 per probability", field="values")
        if min(self.probabilities) < 0.0 or abs(math.fsum(self.probabilities) - 1.0) > _TOTAL:
            raise InvalidInputError("must be >= 0 and sum to 1", field="probabilities")

    @property
    def mean(self) -> float:
        """E X."""
        return math.fsum(v * p for v, p in zip(self.values, self.probabilities, strict=True))

    @property
    def largest(self) -> float:
        """The largest value that has a probability."""
        return max(v for v, p in zip(self.values, self.probabilities, strict=True) if p > 0.0)

    @property
    def theta_max(self) -> float:
        """End of the domain of the moment generating function."""
        return math.inf

    def log_mgf(self, theta: float) -> float:
        """Return ln E exp(theta X)."""
        values, weights = _possible(self)
        exponents = theta * values
        top = float(exponents.max())
        return top + math.log(float(weights @ np.exp(exponents - top)))

    def truncated_mean(self, x: Floats) -> Floats:
        """Return E min(X, x)."""
        mean: Floats = np.minimum.outer(np.asarray(x), np.array(self.values)) @ np.array(self.probabilities)
        return mean


@lru_cache(maxsize=256)
def _possible(work: DiscreteWork) -> tuple[Floats, Floats]:
    """Return the values that have a probability, with their probabilities."""
    values, weights = np.array(work.values), np.array(work.probabilities)
    return values[weights > 0.0], weights[weights > 0.0]


_TOTAL = 1e-9

Work: TypeAlias = ConstantWork | ExponentialWork | TruncatedLogNormalWork | TruncatedParetoWork | DiscreteWork
CappedWork: TypeAlias = ConstantWork | TruncatedLogNormalWork | TruncatedParetoWork | DiscreteWork

_CELLS = 1024


def log_mgf_of_capped(work: CappedWork, theta: float) -> float:
    """Return an upper bound on ln E exp(theta X) of a work that is at most its cap.

    E exp(theta X) = 1 + theta * integral of exp(theta x) P(X > x), and the integral over a cell is at most
    exp(theta * its right end) times the increase of E min(X, x) over it.
    """
    ends, weight = _cells(work)
    if theta <= 0.0:
        # The integral now counts against the moment, and exp(theta x) is least at the right end as well.
        return math.log1p(theta * float((weight * np.exp(theta * ends)).sum()))
    exponent = theta * (ends - work.largest)
    scaled = float((weight * np.exp(exponent)).sum()) * theta
    return theta * work.largest + math.log(math.exp(-theta * work.largest) + scaled)


@lru_cache(maxsize=256)
def _cells(work: CappedWork) -> tuple[Floats, Floats]:
    """Return the right ends of the cells, and what E min(X, x) gains over each."""
    edges = np.linspace(0.0, work.largest, _CELLS + 1)
    return edges[1:], np.diff(work.truncated_mean(edges))


def scaled_work(work: Work, factor: float) -> Work:
    """Return the law of factor * X: a change of the unit of work, or tokens turned into seconds."""
    require_positive(factor=factor)
    match work:
        case ConstantWork(value=value):
            return ConstantWork(value=value * factor)
        case ExponentialWork(mean=mean):
            return ExponentialWork(mean=mean * factor)
        case TruncatedLogNormalWork(median=median, sigma=sigma, cap=cap):
            return TruncatedLogNormalWork(median=median * factor, sigma=sigma, cap=cap * factor)
        case TruncatedParetoWork(minimum=minimum, alpha=alpha, cap=cap):
            return TruncatedParetoWork(minimum=minimum * factor, alpha=alpha, cap=cap * factor)
        case DiscreteWork(values=values, probabilities=probabilities):
            return DiscreteWork(values=tuple(v * factor for v in values), probabilities=probabilities)
