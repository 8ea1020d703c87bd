"""Whether a trace contradicts what a fit assumes: Poisson arrivals, independent samples, a Markov chain of two states.

A test that does not reject proves nothing; one that does spares a wrong envelope. All work at a level fixed here, and
the p-values are handed back with the fit.
"""

import math
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

TEST_LEVEL: Final = 0.01
"""One sound trace in a hundred is refused; a lower level would wave more wrong ones through."""

LAGS: Final = 5
SIGMAS_MAX: Final = 4.0
"""Rank correlation at five lags, both sides: a sound trace is refused once in 3,000 times."""


def uniformity_p_value(values: Floats) -> float:
    """Return the Kolmogorov-Smirnov p-value of values in [0, 1] against the uniform law.

    Referred to as D* with Stephens' correction for finite samples [Stephens1970].
    """
    from scipy import special  # noqa: PLC0415 - half the import time of the library

    n = len(values)
    ordered = np.sort(values)
    rank = np.arange(1, n + 1)
    distance = float(max(np.max(rank / n - ordered), np.max(ordered - (rank - 1) / n)))
    root = math.sqrt(n)
    return float(special.kolmogorov((root + 0.12 + 0.11 / root) * distance))


def poisson_p_value(times: Floats) -> float:
    """Return the p-value of a homogeneous Poisson process, from its times and from its spacings (Bonferroni).

    Given their number, the times are uniform order statistics; given further their span, the spacings are exchangeable
    exponentials, and their normalised order statistics are uniform again ([Durbin1961]): the first sees a drifting
    rate, the second bursts.
    """
    span = float(times[-1] - times[0])
    inner = (times[1:-1] - times[0]) / span
    spacings = np.sort(np.diff(times))
    n = len(spacings)
    widths = np.diff(np.concatenate([[0.0], spacings])) * np.arange(n, 0, -1)
    durbin = np.cumsum(widths)[:-1] / float(spacings.sum())
    return min(1.0, 2.0 * min(uniformity_p_value(inner), uniformity_p_value(durbin)))


def correlation_sigmas(series: Floats) -> float:
    """Return the largest rank correlation over the first lags, in standard errors of independent samples."""
    _, place, equal = np.unique(series, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(equal) - 0.5 * equal)[place]
    centred = ranks - ranks.mean()
    power = float(centred @ centred)
    if power <= 0.0:
        return 0.0
    lags = range(1, min(LAGS, len(series) // 4) + 1)
    return max((abs(float(centred[lag:] @ centred[:-lag])) / power for lag in lags), default=0.0) * math.sqrt(
        len(series)
    )


def markov_p_value(states: NDArray[np.bool_]) -> float:
    """Return the p-value of a chain of two states whose next state depends on the present one alone.

    The likelihood-ratio test of order 1 against order 2, with two degrees of freedom ([AndersonGoodman1957]).
    """
    before, now, after = states[:-2], states[1:-1], states[2:]
    statistic = 0.0
    for middle in (False, True):
        table = np.array(
            [
                [np.count_nonzero((before == a) & (now == middle) & (after == b)) for b in (False, True)]
                for a in (False, True)
            ],
            dtype=np.float64,
        )
        total = float(table.sum())
        if total == 0.0:
            continue
        expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / total
        seen = table > 0.0
        statistic += 2.0 * float(np.sum(table[seen] * np.log(table[seen] / expected[seen])))
    # chi-square with two degrees of freedom.
    return math.exp(-0.5 * max(0.0, statistic))


def upper_rate(count: int, span: float, alpha: float) -> float:
    """Return the upper confidence limit of a Poisson rate [Garwood1936]."""
    from scipy import special  # noqa: PLC0415 - half the import time of the library

    inverse: Any = special.gammaincinv
    return float(inverse(count + 1.0, 1.0 - alpha)) / span * (1.0 + 1e-12)
