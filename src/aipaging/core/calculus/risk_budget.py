"""The risk budget: one end-to-end promise, split over domains that each promise a tail.

Each domain signs a delay contract P(D_i > T_i + x) <= M_i exp(-eta_i x) for x >= 0. Nothing is known of how
the delays depend on each other, so the split rests on the union bound: an end-to-end delay above the sum of
the parts means that some domain exceeded its part. The least sum over all splits is a convex problem with a
closed form on the set of domains whose excess is positive (water-filling; [EmbrechtsPuccetti2006], first-order form).

Every excess is >= 0. Without that clause a domain with M_i < 1 would get a negative excess, for which its
contract says nothing, and the sum would lie below what an admissible law attains.

Rounding is to the safe side: probabilities up by a relative 1e-10, delays up by a relative 1e-12.

Left out: the sharp bound under any dependence and the bound under conditional tails (`risk_sharp`), and
the choice of the rates behind the contracts (`risk_cost`).
"""

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from aipaging.core.foundation.errors import InvalidInputError

UNION: Final = "union-any-dependence"
"""Rung of the split by the union bound."""

TRIVIAL: Final = "trivial"
"""Rung of the answer that promises nothing: probability 1."""

UNION_ASSUMPTIONS: Final = ("delay-contracts-hold", "any-dependence")

_PROBABILITY_UP: Final = 1.0 + 1e-10
"""Covers exp() of arguments down to -745, whose relative error is at most 745 ulp."""

