"""Exact-local: the backlog of the first domain exactly, the union over the other cuts ([Bouillard2022] in spirit).

With q_1 the stationary backlog of domain 1 and equal, independent services,

    P(W > d) <= C(d+H-2, H-1) p_0 + sum_{k >= 0} C(k+d+H-2, H-2) p_k,    p_k = P(q_1 + A_k > S(k+d)),

and for H = 1 it is p_0 itself. The proof is in `docs/background/calculus/exact_local.md`. Every p_k is
computed exactly: exponential work is counted in exponential units, so q_1 + A_k (+ cross work) is a Gamma law
with a random number N of units, and P(Gamma(N) > y) = P(Poisson(y) < N) turns all of it into sums of positive
terms on the integers. The sum over k is cut where a Chernoff bound of the rest is negligible; the rest is added.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aipaging.core.calculus.queue_exact import Ladder, exponential_slots_onoff_service, two_exponentials_per_slot
from aipaging.core.calculus.rounding import round_up
from aipaging.core.calculus.special import betainc, gammaln

Floats: TypeAlias = NDArray[np.float64]

TERMS_MAX: Final = 600
REST: Final = 1e-9
"""The rest of the series is made this small against a Chernoff bound of the whole, where TERMS_MAX allows."""

EFFORT_MAX: Final = 3e8
"""Multiplications: beyond it the rung is left out, where work is very unequal or the load close to 1."""

RELATIVE: Final = 1e-9
_UNDERFLOW: Final = 1e-290


@dataclass(frozen=True, slots=True, kw_only=True)
class ExponentialOnOffTandem:
    """Exp(mean) work per slot through `hops` domains that give `capacity` with probability `availability`."""

    mean: float
    capacity: float
    availability: float
    hops: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExponentialCrossTandem:
    """Exp(mean) work per slot through `hops` servers with fresh Exp(cross_mean) work of priority at each."""

    mean: float
    cross_mean: float
    capacity: float
    hops: int


def onoff_tail(tandem: ExponentialOnOffTandem, delay: int) -> float:
    """Return the exact-local bound on P(W > delay), or 1 where it would take too long.

    Raises:
        UnstableError: The arrivals reach the mean service.
    """
    ladder = exponential_slots_onoff_service(tandem.mean, tandem.capacity, tandem.availability)
    p = tandem.availability

    def log_qr(theta: Floats) -> tuple[Floats, Floats]:
        return -np.log1p(-theta * tandem.mean), np.log1p(p * np.expm1(-theta * tandem.capacity))

    terms, rest = _cut(ladder, log_qr, tandem.hops, delay)
    weight = ladder.weights[0]
    units = terms + 8 + math.ceil(60.0 / -math.log(weight))
    slots = np.arange(terms + delay + 1)
    if 64.0 * units * len(slots) > EFFORT_MAX:
        return 1.0
    load = np.asarray(slots * (tandem.capacity / tandem.mean), dtype=np.float64)
    below = _poisson_below(units, load)
    # V[k] = sum_m (1 - K) K^m T[k + m]: the backlog is a geometric number of units; at the top T <= 1.
    value = np.ones(len(slots))
    values = np.empty((terms + 1, len(slots)))
    for k in range(units, -1, -1):
        value = (1.0 - weight) * below[k] + weight * value
        if k <= terms:
            values[k] = value
    log_factorial = gammaln(np.arange(terms + delay + 2) + 1.0)
    served = (np.arange(terms + 1) + delay)[:, None]
    log_ways = log_factorial[served] - log_factorial[slots] - log_factorial[np.maximum(served - slots, 0)]
    with np.errstate(divide="ignore"):
        failed = np.maximum(served - slots, 0) * np.log1p(-p) if p < 1.0 else np.where(served == slots, 0.0, -np.inf)
    binomial = np.where(slots <= served, np.exp(log_ways + slots * math.log(p) + failed), 0.0)
    exceed = np.minimum((binomial * values).sum(axis=1) + _UNDERFLOW, 1.0)
    return _union_over_cuts(exceed, tandem.hops, delay, rest)


def cross_tail(tandem: ExponentialCrossTandem, delay: int) -> float:
    """Return the exact-local bound on P(W > delay), whatever the scheduling between flow and cross traffic.

    1 where it would take too long.

    Raises:
        UnstableError: The arrivals reach the capacity.
    """
    ladder = two_exponentials_per_slot((tandem.mean, tandem.cross_mean), tandem.capacity)

    def log_qr(theta: Floats) -> tuple[Floats, Floats]:
        return -np.log1p(-theta * tandem.mean), -np.log1p(-theta * tandem.cross_mean) - theta * tandem.capacity

    terms, rest = _cut(ladder, log_qr, tandem.hops, delay)
    unit = min(tandem.mean, tandem.cross_mean)
    mean_load = tandem.capacity * (0.5 * terms + delay) / unit
    backlog_length = 60.0 / (ladder.rates[0] * unit)
    if (terms + 1) * mean_load * min(mean_load, backlog_length) > EFFORT_MAX:
        return 1.0
    backlog_units = _backlog_units(ladder, unit)
    exceed = np.empty(terms + 1)
    for k in range(terms + 1):
        # (whole slots of the larger law, its success probability, units that are certain)
        m, success, fixed = (
            (k + delay, unit / tandem.cross_mean, k)
            if tandem.mean <= tandem.cross_mean
            else (k, unit / tandem.mean, k + delay)
        )
        load = tandem.capacity * (k + delay) / unit
        top = math.ceil(load + 40.0 * math.sqrt(load) + 60.0)
        below = _poisson_below(top, np.array([load]))[:, 0]
        padded = np.concatenate([below, np.ones(len(backlog_units) - 1)])
        value = np.convolve(padded, backlog_units[::-1], mode="valid")
        units = np.arange(fixed + m, top + 1)
        if not len(units):
            exceed[k] = 1.0
            continue
        law, beyond = _negative_binomial(units - fixed, m, success)
        exceed[k] = min(1.0, float(np.dot(law, value[fixed + m : top + 1])) + beyond + _UNDERFLOW)
    return _union_over_cuts(exceed, tandem.hops, delay, rest)


def _union_over_cuts(exceed: Floats, hops: int, delay: int, rest: float) -> float:
    """Add the terms with their numbers of cuts; exact integers, so nothing overflows below 1e308."""
    if hops == 1:
        return round_up(float(exceed[0]), RELATIVE)
    total = math.comb(delay + hops - 2, hops - 1) * float(exceed[0]) if delay else 0.0
    for k, probability in enumerate(exceed):
        total += math.comb(k + delay + hops - 2, hops - 2) * float(probability)
    return round_up(total + rest, RELATIVE)


def _cut(ladder: Ladder, log_qr: Callable[[Floats], tuple[Floats, Floats]], hops: int, delay: int) -> tuple[int, float]:
    """Return after how many terms the series is cut, and a Chernoff bound on the rest.

    E exp(theta q_1) q^k r^(k+d) >= p_k, and the number of cuts times x^m, x = q r, sums to an incomplete beta.
    """
    if hops == 1:
        return 0, 0.0
    theta = ladder.rates[0] * np.linspace(0.02, 0.995, 60)
    log_q, log_r = log_qr(theta)
    x = np.exp(log_q + log_r)
    log_moment = np.zeros_like(theta)
    for phase, rate in zip(ladder.phases, ladder.rates, strict=True):
        log_moment += np.log1p(-theta / phase) - np.log1p(-theta / rate)
    stem = log_moment - delay * log_q - (hops - 1) * np.log1p(-x)

    def log_rest(terms: int) -> float:
        with np.errstate(divide="ignore"):
            incomplete = betainc(terms + delay + 1, hops - 1, x)
        return float(np.min(np.where(incomplete > 0.0, stem + np.log(np.maximum(incomplete, 1e-305)), np.inf)))

    goal = float(np.min(stem + np.log(np.maximum(betainc(max(delay, 1), hops - 1, x), 1e-305)))) + math.log(REST)
    terms = 16
    while terms < TERMS_MAX and log_rest(terms) > goal:
        terms = min(TERMS_MAX, terms + max(16, terms // 4))
    return terms, math.exp(min(0.0, log_rest(terms)))


def _poisson_below(units: int, load: Floats) -> Floats:
    """Return P(Poisson(load) < n) for n = 0..units (rows): sums of positive terms."""
    n = np.arange(units, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_mass = np.where(
            (n[:, None] == 0.0) & (load == 0.0), 0.0, n[:, None] * np.log(load) - load - gammaln(n + 1.0)[:, None]
        )
    below = np.zeros((units + 1, len(load)))
    np.cumsum(np.exp(log_mass), axis=0, out=below[1:])
    return np.minimum(below, 1.0)


def _backlog_units(ladder: Ladder, unit: float) -> Floats:
    """Return the law of the number of Exp(unit) units in the backlog: a mixture of geometric laws."""
    first = max(1.0 - ladder.rates[0] * unit, 1e-16)
    n = np.arange(math.ceil(60.0 / -math.log(first)) + 4)
    law = np.zeros(len(n) + 1)
    law[0] = max(0.0, 1.0 - math.fsum(ladder.weights))
    for rate, weight in zip(ladder.rates, ladder.weights, strict=True):
        law[1:] += weight * rate * unit * (1.0 - rate * unit) ** n
    law = np.maximum(law, 0.0)
    law[-1] += first ** len(n)
    return law


def _negative_binomial(trials: Floats | NDArray[np.int64], m: int, success: float) -> tuple[Floats, float]:
    """Return P(the m-th success comes at trial t) for a run of trials from m on, and a bound on what is beyond."""
    if m == 0 or success >= 1.0:
        law = np.zeros(len(trials))
        law[0] = 1.0
        return law, 0.0
    log_law = gammaln(trials) - gammaln(m) - gammaln(trials - m + 1.0) + m * math.log(success)
    law = np.exp(log_law + (trials - m) * math.log1p(-success))
    last = float(trials[-1])
    ratio = last / (last - m + 1.0) * (1.0 - success)
    beyond = float(law[-1]) * ratio / (1.0 - ratio) if ratio < 1.0 else 1.0
    return law, beyond
