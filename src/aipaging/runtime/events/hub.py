"""The hub: everybody reads the one log at a place of their own.

A reader is a cursor and nothing else: no queue stands between it and the journal, so a slow reader costs no memory and
loses nothing, and going on after a restart is the same as going on. What is recent is read from memory, what is older
from the journal, in slices, in a thread. Only durable records are seen: the engine names them after the fsync.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from aipaging.core.evidence.merkle import leaf_hash
from aipaging.core.evidence.record import SealedEntry
from aipaging.core.foundation.errors import UnavailableError
from aipaging.core.foundation.names import SessionId
from aipaging.core.paging.state import State
from aipaging.ports.evidence import EvidenceLog
from aipaging.runtime.events.event import Event, EventId, RecordHead, event_of, gap_event, head_of, mark_of

Answered = TypeVar("Answered")

RECENT_RECORDS: Final = 4_096
"""Records kept in memory: about two megabytes, and some seconds of the heaviest load."""

REPLAY_RECORDS_MAX: Final = 200_000
"""How far back a reader may go on from: at 2 µs a record, half a second of reading; older ones are told as a gap."""

SLICE_RECORDS: Final = 512
"""Records read at a time: some milliseconds in the thread."""

OWNERS_MAX: Final = 100_000
"""Sessions whose owner is remembered for replays: about twenty megabytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose a session is."""

    client: str
    tenant: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An event and whose it is."""

    event: Event
    owner: Owner | None


def owner_in(state: State, session: SessionId) -> Owner | None:
    """Return whose a session is that the engine holds."""
    found = state.sessions.get(session)
    return None if found is None else Owner(client=found.client, tenant=found.tenant)


def _everything(_: SessionId | None) -> bool:
    """Listen to all that happens."""
    return True


class _Slot:
    """A record in memory; its event is made at most once, and only if anybody reads it."""

    __slots__ = ("_entry", "_made", "_told")

    def __init__(self, entry: SealedEntry) -> None:
        self._entry = entry
        self._made = False
        self._told: Told | None = None

    @property
    def session(self) -> SessionId | None:
        """Whose session it is about, None where it is about no session's."""
        return self._entry.session

    @property
    def id(self) -> EventId:
        """Where it stands."""
        return EventId(seq=self._entry.seq, mark=mark_of(self._entry.leaf_hash))

    def told(self, owner_of: Callable[[Event], Owner | None]) -> Told | None:
        """Return its event with its owner, if it is one."""
        if not self._made:
            event = event_of(self._entry.seq, self._entry.record, self._entry.leaf_hash)
            self._told = None if event is None else Told(event=event, owner=owner_of(event))
            self._made = True
        return self._told


