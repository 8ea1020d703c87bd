"""An upstream that notes on its own boot clock what reaches it: each request's start, each stream's last token and end.

Targets: `/json/<key>` answers a small document at once; `/stream/<key>/<tokens>/<gap_ms>` answers server-sent events,
one every `gap_ms`, and says that it is done. Everything else answers the small document and is not noted. A start is
the reading of the clock before the last piece of a request is looked at. Run as a process: it announces its port, and
writes what it noted to the file that its argument names when it is terminated. One thread, so its clock readings are
as late as its host lets it run: lateness that it reports is never too small.
"""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final, cast

import uvloop

REQUEST_BYTES_MAX: Final = 65_536
"""Heads of a benchmark have under a kilobyte."""

_BODY: Final = b'{"object":"list","model":"bench","data":[{"index":0,"embedding":[0.1,0.2,0.3]}]}'
_JSON: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_BODY) + _BODY
_STREAM: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_TOKEN: Final = b'data: {"choices":[{"delta":{"content":"token"}}]}\n\n'
_DONE: Final = b"data: [DONE]\n\n"
_TERMINATOR: Final = b"0\r\n\r\n"


@dataclass(slots=True)
class SeenRequest:
    """One request.

    Attributes:
        key: Who sent it.
        started_us: When it arrived, on the boot clock.
        stream: Whether it asked for a stream.
        last_us: When its stream's last token was written; 0 without a stream.
        ended_us: When its stream was complete, or its connection lost; 0 while it is open.
        whole: Whether the stream was complete.
    """

    key: int
    started_us: int
    stream: bool = False
    last_us: int = 0
    ended_us: int = 0
    whole: bool = False


def boot_us() -> int:
    """Return the boot clock, in microseconds."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


class RecordingUpstream(asyncio.Protocol):
    """One connection: requests one after the other."""

    def __init__(self, seen: list[SeenRequest]) -> None:
        self._seen = seen
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self._stream: SeenRequest | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        """Note a request and answer it when it is whole."""
        started_us = boot_us()
        received = self._received + data
        end = received.find(b"\r\n\r\n")
        if end < 0 or self._transport is None:
            self._received = received[-REQUEST_BYTES_MAX:]
            return
        at = received[:end].lower().find(b"content-length:")
        length = 0 if at < 0 else int(received[at + 15 : end].split(b"\r\n", 1)[0])
        if len(received) < end + 4 + length:
            self._received = received
            return
        self._received = b""
        self._answer(received[:end].split(b" ", 2)[1].decode("ascii"), started_us)

    def _answer(self, target: str, started_us: int) -> None:
        if self._transport is None:
            return
        match target.split("/"):
            case ["", "json", key]:
                self._seen.append(SeenRequest(key=int(key), started_us=started_us))
                self._transport.write(_JSON)
            case ["", "stream", key, tokens, gap_ms]:
                self._stream = SeenRequest(key=int(key), started_us=started_us, stream=True)
                self._seen.append(self._stream)
                self._transport.write(_STREAM)
                self._token(self._stream, int(tokens), float(gap_ms) / 1000)
            case _:
                self._transport.write(_JSON)

    def _token(self, stream: SeenRequest, left: int, gap_s: float) -> None:
        if self._stream is not stream or self._transport is None or self._transport.is_closing():
            return
        if left == 0:
            self._transport.write(chunk(_DONE) + _TERMINATOR)
            stream.whole, stream.ended_us, self._stream = True, boot_us(), None
            return
        self._transport.write(chunk(_TOKEN))
        stream.last_us = boot_us()
        self._loop.call_later(gap_s, self._token, stream, left - 1, gap_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note when a stream was cut."""
        del exc
        self._transport = None
        if self._stream is not None:
            self._stream.ended_us, self._stream = boot_us(), None


def chunk(piece: bytes) -> bytes:
    """Return a chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def read_seen(path: Path) -> list[SeenRequest]:
    """Return what an upstream wrote when it ended."""
    return [SeenRequest(*row) for row in json.loads(path.read_text())]


@contextlib.contextmanager
def recording_upstream(path: Path) -> Generator[int]:
    """Run one as a process and give its port; when it has ended, `path` holds what it saw."""
    with subprocess.Popen([sys.executable, "-m", __name__, str(path)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None  # noqa: S101
            yield int(json.loads(process.stdout.readline())["port"])
        finally:
            process.terminate()


async def serve() -> list[SeenRequest]:
    """Serve on a port of the system's choice until SIGTERM, and return what was seen."""
    loop = asyncio.get_running_loop()
    seen: list[SeenRequest] = []
    over = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    server = await loop.create_server(lambda: RecordingUpstream(seen), "127.0.0.1", 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await over.wait()
    return seen


def main() -> None:
    """Serve; the first argument is the file to write."""
    seen = uvloop.run(serve())
    Path(sys.argv[1]).write_text(json.dumps([astuple(one) for one in seen]))


if __name__ == "__main__":
    main()
