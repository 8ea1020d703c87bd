"""The gateway's spans, as a collector gets them."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.system.collector import Collector, Span

from aipaging.adapters.steering.envoy.bootstrap import bootstrap
from aipaging.adapters.steering.envoy.tracing import TraceExport, collector_cluster
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import SessionId
from aipaging.testing.envoy_rig import EnvoyRig, Extras, envoy_rig

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

MINUTE_MS = 60_000


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> AsyncIterator[EnvoyRig]:
    export = TraceExport(endpoint=collector.endpoint, requests_percent=0.0)
    async with envoy_rig(tmp_path_factory.mktemp("traces"), extras=Extras(traces=export)) as shared:
        yield shared


async def granted(rig: EnvoyRig) -> SessionId:
    session = rig.session()
    await rig.driver.install([rig.grant(session, rig.anchors[0], Epoch(1, 1), MINUTE_MS)])
    return session


def context(*, sampled: bool) -> tuple[str, str, str]:
    """Return a trace, a span, and both as a client sends them."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, f"00-{trace}-{span}-{'01' if sampled else '00'}"


async def spans_of(collector: Collector, trace: str, count: int) -> dict[str, Span]:
    await asyncio.to_thread(collector.until, lambda: len(collector.of(trace)) >= count)
    return {span.name: span for span in collector.of(trace)}


async def fill(rig: EnvoyRig, session: SessionId) -> None:
    """Send as many sampled requests as make Envoy export: five spans at once, or what it has after five seconds."""
    for _ in range(5):
        _, _, sent = context(sampled=True)
        assert (await rig.send(session, headers={"traceparent": sent})).status_code == 200


def received(rig: EnvoyRig) -> str:
    return rig.anchor_servers[rig.anchors[0]].received[-1].headers["traceparent"]


async def test_a_request_is_a_span_below_its_client_s_and_above_the_anchor_s(
    rig: EnvoyRig, collector: Collector
) -> None:
    session = await granted(rig)
    trace, client, sent = context(sampled=True)
    secret = "/v1/secret-path?query=a-secret-question"
    reply = await rig.send(session, secret, headers={"traceparent": sent, "user-agent": "a-secret-agent"})
    assert reply.status_code == 200
    passed_on = received(rig)
    await fill(rig, session)
    spans = await spans_of(collector, trace, 2)
    gateway = spans.pop("gateway request")
    assert (gateway.service, gateway.parent) == ("aipaging-gateway", client)
    assert passed_on == gateway.traceparent
    (look_up,) = spans.values()
    assert look_up.parent == gateway.span, "the look-up that it waited for is part of it"
    assert gateway.began_ns <= look_up.began_ns <= look_up.ended_ns <= gateway.ended_ns
    told = b"".join(collector.bodies)
    for private in (b"secret", rig.tokens[session].encode()):
        assert private not in told, private
    assert {gateway.attributes[name] for name in ("http.url", "peer.address", "user_agent")} == {"-"}


async def test_what_its_client_did_not_sample_is_not_sampled(rig: EnvoyRig, collector: Collector) -> None:
    session = await granted(rig)
    unsampled, _, sent = context(sampled=False)
    assert (await rig.send(session, headers={"traceparent": sent})).status_code == 200
    assert received(rig).endswith("-00")
    assert received(rig).split("-")[1] == unsampled
    assert (await rig.send(session)).status_code == 200  # no context, and no share of these is sampled
    sampled, _, sent = context(sampled=True)
    assert (await rig.send(session, headers={"traceparent": sent})).status_code == 200
    await fill(rig, session)
    await spans_of(collector, sampled, 1)  # what was sampled before it would have been here by now
    assert collector.of(unsampled) == []
    assert all(span.parent for span in collector.spans), "no trace began at the gateway"


async def test_a_share_of_the_requests_without_a_context_is_sampled(tmp_path: Path, collector: Collector) -> None:
    export = TraceExport(endpoint=collector.endpoint, requests_percent=100.0)
    async with envoy_rig(tmp_path, extras=Extras(traces=export)) as rig:
        session = await granted(rig)
        assert (await rig.send(session)).status_code == 200
        trace = received(rig).split("-")[1]
        await fill(rig, session)
        assert (await spans_of(collector, trace, 1))["gateway request"].parent == ""


async def test_a_collector_that_is_not_there_holds_up_nobody(tmp_path: Path) -> None:
    export = TraceExport(endpoint="http://127.0.0.1:9/v1/traces", requests_percent=100.0)
    async with envoy_rig(tmp_path, extras=Extras(traces=export)) as rig:
        session = await granted(rig)
        for _ in range(20):
            assert (await rig.send(session)).status_code == 200


async def test_off_there_is_no_trace_of_it(rig: EnvoyRig, tmp_path: Path) -> None:
    async with envoy_rig(tmp_path) as without:
        assert "opentelemetry" not in str(bootstrap(without.gateway))
        session = await granted(without)
        _, _, sent = context(sampled=True)
        assert (await without.send(session, headers={"traceparent": sent})).status_code == 200
        assert received(without) == sent
    assert "opentelemetry" in str(bootstrap(rig.gateway))


async def test_a_collector_by_https_is_verified_by_name() -> None:
    export = TraceExport(endpoint="https://traces.example/v1/traces", requests_percent=1.0)
    cluster = collector_cluster(export)
    tls = cluster["transport_socket"]["typed_config"]
    assert tls["sni"] == "traces.example"
    names = tls["common_tls_context"]["validation_context"]["match_typed_subject_alt_names"]
    assert [name["matcher"]["exact"] for name in names] == ["traces.example"]
