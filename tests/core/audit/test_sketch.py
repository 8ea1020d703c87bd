"""The sketch: merging adds, errors are bounded, buckets are those of OTLP, contracted delays are exact."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipaging.core.audit import DelaySketch
from aipaging.core.audit.sketch import RELATIVE_ERROR, bucket_of, upper_edge_us
from aipaging.core.audit.telemetry import DELAY_US_MAX
from aipaging.core.foundation.errors import InvalidInputError

delays = st.lists(st.integers(0, DELAY_US_MAX), min_size=1, max_size=50)


def sketch_of(values: list[int], threshold: int = 1_000) -> DelaySketch:
    sketch = DelaySketch((threshold,))
    sketch.insert(np.asarray(values, dtype=np.int64))
    return sketch


@given(delays, delays)
def test_merging_is_inserting_all(left: list[int], right: list[int]) -> None:
    merged = sketch_of(left)
    merged.merge(sketch_of(right))
    whole = sketch_of(left + right)
    assert (merged.counts == whole.counts).all()
    assert merged.exponential_histogram() == whole.exponential_histogram()
    assert merged.above == whole.above


@given(delays, st.integers(0, DELAY_US_MAX))
def test_contracted_delays_are_exact(values: list[int], threshold: int) -> None:
    assert sketch_of(values, threshold).above[threshold] == sum(value > threshold for value in values)


@given(delays, st.data())
def test_every_rank_is_in_its_interval(values: list[int], data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, len(values)))
    low, high = sketch_of(values).at_rank_us(rank)
    truth = sorted(values)[rank - 1]
    assert low <= truth * (1 + 1e-12)
    assert truth <= high * (1 + 1e-12)
    if truth > 1:
        assert abs(2 * low * high / (low + high) - truth) <= RELATIVE_ERROR * truth * (1 + 1e-9)


@given(st.integers(1, DELAY_US_MAX))
def test_buckets_are_those_of_otlp_scale_8(value: int) -> None:
    index = int(bucket_of(np.asarray([value]))[0])
    base = 2 ** (2**-8)
    assert base**index <= value * (1 + 1e-12)
    assert value <= base ** (index + 1) * (1 + 1e-12)
    assert upper_edge_us(np.asarray(index)) == pytest.approx(base ** (index + 1))


def test_powers_of_two_are_upper_edges() -> None:
    assert bucket_of(2 ** np.arange(1, 36)).tolist() == [256 * k - 1 for k in range(1, 36)]


def test_otlp_data_point() -> None:
    point = sketch_of([0, 1, 2, 2, 5]).exponential_histogram()
    assert point["scale"] == 8
    assert point["zero_count"] == 1
    assert point["count"] == 5
    assert point["sum"] == 10
    counts = point["positive"]["bucket_counts"]
    assert point["positive"]["offset"] == -1
    assert counts[0] == 1
    assert counts[256] == 2
    assert sum(counts) == 4
    assert DelaySketch().exponential_histogram()["positive"]["bucket_counts"] == []


def test_windows_and_failures() -> None:
    sketch = DelaySketch(windows=3)
    sketch.insert(np.asarray([10, 20, 3_000_000]), np.asarray([0, 2, 2]))
    sketch.insert(np.asarray([], dtype=np.int64), np.asarray([], dtype=np.int64))
    sketch.infinite[1] += 1
    assert sketch.counts.sum(axis=1).tolist() == [1, 0, 2]
    assert sketch.requests == 4
    assert sketch.at_rank_us(4) == (math.inf, math.inf)


def test_other_forms_do_not_merge() -> None:
    with pytest.raises(InvalidInputError, match="same windows"):
        DelaySketch((5,)).merge(DelaySketch((6,)))
