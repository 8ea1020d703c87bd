"""Recorded arrivals and delays from files, checked line by line.

Formats: CSV with a heading, JSON lines, and three public ones by name (see `FORMATS`): the Azure LLM inference traces,
Mooncake's, and ServeGen's rates per client. A file whose name ends in `.gz` is unpacked while it is read.
"""

import contextlib
import csv
import datetime as dt
import gzip
import json
import math
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Final

import numpy as np

from aipaging.core.foundation.errors import InvalidInputError
from aipaging.simulation.scenario import Recorded, Trace

TRACE_PACKETS_MAX: Final = 5_000_000
"""80 MB of instants and work."""

MS_PER_UNIT: Final = {"us": 1e-3, "ms": 1.0, "s": 1e3}

BLOCKS_LEAST: Final = 64
"""Blocks of time that a trace is cut into at least to see how its rate varies: fewer say little of a variance."""

SERVEGEN_WINDOW_MS: Final = 600_000.0
"""ServeGen states rates for windows of ten minutes."""

SERVEGEN_SEED: Final = 0
"""The packets within ServeGen's windows are drawn once, so that the trace is the same in every run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How a kind of file is written.

    Attributes:
        lines: `csv` (with a heading), `json`, or `windows` (ServeGen: no heading, rates instead of packets).
        time_column: Where the instants are unless the scenario says otherwise.
        time_unit: Their unit; `text` for dates.
    """

    lines: str
    time_column: str
    time_unit: str


FORMATS: Final[Mapping[str, Format]] = MappingProxyType(
    {
        "csv": Format(lines="csv", time_column="arrival_ms", time_unit="ms"),
        "json-lines": Format(lines="json", time_column="arrival_ms", time_unit="ms"),
        "azure-llm": Format(lines="csv", time_column="TIMESTAMP", time_unit="text"),
        "mooncake": Format(lines="json", time_column="timestamp", time_unit="ms"),
        "servegen": Format(lines="windows", time_column="start_s", time_unit="s"),
    }
)


class TraceError(InvalidInputError):
    """A trace cannot be replayed; `file`, `line` and `field` (a column, or a key of the scenario) say where."""

    def __init__(self, message: str, *, file: Path, line: int | None, field: str) -> None:
        super().__init__(message, code="INVALID_TRACE", field=field)
        self.file = str(file)
        self.line = line


def read_trace(
    file: Path,
    time_column: str | None = None,
    time_unit: str | None = None,
    *,
    format: str = "csv",  # noqa: A002 - the key of the scenario
    gap_max_ms: float | None = None,
    **columns: str | None,
) -> Trace:
    """Return a recorded trace.

    Args:
        file: The file.
        time_column: Column of the instants; the format's own, if absent.
        time_unit: Their unit: us, ms or s; where it is absent what the column's name ends in, or the format's own.
        format: One of `FORMATS`.
        gap_max_ms: Refuse the trace where two packets are further apart.
        columns: `work_column` and `prompt_column`: of the work, and of the tokens of the prompt.

    Raises:
        TraceError: It cannot be read, lacks a column, has a hole, or a line is wrong.
    """
    assert columns.keys() <= {"work_column", "prompt_column"}, columns  # noqa: S101 - the reader knows its keys
    amounts = {key: name for key, name in columns.items() if name}
    form = FORMATS[format]
    column = time_column or form.time_column
    unit = _unit(file, ("time_column", column), ("time_unit", time_unit), form.time_unit)
    if form.lines == "windows":
        if amounts:
            raise TraceError("ServeGen's rates say nothing of work", file=file, line=None, field=next(iter(amounts)))
        return _from_windows(file)
    wanted = [("time_column", column), *amounts.items()]
    instants: list[float] = []
    found: dict[str, list[float]] = {key: [] for key in amounts}
    for line, row in _rows(file, form.lines, wanted):
        instant = _instant((file, line, column), row[column], unit)
        _in_order((file, line, column), (instants[-1] if instants else None, instant), gap_max_ms)
        instants.append(instant)
        for key, name in amounts.items():
            found[key].append(_at_least_zero(file, line, name, row[name]))
        if len(instants) > TRACE_PACKETS_MAX:
            raise TraceError(f"more than {TRACE_PACKETS_MAX} packets", file=file, line=None, field="file")
    return _circle(file, np.array(instants), {key: np.array(each) for key, each in found.items()})


