"""Traces of late requests and delays, from the controller's parts to a real OTLP receiver."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.adapters.telemetry.collector import receiver

from aipaging.adapters.tracing.otlp import OtlpTracer
from aipaging.apps.server.audit import DelayExport
from aipaging.apps.server.late_requests import LateRequestSpans
from aipaging.core.audit import Status
from aipaging.core.audit.delays import DelayBook, Series
from aipaging.core.foundation.time import WallUs
from aipaging.ports.telemetry import LateRequest, SeenRequest

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
metrics_service = pytest.importorskip("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SEEN = SeenRequest(
    "session-1", "anchor-1", TRACE, 1_000_000, Status.OK, 900_000, 800_000, 700_000, parent=PARENT, sent_us=50_000
)
LATE = LateRequest(SEEN, "clinic", "chat", "aisi://x/chat/one", "edge-one", ("edge-one", "end-to-end"), 250.0)


def exported(*requests: LateRequest) -> list[Any]:
    with receiver() as (url, got):
        tracer = OtlpTracer(f"{url}/v1/traces", service="test")
        LateRequestSpans(tracer).keep(requests)
        tracer.close()
    return [span for path, body in got if path == "/v1/traces" for span in spans(body)]


def spans(body: bytes) -> Iterator[Any]:
    for resource in trace_service.ExportTraceServiceRequest.FromString(body).resource_spans:
        for scope in resource.scope_spans:
            yield from scope.spans


def told(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def test_a_late_request_keeps_its_clients_trace() -> None:
    whole, anchor = exported(LATE)
    assert (whole.trace_id.hex(), whole.parent_span_id.hex()) == (TRACE, PARENT)
    assert (whole.start_time_unix_nano, whole.end_time_unix_nano) == (1_000_000_000, 1_900_000_000)
    assert whole.status.code == 0
    assert told(whole) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "aipaging",
        "aipaging.service": "aisi://x/chat/one",
        "aipaging.tenant": "clinic",
        "aipaging.session": "session-1",
        "aipaging.anchor": "anchor-1",
        "aipaging.domain": "end-to-end",
        "aipaging.exceeded": "edge-one,end-to-end",
        "aipaging.delay_ms": 250.0,
    }
    assert (anchor.trace_id, anchor.parent_span_id) == (whole.trace_id, whole.span_id)
    assert (anchor.start_time_unix_nano, anchor.end_time_unix_nano) == (1_050_000_000, 1_750_000_000)
    assert told(anchor)["aipaging.domain"] == "edge-one"


def test_a_request_without_a_trace_begins_one_and_a_failure_is_one() -> None:
    failed = replace(SEEN, trace="", parent="", status=Status.TIMEOUT, anchor_us=-1)
    (whole,) = exported(replace(LATE, seen=failed, exceeded=("end-to-end",)))
    assert whole.parent_span_id == b""
    assert whole.trace_id.hex() not in {TRACE, "0" * 32}
    assert whole.status.code == 2
    assert told(whole)["error.type"] == "timeout"


async def test_delays_are_sent_again_and_again_and_at_the_end() -> None:
    delays = DelayBook()
    delays.add({Series("clinic", "edge-one"): [5_000]})
    now = iter(range(1_000, 2_000))
    with receiver() as (url, got):
        export = DelayExport(delays, f"{url}/v1/metrics", lambda: WallUs(next(now)), every_s=0.001)
        export.start()
        while len(got) < 2:
            await asyncio.sleep(0.001)
        delays.add({Series("clinic", "edge-one"): [6_000]})
        await export.stop()
    last = metrics_service.ExportMetricsServiceRequest.FromString(got[-1][1])
    (metric,) = last.resource_metrics[0].scope_metrics[0].metrics
    (point,) = metric.exponential_histogram.data_points
    assert (point.count, point.sum, point.start_time_unix_nano) == (2, 11_000, 1_000_000)
