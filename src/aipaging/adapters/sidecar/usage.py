"""What sessions used: requests that were served, and the tokens that the model server says they took.

A request is served when an answer of status 2xx is whole, or when its client leaves in the middle of one: whoever goes
has had the service. What was cut, broken or refused counts for nothing. Tokens are read from the `usage` of answers in
the OpenAI form, of JSON and of streams, and are nobody's estimate: an answer without it counts a request and no token
(`stream_options.include_usage` in the request, or an option of the model server, has a stream say it).

Counts leave in numbered batches. One batch is under way at a time, and is sent again, unchanged, until it is answered;
what is counted meanwhile is of the next. So a controller that remembers the last number counts everything once. What
has not been answered when the sidecar dies is lost: an interval's counts.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import msgspec

from aipaging.core.foundation.names import SessionId

WHOLE_BYTES_MAX: Final = 16 * 1024
"""An answer up to here is parsed: about 3,000 tokens of text. Of a longer one, both ends are searched."""

END_BYTES_MAX: Final = 4 * 1024
"""Searched at either end of a long answer: most servers write `usage` last, some of embeddings write it first."""

BATCH_MAX: Final = 512
"""Sessions in a batch, as the controller takes them."""

SESSIONS_MAX: Final = 100_000
"""Sessions that are counted while the controller is silent, at about 200 bytes each."""

TOKENS_MAX: Final = (1 << 24) - 1
"""Of one answer; more is no count but a fault, and counts as not said."""

_KEY: Final = re.compile(rb'[{,\s]"usage"\s*:\s*(?=\{)')
"""Not to be found within a text: there, the quotation marks would be escaped."""


class _Usage(msgspec.Struct):
    """Names of the OpenAI interfaces: the first three of completions and embeddings, the last two of responses."""

    total_tokens: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


class _Answer(msgspec.Struct):
    usage: _Usage | None = None


_ANSWER: Final = msgspec.json.Decoder(_Answer)
_OBJECT: Final = json.JSONDecoder()


def tokens_of(usage: object) -> int | None:
    """Return the tokens that a `usage` object states, or None where it states none."""
    try:
        said = usage if isinstance(usage, _Usage) else msgspec.convert(usage, _Usage)
    except msgspec.ValidationError:
        return None
    parts = (said.prompt_tokens, said.completion_tokens, said.input_tokens, said.output_tokens)
    if said.total_tokens is None and parts == (None,) * 4:
        return None
    total = said.total_tokens if said.total_tokens is not None else sum(part or 0 for part in parts)
    return total if 0 <= total <= TOKENS_MAX else None


class UsageWatch:
    """Sees an answer go by and keeps what may hold its `usage`: a short answer, or both ends of a long one."""

    __slots__ = ("_beginning", "_bytes", "_pieces")

    def __init__(self) -> None:
        self._beginning: bytes | None = None
        self._pieces: list[bytes] = []
        self._bytes = 0

    def see(self, piece: bytes) -> None:
        """Look at the next piece of the body."""
        self._pieces.append(piece)
        self._bytes += len(piece)
        if self._bytes > WHOLE_BYTES_MAX:
            joined = b"".join(self._pieces)
            if self._beginning is None:
                self._beginning = joined[:END_BYTES_MAX]
            end = joined[-END_BYTES_MAX:]
            self._pieces, self._bytes = [end], len(end)

    @property
    def tokens(self) -> int | None:
        """What the answer stated so far, or None."""
        body = b"".join(self._pieces)
        if self._beginning is None:
            try:
                return tokens_of(_ANSWER.decode(body).usage)
            except msgspec.MsgspecError:
                pass  # a stream of events, or the beginning of an answer that nobody waited for
        for last in reversed(list(_KEY.finditer(body))):
            if (found := _object_at(body, last.end())) is not None:
                return tokens_of(found)
        first = _KEY.search(self._beginning or b"")
        return None if first is None else tokens_of(_object_at(self._beginning or b"", first.end()))


def _object_at(body: bytes, position: int) -> dict[str, Any] | None:
    try:
        found, _ = _OBJECT.raw_decode(body[position:].decode("latin-1"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageBatch:
    """Counts on their way to the controller.

    Attributes:
        number: Counts the batches of this boot from 1.
        used: Requests and tokens of each session.
    """

    number: int
    used: Mapping[SessionId, tuple[int, int]]


class UsageMeter:
    """Counts, and keeps what has not been answered yet."""

    def __init__(self) -> None:
        self._counts: dict[SessionId, tuple[int, int]] = {}
        self._under_way: UsageBatch | None = None
        self._number = 0
        self.lost = 0

    def count(self, session: SessionId, tokens: int) -> None:
        """Count one request that was served."""
        before = self._counts.get(session)
        if before is not None:
            self._counts[session] = (before[0] + 1, before[1] + tokens)
        elif len(self._counts) < SESSIONS_MAX:
            self._counts[session] = (1, tokens)
        else:
            self.lost += 1

    def batch(self) -> UsageBatch | None:
        """Return the batch that is under way, or the next, or None where nothing was counted."""
        if self._under_way is None and self._counts:
            used = dict(islice(self._counts.items(), BATCH_MAX))
            for session in used:
                del self._counts[session]
            self._number += 1
            self._under_way = UsageBatch(number=self._number, used=used)
        return self._under_way

    def taken(self, batch: UsageBatch) -> None:
        """Forget a batch: the controller has it."""
        if self._under_way is batch:
            self._under_way = None
