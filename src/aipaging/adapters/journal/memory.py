"""The reference journal: the port's semantics on a dictionary, with failures to order.

A `MemoryDisk` outlives its journals, as a disk outlives processes; tests open, crash and reopen journals on one.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from msgspec import structs

from aipaging.adapters.journal.errors import (
    journal_corrupt,
    journal_full,
    journal_gap,
    journal_io,
    journal_locked,
    session_erased,
    snapshot_damaged,
)
from aipaging.core.evidence.log import EMPTY_LOG, LogHead, noted_checkpoint, resumed
from aipaging.core.evidence.record import SealedEntry
from aipaging.core.foundation.errors import UnverifiedError
from aipaging.core.foundation.names import SessionId
from aipaging.ports.journal import WrittenSnapshot


@dataclass(slots=True, kw_only=True)
class MemoryDisk:
    """What survives a process.

    Attributes:
        entries: The log.
        checkpoints: Signed checkpoints, the oldest first.
        erased: Sessions whose payloads are gone.
        snapshot: The newest snapshot.
        holder: The journal that holds the lock.
        full: Set by a test: ordinary appends find no space.
        reserve: How many restrictive records still fit when the disk is full.
        failing: Set by a test: the next append fails as a broken disk does.
    """

    entries: list[SealedEntry] = field(default_factory=list)
    checkpoints: list[str] = field(default_factory=list)
    erased: set[SessionId] = field(default_factory=set)
    snapshot: tuple[int, str, Sequence[bytes]] | None = None
    holder: "MemoryJournal | None" = None
    full: bool = False
    reserve: int = 1_000
    failing: bool = False


class MemoryJournal:
    """A `Journal`, `SnapshotStore` and `Eraser` in memory."""

    def __init__(self, disk: MemoryDisk | None = None) -> None:
        self.disk = disk or MemoryDisk()
        self._broken = False
        self._written: dict[str, Sequence[bytes]] = {}
        self._names = itertools.count()

    def open(self) -> LogHead:
        """See `Journal.open`."""
        if self.disk.holder is not None:
            raise journal_locked("the memory journal", "another journal")
        newest = self.checkpoint()
        try:
            checkpoint = noted_checkpoint(newest) if newest else None
            head = resumed(EMPTY_LOG, [entry.record for entry in self.disk.entries], checkpoint)
        except UnverifiedError as error:
            raise journal_corrupt("the memory journal", error.message) from error
        self.disk.holder, self._broken = self, False
        return head

    def append(self, entries: Sequence[SealedEntry], checkpoint: str | None, *, restrictive: bool = False) -> None:
        """See `Journal.append`."""
        disk = self._held_disk()
        for place, entry in enumerate(entries, len(disk.entries)):
            if entry.seq != place:
                raise journal_gap(entry.seq, place)
            if entry.payload is not None and entry.session in disk.erased:
                raise session_erased(str(entry.session))
        self._find_space(len(entries), restrictive=restrictive)
        disk.entries.extend(entries)
        if checkpoint is not None:
            disk.checkpoints.append(checkpoint)

    def _find_space(self, records: int, *, restrictive: bool) -> None:
        disk = self.disk
        if disk.failing:
            disk.failing, self._broken = False, True
        if self._broken:
            raise journal_io("the memory journal", "a failure was ordered")
        if disk.full:
            if not restrictive or records > disk.reserve:
                raise journal_full("the memory journal", restrictive=restrictive)
            disk.reserve -= records

    def read(self, first_seq: int) -> Iterator[SealedEntry]:
        """See `Journal.read`."""
        disk = self._held_disk()
        salts = {entry.session: entry.salt for entry in disk.entries if entry.salt is not None}
        for entry in disk.entries[first_seq:]:
            gone = entry.session in disk.erased
            salt = salts.get(entry.session) if entry.payload is not None and not gone else None
            yield structs.replace(entry, payload=None if gone else entry.payload, salt=salt)

    def checkpoint(self) -> str | None:
        """See `Journal.checkpoint`."""
        return self.disk.checkpoints[-1] if self.disk.checkpoints else None

    def close(self) -> None:
        """See `Journal.close`."""
        if self.disk.holder is self:
            self.disk.holder = None

    def write(self, parts: Iterable[bytes]) -> WrittenSnapshot:
        """See `SnapshotStore.write`."""
        stored, name = list(parts), str(next(self._names))
        self._written[name] = stored
        return WrittenSnapshot(name=name, key=b"", parts=len(stored))

    def save(self, seq: int, root_hex: str, written: WrittenSnapshot) -> None:
        """See `SnapshotStore.save`."""
        disk, stored = self._held_disk(), self._written.pop(written.name, None)
        if stored is None:
            raise snapshot_damaged("the memory journal", "it was discarded")
        disk.snapshot = (seq, root_hex, stored)

    def newest(self) -> tuple[int, str, Iterator[bytes]] | None:
        """See `SnapshotStore.newest`."""
        snapshot = self._held_disk().snapshot
        return None if snapshot is None else (snapshot[0], snapshot[1], iter(snapshot[2]))

    def discard(self) -> None:
        """See `SnapshotStore.discard`."""
        self._held_disk().snapshot = None
        self._written.clear()

    def erase(self, session: SessionId) -> bool:
        """See `Eraser.erase`."""
        disk = self._held_disk()
        places = [entry.seq for entry in disk.entries if entry.session == session]
        disk.erased.update({session} if places else ())
        if places and disk.snapshot is not None and places[-1] >= disk.snapshot[0]:
            self.discard()
        return bool(places)

    def _held_disk(self) -> MemoryDisk:
        if self.disk.holder is not self:
            raise journal_io("the memory journal", "it is not open")
        return self.disk
