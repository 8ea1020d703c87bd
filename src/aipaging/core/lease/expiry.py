"""The expiry queue: what has to be looked at, and when.

Entries are never removed, only outlived: whoever pops one asks the state whether it still means anything. That
keeps a renewal at O(log n) with no search, and a stale entry costs one look.
"""

import enum
import heapq
from dataclasses import dataclass, field
from typing import Final

from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.time import BootUs


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


NO_EPOCH: Final = Epoch(0, 0)
"""For entries that are not about one lease; no lease ever has it, terms begin at 1."""


@dataclass(slots=True)
class ExpiryQueue:
    """A queue of (when, why, what), least `when` first; and a line of those that wait for their turn.

    Attributes:
        entries: What is due when.
        line: Who waits for a turn, by rank and then by age.
        in_line: The same, to be asked quickly.
    """

    entries: list[tuple[int, int, str, int, int]] = field(default_factory=list)
    line: list[tuple[int, int, str]] = field(default_factory=list[tuple[int, int, str]])
    in_line: set[str] = field(default_factory=set[str])

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
        heapq.heappush(self.entries, (when_us, due, subject, epoch.term, epoch.n))

    def next_us(self) -> BootUs | None:
        """Return when the first entry is due, or None."""
        return BootUs(self.entries[0][0]) if self.entries else None

    def pop_due(self, until_us: BootUs) -> tuple[BootUs, Due, str, Epoch] | None:
        """Remove and return the first entry due at or before `until_us`, or None."""
        if not self.entries or self.entries[0][0] > until_us:
            return None
        when_us, due, subject, term, n = heapq.heappop(self.entries)
        return BootUs(when_us), Due(due), subject, Epoch(term, n)
