"""Intervals cover as often as they say where their assumption holds, and are refused where it does not."""

import math

import numpy as np
import pytest
from scipy import stats

from aipaging.core.audit import (
    SESSION_GROUPS,
    ArrayTable,
    Batch,
    Contract,
    Estimate,
    EstimateMethod,
    Status,
    audit_period,
    design_effect,
    estimates,
    fit_tail,
    session_groups,
)
from aipaging.core.audit.estimates import order_ranks
from aipaging.testing.audit_worlds import sessions

LAWS = {
    "exponential": stats.expon(),
    "lognormal": stats.lognorm(0.8),
    "Weibull": stats.weibull_min(0.6),
    "Lomax": stats.lomax(3.3),
}


def waiting_times(rng: np.random.Generator, count: int, load: float = 0.8) -> np.ndarray:
    walk = np.cumsum(rng.exponential(load, count) - rng.exponential(1.0, count))
    return walk - np.minimum(np.minimum.accumulate(walk), 0.0) + rng.exponential(load, count)


def estimated(
    delay_us: np.ndarray, seed: int = 0, failed: int = 0, sessions: np.ndarray | None = None
) -> dict[tuple[str, float], Estimate]:
    count = len(delay_us)
    status = np.zeros(count, np.uint8)
    status[np.random.default_rng(1).permutation(count)[:failed]] = Status.LOST
    start_us, delay_us = np.arange(count) * 1_000, delay_us.astype(np.int64)
    batch = Batch(start_us=start_us, status=status, end_to_end_us=delay_us, domains={}, sessions=sessions)
    contract = Contract(domain="end-to-end", delay_ms=1.0, epsilon=0.01)
    tally = audit_period(ArrayTable(batch), [contract], alpha=0.05).scan.tallies[0]
    found = estimates(tally, np.random.default_rng(seed))
    return {(one.method.value, one.quantile): one for one in found}


def test_order_statistics_cover() -> None:
    rng = np.random.default_rng(1)
    low, high = order_ranks(10_000, 0.999)
    covered = 0
    for law in LAWS.values():
        truth = law.ppf(0.999)
        for _ in range(50):
            ordered = np.sort(law.rvs(10_000, random_state=rng))
            covered += ordered[low - 1] <= truth <= ordered[high - 1]
    assert stats.binom.cdf(covered, 200, 0.95) > 1e-3, f"{covered} of 200"


def test_profile_likelihood_covers(capsys: pytest.CaptureFixture[str]) -> None:
    """At the top 5 % of 10,000: nominal 95 %, pooled over four laws."""
    rng = np.random.default_rng(2)
    covered, runs = 0, 100
    for law in LAWS.values():
        truth = law.ppf(0.999)
        for _ in range(runs):
            ordered = np.sort(law.rvs(10_000, random_state=rng))
            threshold = ordered[-501]
            low, high = fit_tail(ordered[-500:] - threshold).interval_at(0.001 / 0.05)
            covered += threshold + low <= truth <= threshold + high
    with capsys.disabled():
        print(f" [profile likelihood covers {covered / runs / 4:.1%}]", end="")
    assert stats.binom.cdf(covered, 4 * runs, 0.95) > 1e-3
    assert covered < 4 * runs


def test_block_bootstrap_covers_under_a_queue(capsys: pytest.CaptureFixture[str]) -> None:
    """Measured and printed; order statistics cover a fifth of the time here."""
    rng = np.random.default_rng(3)
    truth_ms = -math.log(0.01) / (1 / 0.8 - 1.0)
    covered, runs = 0, 50
    for _ in range(runs):
        found = estimated(waiting_times(rng, 200_000) * 1_000)
        interval = found["block-bootstrap", 0.99]
        assert found["order-statistics", 0.99].refused is not None
        assert interval.low_ms is not None
        assert interval.high_ms is not None
        covered += interval.low_ms <= truth_ms <= interval.high_ms
    with capsys.disabled():
        print(f" [block bootstrap covers {covered / runs:.0%} under M/M/1 at 0.8]", end="")
    assert covered / runs > 0.6


def test_session_bootstrap_covers_where_sessions_differ(capsys: pytest.CaptureFixture[str]) -> None:
    """Requests of 1,000 sessions in any order: to windows of time they look independent, and are not."""
    truth_ms = float(np.quantile(sessions(np.random.default_rng(20), 300_000)[0], 0.99))
    rng = np.random.default_rng(21)
    runs, covered, blocks = 40, 0, 0
    for run in range(runs):
        delay_ms, session = sessions(rng, 1_000)
        groups = session_groups([f"session-{one}" for one in range(1_000)])[session]
        found = estimated(delay_ms * 1_000, run, sessions=groups)
        assert "design effect" in (found["order-statistics", 0.99].refused or "")
        assert "design effect" in (found["generalised-pareto", 0.999].refused or "")
        one, other = found["session-bootstrap", 0.99], found["block-bootstrap", 0.99]
        assert one.design_effect is not None
        assert one.design_effect > 3
        assert one.low_ms is not None
        assert one.high_ms is not None
        covered += one.low_ms <= truth_ms <= one.high_ms
        blocks += (other.low_ms or 0) <= truth_ms <= (other.high_ms or 0)
    with capsys.disabled():
        print(f" [session bootstrap covers {covered / runs:.0%}, blocks {blocks / runs:.0%}]", end="")
    assert stats.binom.cdf(covered, runs, 0.90) > 1e-3
    assert blocks < covered


