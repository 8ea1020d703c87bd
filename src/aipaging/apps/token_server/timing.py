"""When the tokens of a request come: from distributions, from a trace, or from how many streams run at once.

Deterministic: the dice of a request are seeded with the server's seed and the request's index (or with the `seed`
that the request itself names), and are thrown in a fixed order.
"""

import csv
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

from aipaging.apps.token_server.distribution import Distribution, arguments, opened, parsed_distribution
from aipaging.core.foundation.errors import InvalidInputError

TOKENS_MAX: Final = 100_000
"""Longer than any context window's answer; a mistyped trace must not stream for a week."""

TRACE_ROWS_MAX: Final = 1_000_000
"""Some 200 MB of rows in memory; a longer trace is cut into several."""

_TRACE_COLUMNS: Final = ("first_token_ms", "gap_ms", "tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batched:
    """A step of continuous batching: every running stream gets one token, and a fuller batch takes longer.

    Attributes:
        fixed_ms: Referred to as tau0, the time of an empty step.
        per_stream_ms: Referred to as tau1, what every running stream adds.
    """

    fixed_ms: float
    per_stream_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one request will get.

    Attributes:
        first_token_ms: From the slot to the first token.
        tokens: How many there would be if the client asked for no limit.
        gaps_ms: Times between tokens, without end; a `Batched` where they depend on the load of the moment.
    """

    first_token_ms: float
    tokens: int
    gaps_ms: Iterator[float] | Batched


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a trace; what it leaves open comes from the distributions.

    Attributes:
        first_token_ms: As measured.
        gaps_ms: One number for all gaps, or one per gap (the last one goes on).
        tokens: As measured.
    """

    first_token_ms: float | None = None
    gaps_ms: Sequence[float] = ()
    tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Plans requests.

    Attributes:
        first_token_ms: Time from the slot to the first token.
        gap_ms: Time between tokens.
        tokens: Number of tokens; rounded, at least one.
        seed: Of all dice.
        trace: Rows that requests take in turn, the first one again after the last.
    """

    first_token_ms: Distribution
    gap_ms: Distribution | Batched
    tokens: Distribution
    seed: int = 0
    trace: Sequence[Row] = ()

    def plan(self, index: int, *, request_seed: int | None = None) -> Plan:
        """Return the plan of the request that came as number `index` (0-based)."""
        origin = f"index:{index}" if request_seed is None else f"request:{request_seed}"
        dice = Random(f"{self.seed}:{origin}")  # noqa: S311  load, not secrets
        first_token_ms = self.first_token_ms.draw(dice)
        tokens = _bounded(self.tokens.draw(dice))
        row = self.trace[index % len(self.trace)] if self.trace else _OPEN
        return Plan(
            first_token_ms=first_token_ms if row.first_token_ms is None else row.first_token_ms,
            tokens=tokens if row.tokens is None else row.tokens,
            gaps_ms=_measured(row.gaps_ms) if row.gaps_ms else self._gaps_ms(dice),
        )

    def _gaps_ms(self, dice: Random) -> Iterator[float] | Batched:
        gap_ms = self.gap_ms
        if isinstance(gap_ms, Batched):
            return gap_ms
        return (gap_ms.draw(dice) for _ in itertools.count())


_OPEN: Final = Row()


def parsed_gap(text: str, *, field: str) -> Distribution | Batched:
    """Return the gap that `text` describes: a distribution, or `batched(fixed=8, per_stream=0.5)`.

    Raises:
        InvalidInputError: It describes neither.
    """
    inside = text.strip().removeprefix("batched(")
    if inside == text.strip() or not inside.endswith(")"):
        return parsed_distribution(text, field=field)
    try:
        given = arguments(inside[:-1], ("fixed", "per_stream"))
    except ValueError:
        raise InvalidInputError(
            f"{field} is {text[:80]!r}: expected batched(fixed=8, per_stream=0.5), both in ms", field=field
        ) from None
    return Batched(fixed_ms=given["fixed"], per_stream_ms=given["per_stream"])


def read_trace(path: Path) -> list[Row]:
    """Return the rows of a trace: CSV with a header, or JSON lines where the name says .jsonl; either may be gzipped.

    Known columns are `first_token_ms`, `gap_ms` (in JSON lines also a list) and `tokens`; at least one must be there.

    Raises:
        InvalidInputError: It cannot be read; the message names file and line.
    """
    try:
        with opened(path) as file:
            if ".jsonl" in path.suffixes:
                lines: Iterator[Any] = (msgspec.json.decode(line) for line in file if line.strip())
                rows = _rows(lines, path, first_line=1)
            else:
                rows = _rows(csv.DictReader(file), path, first_line=2)
    except (OSError, EOFError) as error:
        raise InvalidInputError(f"trace: {path} cannot be read: {error}", field="trace") from None
    if not rows:
        raise InvalidInputError(f"trace: {path} holds no rows", field="trace")
    return rows


def _rows(records: Iterator[Any], path: Path, *, first_line: int) -> list[Row]:
    rows: list[Row] = []
    try:
        for record in itertools.islice(records, TRACE_ROWS_MAX):
            rows.append(_row(record))  # noqa: PERF401  the length tells which row was bad
    except (ValueError, TypeError):
        raise InvalidInputError(
            f"trace: {path}, line {first_line + len(rows)}: expected {', '.join(_TRACE_COLUMNS)}, each a number that "
            "is not negative, and at least one of them",
            field="trace",
        ) from None
    return rows


def _row(record: Any) -> Row:
    if not isinstance(record, Mapping):
        raise TypeError
    given = {name: record.get(name) for name in _TRACE_COLUMNS}
    known = {name: value for name, value in given.items() if value is not None and value != ""}
    if not known:
        raise ValueError(_TRACE_COLUMNS)
    gap_ms = known.get("gap_ms", [])
    return Row(
        first_token_ms=_measure(known["first_token_ms"]) if "first_token_ms" in known else None,
        gaps_ms=[_measure(gap) for gap in (gap_ms if isinstance(gap_ms, list) else [gap_ms])],
        tokens=_bounded(_measure(known["tokens"])) if "tokens" in known else None,
    )


def _measured(gaps_ms: Sequence[float]) -> Iterator[float]:
    return itertools.chain(gaps_ms, itertools.repeat(gaps_ms[-1]))


def _measure(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise ValueError(value)
    return number


def _bounded(tokens: float) -> int:
    return max(1, min(round(tokens), TOKENS_MAX))
