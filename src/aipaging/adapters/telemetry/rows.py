"""Tables in lines of text: CSV and JSON lines. A line that cannot be read is a request of which nothing is known."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np

from aipaging.adapters.telemetry.columns import (
    SESSION,
    ListedIds,
    domain_columns,
    integers,
    statuses,
    tenant_codes,
    words,
)
from aipaging.core.audit.sessions import session_groups
from aipaging.core.audit.telemetry import Batch, Integers, RequestIds
from aipaging.core.foundation.errors import InvalidInputError

BATCH_ROWS: Final = 65_536
"""Rows read at a time: they, and nothing more of the file, are in memory."""

SAMPLED_LINES: Final = 1_000
"""Lines of JSON in which every column has to appear once: JSON has no header."""


RowOf: TypeAlias = Callable[[Mapping[str, Any]], dict[str, Any]]


class CsvSource:
    """A CSV file with a header."""

    def __init__(self, path: Path) -> None:
        """Read the header.

        Raises:
            InvalidInputError: There is none, or it lacks a column.
        """
        self._path = path
        with _text(path) as lines:
            header = next(_csv_rows(lines), None)
        if not header:
            raise InvalidInputError(f"{path} has no header line", code="TELEMETRY_EMPTY", field="telemetry")
        self._header = [name.strip() for name in header]
        self._domains = domain_columns(self._header)
        self.domains = tuple(self._domains.values())
        self.has_tenants = "tenant" in self._header

    def identities(self) -> Iterator[tuple[Integers, RequestIds]]:
        """Yield the starts and the ids, batch by batch."""
        name, start = self._header.index("request_id"), self._header.index("start_us")
        for rows in self._chunks():
            width = len(self._header)
            ids = [row[name] if len(row) == width else "" for row in rows]
            starts = [row[start] if len(row) == width else "" for row in rows]
            yield integers(starts), ListedIds(ids)

    def batches(self, *, ids: bool, tenants: bool) -> Iterator[Batch]:
        """Yield the table, batch by batch."""
        width = len(self._header)
        for rows in self._chunks():
            bad = [index for index, row in enumerate(rows) if len(row) != width]
            for index in bad:
                rows[index] = [""] * width
            columns = dict(zip(self._header, zip(*rows, strict=True), strict=True))
            yield rows_batch(columns, self._domains, ids=ids, tenants=tenants and self.has_tenants, malformed=len(bad))

    def _chunks(self) -> Iterator[list[list[str]]]:
        with _text(self._path) as lines:
            rows = _csv_rows(lines)
            next(rows)
            while chunk := list(islice(rows, BATCH_ROWS)):
                kept = [row for row in chunk if row]  # csv reads an empty line as no cells
                if kept:
                    yield kept


def _text(path: Path) -> Any:
    return path.open(encoding="utf-8-sig", errors="replace", newline="")


def _csv_rows(lines: Any) -> Iterator[list[str]]:
    reader = csv.reader(lines)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            row = ["\N{REPLACEMENT CHARACTER}"]  # as many cells as no table has: a malformed row
        yield row


class JsonLinesSource:
    """A file with one JSON object per line."""

    def __init__(self, path: Path, row_of: RowOf | None = None) -> None:
        """Find out which columns there are.

        Args:
            path: The file.
            row_of: Makes a row of what a line holds, None where it is one.

        Raises:
            InvalidInputError: No line is an object, or a column is missing.
        """
        self._path = path
        self._row_of = row_of
        names: dict[str, None] = {}
        for row in islice(self._rows(), SAMPLED_LINES):
            names |= dict.fromkeys(row)
        if not names:
            raise InvalidInputError(f"{path} has no line with a JSON object", code="TELEMETRY_EMPTY", field="telemetry")
        # What is empty may be left out; it is unknown all the same.
        self._domains = domain_columns(dict.fromkeys([*names, "end_to_end_us"]))
        self.domains = tuple(self._domains.values())
        self.has_tenants = "tenant" in names
        self._has_sessions = SESSION in names

    def identities(self) -> Iterator[tuple[Integers, RequestIds]]:
        """Yield the starts and the ids, batch by batch."""
        for rows in self._chunks():
            yield integers([row.get("start_us") for row in rows]), ListedIds(request_ids(rows))

    def batches(self, *, ids: bool, tenants: bool) -> Iterator[Batch]:
        """Yield the table, batch by batch."""
        wanted = ["request_id", "start_us", "status", "end_to_end_us", "tenant", *self._domains]
        wanted += [SESSION] * self._has_sessions
        for rows in self._chunks():
            columns: dict[str, Sequence[Any]] = {name: [row.get(name) for row in rows] for name in wanted}
            columns["request_id"] = request_ids(rows)
            malformed = sum(not row for row in rows)
            yield rows_batch(columns, self._domains, ids=ids, tenants=tenants and self.has_tenants, malformed=malformed)

    def _chunks(self) -> Iterator[list[dict[str, Any]]]:
        rows = self._rows()
        while chunk := list(islice(rows, BATCH_ROWS)):
            yield chunk

    def _rows(self) -> Iterator[dict[str, Any]]:
        decode = msgspec.json.Decoder(dict[str, Any]).decode
        with self._path.open("rb") as lines:
            for line in lines:
                if line.isspace():
                    continue
                try:
                    found = decode(line)
                    yield found if self._row_of is None else self._row_of(found)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    yield {}


def request_ids(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the ids of rows, empty where there is none."""
    return ["" if row.get("request_id") is None else str(row["request_id"]) for row in rows]


def rows_batch(
    columns: Mapping[str, Sequence[Any]], domains: Mapping[str, str], *, ids: bool, tenants: bool, malformed: int
) -> Batch:
    """Return columns of cells as a batch.

    Args:
        columns: Cells by column.
        domains: Names of the domains by column.
        ids: Whether ids are wanted.
        tenants: Whether tenants are.
        malformed: How many rows could not be read.
    """
    codes, names = tenant_codes(columns["tenant"]) if tenants else (None, [])
    return Batch(
        start_us=integers(columns["start_us"]),
        status=np.ascontiguousarray(statuses(columns["status"])),
        end_to_end_us=integers(columns["end_to_end_us"]),
        domains={name: integers(columns[column]) for column, name in domains.items()},
        tenants=codes,
        tenant_names=names,
        sessions=session_groups(words(columns[SESSION])) if SESSION in columns else None,
        ids=ListedIds(columns["request_id"]) if ids else None,
        malformed=malformed,
    )
