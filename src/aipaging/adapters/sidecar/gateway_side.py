"""The gateway's end of the data path: one connection, its requests one after another.

A connection that is out of step (a malformed head, broken framing) is answered once and closed; what follows on it is
never read as a request. Pipelined requests wait in the buffer, which holds the peer back when it is full. The body of
a request that was refused is read and thrown away up to a bound, so that the connection stays useful.

Without TLS every peer is `loopback`, which may do everything; with TLS the peer's role comes from its certificate.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, TypeAlias, cast

from aipaging.adapters.sidecar.answers import ROLE_REFUSED, Refusal, refusal_answer
from aipaging.adapters.sidecar.data_path import DataPath
from aipaging.adapters.sidecar.exchange import NEVER_S, Exchange
from aipaging.adapters.sidecar.framing import LAST_CHUNK, ChunkedFramer, FramingError, LengthFramer
from aipaging.adapters.sidecar.heads import (
    HEAD_BYTES_MAX,
    HEAD_END,
    RequestHead,
    RequestRefusedError,
    read_request_head,
)
from aipaging.core.foundation.errors import AipagingError

CONNECTIONS_MAX: Final = 10_000
"""File descriptors are the limit; each connection takes about 2 kB."""

PIPELINED_BYTES_MAX: Final = 64 * 1024
"""What may wait behind the request that is being answered."""

EMPTY_LINES_MAX: Final = 4
"""Before a request. RFC 9112, 2.2, asks for one to be skipped; a flood of them is malformed."""

DISCARDED_BYTES_MAX: Final = 1024 * 1024
"""Of the body of a refused request; after more than this it is cheaper for everybody to close."""

LINGER_S: Final = 0.5
"""A few round trips for the peer to read an answer that closes."""

OPERATIONS_PREFIX: Final = b"/aipaging/v1/"
"""Paths that never reach the upstream."""

_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: close with a reset, unsent bytes and all."""

Role: TypeAlias = Literal["loopback", "gateway", "controller", "anchor"]


class Work(Protocol):
    """What a request becomes: an exchange with the upstream, or an operation of the sidecar's own.

    Attributes:
        deadline_s: When it is overdue, on the loop's clock.
    """

    deadline_s: float

    @property
    def unanswered(self) -> bool:
        """Whether nothing has been sent to the gateway yet."""
        ...

    def start(self) -> None:
        """Begin; `request_over` or `break_off` of the side is called sooner or later."""
        ...

    def body(self, piece: bytes) -> None:
        """Take a piece of the request's body."""
        ...

    def body_done(self) -> None:
        """The body is complete."""
        ...

    def gateway_full(self, *, full: bool) -> None:
        """Hold back what is sent to the gateway."""
        ...

    def gateway_left(self) -> None:
        """Stop: nobody reads the answer."""
        ...

    def overdue(self) -> None:
        """The deadline has passed."""
        ...


@dataclass(slots=True, kw_only=True)
class Reception:
    """What the connections of one listener share.

    Attributes:
        path: The data path.
        operation: Makes the work of a request to the sidecar itself.
        role_of: Returns the role in a peer's certificate, or raises; None where there is no TLS.
        sides: The open connections.
    """

    path: DataPath
    operation: "Callable[[GatewaySide, RequestHead], Work]"
    role_of: Callable[[asyncio.BaseTransport], Role] | None
    sides: "set[GatewaySide]" = field(default_factory=set["GatewaySide"])


