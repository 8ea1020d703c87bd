"""Complete periods: counts, what widens them, and what is said about it."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipaging.core.audit import (
    END_TO_END,
    UNKNOWN,
    ArrayTable,
    Batch,
    Contract,
    Outcome,
    PeriodAudit,
    Sampling,
    Status,
    Verdict,
    audit_period,
    data_quality,
)
from aipaging.core.audit.telemetry import UNREADABLE
from aipaging.core.foundation.errors import InvalidInputError

MS = 1_000
DAY = 86_400_000_000


def table(ends: list[int], ids: list[str] | None = None, **columns: Any) -> ArrayTable:
    count = len(ends)
    batch = Batch(
        start_us=np.asarray(columns.get("start_us", np.arange(count) * MS), dtype=np.int64),
        status=np.asarray(columns.get("status", np.zeros(count)), dtype=np.uint8),
        end_to_end_us=np.asarray(ends, dtype=np.int64),
        domains={name: np.asarray(column, dtype=np.int64) for name, column in columns.get("domains", {}).items()},
        tenants=columns.get("tenants"),
        tenant_names=columns.get("tenant_names", ()),
    )
    return ArrayTable(batch, ids)


def judged(rows: ArrayTable, **fields: Any) -> tuple[Verdict, dict[str, Any], PeriodAudit]:
    contract = Contract(**{"domain": END_TO_END, "delay_ms": 10.0, "epsilon": 0.1} | fields)
    audit = audit_period(rows, [contract], alpha=0.05)
    return audit.verdicts[0], data_quality(audit)["flaws"], audit


def counts(verdict: Verdict) -> tuple[int, int, int]:
    return verdict.requests, verdict.exceedances_low, verdict.exceedances_high


@given(
    st.lists(st.tuples(st.integers(0, 20 * MS), st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=60),
    st.integers(0, 70),
)
def test_counts_are_those_of_a_plain_loop(rows: list[tuple[int, int, int]], expected: int) -> None:
    ends, status, names = (list(column) for column in zip(*rows, strict=True))
    verdict, _, _ = judged(table(ends, [f"r{n}" for n in names], status=status), expected_requests=expected)
    by_id: dict[int, list[bool]] = {}
    for end, code, name in rows:
        by_id.setdefault(name, []).append(end > 10 * MS or code != 0)
    missing = max(0, expected - len(by_id))
    low, high = sum(map(all, by_id.values())), sum(map(any, by_id.values()))
    assert counts(verdict) == (len(by_id) + missing, low, high + missing)
    assert verdict.method.value == "census"
    assert verdict.alpha_each == 0.0


@pytest.mark.parametrize(("late", "outcome"), [(10, Outcome.COMPLIANT), (11, Outcome.VIOLATED), (0, Outcome.COMPLIANT)])
def test_the_allowance_is_exact(late: int, outcome: Outcome) -> None:
    assert judged(table([20 * MS] * late + [MS] * (100 - late)))[0].outcome is outcome


@pytest.mark.parametrize(("epsilon", "requests", "allowed"), [(0.003, 1000, 3), (0.07, 100, 7), (1e-5, 300_000, 3)])
def test_the_allowance_follows_the_digits(epsilon: float, requests: int, allowed: int) -> None:
    assert Contract(domain="a", delay_ms=1.0, epsilon=epsilon).allowance(requests) == allowed


@pytest.mark.parametrize(("delay_ms", "delay_us"), [(4.35, 4350), (0.3, 300), (1.0005, 1000), (70, 70_000)])
def test_the_delay_follows_the_digits(delay_ms: float, delay_us: int) -> None:
    assert Contract(domain="a", delay_ms=delay_ms, epsilon=0.1).delay_us == delay_us


def test_exactly_the_delay_is_in_time() -> None:
    assert judged(table([10 * MS, 10 * MS + 1]))[0].exceedances_low == 1


def test_failures_are_exceedances_and_silence_is_unknown() -> None:
    status = [Status.OK, Status.ERROR, Status.TIMEOUT, Status.LOST, Status.OK, Status.UNKNOWN]
    verdict, flaws, _ = judged(table([1, 1, UNKNOWN, UNKNOWN, UNKNOWN, 1], status=status))
    assert counts(verdict) == (6, 3, 5)
    assert flaws["unknown_status"]["count"] == 1
    assert flaws["unknown_delay:end-to-end"]["count"] == 1


def test_an_unknown_delay_widens_its_domain_only() -> None:
    rows = table([5, 5, 5], domains={"a": [1, UNKNOWN, 20 * MS], "b": [1, 1, 1]})
    contracts = [Contract(domain=name, delay_ms=10.0, epsilon=0.1) for name in ("a", "b", "c")]
    audit = audit_period(rows, contracts, alpha=0.05)
    assert [counts(verdict)[1:] for verdict in audit.verdicts] == [(0, 2), (0, 0), (0, 3)]
    flaws = data_quality(audit)["flaws"]
    assert flaws["unknown_delay:a"]["count"] == 1
    assert flaws["domains_disagree"]["count"] == 1
    assert "domain_without_telemetry:c" in flaws


@pytest.mark.parametrize(
    ("value", "flaw"), [(-5, "negative_delay"), (DAY + 1, "absurd_delay"), (UNREADABLE, "unreadable_delay")]
)
def test_impossible_delays_are_unknown_and_named(value: int, flaw: str) -> None:
    verdict, flaws, _ = judged(table([value, MS]))
    assert counts(verdict) == (2, 0, 1)
    assert flaws[f"{flaw}:end-to-end"]["count"] == 1
    assert "unknown" in flaws[f"{flaw}:end-to-end"]["effect"]


def test_domains_that_disagree_widen_to_the_safe_side() -> None:
    """The domains say 18 ms, the path 9: each domain took its delay less 9 ms at least, the path 18 at most."""
    rows = table([9 * MS], domains={"a": [14 * MS], "b": [4 * MS]})
    contracts = [Contract(domain=name, delay_ms=10.0, epsilon=0.1) for name in (END_TO_END, "a", "b")]
    audit = audit_period(rows, contracts, alpha=0.05)
    assert [counts(verdict)[1:] for verdict in audit.verdicts] == [(0, 1), (0, 1), (0, 0)]
    agreed = audit_period(table([18 * MS], domains={"a": [14 * MS], "b": [4 * MS + 2]}), contracts, alpha=0.05)
    assert [counts(verdict)[1:] for verdict in agreed.verdicts] == [(1, 1), (1, 1), (0, 0)]


def test_copies_count_once_and_better_copies_do_not_help() -> None:
    rows = table([20 * MS, 20 * MS, 20 * MS, 1], ["a", "a", "b", "b"])
    verdict, flaws, _ = judged(rows)
    assert counts(verdict) == (2, 1, 2)
    assert flaws["duplicated_requests"]["count"] == 2
    assert flaws["conflicting_duplicates"]["count"] == 1


def test_rows_without_an_id_prove_nothing() -> None:
    verdict, flaws, _ = judged(table([20 * MS, 1, 1], ["", "", "c"]))
    assert counts(verdict) == (3, 0, 2)
    assert flaws["missing_id"]["count"] == 2


def test_the_period_is_half_open_and_unplaced_rows_widen() -> None:
    starts = [99, 100, 199, 200, -3]
    verdict, flaws, _ = judged(table([20 * MS] * 5, start_us=starts), period_start_us=100, period_end_us=200)
    assert counts(verdict) == (3, 2, 3)
    assert flaws["outside_period:end-to-end"]["count"] == 2
    assert flaws["unknown_start"]["count"] == 1


def test_telemetry_of_an_expired_contract_gives_no_verdict() -> None:
    verdict, flaws, _ = judged(table([1, 1]), period_start_us=DAY, period_end_us=2 * DAY)
    assert verdict.outcome is Outcome.INSUFFICIENT_EVIDENCE
    assert flaws["no_request_in_period:end-to-end"]["count"] == 2


def test_withheld_records_cannot_buy_compliance() -> None:
    honest = judged(table([1] * 80 + [20 * MS] * 20), expected_requests=100)[0]
    withheld, flaws, _ = judged(table([1] * 80), expected_requests=100)
    assert honest.outcome is Outcome.VIOLATED
    assert withheld.outcome is Outcome.INSUFFICIENT_EVIDENCE
    assert counts(withheld) == (100, 0, 20)
    assert flaws["missing_requests:end-to-end"]["count"] == 20


def test_more_than_expected_is_named() -> None:
    verdict, flaws, _ = judged(table([1] * 5), expected_requests=3)
    assert verdict.requests == 5
    assert flaws["surplus_requests:end-to-end"]["count"] == 2


def test_tenants_are_judged_apart() -> None:
    rows = table([1, 20 * MS, 20 * MS], tenants=np.asarray([0, 1, 1]), tenant_names=("a", "b"))
    contracts = [Contract(domain=END_TO_END, delay_ms=10.0, epsilon=0.1, tenant=name) for name in ("a", "b", None)]
    audit = audit_period(rows, contracts, alpha=0.05)
    assert [counts(verdict) for verdict in audit.verdicts] == [(1, 0, 0), (2, 2, 2), (3, 2, 2)]


def test_clock_error_widens() -> None:
    verdict = judged(table([9 * MS, 11 * MS, 13 * MS, 7 * MS]), clock_error_ms=2.0)[0]
    assert counts(verdict) == (4, 1, 3)


def test_clock_steps_are_named() -> None:
    starts = [0, 5_000_000, 1_000_000, 1_100_000, 1_200_000]
    _, flaws, _ = judged(table([1] * 5, start_us=starts))
    assert flaws["clock_step"] == flaws["clock_step"] | {"count": 1, "largest_us": 4_000_000}


def test_sampled_periods_open_only_what_was_drawn() -> None:
    ends = [20 * MS] * 400 + [1] * 1_600
    contracts = [Contract(domain=END_TO_END, delay_ms=10.0, epsilon=0.1)]
    audit = audit_period(table(ends), contracts, alpha=0.05, sampling=Sampling(count=300, seed=4))
    verdict = audit.verdicts[0]
    assert verdict.outcome is Outcome.VIOLATED
    assert verdict.sampled == 300
    assert verdict.exceedances_low <= 400 <= verdict.exceedances_high
    again = audit_period(table(ends), contracts, alpha=0.05, sampling=Sampling(count=300, seed=4)).verdicts[0]
    assert again == verdict


def test_alpha_is_divided_among_sampled_verdicts() -> None:
    contracts = [Contract(domain=END_TO_END, delay_ms=10.0, epsilon=e) for e in (0.1, 0.2)]
    audit = audit_period(table([1] * 50), contracts, alpha=0.05, sampling=Sampling(count=10, seed=1))
    assert [verdict.alpha_each for verdict in audit.verdicts] == [0.025, 0.025]


def test_what_cannot_be_audited_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="no contract"):
        audit_period(table([1]), [], alpha=0.05)
    contract = Contract(domain=END_TO_END, delay_ms=10.0, epsilon=0.1)
    with pytest.raises(InvalidInputError, match="alpha"):
        audit_period(table([1]), [contract], alpha=1.0)
    with pytest.raises(InvalidInputError, match="can be opened"):
        Sampling(count=0, seed=1)
    with pytest.raises(InvalidInputError, match="different lengths"):
        table([1, 2], ["a"])


@pytest.mark.parametrize(
    "fields",
    [
        {"delay_ms": 0.0},
        {"delay_ms": float("nan")},
        {"epsilon": 0.0},
        {"epsilon": 1.0},
        {"domain": ""},
        {"expected_requests": -1},
        {"clock_error_ms": -1.0},
        {"period_start_us": 5, "period_end_us": 5},
    ],
)
def test_contracts_that_are_none(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        Contract(**{"domain": "a", "delay_ms": 1.0, "epsilon": 0.1} | fields)


def test_nothing_at_all() -> None:
    verdict, _, _ = judged(table([]))
    assert verdict.outcome is Outcome.INSUFFICIENT_EVIDENCE
    assert verdict.requests == 0


def test_nothing_to_open() -> None:
    contract = Contract(domain=END_TO_END, delay_ms=10.0, epsilon=0.1)
    audit = audit_period(table([]), [contract], alpha=0.05, sampling=Sampling(count=5, seed=1))
    assert audit.verdicts[0].outcome is Outcome.INSUFFICIENT_EVIDENCE


def test_rows_of_unknown_tenants_may_be_anybodys() -> None:
    rows = table([1, 20 * MS, 20 * MS, 20 * MS], tenants=np.asarray([0, 1, 2, 2]), tenant_names=("a", "b", ""))
    contracts = [Contract(domain=END_TO_END, delay_ms=10.0, epsilon=0.1, tenant=name) for name in ("a", "b", None)]
    audit = audit_period(rows, contracts, alpha=0.05)
    assert [counts(verdict) for verdict in audit.verdicts] == [(3, 0, 2), (3, 1, 3), (4, 3, 3)]
    assert data_quality(audit)["flaws"]["unknown_tenant"]["count"] == 2


def test_a_copy_of_unknown_tenant_proves_nothing_for_a_tenant() -> None:
    rows = table([20 * MS, 20 * MS], ["x", "x"], tenants=np.asarray([0, 1]), tenant_names=("a", ""))
    contract = Contract(domain=END_TO_END, delay_ms=10.0, epsilon=0.1, tenant="a")
    assert counts(audit_period(rows, [contract], alpha=0.05).verdicts[0]) == (1, 0, 1)


def test_telemetry_without_tenants_says_so() -> None:
    verdict, flaws, _ = judged(table([20 * MS, 1]), tenant="a")
    assert counts(verdict) == (2, 1, 1)
    assert flaws["tenants_unknown"]["count"] == 2
    assert "every tenant's contract" in flaws["tenants_unknown"]["effect"]
