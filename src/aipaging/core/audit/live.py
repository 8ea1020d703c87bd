"""Contracts watched while they are in force: periods that follow one another, and what a finding says as a record.

A *period* of a contract ends after `allowed / epsilon` requests, or after `period_us`, whichever is first. So more than
`allowed` exceedances are a violation for certain as soon as they are seen, and nobody is judged by one late request in
a quiet hour: between the fraction that is allowed and `allowed` itself, a short period is `insufficient_evidence`.

Requests that nobody reported (a buffer that was full, a controller that was away) are *missing* in every contract that
was watched meanwhile: they may all have exceeded, and they stand in the way of `compliant`, never of `violated`.
"""

import math
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Final

from aipaging.core.audit.continuous import Change, ChangeKind, ContinuousAudit, Counts
from aipaging.core.audit.contract import Contract
from aipaging.core.audit.record import Circumstances, verdict_record
from aipaging.core.audit.verdict import Method, Multiplicity, Outcome, Verdict
from aipaging.core.foundation.errors import InvalidInputError

OPTIONAL_COUNTS: Final = ("period_start_us", "period_end_us", "expected_requests")
OPTIONAL_TEXTS: Final = ("tenant", "offset_ms", "prefactor", "decay_per_ms")
"""Fields of a verdict's record that files leave out, and the evidence log holds as 0 and as an empty text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LivePlan:
    """How contracts in force are watched.

    Attributes:
        alpha: Probability that any alarm of a run is false, over all its contracts and all time.
        window_requests: Requests of one window of the wager: long against the dependence of requests.
        allowed: Exceedances that are never yet a violation, however few the requests of a period.
        period_us: The longest period.
    """

    alpha: float = 0.01
    window_requests: int = 250
    allowed: int = 10
    period_us: int = 3_600_000_000

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise InvalidInputError(f"alpha is {self.alpha}; it lies between 0 and 1", field="alpha")
        if min(self.window_requests, self.allowed, self.period_us) < 1:
            raise InvalidInputError("windows, allowed exceedances and periods are positive", field="window_requests")

    def requests_of(self, epsilon: float) -> int:
        """Return how many requests a period holds at most: of so many, `allowed` may exceed."""
        return math.ceil(self.allowed / Fraction(Decimal(repr(epsilon))))

    def alpha_of(self, number: int) -> float:
        """Return the part of alpha that the n-th contract of a run gets, from 1: 1/(n (n + 1)), which adds up to 1."""
        return self.alpha / (number * (number + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """One contract in its present period.

    Attributes:
        audit: What was counted and wagered.
        plan: How it is watched.
        number: The how-manieth contract of this run.
        missing_before: Requests missing in all before the period began.
    """

    audit: ContinuousAudit
    plan: LivePlan
    number: int
    missing_before: int = 0

    @classmethod
    def begun(cls, contract: Contract, plan: LivePlan, *, number: int, now_us: int, missing: int) -> "Watch":
        """Return the watch before the first request.

        Args:
            contract: Without a period.
            plan: How it is watched.
            number: The how-manieth contract of this run, from 1.
            now_us: Wall clock.
            missing: Requests missing in all so far.
        """
        audit = ContinuousAudit.begun(
            _period(contract, plan, now_us), alpha=plan.alpha_of(number), window_requests=plan.window_requests
        )
        return cls(audit=audit, plan=plan, number=number, missing_before=missing)

    def fed(self, batch: Counts) -> "tuple[Watch, tuple[Change, ...]]":
        """Return the watch after a batch, and what it changed: an alarm, or that the period is lost."""
        audit, changes = self.audit.fed(batch)
        news = tuple(one for one in changes if one.kind is ChangeKind.ALARM or one.outcome is Outcome.VIOLATED)
        return replace(self, audit=audit), news

    def over(self, now_us: int) -> bool:
        """Whether the period is at its end."""
        contract = self.audit.contract
        full = self.audit.total.requests >= (contract.expected_requests or 0)
        return full or now_us >= (contract.period_start_us or 0) + self.plan.period_us

    def closed(self, now_us: int, missing: int) -> "tuple[Watch, Verdict]":
        """Return the watch in its next period, and the verdict of this one.

        Args:
            now_us: Wall clock.
            missing: Requests missing in all so far.
        """
        verdict = self.verdict(now_us, missing)
        audit = self.audit.next_period(_period(self.audit.contract, self.plan, now_us))
        return replace(self, audit=audit, missing_before=missing), verdict

    def verdict(self, now_us: int, missing: int) -> Verdict:
        """Return how the period stands: by arithmetic, with what is missing on the safe side.

        Args:
            now_us: Where the period ends, wall clock.
            missing: Requests missing in all so far.
        """
        total, lost = self.audit.total, max(0, missing - self.missing_before)
        started_us = self.audit.contract.period_start_us or 0
        contract = replace(
            self.audit.contract,
            period_end_us=max(now_us, started_us + 1),
            expected_requests=total.requests + lost,
        )
        held = contract.allowance(total.requests + lost)
        allowed = max(held, self.plan.allowed)
        outcome, why = Outcome.INSUFFICIENT_EVIDENCE, f"; a violation is more than {allowed}"
        if total.certain > allowed:
            outcome, why = Outcome.VIOLATED, f"; {allowed} are allowed"
        elif total.requests and total.possible + lost <= held:
            outcome, why = Outcome.COMPLIANT, f"; {held} are allowed"
        return Verdict(
            contract=contract,
            outcome=outcome,
            reason=f"{total.certain} to {total.possible + lost} of {total.requests + lost} requests exceeded{why}",
            requests=total.requests + lost,
            observed=total.requests,
            missing=lost,
            allowed=allowed,
            exceedances_low=total.certain,
            exceedances_high=total.possible + lost,
            alpha=self.plan.alpha,
            alpha_each=0.0,
            method=Method.CENSUS,
            sampled=0,
            effect=None,
        )


def _period(contract: Contract, plan: LivePlan, now_us: int) -> Contract:
    return replace(
        contract, period_start_us=now_us, period_end_us=None, expected_requests=plan.requests_of(contract.epsilon)
    )


def finding_fields(verdict: Verdict, watch: Watch, *, software: str) -> dict[str, str | int]:
    """Return the fields of an alarm's or a verdict's record in the evidence log.

    Args:
        verdict: How the period stands.
        watch: Where it stands; the family is all contracts of the run so far.
        software: Name and version.
    """
    how = Circumstances(
        software=software, seed="", root="", committed=0, multiplicity=Multiplicity.SPLIT.value, family=watch.number
    )
    fields = dict(verdict_record(verdict, how))
    for name in ("v", "type"):
        del fields[name]
    for name in OPTIONAL_COUNTS:
        fields.setdefault(name, 0)
    for name in OPTIONAL_TEXTS:
        fields.setdefault(name, "")
    return fields | {"log_e": f"{watch.audit.log_e:.6g}", "alpha_each": repr(watch.audit.alarm.alpha)}
