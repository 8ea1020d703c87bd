"""Special functions of the audit, imported when first used: `scipy` is slow to import, and admission never needs it."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aipaging.core.calculus.special import betaincinv, gammaln

Floats: TypeAlias = NDArray[np.float64]

__all__ = ["Floats", "betaincinv", "betaln", "binomial_quantile", "chi2_quantile", "gammaln", "log_beta_cdf"]


def betaln(a: Any, b: Any) -> Floats:
    """Return ln B(a, b)."""
    from scipy import special  # noqa: PLC0415

    return np.asarray(special.betaln(a, b), dtype=np.float64)


def log_beta_cdf(a: Any, b: Any, x: float, *, upper: bool) -> Floats:
    """Return ln P(Beta(a, b) <= x), or of the complement; -inf where it underflows, which weakens an e-value only."""
    from scipy import special  # noqa: PLC0415

    value = special.betaincc(a, b, x) if upper else special.betainc(a, b, x)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(value), dtype=np.float64)


def binomial_quantile(level: float, trials: int, probability: float) -> int:
    """Return the least k with P(Binomial(trials, probability) <= k) >= level."""
    from scipy import stats  # noqa: PLC0415

    return int(stats.binom.ppf(level, trials, probability))


def chi2_quantile(level: float) -> float:
    """Return the quantile of the chi-squared law with one degree of freedom."""
    from scipy import special  # noqa: PLC0415

    return float(special.chdtri(1.0, 1.0 - level))
