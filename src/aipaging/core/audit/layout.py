"""The first pass over telemetry: how many rows, when they began, and which ids come more than once.

Only the ids and the starts are read. Eight bytes per request stay in memory. What is repeated is decided later, by the
ids themselves: a collision of hashes costs a look, never a record.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aipaging.core.audit.contract import Contract
from aipaging.core.audit.dependence import WINDOWS
from aipaging.core.audit.telemetry import START_US_MIN, Integers, Mask, RequestIds
from aipaging.core.foundation.errors import InvalidInputError

REPEATED_MAX: Final = 5_000_000
"""Rows whose id comes more than once: they are held in memory until the last copy has been seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What the first pass found.

    Attributes:
        rows: How many rows there are.
        first_us: Where the windows begin.
        last_us: Where they end.
        aside: Which rows are to be compared by id, None where none is.
        nameless: Whether a row has no id.
    """

    rows: int
    first_us: int
    last_us: int
    aside: Mask | None
    nameless: bool

    @property
    def needs_ids(self) -> bool:
        """Whether the second pass must read ids."""
        return self.aside is not None or self.nameless

    def windows_of(self, start_us: Integers) -> Integers:
        """Return the window of each start; unknown and outlying ones go to the ends."""
        per_window = WINDOWS / (self.last_us - self.first_us + 1)
        inside = np.clip(start_us, self.first_us, self.last_us)
        return np.asarray((inside - self.first_us) * per_window, dtype=np.int64)


class LayoutScan:
    """Collects a layout, batch by batch."""

    def __init__(self) -> None:
        self._hashes: list[NDArray[np.uint64]] = []
        self._nameless: list[Mask] = []
        self._first_us: int | None = None
        self._last_us = 0

    def add(self, start_us: Integers, ids: RequestIds) -> None:
        """See the next rows."""
        self._hashes.append(ids.hashes())
        self._nameless.append(ids.missing())
        known = start_us[start_us >= START_US_MIN]
        if known.size:
            first = int(known.min())
            self._first_us = first if self._first_us is None else min(self._first_us, first)
            self._last_us = max(self._last_us, int(known.max()))

    def layout(self, contracts: Sequence[Contract]) -> Layout:
        """Return what was found; the windows are cut to the contracts' periods, so that a wild clock cannot blur them.

        Raises:
            InvalidInputError: More rows are repeated than can be compared.
        """
        rows = sum(map(len, self._hashes))
        nameless = any(bool(missing.any()) for missing in self._nameless)
        first, last = self._first_us or 0, max(self._last_us, self._first_us or 0)
        starts = [c.period_start_us for c in contracts if c.period_start_us is not None]
        ends = [c.period_end_us for c in contracts if c.period_end_us is not None]
        if len(starts) == len(contracts) and starts:
            first = max(first, min(starts))
        if len(ends) == len(contracts) and ends:
            last = min(last, max(ends))
        return Layout(
            rows=rows, first_us=first, last_us=max(first, last), aside=self._repeated(rows, nameless), nameless=nameless
        )

    def _repeated(self, rows: int, nameless: bool) -> Mask | None:
        if rows < 2:
            return None
        ordered = np.concatenate(self._hashes)
        ordered.sort()
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        if not twice.size:
            return None
        aside = np.concatenate([np.isin(hashes, twice) for hashes in self._hashes])
        if nameless:
            aside &= ~np.concatenate(self._nameless)
        count = int(np.count_nonzero(aside))
        if count > REPEATED_MAX:
            raise InvalidInputError(
                f"{count} rows repeat a request_id; at most {REPEATED_MAX} can be compared", field="request_id"
            )
        return aside if count else None
