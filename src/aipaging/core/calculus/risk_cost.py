"""The cheapest reservation: rates and risk shares for one end-to-end promise.

Domain i offers, at a reserved rate R_i and price c_i per rate, P(D_i > T_i + x) <= M_i exp(-theta_i R_i x).
Minimise sum c_i R_i subject to sum T_i + L_i / (theta_i R_i) <= D, L_i = ln(M_i / e_i), sum e_i <= epsilon.
Jointly convex where every L_i >= 1/2. Given the shares, the rates have a closed form, and given the rates
so have the shares; alternating converges in about a dozen rounds (KKT conditions in risk_budget.md).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aipaging.core.calculus.errors import require_non_negative, require_positive
from aipaging.core.foundation.errors import InvalidInputError, RefusedError

ROUNDS_MAX: Final = 60
SETTLED: Final = 1e-13


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedDomain:
    """What a domain sells: a tail that sharpens with the reserved rate.

    Attributes:
        offset: T.
        prefactor: M.
        decay_per_rate: theta: the tail decays at theta times the reserved rate.
        price: c, per unit of rate.
        rate_min: Least rate that can be reserved.
        rate_max: Largest rate that is free.
    """

    offset: float
    prefactor: float
    decay_per_rate: float
    price: float
    rate_min: float = 0.0
    rate_max: float = math.inf

    def __post_init__(self) -> None:
        require_positive(prefactor=self.prefactor, decay_per_rate=self.decay_per_rate, price=self.price)
        require_non_negative(offset=self.offset, rate_min=self.rate_min)
        if not self.rate_max >= self.rate_min:
            raise InvalidInputError("rate_max must be at least rate_min", field="rate_max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Rates and risk shares, their cost, and what a little more delay or risk would save.

    Attributes:
        rates: One per domain.
        epsilons: The risk share of each domain; their sum is at most epsilon.
        delays: Offset plus excess of each domain; their sum is at most the delay.
        cost: sum of price times rate.
        convex: Whether every ln(M/e) >= 1/2, so that the optimum is global.
        delay_price: -d cost / d delay.
        log_epsilon_price: -d cost / d ln(epsilon).
    """

    rates: tuple[float, ...]
    epsilons: tuple[float, ...]
    delays: tuple[float, ...]
    cost: float
    convex: bool
    delay_price: float
    log_epsilon_price: float


def cheapest_reservation(domains: Sequence[RatedDomain], delay: float, epsilon: float) -> Reservation:
    """Return the cheapest rates that prove P(sum of delays > delay) <= epsilon under any dependence.

    Raises:
        InvalidInputError: Nothing to reserve, or epsilon outside (0, 1).
        RefusedError: Infeasible; the message says which constraint, and by how much.
    """
    if not domains or not 0.0 < epsilon < 1.0:
        raise InvalidInputError("give at least one domain and an epsilon in (0, 1)", field="epsilon")
    left = delay - math.fsum(domain.offset for domain in domains)
    if left <= 0.0:
        raise RefusedError(
            f"the offsets alone take {delay - left:g}, {-left:g} more than the delay", code="INFEASIBLE", field="delay"
        )
    safe_left, safe_epsilon = left * (1.0 - 1e-12), epsilon * (1.0 - 1e-12)
    shares = [safe_epsilon / len(domains)] * len(domains)
    rates, cost = _rates(domains, shares, safe_left), math.inf
    for _ in range(ROUNDS_MAX):
        shares = _shares(domains, rates, safe_epsilon)
        rates = _rates(domains, shares, safe_left)
        before, cost = cost, math.fsum(d.price * r for d, r in zip(domains, rates, strict=True))
        if abs(before - cost) <= SETTLED * cost:
            break
    logs = [_log(d, e) for d, e in zip(domains, shares, strict=True)]
    excess = [log / (d.decay_per_rate * r) if log else 0.0 for d, r, log in zip(domains, rates, logs, strict=True)]
    movable = math.fsum(d.price * r for d, r in zip(domains, rates, strict=True) if d.rate_min < r < d.rate_max)
    spent = math.fsum(x for d, r, x in zip(domains, rates, excess, strict=True) if d.rate_min < r < d.rate_max)
    delay_price = movable / spent if spent > 0.0 else 0.0
    weight = math.fsum(1.0 / (d.decay_per_rate * r) for d, r, log in zip(domains, rates, logs, strict=True) if log)
    return Reservation(
        rates=tuple(rates),
        epsilons=tuple(shares),
        delays=tuple(d.offset + x for d, x in zip(domains, excess, strict=True)),
        cost=cost,
        convex=all(log >= 0.5 for log in logs),
        delay_price=delay_price,
        log_epsilon_price=delay_price * weight,
    )


