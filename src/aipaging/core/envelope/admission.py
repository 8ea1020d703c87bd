"""Whether a path of envelopes admits a delay target, and with which bound.

The bound is the least over a ladder of rungs, each allowed only where the envelopes attest its assumptions:

    deterministic          no tail on the path: the fixed delays decide
    union-any-dependence   the risk split where its sum is least; nothing is assumed of dependence
    conditional-tails      every tail after the first holds whatever happened before it, and none shares a cause
    dual-any-dependence    sharper than the union, still nothing assumed of dependence

Fixed delays are taken off first: they add without risk. Losses and errors are a line of their own, added over the path,
or 1 - prod (1 - p) where every domain attests independence. What is promised is never below the truth under the stated
assumptions; sums round up.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from aipaging.core.calculus.hypoexponential import RELATIVE
from aipaging.core.calculus.risk_budget import BudgetPart, BudgetSplit, delay_any_dependence, epsilon_any_dependence
from aipaging.core.calculus.risk_sharp import (
    delay_any_dependence_sharp,
    epsilon_any_dependence_sharp,
    epsilon_conditional,
)
from aipaging.core.calculus.rounding import RELATIVE_UP
from aipaging.core.envelope.envelope import Envelope
from aipaging.core.envelope.path_delay import Hop, PathDelay, path_delay
from aipaging.core.foundation.names import DomainName

DELAY_STEPS_MAX: Final = 64
"""Doublings of the last unit in which a rounded-up delay is sought; rounding is off by a few units at most."""

HALVINGS: Final = 12
"""Of the interval in which a sharper rung's least delay is sought: the upper end is kept, so it is always provable."""

BOUNDS_CACHED: Final = 4096
"""Bounds that are remembered, a kilobyte each: who asks for the same on the same path gets the same object."""

DUAL_UP: Final = 1e-6
"""Relative: the dual bound looks for its ramp on another grid than its inverse; both are this near their optimum."""

DETERMINISTIC: Final = "deterministic"
OVERLOADED: Final = "overloaded"
EPSILON_TIGHT: Final = 1e-4
"""Where tails of slots are made tight when nobody says at which epsilon they will be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainBudget:
    """What one domain may use of the session's delay and risk."""

    domain: DomainName
    delay_ms: float
    epsilon: float
    failure: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TailBound:
    """The bound that a path gives at a delay target.

    Attributes:
        delay_ms: The target D.
        epsilon_bound: An upper bound on P(delay > D, or lost, or failed).
        budget: What each domain may use; the delays sum to at most D, the probabilities to the bound. Where the rung
            does not split the risk, they are shares in proportion to the union's, and no domain is held to its own.
        rung: Which bound it is.
        assumptions: What it rests on.
        parameters: What the rung chose or was given, by name.
        numeric_error: The relative allowance for arithmetic that is in the bound.
    """

    delay_ms: float
    epsilon_bound: float
    budget: tuple[DomainBudget, ...]
    rung: str
    assumptions: tuple[str, ...]
    parameters: tuple[tuple[str, float], ...] = ()
    numeric_error: float = RELATIVE_UP


KEPT: Final = "others join shared queues only while this bound is kept"


def kept_bound(bound: TailBound, epsilon: float) -> TailBound:
    """Return what is promised where sessions share a queue: the probability that was asked for, not today's.

    Today's bound holds for those who are in the queue now. Whoever joins later makes it larger, up to what every
    session in the queue was promised, and never beyond: that is what is checked of each who wants to join. So this is
    the bound that holds as long as the session does.
    """
    return replace(bound, epsilon_bound=epsilon, assumptions=(*bound.assumptions, KEPT))


def tail_bound(envelopes: Sequence[Envelope], delay_ms: float) -> TailBound:
    """Return the least bound of a path at the delay target, for any traffic within the guardrails.

    Args:
        envelopes: One per domain, from the client on; at least one.
        delay_ms: The target D.
    """
    return session_bound(path_delay([Hop(envelope=one) for one in envelopes], None, EPSILON_TIGHT), delay_ms)


@lru_cache(maxsize=BOUNDS_CACHED)
def session_bound(path: PathDelay | None, delay_ms: float, epsilon: float | None = None) -> TailBound:
    """Return the bound of a session's path at the delay target.

    Args:
        path: From `path_delay`; None (overloaded) promises nothing.
        delay_ms: The target D.
        epsilon: What is enough: the first rung that proves it is taken, cheapest first. None: the least of all rungs.
    """
    if path is None:
        return _nothing(delay_ms, OVERLOADED, ())
    left_ms = delay_ms - path.fixed_total_ms
    if left_ms < 0.0:
        return _nothing(delay_ms, DETERMINISTIC, path.assumptions)
    if not path.tails:
        return _bound(path, delay_ms, BudgetSplit(
            delay_ms=left_ms, epsilon=0.0, parts=(), rung=DETERMINISTIC, assumptions=("delay-contracts-hold",)
        ), ())  # fmt: skip
    contracts = [tail.contract for tail in path.tails]
    union = best = epsilon_any_dependence(contracts, left_ms)
    enough = epsilon - path.failure if epsilon is not None else 0.0
    if path.conditional and best.epsilon > enough:
        best = min(best, epsilon_conditional(contracts, left_ms), key=lambda split: split.epsilon)
    # The dual gains at most the number of tails, so further away it is not worth its time.
    hopeless = epsilon is not None and best.epsilon > enough * len(contracts)
    if len(contracts) > 1 and best.epsilon > enough and not hopeless:
        best = min(best, epsilon_any_dependence_sharp(contracts, left_ms), key=lambda split: split.epsilon)
    return _bound(path, delay_ms, best, union.parts)


