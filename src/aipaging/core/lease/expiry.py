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


NO_EPOCH: Final = Epoch(0, 0)
"""For entries that are not about one lease; no lease ever has it, terms begin at 1."""


@dataclass(slots=True)
class ExpiryQueue:
    """A queue of (when, why, what), least `when` first."""

    entries: list[tuple[int, int, str, int, int]] = field(default_factory=list)

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
