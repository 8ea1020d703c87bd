"""The expiry queue: what has to be looked at, and when.

Entries are never removed, only outlived: whoever pops one asks the state whether it still means anything. That
keeps a renewal at O(log n) with no search, and a stale entry costs one look.

Most entries are far off: a live session has three. Only those of the present second and before stand in a heap, a
tuple each; the others lie unsorted in the columns of the second that they are due in, a fifth of the memory.
"""

import enum
import heapq
from array import array
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.time import SECOND, BootUs


class Due(enum.IntEnum):
    """Why an entry is due; at one instant, ends come before beginnings."""

    EXPIRE = 0
    RELEASE = 1
    SESSION_END = 2
    RELOCATION = 3
    ANCHOR = 4
    ENVELOPE = 5
    RENEW = 6
    FORGET = 7
    TURN = 8
    CLAIM = 9


_DUES: Final = tuple(Due)
"""By number: asking the class takes ten times as long."""

NO_EPOCH: Final = Epoch(0, 0)
"""For entries that are not about one lease; no lease ever has it, terms begin at 1."""

Entry: TypeAlias = tuple[int, int, str, Epoch]
"""When, why, what, and of which lease."""


class _Later:
    """What is due in one second that is still to come, in the order in which it was added."""

    __slots__ = ("_dues", "_epochs", "_subjects", "_whens_us", "least_us")

    def __init__(self, least_us: int) -> None:
        self.least_us = least_us
        self._whens_us = array("q")
        self._dues = bytearray()
        self._subjects: list[str] = []
        self._epochs: list[Epoch] = []

    def __len__(self) -> int:
        return len(self._dues)

    def add(self, when_us: int, due: int, subject: str, epoch: Epoch) -> None:
        """Put an entry in."""
        self.least_us = min(self.least_us, when_us)
        self._whens_us.append(when_us)
        self._dues.append(due)
        self._subjects.append(subject)
        self._epochs.append(epoch)

    def entries(self) -> list[Entry]:
        """Return the entries."""
        return list(zip(self._whens_us, self._dues, self._subjects, self._epochs, strict=True))


@dataclass(slots=True)
class ExpiryQueue:
    """A queue of (when, why, what), least `when` first; and a line of those that wait for their turn.

    Attributes:
        line: Who waits for a turn, by rank and then by age.
        in_line: The same, to be asked quickly.
    """

    line: list[tuple[int, int, str]] = field(default_factory=list[tuple[int, int, str]])
    in_line: set[str] = field(default_factory=set[str])
    # The entries of all seconds up to `_second`, a heap; those of later seconds, and these seconds, a heap too.
    _near: list[Entry] = field(default_factory=list[Entry])
    _second: int = -1
    _later: dict[int, _Later] = field(default_factory=dict[int, _Later])
    _seconds: list[int] = field(default_factory=list[int])

    def __len__(self) -> int:
        """Return how many entries there are, stale ones included."""
        return len(self._near) + sum(map(len, self._later.values()))

    def join_line(self, subject: str, *, rank: int, age_us: int) -> None:
        """Let a subject wait for its turn: least rank first, then the oldest; who waits already keeps its place."""
        if subject not in self.in_line:
            self.in_line.add(subject)
            heapq.heappush(self.line, (rank, age_us, subject))

    def next_in_line(self) -> str | None:
        """Remove and return whose turn it is, or None."""
        if not self.line:
            return None
        subject = heapq.heappop(self.line)[2]
        self.in_line.discard(subject)
        return subject

    def add(self, when_us: BootUs, due: Due, subject: str, *, epoch: Epoch = NO_EPOCH) -> None:
        """Look at `subject` (a session or an anchor; with an epoch where it matters) at `when_us`."""
        second = when_us // SECOND
        if second <= self._second:
            heapq.heappush(self._near, (when_us, due, subject, epoch))
            return
        later = self._later.get(second)
        if later is None:
            later = self._later[second] = _Later(when_us)
            heapq.heappush(self._seconds, second)
        later.add(when_us, due, subject, epoch)

    def next_us(self) -> BootUs | None:
        """Return when the first entry is due, or None."""
        if self._near:
            return BootUs(self._near[0][0])
        return BootUs(self._later[self._seconds[0]].least_us) if self._seconds else None

    def pop_due(self, until_us: BootUs) -> tuple[BootUs, Due, str, Epoch] | None:
        """Remove and return the first entry due at or before `until_us`, or None."""
        if self._seconds and self._seconds[0] * SECOND <= until_us:
            self._come_near(until_us // SECOND)
        if not self._near or self._near[0][0] > until_us:
            return None
        when_us, due, subject, epoch = heapq.heappop(self._near)
        return BootUs(when_us), _DUES[due], subject, epoch

    def _come_near(self, second: int) -> None:
        """Put the entries of all seconds up to this one in order."""
        while self._seconds and self._seconds[0] <= second:
            self._near += self._later.pop(heapq.heappop(self._seconds)).entries()
        self._second = second
        heapq.heapify(self._near)