class EventHub:
    """Tells durable records as events."""

    def __init__(
        self,
        open_reader: Callable[[], EvidenceLog],
        *,
        owner_of: Callable[[SessionId], Owner | None],
        wall_us: Callable[[], int],
    ) -> None:
        """Take where history is read, who owns a session that the engine knows, and the wall clock.

        Args:
            open_reader: Called in the thread that will use it.
            owner_of: None for a session that the engine does not hold any more.
            wall_us: Microseconds since the epoch.
        """
        self._open = open_reader
        self._owner_of = owner_of
        self._wall_us = wall_us
        self._reader: EvidenceLog | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="events")
        self._recent: deque[_Slot] = deque(maxlen=RECENT_RECORDS)
        self._owners: dict[str, Owner] = {}
        self._waiting: set[asyncio.Future[None]] = set()
        self._closed = False
        self.end = 0
        """The number of durable records: the place of the next one."""

    def recovered(self, records: int) -> None:
        """Take note of how many records are durable."""
        self.end = records
        self._recent.clear()

    def append_failed(self, code: str) -> None:
        """Nothing became durable, so nothing is told."""

    def effect_failed(self, kind: str) -> None:
        """What follows from it is a record of its own."""

    def appended(self, entries: Sequence[SealedEntry], seconds: float) -> None:  # noqa: ARG002 - metrics use it
        """Take note of records that are durable from now on."""
        if not entries:
            return
        if entries[0].seq != self.end:
            self._recent.clear()
        self._recent.extend(map(_Slot, entries))
        self.end = entries[-1].seq + 1
        self._wake()

    def close(self) -> None:
        """End every stream; what was not read is read on after a restart."""
        self._closed = True
        self._wake()
        self._thread.shutdown(wait=False, cancel_futures=True)

    @property
    def closed(self) -> bool:
        """Whether nothing more will be told."""
        return self._closed

    async def stream(
        self, after: EventId | None, heard: Callable[[SessionId | None], bool] = _everything
    ) -> AsyncGenerator[Told | EventId, None]:
        """Yield what is told after a place, for ever; now and then the place itself, where nothing was to be told.

        Args:
            after: The last event that was received; None begins with what happens from now on.
            heard: Whether anybody listens to what happens to a session, or to what is no session's (None). What
                nobody listens to may be left out, which saves making it.

        Yields:
            Events in order, each once; a gap where one is; and bare places, so that a reader that filters much
            knows where to go on.

        Raises:
            UnavailableError: The journal cannot be read; going on from the last place is safe.
        """
        place = self.end if after is None else after.seq + 1
        if after is not None:
            gap = await self.gap(after)
            if gap is not None:
                yield Told(event=gap, owner=None)
                place = gap.id.seq + 1
        while not self._closed:
            if place >= self.end:
                await self._more()
                continue
            found, last = await self._slice(place, heard)
            for told in found:
                yield told
            place = last.seq + 1
            yield last

    async def gap(self, after: EventId) -> Event | None:
        """Return what says that something is left out after a place, if anything is.

        Raises:
            UnavailableError: The journal cannot be read.
        """
        oldest = max(0, self.end - REPLAY_RECORDS_MAX)
        first = 0
        if self._slot(after.seq) is None and oldest <= after.seq + 1 < self.end:
            first = await self._in_thread(lambda reader: reader.first_seq())
            oldest = max(oldest, first)
        if after.seq + 1 < oldest:
            return self._gap_to(oldest - 1, first=after.seq + 1, reason="TOO_OLD")
        kept = after.seq >= first  # what was moved away cannot be compared
        if after.seq >= self.end or (kept and after.mark and await self._mark(after.seq) != after.mark):
            # What the reader knew is not in this journal: a backup was restored. Where the two histories part is
            # not known, so nothing of the past is told as if it followed; the reader has to look anew.
            return self._gap_to(max(0, self.end - 1), first=min(after.seq, self.end), reason="HISTORY_CHANGED")
        return None

    def _gap_to(self, seq: int, *, first: int, reason: str) -> Event:
        return gap_event(first=first, last=EventId(seq=seq), reason=reason, wall_us=self._wall_us())

    async def _mark(self, seq: int) -> str:
        slot = self._slot(seq)
        if slot is not None:
            return slot.id.mark
        return await self._in_thread(lambda reader: self._mark_in(reader, seq))

    @staticmethod
    def _mark_in(reader: EvidenceLog, seq: int) -> str:
        return next((mark_of(leaf_hash(stored.record)) for stored in reader.records(seq, seq + 1)), "")

    async def _more(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def _slot(self, seq: int) -> _Slot | None:
        first = self.end - len(self._recent)
        return self._recent[seq - first] if first <= seq < self.end else None

    async def _slice(self, first: int, heard: Callable[[SessionId | None], bool]) -> tuple[list[Told], EventId]:
        """Return the events from a place on, and the last place that was looked at."""
        end = min(first + SLICE_RECORDS, self.end)
        slots = [slot for seq in range(first, end) if (slot := self._slot(seq)) is not None]
        if len(slots) == end - first:
            made = [told for slot in slots if heard(slot.session) and (told := slot.told(self._live_owner)) is not None]
            if all(told.owner is not None or not told.event.session for told in made):
                return made, slots[-1].id
        return await self._in_thread(lambda reader: self._read(reader, first, end))

    def _live_owner(self, event: Event) -> Owner | None:
        if event.client:
            return Owner(client=event.client, tenant=event.tenant)
        known = self._owner_of(SessionId(event.session)) if event.session else None
        return known or self._owners.get(event.session)

    def _read(self, reader: EvidenceLog, first: int, end: int) -> tuple[list[Told], EventId]:
        found: list[Told] = []
        last = EventId(seq=first - 1)
        for seq, stored in enumerate(reader.records(first, end), first):
            head, hashed = head_of(stored.record), stored.leaf_hash or leaf_hash(stored.record)
            last = EventId(seq=seq, mark=mark_of(hashed))
            if head.client and head.session:
                self._remember(head.session, Owner(client=head.client, tenant=head.tenant))
            event = event_of(seq, stored.record, hashed)
            if event is not None:
                found.append(Told(event=event, owner=self._stored_owner(reader, event.session)))
        if last.seq != end - 1:
            raise UnavailableError(f"record {last.seq + 1} of the journal cannot be read", code="JOURNAL_CORRUPT")
        return found, last

    def _stored_owner(self, reader: EvidenceLog, session: str) -> Owner | None:
        if not session:
            return None
        owner = self._owners.get(session) or self._owner_of(SessionId(session))
        if owner is None:
            first = self._beginning(reader, session)
            owner = Owner(client=first.client if first else "", tenant=first.tenant if first else "")
            self._remember(session, owner)
        return owner

    @staticmethod
    def _beginning(reader: EvidenceLog, session: str) -> RecordHead | None:
        """Return what the first record of a session says; None if it was moved away: only operators are told then."""
        try:
            records = reader.session_records(SessionId(session))
        except UnavailableError as error:
            if error.code != "JOURNAL_FILE_MISSING":
                raise
            return None
        return head_of(records[0][1]) if records else None

    def _remember(self, session: str, owner: Owner) -> None:
        if len(self._owners) >= OWNERS_MAX:
            del self._owners[next(iter(self._owners))]
        self._owners[session] = owner

    async def _in_thread(self, question: Callable[[EvidenceLog], Answered]) -> Answered:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._asked, question)

    def _asked(self, question: Callable[[EvidenceLog], Answered]) -> Answered:
        if self._reader is None:
            self._reader = self._open()
        return question(self._reader)