class GatewaySide(asyncio.Protocol):
    """One connection from a gateway, or from the controller."""

    __slots__ = (
        "_body_held",
        "_buffer",
        "_discarded",
        "_framer",
        "_full",
        "_lingering",
        "_pipeline_held",
        "_reading",
        "_reception",
        "_scanned",
        "_unanswered_continue",
        "_work",
        "deadline_s",
        "role",
        "transport",
    )

    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        self.transport: asyncio.Transport
        self.role: Role = "loopback"
        self.deadline_s = NEVER_S
        self._buffer = b""
        self._scanned = 0
        self._framer: ChunkedFramer | LengthFramer | None = None
        self._work: Work | None = None
        self._reading = False
        self._discarded = 0
        self._unanswered_continue = False
        self._body_held = False
        self._pipeline_held = False
        self._full = False
        self._lingering = False

    # -- the connection --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Find out who it is."""
        self.transport = cast("asyncio.Transport", transport)
        reception = self._reception
        if len(reception.sides) >= CONNECTIONS_MAX:
            self.transport.abort()
            return
        if reception.role_of is not None:
            try:
                self.role = reception.role_of(transport)
            except AipagingError as error:
                reception.path.instruments.log.event("peer_refused", why=error.code)
                self.transport.abort()
                return
        reception.sides.add(self)
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop whatever was done for it."""
        del exc
        self._reception.sides.discard(self)
        work, self._work = self._work, None
        if work is not None:
            work.gateway_left()

    def pause_writing(self) -> None:
        """The gateway does not read as fast as the upstream answers."""
        self._full = True
        self.deadline_s = self._reception.path.now_s + self._reception.path.settings.timeouts.write_s
        if self._work is not None:
            self._work.gateway_full(full=True)

    def resume_writing(self) -> None:
        """It does again."""
        self._full = False
        if self._work is not None:
            self.deadline_s = NEVER_S
            self._work.gateway_full(full=False)
        elif not self._lingering:
            self._expect_request()
            self._read_requests()

    def check(self, now_s: float) -> None:
        """Act on what is overdue."""
        if now_s >= self.deadline_s:
            self.deadline_s = NEVER_S
            if self.idle and not self._full:
                self.transport.close()
            else:
                self._reception.path.instruments.log.event("peer_silent", role=self.role)
                self.transport.abort()
        elif self._work is not None and now_s >= self._work.deadline_s:
            self._work.overdue()

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return self._work is None and self._framer is None and not self._buffer

    # -- reading ---------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take what arrives, in whatever pieces."""
        if self._lingering:
            return
        if self._framer is not None:
            self._take_body(data)
            return
        self._buffer = self._buffer + data if self._buffer else data
        if self._work is None:
            self._read_requests()
        else:
            self._hold_pipeline()

    def _hold_pipeline(self) -> None:
        """Stop reading while too much waits behind the request that is being answered, and only then."""
        held = self._work is not None and self._framer is None and len(self._buffer) > PIPELINED_BYTES_MAX
        if held != self._pipeline_held:
            self._pipeline_held = held
            self._adjust_reading()

    def _read_requests(self) -> None:
        """Begin the requests in the buffer, one after the other as each is answered."""
        if self._reading:
            return
        self._reading = True
        try:
            while self._buffer and self._ready and self._read_request():
                pass
        finally:
            self._reading = False
        self._hold_pipeline()

    @property
    def _ready(self) -> bool:
        """Whether a request may begin: the last is answered, read to its end, and its answer is leaving."""
        return not (
            self._work is not None
            or self._framer is not None
            or self._full
            or self._lingering
            or self.transport.is_closing()
        )

    def _read_request(self) -> bool:
        """Begin one request; return False where its head is not complete."""
        buffer = self._buffer
        for _ in range(EMPTY_LINES_MAX):
            buffer = buffer.removeprefix(b"\r\n")
        end = buffer.find(HEAD_END, max(0, self._scanned - len(HEAD_END)))
        if end < 0 or end > HEAD_BYTES_MAX:
            if len(buffer) > HEAD_BYTES_MAX:
                self._refuse_and_close(_HEAD_TOO_LONG)
                return False
            if not self._scanned:
                path = self._reception.path
                self.deadline_s = path.now_s + path.settings.timeouts.head_s
            self._buffer, self._scanned = buffer, len(buffer)
            return False
        end += len(HEAD_END)
        self._scanned = 0
        self._buffer = b""
        self.deadline_s = NEVER_S
        try:
            head = read_request_head(buffer[:end])
        except RequestRefusedError as error:
            self._refuse_and_close(error.refusal)
            return False
        self._begin(head, buffer[end:])
        return True

    def _begin(self, head: RequestHead, rest: bytes) -> None:
        reception = self._reception
        operation = head.target.startswith(OPERATIONS_PREFIX)
        if not operation and self.role not in {"loopback", "gateway"}:
            self._refuse_and_close(ROLE_REFUSED)
            return
        self._work = work = reception.operation(self, head) if operation else Exchange(reception.path, self, head)
        self._discarded = 0
        self._unanswered_continue = head.expects_continue and head.has_body and not rest
        if head.has_body:
            self._framer = ChunkedFramer() if head.chunked else LengthFramer(head.length or 0)
            self._expect_body()
            if rest:
                self._take_body(rest)
                if self._work is not work:
                    return
        else:
            self._buffer = rest
            work.body_done()
        work.start()

    def _take_body(self, piece: bytes) -> None:
        framer, work = self._framer, self._work
        assert framer is not None, "a body without a framer"  # noqa: S101 our own mistake
        try:
            out = framer.feed(piece)
        except FramingError as error:
            self._refuse_and_close(Refusal(status=400, code="MALFORMED_REQUEST", message=error.message))
            return
        if framer.done and isinstance(framer, ChunkedFramer):
            out += LAST_CHUNK  # trailers of a request are dropped here: nobody downstream has to trust them
        self._unanswered_continue = False
        if framer.done:
            self._framer = None
            self._buffer = framer.rest
            self.deadline_s = NEVER_S
        else:
            self._expect_body()
        if work is None:
            self._discard(len(piece))
            return
        if out:
            work.body(out)
        if framer.done:
            work.body_done()

    def _discard(self, count: int) -> None:
        self._discarded += count
        if self._framer is None:
            self._expect_request()
            self._read_requests()
        elif self._discarded > DISCARDED_BYTES_MAX:
            self._close_gently()

    def _refuse_and_close(self, refusal: Refusal) -> None:
        """Answer, if nothing has been answered yet, and close: what follows cannot be trusted to be a request."""
        work, self._work = self._work, None
        self._framer, self._buffer = None, b""
        path = self._reception.path
        path.instruments.metrics.refused["", refusal.code] += 1
        path.instruments.log.event("request_refused", code=refusal.code, role=self.role)
        unanswered = work is None or work.unanswered
        if work is not None:
            work.gateway_left()
        if unanswered:
            self.write(refusal_answer(refusal, close=True))
            self._close_gently()
        else:
            self.reset()

    def _expect_request(self) -> None:
        path = self._reception.path
        self.deadline_s = path.now_s + path.settings.timeouts.idle_s

    def _expect_body(self) -> None:
        path = self._reception.path
        self.deadline_s = NEVER_S if self._body_held else path.now_s + path.settings.timeouts.body_s

    def _adjust_reading(self) -> None:
        if self.transport.is_closing():
            return
        if self._body_held or self._pipeline_held:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    # -- answering -------------------------------------------------------------------------------------------------

    def write(self, piece: bytes) -> None:
        """Send bytes to the gateway."""
        if not self.transport.is_closing():
            self.transport.write(piece)

    def hold(self, *, held: bool) -> None:
        """Stop (or go on) reading the request's body."""
        if held != self._body_held:
            self._body_held = held
            if self._framer is not None:
                self._expect_body()
            self._adjust_reading()

    def request_over(self, *, keep: bool) -> None:
        """Go on with the next request, or close."""
        self._work = None
        if self._body_held:
            self._body_held = False
            self._adjust_reading()
        if not keep or self._unanswered_continue:
            # Whoever still waits for 100 may send its body or another request next: nobody can tell which.
            self._close_gently()
        elif self._framer is not None:
            self._expect_body()
        else:
            self._expect_request()
            self._read_requests()

    def break_off(self, last: bytes | None) -> None:
        """Send `last` if the gateway reads, and close in a way that cannot pass for an end."""
        self._work = None
        if last is None or self._full:
            self.reset()
            return
        self.write(last)
        self.transport.close()
        path = self._reception.path
        asyncio.get_running_loop().call_later(path.settings.timeouts.flush_s, self._make_sure_closed)

    def _close_gently(self) -> None:
        """Close after the answer has left, reading a little longer: a close with unread bytes would reset it away."""
        if self.transport.is_closing() or self._lingering:
            return
        self._lingering = True
        self._framer, self._buffer, self.deadline_s = None, b"", NEVER_S
        if self.transport.can_write_eof():
            self.transport.write_eof()
        asyncio.get_running_loop().call_later(LINGER_S, self.transport.close)

    def _make_sure_closed(self) -> None:
        if self in self._reception.sides:
            self.reset()

    def reset(self) -> None:
        """Close with a TCP reset: what the gateway has not received yet, it does not receive any more."""
        raw = self.transport.get_extra_info("socket")
        if raw is not None and raw.fileno() >= 0:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()


_HEAD_TOO_LONG: Final = Refusal(status=431, code="HEAD_TOO_LONG", message=f"a head has at most {HEAD_BYTES_MAX} bytes")
