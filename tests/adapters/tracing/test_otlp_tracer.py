"""One trace from a caller's request over the engine and the journal to steering."""

from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from tests.adapters.northbound.conftest import INTENT, SECRETS, Rig

from aipaging.adapters.northbound.operation import BASE
from aipaging.adapters.tracing.otlp import OtlpTracer
from aipaging.runtime.tracing import Tracer, note_append, steering_span

export = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_a_page_is_one_trace_below_its_callers(tmp_path: Path) -> None:
    exporter = export.InMemorySpanExporter()
    tracer = OtlpTracer("", service="test", exporter=exporter)
    rig = Rig(tmp_path)
    rig.engine.tracer = tracer
    rig.app._tracer = tracer
    await rig.start()
    headers = {"authorization": f"Bearer {SECRETS['app-one'][0]}", "traceparent": PARENT}
    exporter.clear()
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=rig.app), base_url=f"http://test{BASE}/", headers=headers
    ) as client:
        assert (await client.post("sessions", json={"intent": INTENT})).status_code == 201
    await rig.stop()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert {"POST request", "journal append", "steering"} <= set(spans)
    request = spans["POST request"]
    assert f"{request.context.trace_id:032x}" == PARENT.split("-")[1]
    assert f"{request.parent.span_id:016x}" == PARENT.split("-")[2]
    for name in ("journal append", "steering"):
        assert spans[name].context.trace_id == request.context.trace_id
        assert spans[name].parent.span_id == request.context.span_id
    assert spans["journal append"].attributes["aipaging.records"] >= 2
    assert spans["journal append"].start_time <= spans["journal append"].end_time
    told = " ".join(str(dict(span.attributes)) for span in spans.values())
    assert "embeddings" not in told
    assert SECRETS["app-one"][0] not in told
    tracer.close()


@pytest.mark.parametrize("parent", ["", "nonsense", "00-00000000000000000000000000000000-0000000000000000-01"])
def test_a_malformed_parent_begins_a_trace_of_its_own(parent: str) -> None:
    exporter = export.InMemorySpanExporter()
    tracer = OtlpTracer("", service="test", exporter=exporter)
    with tracer.span("request", parent=parent, server=True):
        assert tracer.traceparent().startswith("00-")
    assert exporter.get_finished_spans()[0].parent is None
    tracer.close()


def test_nothing_is_done_where_it_is_off() -> None:
    class Never:
        def span(self, *_: object, **__: object) -> AbstractContextManager[None]:
            raise AssertionError

    never: Tracer = Never()  # type: ignore[assignment]
    note_append(None, ["00-a-b-01"], 1, 0.1)
    note_append(never, [""], 1, 0.1)
    with steering_span(None, "x"), steering_span(never, ""):
        pass
