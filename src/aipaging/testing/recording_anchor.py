"""An anchor for tests of gateways: a plain HTTP/1.1 server that records what reached it, on its own clock."""

import asyncio
import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

import httptools

from aipaging.adapters.steering.envoy.resources import REFUSED_HEADER, REPEAT_STATUS
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import AnchorId
from aipaging.core.foundation.time import BootUs

HOST: Final = "127.0.0.1"
STREAM_PAUSE_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request as an anchor saw it.

    Attributes:
        at_us: On the anchor's boot clock, when its headers were complete.
        path: Its target.
        headers: Names in lower case; of a repeated one the values, joined by a comma.
    """

    at_us: BootUs
    path: str
    headers: Mapping[str, str]


class RecordingAnchor:
    """A plain HTTP/1.1 server that records requests; `/stream` sends ten events, the rest echoes the body's size.

    Receipts in `stale` it refuses as a sidecar does that has seen a higher epoch: with the epoch that stands there.
    While `go_on` is not set, a stream stands still behind its first event.
    """

    def __init__(self, anchor: AnchorId) -> None:
        self.anchor = anchor
        self.received: list[Received] = []
        self.stale: dict[str, Epoch] = {}
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        """Listen on a port of the system's choice."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _AnchorProtocol(self), HOST, 0, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()


class _AnchorProtocol(asyncio.Protocol):
    def __init__(self, anchor: RecordingAnchor) -> None:
        self.anchor = anchor
        self.parser = httptools.HttpRequestParser(self)
        self.headers: dict[str, str] = {}
        self.path = ""
        self.body_bytes = 0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.headers, self.path, self.body_bytes = {}, "", 0

    def on_url(self, url: bytes) -> None:
        self.path += url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode().lower(), value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]},{text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        self.anchor.received.append(Received(at_us=_boot_us(), path=self.path, headers=self.headers))

    def on_body(self, body: bytes) -> None:
        self.body_bytes += len(body)

    def on_message_complete(self) -> None:
        assert self.transport is not None
        stale = self.anchor.stale.get(self.headers.get("x-aipaging-commit", ""))
        if stale is not None:
            self.transport.write(_refused(self.path, self.headers, stale))
            return
        if self.path.startswith("/stream"):
            self.transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            self._event(0)
            return
        body = json.dumps({"anchor": self.anchor.anchor, "bytes": self.body_bytes}).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(head + body)

    def _event(self, number: int) -> None:
        assert self.transport is not None
        if number == 10:
            self.transport.write(b"0\r\n\r\n")
            return
        if number and not self.anchor.go_on.is_set():
            asyncio.get_running_loop().call_later(STREAM_PAUSE_S, self._event, number)
            return
        event = b"data: %d\n\n" % number
        self.transport.write(b"%x\r\n%s\r\n" % (len(event), event))
        asyncio.get_running_loop().call_later(STREAM_PAUSE_S, self._event, number + 1)


def _refused(path: str, headers: Mapping[str, str], stale: Epoch) -> bytes:
    if REFUSED_HEADER in headers:
        return b"HTTP/1.1 409 Conflict\r\ncontent-length: 0\r\n\r\n"
    location = f"{headers['x-forwarded-proto']}://{headers['host']}{path}"
    fields = f"location: {location}\r\n{REFUSED_HEADER}: {stale}\r\ncontent-length: 0\r\n\r\n"
    return f"HTTP/1.1 {REPEAT_STATUS} Permanent Redirect\r\n{fields}".encode()


def _boot_us() -> BootUs:
    return BootUs(time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000)
