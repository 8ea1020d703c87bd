"""When a session could be steered, by the issuer's own record: from each grant or renewal, for its duration.

The evidence log holds the instant at which the controller decided each of them, on the boot clock, which is one clock
for all processes of a machine. The instant of decision is before any answer, so a holder that keeps to these times
keeps to "lease counted from the answer" as well.
"""

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from aipaging.adapters.journal.sqlite.reader import SqliteEvidenceReader
from aipaging.core.foundation.time import MS

_GRANTS: Final = frozenset({"COMMIT_GRANTED"})
_BATCHES: Final = frozenset({"LEASES_RENEWED", "LEASES_REGRANTED"})


@dataclass(slots=True)
class LeaseTimes:
    """The leases of one session, in the order of their beginnings.

    Attributes:
        begins_us: When each was granted or renewed.
        ends_us: When each ends, or an earlier one if that ends later.
    """

    begins_us: list[int] = field(default_factory=list)
    ends_us: list[int] = field(default_factory=list)

    @property
    def last_us(self) -> int:
        """Return when the last lease ends."""
        return self.ends_us[-1]

    def late_us(self, at_us: int) -> int:
        """Return by how much an instant is after the lease that could have covered it; negative if it is within."""
        place = bisect_right(self.begins_us, at_us)
        # Before the first grant nothing could have been steered at all: as late as can be.
        return at_us - self.ends_us[place - 1] if place else at_us


def lease_times(journal: Path) -> Mapping[str, LeaseTimes]:
    """Return the lease times of every session of a journal, which may lack its controller."""
    found: defaultdict[str, LeaseTimes] = defaultdict(LeaseTimes)
    reader = SqliteEvidenceReader(journal)
    try:
        for stored in reader.records(0):
            for session, begin_us, lease_ms in _granted(json.loads(stored.record), stored.leaves or ()):
                found[session].begins_us.append(begin_us)
                found[session].ends_us.append(begin_us + lease_ms * MS)
    finally:
        reader.close()
    for times in found.values():
        times.ends_us = list(accumulate(times.ends_us, max))
    return found


def _granted(record: Mapping[str, Any], leaves: tuple[bytes, ...]) -> Iterator[tuple[str, int, int]]:
    grants: list[Mapping[str, Any]] = []
    if record["type"] in _GRANTS:
        grants = [record]
    elif record["type"] in _BATCHES:
        grants = [json.loads(leaf) for leaf in leaves]
    for grant in grants:
        yield str(grant["session"]), int(record["boot_us"]), int(grant["lease_ms"])
