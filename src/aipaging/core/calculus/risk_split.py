"""The split of a risk budget within limits: for least risk, and for least delay, with prices and a certificate.

A part is a delay T_i + x_i and a risk e_i = max(epsilon_min, M_i exp(-eta_i x_i)). What the parts prove together:

* any dependence: P(end to end exceeded) <= sum e_i (union);
* conditional or independent contracts: P <= 1 - prod (1 - e_i), since all parts are kept with probability
  prod P(D_i <= d_i | the parts before were kept) >= prod (1 - e_i).

With phi(e) = e, or -ln(1 - e), both are sums, convex in x. One multiplier solves both questions
(`risk_curve`). The certificate does not trust the search: it measures the stationarity, and the gap to the dual
function at the multiplier.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aipaging.core.calculus.domain import Dependence
from aipaging.core.calculus.risk_budget import UNION, UNION_ASSUMPTIONS, BudgetPart
from aipaging.core.calculus.risk_curve import Curve, active_by_delay, active_by_risk, curves_of, level_of
from aipaging.core.calculus.risk_limits import (
    EPSILON_MAX,
    EPSILON_MIN,
    OFFSET,
    BindingLimit,
    BudgetDomain,
    Certificate,
    InfeasibleBudgetError,
)
from aipaging.core.calculus.rounding import round_up
from aipaging.core.foundation.errors import InvalidInputError

PRODUCT: Final = "product-conditional"
"""Rung of the split whose parts are kept one given the other."""

_LOG_MAX: Final = 700.0
"""exp() of more overflows."""

_EPSILON_SAFE: Final = 1.0 - 1e-9
"""Asked of the parts before they are rounded up, so that their sum stays within what was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitedSplit:
    """A split within limits: P(end-to-end delay > delay_ms) <= epsilon.

    Attributes:
        delay_ms: At least the sum of the parts.
        epsilon: What the parts prove.
        parts: One per domain, in order.
        rung: The bound.
        assumptions: What it rests on.
        log_epsilon_per_ms: -d ln(epsilon) / d delay: what a little more delay would gain.
        ms_per_log_epsilon: -d delay / d ln(epsilon): what a little more risk would gain.
        binding: The limits that hold the answer back.
        certificate: That it is optimal.
    """

    delay_ms: float
    epsilon: float
    parts: tuple[BudgetPart, ...]
    rung: str
    assumptions: tuple[str, ...]
    log_epsilon_per_ms: float
    ms_per_log_epsilon: float
    binding: tuple[BindingLimit, ...]
    certificate: Certificate


def least_risk_split(
    domains: Sequence[BudgetDomain], delay_ms: float, *, dependence: Dependence = Dependence.ANY
) -> LimitedSplit:
    """Return the split of a delay that proves the least risk.

    Args:
        domains: In the order of the path, which conditional contracts refer to.
        delay_ms: The end-to-end delay.
        dependence: What is attested of the contracts.

    Raises:
        InvalidInputError: No domains, two of one name, or a delay that is not a finite number.
        InfeasibleBudgetError: The least delays that the limits allow already take more.
    """
    curves = curves_of(domains, dependence)
    if not math.isfinite(delay_ms):
        raise InvalidInputError("the delay must be a finite number", field="delay_ms")
    least = math.fsum(d.contract.offset_ms + c.interval.low for d, c in zip(domains, curves, strict=True))
    if least > delay_ms * (1.0 + 1e-15):
        worst = max(
            zip(domains, curves, strict=True), key=lambda pair: pair[0].contract.offset_ms + pair[1].interval.low
        )
        raise InfeasibleBudgetError(
            f"the parts take at least {least:.6g} ms, {least - delay_ms:.6g} ms more than the whole; most of it is "
            f"{worst[1].interval.low_by} of {worst[0].name}",
            constraint="delay_ms",
            domain=worst[0].name,
            short_by=least - delay_ms,
            feasible_delay_ms=least,
        )
    slack = delay_ms - math.fsum(domain.contract.offset_ms for domain in domains)
    slack -= 4e-15 * len(domains) * abs(delay_ms)

    def spent(t: float) -> float:
        return math.fsum([curve.excess(t) for curve in curves])

    if spent(-math.inf) <= slack or not any(curve.interval.low < curve.interval.high for curve in curves):
        return _answer(domains, curves, -math.inf, delay_ms)
    t = level_of(curves, lambda at: slack - spent(at), lambda at: active_by_delay(curves, at, slack))
    return _answer(domains, curves, t, delay_ms, spent_of=slack)


