"""Cells to columns: what the three file formats share. A cell that cannot be read is marked, never dropped."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from aipaging.core.audit.contract import DOMAINS_MAX
from aipaging.core.audit.telemetry import STATUS_WORDS, UNKNOWN, UNREADABLE, Integers, Mask, Status
from aipaging.core.foundation.errors import InvalidInputError

REQUIRED: Final = ("request_id", "start_us", "status", "end_to_end_us")
"""Columns without which nothing can be counted; `tenant` is asked for where a contract names one."""

SESSION: Final = "session"
"""An optional column: whose requests depend on one another. Estimates use it, and no verdict does."""

INTEGER_MAX: Final = int(np.iinfo(np.int64).max)


def domain_columns(names: Iterable[str]) -> dict[str, str]:
    """Return the domains of a table by their columns' names, having checked the rest of the columns.

    Raises:
        InvalidInputError: A column is missing or comes twice, or there are more domains than can be audited.
    """
    columns = list(names)
    for name in REQUIRED:
        if name not in columns:
            raise InvalidInputError(f"the telemetry has no column {name}", code="COLUMN_MISSING", field=name)
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise InvalidInputError(f"the telemetry has two columns {twice}", code="COLUMN_TWICE", field=twice)
    found = {
        name: name.removeprefix("domain_").removesuffix("_us")
        for name in columns
        if name.startswith("domain_") and name.endswith("_us") and len(name) > len("domain__us")
    }
    if len(found) > DOMAINS_MAX:
        raise InvalidInputError(f"{len(found)} domains; {DOMAINS_MAX} can be audited on one path", field="domain")
    return found


def integers(cells: Sequence[Any]) -> Integers:
    """Return cells of text, numbers or None as integers; fractions of a microsecond are rounded up."""
    try:
        return np.fromiter(map(int, cells), dtype=np.int64, count=len(cells)) if _plain(cells) else _careful(cells)
    except (ValueError, OverflowError, TypeError):
        return _careful(cells)


def _plain(cells: Sequence[Any]) -> bool:
    return len(cells) > 0 and isinstance(cells[0], str) and "" not in cells


def _careful(cells: Sequence[Any]) -> Integers:
    return np.fromiter(map(_integer, cells), dtype=np.int64, count=len(cells))


def _integer(cell: Any) -> int:
    if cell is None or cell == "":
        return UNKNOWN
    if isinstance(cell, bool):
        return UNREADABLE
    try:
        value = int(cell) if isinstance(cell, int | str) else math.ceil(cell)
    except (ValueError, OverflowError, TypeError):
        return _from_float(cell)
    return max(UNREADABLE + 1, min(value, INTEGER_MAX))


def _from_float(cell: Any) -> int:
    # Tables with empty cells often come as floats: `1234.0`, `nan`.
    try:
        value = float(cell)
    except (ValueError, TypeError, OverflowError):
        return UNREADABLE
    if math.isnan(value):
        return UNKNOWN
    return UNREADABLE if math.isinf(value) else max(UNREADABLE + 1, min(math.ceil(value), INTEGER_MAX))


def statuses(cells: Sequence[Any]) -> NDArray[np.uint8]:
    """Return the codes of words."""
    codes = {word: int(STATUS_WORDS.get(word, Status.UNKNOWN)) for word in {c for c in cells if isinstance(c, str)}}
    unknown = int(Status.UNKNOWN)
    return np.fromiter(
        (codes[cell] if isinstance(cell, str) else unknown for cell in cells), dtype=np.uint8, count=len(cells)
    )


def tenant_codes(cells: Sequence[Any]) -> tuple[Integers, list[str]]:
    """Return codes of tenants, and their names."""
    written = words(cells)
    names = sorted(set(written))
    code = {name: index for index, name in enumerate(names)}
    return np.fromiter((code[word] for word in written), dtype=np.int64, count=len(written)), names


def words(cells: Sequence[Any]) -> list[str]:
    """Return cells as text, empty where nothing is."""
    return ["" if cell is None else str(cell) for cell in cells]


class ListedIds:
    """Ids that are strings already."""

    def __init__(self, ids: Sequence[str] | Sequence[Any]) -> None:
        self._ids = ids

    def missing(self) -> Mask:
        """Return where there is none."""
        return np.fromiter((not name for name in self._ids), dtype=np.bool_, count=len(self._ids))

    def hashes(self) -> NDArray[np.uint64]:
        """Return Python's own hash, which is keyed anew in every process."""
        return np.fromiter(map(hash, self._ids), dtype=np.int64, count=len(self._ids)).view(np.uint64)

    def take(self, rows: Integers) -> list[str]:
        """Return the ids of some rows."""
        return [str(self._ids[row]) for row in rows]
