"""A verdict from counts that somebody else made: from histograms, there are no records to look at again."""

from aipaging.core.audit.continuous import Counts
from aipaging.core.audit.contract import Contract
from aipaging.core.audit.verdict import Method, Outcome, Verdict


def judge_counts(contract: Contract, counts: Counts, *, alpha: float) -> Verdict:
    """Return the verdict of a period by arithmetic; what a bucket leaves open widens it.

    Args:
        contract: The contract.
        counts: Of its tenant and its period.
        alpha: Of the family of verdicts; arithmetic needs none of it.
    """
    missing = max(0, (contract.expected_requests or 0) - counts.requests)
    requests = counts.requests + missing
    allowed = contract.allowance(requests)
    low, high = counts.certain, counts.possible + missing
    outcome = Outcome.INSUFFICIENT_EVIDENCE
    if low > allowed:
        outcome = Outcome.VIOLATED
    elif requests and high <= allowed:
        outcome = Outcome.COMPLIANT
    return Verdict(
        contract=contract,
        outcome=outcome,
        reason=f"between {low} and {high} of {requests} requests exceeded, {allowed} are allowed",
        requests=requests,
        observed=counts.requests,
        missing=missing,
        allowed=allowed,
        exceedances_low=low,
        exceedances_high=high,
        alpha=alpha,
        alpha_each=0.0,
        method=Method.HISTOGRAM,
        sampled=0,
        effect=None,
    )
