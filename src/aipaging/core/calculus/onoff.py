"""Markov-modulated on/off flows: n independent, stationary, alike; fluid and in slots.

The martingale bounds multiply one factor below 1 per flow: the statistical multiplexing that the
moment-generating-function union throws away ([Ciucu2015], [Poloczek2014]). Stated with proofs in
`docs/background/calculus/martingale.md`, including the case p + q < 1 where the published prefactor fails.
"""

import math
from dataclasses import dataclass

from aipaging.core.calculus.errors import UnstableError, never_exceeds, overloaded, require_positive
from aipaging.core.calculus.rounding import largest_root, whole_below
from aipaging.core.foundation.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class FluidOnOff:
    """`count` fluid flows: off -> on at rate `off_to_on`, on -> off at `on_to_off`, `peak` while on."""

    count: int
    off_to_on: float
    on_to_off: float
    peak: float

    def __post_init__(self) -> None:
        require_positive(count=self.count, off_to_on=self.off_to_on, on_to_off=self.on_to_off, peak=self.peak)

    @property
    def mean_rate(self) -> float:
        """Mean work per unit of time of all flows."""
        return self.count * self.peak * self.off_to_on / (self.off_to_on + self.on_to_off)

    @property
    def peak_rate(self) -> float:
        """Work per unit of time while every flow is on."""
        return self.count * self.peak

    def rho(self, theta: float) -> float:
        """Return the rate rho with E exp(theta A(t)) <= exp(theta rho t), the flows being stationary."""
        up, down = self.off_to_on, self.on_to_off
        drift = theta * self.peak - up - down
        # (drift + sqrt(drift^2 + 4 up theta P)) / 2, without cancellation while drift < 0.
        root = math.sqrt(drift * drift + 4.0 * up * theta * self.peak)
        largest = 0.5 * (drift + root) if drift > 0.0 else 2.0 * up * theta * self.peak / (root - drift)
        return self.count * largest / theta


@dataclass(frozen=True, slots=True, kw_only=True)
class SlottedOnOff:
    """`count` flows in slots: an on flow sends `peak` per slot and stays on with probability `stay_on`."""

    count: int
    stay_off: float
    stay_on: float
    peak: float

    def __post_init__(self) -> None:
        require_positive(count=self.count, peak=self.peak)
        if not (0.0 < self.stay_off < 1.0 and 0.0 < self.stay_on < 1.0):
            raise InvalidInputError("stay_off and stay_on must lie strictly between 0 and 1", field="stay_on")

    @property
    def on_probability(self) -> float:
        """The stationary probability that one flow is on."""
        return (1.0 - self.stay_off) / (2.0 - self.stay_off - self.stay_on)

    @property
    def mean_rate(self) -> float:
        """Mean work per slot of all flows."""
        return self.count * self.peak * self.on_probability

    @property
    def peak_rate(self) -> float:
        """Work of a slot in which every flow is on."""
        return self.count * self.peak

    def log_eigenvalue(self, theta: float) -> float:
        """Return ln of the Perron eigenvalue of one flow, the growth of E exp(theta A) per slot."""
        p, q = self.stay_off, self.stay_on
        shift = theta * self.peak
        # Scaled by exp(-shift) so that nothing overflows.
        small = math.exp(-shift)
        trace = p * small + q
        return shift + math.log(0.5 * (trace + math.sqrt(max(0.0, trace * trace - 4.0 * (p + q - 1.0) * small))))

    def rho(self, theta: float) -> float:
        """Return the growth of all flows per slot, divided by theta."""
        return self.count * self.log_eigenvalue(theta) / theta

    def log_on_weight(self, theta: float, log_eigenvalue: float) -> float:
        """Return ln g(on), where g(off) = 1 and g is the right Perron vector of P diag(exp(theta a))."""
        p = self.stay_off
        # ln((lam - p) / (1 - p)); neither exp(ln lam) for a large one nor 1 - p for a small one may spoil it.
        if log_eigenvalue > 1.0:
            log_gain = log_eigenvalue + math.log1p(-p * math.exp(-log_eigenvalue))
        else:
            log_gain = math.log(math.expm1(log_eigenvalue) + (1.0 - p))
        return log_gain - math.log1p(-p) - theta * self.peak