def read_delays(
    file: Path, delay_column: str, delay_unit: str | None = None, *, sequence_column: str | None = None
) -> Recorded:
    """Return recorded delays in the order of the file; NaN for each sequence number that is missing: it was lost.

    Args:
        file: CSV with a heading.
        delay_column: Column of the delays.
        delay_unit: Their unit; where it is absent what the column's name ends in, or ms.
        sequence_column: Column of sequence numbers, which rise, or None.

    Raises:
        TraceError: It cannot be read, lacks a column, or a line is wrong.
    """
    wanted = [("delay_column", delay_column)] + ([("sequence_column", sequence_column)] if sequence_column else [])
    unit = _unit(file, ("delay_column", delay_column), ("delay_unit", delay_unit), "ms")
    delays: list[float] = []
    before = math.nan
    for line, row in _rows(file, "csv", wanted):
        if sequence_column is not None:
            number = _number(file, line, sequence_column, row[sequence_column])
            if number <= before or number != int(number):
                why = f"is not above {before:g}, the one before" if number <= before else "is not a whole number"
                raise TraceError(f"the number {number:g} {why}", file=file, line=line, field=sequence_column)
            missing = 0 if math.isnan(before) else int(number - before) - 1
            if len(delays) + missing > TRACE_PACKETS_MAX:
                raise TraceError(f"{missing} numbers are missing", file=file, line=line, field=sequence_column)
            delays += [math.nan] * missing
            before = number
        delays.append(_at_least_zero(file, line, delay_column, row[delay_column]) * MS_PER_UNIT[unit])
    if not delays:
        raise TraceError("there is no delay in it", file=file, line=None, field="file")
    return Recorded(file=str(file), delays_ms=np.array(delays))


_At = tuple[Path, int, str]


def _unit(file: Path, column: tuple[str, str], unit: tuple[str, str | None], usual: str) -> str:
    """Return the unit of a column: the one that was given, or that its name ends in, or the usual one.

    Raises:
        TraceError: Its name says another one than was given.
    """
    ending = column[1].rpartition("_")[2]
    named = ending if "_" in column[1] and ending in MS_PER_UNIT else None
    if unit[1] is not None and named is not None and named != unit[1]:
        said = f"the column {column[1]!r} is in {named} by its name, and {unit[0]} says {unit[1]}: which is it?"
        raise TraceError(said, file=file, line=None, field=unit[0])
    return unit[1] or named or usual


def _circle(file: Path, instants: Any, amounts: Mapping[str, Any], period_ms: float | None = None) -> Trace:
    if len(instants) < 2 or instants[-1] == instants[0]:
        raise TraceError("two packets at different instants are needed at least", file=file, line=None, field="file")
    times = instants - instants[0]
    # The circle closes with a gap of the usual length: without one its last and first packet would coincide.
    period = period_ms or float(times[-1]) * len(times) / (len(times) - 1)
    return Trace(
        file=str(file),
        instants_ms=times,
        period_ms=period,
        works=amounts.get("work_column"),
        prompts=amounts.get("prompt_column"),
        dispersion=_dispersion(times, period),
    )


def _dispersion(times: Any, period_ms: float) -> float:
    """Return the variance per ms of the number of packets beyond that of independent ones, at the scale with the most.

    Bursts last as long as they last; the blocks of time in which they show most are taken for theirs.
    """
    most, blocks = 0.0, BLOCKS_LEAST
    while blocks <= max(len(times), BLOCKS_LEAST):
        counts = np.bincount((times * (blocks / period_ms)).astype(np.int64), minlength=blocks)
        most = max(most, float(counts.var()) * blocks / period_ms)
        blocks *= 4
    return max(most - len(times) / period_ms, 0.0)


