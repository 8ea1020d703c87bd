"""One contract, watched while its period goes on: the state that a controller keeps per domain, tenant and contract.

`ContinuousAudit` is a value. `fed` returns the state after a batch and what changed: an alarm (the process looks
unsound: early, under a named assumption) or a verdict (the period is lost for certain). `closed` gives the verdict of
the period, by arithmetic. A batch costs what counting it costs; the state is constant in size, however long the period.

While a period goes on, `violated` is said as soon as it is certain: more exceedances than the contract allows in
`expected_requests`, or in what has been seen where that is more. Without `expected_requests` nothing is certain before
the end, and the alarm alone speaks. `compliant` is never said before the end.

Left out, because a stream cannot know: copies of a request. Feed each request once, or audit the records afterwards.
"""

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aipaging.core.audit.betting import WINDOW_REQUESTS, WindowAlarm, log_mixture_evidence
from aipaging.core.audit.contract import END_TO_END, Contract
from aipaging.core.audit.telemetry import DELAY_US_MAX, Integers, Status
from aipaging.core.audit.verdict import Outcome
from aipaging.core.foundation.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a batch says about one contract.

    Attributes:
        requests: How many requests.
        certain: Exceedances, whatever the unknown is.
        possible: Exceedances if everything unknown was late.
    """

    requests: int
    certain: int
    possible: int

    def __post_init__(self) -> None:
        if not 0 <= self.certain <= self.possible <= self.requests:
            raise InvalidInputError(
                f"{self.certain} to {self.possible} of {self.requests} requests is no count", field="certain"
            )

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            requests=self.requests + other.requests,
            certain=self.certain + other.certain,
            possible=self.possible + other.possible,
        )


NOTHING = Counts(requests=0, certain=0, possible=0)
"""No request yet."""


def counted(contract: Contract, delays_us: Integers, status: NDArray[Any] | None = None) -> Counts:
    """Return the counts of a batch of requests.

    Args:
        contract: The contract; its clock error widens the counts.
        delays_us: Delays in the contract's domain, or end to end; negative or absurd ones are unknown.
        status: Codes of `Status`, None where all are OK; failures are end-to-end exceedances, and say nothing of a
            single domain.

    Raises:
        InvalidInputError: There are not as many statuses as delays.
    """
    if status is not None and len(status) != len(delays_us):
        raise InvalidInputError(f"{len(status)} statuses of {len(delays_us)} delays", field="status")
    known = delays_us.view(np.uint64) <= DELAY_US_MAX
    certain = known & (delays_us > contract.delay_us + contract.clock_error_us)
    possible = ~known | (delays_us > contract.delay_us - contract.clock_error_us)
    if status is not None and contract.domain == END_TO_END:
        failed = (status >= Status.ERROR) & (status <= Status.LOST)
        certain, possible = (certain & (status == Status.OK)) | failed, possible | (status != Status.OK)
    return Counts(
        requests=len(delays_us), certain=int(np.count_nonzero(certain)), possible=int(np.count_nonzero(possible))
    )


class ChangeKind(enum.Enum):
    """What a batch can change."""

    ALARM = "alarm"
    """The evidence against "epsilon at most" reached 1/alpha: early, and under the alarm's assumption."""

    VERDICT = "verdict"
    """The verdict of the period is another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a batch changed.

    Attributes:
        kind: Alarm or verdict.
        outcome: The verdict from now on.
        requests: Requests of the period so far.
        exceedances: Of those, how many exceeded for certain.
        log_e: The log e-value of the alarm.
        reason: In a sentence.
    """

    kind: ChangeKind
    outcome: Outcome
    requests: int
    exceedances: int
    log_e: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinuousAudit:
    """The state of one contract in its period.

    Attributes:
        contract: What is promised, in a domain or end to end, to a tenant or to all.
        alarm: The wager on windows; where independence is attested, it only counts the windows.
        window_requests: Requests that make a window; a batch is never divided.
        total: Of the period.
        window: Of the window that is not full yet.
        outcome: The verdict so far.
        alarmed_at: The request of the period at which the alarm was raised, None while there is none.
    """

    contract: Contract
    alarm: WindowAlarm
    window_requests: int = WINDOW_REQUESTS
    total: Counts = NOTHING
    window: Counts = NOTHING
    outcome: Outcome = Outcome.INSUFFICIENT_EVIDENCE
    alarmed_at: int | None = None

    @classmethod
    def begun(
        cls, contract: Contract, *, alpha: float, family: int = 1, window_requests: int = WINDOW_REQUESTS
    ) -> "ContinuousAudit":
        """Return the state before the first request.

        Args:
            contract: The contract.
            alpha: Probability of a false alarm of the whole family.
            family: How many contracts are watched together: alpha is divided equally.
            window_requests: Long against the dependence of requests.

        Raises:
            InvalidInputError: alpha is no probability, or there is no family or window.
        """
        if family < 1 or window_requests < 1:
            raise InvalidInputError("a family and a window have one member at least", field="family")
        alarm = WindowAlarm(epsilon=contract.epsilon, alpha=alpha / family)
        return cls(contract=contract, alarm=alarm, window_requests=window_requests)

    @property
    def alarmed(self) -> bool:
        """Whether the alarm was raised in this period."""
        return self.alarmed_at is not None

    @property
    def log_e(self) -> float:
        """The log e-value of the alarm now."""
        if not self.contract.independent:
            return self.alarm.log_e
        evidence = log_mixture_evidence(self.total.certain, self.total.requests, self.contract.epsilon, violated=True)
        return float(evidence)

    def fed(self, batch: Counts) -> "tuple[ContinuousAudit, tuple[Change, ...]]":
        """Return the state after a batch, and what it changed.

        Args:
            batch: What `counted` returned, or counts from a histogram (`ExponentialHistogram.counts_above`).
        """
        if not batch.requests:
            return self, ()
        state = replace(self, total=self.total + batch, window=self.window + batch)
        if state.window.requests >= state.window_requests:
            alarm = state.alarm.seen(state.window.certain, state.window.requests)
            state = replace(state, alarm=alarm, window=NOTHING)
        return _decided(state)

    def closed(self) -> "tuple[ContinuousAudit, tuple[Change, ...]]":
        """Return the state at the end of the period, with its verdict, and the change if it is one."""
        missing = max(0, (self.contract.expected_requests or 0) - self.total.requests)
        allowed = self.contract.allowance(self.total.requests + missing)
        outcome = Outcome.INSUFFICIENT_EVIDENCE
        if self.total.certain > allowed:
            outcome = Outcome.VIOLATED
        elif self.total.requests and self.total.possible + missing <= allowed:
            outcome = Outcome.COMPLIANT
        return _changed(self, outcome, alarmed=self.alarmed)

    def next_period(self, contract: Contract) -> "ContinuousAudit":
        """Return the state at the beginning of another period; the alarm goes on, its guarantee is over all time.

        An alarm that was raised has spoken: the wager begins anew, and alpha is then per alarm, not over all time.

        Args:
            contract: Of the new period; another epsilon begins the wager anew, too.
        """
        alarm = self.alarm
        if self.alarmed or contract.epsilon != alarm.epsilon or contract.independent:
            alarm = WindowAlarm(epsilon=contract.epsilon, alpha=alarm.alpha)
        return ContinuousAudit(contract=contract, alarm=alarm, window_requests=self.window_requests, window=self.window)


