"""Telemetry in columns, and what is wrong with it.

Nothing is dropped in silence: a value that cannot be true becomes *unknown*, is counted under its name, and widens
the counts of whatever depends on it. Reading files is left to `adapters.telemetry`.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aipaging.core.audit.contract import END_TO_END

Integers: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]

UNKNOWN: Final = int(np.iinfo(np.int64).min)
"""A cell that is empty."""

UNREADABLE: Final = UNKNOWN + 1
"""A cell that holds something which is not an integer."""

DELAY_US_MAX: Final = 24 * 3600 * 1_000_000
"""A day: no request of an interactive service takes longer, and clocks that were stepped say so often."""

START_US_MIN: Final = 0
"""The epoch: no telemetry is older than its clock."""

CLOCK_STEP_US_MIN: Final = 1_000_000
"""A second: starts that go back by more are a stepped clock or an unordered file, not concurrency of collectors."""


class Status(enum.IntEnum):
    """How a request ended; UNKNOWN is what a file says that the format does not know."""

    OK = 0
    ERROR = 1
    TIMEOUT = 2
    LOST = 3
    UNKNOWN = 4


STATUS_WORDS: Final[Mapping[str, Status]] = {
    "ok": Status.OK,
    "error": Status.ERROR,
    "timeout": Status.TIMEOUT,
    "lost": Status.LOST,
}
"""The words of the format."""


class RequestIds(Protocol):
    """The ids of a batch's requests, which most of the time need not become strings."""

    def missing(self) -> Mask:
        """Return where there is none."""
        ...

    def hashes(self) -> NDArray[np.uint64]:
        """Return one number per request; equal ids have equal numbers, and hardly any others."""
        ...

    def take(self, rows: Integers) -> list[str]:
        """Return the ids of some rows."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Consecutive requests of a telemetry table. An integer is UNKNOWN where it is empty, UNREADABLE where wrong.

    Attributes:
        start_us: When each began, on the wall clock.
        status: Codes of `Status`.
        end_to_end_us: Delay over the whole path.
        domains: Delay in each domain.
        tenants: Codes into `tenant_names`, None where no contract asks.
        tenant_names: Names of the tenants of this batch.
        sessions: Group of each request's session (`sessions.session_groups`), None where sessions are not known.
        ids: Ids, None where the reader was told that nobody asks.
        malformed: Rows that could not be read at all; they are counted here as unknown requests.
    """

    start_us: Integers
    status: NDArray[np.uint8]
    end_to_end_us: Integers
    domains: Mapping[str, Integers]
    tenants: Integers | None = None
    tenant_names: Sequence[str] = ()
    sessions: Integers | None = None
    ids: RequestIds | None = None
    malformed: int = 0

    def __len__(self) -> int:
        return len(self.start_us)


@dataclass(slots=True, kw_only=True)
class Flaws:
    """How many values of which kind could not be believed, merged over batches.

    Attributes:
        counts: By kind, such as `negative_delay` or `negative_delay:radio` for a domain.
        largest_step_us: The largest step back of the starts.
        latest_start_us: The latest start seen so far.
    """

    counts: dict[str, int] = field(default_factory=dict[str, int])
    largest_step_us: int = 0
    latest_start_us: int = UNKNOWN

    def add(self, kind: str, count: Any) -> None:
        """Count some more of a kind."""
        if count:
            self.counts[kind] = self.counts.get(kind, 0) + int(count)


def screened(batch: Batch, flaws: Flaws) -> Batch:
    """Return the batch with every value that cannot be true unknown, and count those under their names."""
    flaws.add("malformed_rows", batch.malformed)
    flaws.add("unknown_status", np.count_nonzero(batch.status == Status.UNKNOWN) - batch.malformed)
    if batch.tenants is not None:
        nameless = [code for code, name in enumerate(batch.tenant_names) if not name]
        flaws.add("unknown_tenant", max(0, np.count_nonzero(np.isin(batch.tenants, nameless)) - batch.malformed))
    start_us = _starts(batch.start_us, flaws)
    end_to_end_us = _delays(batch.end_to_end_us, END_TO_END, flaws)
    silent = (batch.end_to_end_us == UNKNOWN) & (batch.status == Status.OK)
    flaws.add(f"unknown_delay:{END_TO_END}", np.count_nonzero(silent))
    domains = {name: _delays(column, name, flaws) for name, column in batch.domains.items()}
    return Batch(
        start_us=start_us,
        status=batch.status,
        end_to_end_us=end_to_end_us,
        domains=domains,
        tenants=batch.tenants,
        tenant_names=batch.tenant_names,
        sessions=batch.sessions,
        ids=batch.ids,
        malformed=batch.malformed,
    )


def _delays(column: Integers, name: str, flaws: Flaws) -> Integers:
    # As unsigned numbers, what is negative or absurd is all above the greatest believable delay: one comparison.
    strange = np.flatnonzero(column.view(np.uint64) > DELAY_US_MAX)
    if not strange.size:
        return column
    values = column[strange]
    flaws.add(f"unreadable_delay:{name}", np.count_nonzero(values == UNREADABLE))
    flaws.add(f"negative_delay:{name}", np.count_nonzero((values < 0) & (values > UNREADABLE)))
    flaws.add(f"absurd_delay:{name}", np.count_nonzero(values > 0))
    if name != END_TO_END:
        flaws.add(f"unknown_delay:{name}", np.count_nonzero(values == UNKNOWN))
    if np.all(values == UNKNOWN):
        return column
    mended = column.copy()
    mended[strange] = UNKNOWN
    return mended


def _starts(start_us: Integers, flaws: Flaws) -> Integers:
    known = start_us >= START_US_MIN
    if not known.all():
        flaws.add("unknown_start", np.count_nonzero(~known))
        start_us = np.where(known, start_us, UNKNOWN)
    ordered = start_us[known]
    if not ordered.size:
        return start_us
    before = np.maximum.accumulate(np.concatenate(([max(flaws.latest_start_us, START_US_MIN)], ordered)))
    back = before[:-1] - ordered
    # A step is where the series turns back, not every request after it.
    previous = np.concatenate((before[:1], ordered[:-1]))
    turned = previous - ordered > CLOCK_STEP_US_MIN
    flaws.add("clock_step", np.count_nonzero(turned))
    flaws.largest_step_us = max(flaws.largest_step_us, int(back.max()))
    flaws.latest_start_us = int(before[-1])
    return start_us