def test_few_sessions_cannot_be_resampled() -> None:
    delay = np.random.default_rng(8).exponential(10_000, 5_000)
    refused = estimated(delay, sessions=np.arange(5_000) % 12)["session-bootstrap", 0.99].refused
    assert refused == "fewer than 16 groups of sessions hold requests"
    assert ("session-bootstrap", 0.99) not in estimated(delay)


def test_independent_delays_have_every_estimate() -> None:
    delay = np.random.default_rng(4).exponential(10_000, 50_000)
    found = estimated(delay, sessions=np.arange(50_000) % SESSION_GROUPS)
    for level in (0.99, 0.999, 0.9999):
        truth = -10.0 * math.log(1 - level)
        for method in EstimateMethod:
            one = found[method.value, level]
            assert one.refused is None, one
            assert one.assumption
            assert one.low_ms is not None
            assert one.high_ms is not None
            assert 0.85 * one.low_ms <= truth <= 1.2 * one.high_ms
    exact = float(np.sort(delay.astype(np.int64))[math.ceil(0.999 * 50_000) - 1]) / 1e3
    assert found["order-statistics", 0.999].delay_ms == exact


def test_a_hidden_regime_is_refused() -> None:
    rng = np.random.default_rng(5)
    delay = np.where(rng.random(20_000) < 0.004, 2e6 * (1 + rng.random(20_000)), rng.exponential(10_000, 20_000))
    refused = estimated(delay)["generalised-pareto", 0.999].refused
    assert refused is not None
    assert "does not fit" in refused


def test_dependence_is_refused() -> None:
    delay = waiting_times(np.random.default_rng(6), 50_000) * 1_000
    refused = estimated(delay)["generalised-pareto", 0.999].refused
    assert refused is not None
    assert "design effect" in refused


def test_few_delays_are_refused() -> None:
    found = estimated(np.random.default_rng(7).exponential(10_000, 1_000))
    assert "needs 100" in (found["generalised-pareto", 0.999].refused or "")
    assert found["order-statistics", 0.9999].high_ms == math.inf
    assert "less than one beyond" in (found["block-bootstrap", 0.9999].refused or "")


def test_failures_are_later_than_everything() -> None:
    delay = np.random.default_rng(8).exponential(10_000, 20_000)
    found = estimated(delay, failed=60)
    assert found["order-statistics", 0.999].delay_ms == math.inf
    assert "failed" in (found["generalised-pareto", 0.999].refused or "")
    survivors = estimated(delay)["order-statistics", 0.99].delay_ms
    assert survivors is not None
    assert (found["order-statistics", 0.99].delay_ms or 0) > survivors


def test_no_delay_at_all() -> None:
    found = estimated(np.full(10, -5))
    assert {one.refused for one in found.values()} == {"no delay is known"}


@pytest.mark.parametrize("shape", [-0.2, 0.0, 0.2, 0.7])
def test_the_fit_is_the_likeliest(shape: float) -> None:
    excess = stats.genpareto(shape, scale=2.0).rvs(2_000, random_state=9)
    ours = fit_tail(excess)
    theirs = stats.genpareto.fit(excess, floc=0)
    assert ours.log_likelihood >= stats.genpareto(*theirs).logpdf(excess).sum() - 1e-3
    assert ours.shape == pytest.approx(theirs[0], abs=0.01)


@pytest.mark.parametrize("shape", [-0.2, 0.0, 0.4, 0.7])
def test_the_adequacy_test_has_its_level(shape: float) -> None:
    """A right model is refused in 5 % of samples; here 120."""
    rng = np.random.default_rng(10)
    refused = sum(fit_tail(stats.genpareto(shape).rvs(400, random_state=rng)).p_value <= 0.05 for _ in range(120))
    assert stats.binom.sf(refused - 1, 120, 0.05) > 1e-3
    assert stats.binom.cdf(refused, 120, 0.05) > 1e-3


def test_design_effect_of_independent_and_of_bursts() -> None:
    rng = np.random.default_rng(11)
    requests = np.full(4096, 100)
    alone = design_effect(requests, rng.binomial(100, 0.02, 4096))
    bursts = design_effect(requests, 100 * (rng.random(4096) < 0.02))
    assert alone is not None
    assert bursts is not None
    assert alone < 2.0
    assert bursts > 60
    assert design_effect(requests, np.zeros(4096, np.int64)) is None
    assert design_effect(requests[:16], np.ones(16, np.int64)) is None
