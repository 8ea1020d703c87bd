"""Where a message body ends, without touching it.

A framer is fed what arrives and returns what may be passed on, which is the very bytes object that came in wherever it
lies within the body. The last chunk of a chunked body is kept apart (`terminator`): whoever passes a body on decides
whether it ends well. `injected` returns the bytes that put a text into the body at the present position, so that a
stream can be given a last event even in the middle of a chunk.

Chunked framing is read strictly (RFC 9112, 7.1): hexadecimal digits, printable extensions, CRLF and nothing else. What
two parsers could read in two ways is refused, not repaired (request smuggling).
"""

import re
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

from aipaging.core.foundation.errors import InvalidInputError

CHUNK_LINE_BYTES_MAX: Final = 256
"""A size of at most 15 digits and an extension that nobody uses."""

TRAILER_BYTES_MAX: Final = 8 * 1024
"""As nginx's and Envoy's order of magnitude for all trailers together."""

_CRLF: Final = b"\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"

# 15 digits stay below 2**60; more would only serve to overflow a peer.
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e]*)?")

Tap: TypeAlias = Callable[[bytes], None]
"""Sees every piece of the body, without framing."""


class FramingError(InvalidInputError):
    """The body is not framed as it should be; the connection cannot be used any more."""


class Framer(Protocol):
    """Finds the end of a body.

    Attributes:
        done: Whether the body is complete.
        rest: What came after it.
        terminator: What closes the body on the wire.
    """

    done: bool
    rest: bytes
    terminator: bytes

    def feed(self, piece: bytes) -> bytes:
        """Return what of `piece` (and of what was held back) may be passed on."""
        ...

    def injected(self, text: bytes) -> bytes | None:
        """Return the bytes that continue the body with `text`, or None where its length is fixed."""
        ...


class LengthFramer:
    """A body of a known length."""

    __slots__ = ("_remaining", "_tap", "done", "rest", "terminator")

    def __init__(self, length: int, tap: Tap | None = None) -> None:
        self._remaining = length
        self._tap = tap
        self.done = length == 0
        self.rest = b""
        self.terminator = b""

    def feed(self, piece: bytes) -> bytes:
        """Count down."""
        if self._tap is not None:
            self._tap(piece[: self._remaining])
        left = self._remaining - len(piece)
        if left > 0:
            self._remaining = left
            return piece
        self.done = True
        if left == 0:
            self._remaining = 0
            return piece
        end, self._remaining = self._remaining, 0
        self.rest = piece[end:]
        return piece[:end]

    def injected(self, text: bytes) -> bytes | None:
        """Return None: any byte more would be taken for the body's own."""
        del text
        return None


class ChunkedFramer:
    """A chunked body, passed on as it is framed."""

    __slots__ = ("_held", "_in_chunk", "_needs_crlf", "_tap", "done", "rest", "terminator")

    def __init__(self, tap: Tap | None = None) -> None:
        self._tap = tap
        self._held = b""
        self._in_chunk = 0
        self._needs_crlf = False
        self.done = False
        self.rest = b""
        self.terminator = b""

    def feed(self, piece: bytes) -> bytes:
        """Walk over the chunks; incomplete framing (never body) is held back until it is whole.

        Raises:
            FramingError: The framing is malformed.
        """
        if self._held:
            piece, self._held = self._held + piece, b""
        end = len(piece)
        position = 0
        while True:
            if self._in_chunk:
                position = self._over_chunk(piece, position, end)
                if self._in_chunk:
                    return piece
            step = self._over_chunk_end if self._needs_crlf else self._over_size_line
            after = step(piece, position, end)
            if after < 0:
                break
            position = after
            if self.done:
                return piece[: position - len(self.terminator)]
        self._held = piece[position:]
        return piece[:position] if self._held else piece

    def _over_chunk(self, piece: bytes, position: int, end: int) -> int:
        step = min(self._in_chunk, end - position)
        if self._tap is not None and step:
            self._tap(piece[position : position + step])
        self._in_chunk -= step
        self._needs_crlf = not self._in_chunk
        return position + step

    def _over_chunk_end(self, piece: bytes, start: int, end: int) -> int:
        """Return the position behind the CRLF that ends a chunk, or -1 where it is not whole."""
        if end - start < len(_CRLF):
            return -1
        if piece[start : start + len(_CRLF)] != _CRLF:
            raise FramingError("a chunk does not end in CRLF", code="FRAMING")
        self._needs_crlf = False
        return start + len(_CRLF)

    def _over_size_line(self, piece: bytes, start: int, end: int) -> int:
        """Return the position behind the next size line, or -1 where it is not whole."""
        line_end = piece.find(_CRLF, start, start + CHUNK_LINE_BYTES_MAX)
        if line_end < 0:
            if end - start >= CHUNK_LINE_BYTES_MAX:
                raise FramingError("a chunk size line is too long", code="FRAMING")
            return -1
        size = self._size(piece[start:line_end])
        if not size:
            return self._over_trailer(piece, start, line_end)
        self._in_chunk = size
        return line_end + len(_CRLF)

    @staticmethod
    def _size(line: bytes) -> int:
        found = _SIZE_LINE.fullmatch(line)
        if found is None:
            raise FramingError("a chunk size line is malformed", code="FRAMING")
        return int(found[1], 16)

    def _over_trailer(self, piece: bytes, start: int, line_end: int) -> int:
        trailer_end = piece.find(b"\r\n\r\n", line_end)
        if trailer_end < 0:
            if len(piece) - line_end > TRAILER_BYTES_MAX:
                raise FramingError("the trailers are too long", code="FRAMING")
            return -1
        self.done = True
        self.terminator = piece[start : trailer_end + 4]
        self.rest = piece[trailer_end + 4 :]
        return trailer_end + 4

    def injected(self, text: bytes) -> bytes | None:
        """Finish the chunk that is open with the beginning of `text`, and put the rest into one of its own."""
        if self._in_chunk >= len(text):
            self._in_chunk -= len(text)
            return text
        inside, outside = text[: self._in_chunk], text[self._in_chunk :]
        closing = b"\r\n" if self._in_chunk or self._needs_crlf else b""
        self._in_chunk = 0
        self._needs_crlf = False
        return inside + closing + chunk(outside)


class UntilCloseFramer:
    """A body that ends with its connection, passed on in chunks: so the far side can tell an end from a cut."""

    __slots__ = ("_tap", "done", "rest", "terminator")

    def __init__(self, tap: Tap | None = None) -> None:
        self._tap = tap
        self.done = False
        self.rest = b""
        self.terminator = LAST_CHUNK

    def feed(self, piece: bytes) -> bytes:
        """Put a chunk around it."""
        if self._tap is not None:
            self._tap(piece)
        return chunk(piece) if piece else b""

    def injected(self, text: bytes) -> bytes | None:
        """Put a chunk around it."""
        return chunk(text)


def chunk(piece: bytes) -> bytes:
    """Return `piece` as one chunk."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)
