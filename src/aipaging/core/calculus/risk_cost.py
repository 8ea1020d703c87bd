"""The cheapest reservation: rates and risk shares for one end-to-end promise.

Domain i offers, at a reserved rate R_i and price c_i per rate, P(D_i > T_i + x) <= M_i exp(-theta_i R_i x).
Minimise sum c_i R_i subject to sum T_i + L_i / (theta_i R_i) <= D, L_i = ln(M_i / e_i), sum phi(e_i) <= phi(epsilon),
phi(e) = e under any dependence, -ln(1 - e) where contracts hold given the past.
Jointly convex where every L_i >= 1/2. Given the shares, the rates have a closed form, and given the rates
so have the shares; alternating converges in about a dozen rounds (KKT conditions in risk_budget.md).

Limits on the parts couple the two steps; then `risk_rates`, which callers ask, solves the problem as a whole. The bound
on the joint tail in place of parts, cheaper by far where contracts hold given the past, is `risk_joint`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from aipaging.core.calculus.domain import Dependence
from aipaging.core.calculus.errors import require_non_negative, require_positive
from aipaging.core.calculus.risk_limits import NO_LIMITS, BindingLimit, Certificate, PartLimits
from aipaging.core.foundation.errors import InvalidInputError, RefusedError

ROUNDS_MAX: Final = 60
SETTLED: Final = 1e-13

AT_LIMIT: Final = 1e-6
"""A number this close (relatively) to a limit stands at it: what a general solver leaves is of that order."""


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
        name: What it is called where it stands in the way.
        limits: What its part must keep to; offset and delays are then in ms.
    """

    offset: float
    prefactor: float
    decay_per_rate: float
    price: float
    rate_min: float = 0.0
    rate_max: float = math.inf
    name: str = ""
    limits: PartLimits = field(default=NO_LIMITS)

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
        epsilons: The risk share of each domain; their sum is at most epsilon. Empty for a joint bound.
        delays: Offset plus excess of each domain; their sum is at most the delay. Empty for a joint bound.
        cost: sum of price times rate.
        convex: Whether every ln(M/e) >= 1/2, so that the optimum is global.
        delay_price: -d cost / d delay.
        log_epsilon_price: -d cost / d ln(epsilon).
        binding: The limits that hold the answer back.
        certificate: How far from the optimum it is at most.
    """

    rates: tuple[float, ...]
    epsilons: tuple[float, ...]
    delays: tuple[float, ...]
    cost: float
    convex: bool
    delay_price: float
    log_epsilon_price: float
    certificate: Certificate
    binding: tuple[BindingLimit, ...] = ()


def alternating_reservation(
    domains: Sequence[RatedDomain], delay: float, epsilon: float, *, dependence: Dependence = Dependence.ANY
) -> Reservation:
    """Return the cheapest rates whose parts prove P(sum of delays > delay) <= epsilon; limits on parts do not count.

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
    product = dependence is not Dependence.ANY
    safe_left, safe_epsilon = left * (1.0 - 1e-12), epsilon * (1.0 - 1e-12)
    shares = [safe_epsilon / len(domains)] * len(domains)
    rates, cost = _rates(domains, shares, safe_left), math.inf
    for _ in range(ROUNDS_MAX):
        shares = _product_shares(domains, rates, safe_epsilon) if product else _shares(domains, rates, safe_epsilon)
        rates = _rates(domains, shares, safe_left)
        before, cost = cost, math.fsum(d.price * r for d, r in zip(domains, rates, strict=True))
        if abs(before - cost) <= SETTLED * cost:
            break
    logs = [_log(d, e) for d, e in zip(domains, shares, strict=True)]
    excess = [log / (d.decay_per_rate * r) if log else 0.0 for d, r, log in zip(domains, rates, logs, strict=True)]
    movable = math.fsum(d.price * r for d, r in zip(domains, rates, strict=True) if d.rate_min < r < d.rate_max)
    spent = math.fsum(x for d, r, x in zip(domains, rates, excess, strict=True) if d.rate_min < r < d.rate_max)
    delay_price = movable / spent if spent > 0.0 else 0.0
    # d cost / d phi_i, at the most willing domain; all agree where the shares are free.
    odds = epsilon / (1.0 - epsilon) if product else epsilon
    weight = max(
        (odds * _per_share(d, r, e, product=product) for d, r, e, log in zip(domains, rates, shares, logs, strict=True)
         if log), default=0.0,
    )  # fmt: skip
    convex = all(log >= 0.5 for log in logs)
    return Reservation(
        rates=tuple(rates),
        epsilons=tuple(shares),
        delays=tuple(d.offset + x for d, x in zip(domains, excess, strict=True)),
        cost=cost,
        convex=convex,
        delay_price=delay_price,
        log_epsilon_price=delay_price * weight,
        binding=tuple(rate_limits(domains, rates, excess, delay_price)),
        certificate=certificate(
            domains, Point(rates, excess, shares), (safe_left, safe_epsilon), delay_price, product=product
        ),
    )


@dataclass(frozen=True, slots=True)
class Point:
    """Rates, excesses and risk shares of all domains."""

    rates: Sequence[float]
    excesses: Sequence[float]
    shares: Sequence[float]