def least_delay_split(
    domains: Sequence[BudgetDomain], epsilon: float, *, dependence: Dependence = Dependence.ANY
) -> LimitedSplit:
    """Return the split of a risk that proves the least delay.

    Args:
        domains: In the order of the path, which conditional contracts refer to.
        epsilon: The end-to-end risk, in (0, 1).
        dependence: What is attested of the contracts.

    Raises:
        InvalidInputError: No domains, two of one name, or an epsilon outside (0, 1).
        InfeasibleBudgetError: The least risks that the limits allow already take more.
    """
    curves = curves_of(domains, dependence)
    if not 0.0 < epsilon < 1.0:
        raise InvalidInputError("epsilon must lie strictly between 0 and 1", field="epsilon")
    product = curves[0].product
    allowed = (-math.log1p(-epsilon) if product else epsilon) * _EPSILON_SAFE
    least = math.fsum(curve.phi(curve.interval.high) for curve in curves)
    if least > allowed:
        worst = max(zip(domains, curves, strict=True), key=lambda pair: pair[1].phi(pair[1].interval.high))
        needed = _joined(least, product=product) / _EPSILON_SAFE
        raise InfeasibleBudgetError(
            f"the parts risk at least {needed:.4g}, {needed - epsilon:.4g} more than the whole; most of it is "
            f"{worst[1].interval.high_by} of {worst[0].name}",
            constraint="epsilon",
            domain=worst[0].name,
            short_by=needed - epsilon,
            feasible_epsilon=min(1.0, needed),
        )

    def risked(t: float) -> float:
        return math.fsum([curve.phi(curve.excess(t)) for curve in curves])

    if risked(math.inf) <= allowed:
        return _answer(domains, curves, math.inf, None)
    t = level_of(curves, lambda at: risked(at) - allowed, lambda at: active_by_risk(curves, at, allowed))
    return _answer(domains, curves, t, None, spent_of=allowed)


def split_of(
    domains: Sequence[BudgetDomain], delay_ms: float, epsilon: float, *, dependence: Dependence = Dependence.ANY
) -> LimitedSplit:
    """Return the split for least risk of a promise (delay, epsilon), or say what stands in its way.

    Raises:
        InvalidInputError: As `least_risk_split` and `least_delay_split`.
        InfeasibleBudgetError: Not both can be kept; it says what could.
    """
    if not 0.0 < epsilon < 1.0:
        raise InvalidInputError("epsilon must lie strictly between 0 and 1", field="epsilon")
    found = least_risk_split(domains, delay_ms, dependence=dependence)
    if found.epsilon <= epsilon:
        return found
    try:
        feasible_delay_ms = least_delay_split(domains, epsilon, dependence=dependence).delay_ms
    except InfeasibleBudgetError:
        feasible_delay_ms = math.inf
    worst = max(range(len(domains)), key=lambda i: found.parts[i].epsilon)
    raise InfeasibleBudgetError(
        f"within {delay_ms:.6g} ms the least provable risk is {found.epsilon:.4g}, "
        f"{found.epsilon - epsilon:.4g} more than {epsilon:.4g}; most of it is in {domains[worst].name}",
        constraint="epsilon",
        domain=domains[worst].name,
        short_by=found.epsilon - epsilon,
        feasible_delay_ms=feasible_delay_ms,
        feasible_epsilon=found.epsilon,
    )


def _joined(total: float, *, product: bool) -> float:
    return -math.expm1(-total) if product else total


