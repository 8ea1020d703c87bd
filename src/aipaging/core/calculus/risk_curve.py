"""A domain as a function of the multiplier of a risk budget, and the search for the multiplier.

With phi(e) = e under any dependence, or -ln(1 - e) where contracts hold given the past, the part of a domain is optimal
for a multiplier nu if -d phi / d x = nu inside its interval of excesses. That is in closed form, so a sum over domains
is a monotone function of t = ln nu with known breakpoints: a binary search over them leaves the active set, for which
nu is in closed form (union) or the root of a smooth function (product).
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from aipaging.core.calculus.domain import Dependence
from aipaging.core.calculus.risk_limits import BudgetDomain, Interval, interval_of, require_domains

_ROUNDS_MAX: Final = 200
_NEAR: Final = 1e-9

_WIDENINGS_MAX: Final = 20
"""Doublings: a t of a million is beyond every float."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One domain as a function of t = ln nu."""

    log_prefactor: float
    log_decay: float
    scale: float
    floor: float
    interval: Interval
    product: bool

    def excess(self, t: float) -> float:
        """Return x(nu): the excess at which -d phi / d x = nu, within the interval."""
        interval = self.interval
        lift = self.log_decay - t
        if self.product:
            # e / (1 - e) = nu / eta, so M exp(-eta x) = 1 / (1 + eta / nu).
            lift = lift + math.log1p(math.exp(-lift)) if lift > 0.0 else math.log1p(math.exp(lift))
        raw = (self.log_prefactor + lift) * self.scale
        if raw > interval.low:
            return min(interval.high, raw)
        return interval.low

    def risk(self, excess: float) -> float:
        """Return the risk of a part."""
        tail = self.log_prefactor - excess / self.scale
        risk = math.exp(tail) if tail < 0.0 else 1.0
        return max(self.floor, risk)

    def phi(self, excess: float) -> float:
        """Return what the risk of a part adds to the sum that is bounded."""
        risk = self.risk(excess)
        if not self.product:
            return risk
        return -math.log1p(-risk) if risk < 1.0 else math.inf

    def log_slope(self, excess: float) -> float:
        """Return ln(-d phi / d x) of the tail, floor or not: finite where the tail itself underflows."""
        log_tail = min(self.log_prefactor - excess / self.scale, 0.0)
        if self.product:
            log_tail = log_tail - math.log(-math.expm1(log_tail)) if log_tail < 0.0 else math.inf
        return log_tail + self.log_decay

    def breakpoints(self) -> tuple[float, ...]:
        """Return the t at which x(nu) reaches an end of the interval."""
        if self.interval.low == self.interval.high:
            return ()
        slopes = (self.log_slope(end) for end in (self.interval.low, self.interval.high))
        return tuple(slope for slope in slopes if math.isfinite(slope))


def curves_of(domains: Sequence[BudgetDomain], dependence: Dependence) -> list[Curve]:
    """Return the domains as functions of the multiplier.

    Raises:
        InvalidInputError: No domains, or two of one name.
        InfeasibleBudgetError: The limits of one domain contradict its contract.
    """
    require_domains(domains)
    product = dependence is not Dependence.ANY
    return [
        Curve(
            math.log(domain.contract.prefactor) if domain.contract.prefactor > 0.0 else -math.inf,
            math.log(domain.contract.decay_per_ms),
            1.0 / domain.contract.decay_per_ms,
            domain.limits.epsilon_min,
            interval_of(domain),
            product,
        )
        for domain in domains
    ]


def level_of(
    curves: Sequence[Curve], excess: Callable[[float], float], solve: Callable[[float], float | None]
) -> float:
    """Return t where a rising function is zero.

    Args:
        curves: Whose breakpoints the function has.
        excess: The function.
        solve: Given a point of the segment that holds the zero, return the zero, or None where it cannot be told.
    """
    left, right = _segment(curves, excess)
    exact = solve(0.5 * (left + right))
    near = _NEAR * max(1.0, abs(exact or 0.0))
    # Near risk 1 an active part of a product cannot be told from one at its end: then the root is not one.
    if exact is not None and left - near <= exact <= right + near and (
        not curves[0].product or excess(exact - near) <= 0.0 <= excess(exact + near)
    ):  # fmt: skip
        return exact
    for _ in range(_ROUNDS_MAX):
        middle = 0.5 * (left + right)
        if not left < middle < right:
            break
        if excess(middle) < 0.0:
            left = middle
        else:
            right = middle
    return right


