"""The cheapest rates for the joint tail, where every contract holds given the past: no parts, far less to reserve.

Domain i, at rate R_i, is at most T_i + (ln M_i + E_i) / (theta_i R_i) with independent E_i = Exp(1) (M_i >= 1 first),
so the sum is hypoexponential. In r_i = ln R_i the problem is convex: sum (ln M_i + exp(a_i)) exp(-r_i) <= y is a convex
set in (a, r), a_i = ln E_i has a log-concave density, so P(sum <= y) is log-concave in r ([Prekopa1973]), and so is
the set of rates that do; the cost sum c_i exp(r_i) is convex.

The tail's slopes are tails themselves: d tail / d ln eta_i = -(tail with stage i twice - tail). A general solver finds
the point; the certificate is the least cost in the half-space that its tangent plane leaves, in closed form.
"""

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from aipaging.core.calculus.domain import Dependence
from aipaging.core.calculus.hypoexponential import hypoexponential_tail
from aipaging.core.calculus.risk_cost import RatedDomain, Reservation, alternating_reservation
from aipaging.core.calculus.risk_limits import BindingLimit, Certificate, InfeasibleBudgetError
from aipaging.core.foundation.errors import InvalidInputError

Floats = NDArray[np.float64]

_ROUNDS_MAX: Final = 200
_TAIL_SAFE: Final = 1.0 - 1e-9


def joint_tail(domains: Sequence[RatedDomain], rates: Sequence[float], delay: float) -> float:
    """Return the bound on P(sum of delays > delay) at given rates, contracts holding given the past; rounded up."""
    return _Joint(domains, delay).tail(np.asarray(rates, dtype=np.float64))


def cheapest_joint_reservation(domains: Sequence[RatedDomain], delay: float, epsilon: float) -> Reservation:
    """Return the cheapest rates whose joint tail proves P(sum of delays > delay) <= epsilon.

    Every contract must hold given the past (independent ones do). Limits on parts have no meaning here; those on rates
    have.

    Raises:
        InvalidInputError: Nothing to reserve, or epsilon outside (0, 1).
        InfeasibleBudgetError: Not even the largest rates do.
    """
    if not domains or not 0.0 < epsilon < 1.0:
        raise InvalidInputError("give at least one domain and an epsilon in (0, 1)", field="epsilon")
    problem = _Joint(domains, delay)
    start = problem.start(epsilon)
    from scipy.optimize import minimize  # noqa: PLC0415 - half the import time of the library; rarely needed

    scale = float(problem.price @ start)

    def cost(r: Floats) -> float:
        return float(problem.price @ np.exp(r)) / scale

    def cost_slope(r: Floats) -> Floats:
        return problem.price * np.exp(r) / scale

    def room(r: Floats) -> float:
        return math.log(epsilon * _TAIL_SAFE) - math.log(problem.tail(np.exp(r)))

    def room_slope(r: Floats) -> Floats:
        return -problem.log_slopes(np.exp(r))[0]

    found: Any = minimize(
        cost,
        np.log(start),
        jac=cost_slope,
        method="SLSQP",
        bounds=list(zip(np.log(problem.low), np.log(problem.high), strict=True)),
        constraints=[{"type": "ineq", "fun": room, "jac": room_slope}],
        options={"ftol": 1e-14, "maxiter": _ROUNDS_MAX},
    )
    return problem.answer(problem.inside(np.exp(np.asarray(found.x, dtype=np.float64)), epsilon), epsilon)


