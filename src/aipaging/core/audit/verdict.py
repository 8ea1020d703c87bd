"""The verdict about a period: compliant, violated, or not enough evidence.

It is about a count at the contracted delay, never about an estimated quantile. `violated` needs the lower count,
`compliant` the upper one. A complete period is arithmetic (`census`): no probability, so nothing to divide among
several verdicts. A sampled one errs with probability alpha at most, at any stopping time, on either side; over a family
of verdicts alpha is divided equally, and the e-values are there for e-BH.
"""

import enum
import math
from dataclasses import dataclass

from aipaging.core.audit.contract import Contract
from aipaging.core.audit.dependence import design_effect, effective_requests
from aipaging.core.audit.sampling import HypergeometricSequence, SampledFinding, judge_openings
from aipaging.core.audit.tally import Tally


class Outcome(enum.Enum):
    """The three states."""

    COMPLIANT = "compliant"
    VIOLATED = "violated"
    INSUFFICIENT_EVIDENCE = "insufficient_evidence"


class Method(enum.Enum):
    """How a verdict was reached."""

    CENSUS = "census"
    SAMPLED = "hypergeometric-prior-posterior-ratio"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One verdict, with what it was computed from.

    Attributes:
        contract: What was promised.
        outcome: The verdict.
        reason: In a sentence, what decided it.
        requests: Requests of the period: what it must hold, or what it holds where that is more or not said.
        observed: Requests that are there.
        missing: Requests that must be there and are not.
        allowed: Exceedances that the contract allows.
        exceedances_low: Exceedances at least.
        exceedances_high: Exceedances at most.
        alpha: Error probability of the family of verdicts.
        alpha_each: Error probability of this verdict; 0 for arithmetic.
        method: How.
        sampled: Records opened; 0 where all were counted.
        effect: Design effect of the exceedances, None where nothing can be said.
        finding: What the openings established, where records were opened.
    """

    contract: Contract
    outcome: Outcome
    reason: str
    requests: int
    observed: int
    missing: int
    allowed: int
    exceedances_low: int
    exceedances_high: int
    alpha: float
    alpha_each: float
    method: Method
    sampled: int
    effect: float | None
    finding: SampledFinding | None = None

    @property
    def effective_requests(self) -> float | None:
        """How many independent requests would tell as much about the process (not about this period)."""
        return effective_requests(self.observed, self.effect)


def judge(tally: Tally, *, alpha: float, family: int, sampled: bool) -> Verdict:
    """Return the verdict of one contract.

    Args:
        tally: Its counts.
        alpha: Error probability of the family.
        family: How many verdicts share alpha.
        sampled: Whether records were opened at random, instead of counting all.
    """
    contract = tally.contract
    missing = max(0, (contract.expected_requests or 0) - tally.requests)
    requests = tally.requests + missing
    allowed = contract.allowance(requests)
    alpha_each = alpha / family if sampled else 0.0
    finding: SampledFinding | None = None
    opened = 0
    if sampled:
        certain, possible = tally.opened.ordered()
        opened = len(certain)
        sequence = HypergeometricSequence.centred(tally.requests, contract.epsilon)
        finding = judge_openings(sequence, certain, possible, allowed=allowed, missing=missing, alpha=alpha_each)
        low, high = finding.low, finding.high
        outcome = _sampled_outcome(finding)
    else:
        low, high = tally.certain, tally.possible + missing
        outcome = _census_outcome(low, high, allowed)
    if requests == 0:
        outcome = Outcome.INSUFFICIENT_EVIDENCE
    return Verdict(
        contract=contract,
        outcome=outcome,
        reason=_reason(outcome, (low, high), allowed, requests),
        requests=requests,
        observed=tally.requests,
        missing=missing,
        allowed=allowed,
        exceedances_low=low,
        exceedances_high=high,
        alpha=alpha,
        alpha_each=alpha_each,
        method=Method.SAMPLED if sampled else Method.CENSUS,
        sampled=opened,
        effect=design_effect(*tally.by_window),
        finding=finding,
    )


def e_benjamini_hochberg(log_e_values: list[float], *, alpha: float) -> list[int]:
    """Return which hypotheses to reject so that the false discovery rate is alpha at most, whatever their dependence.

    e-BH [WangRamdas2022]: reject the k largest e-values, for the greatest k with e_(k) >= m / (alpha k).
    """
    order = sorted(range(len(log_e_values)), key=lambda index: -log_e_values[index])
    threshold = math.log(len(log_e_values) / alpha) if log_e_values else 0.0
    rejected = 0
    for k, index in enumerate(order, start=1):
        if log_e_values[index] >= threshold - math.log(k):
            rejected = k
    return sorted(order[:rejected])


def _census_outcome(low: int, high: int, allowed: int) -> Outcome:
    if low > allowed:
        return Outcome.VIOLATED
    return Outcome.COMPLIANT if high <= allowed else Outcome.INSUFFICIENT_EVIDENCE


def _sampled_outcome(finding: SampledFinding) -> Outcome:
    if finding.violated_at is not None and finding.compliant_at is not None:
        return Outcome.INSUFFICIENT_EVIDENCE  # each side errs rarely; when both speak, one of them does
    if finding.violated_at is not None:
        return Outcome.VIOLATED
    return Outcome.COMPLIANT if finding.compliant_at is not None else Outcome.INSUFFICIENT_EVIDENCE


def _reason(outcome: Outcome, bounds: tuple[int, int], allowed: int, requests: int) -> str:
    low, high = bounds
    if requests == 0:
        return "the period holds no request"
    if outcome is Outcome.VIOLATED:
        return f"at least {low} of {requests} requests exceeded, {allowed} are allowed"
    if outcome is Outcome.COMPLIANT:
        return f"at most {high} of {requests} requests exceeded, {allowed} are allowed"
    return f"between {low} and {high} of {requests} requests exceeded, {allowed} are allowed"
