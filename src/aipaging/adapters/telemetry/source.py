"""Opens a telemetry file by its name."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from aipaging.adapters.telemetry.envoy import MARKS, row_of_entry
from aipaging.adapters.telemetry.parquet import ParquetSource
from aipaging.adapters.telemetry.rows import CsvSource, JsonLinesSource
from aipaging.core.audit.telemetry import Batch, Integers, RequestIds
from aipaging.core.foundation.errors import InvalidInputError

PARQUET_MAGIC = b"PAR1"

HEAD_BYTES: Final = 64 * 1024
"""How much of a file is looked at: an access-log entry is a few kilobytes."""


class TelemetrySource(Protocol):
    """A table that can be read several times."""

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains that it has columns for."""
        ...

    @property
    def has_tenants(self) -> bool:
        """Whether it says whose the requests are."""
        ...

    def identities(self) -> Iterator[tuple[Integers, RequestIds]]:
        """Yield the starts and the ids, batch by batch."""
        ...

    def batches(self, *, ids: bool, tenants: bool) -> Iterator[Batch]:
        """Yield the table, batch by batch."""
        ...


def open_telemetry(path: Path) -> TelemetrySource:
    """Return the table in a file: by its extension, otherwise by how it begins.

    Raises:
        InvalidInputError: It cannot be read, or lacks what an audit needs.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise InvalidInputError(
            f"cannot read {path}: {error.strerror}", code="FILE_UNREADABLE", field="telemetry"
        ) from error
    if head.startswith(PARQUET_MAGIC):
        return ParquetSource(path)
    first = head.partition(b"\n")[0].decode(errors="replace")
    if any(mark in first for mark in MARKS):
        return JsonLinesSource(path, row_of_entry)
    json_lines = path.suffix in {".jsonl", ".ndjson", ".json"} or head.lstrip().startswith(b"{")
    return JsonLinesSource(path) if json_lines else CsvSource(path)
