"""Measured delays from a telemetry file: the wide table, as CSV, JSON lines, or Parquet where pyarrow is installed.

A request that was lost, timed out, failed, or whose delay is unknown is never dropped: it is counted. A `request_id`
that stands twice counts once.
"""

import csv
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from aipaging.core.envelope.calibration import SAMPLES_MAX
from aipaging.core.foundation.errors import InvalidInputError, UnavailableError

END_TO_END: Final = "end-to-end"
"""The domain of the whole path; its column is `end_to_end_us`."""

STATUSES: Final = frozenset({"ok", "error", "timeout", "lost"})
_US_PER_MS: Final = 1000.0
_LINE_BYTES_MAX: Final = 64 * 1024
_DELAY_US_MAX: Final = 10**15


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a file says about one domain.

    Attributes:
        domain: Which one.
        delays_ms: Of the requests that were answered, in the order of their start.
        lost: Requests that were lost.
        failed: Requests that failed, timed out, or whose delay in the domain is unknown.
        unknown: Of the failed, those that were answered and whose delay is unknown.
        repeated: Rows that repeat a request.
        first_us: Start of the first request, wall clock.
        last_us: Start of the last one.
        tenants: How many there are.
    """

    domain: str
    delays_ms: NDArray[np.float64]
    lost: int
    failed: int
    unknown: int
    repeated: int
    first_us: int
    last_us: int
    tenants: int

    @property
    def requests(self) -> int:
        """All requests."""
        return len(self.delays_ms) + self.lost + self.failed

    @property
    def rate_rps(self) -> float:
        """The mean rate of all requests, per second; 0 if there is no time between them."""
        span_us = self.last_us - self.first_us
        return (self.requests - 1) * 1e6 / span_us if span_us > 0 else 0.0


def measured(path: Path, domain: str | None) -> Measured:
    """Return what a telemetry file says about a domain.

    Args:
        path: `.csv`, `.jsonl` or `.ndjson`, `.parquet`.
        domain: Its name; None is the only domain that has a column, or the whole path.

    Raises:
        InvalidInputError: The file is none of these, a row is malformed, or the domain has no column.
        UnavailableError: It is Parquet, and pyarrow is not installed.
    """
    count = _Count(domain=domain)
    number = 0
    for number, row in enumerate(_rows(path), 1):
        if number > SAMPLES_MAX:
            raise InvalidInputError(f"{path} has more than {SAMPLES_MAX} rows")
        try:
            count.add(row)
        except (KeyError, ValueError, TypeError) as error:
            raise InvalidInputError(
                f"{path}, row {number}: {_said(error)}", code="TELEMETRY_MALFORMED", field="telemetry"
            ) from None
    if not number:
        raise InvalidInputError(f"{path} holds no request", code="TELEMETRY_MALFORMED", field="telemetry")
    return count.result()


class _Count:
    """Counts rows; the column is chosen at the first one."""

    def __init__(self, *, domain: str | None) -> None:
        self._domain = domain
        self._column = ""
        self._seen: set[str] = set()
        self._tenants: set[str] = set()
        self._starts: list[int] = []
        self._delays: list[tuple[int, int]] = []
        self._lost = self._failed = self._unknown = self._repeated = 0

    def add(self, row: Mapping[str, Any]) -> None:
        if not self._column:
            self._domain, self._column = _column(row, self._domain)
        request = str(row["request_id"])
        if request in self._seen:
            self._repeated += 1
            return
        status = row["status"]
        if status not in STATUSES:
            raise ValueError(f"status is none of {', '.join(sorted(STATUSES))}")
        start_us = int(row["start_us"])
        value = row.get(self._column)
        unknown = value in {None, ""}
        delay_us = int(value or 0)
        if not 0 <= delay_us <= _DELAY_US_MAX:
            raise ValueError(f"{self._column} is not a delay")
        self._seen.add(request)
        self._tenants.add(str(row.get("tenant", "")))
        self._starts.append(start_us)
        if status == "lost":
            self._lost += 1
        elif status != "ok" or unknown:
            self._failed += 1
            self._unknown += status == "ok"
        else:
            self._delays.append((start_us, delay_us))

    def result(self) -> Measured:
        self._delays.sort(key=lambda sample: sample[0])
        return Measured(
            domain=self._domain or END_TO_END,
            delays_ms=np.array([delay for _, delay in self._delays], dtype=np.float64) / _US_PER_MS,
            lost=self._lost,
            failed=self._failed,
            unknown=self._unknown,
            repeated=self._repeated,
            first_us=min(self._starts),
            last_us=max(self._starts),
            tenants=len(self._tenants),
        )


def _column(row: Mapping[str, Any], domain: str | None) -> tuple[str, str]:
    there = [name.removeprefix("domain_").removesuffix("_us") for name in row if name.startswith("domain_")]
    if domain is None:
        domain = there[0] if len(there) == 1 else END_TO_END
    if domain == END_TO_END:
        return domain, "end_to_end_us"
    if domain not in there:
        raise ValueError(f"there is no column domain_{domain}_us; there are {', '.join(there) or 'none'}")
    return domain, f"domain_{domain}_us"


def _said(error: Exception) -> str:
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    readers = {".csv": _of_csv, ".jsonl": _of_json_lines, ".ndjson": _of_json_lines, ".parquet": _of_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InvalidInputError(
            f"{path} is no telemetry: .csv, .jsonl, .ndjson or .parquet is expected", field="telemetry"
        )
    try:
        yield from reader(path)
    except (OSError, UnicodeDecodeError, csv.Error, msgspec.MsgspecError) as error:
        raise InvalidInputError(f"{path} cannot be read: {error}", code="FILE_UNREADABLE") from None


def _of_csv(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file, strict=True)


def _of_json_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    decoder = msgspec.json.Decoder(dict[str, Any])
    with path.open("rb") as file:
        while line := file.readline(_LINE_BYTES_MAX):
            if line.strip():
                yield decoder.decode(line)


def _of_parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        raise UnavailableError(
            "Parquet needs pyarrow: pip install pyarrow, or convert the file to CSV", code="EXTRA_MISSING"
        ) from None
    for batch in parquet.ParquetFile(path).iter_batches():
        yield from batch.to_pylist()