def fluid_decay(flows: FluidOnOff, capacity: float) -> float:
    """Return theta* = beta/(P - c) - alpha/c, the decay rate of the backlog, c = C/n.

    Raises:
        UnstableError: The mean rate reaches the capacity.
    """
    if overloaded(flows.mean_rate, capacity):
        raise UnstableError
    c = capacity / flows.count
    return flows.on_to_off / (flows.peak - c) - flows.off_to_on / c


def fluid_martingale(flows: FluidOnOff, capacity: float, backlog: float) -> tuple[float, float]:
    """Return (ln of a bound on P(Q > backlog), theta*) for fluid flows at a constant rate.

    P(Q > x) <= E[w^N] w^{-N0} exp(-theta* x), w = c beta / ((P - c) alpha), N0 the least number of flows
    that overloads the server. -inf where the flows can never exceed the capacity.
    """
    if never_exceeds(flows.peak_rate, capacity):
        return -math.inf, math.inf
    theta = fluid_decay(flows, capacity) * (1.0 - 1e-14)
    c = capacity / flows.count
    up, down = flows.off_to_on, flows.on_to_off
    log_w = math.log(c) + math.log(down) - math.log(flows.peak - c) - math.log(up)
    overloading = whole_below(capacity / flows.peak) + 1
    log_mean = math.log((down + up * math.exp(log_w)) / (up + down))
    return flows.count * log_mean - overloading * log_w - theta * backlog, theta


def slotted_decay(flows: SlottedOnOff, capacity: float) -> float:
    """Return theta*: the eigenvalue of one flow equals exp(theta C/n).

    Raises:
        UnstableError: The mean rate reaches the capacity.
    """
    if overloaded(flows.mean_rate, capacity):
        raise UnstableError
    c = capacity / flows.count
    unit = SlottedOnOff(count=1, stay_off=flows.stay_off, stay_on=flows.stay_on, peak=1.0)
    load = c / flows.peak
    return largest_root(lambda u: unit.log_eigenvalue(u) - u * load, math.inf) / flows.peak


def log_least_weight(flows: SlottedOnOff, capacity: float, log_on: float) -> float:
    """Return ln min of g over the states that overload the server.

    g = g(on)^k, k the number of flows that are on. With p + q < 1 (negative association) g(on) < 1 and the
    least is at k = n, not at the least overloading k: the published prefactor is then not a bound.
    """
    overloading = whole_below(capacity / flows.peak) + 1
    return min(overloading * log_on, flows.count * log_on)


def slotted_martingale(flows: SlottedOnOff, capacity: float, backlog: float) -> tuple[float, float]:
    """Return (ln of a bound on P(q > backlog), theta*) for slotted flows at a constant rate."""
    if never_exceeds(flows.peak_rate, capacity):
        return -math.inf, math.inf
    theta = slotted_decay(flows, capacity)
    log_on = flows.log_on_weight(theta, theta * capacity / flows.count)
    on = flows.on_probability
    log_mean = math.log((1.0 - on) + on * math.exp(log_on))
    return flows.count * log_mean - log_least_weight(flows, capacity, log_on) - theta * backlog, theta


def slotted_union(flows: SlottedOnOff, capacity: float, backlog: float) -> tuple[float, float]:
    """Return (ln of the union bound on P(q > backlog), theta): sum_{k >= 1} E exp(theta A(k)) exp(-theta (C k + x)).

    E exp(theta A(k)) <= (max h / min h)^n lam^(n k), and <= lam^(n k) for stationary flows with p + q >= 1. It is
    looser than the martingale except where p + q < 1 spoils that one's prefactor.
    """
    end = slotted_decay(flows, capacity)
    best, best_theta = 0.0, 0.0
    for i in range(1, 40):
        theta = end * i / 40.0
        log_eigenvalue = flows.log_eigenvalue(theta)
        gap = theta * capacity - flows.count * log_eigenvalue
        if gap <= 0.0:
            continue
        spread = 0.0
        if flows.stay_off + flows.stay_on < 1.0:
            spread = flows.count * abs(flows.log_on_weight(theta, log_eigenvalue))
        value = spread - theta * backlog - gap - math.log(-math.expm1(-gap))
        if value < best:
            best, best_theta = value, theta
    return best, best_theta
