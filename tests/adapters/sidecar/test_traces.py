"""The sidecar's spans, as a collector gets them, and the context that the model server gets."""

import asyncio
import secrets
from collections.abc import Iterator

import pytest
from tests.system.collector import Collector, Span

from aipaging.adapters.sidecar.traces import is_recorded
from aipaging.adapters.tracing import otlp
from aipaging.adapters.tracing.otlp import OtlpTracer

from .conftest import SSE_HEAD, Bench, BenchMaker, read_request, request, sending, session_id

QUEUE_MS, MODEL_MS = 40, 160


@pytest.fixture
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.stop()


@pytest.fixture
def tracer(collector: Collector) -> Iterator[OtlpTracer]:
    made = OtlpTracer(collector.endpoint, service="aipaging-anchor")
    yield made
    made.close()


def context(*, sampled: bool = True) -> tuple[str, str, str]:
    """Return a trace, a span, and both as the gateway sends them."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, f"00-{trace}-{span}-{'01' if sampled else '00'}"


async def exported(collector: Collector, tracer: OtlpTracer, trace: str) -> dict[str, Span]:
    await asyncio.to_thread(tracer.close)
    return {span.name: span for span in collector.of(trace)}


def passed_on(bench: Bench) -> list[str]:
    heads = bench.upstream.all_bytes.split(b"\r\n")
    return [line.split(b": ")[1].decode() for line in heads if line.lower().startswith(b"traceparent:")]


async def test_a_request_is_a_span_with_its_queue_and_its_time_at_the_model_server(
    make_bench: BenchMaker, collector: Collector, tracer: OtlpTracer
) -> None:
    bench = await make_bench(spans=tracer, slots=1)

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, _ = await read_request(reader)
            bench.clocks.turn(MODEL_MS if b"traceparent" in head else QUEUE_MS)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    bench.upstream.script = slow
    trace, gateway, sent = context()
    first = asyncio.create_task(bench.ask(request()))  # it has the one slot
    while bench.sidecar.path.queue.in_service == 0:
        await asyncio.sleep(0)
    assert (await bench.ask(request(extra=f"traceparent: {sent}\r\n")))[0] == 200
    await first
    spans = await exported(collector, tracer, trace)
    whole, queue, model = spans["anchor request"], spans["queue"], spans["model server"]
    assert (whole.service, whole.parent) == ("aipaging-anchor", gateway)
    assert queue.parent == model.parent == whole.span
    assert passed_on(bench) == [model.traceparent]
    assert queue.began_ns == whole.began_ns
    assert queue.ended_ns == model.began_ns
    assert model.ended_ns == whole.ended_ns
    assert model.ended_ns - model.began_ns == MODEL_MS * 1_000_000
    assert whole.attributes == {"http.response.status_code": 200, "aipaging.session": session_id()}
    assert not whole.failed
    assert len(collector.spans) == 3, "the first request had no context"


@pytest.mark.parametrize(
    ("commit", "code"), [(None, "NO_COMMIT"), ("receipt.nonsense", "NO_COMMIT")], ids=["none", "forged"]
)
async def test_a_refusal_is_a_failed_span(
    make_bench: BenchMaker, collector: Collector, tracer: OtlpTracer, commit: str | None, code: str
) -> None:
    bench = await make_bench(spans=tracer)
    trace, _, sent = context()
    assert (await bench.ask(request(commit=commit, extra=f"traceparent: {sent}\r\n")))[0] == 403
    spans = await exported(collector, tracer, trace)
    assert spans["anchor request"].failed
    assert spans["anchor request"].attributes == {"error.type": code}
    assert "model server" not in spans


async def test_a_cut_is_a_failed_span(make_bench: BenchMaker, collector: Collector, tracer: OtlpTracer) -> None:
    bench = await make_bench(spans=tracer)
    bench.upstream.script = sending(SSE_HEAD + b"5\r\ndata:\r\n", then="stall")
    trace, _, sent = context()
    client = await bench.client()
    client.send(request(extra=f"traceparent: {sent}\r\n"))
    await client.head()
    bench.lapse(61_000)
    await client.until_closed()
    spans = await exported(collector, tracer, trace)
    for name in ("anchor request", "model server"):
        assert (spans[name].failed, spans[name].attributes["error.type"]) == (True, "LEASE_ENDED")


@pytest.mark.parametrize("traced", [True, False], ids=["traced", "off"])
async def test_what_is_not_recorded_passes_with_the_context_that_it_came_with(
    make_bench: BenchMaker, collector: Collector, tracer: OtlpTracer, *, traced: bool
) -> None:
    bench = await make_bench(spans=tracer if traced else None)
    _, _, unsampled = context(sampled=False)
    _, _, sampled = context()
    sent = [unsampled, "nonsense"] if traced else [unsampled, sampled, "nonsense"]
    for each in sent:
        assert (await bench.ask(request(extra=f"traceparent: {each}\r\ntracestate: a=b\r\n")))[0] == 200
    assert (await bench.ask(request()))[0] == 200
    assert passed_on(bench) == sent
    assert bench.upstream.all_bytes.count(b"tracestate: a=b") == len(sent)
    await asyncio.to_thread(tracer.close)
    assert collector.spans == []


async def test_two_contexts_are_none(make_bench: BenchMaker, collector: Collector, tracer: OtlpTracer) -> None:
    bench = await make_bench(spans=tracer)
    both = "".join(f"traceparent: {context()[2]}\r\n" for _ in range(2))
    assert (await bench.ask(request(extra=both)))[0] == 200
    assert passed_on(bench) == []
    await asyncio.to_thread(tracer.close)
    assert collector.spans == []


async def test_a_collector_that_is_not_there_holds_up_nobody(
    make_bench: BenchMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp, "EXPORT_S_MAX", 0.1)
    tracer = OtlpTracer("http://127.0.0.1:9/v1/traces", service="aipaging-anchor")
    bench = await make_bench(spans=tracer)
    for _ in range(20):
        assert (await bench.ask(request(extra=f"traceparent: {context()[2]}\r\n")))[0] == 200
    await asyncio.to_thread(tracer.close)  # what it logs of the collector is no later test's


@pytest.mark.parametrize(
    ("said", "recorded"),
    [
        (b"00-" + b"1" * 32 + b"-" + b"1" * 16 + b"-01", True),
        (b"00-" + b"1" * 32 + b"-" + b"1" * 16 + b"-00", False),
        (b"00-" + b"0" * 32 + b"-" + b"1" * 16 + b"-01", False),
        (b"00-" + b"1" * 32 + b"-" + b"0" * 16 + b"-01", False),
        (b"ff-" + b"1" * 32 + b"-" + b"1" * 16 + b"-01", False),
        (b"00-" + b"1" * 32 + b"-" + b"1" * 16 + b"-03", True),
        (b"", False),
        (None, False),
    ],
)
def test_which_contexts_are_recorded(said: bytes | None, *, recorded: bool) -> None:
    assert is_recorded(said) is recorded
