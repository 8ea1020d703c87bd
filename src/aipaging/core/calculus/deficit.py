"""Rate-latency domains with an exponentially bounded deficit, in slots (the EBF form, [Jiang2008]).

For all s <= t: P(S(s, t) < R (t - s - T)^+ - x) <= M exp(-b x). Latencies are taken off the delay first, so only the
deficits enter moments: a deficit has E exp(theta X) <= 1 + M theta / (b - theta), theta < b. The union over cuts then
needs independent domains; the proof is in deficit.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from aipaging.core.calculus.arrivals import SlottedWork, mean_rate
from aipaging.core.calculus.bound import TailBound
from aipaging.core.calculus.errors import UnstableError, overloaded, require_non_negative, require_positive
from aipaging.core.calculus.interval import log_bounded_moment, moments_of
from aipaging.core.calculus.tandem import log_constant
from aipaging.core.calculus.tandem_union import Stage, UnionTandem, union_tail


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


def impaired_stage(domain: ImpairedRateLatency) -> Stage:
    """Return the domain in moments."""
    return Stage(
        log_service=log_constant(domain.rate),
        log_sigma=lambda theta: log_bounded_moment(theta, domain.prefactor, domain.decay),
        latency=domain.latency, rate=domain.rate, theta_max=domain.decay if domain.prefactor > 0.0 else math.inf,
        memoryless=domain.prefactor == 0.0, deficit=(domain.prefactor, domain.decay),
    )  # fmt: skip


def deficit_bound(arrival: SlottedWork, domains: Sequence[ImpairedRateLatency], delay: int) -> TailBound:
    """Return the union bound on P(W > delay) through independent domains with bounded deficits.

    P <= inf_theta prod_i (1 + M_i theta/(b_i - theta)) sum_{k>=1} q^k h_{k+d-T}(exp(-theta R_1), ...), T the sum of
    the latencies' whole slots; what is left of them costs exp(theta R_i) to its power.

    Raises:
        UnstableError: The arrivals reach the least rate.
    """
    if overloaded(mean_rate(arrival), min(d.rate for d in domains)):
        raise UnstableError
    tandem = UnionTandem(
        arrival=moments_of([arrival]), stages=tuple(impaired_stage(d) for d in domains), crossings=()
    )  # fmt: skip
    assumptions = ("independent-slots", "stationary", "independent-domains", "exponentially-bounded-deficits")
    return union_tail(tandem, slots=delay, backlog=0.0, assumptions=assumptions)
