"""The verdict about a period: compliant, violated, or not enough evidence.

It is about a count at the contracted delay, never about an estimated quantile. `violated` needs the lower count,
`compliant` the upper one. A complete period is arithmetic (`census`): no probability, so nothing to divide among
several verdicts. A sampled one errs with probability alpha at most, at any stopping time, on either side; a family of
verdicts divides alpha equally, or controls the false discovery rate by e-BH on the e-values of the last opening.
"""

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from aipaging.core.audit.commitment import Commitment
from aipaging.core.audit.contract import Contract
from aipaging.core.audit.dependence import design_effect, effective_requests
from aipaging.core.audit.sampling import (
    HypergeometricSequence,
    Openings,
    SampledFinding,
    bound_scope,
    judge_openings,
)
from aipaging.core.audit.tally import Tally
from aipaging.core.foundation.errors import InvalidInputError


class Outcome(enum.Enum):
    """The three states."""

    COMPLIANT = "compliant"
    VIOLATED = "violated"
    INSUFFICIENT_EVIDENCE = "insufficient_evidence"


class Method(enum.Enum):
    """How a verdict was reached."""

    CENSUS = "census"
    SAMPLED = "hypergeometric-prior-posterior-ratio"
    SCOPED = "hypergeometric-bounds-of-a-scope"
    HISTOGRAM = "census-of-buckets"


class Multiplicity(enum.Enum):
    """How a family of verdicts shares alpha."""

    SPLIT = "alpha-splitting"
    """Equally: that any verdict is wrong has probability alpha at most, on each side."""

    E_BH = "e-bh"
    """By e-BH: of the verdicts of one side, a fraction alpha is wrong at most, in the mean."""


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


def judge(
    tallies: Sequence[Tally],
    *,
    alpha: float,
    sampled: bool,
    multiplicity: Multiplicity = Multiplicity.SPLIT,
    committed: Commitment | None = None,
) -> tuple[Verdict, ...]:
    """Return the verdicts of a family of contracts.

    Args:
        tallies: The counts of each.
        alpha: Error probability of the family, on each side.
        sampled: Whether records were opened at random, instead of counting all.
        multiplicity: How the family shares alpha.
        committed: What the opened records are from, where they alone are there.

    Raises:
        InvalidInputError: e-BH is asked of verdicts that have no e-values.
    """
    each = alpha / len(tallies) if multiplicity is Multiplicity.SPLIT else alpha
    if committed is not None:
        verdicts = tuple(_from_openings(tally, committed, alpha=alpha, each=each) for tally in tallies)
    elif sampled:
        verdicts = tuple(_sampled(tally, alpha=alpha, each=each) for tally in tallies)
    else:
        verdicts = tuple(_census(tally, alpha=alpha) for tally in tallies)
    if multiplicity is Multiplicity.SPLIT or all(verdict.method is Method.CENSUS for verdict in verdicts):
        return verdicts
    if any(verdict.finding is None for verdict in verdicts):
        raise InvalidInputError(
            "e-BH compares e-values, which opened records give for contracts over the whole commitment alone: "
            "split alpha, or commit to the tenant's period by itself",
            field="multiplicity",
        )
    return _by_false_discovery_rate(verdicts, alpha)


def _census(tally: Tally, *, alpha: float) -> Verdict:
    missing, requests, allowed = _dues(tally.contract, tally.requests)
    low, high = tally.certain, tally.possible + missing
    outcome = _between(low, high, violated_above=allowed, compliant_to=allowed)
    return _verdict(
        tally,
        outcome,
        alpha=(alpha, 0.0),
        method=Method.CENSUS,
        counts=_Counts(
            requests=requests, observed=tally.requests, missing=missing, allowed=allowed, low=low, high=high
        ),
    )


def _sampled(tally: Tally, *, alpha: float, each: float, population: int | None = None) -> Verdict:
    records = tally.requests if population is None else population
    missing, requests, allowed = _dues(tally.contract, records)
    certain, possible = tally.opened.ordered()
    sequence = HypergeometricSequence.centred(records, tally.contract.epsilon)
    finding = judge_openings(sequence, certain, possible, allowed=allowed, missing=missing, alpha=each)
    return _verdict(
        tally,
        _sampled_outcome(finding),
        alpha=(alpha, each),
        method=Method.SAMPLED,
        counts=_Counts(
            requests=requests,
            observed=records,
            missing=missing,
            allowed=allowed,
            low=finding.low,
            high=finding.high,
            sampled=len(certain),
            finding=finding,
        ),
    )


