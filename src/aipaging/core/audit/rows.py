"""Rows that attribution needs again: those that exceeded end to end. Their number is bounded, by thinning."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from aipaging.core.audit.telemetry import Batch, Integers

EXCEEDING_MAX: Final = 400_000
"""Rows kept for attribution; beyond it every second is kept, then every fourth: shares stay unbiased."""


def select(batch: Batch, rows: Integers) -> Batch:
    """Return some rows of a batch, without ids and tenants."""
    return Batch(
        start_us=batch.start_us[rows],
        status=batch.status[rows],
        end_to_end_us=batch.end_to_end_us[rows],
        domains={name: column[rows] for name, column in batch.domains.items()},
        sessions=None if batch.sessions is None else batch.sessions[rows],
    )


@dataclass(slots=True, kw_only=True)
class ExceedingRows:
    """Rows that exceeded, thinned where they are too many.

    Attributes:
        stride: One in so many is kept.
        parts: Rows, by batch, with the window of each.
    """

    stride: int = 1
    parts: list[tuple[Batch, Integers]] = field(default_factory=list[tuple[Batch, Integers]])
    _seen: int = 0
    _kept: int = 0

    def add(self, batch: Batch, rows: Integers, window: Integers) -> None:
        """Keep the next rows."""
        number = np.arange(self._seen, self._seen + len(rows))
        self._seen += len(rows)
        rows = rows[number % self.stride == 0]
        if not rows.size:
            return
        self.parts.append((select(batch, rows), window[rows]))
        self._kept += len(rows)
        while self._kept > EXCEEDING_MAX:
            self._thin()

    def _thin(self) -> None:
        self.stride *= 2
        kept = [(select(batch, even), window[even]) for batch, window, even in self._halves()]
        self.parts = [part for part in kept if len(part[0])]
        self._kept = sum(len(part[0]) for part in self.parts)

    def _halves(self) -> list[tuple[Batch, Integers, Integers]]:
        halves: list[tuple[Batch, Integers, Integers]] = []
        offset = 0
        for batch, window in self.parts:
            number = np.arange(offset, offset + len(batch))
            offset += len(batch)
            halves.append((batch, window, np.flatnonzero(number % 2 == 0)))
        return halves

    def joined(self, domains: tuple[str, ...]) -> tuple[Integers, Integers, Integers]:
        """Return the delays by row and domain, the end-to-end delays, and the windows."""
        if not self.parts:
            nobody = np.zeros(0, dtype=np.int64)
            return np.zeros((0, len(domains)), dtype=np.int64), nobody, nobody
        matrix = np.zeros((self._kept, len(domains)), dtype=np.int64)
        for column, name in enumerate(domains):
            matrix[:, column] = np.concatenate([batch.domains[name] for batch, _ in self.parts])
        whole = np.concatenate([batch.end_to_end_us for batch, _ in self.parts])
        return matrix, whole, np.concatenate([window for _, window in self.parts])

    def sessions(self) -> Integers:
        """Return the group of each row's session; all in one where sessions are not known."""
        nobody = np.zeros(0, dtype=np.int64)
        groups = (
            np.zeros(len(batch), dtype=np.int64) if batch.sessions is None else batch.sessions
            for batch, _ in self.parts
        )
        return np.concatenate([nobody, *groups])