def _decided(state: ContinuousAudit) -> tuple[ContinuousAudit, tuple[Change, ...]]:
    outcome, expected = state.outcome, state.contract.expected_requests
    if expected is not None and state.total.certain > state.contract.allowance(max(expected, state.total.requests)):
        outcome = Outcome.VIOLATED
    elif outcome is Outcome.VIOLATED:
        # More requests came than were expected, and raised what is allowed.
        outcome = Outcome.INSUFFICIENT_EVIDENCE
    alarmed = state.alarmed or state.log_e >= math.log(1 / state.alarm.alpha)
    return _changed(state, outcome, alarmed=alarmed)


def _changed(state: ContinuousAudit, outcome: Outcome, *, alarmed: bool) -> tuple[ContinuousAudit, tuple[Change, ...]]:
    alarmed_at = state.alarmed_at
    if alarmed and alarmed_at is None:
        alarmed_at = state.total.requests
    after = replace(state, outcome=outcome, alarmed_at=alarmed_at)
    kinds = [ChangeKind.ALARM] * (alarmed and not state.alarmed)
    kinds += [ChangeKind.VERDICT] * (outcome is not state.outcome)
    return after, tuple(_change(after, kind) for kind in kinds)


def _change(state: ContinuousAudit, kind: ChangeKind) -> Change:
    total = state.total
    reason = f"{total.certain} to {total.possible} of {total.requests} requests exceeded"
    if kind is ChangeKind.ALARM:
        reason += f": evidence {state.log_e:.2f} (log) against a fraction of {state.contract.epsilon:g} at most"
    return Change(
        kind=kind,
        outcome=state.outcome,
        requests=total.requests,
        exceedances=total.certain,
        log_e=state.log_e,
        reason=reason,
    )


def fed_all(
    audits: Sequence[ContinuousAudit], batches: Sequence[Counts]
) -> tuple[tuple[ContinuousAudit, ...], tuple[tuple[int, Change], ...]]:
    """Return several states after a batch of each, and what changed, by the place of the audit."""
    fed = [audit.fed(batch) for audit, batch in zip(audits, batches, strict=True)]
    changes = tuple((index, change) for index, (_, found) in enumerate(fed) for change in found)
    return tuple(state for state, _ in fed), changes
