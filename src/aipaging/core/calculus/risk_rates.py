"""The cheapest reservation when parts have limits of their own: the whole problem at once, with a certificate.

If the reservation without limits keeps them, it is the answer: it solves a relaxation. Otherwise the convex problem

    minimise sum c_i R_i  over  R_i >= L_i(s_i) / (theta_i x_i),  sum x_i <= y,  sum s_i <= phi(epsilon),  boxes

in rates, excesses and shares s = phi(e) goes to a general solver (sequential least squares, [Kraft1988]). What it
returns is not believed: it is moved inside the constraints, and a lower bound from the tangent plane over the boxes
says how much any other reservation could save.
"""

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from aipaging.core.calculus.domain import Dependence
from aipaging.core.calculus.risk_budget import DelayContract
from aipaging.core.calculus.risk_cost import AT_LIMIT, RatedDomain, Reservation, alternating_reservation, rate_limits
from aipaging.core.calculus.risk_limits import (
    DELAY_MAX,
    DELAY_MIN,
    EPSILON_MAX,
    EPSILON_MIN,
    BindingLimit,
    BudgetDomain,
    Certificate,
    InfeasibleBudgetError,
)
from aipaging.core.calculus.risk_split import split_of
from aipaging.core.foundation.errors import InvalidInputError, RefusedError

_ROUNDS_MAX: Final = 400
_UNLIMITED: Final = 1e12
"""A largest rate of infinity is taken as one that needs a 1e12th of the delay."""

Floats = NDArray[np.float64]


def cheapest_reservation(
    domains: Sequence[RatedDomain], delay: float, epsilon: float, *, dependence: Dependence = Dependence.ANY
) -> Reservation:
    """Return the cheapest rates whose parts keep all limits and prove P(sum of delays > delay) <= epsilon.

    Args:
        domains: With names, and limits in ms.
        delay: End to end, ms.
        epsilon: End to end, in (0, 1).
        dependence: What is attested of the contracts.

    Raises:
        InvalidInputError: Nothing to reserve, two of one name, or epsilon outside (0, 1).
        InfeasibleBudgetError: Not even the largest rates keep all limits.
    """
    for i, domain in enumerate(domains):
        if domain.rate_max == 0.0:
            raise InvalidInputError(
                f"{domain.name or i}: a rate_max of 0 sells nothing; leave the domain out", field="rate_max"
            )
    try:
        free = alternating_reservation(domains, delay, epsilon, dependence=dependence)
    except RefusedError:
        # Equal shares, where the alternation starts, may need more than the largest rates; a better split does not.
        free = None
    if free is not None and _keeps_limits(domains, free):
        return free
    _require_feasible(domains, delay, epsilon, dependence)
    return _Whole(domains, delay, epsilon, product=dependence is not Dependence.ANY).solved()


def _require_feasible(domains: Sequence[RatedDomain], delay: float, epsilon: float, dependence: Dependence) -> None:
    """Split at the largest rates: if that fails, nothing cheaper will do."""
    names = [domain.name or str(i) for i, domain in enumerate(domains)]
    fastest = [
        BudgetDomain(
            name=name,
            contract=DelayContract(
                offset_ms=d.offset,
                prefactor=d.prefactor,
                decay_per_ms=d.decay_per_rate * d.rate_max if d.rate_max < math.inf else _UNLIMITED / max(delay, 1e-9),
            ),
            limits=d.limits,
        )
        for name, d in zip(names, domains, strict=True)
    ]
    try:
        split_of(fastest, delay, epsilon, dependence=dependence)
    except InfeasibleBudgetError as error:
        capped = [name for name, d in zip(names, domains, strict=True) if d.rate_max < math.inf]
        if not capped:
            raise
        culprit = error.domain if error.domain in capped else capped[0]
        raise InfeasibleBudgetError(
            f"even at the largest rates (rate_max of {culprit} first): {error.message.partition(';')[0]}",
            constraint=error.constraint,
            domain=culprit,
            short_by=error.short_by,
            feasible_delay_ms=error.feasible_delay_ms,
            feasible_epsilon=error.feasible_epsilon,
        ) from None


def _keeps_limits(domains: Sequence[RatedDomain], found: Reservation) -> bool:
    return all(
        d.limits.delay_min_ms <= delay * (1.0 + 1e-15)
        and delay <= d.limits.delay_max_ms
        and d.limits.epsilon_min <= share <= d.limits.epsilon_max
        for d, delay, share in zip(domains, found.delays, found.epsilons, strict=True)
    )


