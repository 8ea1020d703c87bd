"""Sessions as clusters: requests of one session share a user, a prompt's length, an anchor, and so their delays.

Sessions are dealt into groups by a hash of their names. A group holds whole sessions, so groups are independent if
sessions are, and to resample groups is to resample sessions by the handful: memory does not grow with their number. Two
sessions of few may fall into one group, which loses a little sharpness and no validity.
"""

import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np

from aipaging.core.audit.telemetry import Integers

SESSION_GROUPS: Final = 128
"""Enough to resample (the ends of an interval move by a twentieth of its length), and 10 MB for a contract."""


def session_groups(names: Sequence[str]) -> Integers:
    """Return the group of each session, the same in every process; requests without a session are one session."""
    found = (zlib.crc32(name.encode("utf-8", "surrogatepass")) % SESSION_GROUPS for name in names)
    return np.fromiter(found, dtype=np.int64, count=len(names))