def _answer(
    domains: Sequence[BudgetDomain],
    curves: Sequence[Curve],
    t: float,
    delay_ms: float | None,
    *,
    spent_of: float | None = None,
) -> LimitedSplit:
    """Put the parts together; `delay_ms` is None where the risk was given."""
    product = curves[0].product
    excesses = [curve.excess(t) for curve in curves]
    if delay_ms is not None and spent_of is not None and (over := math.fsum(excesses) - spent_of) > 0.0:
        # Rounding alone: take it from a part that has some to give.
        most = max(range(len(curves)), key=lambda i: excesses[i] - curves[i].interval.low)
        excesses[most] = max(curves[most].interval.low, excesses[most] - over)
    delay_up = 1e-12 if delay_ms is None else 0.0
    parts = tuple(
        BudgetPart(
            delay_ms=domain.contract.offset_ms + excess * (1.0 + delay_up),
            epsilon=round_up(curve.risk(excess)) if domain.contract.prefactor > 0.0 or curve.floor > 0.0 else 0.0,
        )
        for domain, curve, excess in zip(domains, curves, excesses, strict=True)
    )
    total = math.fsum(
        (-math.log1p(-p.epsilon) if p.epsilon < 1.0 else math.inf) if product else p.epsilon for p in parts
    )
    proven = _joined(total, product=product)
    epsilon = round_up(proven) if proven > 0.0 else 0.0
    # d epsilon / d delay = -nu, times 1 - epsilon for the product.
    nu = math.exp(t) if t < _LOG_MAX else math.inf
    log_slope = nu * (1.0 - epsilon if product else 1.0) / epsilon if 0.0 < epsilon < 1.0 and nu < math.inf else 0.0
    objective = log_slope / nu if 0.0 < nu < math.inf else (1.0 - epsilon if product else 1.0) / max(epsilon, 1e-300)
    if delay_ms is None:
        objective = 1.0 / nu if nu > 0.0 else 0.0
    slopes = [curve.log_slope(excess) for curve, excess in zip(curves, excesses, strict=True)]
    return LimitedSplit(
        delay_ms=delay_ms if delay_ms is not None else math.fsum(p.delay_ms for p in parts) * (1.0 + 1e-12),
        epsilon=epsilon,
        parts=parts,
        rung=PRODUCT if product else UNION,
        assumptions=("delay-contracts-hold", "contracts-hold-given-the-past") if product else UNION_ASSUMPTIONS,
        log_epsilon_per_ms=log_slope,
        ms_per_log_epsilon=1.0 / log_slope if log_slope > 0.0 else 0.0,
        binding=tuple(_binding(domains, curves, excesses, slopes, nu=nu, objective=objective)),
        certificate=_certificate(curves, excesses, slopes, t),
    )


def _binding(
    domains: Sequence[BudgetDomain],
    curves: Sequence[Curve],
    excesses: Sequence[float],
    slopes: Sequence[float],
    *,
    nu: float,
    objective: float,
) -> list[BindingLimit]:
    """Return the limits at whose ends the parts stand, with what relaxing them gains."""
    found: list[BindingLimit] = []
    for domain, curve, excess, log_slope in zip(domains, curves, excesses, slopes, strict=True):
        interval, slope = curve.interval, math.exp(min(log_slope, _LOG_MAX))
        at_low = excess <= interval.low and (interval.low_by != OFFSET or interval.high == interval.low)
        by = interval.low_by if at_low and slope <= nu else interval.high_by if excess >= interval.high else OFFSET
        if by == OFFSET:
            continue
        gain = abs(slope - nu)
        if by == EPSILON_MAX or (by == EPSILON_MIN and interval.high > interval.low):
            gain *= curve.scale
        elif by == EPSILON_MIN:
            gain = curve.floor / (1.0 - curve.floor) if curve.product else curve.floor
        price = gain * objective
        if price > 0.0:
            found.append(BindingLimit(domain=domain.name, limit=by, price=price))
    return found


def _certificate(curves: Sequence[Curve], excesses: Sequence[float], slopes: Sequence[float], t: float) -> Certificate:
    """Measure stationarity at the excesses, and the gap between the risk and the dual function at nu."""
    if not -math.inf < t < _LOG_MAX:
        # Every part stands at an end of its interval (or at risk 1), and the other resource is not spent: no trade.
        return Certificate(convex=True, kkt_residual=0.0, duality_gap=0.0)
    nu = math.exp(t)
    residual = 0.0
    gap: list[float] = []
    total = 0.0
    for curve, excess, log_slope in zip(curves, excesses, slopes, strict=True):
        ratio = math.exp(min(log_slope - t, _LOG_MAX))
        best = curve.excess(t)
        if curve.interval.low < best < curve.interval.high:
            residual = max(residual, abs(ratio - 1.0))
        elif excess <= curve.interval.low < curve.interval.high:
            residual = max(residual, ratio - 1.0)
        elif excess >= curve.interval.high > curve.interval.low:
            residual = max(residual, 1.0 - ratio)
        risked = curve.phi(excess)
        total += risked
        gap.append(risked - curve.phi(best) + nu * (excess - best) if best != excess else 0.0)
    return Certificate(
        convex=True, kkt_residual=residual, duality_gap=max(0.0, math.fsum(gap) / total) if total > 0.0 else 0.0
    )
