"""An upstream's response on its way to the gateway: bytes in, bytes out, and whether it is whole.

The head is rewritten once; the body passes as the very bytes that came. A response is whole when its framing says so;
a stream of chat completions moreover has to say that it is done. Everything else is broken, and whoever carries the
bytes must not let it end as if it were whole.
"""

from collections.abc import Callable
from typing import Final

from aipaging.adapters.sidecar.answers import Refusal, error_event
from aipaging.adapters.sidecar.event_stream import EventStreamWatch, ends_with_done
from aipaging.adapters.sidecar.framing import ChunkedFramer, Framer, LengthFramer, Tap, UntilCloseFramer
from aipaging.adapters.sidecar.heads import (
    HEAD_BYTES_MAX,
    HEAD_END,
    ResponseBrokenError,
    ResponseHead,
    read_response_head,
)
from aipaging.adapters.sidecar.usage import UsageWatch, tokens_of

_INTERIM: Final = (b"HTTP/1.1 1", b"HTTP/1.0 1")
"""100 (Continue) is answered by us and 103 is not passed on; 101 is never asked for."""

INTERIM_MAX: Final = 8
"""More interim answers than this are a game, not an answer."""


class ResponseRelay:
    """One response.

    Attributes:
        begun: Whether the head has been passed on.
        status: Its status code, once begun.
        done: Whether the body is complete by its framing.
        reusable: Whether the connection it came on is in step and kept by the upstream.
    """

    __slots__ = (
        "_fields",
        "_framer",
        "_interim",
        "_method",
        "_partial",
        "_target",
        "_usage",
        "_watch",
        "begun",
        "done",
        "reusable",
        "status",
    )

    def __init__(self, method: bytes, target: bytes, fields: Callable[[], bytes]) -> None:
        """Expect a response.

        Args:
            method: Of the request: an answer to HEAD has no body.
            target: Of the request: it tells how a stream of events has to end.
            fields: Called when the head arrives; returns the header lines to add to it.
        """
        self._method = method
        self._target = target
        self._fields = fields
        self._framer: Framer = _NOTHING
        self._watch: EventStreamWatch | None = None
        self._usage: UsageWatch | None = None
        self._partial = b""
        self._interim = 0
        self.begun = False
        self.done = False
        self.reusable = False
        self.status = 0

    @property
    def untouched(self) -> bool:
        """Whether not one byte of an answer has arrived."""
        return not (self.begun or self._partial or self._interim)

    @property
    def truncated(self) -> bool:
        """Whether the stream, though complete by its framing, lacks its end."""
        return self._watch is not None and self._watch.truncated

    @property
    def tokens(self) -> int | None:
        """What the model server has said so far of the tokens that it took, or None."""
        if self._watch is not None and (said := tokens_of(self._watch.usage)) is not None:
            return said
        return None if self._usage is None else self._usage.tokens

    def feed(self, piece: bytes) -> bytes:
        """Return what may be passed on.

        Raises:
            ResponseBrokenError: The head is malformed.
            FramingError: The body is.
        """
        if not self.begun:
            return self._feed_head(piece)
        out = self._framer.feed(piece)
        self._refuse_malformed()
        if not self._framer.done:
            return out
        return self._ended(out, piece)

    def _refuse_malformed(self) -> None:
        """Let nothing more out: the end of the stream may be in the very piece in which an event is no JSON."""
        if self._watch is not None and self._watch.malformed:
            raise ResponseBrokenError("an event of the stream is not JSON")

    def _ended(self, out: bytes, piece: bytes) -> bytes:
        framer = self._framer
        self.done = True
        if framer.rest:
            self.reusable = False
        if self.truncated:
            self.reusable = False
            # Nothing can be put behind a body of a known length: what is missing tells that it is broken.
            return b"" if isinstance(framer, LengthFramer) else out
        if not framer.rest and len(out) + len(framer.terminator) == len(piece):
            return piece  # nothing was held back before: it passes as it came, uncopied
        return out + framer.terminator

    def _feed_head(self, piece: bytes) -> bytes:
        if self._partial:
            piece, self._partial = self._partial + piece, b""
        end = piece.find(HEAD_END)
        while end >= 0 and piece.startswith(_INTERIM) and self._interim < INTERIM_MAX:
            self._interim += 1
            piece = piece[end + len(HEAD_END) :]
            end = piece.find(HEAD_END)
        if end < 0:
            if len(piece) > HEAD_BYTES_MAX:
                raise ResponseBrokenError("the upstream's head is too long")
            self._partial = piece
            return b""
        head = read_response_head(piece[: end + len(HEAD_END)], self._method)
        body = piece[end + len(HEAD_END) :]
        self._choose_framer(head)
        out = self._framer.feed(body)
        self._refuse_malformed()
        if head.length == 0 and self.truncated:
            raise ResponseBrokenError("the stream is empty")
        self.begun = True
        self.status = head.status
        coding = b"" if isinstance(self._framer, LengthFramer) else b"transfer-encoding: chunked\r\n"
        if self._framer.done:
            out = self._ended(out, body)
        return b"%b%b%b\r\n%b" % (head.start, coding, self._fields(), out)

    def _choose_framer(self, head: ResponseHead) -> None:
        if head.event_stream and not head.encoded and self._method != b"HEAD":
            is_success = head.status // 100 == 2
            self._watch = EventStreamWatch(is_chat=is_success and ends_with_done(self._target))
        tap = self._tap(head)
        self.reusable = head.keep_alive
        if head.chunked:
            self._framer = ChunkedFramer(tap)
        elif head.length is not None:
            self._framer = LengthFramer(head.length, tap)
        else:
            self.reusable = False
            self._framer = UntilCloseFramer(tap)

    def _tap(self, head: ResponseHead) -> Tap | None:
        """Return what looks at the body as it passes, or None where there is nothing to be seen."""
        watch = self._watch
        counted = self._method == b"POST" and head.status // 100 == 2 and not head.encoded
        if not counted or not (head.json or watch is not None) or (watch is not None and ends_with_done(self._target)):
            return None if watch is None else watch.see
        self._usage = usage = UsageWatch()
        if watch is None:
            return usage.see

        def see(piece: bytes) -> None:
            watch.see(piece)
            usage.see(piece)

        return see

    def closed(self, *, clean: bool) -> bytes:
        """Return what ends the response, now that the upstream has closed its connection.

        Raises:
            ResponseBrokenError: It was not at its end.
        """
        if self.begun and clean and isinstance(self._framer, UntilCloseFramer) and not self.truncated:
            self.done = True
            return self._framer.terminator
        raise ResponseBrokenError("the upstream closed in the middle of its answer")

    def last_event(self, reason: Refusal) -> bytes | None:
        """Return what tells the reader of an event stream that it ends here, or None where nothing can."""
        if self._watch is None or self._watch.malformed:
            return None  # of a malformed stream bytes were held back, and the chunk on the wire is open for them
        return self._framer.injected(self._watch.separator + error_event(reason))


_NOTHING: Final = LengthFramer(0)
