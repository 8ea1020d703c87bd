"""What was decided and is not durable yet: commands on their way through the journal, and who reads what they changed.

A read of one session waits for the last command that changed that session, not for whatever the journal is busy with:
beside thousands of renewals a second there is always something.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from aipaging.core.evidence.record import SealedEntry
from aipaging.core.foundation.errors import UnavailableError
from aipaging.core.foundation.names import SessionId
from aipaging.core.paging.acting import OperatorActed, SessionErased
from aipaging.core.paging.commands import Reply
from aipaging.core.paging.effects import Effect
from aipaging.core.paging.events import Event, LeasesRenewed


@dataclass(slots=True, eq=False)
class Item:
    """A command that was decided, on its way through the journal.

    Attributes:
        events: What was decided.
        entries: Its evidence, sealed.
        permissive: Effects that wait until it is durable.
        restricted: Done when its restrictive effects are in force.
        reply: The answer, once it may be given.
        trace: Who waits for it, as `traceparent`.
        answer: Whoever submitted it waits here.
        readers: Whoever read what it changed waits here.
        number: Its place in the order of decision.
        changed: The sessions that it changed, and None if it changed what is no session's.
    """

    events: Sequence[Event]
    entries: list[SealedEntry]
    permissive: list[Effect]
    restricted: asyncio.Future[None] | None
    reply: Reply
    trace: str = ""
    answer: asyncio.Future[Reply] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    readers: list[asyncio.Future[None]] = field(default_factory=list[asyncio.Future[None]])
    number: int = 0
    changed: tuple[SessionId | None, ...] = ()

    @property
    def patient(self) -> bool:
        """Whether nobody waits for it: renewals of leases that have long to go."""
        return all(isinstance(event, LeasesRenewed) for event in self.events)

    def durable(self) -> None:
        """Let those who read what it changed go on."""
        for reader in self.readers:
            if not reader.done():
                reader.set_result(None)

    def lost(self, error: UnavailableError) -> None:
        """Tell everybody who waits that it never happened."""
        waiting: list[asyncio.Future[Reply] | asyncio.Future[None]] = [self.answer, *self.readers]
        for each in waiting:
            if not each.done():
                each.set_exception(error)
                each.exception()  # nobody may be waiting any more


class Pending:
    """The line before the journal, in the order of decision.

    Attributes:
        waiting: Decided, and in no batch yet.
        in_flight: In the batch that the journal is writing.
    """

    def __init__(self) -> None:
        self.waiting: list[Item] = []
        self.in_flight: list[Item] = []
        self._numbered = 0
        # The last command in the line that changed a session; under None what may have changed anything.
        self._last: dict[SessionId | None, Item] = {}

    def __len__(self) -> int:
        """Return how many commands are not durable."""
        return len(self.waiting) + len(self.in_flight)

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for any of them."""
        return any(not item.patient for line in (self.in_flight, self.waiting) for item in line)

    def add(self, item: Item) -> None:
        """Put a command at the end of the line."""
        self._numbered += 1
        item.number = self._numbered
        item.changed = tuple(dict.fromkeys(_changed(item)))
        self.waiting.append(item)
        for session in item.changed:
            self._last[session] = item

    def batch(self, items_max: int) -> list[Item]:
        """Return the next batch, which is in flight from now on."""
        self.in_flight, self.waiting = self.waiting[:items_max], self.waiting[items_max:]
        return self.in_flight

    def settle(self) -> None:
        """Note that what was in flight is durable."""
        settled, self.in_flight = self.in_flight, []
        for item in settled:
            for session in item.changed:
                if self._last.get(session) is item:
                    del self._last[session]
            item.durable()

    def lose(self, error: UnavailableError) -> None:
        """Note that nothing of what is in the line ever becomes durable."""
        lost = [*self.in_flight, *self.waiting]
        self.in_flight, self.waiting = [], []
        self._last.clear()
        for item in lost:
            item.lost(error)

    def reader(self, session: SessionId | None) -> asyncio.Future[None] | None:
        """Return what is done when that is durable which can be seen now: of one session, or of everything.

        None: it is durable. The future fails with `UnavailableError` if it never becomes so.
        """
        if session is None:
            newest_first = (item for line in (self.waiting, self.in_flight) for item in reversed(line))
            last = list(islice((item for item in newest_first if item.changed), 1))
        else:
            last = [item for key in (session, None) if (item := self._last.get(key)) is not None]
        if not last:
            return None
        reader: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        max(last, key=_number).readers.append(reader)
        return reader


def _number(item: Item) -> int:
    return item.number


def _changed(item: Item) -> Iterator[SessionId | None]:
    """Yield the sessions that a command changed, and None if it changed what is no session's."""
    for event in item.events:
        if isinstance(event, LeasesRenewed):
            yield from (renewal.session for renewal in event.renewals)
        elif not isinstance(event, OperatorActed | SessionErased):  # on record, and changes nothing
            yield getattr(event, "session", None)
