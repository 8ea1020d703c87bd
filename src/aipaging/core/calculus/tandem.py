"""Tandems of slotted domains with independent services: the union series and the one-Doob series.

Everything is said with moments of one slot: q(theta) = E exp(theta a) of the arrivals and
r_h(theta) = E exp(-theta s_h) of the service of domain h, both independent from slot to slot. A sum over all
ways to cut L slots into H consecutive pieces is the complete homogeneous symmetric polynomial h_L(r_1..r_H)
([Macdonald1995], I.2); it is evaluated as an entry of a matrix power, where all terms are positive, so that
unequal rates need no partial fractions (which go negative).

* union: P(W > d) <= sum_{k >= 1} q^k h_{k+d}(r_1..r_H)                       ([Fidler2006])
* one-Doob: Doob's inequality over the first cut, the union over the other H - 1;
  sum_{j >= 0} q^j h_{j+d}(r_2..r_H) + r_1 h_{d-1}(r_1..r_H), if q r_1 <= 1   (proof: one_doob.md)

Any theta gives a bound, so the search over theta needs no certificate.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aipaging.core.calculus.errors import UnstableError
from aipaging.core.calculus.special import betainc
from aipaging.core.foundation.errors import InvalidInputError

Floats: TypeAlias = NDArray[np.float64]
LogMoment: TypeAlias = Callable[[Floats], Floats]

GRID: Final = 20
"""Points of theta in a pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlottedTandem:
    """Independent slots of arrivals and of service in each of the domains in order.

    Attributes:
        log_arrival: ln q(theta), vectorised over theta.
        log_services: ln r_h(theta) for each domain.
        theta_max: End of the domain of `log_arrival` (and of -`log_services` where they have one), finite.
    """

    log_arrival: LogMoment
    log_services: tuple[LogMoment, ...]
    theta_max: float


PASSES: Final = (GRID, GRID, GRID)
"""Points of theta in every pass: a coarse one over all, then around the best."""

PASSES_FAST: Final = (GRID, 7)


def tandem_log_bound(tandem: SlottedTandem, delay: int, passes: tuple[int, ...] = PASSES) -> tuple[float, float, str]:
    """Return (ln of the least bound on P(W > delay), theta, "one-doob" or "mgf-union").

    Raises:
        UnstableError: The arrivals reach the service of some domain.
        InvalidInputError: A negative delay.
    """
    if delay < 0:
        raise InvalidInputError("delay must be >= 0", field="delay")
    end = stable_end(tandem)
    best = (0.0, 0.0, "trivial")
    grid = end * GRID_FRACTIONS
    for points in (*passes[1:], 0):
        both = both_series(tandem, grid, delay)
        series, index = np.unravel_index(int(np.argmin(both)), both.shape)
        if both[series, index] < best[0]:
            best = (float(both[series, index]), float(grid[index]), ("one-doob", "mgf-union")[int(series)])
        grid = around(grid, int(index), points)
    return best


def around(grid: Floats, index: int, points: int) -> Floats:
    """Return so many points between the neighbours of a point of a grid."""
    found: Floats = np.linspace(grid[max(0, index - 1)], grid[min(len(grid) - 1, index + 1)], points)
    return found


GRID_FRACTIONS: Final = np.concatenate([np.linspace(0.05, 0.85, GRID - 7), 1.0 - np.geomspace(0.1, 1e-12, 7)])


@lru_cache(maxsize=1024)
def stable_end(tandem: SlottedTandem) -> float:
    """Return the largest theta with q r_h <= 1 in every domain, rounded down by bisection.

    Raises:
        UnstableError: There is none.
    """
    distinct = tuple(dict.fromkeys(tandem.log_services))

    def excess(theta: Floats) -> Floats:
        largest = np.max(np.stack([log_r(theta) for log_r in distinct]), axis=0)
        total: Floats = tandem.log_arrival(theta) + largest
        return total

    # Section by 32 points at a time: a vectorised call costs hardly more than a scalar one. Any theta below
    # the end is valid, so five rounds (3e-8 of it) are enough.
    probes = tandem.theta_max * _PROBES
    good = np.flatnonzero(excess(probes) < 0.0)
    if not len(good):
        raise UnstableError
    low, high = float(probes[good[-1]]), tandem.theta_max
    for _ in range(5):
        points = low + (high - low) * _SECTIONS
        outside = excess(points) > 0.0
        first = int(np.argmax(outside))
        if not outside[first]:
            return high
        low, high = float(points[first - 1]) if first else low, float(points[first])
    return low


_PROBES: Final = np.geomspace(1e-9, 0.1, 9)
_SECTIONS: Final = np.arange(1, 33) / 32.0


