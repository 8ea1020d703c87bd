"""Tables in Parquet, by pyarrow (extra `[telemetry]`): only the columns that a pass needs, never a string too many."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from aipaging.adapters.telemetry.columns import SESSION, domain_columns, integers
from aipaging.core.audit.sessions import session_groups
from aipaging.core.audit.telemetry import STATUS_WORDS, UNKNOWN, UNREADABLE, Batch, Integers, Mask, RequestIds, Status
from aipaging.core.foundation.errors import InvalidInputError, UnavailableError

BATCH_ROWS: Final = 262_144
"""Rows read at a time: large enough that numpy, not Python, does the work."""

_MIXERS: Final = np.frombuffer(secrets.token_bytes(8 * 64), dtype=np.uint64) | np.uint64(1)
"""Odd multipliers, new in every process: nobody can choose ids that collide."""


class ParquetSource:
    """A Parquet file."""

    def __init__(self, path: Path) -> None:
        """Read the schema.

        Raises:
            UnavailableError: pyarrow is not installed.
            InvalidInputError: This is no Parquet file, or it lacks a column.
        """
        arrow, parquet = _pyarrow()
        self._arrow = arrow
        try:
            names: list[str] = list(parquet.read_schema(path).names)
            coded = [name for name in ("status", "tenant", SESSION) if name in names]
            self._file: Any = parquet.ParquetFile(path, read_dictionary=coded)
        except (OSError, arrow.ArrowException) as error:
            raise InvalidInputError(
                f"{path} is not a readable Parquet file: {error}", code="TELEMETRY_UNREADABLE", field="telemetry"
            ) from error
        self._domains = domain_columns(names)
        self.domains = tuple(self._domains.values())
        self.has_tenants = "tenant" in names
        self._has_sessions = SESSION in names

    def identities(self) -> Iterator[tuple[Integers, RequestIds]]:
        """Yield the starts and the ids, batch by batch."""
        for part in self._parts(["request_id", "start_us"]):
            yield self._integers(part.column("start_us")), self._ids(part)

    def batches(self, *, ids: bool, tenants: bool) -> Iterator[Batch]:
        """Yield the table, batch by batch."""
        tenants = tenants and self.has_tenants
        wanted = ["start_us", "status", "end_to_end_us", *self._domains]
        wanted += ["request_id"] * ids + ["tenant"] * tenants + [SESSION] * self._has_sessions
        for part in self._parts(wanted):
            codes, names = self._coded(part.column("tenant")) if tenants else (None, [])
            yield Batch(
                start_us=self._integers(part.column("start_us")),
                status=self._statuses(part.column("status")),
                end_to_end_us=self._integers(part.column("end_to_end_us")),
                domains={name: self._integers(part.column(column)) for column, name in self._domains.items()},
                tenants=codes,
                tenant_names=names,
                sessions=self._sessions(part.column(SESSION)) if self._has_sessions else None,
                ids=self._ids(part) if ids else None,
            )

    def _parts(self, columns: list[str]) -> Iterator[Any]:
        try:
            yield from self._file.iter_batches(batch_size=BATCH_ROWS, columns=columns)
        except (OSError, self._arrow.ArrowException) as error:
            raise InvalidInputError(
                f"the Parquet file breaks off: {error}", code="TELEMETRY_UNREADABLE", field="telemetry"
            ) from error

    def _integers(self, column: Any) -> Integers:
        types = self._arrow.types
        if types.is_string(column.type) or types.is_large_string(column.type):
            return integers(column.to_pylist())
        if types.is_timestamp(column.type):
            column = column.cast(self._arrow.timestamp("us", column.type.tz)).cast(self._arrow.int64())
        if types.is_floating(column.type):
            return _float_integers(column.to_numpy(zero_copy_only=False))
        if not types.is_integer(column.type):
            return np.full(len(column), UNREADABLE, dtype=np.int64)
        if types.is_uint64(column.type):
            return _float_integers(column.cast(self._arrow.float64(), safe=False).to_numpy(zero_copy_only=False))
        column = column.cast(self._arrow.int64())
        filled = column.fill_null(UNKNOWN) if column.null_count else column
        return np.asarray(filled.to_numpy(zero_copy_only=False), dtype=np.int64)

    def _coded(self, column: Any) -> tuple[Integers, list[str]]:
        if not self._arrow.types.is_dictionary(column.type):
            column = column.cast(self._arrow.string()).dictionary_encode()
        names = ["" if name is None else str(name) for name in column.dictionary.to_pylist()]
        indices = column.indices.fill_null(len(names)) if column.null_count else column.indices
        return np.asarray(indices.to_numpy(zero_copy_only=False), dtype=np.int64), [*names, ""]

    def _sessions(self, column: Any) -> Integers:
        codes, names = self._coded(column)
        return session_groups(names)[codes]

    def _statuses(self, column: Any) -> NDArray[np.uint8]:
        codes, names = self._coded(column)
        table = np.asarray([STATUS_WORDS.get(name, Status.UNKNOWN) for name in names], dtype=np.uint8)
        return table[codes]

    def _ids(self, part: Any) -> RequestIds:
        column = part.column("request_id")
        if self._arrow.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        return _ArrowIds(column.cast(self._arrow.large_string()))


class _ArrowIds:
    """Ids in Arrow's buffers."""

    def __init__(self, column: Any) -> None:
        self._column = column
        _, offsets, characters = column.buffers()
        begin = column.offset
        self._offsets = np.frombuffer(offsets, dtype=np.int64)[begin : begin + len(column) + 1]
        self._characters = np.frombuffer(characters or b"", dtype=np.uint8)

    def missing(self) -> Mask:
        """Return where there is none."""
        return np.asarray(np.diff(self._offsets) == 0, dtype=np.bool_)

    def hashes(self) -> NDArray[np.uint64]:
        """Return a keyed hash of each, computed a column of eight characters at a time."""
        lengths = np.diff(self._offsets)
        hashes = np.empty(len(lengths), dtype=np.uint64)
        for length in np.unique(lengths):
            rows = np.flatnonzero(lengths == length)
            hashes[rows] = self._hashes_of(rows, int(length))
        return hashes

    def _hashes_of(self, rows: Integers, length: int) -> NDArray[np.uint64]:
        lanes = -(-length // 8)
        padded = np.zeros((len(rows), 8 * lanes), dtype=np.uint8)
        if len(rows) == len(self._column):
            padded[:, :length] = self._characters[self._offsets[0] : self._offsets[-1]].reshape(-1, length)
        else:
            padded[:, :length] = self._characters[self._offsets[rows][:, None] + np.arange(length)]
        words = padded.view(np.uint64)
        mixed = np.full(len(rows), length, dtype=np.uint64)
        for lane in range(lanes):
            mixed ^= words[:, lane]
            mixed *= _MIXERS[lane % len(_MIXERS)]
            mixed ^= mixed >> np.uint64(29)
        return mixed

    def take(self, rows: Integers) -> list[str]:
        """Return the ids of some rows."""
        return [name or "" for name in self._column.take(rows).to_pylist()]


def _float_integers(values: NDArray[Any]) -> Integers:
    rounded = np.ceil(values)
    known, finite = ~np.isnan(rounded), np.isfinite(rounded)
    limited = np.clip(np.where(finite, rounded, 0.0), -(2.0**62), 2.0**62).astype(np.int64)
    return np.where(finite, limited, np.where(known, UNREADABLE, UNKNOWN))


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa  # noqa: PLC0415 - optional
        from pyarrow import parquet  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UnavailableError(
            "Parquet needs the package 'pyarrow': pip install 'aipaging[telemetry]' brings it", code="EXTRA_MISSING"
        ) from error
    return pa, parquet