def _log(domain: RatedDomain, share: float) -> float:
    return max(0.0, math.log(domain.prefactor / share))


def _rates(domains: Sequence[RatedDomain], shares: Sequence[float], left: float) -> list[float]:
    """Return the cheapest rates for given shares, by the closed form on those not at a limit."""
    logs = [_log(d, e) for d, e in zip(domains, shares, strict=True)]
    fixed: dict[int, float] = {}
    for _ in range(2 * len(domains) + 1):
        free = [i for i in range(len(domains)) if i not in fixed]
        spare = left - math.fsum(logs[i] / (domains[i].decay_per_rate * r) for i, r in fixed.items() if logs[i])
        roots = {i: math.sqrt(logs[i] / domains[i].decay_per_rate / domains[i].price) for i in free}
        total = math.fsum(roots[i] * domains[i].price for i in free)
        if spare < 0.0 or (total > 0.0 and spare == 0.0):
            break
        rates = {i: roots[i] * total / spare if total > 0.0 else 0.0 for i in free}
        low = {i: domains[i].rate_min for i in free if rates[i] < domains[i].rate_min}
        high = {i: domains[i].rate_max for i in free if rates[i] > domains[i].rate_max}
        if not low and not high:
            return [fixed[i] if i in fixed else rates[i] for i in range(len(domains))]
        # A rate forced up frees delay, one forced down takes delay: fix the side that weighs more first.
        slack = math.fsum(_used(domains[i], logs[i], rates[i]) - _used(domains[i], logs[i], r) for i, r in low.items())
        want = math.fsum(_used(domains[i], logs[i], r) - _used(domains[i], logs[i], rates[i]) for i, r in high.items())
        fixed.update(high if want >= slack else low)
    least = math.fsum(_used(d, log, d.rate_max) for d, log in zip(domains, logs, strict=True))
    raise RefusedError(
        f"even the largest rates need {least:g} beyond the offsets, {least - left:g} more than is left",
        code="INFEASIBLE",
        field="rate_max",
    )


def _used(domain: RatedDomain, log: float, rate: float) -> float:
    if not log:
        return 0.0
    return log / (domain.decay_per_rate * rate) if rate > 0.0 else math.inf


def _shares(domains: Sequence[RatedDomain], rates: Sequence[float], epsilon: float) -> list[float]:
    """Return e_i proportional to 1 / (theta_i R_i), none above its prefactor."""
    weights = [1.0 / (d.decay_per_rate * r) if r > 0.0 else 0.0 for d, r in zip(domains, rates, strict=True)]
    shares = [0.0] * len(domains)
    open_ = set(range(len(domains)))
    left = epsilon
    while open_:
        total = math.fsum(weights[i] for i in open_)
        full = {
            i for i in open_ if total == 0.0 or weights[i] == 0.0 or left * weights[i] / total >= domains[i].prefactor
        }
        if not full:
            for i in open_:
                shares[i] = left * weights[i] / total
            break
        for i in full:
            shares[i] = min(domains[i].prefactor, left / len(domains))
            left -= shares[i]
        open_ -= full
    return shares
