"""Who watches the engine: told what happened, never asked, and never waited for."""

from collections.abc import Sequence
from typing import Protocol

from aipaging.core.evidence.record import SealedEntry


class EngineObserver(Protocol):
    """Takes note; what it raises is a bug, what it takes long for holds up everybody."""

    def recovered(self, records: int) -> None:
        """The journal was read; it holds so many records."""
        ...

    def appended(self, entries: Sequence[SealedEntry], seconds: float) -> None:
        """These records are durable; the append took so long."""
        ...

    def append_failed(self, code: str) -> None:
        """The journal did not take a batch."""
        ...

    def effect_failed(self, kind: str) -> None:
        """Something that was to be done in the user plane did not come about."""
        ...
