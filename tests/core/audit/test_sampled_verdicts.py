"""Verdicts from records opened at random: errors at most alpha whatever the dependence, with the sample sizes aimed at.

Each rate is compared with what alpha allows at a significance of 1e-4, so a right implementation fails one run in
thousands, and the seeds are fixed.
"""

import math

import numpy as np
import pytest
from scipy import stats

from aipaging.core.audit import HypergeometricSequence, judge_openings, opening_key, opening_order

POPULATION = 20_000
EPSILON = 0.01
ALPHA = 0.05
RUNS = 120
OPENED = 5_000


def waiting_times(rng: np.random.Generator, count: int, load: float = 0.8) -> np.ndarray:
    steps = rng.exponential(load, count) - rng.exponential(1.0, count)
    walk = np.cumsum(steps)
    return walk - np.minimum(np.minimum.accumulate(walk), 0.0) + rng.exponential(load, count)


def on_off(rng: np.random.Generator, count: int) -> np.ndarray:
    burst = np.repeat(rng.random(count // 200) < 0.05, 200)
    return rng.exponential(1.0, count) + 20.0 * burst * rng.random(count)


PROCESSES = {
    "independent": lambda rng, count: rng.exponential(1.0, count),
    "queue": waiting_times,
    "bursts": on_off,
}


def population(process: str, exceeding: int) -> np.ndarray:
    """Return who exceeds, with exactly so many in the whole period."""
    delays = PROCESSES[process](np.random.default_rng(5), POPULATION)
    late = np.zeros(POPULATION, dtype=bool)
    late[np.argsort(delays)[POPULATION - exceeding :]] = True
    return late


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("side", ["violated", "compliant"])
def test_errors_stay_below_alpha_at_any_stopping_time(process: str, side: str) -> None:
    allowed = int(EPSILON * POPULATION)
    late = population(process, allowed if side == "violated" else allowed + 1)
    sequence = HypergeometricSequence.centred(POPULATION, EPSILON)
    rng = np.random.default_rng(11)
    wrong = 0
    for _ in range(RUNS):
        opened = late[rng.permutation(POPULATION)[:OPENED]]
        found = judge_openings(sequence, opened, opened, allowed=allowed, missing=0, alpha=ALPHA)
        wrong += (found.violated_at if side == "violated" else found.compliant_at) is not None
    assert stats.binom.sf(wrong - 1, RUNS, ALPHA) > 1e-4, f"{wrong} of {RUNS} wrongly {side}"


def test_the_bound_would_notice_a_naive_test() -> None:
    """Peeking with a fixed-sample test errs far more often, so the test above can fail."""
    allowed = int(EPSILON * POPULATION)
    late = population("independent", allowed)
    rng = np.random.default_rng(11)
    wrong = 0
    for _ in range(RUNS):
        opened = np.cumsum(late[rng.permutation(POPULATION)[:OPENED]])
        count = np.arange(100, OPENED, 50)
        wrong += bool((stats.binom.sf(opened[count - 1] - 1, count, EPSILON) < ALPHA).any())
    assert stats.binom.sf(wrong - 1, RUNS, ALPHA) < 1e-4


@pytest.mark.parametrize(("factor", "records"), [(0.25, 9_600), (0.5, 23_000), (2.0, 10_800), (3.0, 3_700)])
def test_sample_sizes(factor: float, records: int) -> None:
    """Median over runs, 20 % above the measured ones at most: half a million requests, epsilon 0.001."""
    size, epsilon, runs = 500_000, 1e-3, 15
    sequence = HypergeometricSequence.centred(size, epsilon)
    late = np.zeros(size, dtype=bool)
    late[: int(factor * epsilon * size)] = True
    rng = np.random.default_rng(3)
    decided = []
    for _ in range(runs):
        opened = late[rng.choice(size, 3 * records, replace=False, shuffle=True)]
        found = judge_openings(sequence, opened, opened, allowed=int(epsilon * size), missing=0, alpha=ALPHA)
        at = found.violated_at if factor > 1 else found.compliant_at
        decided.append(math.inf if at is None else at)
    assert np.median(decided) <= 1.2 * records


def test_evidence_is_a_fair_wager() -> None:
    """At the true number the e-value has mean one after any fixed number of openings (the whole law is summed)."""
    size, total, opened = 30, 12, 10
    sequence = HypergeometricSequence(population=size, prior=(1.0, 8.0))
    late = np.arange(opened + 1)
    evidence = np.exp(sequence.log_evidence(total, np.full(opened + 1, opened), late))
    assert float(stats.hypergeom.pmf(late, size, total, opened) @ evidence) == pytest.approx(1.0, abs=1e-9)


def test_one_sided_evidence_is_the_least_over_its_hypothesis() -> None:
    size, opened, late = 60, 25, 6
    sequence = HypergeometricSequence(population=size, prior=(1.0, 8.0))
    for total in range(size + 1):
        each = [float(sequence.log_evidence(k, np.asarray([opened]), np.asarray([late]))[0]) for k in range(size + 1)]
        at_most = sequence.log_evidence_at_most(total, np.asarray([opened]), np.asarray([late]))[0]
        at_least = sequence.log_evidence_at_least(total, np.asarray([opened]), np.asarray([late]))[0]
        assert at_most == pytest.approx(min(each[: total + 1]))
        assert at_least == pytest.approx(min(each[total:]))


def test_bounds_are_what_is_not_refuted() -> None:
    size, opened, late = 200, 60, 3
    sequence = HypergeometricSequence(population=size, prior=(1.0, 20.0))
    kept = [
        total
        for total in range(size + 1)
        if sequence.log_evidence(total, np.asarray([opened]), np.asarray([late]))[0] < math.log(1 / ALPHA)
    ]
    assert sequence.bounds(opened, late, alpha=ALPHA) == (kept[0], kept[-1])


def test_all_opened_is_arithmetic() -> None:
    late = np.zeros(400, dtype=bool)
    late[:5] = True
    sequence = HypergeometricSequence.centred(400, 0.01)
    found = judge_openings(sequence, late, late, allowed=4, missing=0, alpha=0.01)
    assert found.violated_at is not None
    assert (found.low, found.high) == (5, 5)
    found = judge_openings(sequence, late[::-1], late[::-1], allowed=5, missing=0, alpha=0.01)
    assert found.compliant_at is not None


def test_missing_records_widen_the_safe_side() -> None:
    fine = np.zeros(3_000, dtype=bool)
    sequence = HypergeometricSequence.centred(100_000, 0.01)
    whole = judge_openings(sequence, fine, fine, allowed=1_000, missing=0, alpha=ALPHA)
    short = judge_openings(sequence, fine, fine, allowed=1_010, missing=1_011, alpha=ALPHA)
    assert whole.compliant_at is not None
    assert short.compliant_at is None
    assert short.high == whole.high + 1_011


def test_the_order_of_opening_is_a_uniform_permutation() -> None:
    counts: dict[tuple[int, ...], int] = {}
    for seed in range(2_400):
        order = tuple(int(row) for row in opening_order(opening_key(seed, b"root"), 4, 4))
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4


def test_the_order_depends_on_seed_and_root_and_grows() -> None:
    key = opening_key(7, b"\x01")
    order = opening_order(key, 1_000_000, 500)
    assert len(set(order.tolist())) == 500
    assert order[:100].tolist() == opening_order(key, 1_000_000, 100).tolist()
    assert order.tolist() != opening_order(opening_key(7, b"\x02"), 1_000_000, 500).tolist()
    assert order.tolist() != opening_order(opening_key(8, b"\x01"), 1_000_000, 500).tolist()
    assert order[:3].tolist() == opening_order(opening_key(7, b"\x01"), 1_000_000, 3).tolist()
