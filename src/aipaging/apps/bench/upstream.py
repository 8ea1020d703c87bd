"""The server behind the gateways of a benchmark: as little work as an answer can be.

`/stream` answers sixteen server-sent events, each written by itself; everything else answers a small JSON document.
Run as a process: it prints its port and serves until it is terminated.
"""

import asyncio
import os
import sys
from typing import Final, cast

import uvloop

EVENTS: Final = 16
"""A short token stream: long enough that the events outweigh the headers."""

_BODY: Final = b'{"object":"list","model":"bench","data":[{"index":0,"embedding":[0.1,0.2,0.3]}]}'
_JSON: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_BODY) + _BODY
_STREAM: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_EVENT: Final = b'data: {"choices":[{"delta":{"content":"token"}}]}\n\n'
_CHUNK: Final = b"%x\r\n%s\r\n" % (len(_EVENT), _EVENT)


class Upstream(asyncio.Protocol):
    """Answers every request that ends where a read ends: enough for the closed loops of a benchmark."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        """Answer when the request is whole."""
        received = self._received + data
        end = received.find(b"\r\n\r\n")
        if end < 0 or self._transport is None:
            self._received = received
            return
        at = received[:end].lower().find(b"content-length:")
        length = 0 if at < 0 else int(received[at + 15 : end].split(b"\r\n", 1)[0])
        if len(received) < end + 4 + length:
            self._received = received
            return
        self._received = b""
        if b" /stream " in received[:64]:
            self._transport.write(_STREAM)
            self._event(EVENTS)
        else:
            self._transport.write(_JSON)

    def _event(self, left: int) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if left == 0:
            self._transport.write(b"0\r\n\r\n")
            return
        self._transport.write(_CHUNK)
        self._loop.call_soon(self._event, left - 1)


async def serve() -> None:
    """Serve on a port of the system's choice and print it."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Upstream(loop), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Serve on the core that the first argument names, if any."""
    if len(sys.argv) > 1:
        os.sched_setaffinity(0, {int(sys.argv[1])})
    uvloop.run(serve())


if __name__ == "__main__":
    main()
