"""Delays of a running audit on their way out: to a real OTLP receiver, and into a Prometheus scrape."""

import math
from collections import Counter as Tally
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tests.adapters.telemetry.collector import receiver

from aipaging.adapters.telemetry.exposition import exposition, wants_protobuf
from aipaging.adapters.telemetry.live_delays import DelayCollector, delay_points
from aipaging.adapters.telemetry.otlp_push import OtlpHistograms
from aipaging.core.audit.delays import SERIES_PER_TENANT_MAX, DelayBook, Series
from aipaging.core.audit.sketch import DelaySketch

metrics_service = pytest.importorskip("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")

DELAYS_US = [0, 1, 2, 128, 129, 5_000, 5_001, 250_000, 86_000_000_000]


def book() -> DelayBook:
    found = DelayBook()
    found.add({Series("clinic", "edge-one"): DELAYS_US, Series("clinic", "end-to-end", "timeout"): [7]})
    found.add({Series("clinic", "edge-one"): [5_000]})
    return found


def test_a_collector_gets_the_buckets_of_the_sketch() -> None:
    with receiver() as (url, got):
        exporter = OtlpHistograms(f"{url}/v1/metrics", service="test")
        assert exporter.export(delay_points(book().histograms(), start_us=10, now_us=20))
        exporter.close()
    ((path, body),) = got
    assert path == "/v1/metrics"
    (resource,) = metrics_service.ExportMetricsServiceRequest.FromString(body).resource_metrics
    assert ("service.name", "test") in [(one.key, one.value.string_value) for one in resource.resource.attributes]
    (metric,) = resource.scope_metrics[0].metrics
    assert (metric.name, metric.unit) == ("aipaging.domain.duration", "us")
    assert metric.exponential_histogram.aggregation_temporality == 2
    fine, failed = metric.exponential_histogram.data_points
    assert {one.key: one.value.string_value for one in failed.attributes} == {
        "aipaging.domain": "end-to-end", "aipaging.tenant": "clinic", "error.type": "timeout",
    }  # fmt: skip
    assert (fine.start_time_unix_nano, fine.time_unix_nano) == (10_000, 20_000)
    sketch = DelaySketch()
    sketch.insert(np.asarray([*DELAYS_US, 5_000]))
    counts = sketch.exponential_histogram()
    assert (fine.scale, fine.count, fine.zero_count, fine.sum) == (8, 10, 1, sketch.total_us)
    assert fine.positive.offset == counts["positive"]["offset"]
    assert list(fine.positive.bucket_counts) == counts["positive"]["bucket_counts"]


def test_a_collector_that_is_not_there_is_said() -> None:
    with receiver() as (url, _):
        pass
    exporter = OtlpHistograms(f"{url}/v1/metrics", service="test")
    exporter._exporter._timeout = 0.1  # it would try again for five seconds
    assert not exporter.export(delay_points(book().histograms(), start_us=10, now_us=20))
    exporter.close()


def registry() -> CollectorRegistry:
    found = CollectorRegistry()
    found.register(DelayCollector(book().histograms))
    counted = Counter("aipaging_things", "Things.", ["kind"], registry=found)
    counted.labels("odd").inc(3)
    return found


def test_text_has_exact_classic_buckets() -> None:
    families = {one.name: one for one in text_string_to_metric_families(generate_latest(registry()).decode())}
    family = families["aipaging_domain_duration_microseconds"]
    labels = {"tenant": "clinic", "domain": "edge-one", "error": ""}
    samples = {
        (one.name.rpartition("_")[2], one.labels.get("le")): one.value
        for one in family.samples
        if labels.items() <= one.labels.items()
    }
    every = [*DELAYS_US, 5_000]
    for le in (128, 256, 8_192, 262_144, 2**30):
        assert samples["bucket", f"{le}.0"] == sum(delay <= le for delay in every)
    assert samples["bucket", "+Inf"] == samples["count", None] == 10
    assert samples["sum", None] == sum(every)