def both_series(tandem: SlottedTandem, theta: Floats, delay: int) -> Floats:
    """Return ln of the one-Doob series (row 0) and of the union series (row 1) at each theta."""
    log_q = tandem.log_arrival(theta)
    values = {log_moment: log_moment(theta) for log_moment in dict.fromkeys(tandem.log_services)}
    hops = len(tandem.log_services)
    if len(values) == 1:
        equal = _equal_series(log_q, values[tandem.log_services[0]], hops, delay)
        if equal is not None:
            return equal
    log_r = np.stack([values[log_moment] for log_moment in tandem.log_services])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        matrix, log_scale = _bidiagonal(log_r)
        # One power serves all: B^(d + H - 2) holds h_{d-1}(r_1..r_H) in entry (1, H), and its lower right
        # block is the same power of the matrix of r_2..r_H.
        power = np.linalg.matrix_power(matrix, max(0, delay + hops - 2))
        ratio = np.exp(log_q + log_scale)
        column = _geometric_column(matrix, ratio)
        if hops == 1:
            doob = delay * log_r[0]
            union = log_q + (delay + 1) * log_r[0] + np.log(column[:, 0])
        else:
            first = np.log(np.einsum("pi,pi->p", power[:, 1, 1:], column[:, 1:])) + delay * log_scale
            later = log_r[0] + np.log(power[:, 0, -1]) + (delay - 1) * log_scale
            doob = np.logaddexp(first, later) if delay else first
            row = np.einsum("pi,pij->pj", np.einsum("pi,pij->pj", power[:, 0, :], matrix), matrix)
            union = log_q + np.log(np.einsum("pi,pi->p", row, column)) + (delay + 1) * log_scale
    diverging = ratio * np.exp(log_r[1:] - log_scale).max(axis=0, initial=0.0) >= 1.0
    both = np.stack([np.where(diverging, np.inf, doob), np.where(log_q + log_scale >= 0.0, np.inf, union)])
    return np.where(np.isnan(both), np.inf, both)


def _equal_series(log_q: Floats, log_r: Floats, hops: int, delay: int) -> Floats | None:
    """Return the two series for H equal domains, or None where the closed form underflows.

    h_L = C(L + H - 1, H - 1) r^L makes the series tails of a negative binomial law: incomplete betas.
    """
    x = np.minimum(np.exp(log_q + log_r), 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_gap = np.log1p(-x)
        union = betainc(delay + 1, hops, x)
        first = betainc(delay, hops - 1, x) if hops > 1 and delay else np.ones_like(x)
        if min(union.min(), first.min()) < 1e-280:
            return None
        log_union = np.log(union) - hops * log_gap - delay * log_q
        later = delay * log_r + math.log(math.comb(delay + hops - 2, hops - 1)) if delay else -np.inf * x
        log_first = np.log(first) - (hops - 1) * log_gap - delay * log_q if hops > 1 else -np.inf * x
        doob = np.logaddexp(log_first, later) if delay or hops > 1 else np.zeros_like(x)
    both = np.stack([doob, np.where(x >= 1.0, np.inf, log_union)])
    if hops > 1:
        both[0, x >= 1.0] = np.inf
    return np.where(np.isnan(both), np.inf, both)


def _bidiagonal(log_r: Floats) -> tuple[Floats, Floats]:
    """Return B / scale, one matrix per theta, and ln(scale), the scale being the largest r.

    B has the r_h on its diagonal and ones above, which the scaling leaves at one: entry (1, H) of the n-th
    power is then h_{n-H+1}(r) in units of the scale.
    """
    hops, points = log_r.shape
    log_scale = log_r.max(axis=0)
    matrix = np.zeros((points, hops, hops))
    at = np.arange(hops)
    matrix[:, at, at] = np.exp(log_r - log_scale).T
    matrix[:, at[:-1], at[1:]] = 1.0
    return matrix, log_scale


def _geometric_column(matrix: Floats, ratio: Floats) -> Floats:
    """Return the last column of (I - q B)^{-1}, by back substitution: positive terms only."""
    diagonal = 1.0 - ratio[:, None] * np.diagonal(matrix, axis1=1, axis2=2)
    column = np.empty_like(diagonal)
    column[:, -1] = 1.0 / diagonal[:, -1]
    for i in range(diagonal.shape[1] - 2, -1, -1):
        column[:, i] = ratio * column[:, i + 1] / diagonal[:, i]
    return column


@lru_cache(maxsize=1024)
def log_constant(rate: float) -> LogMoment:
    """Return ln E exp(-theta s) of a constant service `rate` per slot."""
    return lambda theta: -theta * rate


@lru_cache(maxsize=1024)
def log_onoff(rate: float, availability: float) -> LogMoment:
    """Return ln E exp(-theta s) of a service of `rate` with probability `availability`, else 0."""
    return lambda theta: np.log1p(availability * np.expm1(-theta * rate))


@lru_cache(maxsize=1024)
def log_leftover(service: LogMoment, cross: tuple[LogMoment, ...]) -> LogMoment:
    """Return ln E exp(-theta (s - sum of cross)): what cross traffic of higher or unknown priority leaves."""

    def moment(theta: Floats) -> Floats:
        total = service(theta)
        for log_a in cross:
            total = total + log_a(theta)
        return total

    return moment


@lru_cache(maxsize=1024)
def log_exponential(mean: float) -> LogMoment:
    """Return ln E exp(theta a) of Exp(mean) work per slot, inf beyond its domain."""

    def moment(theta: Floats) -> Floats:
        part = theta * mean
        return np.where(part < 1.0, -np.log1p(-np.minimum(part, _BELOW_ONE)), np.inf)

    return moment


_BELOW_ONE: Final = 1.0 - 2.0**-53