def _rows(file: Path, lines: str, wanted: list[tuple[str, str]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Return the rows with their line numbers; every wanted column (by the key that names it) is in each."""
    with _opened(file) as text:
        if lines == "csv":
            reader = csv.DictReader(text)
            _require_columns(file, 1, wanted, reader.fieldnames or [])
            for row in reader:
                yield reader.line_num, row
            return
        for number, line in enumerate(text, start=1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise TraceError(f"not JSON: {error}", file=file, line=number, field="file") from error
            if not isinstance(row, dict):
                raise TraceError("must be a JSON object", file=file, line=number, field="file")
            _require_columns(file, number, wanted, list(row))
            yield number, row


@contextlib.contextmanager
def _opened(file: Path) -> Generator[IO[str]]:
    try:
        opened: IO[str]
        if file.suffix == ".gz":
            opened = gzip.open(file, "rt", newline="", encoding="utf-8")  # noqa: SIM115 - closed below
        else:
            opened = file.open(newline="", encoding="utf-8")
        with opened:
            yield opened
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"cannot be read: {error}", file=file, line=None, field="file") from error


def _require_columns(file: Path, line: int, wanted: list[tuple[str, str]], there: Any) -> None:
    for key, column in wanted:
        if column not in there:
            named = ", ".join(map(str, there)) or "none"
            raise TraceError(f"there is no column {column!r}; there are: {named}", file=file, line=line, field=key)


def _instant(at: "_At", said: Any, unit: str) -> float:
    """Return an instant in ms."""
    if unit != "text":
        return _number(*at, said) * MS_PER_UNIT[unit]
    try:
        # Seven digits of the second: one more than the library reads.
        moment = dt.datetime.fromisoformat(str(said)[:26])
    except ValueError:
        raise TraceError(f"must be a date and time, not {said!r}", file=at[0], line=at[1], field=at[2]) from None
    return moment.replace(tzinfo=dt.UTC).timestamp() * 1e3


def _in_order(at: "_At", pair: tuple[float | None, float], gap_max_ms: float | None) -> None:
    before, instant = pair
    file, line, column = at
    if instant < max(before or 0.0, 0.0):
        why = "is negative" if instant < 0.0 else f"is before the one above ({before:g} ms)"
        raise TraceError(f"the instant {instant:g} ms {why}", file=file, line=line, field=column)
    if gap_max_ms is not None and before is not None and instant - before > gap_max_ms:
        gap = f"{instant - before:g} ms after the one above, more than gap_max_ms ({gap_max_ms:g}): a hole"
        raise TraceError(f"the packet is {gap}", file=file, line=line, field=column)


def _at_least_zero(file: Path, line: int, column: str, said: Any) -> float:
    number = _number(file, line, column, said)
    if number < 0.0:
        raise TraceError(f"{number:g} is negative", file=file, line=line, field=column)
    return number


def _number(file: Path, line: int, column: str, said: Any) -> float:
    try:
        number = float("nan" if said is None or isinstance(said, bool) or said == "" else said)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        shown = "empty" if said in (None, "") else repr(said)
        raise TraceError(f"must be a finite number, not {shown}", file=file, line=line, field=column)
    return number


def _from_windows(file: Path) -> Trace:
    """Return packets drawn from ServeGen's windows: start (s), packets per s, CV, family, shape, scale.

    Within a window packets form a renewal process of the family and shape that were fitted, scaled to the rate counted.
    """
    rng = np.random.default_rng(SERVEGEN_SEED)
    parts: list[Any] = []
    total = 0
    starts: list[float] = []
    with _opened(file) as text:
        for number, row in enumerate(csv.reader(text), start=1):
            start, rate = _window((file, number), row)
            if starts and start < starts[-1] + SERVEGEN_WINDOW_MS:
                raise TraceError("a window begins before the last one ends", file=file, line=number, field="start_s")
            starts.append(start)
            if rate * SERVEGEN_WINDOW_MS < 1.0:
                continue
            family, shape = _fitted((file, number), row)
            parts.append(start + _renewals(rng, family, shape, rate))
            total += len(parts[-1])
            if total > TRACE_PACKETS_MAX:
                raise TraceError(f"more than {TRACE_PACKETS_MAX} packets", file=file, line=number, field="file")
    # The idle windows at either end are part of the circle.
    period = starts[-1] + SERVEGEN_WINDOW_MS - starts[0] if starts else None
    return _circle(file, np.concatenate(parts) if parts else np.zeros(0), {}, period)


def _window(at: tuple[Path, int], row: list[str]) -> tuple[float, float]:
    """Return start (ms) and rate (packets per ms) of a window."""
    if len(row) < 6:
        raise TraceError(f"{len(row)} columns; six are needed", file=at[0], line=at[1], field="file")
    return _at_least_zero(*at, "start_s", row[0]) * 1e3, _at_least_zero(*at, "rate", row[1]) / 1e3


def _fitted(at: tuple[Path, int], row: list[str]) -> tuple[str, float]:
    """Return family and shape of the gaps in a window."""
    if row[3] not in {"Weibull", "Gamma"}:
        raise TraceError(f"must be Weibull or Gamma, not {row[3]!r}", file=at[0], line=at[1], field="family")
    shape = _at_least_zero(*at, "shape", row[4])
    if shape == 0.0:
        raise TraceError("must be above 0", file=at[0], line=at[1], field="shape")
    return row[3], shape


def _renewals(rng: np.random.Generator, family: str, shape: float, rate: float) -> Any:
    """Return the packets of one window: as many as the rate says, their gaps in the proportions of the family."""
    count = max(round(rate * SERVEGEN_WINDOW_MS), 1)
    gaps = rng.weibull(shape, count + 1) if family == "Weibull" else rng.gamma(shape, 1.0, count + 1)
    ends = np.cumsum(gaps)
    return ends[:-1] / ends[-1] * SERVEGEN_WINDOW_MS if ends[-1] > 0.0 else np.zeros(count)
