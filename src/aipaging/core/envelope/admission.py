"""Whether a path of envelopes admits a delay target, and with which bound.

The bound that admits holds under any dependence of the domains: the union over the delay contracts, split
where it is least (snc: risk budget under any dependence), plus every loss and error probability on the path.
What is promised is never below the truth under the stated assumptions; sums round up.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aipaging.core.calculus.risk_budget import combined_failure, delay_any_dependence, epsilon_any_dependence
from aipaging.core.envelope.envelope import Envelope
from aipaging.core.foundation.names import DomainName

DELAY_STEPS_MAX: Final = 64
"""Doublings of the last unit in which a rounded-up delay is sought; rounding is off by a few units at most."""


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
        budget: What each domain may use; the delays sum to at most D, the probabilities to the bound.
        rung: Which bound it is.
        assumptions: What it rests on.
    """

    delay_ms: float
    epsilon_bound: float
    budget: tuple[DomainBudget, ...]
    rung: str
    assumptions: tuple[str, ...]


def tail_bound(envelopes: Sequence[Envelope], delay_ms: float) -> TailBound:
    """Return the bound of a path at the delay target.

    Args:
        envelopes: One per domain, from the client on; at least one.
        delay_ms: The target D.
    """
    split = epsilon_any_dependence([envelope.contract for envelope in envelopes], delay_ms)
    failures = [combined_failure([envelope.loss, envelope.error], independent=False) for envelope in envelopes]
    failure = combined_failure(failures, independent=False)
    epsilon_bound = min(1.0, math.nextafter(split.epsilon + failure, math.inf))
    budget = tuple(
        DomainBudget(domain=envelope.domain, delay_ms=part.delay_ms, epsilon=part.epsilon, failure=failed)
        # A target that no split can meet has no parts, and the bound 1.
        for envelope, part, failed in zip(envelopes, split.parts, failures, strict=bool(split.parts))
    )
    return TailBound(
        delay_ms=delay_ms,
        epsilon_bound=epsilon_bound,
        budget=budget,
        rung=split.rung,
        assumptions=(*split.assumptions, "losses and errors added (union)"),
    )


def least_delay_ms(envelopes: Sequence[Envelope], epsilon: float) -> float | None:
    """Return a delay at which `tail_bound` gives at most `epsilon`, the least up to rounding, or None.

    Args:
        envelopes: One per domain, from the client on; at least one.
        epsilon: What may be exceeded, lost or failed.
    """
    failures = [combined_failure([envelope.loss, envelope.error], independent=False) for envelope in envelopes]
    left = epsilon - combined_failure(failures, independent=False)
    if left <= 0:
        return None  # losses and errors alone exceed it: no delay helps
    delay_ms = delay_any_dependence([envelope.contract for envelope in envelopes], left).delay_ms
    for step in range(DELAY_STEPS_MAX):
        if not math.isfinite(delay_ms):
            return None
        if tail_bound(envelopes, delay_ms).epsilon_bound <= epsilon:
            return delay_ms
        # Both directions round to the safe side, so the inverse may lie a hair below: step up until it holds.
        delay_ms += math.ulp(delay_ms) * 2.0**step
    return None
