"""OTLP and Prometheus histograms in and out without loss; access logs and server-timing as telemetry."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipaging.adapters.telemetry import semantic_conventions as conventions
from aipaging.adapters.telemetry.envoy import row_of_entry
from aipaging.adapters.telemetry.otlp import Point, domain_attributes, read_points, write_points
from aipaging.adapters.telemetry.prometheus import from_native, from_openmetrics, to_native, to_openmetrics
from aipaging.adapters.telemetry.server_timing import server_timing_us
from aipaging.adapters.telemetry.source import open_telemetry
from aipaging.core.audit import DelaySketch, ExplicitHistogram, ExponentialHistogram, Status, exponential_histogram
from aipaging.core.foundation.errors import InvalidInputError

HISTOGRAMS = st.builds(
    lambda scale, offset, counts, zeros, stray, total: ExponentialHistogram(
        scale=scale,
        unit_us=1e6,
        count=sum(counts) + zeros + stray,
        total=total,
        zero_count=zeros,
        zero_threshold=1e-6,
        offset=offset,
        counts=tuple(counts),
    ),
    st.integers(-4, 8),
    st.integers(-3_000, 3_000),
    st.lists(st.sampled_from([0, 0, 1, 7, 10**9]), max_size=30),
    st.integers(0, 5),
    st.integers(0, 5),
    st.one_of(st.none(), st.floats(0, 1e12)),
)


def used(histogram: ExponentialHistogram) -> dict[int, int]:
    return {index: count for index, count in enumerate(histogram.counts, histogram.offset) if count}


@given(HISTOGRAMS)
def test_otlp_is_lossless(histogram: ExponentialHistogram) -> None:
    point = Point(
        metric=conventions.SERVER_REQUEST_DURATION,
        attributes=domain_attributes("end-to-end", "t"),
        histogram=histogram,
        start_us=5,
        end_us=9,
        cumulative=True,
    )
    (again,) = read_points(write_points([point], service="s"))
    assert again.histogram == histogram
    assert again.attributes == {"service.name": "s"} | point.attributes
    assert (again.metric, again.start_us, again.end_us, again.cumulative) == (point.metric, 5, 9, True)


@given(HISTOGRAMS)
def test_prometheus_is_lossless(histogram: ExponentialHistogram) -> None:
    for again in (
        from_native(json.loads(json.dumps(to_native(histogram))), unit_us=1e6),
        from_openmetrics(to_openmetrics(histogram), unit_us=1e6),
    ):
        assert used(again) == used(histogram)
        assert (again.scale, again.count, again.total) == (histogram.scale, histogram.count, histogram.total)
        assert (again.zero_count, again.zero_threshold) == (histogram.zero_count, histogram.zero_threshold)


def test_a_sketch_goes_through_both_and_comes_back() -> None:
    sketch = DelaySketch()
    sketch.insert((np.random.default_rng(1).lognormal(9, 1, 5_000)).astype(np.int64))
    histogram = exponential_histogram(sketch)
    (point,) = read_points(write_points([Point(metric="m", attributes={}, histogram=histogram)], service="s"))
    assert isinstance(point.histogram, ExponentialHistogram)
    again = from_native(to_native(point.histogram), unit_us=1.0).sketch()
    assert np.array_equal(again.counts, sketch.counts)


def test_prometheus_of_a_known_histogram() -> None:
    """Values 1, 2, 3 and 9 at schema 0 are in the buckets that end at 1, 2, 4 and 16: numbers 0, 1, 2 and 4."""
    histogram = ExponentialHistogram(scale=0, unit_us=1e6, count=4, total=15.0, offset=-1, counts=(1, 1, 1, 0, 1))
    fields = to_native(histogram)
    assert fields["positiveSpan"] == [{"offset": 0, "length": 3}, {"offset": 1, "length": 1}]
    assert fields["positiveDelta"] == ["1", "0", "0", "0"]
    assert to_openmetrics(histogram) == (
        "{count:4,sum:15.0,schema:0,zero_threshold:0.0,zero_count:0,"
        "positive_spans:[0:3,1:1],positive_buckets:[1,1,1,1]}"
    )


def test_finer_scales_than_prometheus_knows_are_joined() -> None:
    fine = ExponentialHistogram(scale=10, unit_us=1e6, count=8, offset=3, counts=(1, 2, 5))
    assert used(from_native(to_native(fine), unit_us=1e6)) == {0: 1, 1: 7}
    with pytest.raises(InvalidInputError, match="schemas begin"):
        to_native(ExponentialHistogram(scale=-6, unit_us=1e6, count=0))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"sampleCount": "1", "schema": -53},
        {"sampleCount": "1", "schema": 3, "positiveSpan": [{"offset": 0, "length": 2}], "positiveDelta": ["1"]},
        {"sampleCount": "1", "schema": 3, "positiveSpan": [{"offset": 0, "length": -1}], "positiveDelta": []},
        {
            "sampleCount": "2",
            "schema": 3,
            "positiveSpan": [{"offset": 0, "length": 1}, {"offset": 10**9, "length": 1}],
            "positiveDelta": ["1", "0"],
        },
    ],
)
def test_what_is_no_native_histogram(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="no native histogram"):
        from_native(fields, unit_us=1e6)
    with pytest.raises(InvalidInputError):
        from_openmetrics("{count:1,schema:x}", unit_us=1e6)


def test_otlp_of_others() -> None:
    explicit = {"bucketCounts": ["1", "2"], "explicitBounds": [0.5], "attributes": []}
    metrics = [
        {"name": "h", "unit": "s", "histogram": {"aggregationTemporality": 2, "dataPoints": [explicit]}},
        {"name": "bytes", "unit": "By", "histogram": {"dataPoints": [explicit]}},
        {"name": "sum", "unit": "s", "sum": {"dataPoints": []}},
    ]
    (point,) = read_points(json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]}).encode())
    assert point.histogram == ExplicitHistogram(unit_us=1e6, bounds=(0.5,), counts=(1, 2))
    assert point.cumulative


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"resourceMetrics": [{"scopeMetrics": [5]}]}'])
def test_what_is_no_export(content: bytes) -> None:
    with pytest.raises(InvalidInputError, match="OTLP"):
        list(read_points(content))


def test_negative_delays_in_a_histogram_are_refused() -> None:
    point = {"scale": 1, "count": "1", "negative": {"bucketCounts": ["1"]}}
    metric = {"name": "m", "unit": "s", "exponentialHistogram": {"dataPoints": [point]}}
    with pytest.raises(InvalidInputError, match="negative"):
        list(read_points(json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}).encode()))


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("queue;dur=1.234, inference;dur=20.000", {"queue": 1_234, "inference": 20_000}),
        ('cache;desc="a, b;dur=9";dur=2', {"cache": 2_000}),
        ("a, b;dur=x, c;dur=-1, d;dur=1e999, e;dur=0.0001", {"e": 1}),
        ("a;dur=1, a;dur=2", {"a": 1_000}),
        ("", {}),
        (";;;;,,,==", {}),
    ],
)
def test_server_timing(header: str, found: dict[str, int]) -> None:
    assert server_timing_us(header) == found


def test_a_hostile_server_timing_is_read_at_once() -> None:
    assert server_timing_us("a" + ';"' * 2_000 + ";" * 2_000) == {}


ENTRY: dict[str, Any] = {
    "commonProperties": {
        "startTime": "2026-11-01T10:00:00.123456789Z",
        "timeToLastRxByte": "0.001s",
        "timeToFirstUpstreamTxByte": "0.002s",
        "timeToFirstUpstreamRxByte": "0.040s",
        "timeToLastUpstreamRxByte": "0.042s",
        "timeToLastDownstreamTxByte": "0.0435s",
    },
    "request": {
        "requestId": "u-1",
        "requestHeaders": {
            "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "x-ai-paging-tenant": "clinic",
        },
    },
    "response": {"responseCode": 200, "responseHeaders": {"server-timing": "queue;dur=5, inference;dur=30"}},
}


def test_an_access_log_entry_is_a_row() -> None:
    assert row_of_entry(ENTRY) == {
        "request_id": "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7@2026-11-01T10:00:00.123456789Z",
        "start_us": 1_793_527_200_123_456,
        "tenant": "clinic",
        "status": "ok",
        "end_to_end_us": 42_500,
        "domain_queue_us": 5_000,
        "domain_inference_us": 30_000,
        "domain_network_us": 5_000,
        "domain_gateway_us": 2_500,
    }


@pytest.mark.parametrize(
    ("flags", "code", "status"),
    [
        ({}, 200, "ok"),
        ({}, 404, "ok"),
        ({}, 503, "error"),
        ({}, 429, "error"),
        ({}, 0, "lost"),
        ({"upstreamConnectionFailure": True}, 200, "error"),
        ({"stream_idle_timeout": True}, 504, "timeout"),
        ({"stream_idle_timeout": True}, 408, "client"),
        ({"downstreamConnectionTermination": True}, 0, "client"),
        ({"downstreamProtocolError": True}, 400, "client"),
        ({"noHealthyUpstream": False}, 200, "ok"),
    ],
)
def test_how_a_request_ended(flags: dict[str, bool], code: int, status: str) -> None:
    common = {"response_flags": flags, "time_to_last_rx_byte": "0.001s"}
    entry = {"common_properties": common, "response": {"response_code": code}}
    assert row_of_entry(entry)["status"] == status


@pytest.mark.parametrize("entry", [{}, {"commonProperties": 5}, {"commonProperties": {"startTime": "soon"}}])
def test_an_entry_that_says_nothing_is_an_unknown_request(entry: dict[str, Any]) -> None:
    row = row_of_entry(entry)
    assert row["status"] == "client"
    assert row["request_id"] is row["start_us"] is row["end_to_end_us"] is None


def test_a_file_of_entries_is_telemetry(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    late = ENTRY | {"response": {"responseCode": 504}, "request": {"requestId": "u-2"}}
    path.write_text("".join(json.dumps(entry) + "\n" for entry in (ENTRY, late)) + "not json\n")
    source = open_telemetry(path)
    assert set(source.domains) == {"queue", "inference", "network", "gateway"}
    (batch,) = source.batches(ids=True, tenants=True)
    assert batch.status.tolist() == [Status.OK, Status.ERROR, Status.UNKNOWN]
    assert batch.end_to_end_us.tolist()[:2] == [42_500, 42_500]
    assert batch.malformed == 1
    assert batch.ids is not None
    assert [name.partition("-")[0] for name in batch.ids.take(np.arange(1))] == ["4bf92f3577b34da6a3ce929d0e0e4736"]
    assert batch.ids.take(np.arange(1, 2)) == ["u-2"]


def test_names_of_the_conventions() -> None:
    """As the GenAI semantic conventions have them."""
    assert conventions.SERVER_REQUEST_DURATION == "gen_ai.server.request.duration"
    assert conventions.OPERATION_NAME == "gen_ai.operation.name"
    assert conventions.UNITS_US["s"] == 1e6
