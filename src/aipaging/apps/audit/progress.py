"""A telemetry table that shows on stderr how far it has been read, where a person watches."""

import sys
from collections.abc import Generator, Iterator
from typing import Any, Self, TypeVar

from aipaging.adapters.telemetry.source import TelemetrySource
from aipaging.core.audit.telemetry import Batch, Integers, RequestIds

Part = TypeVar("Part")


class Shown:
    """A table and its counter of rows; without a terminal, the table alone.

    Attributes:
        domains: The domains of the table.
        has_tenants: Whether it says whose the requests are.
    """

    def __init__(self, table: TelemetrySource, what: str) -> None:
        self._table = table
        self._what = what
        self._bar: Any = None
        self.domains = table.domains
        self.has_tenants = table.has_tenants

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console  # noqa: PLC0415 - slow to import
            from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415

            columns = (
                SpinnerColumn(),
                TextColumn("{task.description} {task.completed:,.0f} rows"),
                TimeElapsedColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def identities(self) -> Iterator[tuple[Integers, RequestIds]]:
        """Yield the starts and the ids, batch by batch."""
        for part in self._counted(self._table.identities(), "looking at"):
            self._advance(len(part[0]))
            yield part

    def batches(self, *, ids: bool, tenants: bool) -> Generator[Batch]:
        """Yield the table, batch by batch."""
        for part in self._counted(self._table.batches(ids=ids, tenants=tenants), self._what):
            self._advance(len(part))
            yield part

    def _counted(self, parts: Iterator[Part], what: str) -> Iterator[Part]:
        if self._bar is not None:
            self._task = self._bar.add_task(what, total=None)
        return parts

    def _advance(self, rows: int) -> None:
        if self._bar is not None:
            self._bar.advance(self._task, rows)