class _Whole:
    """The problem in arrays: z = (rates, excesses, shares s), each scaled to order one."""

    def __init__(self, domains: Sequence[RatedDomain], delay: float, epsilon: float, *, product: bool) -> None:
        self.domains = domains
        self.product = product
        self.log_prefactor = np.log([d.prefactor for d in domains])
        self.theta = np.array([d.decay_per_rate for d in domains])
        self.price = np.array([d.price for d in domains])
        self.offset = np.array([d.offset for d in domains])
        self.excess = (delay - float(self.offset.sum())) * (1.0 - 1e-12)
        allowed = -math.log1p(-epsilon) if product else epsilon
        self.allowed = allowed * (1.0 - 1e-12)
        limits = [d.limits for d in domains]
        self.x_low = np.maximum([limit.delay_min_ms for limit in limits] - self.offset, 0.0)
        self.x_high = np.minimum([limit.delay_max_ms for limit in limits] - self.offset, self.excess)
        shares_max = np.minimum(
            [limit.epsilon_max for limit in limits], np.minimum(np.exp(self.log_prefactor), epsilon)
        )
        self.s_low = self.phi(np.array([limit.epsilon_min for limit in limits]))
        self.s_high = np.maximum(self.phi(shares_max), self.s_low)
        self.r_low = np.array([d.rate_min for d in domains])
        self.r_high = np.array([d.rate_max for d in domains])

    def phi(self, shares: Floats) -> Floats:
        return np.asarray(-np.log1p(-np.minimum(shares, 1.0 - 1e-16)) if self.product else shares)

    def shares(self, s: Floats) -> Floats:
        return np.asarray(-np.expm1(-s) if self.product else s)

    def logs(self, s: Floats) -> Floats:
        return np.asarray(np.maximum(self.log_prefactor - np.log(self.shares(s)), 0.0))

    def log_slope(self, s: Floats) -> Floats:
        """Return -d L / d s."""
        return np.asarray(np.exp(-s) / self.shares(s) if self.product else 1.0 / s)

    def solved(self) -> Reservation:
        from scipy.optimize import minimize  # noqa: PLC0415 - half the import time of the library; rarely needed

        n = len(self.domains)
        s = np.clip(self.allowed / n, np.maximum(self.s_low, self.allowed * 1e-9), self.s_high)
        x = np.clip(self.excess / n, np.maximum(self.x_low, self.excess * 1e-9), self.x_high)
        rates = np.clip(self.logs(s) / (self.theta * x), self.r_low, self.r_high)
        scale = np.concatenate([np.maximum(rates, 1e-300), np.full(n, self.excess), np.full(n, self.allowed)])
        cost = float(self.price @ rates) or 1.0

        def unpack(z: Floats) -> tuple[Floats, Floats, Floats]:
            whole = z * scale
            return whole[:n], whole[n : 2 * n], whole[2 * n :]

        def room(z: Floats) -> Floats:
            r, at, share = unpack(z)
            return np.asarray((r - self.logs(share) / (self.theta * at)) / scale[:n])

        def room_slope(z: Floats) -> Floats:
            _, at, share = unpack(z)
            needed = self.logs(share) / (self.theta * at)
            by_x = np.diag(needed / at * scale[n : 2 * n] / scale[:n])
            by_s = np.diag(self.log_slope(share) / (self.theta * at) * scale[2 * n :] / scale[:n])
            return np.hstack([np.eye(n), by_x, by_s])

        weights = np.concatenate([self.price * scale[:n] / cost, np.zeros(2 * n)])
        sums = np.vstack([np.repeat([0.0, 1.0, 0.0], n), np.repeat([0.0, 0.0, 1.0], n)])
        low = np.concatenate(
            [self.r_low, np.maximum(self.x_low, self.excess * 1e-9), np.maximum(self.s_low, self.allowed * 1e-9)]
        )

        def cost_of(z: Floats) -> float:
            return float(weights @ z)

        def cost_slope(_: Floats) -> Floats:
            return weights

        def spare(z: Floats) -> Floats:
            return np.asarray(1.0 - sums @ z)

        def spare_slope(_: Floats) -> Floats:
            return -sums

        found: Any = minimize(
            cost_of,
            np.concatenate([rates, x, s]) / scale,
            jac=cost_slope,
            method="SLSQP",
            bounds=list(zip(low / scale, np.concatenate([self.r_high, self.x_high, self.s_high]) / scale, strict=True)),
            constraints=[
                {"type": "ineq", "fun": room, "jac": room_slope},
                {"type": "ineq", "fun": spare, "jac": spare_slope},
            ],
            options={"ftol": 1e-15, "maxiter": _ROUNDS_MAX},
        )
        _, x, s = unpack(np.asarray(found.x, dtype=np.float64))
        return self._inside(x, s)

    def _inside(self, x: Floats, s: Floats) -> Reservation:
        """Move a point that violates constraints by rounding inside all of them, and say what it is worth."""
        s = _shrunk(np.clip(s, self.s_low, self.s_high), self.s_low, self.allowed)
        x = np.clip(x, self.x_low, self.x_high)
        with np.errstate(divide="ignore", invalid="ignore"):
            # A largest rate asks for so much excess.
            x = np.maximum(x, np.where(self.r_high < math.inf, self.logs(s) / (self.theta * self.r_high), 0.0))
        x = _shrunk(x, self.x_low, self.excess)
        logs = self.logs(s)
        with np.errstate(divide="ignore", invalid="ignore"):
            needed = np.where(logs > 0.0, logs / (self.theta * x), 0.0)
        rates = np.clip(needed, self.r_low, None)
        if bool(np.any(rates > self.r_high * (1.0 + AT_LIMIT))):
            raise RefusedError("the solver found no reservation within the largest rates", code="NOT_SOLVED")
        rates = np.where(np.abs(rates - self.r_high) <= AT_LIMIT * rates, np.minimum(rates, self.r_high), rates)
        return self._answer(rates, x, s)

    def _answer(self, rates: Floats, x: Floats, s: Floats) -> Reservation:
        price, delay_price, risk_price = self._prices(rates, x, s)
        slope_x, slope_s = price * rates / x, price * self.log_slope(s) / (self.theta * x)
        bound = float(price @ rates + (self.price - price) @ rates)
        bound += float(slope_x @ x) - _knapsack(slope_x, self.x_low, self.x_high, self.excess)
        bound += float(slope_s @ s) - _knapsack(slope_s, self.s_low, self.s_high, self.allowed)
        cost = float(self.price @ rates)
        convex = bool(np.all(self.log_prefactor - np.log(self.shares(self.s_high)) >= 0.5))
        inner_x = _inner(x, self.x_low, self.x_high)
        inner_s = _inner(s, self.s_low, self.s_high)
        residual = max(
            [0.0]
            + ([float(np.max(np.abs(slope_x[inner_x] / delay_price - 1.0)))] if delay_price and inner_x.any() else [])
            + ([float(np.max(np.abs(slope_s[inner_s] / risk_price - 1.0)))] if risk_price and inner_s.any() else [])
        )
        names = [d.name or str(i) for i, d in enumerate(self.domains)]
        shares = self.shares(s)
        binding = rate_limits(self.domains, rates.tolist(), x.tolist(), delay_price)
        for i, name in enumerate(names):
            for at, low, high, gain, low_name, high_name in (
                (x[i], self.x_low[i], self.x_high[i], slope_x[i] - delay_price, DELAY_MIN, DELAY_MAX),
                (s[i], self.s_low[i], self.s_high[i], (slope_s[i] - risk_price) * s[i], EPSILON_MIN, EPSILON_MAX),
            ):
                if at >= high * (1.0 - AT_LIMIT) and gain > AT_LIMIT * cost:
                    binding.append(BindingLimit(domain=name, limit=high_name, price=float(gain)))
                elif at <= low * (1.0 + AT_LIMIT) and low > 0.0 and -gain > AT_LIMIT * cost:
                    binding.append(BindingLimit(domain=name, limit=low_name, price=float(-gain)))
        return Reservation(
            rates=tuple(rates.tolist()),
            epsilons=tuple(shares.tolist()),
            delays=tuple((self.offset + x).tolist()),
            cost=cost,
            convex=convex,
            delay_price=delay_price,
            log_epsilon_price=risk_price * (math.expm1(self.allowed) if self.product else self.allowed),
            binding=tuple(binding),
            certificate=Certificate(
                convex=convex,
                kkt_residual=residual,
                duality_gap=max(0.0, (cost - bound) / cost) if convex else math.inf,
            ),
        )

    def _prices(self, rates: Floats, x: Floats, s: Floats) -> tuple[Floats, float, float]:
        """Return the prices at which rates count (see `risk_cost.certificate`), and those of delay and risk."""
        free = (rates > self.r_low * (1.0 + AT_LIMIT)) & (rates < self.r_high * (1.0 - AT_LIMIT))
        movable = free & _inner(x, self.x_low, self.x_high)
        delay_price = float(np.median((self.price * rates / x)[movable])) if movable.any() else 0.0
        price = self.price.copy()
        level = delay_price * x / np.maximum(rates, 1e-300)
        price = np.where(rates <= self.r_low * (1.0 + AT_LIMIT), np.minimum(price, level), price)
        price = np.where(rates >= self.r_high * (1.0 - AT_LIMIT), np.maximum(price, level), price)
        slope_s = price * self.log_slope(s) / (self.theta * x)
        inner = _inner(s, self.s_low, self.s_high) & (slope_s > 0.0)
        return price, delay_price, float(np.median(slope_s[inner])) if inner.any() else 0.0


def _inner(at: Floats, low: Floats, high: Floats) -> NDArray[np.bool_]:
    return (at > low * (1.0 + AT_LIMIT)) & (at < high * (1.0 - AT_LIMIT))


def _shrunk(at: Floats, low: Floats, whole: float) -> Floats:
    """Scale what lies above the lower limits, so that the sum stays within the whole."""
    above = at - low
    over = float(at.sum()) - whole
    return at - above * min(1.0, over / float(above.sum()) * (1.0 + 1e-12)) if over > 0.0 and above.any() else at


def _knapsack(slopes: Floats, low: Floats, high: Floats, whole: float) -> float:
    """Return the largest sum of slope times amount over {low <= amount <= high, sum <= whole}."""
    value, left = float(slopes @ low), whole - float(low.sum())
    for i in np.argsort(-slopes):
        take = min(left, float(high[i] - low[i]))
        if take <= 0.0 or slopes[i] <= 0.0:
            continue
        value += float(slopes[i]) * take
        left -= take
    return value