_DELAY_UP: Final = 1e-12
_PROBABILITY_MIN: Final = sys.float_info.min
"""What underflows is rounded up to this, never to zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayContract:
    """What one domain promises: P(D > offset + x) <= prefactor * exp(-decay * x) for every x >= 0.

    Referred to as (T, M, eta) in [Jiang2008]. A prefactor of 0 is a deterministic promise.

    Attributes:
        offset_ms: T, the delay below which nothing is promised.
        prefactor: M; may exceed 1 (the promise is empty near the offset) or be below 1 (an atom at or below it).
        decay_per_ms: eta, the exponential rate of the tail.
    """

    offset_ms: float
    prefactor: float
    decay_per_ms: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.offset_ms < math.inf:
            raise InvalidInputError("offset_ms must be finite and >= 0", field="offset_ms")
        if not 0.0 <= self.prefactor < math.inf:
            raise InvalidInputError("prefactor must be finite and >= 0", field="prefactor")
        if not 0.0 < self.decay_per_ms < math.inf:
            raise InvalidInputError("decay_per_ms must be finite and > 0", field="decay_per_ms")

    def exceedance(self, delay_ms: float) -> float:
        """Return the promised bound on P(D > delay_ms), rounded up and at most 1."""
        excess = delay_ms - self.offset_ms
        return _tail(self, excess) if excess >= 0.0 else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetPart:
    """The share of one domain: P(its delay > delay_ms) <= epsilon."""

    delay_ms: float
    epsilon: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSplit:
    """An end-to-end promise P(D > delay_ms) <= epsilon and the parts that prove it.

    Attributes:
        delay_ms: The end-to-end delay.
        epsilon: The proven bound on the probability that it is exceeded; 1 where nothing can be proven.
        parts: One per contract, in order, with `fsum(part delays) <= delay_ms` and
            `fsum(part epsilons) <= epsilon`; empty when epsilon is 1.
        rung: The bound that was used.
        assumptions: What it rests on.
    """

    delay_ms: float
    epsilon: float
    parts: tuple[BudgetPart, ...]
    rung: str
    assumptions: tuple[str, ...]


def epsilon_any_dependence(contracts: Sequence[DelayContract], delay_ms: float) -> BudgetSplit:
    """Return the least union bound on P(sum of delays > delay_ms), whatever the dependence.

    Args:
        contracts: One per domain.
        delay_ms: The end-to-end delay asked about. Below the sum of the offsets the answer is 1.

    Raises:
        InvalidInputError: No contract, or a delay that is not a number.
    """
    _require(contracts, delay_ms)
    offsets = math.fsum(contract.offset_ms for contract in contracts)
    slack = delay_ms - offsets
    if slack < 0.0:
        return _trivial(delay_ms)
    excesses = _least_risk_excesses(contracts, max(0.0, slack - 4e-15 * len(contracts) * delay_ms))
    parts = tuple(
        BudgetPart(delay_ms=contract.offset_ms + excess, epsilon=_tail(contract, excess))
        for contract, excess in zip(contracts, excesses, strict=True)
    )
    total = math.fsum(part.epsilon for part in parts)
    epsilon = _round_up(total) if total else 0.0
    if epsilon >= 1.0:
        return _trivial(delay_ms)
    return BudgetSplit(delay_ms=delay_ms, epsilon=epsilon, parts=parts, rung=UNION, assumptions=UNION_ASSUMPTIONS)


def delay_any_dependence(contracts: Sequence[DelayContract], epsilon: float) -> BudgetSplit:
    """Return the least delay d for which the union bound proves P(sum of delays > d) <= epsilon.

    Args:
        contracts: One per domain.
        epsilon: The probability to stay within, in (0, 1).

    Raises:
        InvalidInputError: No contract, or epsilon outside (0, 1).
    """
    _require(contracts, epsilon)
    if not 0.0 < epsilon < 1.0:
        raise InvalidInputError("epsilon must lie strictly between 0 and 1", field="epsilon")
    shares = _least_delay_epsilons(contracts, epsilon / (_PROBABILITY_UP * _PROBABILITY_UP))
    parts: list[BudgetPart] = []
    for contract, share in zip(contracts, shares, strict=True):
        excess = 0.0
        if 0.0 < share < contract.prefactor:
            excess = math.log(contract.prefactor / share) / contract.decay_per_ms * (1.0 + _DELAY_UP)
        parts.append(
            BudgetPart(
                delay_ms=contract.offset_ms + excess,
                epsilon=_round_up(min(share, contract.prefactor)) if contract.prefactor else 0.0,
            )
        )
    return BudgetSplit(
        delay_ms=math.fsum(part.delay_ms for part in parts) * (1.0 + _DELAY_UP),
        epsilon=min(epsilon, _round_up(math.fsum(part.epsilon for part in parts))),
        parts=tuple(parts),
        rung=UNION,
        assumptions=UNION_ASSUMPTIONS,
    )


def combined_failure(probabilities: Iterable[float], *, independent: bool) -> float:
    """Return the probability that at least one of several failures happens, rounded up.

    Loss and inference error are budget lines of their own; this is how they compose over domains.

    Args:
        probabilities: One per domain, each in [0, 1].
        independent: Whether independence is attested: 1 - prod(1 - p); otherwise the sum, at most 1.

    Raises:
        InvalidInputError: A number outside [0, 1].
    """
    checked = tuple(p for p in probabilities if p != 0.0)
    if not checked:
        return 0.0
    if not all(0.0 <= p <= 1.0 for p in checked):
        raise InvalidInputError("every probability must lie in [0, 1]", field="probabilities")
    if not independent or 1.0 in checked:
        return _round_up(math.fsum(checked))
    return _round_up(-math.expm1(math.fsum(math.log1p(-p) for p in checked)))


def _least_risk_excesses(contracts: Sequence[DelayContract], slack: float) -> list[float]:
    """Minimise sum M_i exp(-eta_i x_i) over x_i >= 0, sum x_i = slack, by water-filling.

    At the optimum eta_i M_i exp(-eta_i x_i) equals the water level nu wherever x_i > 0 and lies below it
    wherever x_i = 0, so the active domains are a prefix in falling order of eta_i M_i.
    """
    order = sorted(
        ((math.log(c.prefactor) + math.log(c.decay_per_ms), 1.0 / c.decay_per_ms, i)
         for i, c in enumerate(contracts) if c.prefactor > 0.0),
        reverse=True,
    )  # fmt: skip
    excesses = [0.0] * len(contracts)
    weight = 0.0
    level_sum = -slack
    active = 0
    log_nu = math.inf
    for log_slope, scale, _ in order:
        if active and log_slope <= log_nu:
            break
        weight += scale
        level_sum += log_slope * scale
        log_nu = level_sum / weight
        active += 1
    for log_slope, scale, i in order[:active]:
        excesses[i] = max(0.0, (log_slope - log_nu) * scale)
    total = math.fsum(excesses)
    if total > slack:
        shrink = slack / total * (1.0 - 4e-16)
        excesses = [x * shrink for x in excesses]
    return excesses


def _least_delay_epsilons(contracts: Sequence[DelayContract], epsilon: float) -> list[float]:
    """Minimise sum log(M_i / e_i) / eta_i over 0 <= e_i <= M_i, sum e_i = epsilon.

    At the optimum eta_i e_i equals a level nu wherever e_i < M_i: the active domains are those with the
    largest eta_i M_i, the others keep e_i = M_i at no excess.
    """
    order = sorted(((c.prefactor * c.decay_per_ms, i) for i, c in enumerate(contracts)), reverse=True)
    # What the domains from k on keep if they stay inactive; summed from the small end, so that an epsilon
    # of 1e-40 is not lost against prefactors near 1.
    kept = [0.0]
    for _, i in reversed(order):
        kept.append(kept[-1] + contracts[i].prefactor)
    kept.reverse()
    nu = math.inf
    weight = 0.0
    if kept[0] > epsilon:
        for k, (slope, i) in enumerate(order):
            if weight and slope <= nu:
                break
            weight += 1.0 / contracts[i].decay_per_ms
            nu = max(0.0, epsilon - kept[k + 1]) / weight
    return [min(nu / c.decay_per_ms, c.prefactor) for c in contracts]


def _tail(contract: DelayContract, excess: float) -> float:
    """Return M exp(-eta x), rounded up; zero only for a deterministic promise."""
    if contract.prefactor == 0.0:
        return 0.0
    return _round_up(contract.prefactor * math.exp(-contract.decay_per_ms * excess))


def _round_up(probability: float) -> float:
    """Round a probability to the safe side and clip it."""
    return min(1.0, max(probability * _PROBABILITY_UP, _PROBABILITY_MIN))


def _trivial(delay_ms: float) -> BudgetSplit:
    return BudgetSplit(delay_ms=delay_ms, epsilon=1.0, parts=(), rung=TRIVIAL, assumptions=())


def _require(contracts: Sequence[DelayContract], number: float) -> None:
    if not contracts:
        raise InvalidInputError("a budget needs at least one contract", field="contracts")
    if math.isnan(number):
        raise InvalidInputError("the question is not a number", field="delay_ms")
