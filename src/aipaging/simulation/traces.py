"""Recorded arrivals from a CSV file, checked line by line."""

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from aipaging.core.foundation.errors import InvalidInputError
from aipaging.simulation.scenario import Trace

TRACE_PACKETS_MAX: Final = 5_000_000
"""80 MB of instants and work."""

MS_PER_UNIT: Final = {"us": 1e-3, "ms": 1.0, "s": 1e3}


class TraceError(InvalidInputError):
    """A trace cannot be replayed; `file`, `line` and `field` (a column, or a key of the scenario) say where."""

    def __init__(self, message: str, *, file: Path, line: int | None, field: str) -> None:
        super().__init__(message, code="INVALID_TRACE", field=field)
        self.file = str(file)
        self.line = line


def read_trace(file: Path, time_column: str, time_unit: str, *, work_column: str | None = None) -> Trace:
    """Return a recorded trace.

    Args:
        file: CSV with a heading.
        time_column: Column of the instants.
        time_unit: Their unit: us, ms or s.
        work_column: Column of the work, or None.

    Raises:
        TraceError: It cannot be read, lacks a column, or a line is wrong.
    """
    instants: list[float] = []
    works: list[float] = []
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            for instant, work in _rows(file, csv.DictReader(lines), time_column, work_column):
                instants.append(instant)
                works.append(work)
                if len(instants) > TRACE_PACKETS_MAX:
                    raise TraceError(f"more than {TRACE_PACKETS_MAX} packets", file=file, line=None, field="file")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"cannot be read: {error}", file=file, line=None, field="file") from error
    if len(instants) < 2 or instants[-1] == instants[0]:
        raise TraceError("two packets at different instants are needed at least", file=file, line=None, field="file")
    times = (np.array(instants) - instants[0]) * MS_PER_UNIT[time_unit]
    # The circle closes with a gap of the usual length: without one its last and first packet would coincide.
    period = float(times[-1]) * len(times) / (len(times) - 1)
    return Trace(file=str(file), instants_ms=times, period_ms=period, works=np.array(works) if work_column else None)


def _rows(
    file: Path, reader: "csv.DictReader[str]", time_column: str, work_column: str | None
) -> Iterator[tuple[float, float]]:
    columns = reader.fieldnames or []
    for key, column in (("time_column", time_column), ("work_column", work_column)):
        if column is not None and column not in columns:
            there = ", ".join(columns) or "none"
            raise TraceError(f"there is no column {column!r}; there are: {there}", file=file, line=1, field=key)
    before = -math.inf
    for row in reader:
        line = reader.line_num
        instant = _number(file, line, time_column, row[time_column])
        if instant < max(before, 0.0):
            why = "is negative" if instant < 0.0 else f"is before the one above ({before:g})"
            raise TraceError(f"the instant {instant:g} {why}", file=file, line=line, field=time_column)
        before = instant
        work = 0.0
        if work_column is not None:
            work = _number(file, line, work_column, row[work_column])
            if work < 0.0:
                raise TraceError(f"the work {work:g} is negative", file=file, line=line, field=work_column)
        yield instant, work


def _number(file: Path, line: int, column: str, text: str | None) -> float:
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        said = repr(text) if text else "empty"
        raise TraceError(f"must be a finite number, not {said}", file=file, line=line, field=column)
    return number
