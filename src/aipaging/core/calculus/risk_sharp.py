"""Sharper risk budgets: the dual bound under any dependence, and the joint tail under conditional contracts.

Both are at most the union split of `risk_budget`; neither assigns a probability to a single domain, so `parts`
is empty. Proofs: `docs/background/calculus/risk_budget.md`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final

from aipaging.core.calculus.hypoexponential import hypoexponential_tail
from aipaging.core.calculus.risk_budget import (
    BudgetSplit,
    DelayContract,
    delay_any_dependence,
    epsilon_any_dependence,
)

DUAL: Final = "dual-any-dependence"
CONDITIONAL: Final = "conditional-tails"

_GRID: Final = 24
_WIDTH: Final = 9.0
_ROUNDS: Final = 4


def epsilon_any_dependence_sharp(contracts: Sequence[DelayContract], delay_ms: float) -> BudgetSplit:
    """Return the dual bound on P(sum > delay): [EmbrechtsPuccetti2006], sharp for equal exponentials.

    For any delta > 0, E of a ramp of width delta bounds the indicator: M_i becomes
    M_i (1 - exp(-eta_i delta)) / (eta_i delta) and the delay shrinks by delta. delta -> 0 is the union bound.
    """
    best = epsilon_any_dependence(contracts, delay_ms)
    slack = delay_ms - math.fsum(contract.offset_ms for contract in contracts)
    if not 0.0 < slack < math.inf:
        return best

    def at(log_delta: float) -> float:
        delta = math.exp(log_delta)
        ramped = [_ramped(contract, delta) for contract in contracts]
        return epsilon_any_dependence(ramped, delay_ms - delta).epsilon

    least = _least(at, slack)
    if least >= best.epsilon:
        return best
    return BudgetSplit(
        delay_ms=delay_ms, epsilon=least, parts=(), rung=DUAL, assumptions=("delay-contracts-hold", "any-dependence")
    )


def delay_any_dependence_sharp(contracts: Sequence[DelayContract], epsilon: float) -> float:
    """Return the least delay at which the dual bound is at most epsilon, up to the grid of the ramp's width, in ms.

    With a ramp of width delta the dual is the union bound of other contracts at delay - delta, and that has an inverse.

    Raises:
        InvalidInputError: No contract, or epsilon outside (0, 1).
    """
    best_ms = delay_any_dependence(contracts, epsilon).delay_ms
    slack = best_ms - math.fsum(contract.offset_ms for contract in contracts)
    if not 0.0 < slack < math.inf:
        return best_ms

    def at(log_delta: float) -> float:
        delta = math.exp(log_delta)
        return delta + delay_any_dependence([_ramped(contract, delta) for contract in contracts], epsilon).delay_ms

    return min(best_ms, _least(at, slack))


def _least(at: Callable[[float], float], slack: float) -> float:
    """Return the least of a function of ln(delta), for ramps up to the whole slack: a grid, made finer around it."""
    top = math.log(slack)
    grid = [top - _WIDTH * i / _GRID for i in range(_GRID + 1)]
    values = [at(point) for point in grid]
    for _ in range(_ROUNDS):
        i = values.index(min(values))
        low, high = grid[min(i + 1, len(grid) - 1)], grid[max(i - 1, 0)]
        grid = [high - (high - low) * j / 8 for j in range(9)]
        values = [at(point) for point in grid]
    return min(values)


def _ramped(contract: DelayContract, delta: float) -> DelayContract:
    part = contract.decay_per_ms * delta
    factor = -math.expm1(-part) / part if part > 0.0 else 1.0
    return DelayContract(
        offset_ms=contract.offset_ms,
        prefactor=contract.prefactor * factor * (1.0 + 1e-14),
        decay_per_ms=contract.decay_per_ms,
    )


def epsilon_conditional(contracts: Sequence[DelayContract], delay_ms: float) -> BudgetSplit:
    """Return the bound on P(sum > delay) if every contract holds whatever happened in the domains before.

    A contract with M >= 1 makes its delay at most T + ln(M)/eta + Exp(eta); with M < 1, at most T plus an
    Exp(eta) that is there with probability M. (A shift ln(M)/eta < 0 would be below what a law attains.)
    """
    shift = math.fsum(c.offset_ms + max(0.0, math.log(c.prefactor)) / c.decay_per_ms if c.prefactor > 0.0
                      else c.offset_ms for c in contracts)  # fmt: skip
    left = delay_ms - shift
    if left >= 0.0:
        left = max(0.0, left - 4e-15 * len(contracts) * delay_ms)
    tail = hypoexponential_tail(
        [c.decay_per_ms for c in contracts], left, present=[min(1.0, c.prefactor) for c in contracts]
    )
    return BudgetSplit(
        delay_ms=delay_ms,
        epsilon=tail,
        parts=(),
        rung=CONDITIONAL,
        assumptions=("delay-contracts-hold", "contracts-hold-given-the-past"),
    )
