"""A connection is held by a head or an unread body for a bounded time and size only."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from aipaging.runtime.http import heads
from aipaging.runtime.http.exchange import NO_CONTENT, Answer, Request
from aipaging.runtime.http.heads import BoundedHeadsProtocol
from aipaging.runtime.http.routing import HttpApp, Route

HEAD = b"POST /it HTTP/1.1\r\nhost: x\r\n"


async def take(request: Request) -> Answer:
    await request.body()
    return NO_CONTENT


async def leave(request: Request) -> Answer:
    del request
    return NO_CONTENT


async def say(request: Request) -> Answer:
    del request
    return Answer(body=b"a word")


async def wait(request: Request) -> Answer:
    """Answer with a stream whose only chunk comes when a body has come."""

    async def chunks() -> AsyncGenerator[bytes, None]:
        await HEARD.wait()
        yield b"a word"

    del request
    return Answer(chunks=chunks)


HEARD = asyncio.Event()


@pytest.fixture
async def port() -> AsyncIterator[int]:
    HEARD.clear()
    app = HttpApp(
        [
            Route(method="POST", path="/it", name="take", handler=take),
            Route(method="PUT", path="/it", name="leave", handler=leave),
            Route(method="GET", path="/it", name="say", handler=say),
            Route(method="GET", path="/later", name="wait", handler=wait),
        ]
    )
    config = uvicorn.Config(app, http=BoundedHeadsProtocol, lifespan="off", log_config=None)  # type: ignore[arg-type]
    config.load()
    protocol: Any = config.http_protocol_class
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: protocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def exchanged(port: int, *pieces: bytes) -> bytes:
    """Return all that comes until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        async with asyncio.timeout(60):
            answer = await reader.read()
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
    return answer


class Noted(asyncio.Transport):
    """Notes what is written, piece by piece."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.pieces: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.pieces.append(bytes(data))

    def is_closing(self) -> bool:
        return False

    def resume_reading(self) -> None:
        """Read on."""

    def close(self) -> None:
        """Go away."""


async def test_a_small_answer_is_sent_in_one_piece() -> None:
    app = HttpApp([Route(method="GET", path="/it", name="say", handler=say)])
    config = uvicorn.Config(app, http=BoundedHeadsProtocol, lifespan="off", log_config=None)  # type: ignore[arg-type]
    config.load()
    protocol, transport = BoundedHeadsProtocol(config=config, server_state=ServerState(), app_state={}), Noted()
    protocol.connection_made(transport)
    for answered, method in enumerate((b"GET", b"HEAD", b"GET"), 1):
        protocol.data_received(method + b" /it HTTP/1.1\r\nhost: x\r\n\r\n")
        async with asyncio.timeout(60):
            while len(transport.pieces) < answered:
                await asyncio.sleep(0)
        await asyncio.sleep(0)
    protocol.connection_lost(None)
    heads_of, bodies = zip(*(piece.split(b"\r\n\r\n") for piece in transport.pieces), strict=True)
    assert all(head.startswith(b"HTTP/1.1 200") for head in heads_of)
    assert bodies == (b"a word", b"", b"a word")


async def test_the_head_of_a_stream_does_not_wait_for_its_first_chunk(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /later HTTP/1.1\r\nhost: x\r\n\r\n")
    async with asyncio.timeout(60):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        HEARD.set()
        assert b"a word" in await reader.readuntil(b"0\r\n\r\n")
    writer.close()


async def test_a_head_that_does_not_end_is_let_go(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "HEAD_S_MAX", 0.05)
    assert await exchanged(port, HEAD + b"x: ") == b""


async def test_a_head_without_bounds_is_let_go(port: int) -> None:
    assert await exchanged(port, HEAD + b"x: ", *[b"y" * 10_000] * 8) == b""


async def test_a_whole_head_has_no_deadline_any_more(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "HEAD_S_MAX", 0.5)  # a busy machine may take a while between connection and head
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(2):
        writer.write(HEAD + b"content-length: 2\r\n\r\n")
        await asyncio.sleep(0.6)
        writer.write(b"ok")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
    writer.close()


async def test_who_is_answered_before_its_body_came_does_not_keep_the_connection(port: int) -> None:
    answer = await exchanged(port, HEAD.replace(b"POST", b"PUT") + b"content-length: 1000\r\n\r\nz")
    assert answer.startswith(b"HTTP/1.1 204")
    assert b"connection: close" in answer
