"""An upstream that notes on its own boot clock what reaches it: each request's start, each stream's last token and end.

Targets: `/json/<key>` answers a small document at once; `/stream/<key>/<tokens>/<gap_ms>` answers server-sent events,
one every `gap_ms`, and says that it is done. Everything else answers the small document and is not noted. A request
starts when its last byte arrives: the kernel's time stamp, since a busy host may let this process read it much later.
Tokens and the ends of streams are noted by the process itself, as late as its host lets it run: what it reports of them
is never too early. Run as a process: it announces its port, and writes what it noted to the file that its argument
names when it is terminated.
"""

import asyncio
import contextlib
import json
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final

import uvloop

REQUEST_BYTES_MAX: Final = 65_536
"""Heads of a benchmark have under a kilobyte."""

ANCILLARY_BYTES_MAX: Final = 256
"""One time stamp."""

BACKLOG: Final = 1_024

SO_TIMESTAMPING, RX_SOFTWARE, SOFTWARE = 37, 1 << 3, 1 << 4
"""From asm-generic/socket.h and linux/net_tstamp.h: the module `socket` does not name them."""

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
        started_us: When its last byte arrived, on the boot clock.
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


class _Connection:
    """One connection: requests one after the other."""

    def __init__(self, sock: socket.socket, seen: list[SeenRequest]) -> None:
        self._sock = sock
        self._seen = seen
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._stream: SeenRequest | None = None
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, RX_SOFTWARE | SOFTWARE)
        self._loop.add_reader(sock, self._readable)

    def _readable(self) -> None:
        """Take what has arrived, and answer a request when it is whole."""
        try:
            piece, ancillary, _, _ = self._sock.recvmsg(REQUEST_BYTES_MAX, ANCILLARY_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError:
            piece, ancillary = b"", []
        if not piece:
            self._lost()
            return
        arrived_us = _arrival_us(ancillary)
        received = self._received + piece
        end = received.find(b"\r\n\r\n")
        at = received[: max(end, 0)].lower().find(b"content-length:")
        length = 0 if at < 0 else int(received[at + 15 : end].split(b"\r\n", 1)[0])
        if end < 0 or len(received) < end + 4 + length:
            self._received = received[-REQUEST_BYTES_MAX:]
            return
        self._received = b""
        self._answer(received[:end].split(b" ", 2)[1].decode("ascii"), arrived_us)

    def _answer(self, target: str, arrived_us: int) -> None:
        match target.split("/"):
            case ["", "json", key]:
                self._seen.append(SeenRequest(key=int(key), started_us=arrived_us))
                self._write(_JSON)
            case ["", "stream", key, tokens, gap_ms]:
                stream = self._stream = SeenRequest(key=int(key), started_us=arrived_us, stream=True)
                self._seen.append(stream)
                self._write(_STREAM)
                self._token(stream, int(tokens), float(gap_ms) / 1000)
            case _:
                self._write(_JSON)

    def _token(self, stream: SeenRequest, left: int, gap_s: float) -> None:
        if self._stream is not stream:
            return
        if left == 0:
            self._write(chunk(_DONE) + _TERMINATOR)
            stream.whole, stream.ended_us, self._stream = True, boot_us(), None
            return
        if self._write(chunk(_TOKEN)):
            stream.last_us = boot_us()
            self._loop.call_later(gap_s, self._token, stream, left - 1, gap_s)

    def _write(self, piece: bytes) -> bool:
        """Send a piece at once; whoever does not read a few kilobytes has gone."""
        try:
            self._sock.sendall(piece)
        except OSError:
            self._lost()
            return False
        return True

    def _lost(self) -> None:
        """Note when a stream was cut."""
        if self._stream is not None:
            self._stream.ended_us, self._stream = boot_us(), None
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._sock.close()


def _arrival_us(ancillary: Sequence[tuple[int, int, bytes]]) -> int:
    """Return when the last byte that was read had arrived, by the kernel, on the boot clock."""
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPING):
            seconds, nanoseconds = map(int, struct.unpack_from("ll", content))
            ago_us = (time.time_ns() - seconds * 1_000_000_000 - nanoseconds) // 1000
            return boot_us() - max(0, ago_us)
    return boot_us()


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
            assert process.stdout is not None
            yield int(json.loads(process.stdout.readline())["port"])
        finally:
            process.terminate()


async def serve() -> list[SeenRequest]:
    """Serve on a port of the system's choice until SIGTERM, and return what was seen."""
    loop = asyncio.get_running_loop()
    seen: list[SeenRequest] = []
    over = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    listener.setblocking(False)

    def accept() -> None:
        with contextlib.suppress(OSError):
            sock, _ = listener.accept()
            _Connection(sock, seen)

    loop.add_reader(listener, accept)
    sys.stdout.write(json.dumps({"port": listener.getsockname()[1]}) + "\n")
    sys.stdout.flush()
    await over.wait()
    return seen


def main() -> None:
    """Serve; the first argument is the file to write."""
    seen = uvloop.run(serve())
    Path(sys.argv[1]).write_text(json.dumps([astuple(one) for one in seen]))


if __name__ == "__main__":
    main()
