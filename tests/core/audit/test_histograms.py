"""Histograms of others: nothing lost on the way, and a bucket around the contracted delay widens the counts."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipaging.core.audit import (
    Contract,
    DelaySketch,
    ExplicitHistogram,
    ExponentialHistogram,
    exponential_histogram,
)
from aipaging.core.foundation.errors import InvalidInputError

DELAYS = st.lists(st.integers(0, 3_000_000), max_size=60)


def sketch_of(delays: list[int], lost: int = 0) -> DelaySketch:
    sketch = DelaySketch()
    sketch.insert(np.asarray(delays, dtype=np.int64))
    sketch.infinite[0] += lost
    return sketch


@given(DELAYS)
def test_a_sketch_is_a_histogram_and_back(delays: list[int]) -> None:
    sketch = sketch_of(delays)
    again = exponential_histogram(sketch).sketch()
    assert np.array_equal(again.counts, sketch.counts)
    assert (again.zeros, again.total_us, again.requests) == (sketch.zeros, sketch.total_us, sketch.requests)


@given(DELAYS, st.integers(1, 3_000_000), st.integers(-3, 8), st.sampled_from([0.0, 1.5]), st.integers(0, 3))
def test_counts_contain_the_truth_at_every_scale(
    delays: list[int], delay_us: int, scale: int, error_ms: float, lost: int
) -> None:
    contract = Contract(domain="a", delay_ms=delay_us / 1_000, epsilon=0.1, clock_error_ms=error_ms)
    found = exponential_histogram(sketch_of(delays, lost)).downscaled(scale).counts_above(contract)
    error_us = contract.clock_error_us
    assert found.requests == len(delays) + lost
    assert found.certain <= sum(delay > contract.delay_us + error_us for delay in delays)
    assert found.possible >= sum(delay > contract.delay_us - error_us for delay in delays) + lost


def test_a_delay_on_an_edge_is_exact() -> None:
    """2**20 us is the edge of a bucket at every scale: nothing is in doubt there, but for the float of the edge."""
    histogram = ExponentialHistogram(scale=0, unit_us=1.0, count=12, offset=18, counts=(3, 4, 5))
    found = histogram.counts_above(Contract(domain="a", delay_ms=2**20 / 1_000, epsilon=0.1))
    assert (found.certain, found.possible) in {(5, 5), (0, 5), (5, 9), (0, 9)}
    beyond = histogram.counts_above(Contract(domain="a", delay_ms=2**20 / 1_000 + 0.002, epsilon=0.1))
    assert (beyond.certain, beyond.possible) == (0, 5)


@given(DELAYS, DELAYS, st.integers(0, 8))
def test_merging_is_counting_together(one: list[int], other: list[int], scale: int) -> None:
    merged = exponential_histogram(sketch_of(one)).merged(exponential_histogram(sketch_of(other)).downscaled(scale))
    together = exponential_histogram(sketch_of(one + other)).downscaled(scale)
    contract = Contract(domain="a", delay_ms=70.0, epsilon=0.1)
    assert merged.counts_above(contract) == together.counts_above(contract)
    assert (merged.count, merged.zero_count, merged.total) == (together.count, together.zero_count, together.total)
    assert sum(merged.counts) == sum(together.counts)


def test_what_is_in_no_bucket_may_be_anywhere() -> None:
    histogram = ExponentialHistogram(scale=3, unit_us=1e6, count=9, zero_count=2, zero_threshold=0.5, counts=(4,))
    found = histogram.counts_above(Contract(domain="a", delay_ms=2_000.0, epsilon=0.1))
    assert (found.certain, found.possible) == (0, 3)
    found = histogram.counts_above(Contract(domain="a", delay_ms=400.0, epsilon=0.1))
    assert (found.certain, found.possible) == (4, 9)


@pytest.mark.parametrize(
    "fields",
    [
        {"scale": 21},
        {"count": 3, "counts": (2, 2)},
        {"count": 5, "counts": (-1, 2)},
        {"count": 2**60},
        {"unit_us": 0.0},
        {"zero_threshold": -1.0},
        {"zero_count": -1},
    ],
)
def test_what_is_no_histogram(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        ExponentialHistogram(**{"scale": 3, "unit_us": 1.0, "count": 0} | fields)


def test_what_cannot_be_converted_is_refused() -> None:
    histogram = ExponentialHistogram(scale=3, unit_us=1.0, count=1, counts=(1,))
    with pytest.raises(InvalidInputError, match="finer"):
        histogram.downscaled(4)
    with pytest.raises(InvalidInputError, match="scale 8"):
        histogram.sketch()
    with pytest.raises(InvalidInputError, match="same unit"):
        histogram.merged(ExponentialHistogram(scale=3, unit_us=1e6, count=0))


def test_explicit_buckets() -> None:
    histogram = ExplicitHistogram(unit_us=1e6, bounds=(0.01, 0.07, 0.3), counts=(1, 2, 4, 8))
    exact = histogram.counts_above(Contract(domain="a", delay_ms=70.0, epsilon=0.1))
    assert (exact.requests, exact.certain, exact.possible) == (15, 12, 12)
    between = histogram.counts_above(Contract(domain="a", delay_ms=100.0, epsilon=0.1))
    assert (between.certain, between.possible) == (8, 12)
    wide = histogram.counts_above(Contract(domain="a", delay_ms=70.0, epsilon=0.1, clock_error_ms=1.0))
    assert (wide.certain, wide.possible) == (8, 14)


@pytest.mark.parametrize(
    ("bounds", "counts"), [((1.0,), (1,)), ((2.0, 1.0), (1, 1, 1)), ((1.0,), (1, -1)), ((float("nan"),), (1, 1))]
)
def test_what_are_no_buckets(bounds: tuple[float, ...], counts: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError):
        ExplicitHistogram(unit_us=1.0, bounds=bounds, counts=counts)
