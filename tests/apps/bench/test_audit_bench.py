"""The audit's benchmark: what it draws is what it says, and its pieces run."""

import msgspec
import numpy as np
import pytest

from aipaging.apps.bench import audit
from aipaging.apps.bench.command import benchmark_names
from aipaging.testing import audit_worlds


def test_it_is_found_by_name() -> None:
    assert "audit" in benchmark_names()
    assert "audit-worlds" not in benchmark_names()


@pytest.mark.parametrize("process", audit_worlds.PROCESSES)
def test_populations_hold_as_many_exceedances_as_are_asked(process: str) -> None:
    late = audit_worlds.population(process, 3_001, 30)
    assert (len(late), int(late.sum())) == (3_001, 30)


def test_the_queue_has_its_mean() -> None:
    """M/M/1 at 80 % load with unit mean gap: sojourn times of mean 0.8 / (1 - 0.8)."""
    assert audit_worlds.queue(np.random.default_rng(1), 2_000_000).mean() == pytest.approx(4.0, rel=0.05)


def test_the_tests_of_others() -> None:
    late = np.ones(500, dtype=bool)
    assert audit_worlds.naive(late, 0.01, 0.05, every=50) == (True, False)
    assert audit_worlds.naive(~late, 0.01, 0.05, every=50) == (False, True)
    violated, compliant = audit_worlds.probability_ratio(late, 0.01, 0.05)
    assert violated == 5  # 2**5 >= 20
    assert compliant is None
    assert audit_worlds.probability_ratio(~late, 0.01, 0.05)[0] is None


@pytest.mark.parametrize("fault", audit_worlds.FAULTS)
def test_a_fault_is_in_one_domain(fault: str) -> None:
    one = audit_worlds.faulty(fault, "compute", 3, 1_000)
    well = audit_worlds.healthy(np.random.default_rng(3), 1_000)
    assert np.array_equal(one["radio"], well["radio"])
    assert one["compute"].mean() > well["compute"].mean()
    assert audit_worlds.blamed(one).domains["radio"].blame == 0


def test_its_pieces_run() -> None:
    results = [
        *audit._false_verdicts(3, 0),
        *audit._sample_sizes(1, 0),
        *audit._alarms(2, 0),
        *audit._session_coverage(2, 0),
        *audit._blame(1),
        *audit._parquet(500_000),
    ]
    assert msgspec.json.encode(results)
    named = {result.metric: result for result in results}
    assert len(named) == len(results)
    assert named["false_violated_mm1"].peer == "naive test"
    assert named["least_blame_on_the_faulty_drift"].ours == 1.0
    assert named["false_alarms_mm1"].goal == "measured"