def test_a_scrape_in_protobuf_has_the_native_histogram() -> None:
    families = {one.name: one for one in decoded(exposition(registry().collect()))}
    assert families["aipaging_things_total"].metric[0].counter.value == 3
    assert families["aipaging_things_total"].type == 0
    family = families["aipaging_domain_duration_microseconds"]
    assert family.type == 4
    metric = next(one for one in family.metric if one.label[1].value == "edge-one")
    native = metric.histogram
    assert (native.schema, native.sample_count, native.zero_count, native.zero_threshold) == (8, 10, 1, 0)
    assert math.isclose(native.sample_sum, sum(DELAYS_US) + 5_000)
    counts, index, running = {}, 0, 0
    deltas = iter(native.positive_delta)
    for span in native.positive_span:
        index += span.offset
        for _ in range(span.length):
            running += next(deltas)
            counts[index] = running
            index += 1
    assert sum(counts.values()) == 9
    edges = [math.ceil(256 * math.log2(delay_us) - 1e-9) for delay_us in [*DELAYS_US[1:], 5_000]]
    assert {edge: count for edge, count in counts.items() if count} == Tally(edges)
    assert [one.cumulative_count for one in native.bucket][-1] == 10
    assert native.bucket[-1].upper_bound == math.inf


def test_an_empty_histogram_is_native_too() -> None:
    found = CollectorRegistry()
    empty = DelayBook()
    empty.add({Series("clinic", "edge-one"): []})
    found.register(DelayCollector(empty.histograms))
    (family,) = decoded(exposition(found.collect()))
    assert (family.metric[0].histogram.schema, len(family.metric[0].histogram.positive_span)) == (8, 1)


def test_who_asks_for_protobuf_first_gets_it() -> None:
    native = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
    assert wants_protobuf(f"{native};q=0.6,text/plain;version=0.0.4;q=0.4")
    assert not wants_protobuf(f"text/plain;version=0.0.4,{native}")
    assert not wants_protobuf("")


def test_one_tenant_takes_its_own_room_alone() -> None:
    crowded = DelayBook()
    crowded.add({Series("greedy", f"domain-{number}"): [1] for number in range(SERIES_PER_TENANT_MAX + 6)})
    crowded.add({Series("clinic", "edge-one"): [1]})
    assert crowded.left_out == 6
    assert Series("clinic", "edge-one") in [series for series, _ in crowded.histograms()]


def decoded(content: bytes) -> list[Any]:
    """Read the exposition with protobuf's own reader and the fields of `io.prometheus.client`."""
    family = _schema()
    found: list[Any] = []
    while content:
        size, shift = 0, 0
        while True:
            byte, content = content[0], content[1:]
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        found.append(family.FromString(content[:size]))
        content = content[size:]
    return found


def _schema() -> Any:
    kinds = descriptor_pb2.FieldDescriptorProto
    text, double, unsigned = kinds.TYPE_STRING, kinds.TYPE_DOUBLE, kinds.TYPE_UINT64
    messages: dict[str, list[tuple[str, int, Any, bool]]] = {
        "LabelPair": [("name", 1, text, False), ("value", 2, text, False)],
        "Value": [("value", 1, double, False)],
        "Bucket": [("cumulative_count", 1, unsigned, False), ("upper_bound", 2, double, False)],
        "BucketSpan": [("offset", 1, kinds.TYPE_SINT32, False), ("length", 2, kinds.TYPE_UINT32, False)],
        "Histogram": [
            ("sample_count", 1, unsigned, False), ("sample_sum", 2, double, False), ("bucket", 3, "Bucket", True),
            ("schema", 5, kinds.TYPE_SINT32, False), ("zero_threshold", 6, double, False),
            ("zero_count", 7, unsigned, False), ("positive_span", 12, "BucketSpan", True),
            ("positive_delta", 13, kinds.TYPE_SINT64, True),
        ],
        "Metric": [
            ("label", 1, "LabelPair", True), ("gauge", 2, "Value", False), ("counter", 3, "Value", False),
            ("untyped", 5, "Value", False), ("histogram", 7, "Histogram", False),
        ],
        "MetricFamily": [
            ("name", 1, text, False), ("help", 2, text, False), ("type", 3, kinds.TYPE_INT32, False),
            ("metric", 4, "Metric", True),
        ],
    }  # fmt: skip
    file = descriptor_pb2.FileDescriptorProto(name="metrics.proto", package="p", syntax="proto2")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            added = message.field.add(name=field, number=number)
            added.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            added.type = kinds.TYPE_MESSAGE if isinstance(kind, str) else kind
            if isinstance(kind, str):
                added.type_name = f".p.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("p.MetricFamily"))