def least_delay_ms(envelopes: Sequence[Envelope], epsilon: float) -> float | None:
    """Return a delay at which `tail_bound` gives at most `epsilon`, the least up to rounding, or None.

    Args:
        envelopes: One per domain, from the client on; at least one.
        epsilon: What may be exceeded, lost or failed.
    """
    return session_delay_ms(path_delay([Hop(envelope=one) for one in envelopes], None, EPSILON_TIGHT), epsilon)


def session_delay_ms(path: PathDelay | None, epsilon: float, *, sharp: bool = False) -> float | None:
    """Return a delay that `session_bound` proves for `epsilon`, near the least, or None if there is none.

    Args:
        path: From `path_delay`; None (overloaded) promises nothing.
        epsilon: What may be exceeded, lost or failed.
        sharp: Whether the dual rung counts. It saves up to 2 % of the delay over 3 domains and 7 % over 5, for a
            hundred times the work; without it the delay is a little longer than the least.
    """
    left = epsilon - path.failure if path is not None else 0.0
    if path is None or left < 0.0 or (left == 0.0 and path.tails):
        return None  # overloaded, or losses and errors alone exceed it: no delay helps
    delay_ms = path.fixed_total_ms
    if path.tails:
        contracts = [tail.contract for tail in path.tails]
        tail_ms = delay_any_dependence(contracts, left).delay_ms
        if path.conditional:
            tail_ms = _least_conditional(path, left, tail_ms)
        if sharp and len(contracts) > 1:
            tail_ms = min(tail_ms, delay_any_dependence_sharp(contracts, left) * (1.0 + DUAL_UP))
        delay_ms += tail_ms
    for step in range(DELAY_STEPS_MAX):
        if not math.isfinite(delay_ms):
            return None
        if session_bound(path, delay_ms, epsilon).epsilon_bound <= epsilon:
            return delay_ms
        # Both directions round to the safe side, so the inverse may lie a hair below: step up until it holds.
        delay_ms += math.ulp(delay_ms) * 2.0**step
    return None


def _least_conditional(path: PathDelay, epsilon: float, high_ms: float) -> float:
    contracts = [tail.contract for tail in path.tails]
    low_ms = math.fsum(contract.offset_ms for contract in contracts)
    for _ in range(HALVINGS):
        middle_ms = 0.5 * (low_ms + high_ms)
        if epsilon_conditional(contracts, middle_ms).epsilon <= epsilon:
            high_ms = middle_ms
        else:
            low_ms = middle_ms
    return high_ms


def _nothing(delay_ms: float, rung: str, assumptions: tuple[str, ...]) -> TailBound:
    return TailBound(delay_ms=delay_ms, epsilon_bound=1.0, budget=(), rung=rung, assumptions=assumptions)


def _bound(path: PathDelay, delay_ms: float, split: BudgetSplit, parts: tuple[BudgetPart, ...]) -> TailBound:
    """Return what a split of the tails makes of the whole path."""
    if split.epsilon >= 1.0:
        return _nothing(delay_ms, split.rung, (*split.assumptions, *path.assumptions))
    delays, epsilons = list(path.fixed_ms), [0.0] * len(path.domains)
    shares = _shares(path, split, parts)
    for tail, part in zip(path.tails, shares, strict=True):
        delays[tail.hop] = part.delay_ms
        epsilons[tail.hop] = part.epsilon
    budget = tuple(
        DomainBudget(domain=domain, delay_ms=delays[i], epsilon=epsilons[i], failure=path.failures[i])
        for i, domain in enumerate(path.domains)
    )
    promised = math.nextafter(split.epsilon + path.failure, math.inf) if split.epsilon + path.failure else 0.0
    return TailBound(
        delay_ms=delay_ms,
        epsilon_bound=min(1.0, promised),
        budget=budget,
        rung=split.rung,
        assumptions=(*split.assumptions, *path.assumptions),
        parameters=(("fixed_ms", path.fixed_total_ms), ("failure", path.failure), ("tails", float(len(path.tails)))),
        numeric_error=RELATIVE if split.rung == "conditional-tails" else RELATIVE_UP,
    )


def _shares(path: PathDelay, split: BudgetSplit, parts: tuple[BudgetPart, ...]) -> tuple[BudgetPart, ...]:
    """Return a delay and a probability for every tail, summing to at most the split's."""
    if split.parts or not path.tails:
        return split.parts
    contracts = [tail.contract for tail in path.tails]
    if not parts:  # the union promises nothing here: in proportion to how slowly the tails fall
        weight = math.fsum(1.0 / contract.decay_per_ms for contract in contracts)
        slack_ms = (split.delay_ms - math.fsum(contract.offset_ms for contract in contracts)) * (1.0 - 1e-12)
        parts = tuple(
            BudgetPart(
                delay_ms=contract.offset_ms + max(0.0, slack_ms) / (contract.decay_per_ms * weight),
                epsilon=1.0 / (contract.decay_per_ms * weight),
            )
            for contract in contracts
        )
    total = math.fsum(part.epsilon for part in parts)
    scale = split.epsilon / total * (1.0 - 1e-12) if total else 0.0
    return tuple(BudgetPart(delay_ms=part.delay_ms, epsilon=part.epsilon * scale) for part in parts)
