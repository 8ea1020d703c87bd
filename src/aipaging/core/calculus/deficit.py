"""Rate-latency domains with an exponentially bounded deficit, in slots (the EBF form, [Jiang2008]).

For all s <= t: P(S(s, t) < R (t - s - T)^+ - x) <= M exp(-b x). Deterministic parts are composed first, so the
latencies add once and only the deficits enter moments: a deficit has E exp(theta X) <= 1 + M theta / (b - theta),
theta < b. The union over cuts then needs independent domains; the proof is in deficit.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aipaging.core.calculus.arrivals import SlottedWork
from aipaging.core.calculus.bound import TailBound, bound_of_log, certain
from aipaging.core.calculus.errors import UnstableError, overloaded, require_non_negative, require_positive
from aipaging.core.calculus.special import betainc

_POINTS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ImpairedRateLatency:
    """beta_{R,T} but for a deficit with P(deficit > x) <= prefactor exp(-decay x), over every interval."""

    rate: float
    latency: float
    prefactor: float
    decay: float

    def __post_init__(self) -> None:
        require_positive(rate=self.rate, decay=self.decay)
        require_non_negative(latency=self.latency, prefactor=self.prefactor)


def deficit_bound(arrival: SlottedWork, domains: Sequence[ImpairedRateLatency], delay: int) -> TailBound:
    """Return the union bound on P(W > delay) through independent domains with bounded deficits.

    P <= inf_theta e^{theta R T} prod_i (1 + M_i theta/(b_i - theta)) sum_{k>=1} C(k+d+H-1, H-1) q^k r^{k+d}
    with R the least rate, T the sum of latencies, q = E exp(theta a), r = exp(-theta R).

    Raises:
        UnstableError: The arrivals reach the least rate.
    """
    rate, latency = min(d.rate for d in domains), math.fsum(d.latency for d in domains)
    if overloaded(arrival.mean_rate, rate):
        raise UnstableError
    assumptions = ("independent-slots", "stationary", "independent-domains", "exponentially-bounded-deficits")
    if delay < latency:
        return certain(1.0, "trivial", ())
    end = min(arrival.theta_max, *(d.decay for d in domains))
    if math.isinf(end):
        end = 50.0 / rate
    hops = len(domains)
    best, best_theta = 0.0, 0.0
    for theta in end * np.linspace(1.0 / _POINTS, 1.0 - 1.0 / _POINTS, _POINTS):
        log_q = arrival.log_mgf(float(theta))
        log_x = log_q - theta * rate
        if log_x >= 0.0:
            continue
        x = math.exp(log_x)
        incomplete = float(betainc(delay + 1, hops, x))
        if incomplete < 1e-290:
            continue
        value = theta * rate * latency - delay * log_q - hops * math.log1p(-x) + math.log(incomplete)
        value += math.fsum(math.log1p(d.prefactor * theta / (d.decay - theta)) for d in domains)
        if value < best:
            best, best_theta = float(value), float(theta)
    return bound_of_log(best, "mgf-union", assumptions, theta=best_theta)
