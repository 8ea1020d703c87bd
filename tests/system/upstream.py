"""A cheap model server in a thread of the test: it records what reached it, on its own clock, and fails as told."""

import asyncio
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast
from urllib.parse import parse_qs, urlsplit

import httptools

HOST = "127.0.0.1"
TOKENS = 7
"""What an answer below `/count` says it took."""


def boot_us() -> int:
    """Return the instant on the boot clock, which every process of the machine shares."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


@dataclass(frozen=True, slots=True)
class Reached:
    """One request that reached the upstream; of a repeated header the values, joined by a comma."""

    at_us: int
    method: str
    target: str
    headers: Mapping[str, str]

    @property
    def mark(self) -> str:
        return self.headers.get("x-mark", "")


Mode = Literal["well", "lies", "dead"]
"""`lies`: it says that it is well, and answers 502 to everything else; `dead`: nobody listens."""


class RecordingUpstream:
    """Answers `{"upstream": name}`, or events on `/stream?events=N&gap_ms=N`; probes of its health are not recorded.

    An event says its number and when, on the boot clock, it was sent.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.mode: Mode = "well"
        self.reached: list[Reached] = []
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self.open: set[asyncio.Transport] = set()

    def start(self) -> None:
        if not self._thread.is_alive():
            self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(60)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    def die(self) -> None:
        """Let nobody in any more, and break what is under way."""
        self.mode = "dead"
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(60)

    def live_again(self) -> None:
        self.mode = "well"
        self.start()

    async def _listen(self) -> None:
        self._server = await self._loop.create_server(lambda: _Protocol(self), HOST, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for transport in list(self.open):
            transport.abort()


class _Protocol(asyncio.Protocol):
    def __init__(self, upstream: RecordingUpstream) -> None:
        self.upstream = upstream
        self.parser = httptools.HttpRequestParser(self)
        self.headers: dict[str, str] = {}
        self.target = ""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.upstream.open.add(self.transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.upstream.open.discard(self.transport)

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def on_message_begin(self) -> None:
        self.headers, self.target = {}, ""

    def on_url(self, url: bytes) -> None:
        self.target += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]},{text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        if self.target != "/health":
            method = self.parser.get_method().decode()
            self.upstream.reached.append(Reached(boot_us(), method, self.target, self.headers))

    def on_message_complete(self) -> None:
        parts = urlsplit(self.target)
        if self.upstream.mode == "lies" and parts.path != "/health":
            self._answer(b"502 Bad Gateway", b"{}")
        elif parts.path == "/stream":
            query = parse_qs(parts.query)
            events, gap_ms = (int(query.get(name, ["10"])[0]) for name in ("events", "gap_ms"))
            self.transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            self._event(0, events, gap_ms / 1000)
        else:
            usage = {"usage": {"total_tokens": TOKENS}} if parts.path.endswith("/count") else {}
            self._answer(b"200 OK", json.dumps({"upstream": self.upstream.name, **usage}).encode())

    def _answer(self, status: bytes, body: bytes) -> None:
        self.transport.write(
            b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body)
        )

    def _event(self, number: int, events: int, gap_s: float) -> None:
        if self.transport.is_closing():
            return
        if number == events:
            self.transport.write(b"0\r\n\r\n")
            return
        event = b"data: %d %d\n\n" % (number, boot_us())
        self.transport.write(b"%x\r\n%s\r\n" % (len(event), event))
        asyncio.get_running_loop().call_later(gap_s, self._event, number + 1, events, gap_s)