def _from_openings(tally: Tally, committed: Commitment, *, alpha: float, each: float) -> Verdict:
    contract = tally.contract
    if contract.tenant is None and not contract.has_period:
        return _sampled(tally, alpha=alpha, each=each, population=committed.size)
    certain, possible = tally.opened.ordered()
    openings = Openings(
        committed=committed.size,
        opened=tally.opened.drawn,
        mine=len(certain),
        certain=int(np.count_nonzero(certain)),
        possible=int(np.count_nonzero(possible)),
    )
    bounds = bound_scope(openings, epsilon=contract.epsilon, alpha=each)
    # The fewer records there are, the more are missing and the less is allowed: each side takes its worst end.
    missing, requests, allowed_least = _dues(contract, bounds.records[0])
    _, _, allowed_most = _dues(contract, bounds.records[1])
    low, high = bounds.exceedances[0], bounds.exceedances[1] + missing
    return _verdict(
        tally,
        _between(low, high, violated_above=allowed_most, compliant_to=allowed_least),
        alpha=(alpha, each),
        method=Method.SCOPED,
        counts=_Counts(
            requests=requests,
            observed=bounds.records[0],
            missing=missing,
            allowed=allowed_least,
            low=low,
            high=high,
            sampled=len(certain),
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    requests: int
    observed: int
    missing: int
    allowed: int
    low: int
    high: int
    sampled: int = 0
    finding: SampledFinding | None = None


def _dues(contract: Contract, records: int) -> tuple[int, int, int]:
    """Return how many requests are missing, how many there must be, and how many of them may exceed."""
    missing = max(0, (contract.expected_requests or 0) - records)
    return missing, records + missing, contract.allowance(records + missing)


def _verdict(
    tally: Tally,
    outcome: Outcome,
    *,
    alpha: tuple[float, float],
    method: Method,
    counts: _Counts,
) -> Verdict:
    outcome = outcome if counts.requests else Outcome.INSUFFICIENT_EVIDENCE
    return Verdict(
        contract=tally.contract,
        outcome=outcome,
        reason=_reason(outcome, (counts.low, counts.high), counts.allowed, counts.requests),
        requests=counts.requests,
        observed=counts.observed,
        missing=counts.missing,
        allowed=counts.allowed,
        exceedances_low=counts.low,
        exceedances_high=counts.high,
        alpha=alpha[0],
        alpha_each=alpha[1],
        method=method,
        sampled=counts.sampled,
        effect=design_effect(*tally.by_window),
        finding=counts.finding,
    )


def _by_false_discovery_rate(verdicts: tuple[Verdict, ...], alpha: float) -> tuple[Verdict, ...]:
    closing = [verdict.finding.closing for verdict in verdicts if verdict.finding is not None]
    violated = set(e_benjamini_hochberg([against for against, _ in closing], alpha=alpha))
    compliant = set(e_benjamini_hochberg([against for _, against in closing], alpha=alpha))
    found: list[Verdict] = []
    for index, verdict in enumerate(verdicts):
        outcome = Outcome.INSUFFICIENT_EVIDENCE
        if (index in violated) != (index in compliant) and verdict.requests:
            outcome = Outcome.VIOLATED if index in violated else Outcome.COMPLIANT
        bounds = (verdict.exceedances_low, verdict.exceedances_high)
        reason = f"by e-BH: {_reason(Outcome.INSUFFICIENT_EVIDENCE, bounds, verdict.allowed, verdict.requests)}"
        found.append(replace(verdict, outcome=outcome, reason=reason))
    return tuple(found)


def undecided(verdicts: Sequence[Verdict], reason: str) -> tuple[Verdict, ...]:
    """Return the verdicts as insufficient evidence: what they were computed from is not what it had to be."""
    return tuple(replace(verdict, outcome=Outcome.INSUFFICIENT_EVIDENCE, reason=reason) for verdict in verdicts)


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


def _between(low: int, high: int, *, violated_above: int, compliant_to: int) -> Outcome:
    if low > violated_above:
        return Outcome.VIOLATED
    return Outcome.COMPLIANT if high <= compliant_to else Outcome.INSUFFICIENT_EVIDENCE


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
