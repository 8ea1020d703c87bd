"""One trace from the page request to the model server, over controller, gateway and sidecar, as a collector gets it."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio
from tests.system.collector import Collector
from tests.system.living import ANCHORS, BASE, HOST, INTENT, Living

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("system-traces")]


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def traced(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> AsyncIterator[Living]:
    system = Living.prepared(tmp_path_factory.mktemp("traced"))
    tracing = f'tracing = {{ otlp_endpoint = "{collector.endpoint}", requests_percent = 0 }}\n'
    system.config.write_text(tracing + system.config.read_text())
    system.sidecar_options = dict.fromkeys(ANCHORS, ("--otlp-endpoint", collector.endpoint))
    try:
        await system.start()
        yield system
    finally:
        system.stop()


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def healed(traced: Living) -> AsyncIterator[None]:
    yield
    await traced.heal()


async def test_one_trace_leads_from_the_page_to_the_model_server(traced: Living, collector: Collector) -> None:
    trace, client = secrets.token_hex(16), secrets.token_hex(8)
    context = {"traceparent": f"00-{trace}-{client}-01"}
    headers = {"authorization": f"Bearer {traced.secrets['user']}", **context}
    url = f"http://{HOST}:{traced.ports.northbound}{BASE}/sessions"
    async with httpx.AsyncClient(timeout=60, trust_env=False) as api:
        answer = await api.post(url, json={"intent": INTENT}, headers=headers)
    assert answer.status_code == 201, answer.text
    session = answer.json()
    asked = await traced.ask(session["aist"], "/v1/secret-path?q=secret", **context)
    assert asked.served

    def whole() -> bool:
        names = {(span.service, span.name) for span in collector.of(trace)}
        return {
            ("aipaging-controller", "look-up"),
            ("aipaging-gateway", "gateway request"),
            ("aipaging-anchor", "model server"),
        } <= names

    await asyncio.to_thread(collector.until, whole)
    spans = {(span.service, span.name): span for span in collector.of(trace)}
    page, gateway = spans["aipaging-controller", "POST request"], spans["aipaging-gateway", "gateway request"]
    assert page.parent == gateway.parent == client
    assert spans["aipaging-controller", "steering"].parent == page.span

    anchor, model = spans["aipaging-anchor", "anchor request"], spans["aipaging-anchor", "model server"]
    assert anchor.parent == gateway.span
    assert spans["aipaging-anchor", "queue"].parent == model.parent == anchor.span
    assert anchor.attributes["aipaging.session"] == session["sessionId"]
    (reached,) = traced.reached_by([asked.mark])
    assert reached.headers["traceparent"] == model.traceparent

    asking, answering = spans["aipaging-gateway", "async controller egress"], spans["aipaging-controller", "look-up"]
    assert (asking.parent, answering.parent) == (gateway.span, asking.span)
    appends = [span for span in collector.of(trace) if span.name == "journal append"]
    assert {span.parent for span in appends} == {page.span, answering.span}, "what each of them waited for"

    told = b"".join(collector.bodies)
    for private in (
        "secret-path",
        "q=secret",
        "a secret prompt",
        session["aist"],
        traced.secrets["user"],
        "embeddings",
    ):
        assert private.encode() not in told, private
    await traced.end(session)


async def test_a_request_that_nobody_sampled_is_in_no_trace(traced: Living, collector: Collector) -> None:
    session = await traced.page()
    unsampled, sampled = secrets.token_hex(16), secrets.token_hex(16)
    for trace, flags in ((unsampled, "00"), (sampled, "01")):
        context = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-{flags}"}
        asked = await traced.ask(session["aist"], **context)
        assert asked.served
        (reached,) = traced.reached_by([asked.mark])
        assert reached.headers["traceparent"].split("-")[1::2] == [trace, flags]
    await asyncio.to_thread(
        collector.until,
        lambda: {"aipaging-gateway", "aipaging-anchor"} <= {span.service for span in collector.of(sampled)},
    )
    assert collector.of(unsampled) == []
    await traced.end(session)
