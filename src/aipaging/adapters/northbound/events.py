"""Live events: what became durable, as server-sent events, to be resumed from where a reader was.

A client sees what concerns its own sessions, an operator everything. The stream is read from the journal at the
reader's own place (`runtime.events`), so a slow reader holds nothing but its connection: it is cut, and goes on with
`Last-Event-ID`. What is too old to be told is said by an event of its own, `events-gap`, never left out silently.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final

from aipaging.adapters.northbound.credentials import Caller
from aipaging.adapters.northbound.operation import BASE, Operation, Reply
from aipaging.adapters.northbound.service import Northbound
from aipaging.core.foundation.errors import InvalidInputError, RefusedError, UnavailableError
from aipaging.core.foundation.names import session_id
from aipaging.runtime.events.event import GAP, TYPE_PREFIX, EventId, event_id
from aipaging.runtime.events.hub import EventHub, Told
from aipaging.runtime.http.exchange import Answer, Request

STREAMS_PER_CLIENT_MAX: Final = 8
"""A console, a few programs, and those that a dead connection has not given back yet."""

STREAMS_MAX: Final = 256
"""Every record is looked at once for each open stream: 0.1 s of a core per second at 1,500 records/s."""

HEARTBEAT_S: Final = 10.0
"""A comment after so long without an event: half of the shortest idle time-out of common proxies."""

STREAM_S_MAX: Final = 900.0
"""A stream ends after so long, so that a credential that was withdrawn does not listen for ever; clients reconnect."""

RETRY_MS: Final = 2_000
"""What a browser waits before it reconnects."""

MEDIA_TYPE: Final = "text/event-stream"
_EXAMPLE: Final = (
    "id: 1204-5ad1c9e0\n"
    "event: org.aipaging.ai-paging.v0.session-available\n"
    'data: {"specversion":"1.0","id":"1204-5ad1c9e0","type":"org.aipaging.ai-paging.v0.session-available",...}\n\n'
)
_HEADERS: Final = ((b"x-accel-buffering", b"no"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What one reader asked for."""

    caller: Caller
    session: str
    after: EventId | None
    follow: bool

    def concerns(self, told: Told) -> bool:
        """Tell whether an event is for this reader."""
        if told.event.name == GAP:
            return True
        if self.session and told.event.session != self.session:
            return False
        owner = told.owner
        own = owner is not None and (owner.client, owner.tenant) == (self.caller.client, self.caller.tenant)
        return self.caller.operator or own


class EventRoutes:
    """The operation on live events."""

    def __init__(self, service: Northbound) -> None:
        self._hub: EventHub = service.hub
        self._source = source_of(service.issuer)
        self._open: Counter[str] = Counter()
        self._metrics = service.metrics

    async def stream(self, request: Request, caller: Caller) -> Answer:
        """Answer a stream."""
        wanted = _wanted(request, caller)
        if self._open[caller.client] >= STREAMS_PER_CLIENT_MAX or self._open.total() >= STREAMS_MAX:
            raise RefusedError(
                f"{self._open[caller.client]} streams of {caller.client} are open: {STREAMS_PER_CLIENT_MAX} are "
                f"allowed, and {STREAMS_MAX} in all; close one",
                code="TOO_MANY_REQUESTS",
            )
        return Answer(media_type=MEDIA_TYPE, headers=_HEADERS, chunks=lambda: self._counted(wanted))

    async def _counted(self, wanted: _Wanted) -> AsyncGenerator[bytes, None]:
        client = wanted.caller.client
        self._open[client] += 1
        self._metrics.streams(self._open.total())
        chunks = _chunks(self._hub, wanted, self._source)
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            await chunks.aclose()
            self._open[client] -= 1
            if not self._open[client]:
                del self._open[client]
            self._metrics.streams(self._open.total())

    def operations(self) -> Sequence[Operation]:
        """Return the table of this operation."""
        return [
            Operation(
                method="GET",
                path=f"{BASE}/events",
                name="streamEvents",
                summary="Hear what happens, as it becomes durable (server-sent events)",
                description="Each `data` is a CloudEvent 1.0.2 in JSON; ids are stable and ordered. A client hears of "
                "its own sessions, an operator of everything. Reconnect with `Last-Event-ID` to go on without loss; "
                f"a stream ends after {STREAM_S_MAX:g} s, and earlier for a reader that does not read. "
                "`events-gap` says what is too old to be told: read your sessions then.",
                tag="Events",
                handler=self.stream,
                scope="ai-paging:events:read",
                query={
                    "lastEventId": "Go on after this event, where the header cannot be set; 0 from the beginning.",
                    "sessionId": "Of this session only.",
                    "follow": "`false`: end when everything so far is told; `true` by default.",
                },
                headers={"Last-Event-ID": "Go on after this event."},
                replies={200: Reply(meaning="The stream.", media_type=MEDIA_TYPE, example=_EXAMPLE)},
                errors=("INVALID_ARGUMENT", "TOO_MANY_REQUESTS"),
            )
        ]


