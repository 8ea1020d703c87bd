"""Contracts watched while they are in force: periods, what is missing, and when a violation is certain."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from aipaging.core.audit import Contract, Outcome
from aipaging.core.audit.account import Row, live_account
from aipaging.core.audit.continuous import ChangeKind, Counts
from aipaging.core.audit.live import LivePlan, Watch, finding_fields
from aipaging.core.evidence.record import AUDIT_FIELDS

CONTRACT = Contract(domain="edge", delay_ms=20.0, epsilon=0.001, tenant="acme")
PLAN = LivePlan(alpha=1e-3, window_requests=20, allowed=10, period_us=60_000_000)


def row(number: int, domain: str, total_ms: int, domain_ms: int) -> Row:
    return Row(start_us=number, status=0, total_us=total_ms * 1000, domain=domain, domain_us=domain_ms * 1000)


def begun(missing: int = 0) -> Watch:
    return Watch.begun(CONTRACT, PLAN, number=1, now_us=0, missing=missing)


def fed(watch: Watch, requests: int, late: int, unknown: int = 0) -> tuple[Watch, list[str]]:
    after, changes = watch.fed(Counts(requests=requests, certain=late, possible=late + unknown))
    return after, [change.kind.value for change in changes]


def test_an_alarm_within_two_windows_and_a_violation_at_the_eleventh() -> None:
    watch, said = begun(), []
    for request in range(1, 61):
        watch, news = fed(watch, 1, 1)
        said += [(request, kind) for kind in news]
    assert said == [(11, ChangeKind.VERDICT.value), (40, ChangeKind.ALARM.value)]


def test_a_period_ends_with_its_requests_or_its_time() -> None:
    watch, _ = fed(begun(), 9_999, 0)
    assert not watch.over(1)
    assert watch.over(60_000_000)
    assert fed(watch, 1, 0)[0].over(1)


def test_one_late_request_in_a_quiet_hour_is_no_violation_and_not_compliant() -> None:
    watch, _ = fed(begun(), 100, 1)
    after, verdict = watch.closed(60_000_000, 0)
    assert verdict.outcome is Outcome.INSUFFICIENT_EVIDENCE
    assert (after.audit.total.requests, after.audit.contract.period_start_us) == (0, 60_000_000)


def test_what_is_missing_stands_in_the_way_of_compliance_alone() -> None:
    assert fed(begun(), 5_000, 0)[0].verdict(1, 5).outcome is Outcome.COMPLIANT
    assert fed(begun(), 5_000, 0)[0].verdict(1, 6).outcome is Outcome.INSUFFICIENT_EVIDENCE
    assert fed(begun(missing=6), 5_000, 0)[0].verdict(1, 6).outcome is Outcome.COMPLIANT
    assert fed(begun(), 5_000, 11)[0].verdict(1, 6).outcome is Outcome.VIOLATED


def test_parts_of_alpha_add_up() -> None:
    assert sum(PLAN.alpha_of(number) for number in range(1, 10_000)) <= PLAN.alpha


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 5), st.integers(0, 5)), max_size=20), st.integers(0, 50))
def test_a_verdict_is_never_both_and_its_record_is_whole(batches: list[tuple[int, int, int]], missing: int) -> None:
    watch = begun()
    for requests, late, unknown in batches:
        certain = min(late, requests)
        watch, _ = fed(watch, requests, certain, min(unknown, requests - certain))
    verdict = watch.verdict(10, missing)
    total = watch.audit.total
    if verdict.outcome is Outcome.VIOLATED:
        assert total.certain > max(PLAN.allowed, 0.001 * (total.requests + missing) - 1)
    if verdict.outcome is Outcome.COMPLIANT:
        assert total.possible + missing <= 0.001 * (total.requests + missing) + 1e-9
    fields = finding_fields(verdict, watch, software="test") | {"audit": "1", "envelope": "", "account": ""}
    assert set(fields) == set(AUDIT_FIELDS)
    assert all(kind(fields[name]) for name, kind in AUDIT_FIELDS.items())


def test_the_account_adds_up_and_blames_only_who_is_violated() -> None:
    rows = [row(number, "slow", *((300, 280) if number % 2 else (30, 10))) for number in range(400)]
    rows += [row(number, "fine", 20 if number % 50 else 300, 9) for number in range(600)]
    path = Contract(domain="end-to-end", delay_ms=250.0, epsilon=0.001)
    slow = Contract(domain="slow", delay_ms=100.0, epsilon=0.001)
    account = live_account(path, rows, {"slow": slow}, np.random.default_rng(1))
    blame = {name: part["blame"] for name, part in account["domains"].items()}
    assert abs(account["observed"] - 0.212) < 1e-12
    assert abs(account["observed"] - account["permitted"] - sum(blame.values()) - account["unattributed"]) < 1e-9
    assert blame["slow"] > 0.19
    assert blame["fine"] == 0.0
    assert live_account(path, rows, {}, np.random.default_rng(1))["domains"]["slow"]["blame"] == 0.0
