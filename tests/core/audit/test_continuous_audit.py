"""The state of a contract while its period goes on: what changes, when, and that nothing depends on how it is cut."""

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from aipaging.core.audit import (
    END_TO_END,
    UNKNOWN,
    ArrayTable,
    Batch,
    ChangeKind,
    ContinuousAudit,
    Contract,
    Counts,
    Outcome,
    Status,
    audit_period,
    counted,
    fed_all,
)
from aipaging.core.foundation.errors import InvalidInputError

CONTRACT = Contract(domain="compute", delay_ms=10.0, epsilon=0.01, expected_requests=1_000)
ALPHA = 0.05


def begun(contract: Contract = CONTRACT, window: int = 100) -> ContinuousAudit:
    return ContinuousAudit.begun(contract, alpha=ALPHA, window_requests=window)


def batch(requests: int, certain: int, possible: int | None = None) -> Counts:
    return Counts(requests=requests, certain=certain, possible=certain if possible is None else possible)


def test_the_period_is_lost_as_soon_as_that_is_certain() -> None:
    state, changes = begun().fed(batch(50, 10))
    assert (state.outcome, changes) == (Outcome.INSUFFICIENT_EVIDENCE, ())
    state, changes = state.fed(batch(10, 1))
    assert [(change.kind, change.outcome) for change in changes] == [(ChangeKind.VERDICT, Outcome.VIOLATED)]
    assert (changes[0].requests, changes[0].exceedances) == (60, 11)
    assert state.fed(batch(10, 1))[1] == ()


def test_without_expected_requests_only_the_end_decides() -> None:
    state, changes = begun(replace(CONTRACT, expected_requests=None)).fed(batch(99, 99))
    assert (state.outcome, changes) == (Outcome.INSUFFICIENT_EVIDENCE, ())
    assert state.closed()[0].outcome is Outcome.VIOLATED


def test_a_surplus_of_requests_takes_a_verdict_back() -> None:
    state, _ = begun(window=10**6).fed(batch(1_000, 11))
    assert state.outcome is Outcome.VIOLATED
    state, changes = state.fed(batch(1_000, 0))
    assert [change.outcome for change in changes] == [Outcome.INSUFFICIENT_EVIDENCE]


@pytest.mark.parametrize(
    ("fed", "outcome"),
    [
        (batch(1_000, 10), Outcome.COMPLIANT),
        (batch(1_000, 9, 11), Outcome.INSUFFICIENT_EVIDENCE),
        (batch(990, 0), Outcome.COMPLIANT),
        (batch(989, 0), Outcome.INSUFFICIENT_EVIDENCE),
        (batch(1_000, 11), Outcome.VIOLATED),
        (batch(0, 0), Outcome.INSUFFICIENT_EVIDENCE),
    ],
)
def test_the_end_of_a_period_is_arithmetic(fed: Counts, outcome: Outcome) -> None:
    assert begun().fed(fed)[0].closed()[0].outcome is outcome


def test_an_alarm_is_raised_once_and_before_the_verdict() -> None:
    state, seen = begun(replace(CONTRACT, expected_requests=10**6)), []
    for _ in range(40):
        state, changes = state.fed(batch(100, 20))
        seen += changes
    assert [change.kind for change in seen] == [ChangeKind.ALARM]
    assert state.alarmed
    assert state.alarmed_at == seen[0].requests <= 500
    assert seen[0].log_e >= math.log(1 / ALPHA)
    assert "evidence" in seen[0].reason


def test_attested_independence_is_faster() -> None:
    rng = np.random.default_rng(1)
    fast, slow = begun(replace(CONTRACT, independent=True)), begun()
    for late in rng.binomial(100, 0.03, 500):
        fast, slow = fast.fed(batch(100, int(late)))[0], slow.fed(batch(100, int(late)))[0]
    assert fast.alarmed_at is not None
    assert slow.alarmed_at is not None
    assert fast.alarmed_at < slow.alarmed_at


def test_false_alarms_of_a_family() -> None:
    """Two contracts share alpha: at epsilon, one of them is alarmed in 5 % of runs at most."""
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(60):
        audits = tuple(ContinuousAudit.begun(CONTRACT, alpha=ALPHA, family=2, window_requests=500) for _ in range(2))
        for late in rng.binomial(500, CONTRACT.epsilon, (100, 2)):
            audits, _ = fed_all(audits, [batch(500, int(one)) for one in late])
        wrong += any(audit.alarmed for audit in audits)
    assert stats.binom.sf(wrong - 1, 60, ALPHA) > 1e-4


