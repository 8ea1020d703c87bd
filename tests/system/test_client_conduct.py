"""A client that misbehaves in every way it can makes nobody's envelope suspect; what the audit saw leaves as OTLP."""

import asyncio
import contextlib
import json
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.adapters.telemetry.collector import receiver

from aipaging.apps.demo.acts import EMBED
from aipaging.apps.demo.clients import DemoClients
from aipaging.apps.demo.configuration import DOMAINS, promise
from aipaging.apps.demo.stack import ANCHORS, Stack
from aipaging.core.foundation.time import WallUs

pytestmark = [
    pytest.mark.real,
    pytest.mark.soak,
]  # it dawdles; whose doing a delay is, is tried without waiting elsewhere

OFFSET_MS = 4_000.0
"""What the edges promise here: more than a busy machine needs for a few sentences."""

DAWDLED_S = 7.0
"""Longer than any promise of the path."""

TIMES = 16
"""More than the ten that are never yet a violation."""

TRACE = "0af7651916cd43dd8448eb211c80319c"
FORGED = f"00-{TRACE}-b7ad6b7169203331-01"
NATIVE = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
SLOW_SENTENCES = 48
"""Their vectors are some 400 kB of JSON: more than the gateway holds for a reader."""


class Client:
    """Writes its requests by hand."""

    def __init__(self, stack: Stack, session: dict[str, Any]) -> None:
        self._port = stack.ports.gateway
        self._context = ssl.create_default_context(cafile=str(stack.authority))
        self._aist = session["aist"]

    @contextlib.asynccontextmanager
    async def _open(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=self._context, limit=4_096, server_hostname="127.0.0.1"
        )
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    def _request(self, sentences: int = 1) -> tuple[bytes, bytes]:
        body = json.dumps({"model": "all-MiniLM-L6-v2", "input": ["one sentence"] * sentences}).encode()
        head = (
            f"POST /v1/embeddings HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {self._aist}\r\n"
            f"content-type: application/json\r\ntraceparent: {FORGED}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode(), body

    async def plain(self) -> int:
        """Send a request and return its status."""
        async with self._open() as (reader, writer):
            writer.writelines(self._request())
            return int((await reader.readline()).split()[1])

    async def together(self, count: int) -> list[int]:
        """Send requests at one moment, over connections that are open by then, and return their statuses."""
        async with contextlib.AsyncExitStack() as opened:
            ways = [await opened.enter_async_context(self._open()) for _ in range(count)]
            for _, writer in ways:
                writer.writelines(self._request())
            return [int((await reader.readline()).split()[1]) for reader, _ in ways]

    async def trickle(self) -> int:
        """Send the last byte of the body late."""
        async with self._open() as (reader, writer):
            head, body = self._request()
            writer.write(head + body[:-1])
            await asyncio.sleep(DAWDLED_S)
            writer.write(body[-1:])
            return int((await reader.readline()).split()[1])

    async def dawdle(self) -> int:
        """Do not read the answer for long."""
        async with self._open() as (reader, writer):
            writer.writelines(self._request(SLOW_SENTENCES))
            await asyncio.sleep(DAWDLED_S)
            return int((await reader.readline()).split()[1])

    async def leave(self) -> int:
        """Go away as soon as the request has been sent."""
        async with self._open() as (_, writer):
            writer.writelines(self._request())
            await writer.drain()
        return 0

    async def stall(self) -> int:
        """Announce a body, send none of it, and go away late."""
        async with self._open() as (_, writer):
            writer.write(self._request()[0])
            await asyncio.sleep(DAWDLED_S)
        return 0


async def counted(operator: httpx.AsyncClient, name: str) -> int:
    text = (await operator.get("/metrics")).text
    return sum(int(float(one)) for one in re.findall(rf"^aipaging_audit_{name} ([0-9.e+]+)$", text, re.MULTILINE))


async def until(holds: Callable[[], Any], limit_s: float = 60.0) -> None:
    end_s = time.monotonic() + limit_s
    while not await holds():
        assert time.monotonic() < end_s, "that took too long"
        await asyncio.sleep(0.1)


def with_collector(stack: Stack, url: str) -> None:
    text = stack.config.read_text().replace("[audit]\n", f'[audit]\notlp_endpoint = "{url}/v1/metrics"\n')
    stack.config.write_text(f'{text}\n[tracing]\notlp_endpoint = "{url}/v1/traces"\n')


async def test_misconduct_is_held_against_nobody_and_late_requests_are_traced(tmp_path: Path) -> None:
    traces = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    metrics = pytest.importorskip("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")
    stack = Stack.prepared(tmp_path / "stack")
    clients = DemoClients(stack)
    with receiver() as (url, got):
        with_collector(stack, url)
        try:
            await stack.start()
            await clients.until_ready(len(ANCHORS), 120.0)
            for name, kind, *_ in DOMAINS:
                offset_ms = OFFSET_MS if kind == "compute" else None
                await clients.promise(promise(name, offset_ms=offset_ms, now=WallUs(time.time_ns() // 1000)))
            session = await clients.page(**{**EMBED, "delayMs": 6_000})
            client = Client(stack, session)
            headers = {"authorization": f"Bearer {stack.operator_secret}"}
            base = f"http://127.0.0.1:{stack.ports.northbound}"
            async with httpx.AsyncClient(base_url=base, headers=headers, timeout=60) as operator:
                seen = await misbehaved(client, operator)
                status = await failed(stack, client)
                await until(lambda: counted(operator, r'late_requests_total\{trace="kept"\}'))
                found = (await operator.get("/ai-paging/v0.1/audits")).json()["audits"]
                native = await operator.get("/metrics", headers={"accept": NATIVE})
        finally:
            await clients.close()
            stack.stop()
    assert seen["trickled"] == [200] * TIMES
    assert seen["dawdled"] == [200] * TIMES
    assert seen["unknown"] == 0
    assert [one for one in found if one["kind"] == "ALARM" or one["verdict"] == "violated"] == []
    assert status >= 500
    assert native.headers["content-type"].startswith("application/vnd.google.protobuf")
    assert b"aipaging_domain_duration_microseconds" in native.content
    spans = [
        span
        for path, body in got
        if path == "/v1/traces"
        for resource in traces.ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert TRACE in {span.trace_id.hex() for span in spans if span.name == "embeddings"}
    last = metrics.ExportMetricsServiceRequest.FromString(next(b for p, b in reversed(got) if p == "/v1/metrics"))
    points = last.resource_metrics[0].scope_metrics[0].metrics[0].exponential_histogram.data_points
    told = {tuple(sorted((one.key, one.value.string_value) for one in point.attributes)): point for point in points}
    whole = told[("aipaging.domain", "end-to-end"), ("aipaging.tenant", "acme")]
    assert (whole.scale, whole.count) == (8, sum(whole.positive.bucket_counts) + whole.zero_count)
    assert whole.count >= TIMES
    assert whole.sum < TIMES * DAWDLED_S * 1e6 / 2, "what clients dawdled away is in no delay"
    assert (("aipaging.domain", "end-to-end"), ("aipaging.tenant", "acme"), ("error.type", "client")) in told


async def misbehaved(client: Client, operator: httpx.AsyncClient) -> dict[str, Any]:
    """Misbehave in every way at once, and return what became of it when the audit has seen it all."""
    assert await client.plain() == 200
    acts = (client.trickle, client.stall, client.leave, client.dawdle)
    trickled, _, _, dawdled = await asyncio.gather(*(one_after_another(act, TIMES) for act in acts))
    beyond = await client.together(3 * TIMES)
    assert beyond.count(429) > 0
    sent = 1 + 3 * TIMES + beyond.count(200)  # who leaves at once may never have been steered
    await until(lambda: is_at_least(operator, sent))
    unknown = await counted(operator, r'requests_total\{outcome="unknown"\}')
    return {"trickled": trickled, "dawdled": dawdled, "unknown": unknown}


async def is_at_least(operator: httpx.AsyncClient, count: int) -> bool:
    return await counted(operator, r'requests_total\{outcome="counted"\}') >= count


async def one_after_another(act: Callable[[], Any], times: int) -> list[int]:
    """Begin a little apart: within the guardrail, and some ask the model for many sentences."""

    async def later(number: int) -> int:
        await asyncio.sleep(0.4 * number)
        return int(await act())

    return list(await asyncio.gather(*(later(number) for number in range(times))))


async def failed(stack: Stack, client: Client) -> int:
    """End the model servers, and return how a request failed."""
    for anchor in ANCHORS:
        if anchor.upstream == "model-server":
            stack.children[f"{anchor.name}-upstream"].process.kill()
    while (status := await client.plain()) == 200:
        pass
    return status
