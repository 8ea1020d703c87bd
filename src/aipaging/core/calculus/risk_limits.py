"""What a part of the budget must keep to, and what is said when nothing does.

A limit on the delay or on the risk of a part is, through the contract, a limit on its excess x = delay - offset: the
risk max(epsilon_min, M exp(-eta x)) falls with x. So every limit becomes an end of an interval of x, and remembers
which one it was.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from aipaging.core.calculus.errors import require_non_negative
from aipaging.core.calculus.risk_budget import DelayContract
from aipaging.core.foundation.errors import InvalidInputError, RefusedError

DOMAINS_MAX: Final = 64
"""As many as the parts of a composite envelope; a path has a handful."""

OFFSET: Final = "offset_ms"
DELAY_MIN: Final = "delay_min_ms"
DELAY_MAX: Final = "delay_max_ms"
EPSILON_MIN: Final = "epsilon_min"
EPSILON_MAX: Final = "epsilon_max"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartLimits:
    """Between what the part of a domain must lie.

    Attributes:
        delay_min_ms: The part gets at least so much delay.
        delay_max_ms: The part gets at most so much.
        epsilon_min: The part is charged at least so much risk: below it, the domain's measurements say nothing.
        epsilon_max: The part may risk at most so much.
    """

    delay_min_ms: float = 0.0
    delay_max_ms: float = math.inf
    epsilon_min: float = 0.0
    epsilon_max: float = 1.0

    def __post_init__(self) -> None:
        require_non_negative(delay_min_ms=self.delay_min_ms, epsilon_min=self.epsilon_min)
        if not self.delay_max_ms >= self.delay_min_ms:
            raise InvalidInputError("delay_max_ms must be at least delay_min_ms", field=DELAY_MAX)
        if not (self.epsilon_min <= self.epsilon_max <= 1.0 and self.epsilon_max > 0.0):
            raise InvalidInputError("epsilon_max must be positive, in [epsilon_min, 1]", field=EPSILON_MAX)


NO_LIMITS: Final = PartLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetDomain:
    """One domain of the path: what it promises, and what its part must keep to."""

    name: str
    contract: DelayContract
    limits: PartLimits = field(default=NO_LIMITS)


class InfeasibleBudgetError(RefusedError):
    """No split keeps all limits.

    Attributes:
        constraint: The limit that stands in the way: `delay_ms` or `epsilon` of the whole, or a limit of a domain.
        domain: Whose limit it is; the domain that weighs most where it is one of the whole.
        short_by: By how much, in the unit of the constraint.
        feasible_delay_ms: The least end-to-end delay that would do with all else unchanged; inf if none would.
        feasible_epsilon: The least end-to-end risk that would do with all else unchanged; 1 if none would.
    """

    def __init__(
        self,
        message: str,
        *,
        constraint: str,
        domain: str,
        short_by: float,
        feasible_delay_ms: float = math.inf,
        feasible_epsilon: float = 1.0,
    ) -> None:
        nearest: list[str] = []
        if math.isfinite(feasible_delay_ms):
            nearest.append(f"a delay of {feasible_delay_ms:.6g} ms")
        if feasible_epsilon < 1.0:
            nearest.append(f"an epsilon of {feasible_epsilon:.4g}")
        feasible = f"; {' or '.join(nearest)} would be feasible" if nearest else ""
        super().__init__(message + feasible, code="INFEASIBLE", field=constraint)
        self.constraint = constraint
        self.domain = domain
        self.short_by = short_by
        self.feasible_delay_ms = feasible_delay_ms
        self.feasible_epsilon = feasible_epsilon


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """How far the answer is from the optimum, measured apart from how it was found.

    Attributes:
        convex: Whether the problem is convex, so that the gap bounds what any other split could gain.
        kkt_residual: Largest relative violation of stationarity and of the constraint that is spent.
        duality_gap: (value - lower bound) / value; inf where no lower bound is known.
    """

    convex: bool
    kkt_residual: float
    duality_gap: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BindingLimit:
    """A limit that holds the answer back.

    Attributes:
        domain: Whose.
        limit: Which.
        price: What relaxing it gains, in the unit of the objective: per ms for delays, per factor e for risks.
    """

    domain: str
    limit: str
    price: float


@dataclass(frozen=True, slots=True)
class Interval:
    """The excesses that the limits of a domain leave, and which limits the ends are."""

    low: float
    high: float
    low_by: str
    high_by: str


def interval_of(domain: BudgetDomain) -> Interval:
    """Return the excesses that keep the limits of a domain.

    Raises:
        InfeasibleBudgetError: None does: the limits of this domain alone contradict its contract.
    """
    contract, limits = domain.contract, domain.limits
    low, low_by = 0.0, OFFSET
    if limits.delay_min_ms > contract.offset_ms:
        low, low_by = limits.delay_min_ms - contract.offset_ms, DELAY_MIN
    if contract.prefactor > limits.epsilon_max:
        needed = math.log(contract.prefactor / limits.epsilon_max) / contract.decay_per_ms
        if needed > low:
            low, low_by = needed, EPSILON_MAX
    high, high_by = limits.delay_max_ms - contract.offset_ms, DELAY_MAX
    if high < low:
        raise InfeasibleBudgetError(
            f"{domain.name}: {low_by} asks for a part of at least {contract.offset_ms + low:.6g} ms, "
            f"{low - high:.6g} ms more than delay_max_ms",
            constraint=DELAY_MAX,
            domain=domain.name,
            short_by=low - high,
        )
    if contract.prefactor <= limits.epsilon_min:
        return Interval(low, low, low_by, low_by if contract.prefactor == 0.0 else EPSILON_MIN)
    if limits.epsilon_min > 0.0:
        useful = max(low, math.log(contract.prefactor / limits.epsilon_min) / contract.decay_per_ms)
        if useful < high:
            high, high_by = useful, EPSILON_MIN
    return Interval(low, high, low_by, high_by)


def require_domains(domains: Sequence[BudgetDomain]) -> None:
    """Refuse no domains, too many, and two of one name.

    Raises:
        InvalidInputError: One of these.
    """
    if not 1 <= len(domains) <= DOMAINS_MAX:
        raise InvalidInputError(f"a budget needs 1 to {DOMAINS_MAX} domains, not {len(domains)}", field="domains")
    names = [domain.name for domain in domains]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInputError(f"two domains are called {twice!r}", field="domains")
