"""Arrivals from a file: a time and a work per row, as CSV or JSON lines, gzipped or not."""

import csv
import gzip
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TextIO, cast

import msgspec

from aipaging.core.calculus.fit_arrival import Trace
from aipaging.core.foundation.errors import InvalidInputError

ROWS_MAX: Final = 20_000_000
"""As many as fit into memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which columns hold what.

    Attributes:
        time: A number in the unit of the answer, or an ISO 8601 instant, which counts in seconds.
        work: An amount of work; None is 1 per arrival.
        gap_max: A longer time without an arrival is a hole in the record; None allows any.
        sort: Whether rows may be out of order.
    """

    time: str = "time"
    work: str | None = None
    gap_max: float | None = None
    sort: bool = False


def read_trace(path: Path, columns: Columns) -> Trace:
    """Return the arrivals in a file.

    Raises:
        InvalidInputError: The file cannot be read, a column is missing, or a row is malformed: file, line and field
            are named.
    """
    times: list[float] = []
    works: list[float] = []
    for line, row in _rows(path):
        if len(times) >= ROWS_MAX:
            raise InvalidInputError(f"{path} has more than {ROWS_MAX} rows", field="trace")
        time = _time(row, columns.time, path, line)
        if times and not columns.sort:
            if time < times[-1]:
                raise _bad(path, line, columns.time, f"{time:g} is before {times[-1]:g}: sort the file, or give --sort")
            if columns.gap_max is not None and time - times[-1] > columns.gap_max:
                raise _bad(path, line, columns.time, f"nothing arrived for {time - times[-1]:g}: a gap in the record")
        times.append(time)
        works.append(1.0 if columns.work is None else _amount(row, columns.work, path, line))
    if columns.sort:
        order = sorted(range(len(times)), key=times.__getitem__)
        times, works = [times[i] for i in order], [works[i] for i in order]
    return Trace(times, works)


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if kind not in {"csv", "jsonl", "ndjson"}:
        raise InvalidInputError(f"{path} is no trace: .csv, .jsonl or .ndjson (.gz) is expected", field="trace")
    try:
        with _opened(path) as file:
            yield from _of_csv(file) if kind == "csv" else _of_json_lines(file, path)
    except (OSError, UnicodeDecodeError, csv.Error, EOFError) as error:
        raise InvalidInputError(f"{path} cannot be read: {error}", code="FILE_UNREADABLE", field="trace") from None


def _opened(path: Path) -> TextIO:
    if path.suffix.lower() == ".gz":
        return cast("TextIO", gzip.open(path, "rt", encoding="utf-8", newline=""))
    return path.open(encoding="utf-8", newline="")


def _of_csv(file: TextIO) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(file, strict=True)
    for row in reader:
        yield reader.line_num, row


def _of_json_lines(file: TextIO, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    decoder = msgspec.json.Decoder(dict[str, Any])
    for line, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            yield line, decoder.decode(text)
        except msgspec.MsgspecError as error:
            raise InvalidInputError(f"{path}, line {line}: {error}", code="TRACE_MALFORMED", field="trace") from None


def _time(row: Mapping[str, Any], name: str, path: Path, line: int) -> float:
    value = _present(row, name, path, line)
    try:
        time = float(value)
    except (TypeError, ValueError):
        try:
            time = datetime.fromisoformat(str(value)).timestamp()
        except ValueError:
            raise _bad(path, line, name, f"{value!r} is neither a number nor an ISO 8601 instant") from None
    if not 0.0 <= time < math.inf:
        raise _bad(path, line, name, f"{value!r} is not a time: it must be finite and not negative")
    return time


def _amount(row: Mapping[str, Any], name: str, path: Path, line: int) -> float:
    value = _present(row, name, path, line)
    try:
        amount = float(value)
    except (TypeError, ValueError):
        raise _bad(path, line, name, f"{value!r} is not a number") from None
    if not 0.0 <= amount < math.inf:
        raise _bad(path, line, name, f"{value!r} is not an amount of work: it must be finite and not negative")
    return amount


def _present(row: Mapping[str, Any], name: str, path: Path, line: int) -> Any:
    if name not in row:
        there = ", ".join(str(column) for column in row)
        raise _bad(path, line, name, f"there is no such column; there are {there}")
    value = row[name]
    if value is None or value == "":
        raise _bad(path, line, name, "it is empty")
    return value


def _bad(path: Path, line: int, name: str, message: str) -> InvalidInputError:
    return InvalidInputError(f"{path}, line {line}, {name}: {message}", code="TRACE_MALFORMED", field=name)