def _segment(curves: Sequence[Curve], excess: Callable[[float], float]) -> tuple[float, float]:
    """Return neighbouring breakpoints between which a rising function is zero."""
    points = sorted({point for curve in curves for point in curve.breakpoints()}) or [curves[0].log_decay]
    at = bisect_left(points, 0.0, key=excess)
    if 0 < at < len(points):
        return points[at - 1], points[at]
    # Beyond the last breakpoint the function only moves if an interval is open: widen until it turns.
    left, right = (points[0] - 1.0, points[0]) if at == 0 else (points[-1], points[-1] + 1.0)
    for _ in range(_WIDENINGS_MAX):
        if excess(left) <= 0.0 <= excess(right):
            break
        width = 2.0 * (right - left)
        left, right = (left - width, left) if at == 0 else (right, right + width)
    return left, right


def _parted(curves: Sequence[Curve], t: float) -> tuple[list[Curve], list[tuple[Curve, float]]]:
    """Return the domains that are inside their intervals at t, and the others with the ends where they stand."""
    moving: list[Curve] = []
    fixed: list[tuple[Curve, float]] = []
    for curve in curves:
        excess = curve.excess(t)
        if curve.interval.low < excess < curve.interval.high:
            moving.append(curve)
        else:
            fixed.append((curve, excess))
    return moving, fixed


def active_by_delay(curves: Sequence[Curve], t: float, slack: float) -> float | None:
    """Return t for which the excesses of the active domains spend the slack."""
    moving, standing = _parted(curves, t)
    if not moving:
        return None
    rest = slack - math.fsum([excess for _, excess in standing])
    if not curves[0].product:
        total = math.fsum([(c.log_prefactor + c.log_decay) * c.scale for c in moving])
        return (total - rest) / math.fsum([c.scale for c in moving])
    fixed = math.fsum([c.log_prefactor * c.scale for c in moving]) - rest
    terms = [(c.log_decay, c.scale) for c in moving]
    # Newton on a convex falling function: from the left of the root it never oversteps.
    for _ in range(_ROUNDS_MAX):
        # ln(1 + exp(lift)), and its derivative 1 / (1 + exp(-lift)), where lift = ln eta - t.
        odds = [(math.exp(-abs(log_decay - t)), log_decay > t, scale) for log_decay, scale in terms]
        value = fixed + math.fsum(
            [(math.log1p(least) + (log_decay - t if above else 0.0)) * scale
             for (least, above, scale), (log_decay, _) in zip(odds, terms, strict=True)]
        )  # fmt: skip
        rate = math.fsum([scale / (1.0 + least) * (1.0 if above else least) for least, above, scale in odds])
        step = value / rate if rate > 0.0 else math.inf
        if not math.isfinite(step):
            return None
        t += step
        if abs(step) <= 1e-14 * max(1.0, abs(t)):
            return t
    return None


def active_by_risk(curves: Sequence[Curve], t: float, allowed: float) -> float | None:
    """Return t for which the risks of the active domains spend what is allowed."""
    moving, standing = _parted(curves, t)
    rest = allowed - math.fsum([curve.phi(excess) for curve, excess in standing])
    scales = [curve.scale for curve in moving]
    if not scales or rest <= 0.0:
        return None
    nu = rest / math.fsum(scales)
    if not curves[0].product:
        return math.log(nu)
    # phi = ln(1 + nu / eta): concave and rising, so Newton approaches its root from the left.
    for _ in range(_ROUNDS_MAX):
        missing = rest - math.fsum(math.log1p(nu * scale) for scale in scales)
        step = missing / math.fsum(scale / (1.0 + nu * scale) for scale in scales)
        nu += step
        if abs(step) <= 1e-15 * nu:
            break
    return math.log(nu)
