"""The load generator counts what it should, against servers whose behaviour is known."""

import asyncio
from collections.abc import Callable

import pytest

from aipaging.apps.bench.interleaved import Goal, against, alone
from aipaging.apps.bench.load import LoadPlan, closed_loop, run_load

pytestmark = pytest.mark.real

REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
REFUSED = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


class Server(asyncio.Protocol):
    def __init__(self, answer: Callable[[asyncio.Transport], None], seen: list[int]) -> None:
        self.answer = answer
        self.seen = seen

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.seen.append(data.count(b"GET "))
        self.answer(self.transport)


async def serving(answer: Callable[[asyncio.Transport], None], seen: list[int]) -> tuple[asyncio.Server, int]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Server(answer, seen), "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("answer", [WHOLE, CHUNKED], ids=["content-length", "chunked"])
async def test_every_request_is_counted_once(answer: bytes) -> None:
    seen: list[int] = []
    server, port = await serving(lambda transport: transport.write(answer), seen)
    report = await closed_loop("127.0.0.1", port, REQUEST, connections=3, seconds=0.5)
    server.close()
    assert report.failures == 0
    assert 0 <= sum(seen) - report.requests <= 3  # those under way at the end
    assert report.requests > 0
    assert 0 < report.p50_us <= report.p99_us


async def test_refusals_and_broken_answers_are_failures() -> None:
    def broken(transport: asyncio.Transport) -> None:
        transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        transport.close()

    for answer in (lambda transport: transport.write(REFUSED), broken):
        server, port = await serving(answer, [])
        report = await closed_loop("127.0.0.1", port, REQUEST, connections=1, seconds=0.5)
        server.close()
        assert report.requests == 0
        assert report.failures > 0


async def test_a_paced_load_keeps_its_rate_and_times_from_when_it_was_due() -> None:
    loop = asyncio.get_running_loop()
    slow = 0.05
    server, port = await serving(lambda transport: loop.call_later(slow, transport.write, WHOLE) and None, [])
    report = await run_load(
        LoadPlan(host="127.0.0.1", port=port, request=REQUEST, connections=1, seconds=0.5, rate_per_s=100.0)
    )
    server.close()
    assert report.requests <= 11  # one connection, 50 ms each
    assert report.p99_us > 100_000, "the queue before a slow server must show in the latency"


def test_the_ratio_is_that_of_the_turns() -> None:
    goal = Goal(text=">= 0.85", least=0.85, of_ratio=True)
    result = against("m", "u", [(9.0, 10.0), (90.0, 100.0), (1.0, 10.0)], peer="p", goal=goal)
    assert (result.ratio, result.ok, result.ours, result.theirs) == (0.9, True, 9.0, 10.0)
    assert not alone("m", "u", [4.0, 6.0, 8.0], Goal(text="<= 5", most=5.0)).ok