def certificate(
    domains: Sequence[RatedDomain], point: Point, whole: tuple[float, float], delay_price: float, *, product: bool
) -> Certificate:
    """Return a lower bound on the cost of any reservation, as a gap, from the tangent plane at a point.

    Cost c max(rate_min, h(x, e)), h = L / (theta x), under h <= rate_max. A rate at a limit counts at the price c' that
    makes its slope in x that of the others: c max(r, h) >= c' h + (c - c') r for c' <= c, and for a largest rate c' - c
    is the multiplier of its limit. Then the sum of c' h is convex, so it lies above its tangent plane, whose
    least value over {x >= 0, sum x <= y} and {phi >= 0, sum phi <= phi(epsilon)} stands at corners.

    Args:
        domains: What is sold.
        point: The reservation in question.
        whole: The excess and the risk that the parts share.
        delay_price: -d cost / d delay, as claimed.
        product: Whether shares multiply.
    """
    excess, epsilon = whole
    bound, by_delay, by_risk = 0.0, 0.0, 0.0
    spent, residual, slopes_x, slopes_e = 0.0, 0.0, [0.0], [0.0]
    for domain, rate, x, share in zip(domains, point.rates, point.excesses, point.shares, strict=True):
        if x <= 0.0:
            bound += domain.price * domain.rate_min
            continue
        price = domain.price
        if rate <= domain.rate_min:
            price = min(price, delay_price * x / rate)
        elif rate >= domain.rate_max:
            price = max(price, delay_price * x / rate)
        elif delay_price > 0.0:
            residual = max(residual, abs(price * rate / x / delay_price - 1.0))
        bound += price * rate + (domain.price - price) * rate
        slope_x = price * rate / x
        slope_e = price / (domain.decay_per_rate * x * share) * (1.0 - share if product else 1.0)
        phi = -math.log1p(-share) if product else share
        by_delay += slope_x * x
        by_risk += slope_e * phi
        spent += phi
        slopes_x.append(slope_x)
        slopes_e.append(slope_e)
    allowed = -math.log1p(-epsilon) if product else epsilon
    bound += by_delay - excess * max(slopes_x) + by_risk - allowed * max(slopes_e)
    cost = math.fsum(d.price * r for d, r in zip(domains, point.rates, strict=True))
    residual = max(residual, abs(spent / allowed - 1.0) if spent > 0.0 else 0.0)
    convex = all(math.log(domain.prefactor / epsilon) >= 0.5 for domain in domains)
    gap = max(0.0, (cost - bound) / cost) if cost > 0.0 else 0.0
    return Certificate(convex=convex, kkt_residual=residual, duality_gap=gap if convex else math.inf)


def rate_limits(
    domains: Sequence[RatedDomain], rates: Sequence[float], excesses: Sequence[float], delay_price: float
) -> list[BindingLimit]:
    """Return the limits on rates that hold the answer back, with what a unit of rate would gain."""
    found: list[BindingLimit] = []
    for i, (domain, rate, x) in enumerate(zip(domains, rates, excesses, strict=True)):
        gain = delay_price * x / rate - domain.price if rate > 0.0 else 0.0
        near = AT_LIMIT * rate
        limit = "rate_max" if rate >= domain.rate_max - near else "rate_min" if rate <= domain.rate_min + near else ""
        price = gain if limit == "rate_max" else -gain
        if limit and rate > 0.0 and price > 0.0:
            found.append(BindingLimit(domain=domain.name or str(i), limit=limit, price=price))
    return found


def _per_share(domain: RatedDomain, rate: float, share: float, *, product: bool) -> float:
    """Return -d excess / d phi at a fixed rate."""
    return (1.0 - share if product else 1.0) / (domain.decay_per_rate * rate * share)


def _product_shares(domains: Sequence[RatedDomain], rates: Sequence[float], epsilon: float) -> list[float]:
    """Return e_i with e_i / (1 - e_i) proportional to 1 / (theta_i R_i), and prod (1 - e_i) = 1 - epsilon.

    With odds k / (theta_i R_i) the sum of phi is sum ln(1 + k / (theta_i R_i)): concave and rising in k, so Newton's
    method approaches its root from the left. Where a share reaches its prefactor, the union is taken, which is valid.
    """
    if any(rate <= 0.0 for rate in rates):
        return _shares(domains, rates, epsilon)
    scales = [1.0 / (d.decay_per_rate * r) for d, r in zip(domains, rates, strict=True)]
    allowed = -math.log1p(-epsilon)
    level = allowed / math.fsum(scales)
    for _ in range(ROUNDS_MAX):
        missing = allowed - math.fsum(math.log1p(level * scale) for scale in scales)
        step = missing / math.fsum(scale / (1.0 + level * scale) for scale in scales)
        level += step
        if abs(step) <= 1e-15 * level:
            break
    shares = [level * scale / (1.0 + level * scale) for scale in scales]
    if any(share >= d.prefactor for share, d in zip(shares, domains, strict=True)):
        return _shares(domains, rates, epsilon)
    return shares


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
