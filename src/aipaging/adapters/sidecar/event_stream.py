"""Watches a stream of server-sent events go by: where an event ends, and whether the stream is whole.

A stream of the OpenAI kind that begins with `chat.completion.chunk` objects ends with `data: [DONE]`. One that ends
cleanly without it was truncated somewhere upstream; several gateways report that as a finished answer, we do not.
"""

import re
from typing import Final

BEGINNING_BYTES_MAX: Final = 4096
"""The kind of a stream shows in its first event; comments before it are short."""

_KIND: Final = b"chat.completion.chunk"
_DONE: Final = re.compile(rb"[\r\n]data: ?\[DONE\]")
_DONE_BYTES_MAX: Final = 16
_EVENT_ENDS: Final = (b"\n\n", b"\r\n\r\n", b"\r\r")


class EventStreamWatch:
    """Remembers the few bytes that tell how a stream stands."""

    __slots__ = ("_beginning", "_done", "_is_chat", "_tail")

    def __init__(self) -> None:
        self._beginning = b""
        self._is_chat = False
        self._done = False
        self._tail = b"\n\n"  # a stream begins as if an event had just ended

    def see(self, piece: bytes) -> None:
        """Look at the next piece of the body."""
        seam = self._tail + piece
        if not self._is_chat and len(self._beginning) < BEGINNING_BYTES_MAX:
            self._beginning += piece[:BEGINNING_BYTES_MAX]
            self._is_chat = _KIND in self._beginning
        if not self._done and _DONE.search(seam):
            self._done = True
        self._tail = seam[-_DONE_BYTES_MAX:]

    @property
    def truncated(self) -> bool:
        """Whether an end of the stream here would be a truncation."""
        return self._is_chat and not self._done

    @property
    def separator(self) -> bytes:
        """What has to come before a further event, so that an unfinished one does not swallow it."""
        return b"" if self._tail.endswith(_EVENT_ENDS) else b"\n\n"
