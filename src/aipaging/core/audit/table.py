"""Telemetry that is in memory already, as a table: for library use."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from aipaging.core.audit.telemetry import Batch, Integers, Mask, RequestIds
from aipaging.core.foundation.errors import InvalidInputError


class ArrayTable:
    """Columns of equal length.

    Attributes:
        domains: The domains that it has columns for.
    """

    def __init__(self, batch: Batch, request_ids: Sequence[str] | None = None) -> None:
        """Take the columns.

        Args:
            batch: All rows as one batch; its `ids` are ignored.
            request_ids: Ids, None where every row is a request of its own.

        Raises:
            InvalidInputError: The columns are of different lengths.
        """
        lengths = {len(batch), len(batch.status), len(batch.end_to_end_us)}
        lengths |= {len(column) for column in batch.domains.values()}
        if request_ids is not None:
            lengths.add(len(request_ids))
        if len(lengths) > 1:
            raise InvalidInputError(f"columns of different lengths: {sorted(lengths)}", field="telemetry")
        self._batch = batch
        self._ids: RequestIds = _NumberedIds(len(batch)) if request_ids is None else _Strings(request_ids)
        self.domains: tuple[str, ...] = tuple(batch.domains)

    def identities(self) -> Iterator[tuple[Integers, RequestIds]]:
        """Yield starts and ids, once."""
        yield self._batch.start_us, self._ids

    def batches(self, *, ids: bool, tenants: bool) -> Iterator[Batch]:
        """Yield the table, once."""
        whole = self._batch
        mapping: Mapping[str, Integers] = whole.domains
        yield Batch(
            start_us=whole.start_us,
            status=whole.status,
            end_to_end_us=whole.end_to_end_us,
            domains=mapping,
            tenants=whole.tenants if tenants else None,
            tenant_names=whole.tenant_names,
            sessions=whole.sessions,
            ids=self._ids if ids else None,
            malformed=whole.malformed,
        )


class _Strings:
    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = ids

    def missing(self) -> Mask:
        return np.fromiter((not name for name in self._ids), dtype=np.bool_, count=len(self._ids))

    def hashes(self) -> NDArray[np.uint64]:
        return np.fromiter(map(hash, self._ids), dtype=np.int64, count=len(self._ids)).view(np.uint64)

    def take(self, rows: Integers) -> list[str]:
        return [str(self._ids[int(row)]) for row in rows]


class _NumberedIds:
    def __init__(self, count: int) -> None:
        self._count = count

    def missing(self) -> Mask:
        return np.zeros(self._count, dtype=np.bool_)

    def hashes(self) -> NDArray[np.uint64]:
        return np.arange(self._count, dtype=np.uint64)

    def take(self, rows: Integers) -> list[str]:
        return [str(row) for row in rows]