def source_of(issuer: str) -> str:
    """Return the `source` of every event of an operator."""
    return f"{issuer.rstrip('/')}{BASE}"


def _wanted(request: Request, caller: Caller) -> _Wanted:
    query = request.parameters_of_query("lastEventId", "sessionId", "follow")
    last = request.header(b"last-event-id") or query.get("lastEventId", "")
    follow = query.get("follow", "true")
    if follow not in {"true", "false"}:
        raise InvalidInputError(f"follow is {follow[:40]!r}: true or false is allowed", field="follow")
    session = query.get("sessionId", "")
    return _Wanted(
        caller=caller,
        session=session_id(session) if session else "",
        after=event_id(last) if last else None,
        follow=follow == "true",
    )


async def _chunks(hub: EventHub, wanted: _Wanted, source: str) -> AsyncGenerator[bytes, None]:
    """Yield the stream: events, and now and then a comment with the place, so that going on skips what was filtered."""
    loop = asyncio.get_running_loop()
    until = hub.end - 1
    place = wanted.after or EventId(seq=max(0, until))
    stream = hub.stream(wanted.after if wanted.after is not None or wanted.follow else place)
    ends_s = loop.time() + STREAM_S_MAX
    sent_s = loop.time()
    yield b"retry: %d\n\n" % RETRY_MS
    if not wanted.follow and (gap := await _gap_at_the_end(hub, wanted.after, until)) is not None:
        place = gap.event.id
        yield frame(gap, source)
    pending = asyncio.ensure_future(anext(stream, None))
    try:
        while loop.time() < ends_s and (wanted.follow or place.seq < until):
            await asyncio.wait({pending}, timeout=HEARTBEAT_S)
            if loop.time() - sent_s >= HEARTBEAT_S:
                sent_s = loop.time()
                yield b": still here\n" + _place(place)
            if not pending.done():
                continue
            item = _taken(pending)
            if item is None:
                break
            pending = asyncio.ensure_future(anext(stream, None))
            if isinstance(item, EventId):
                place = item
            elif wanted.concerns(item):
                place, sent_s = item.event.id, loop.time()
                yield frame(item, source)
        yield _place(place)
    finally:
        pending.cancel()
        await asyncio.gather(pending, return_exceptions=True)
        await stream.aclose()


async def _gap_at_the_end(hub: EventHub, after: EventId | None, until: int) -> Told | None:
    """Return the gap of a reader for whom nothing follows: what it saw may not be in this journal any more."""
    if after is None or after.seq < until:
        return None  # nothing was seen, or the stream tells
    try:
        gap = await hub.gap(after)
    except UnavailableError:
        return None
    return None if gap is None else Told(event=gap, owner=None)


def _taken(pending: "asyncio.Future[Told | EventId | None]") -> Told | EventId | None:
    """Return what the stream gave; None when it ended, or the journal cannot be read now: the reader comes back."""
    try:
        return pending.result()
    except UnavailableError:
        return None


def _place(place: EventId) -> bytes:
    """Return a place without an event: browsers keep it for `Last-Event-ID`."""
    return b"id: %s\n\n" % str(place).encode()


def frame(told: Told, source: str) -> bytes:
    """Return an event on the wire of server-sent events."""
    event = told.event
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (
        str(event.id).encode(),
        (TYPE_PREFIX + event.name).encode(),
        event.document(source),
    )
