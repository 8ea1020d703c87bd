"""One trace from the page request to the model server, over controller, gateway and sidecar, as a collector gets it."""

import asyncio
import secrets
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.system.collector import Collector
from tests.system.living import BASE, HOST, INTENT, Living

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("system-traces")]


EXPORTED = {
    ("aipaging-controller", "POST request"),
    ("aipaging-controller", "steering"),
    ("aipaging-controller", "look-up"),
    ("aipaging-gateway", "gateway request"),
    ("aipaging-gateway", "async controller egress"),
    ("aipaging-anchor", "anchor request"),
    ("aipaging-anchor", "queue"),
    ("aipaging-anchor", "model server"),
}
"""What is looked at; each process exports its own when it pleases."""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def changes(collector: Collector) -> Iterator[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")  # in milliseconds, and not five seconds
        yield {
            "first": f'tracing = {{ otlp_endpoint = "{collector.endpoint}", requests_percent = 0 }}',
            "sidecar_options": ("--otlp-endpoint", collector.endpoint),
        }


async def fill(system: Living, session: dict[str, Any]) -> None:
    """Send as many sampled requests as make Envoy export: five spans at once, or what it has after five seconds."""
    async with system.user() as client:
        for _ in range(5):
            context = {"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"}
            assert (await system.ask(session["aist"], client=client, **context)).served


async def test_one_trace_leads_from_the_page_to_the_model_server(mortal: Living, collector: Collector) -> None:
    trace, client = secrets.token_hex(16), secrets.token_hex(8)
    context = {"traceparent": f"00-{trace}-{client}-01"}
    headers = {"authorization": f"Bearer {mortal.secrets['user']}", **context}
    url = f"http://{HOST}:{mortal.ports.northbound}{BASE}/sessions"
    async with httpx.AsyncClient(timeout=60, trust_env=False) as api:
        answer = await api.post(url, json={"intent": INTENT}, headers=headers)
    assert answer.status_code == 201, answer.text
    session = answer.json()
    asked = await mortal.ask(session["aist"], "/v1/secret-path?q=secret", **context)
    assert asked.served
    await fill(mortal, session)

    def whole() -> bool:
        names = [(span.service, span.name) for span in collector.of(trace)]
        appends = names.count(("aipaging-controller", "journal append"))
        return appends >= 2 and set(names) >= EXPORTED

    await asyncio.to_thread(collector.until, whole)
    spans = {(span.service, span.name): span for span in collector.of(trace)}
    page, gateway = spans["aipaging-controller", "POST request"], spans["aipaging-gateway", "gateway request"]
    assert page.parent == gateway.parent == client
    assert spans["aipaging-controller", "steering"].parent == page.span

    anchor, model = spans["aipaging-anchor", "anchor request"], spans["aipaging-anchor", "model server"]
    assert anchor.parent == gateway.span
    assert spans["aipaging-anchor", "queue"].parent == model.parent == anchor.span
    assert anchor.attributes["aipaging.session"] == session["sessionId"]
    (reached,) = mortal.reached_by([asked.mark])
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
        mortal.secrets["user"],
        "embeddings",
    ):
        assert private.encode() not in told, private
    await mortal.end(session)


async def test_a_request_that_nobody_sampled_is_in_no_trace(mortal: Living, collector: Collector) -> None:
    session = await mortal.page()
    unsampled, sampled = secrets.token_hex(16), secrets.token_hex(16)
    for trace, flags in ((unsampled, "00"), (sampled, "01")):
        context = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-{flags}"}
        asked = await mortal.ask(session["aist"], **context)
        assert asked.served
        (reached,) = mortal.reached_by([asked.mark])
        assert reached.headers["traceparent"].split("-")[1::2] == [trace, flags]
    await fill(mortal, session)
    await asyncio.to_thread(
        collector.until,
        lambda: {"aipaging-gateway", "aipaging-anchor"} <= {span.service for span in collector.of(sampled)},
    )
    assert collector.of(unsampled) == []
    await mortal.end(session)