class _Joint:
    """The joint tail as a function of the rates."""

    def __init__(self, domains: Sequence[RatedDomain], delay: float) -> None:
        self.domains = domains
        self.delay = delay
        self.left = (delay - math.fsum(d.offset for d in domains)) * (1.0 - 1e-14)
        self.log_prefactor = np.array([max(0.0, math.log(d.prefactor)) for d in domains])
        self.theta = np.array([d.decay_per_rate for d in domains])
        self.price = np.array([d.price for d in domains])
        self.high = np.array([d.rate_max for d in domains])
        self.low = np.array([d.rate_min for d in domains])

    def start(self, epsilon: float) -> Floats:
        """Return feasible rates: those of the parts where there are, else the largest; and set the box."""
        if self.left <= 0.0:
            raise InfeasibleBudgetError(
                f"the offsets alone take {self.delay - self.left:g}, {-self.left:g} more than the delay",
                constraint="delay_ms",
                domain=max(self.domains, key=lambda d: d.offset).name,
                short_by=-self.left,
            )
        # Every domain alone must do: eta_i y >= ln(M_i / epsilon). No cheaper rate is feasible.
        alone = (self.log_prefactor - math.log(epsilon)) / (self.theta * self.left)
        # Shares of epsilon / n each at y / n: feasible, so the cheapest costs no more.
        n = len(self.domains)
        equal = n * (self.log_prefactor + math.log(n / epsilon)) / (self.theta * self.left)
        cost = float(self.price @ np.maximum(equal, self.low))
        self.low = np.maximum(self.low, np.minimum(alone, self.high) * (1.0 - 1e-9))
        at_most = np.minimum(self.high, 1e6 * np.maximum(equal, cost / self.price))
        if (worst := self.tail(at_most)) > epsilon:
            raise InfeasibleBudgetError(
                f"at the largest rates the risk is {worst:.4g}, {worst - epsilon:.4g} more than {epsilon:.4g}",
                constraint="epsilon",
                domain=self._slowest(),
                short_by=worst - epsilon,
                feasible_epsilon=worst,
            )
        self.high = at_most
        if np.all(self.high >= equal):
            relaxed = [
                RatedDomain(offset=0.0, prefactor=max(1.0, d.prefactor), decay_per_rate=d.decay_per_rate, price=d.price)
                for d in self.domains
            ]
            parts = alternating_reservation(relaxed, self.left, epsilon, dependence=Dependence.CONDITIONAL)
            equal = np.array(parts.rates)
        return np.asarray(np.maximum(self.low, np.minimum(equal, self.high)))

    def _slowest(self) -> str:
        i = int(np.argmin(self.theta * self.high))
        return self.domains[i].name or str(i)

    def tail(self, rates: Floats) -> float:
        decays = self.theta * rates
        return hypoexponential_tail(decays.tolist(), self.left - float(np.sum(self.log_prefactor / decays)))

    def log_slopes(self, rates: Floats) -> tuple[Floats, float]:
        """Return d ln(tail) / d ln R of every domain, and -d ln(tail) / d delay."""
        decays = (self.theta * rates).tolist()
        left = self.left - float(np.sum(self.log_prefactor / decays))
        if left <= 0.0:
            # The tail is 1 there: point towards more of every rate.
            return -np.ones(len(decays)), 0.0
        tail = hypoexponential_tail(decays, left)
        more = np.array([hypoexponential_tail([*decays, decay], left) for decay in decays])
        fewer = hypoexponential_tail(decays[1:], left) if len(decays) > 1 else 0.0
        density = decays[0] * (tail - fewer)
        slopes = -(more - tail) - density * self.log_prefactor / np.array(decays)
        return slopes / tail, density / tail

    def inside(self, rates: Floats, epsilon: float) -> Floats:
        """Raise all rates by the factor that the solver's tolerance left open."""
        low, high = 0.0, 1e-12
        while self.tail(np.minimum(rates * (1.0 + high), self.high)) > epsilon:
            low, high = high, 4.0 * high
            if high > 1e12:
                break
        for _ in range(40):
            middle = 0.5 * (low + high)
            if self.tail(np.minimum(rates * (1.0 + middle), self.high)) > epsilon:
                low = middle
            else:
                high = middle
        return np.asarray(np.minimum(rates * (1.0 + high), self.high))

    def answer(self, rates: Floats, epsilon: float) -> Reservation:
        cost = float(self.price @ rates)
        slopes, by_delay = self.log_slopes(rates)
        excess = math.log(self.tail(rates)) - math.log(epsilon)
        free = (rates > self.low * (1.0 + 1e-6)) & (rates < self.high * (1.0 - 1e-6))
        willing = -self.price * rates / slopes
        risk_price = float(np.median(willing[free])) if free.any() else 0.0
        residual = float(np.max(np.abs(willing[free] / risk_price - 1.0))) if risk_price else 0.0
        bound = _least_in_half_space(self, rates, slopes, excess)
        binding = [
            BindingLimit(domain=d.name or str(i), limit=limit, price=float(gain))
            for i, d in enumerate(self.domains)
            for limit, at, gain in (
                ("rate_max", d.rate_max, -slopes[i] * risk_price / rates[i] - d.price),
                ("rate_min", d.rate_min, d.price + slopes[i] * risk_price / rates[i]),
            )
            if abs(rates[i] - at) <= 1e-6 * rates[i] and gain > 0.0
        ]
        return Reservation(
            rates=tuple(rates.tolist()),
            epsilons=(),
            delays=(),
            cost=cost,
            convex=True,
            delay_price=risk_price * by_delay,
            log_epsilon_price=risk_price,
            binding=tuple(binding),
            certificate=Certificate(convex=True, kkt_residual=residual, duality_gap=max(0.0, (cost - bound) / cost)),
        )


def _least_in_half_space(problem: _Joint, rates: Floats, slopes: Floats, excess: float) -> float:
    """Minimise sum c exp(r) over the box and {excess + slopes (r - r*) <= 0}: for a multiplier k, c R = -k slope."""
    low, high = problem.low, problem.high

    def at(log_k: float) -> tuple[float, float]:
        r = np.clip(-math.exp(log_k) * slopes / problem.price, low, high)
        return float(problem.price @ r), excess + float(slopes @ np.log(r / rates))

    left, right = -700.0, 700.0
    for _ in range(200):
        middle = 0.5 * (left + right)
        if at(middle)[1] > 0.0:
            left = middle
        else:
            right = middle
    # The dual value at k is a lower bound for every k.
    cost, beyond = at(left)
    return cost + math.exp(left) * beyond