def test_what_changed_is_told_by_place() -> None:
    _, changes = fed_all([begun(), begun()], [batch(50, 0), batch(50, 50)])
    assert [(index, change.kind) for index, change in changes] == [(1, ChangeKind.VERDICT)]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=40), st.data())
def test_counts_do_not_depend_on_how_batches_are_cut(late: list[int], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(late)))
    parts = [sum(late[:cut]), sum(late[cut:])]
    sizes = [30 * cut, 30 * (len(late) - cut)]
    fine = coarse = begun(window=10**6)
    for one in late:
        fine, _ = fine.fed(batch(30, one))
    for size, one in zip(sizes, parts, strict=True):
        coarse, _ = coarse.fed(batch(size, one))
    assert fine.total == coarse.total
    assert fine.closed()[0].outcome is coarse.closed()[0].outcome


@given(
    st.lists(
        st.tuples(st.one_of(st.integers(-3, 20_000), st.sampled_from([UNKNOWN, 10**15])), st.integers(0, 4)),
        min_size=1,
        max_size=40,
    ),
    st.sampled_from([END_TO_END, "compute"]),
    st.sampled_from([0.0, 2.5]),
)
def test_counts_are_those_of_the_audit_afterwards(rows: list[tuple[int, int]], domain: str, error_ms: float) -> None:
    delays = np.asarray([delay for delay, _ in rows], dtype=np.int64)
    status = np.asarray([code for _, code in rows], dtype=np.uint8)
    contract = Contract(domain=domain, delay_ms=10.0, epsilon=0.1, clock_error_ms=error_ms)
    whole = delays if domain == END_TO_END else np.full(len(rows), 10**9)
    table = ArrayTable(
        Batch(
            start_us=np.arange(len(rows)),
            status=status,
            end_to_end_us=whole,
            domains={} if domain == END_TO_END else {domain: delays},
        )
    )
    verdict = audit_period(table, [contract], alpha=ALPHA).verdicts[0]
    found = counted(contract, delays, status)
    assert (found.requests, found.certain, found.possible) == (
        verdict.requests,
        verdict.exceedances_low,
        verdict.exceedances_high,
    )
    assert begun(contract).fed(found)[0].closed()[0].outcome is verdict.outcome


def test_failures_say_nothing_of_a_domain() -> None:
    lost = np.asarray([Status.LOST], dtype=np.uint8)
    assert counted(CONTRACT, np.asarray([1]), lost) == batch(1, 0)
    assert counted(replace(CONTRACT, domain=END_TO_END), np.asarray([UNKNOWN]), lost) == batch(1, 1)


def test_the_state_stays_as_small_as_it_was() -> None:
    state, _ = begun().fed(batch(100, 1))
    size = len(pickle.dumps(state))
    for _ in range(2_000):
        state, _ = state.fed(batch(100, 1))
    assert len(pickle.dumps(state)) < size + 100


def test_the_alarm_goes_on_over_periods_until_it_has_spoken() -> None:
    calm, _ = begun().fed(batch(150, 2))
    after = calm.next_period(CONTRACT)
    assert after.alarm == calm.alarm
    assert (after.total.requests, after.window, after.outcome) == (0, calm.window, Outcome.INSUFFICIENT_EVIDENCE)
    assert calm.next_period(replace(CONTRACT, epsilon=0.02)).alarm.windows == 0
    assert calm.next_period(replace(CONTRACT, delay_ms=11.0)).window.requests == 0
    loud, _ = begun().fed(batch(5_000, 5_000))
    for _ in range(5):
        loud, _ = loud.fed(batch(5_000, 5_000))
    assert loud.alarmed
    assert not loud.next_period(CONTRACT).alarmed
    assert loud.next_period(CONTRACT).log_e == 0.0


def test_what_is_no_count_is_refused() -> None:
    for requests, certain, possible in ((1, 2, 2), (3, 2, 1), (3, -1, 2), (3, 1, 4)):
        with pytest.raises(InvalidInputError, match="is no count"):
            Counts(requests=requests, certain=certain, possible=possible)
    with pytest.raises(InvalidInputError, match="statuses"):
        counted(CONTRACT, np.asarray([1, 2]), np.zeros(1, np.uint8))
    for family, window in ((0, 5), (1, 0)):
        with pytest.raises(InvalidInputError):
            ContinuousAudit.begun(CONTRACT, alpha=ALPHA, family=family, window_requests=window)
