"""Watches a stream of server-sent events go by: where an event ends, and whether the stream is whole.

A stream of the OpenAI kind, known by what was asked for or by its `chat.completion.chunk` objects, consists of JSON
and ends with `data: [DONE]`. One that ends cleanly without it was truncated somewhere upstream; several gateways report
that as a finished answer, we do not. One with an event that is no JSON has lost something, and a client that skips what
it cannot read would take the rest for the whole.
"""

import re
from typing import Any, Final

import msgspec

BEGINNING_BYTES_MAX: Final = 4096
"""The kind of a stream shows in its first event; comments before it are short."""

EVENT_BYTES_MAX: Final = 1024 * 1024
"""Of an event that is held to be checked; a chunk of text has hundreds of bytes. What is longer passes unchecked."""

_KIND: Final = b"chat.completion.chunk"
_DONE: Final = re.compile(rb"[\r\n]data: ?\[DONE\]")
_DONE_BYTES_MAX: Final = 16
_EVENT_ENDS: Final = (b"\n\n", b"\r\n\r\n", b"\r\r")
_ASKED: Final = (b"/chat/completions", b"/completions")
_JSON: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder()


def ends_with_done(target: bytes) -> bool:
    """Return whether a stream that answers a request for `target` has to end with `data: [DONE]`."""
    return target.partition(b"?")[0].rstrip(b"/").endswith(_ASKED)


class EventStreamWatch:
    """Remembers the few bytes that tell how a stream stands."""

    __slots__ = ("_beginning", "_bytes", "_data", "_done", "_is_chat", "_line", "_malformed", "_tail", "usage")

    def __init__(self, *, is_chat: bool = False) -> None:
        """Watch a stream; `is_chat` where one was asked for, so that even one without any event is truncated."""
        self._beginning = b""
        self._is_chat = is_chat
        self._done = False
        self._malformed = False
        self._line = b""
        self._data: list[bytes] = []
        self._bytes = 0
        self.usage: object = None  # what the last event that had any said of the tokens so far
        self._tail = b"\n\n"  # a stream begins as if an event had just ended

    def see(self, piece: bytes) -> None:
        """Look at the next piece of the body."""
        seam = self._tail + piece
        undecided = not self._is_chat and len(self._beginning) < BEGINNING_BYTES_MAX
        if undecided:
            self._beginning += piece[:BEGINNING_BYTES_MAX]
            self._is_chat = _KIND in self._beginning
        if (self._is_chat or undecided) and not self._done:
            self._check(piece)
        if not self._done and _DONE.search(seam):
            self._done = True
        self._tail = seam[-_DONE_BYTES_MAX:]

    def _check(self, piece: bytes) -> None:
        """Read the events that `piece` completes; the lines of one event's data belong together (WHATWG, 9.2.6)."""
        *lines, self._line = (self._line + piece).split(b"\n")
        for ended in lines:
            line = ended.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:])
                self._bytes += len(line)
            elif not line and self._data:
                self._read(b"\n".join(self._data).strip())
                self._data, self._bytes = [], 0
        if self._bytes + len(self._line) > EVENT_BYTES_MAX:
            self._data, self._bytes, self._line = [], 0, b""

    def _read(self, event: bytes) -> None:
        if event == b"[DONE]":
            self._done = True
        if self._done or not event:
            return  # what comes behind the end is not read by anybody
        try:
            said = _JSON.decode(event)
        except msgspec.DecodeError:
            self._malformed = True
            return
        if type(said) is dict and (usage := said.get("usage")):
            self.usage = usage

    @property
    def truncated(self) -> bool:
        """Whether an end of the stream here would be a truncation."""
        return self._is_chat and not self._done

    @property
    def malformed(self) -> bool:
        """Whether an event of a chat stream was no JSON."""
        return self._is_chat and self._malformed

    @property
    def separator(self) -> bytes:
        """What has to come before a further event, so that an unfinished one does not swallow it."""
        return b"" if self._tail.endswith(_EVENT_ENDS) else b"\n\n"
