"""The controller's disk: the journal as what is really on stable storage, and the newest snapshot.

A batch is stored all or none, as the port demands; what becomes of a batch that was under way when the machine died is
the crash's choice: nothing of it arrived, all of it did, or it is torn, and who reads the disk finds some whole records
and no end of the batch. A full disk takes restrictive batches only (space is kept aside for them); a failing one none.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from aipaging.core.evidence.log import EMPTY_LOG, Checkpoint, LogHead
from aipaging.core.evidence.record import SealedEntry

ORIGIN: Final = "simulated.example/log"
"""The name in checkpoints."""


class DiskState(enum.Enum):
    """What the disk does with a batch."""

    WELL = "well"
    FULL = "full"
    FAILING = "failing"


@dataclass(slots=True)
class Disk:
    """Stable storage.

    Attributes:
        entries: What is durable.
        head: Where the log goes on.
        state: What it does with the next batch.
        checkpoints: Tree heads that were stored.
        snapshot: `(records, blob)` of the newest snapshot, or None.
        backup: `(records, head)` of the backup that can be restored, or None.
        writer: The number of the leader that may write; a store that several controllers share checks it in the
            transaction of every append.
        slow: Whether every sync takes long.
        torn: What arrived of a batch that the machine died over: whole records, without the end of their batch.
    """

    entries: list[SealedEntry] = field(default_factory=list[SealedEntry])
    head: LogHead = EMPTY_LOG
    state: DiskState = DiskState.WELL
    checkpoints: list[Checkpoint] = field(default_factory=list[Checkpoint])
    snapshot: tuple[int, bytes] | None = None
    backup: tuple[int, LogHead] | None = None
    writer: int = 0
    slow: bool = False
    torn: list[SealedEntry] = field(default_factory=list[SealedEntry])

    def recover(self) -> None:
        """Find what is whole, as every start does: what has no end was never stored."""
        self.torn = []

    def lead(self) -> int:
        """Make the caller the one who may write; return its number."""
        self.writer += 1
        return self.writer

    def append(self, entries: Sequence[SealedEntry], head: LogHead, *, writer: int, restrictive: bool) -> str:
        """Store a batch; return why not (a code of the journal port), or ""."""
        if writer != self.writer:
            return "JOURNAL_LOCKED"
        if self.state is DiskState.FAILING:
            return "JOURNAL_IO"
        if self.state is DiskState.FULL and not restrictive:
            return "JOURNAL_FULL"
        self.entries += entries
        self.head = head
        return ""

    def sign(self) -> None:
        """Store a checkpoint of all that is durable."""
        tree = self.head.tree
        self.checkpoints.append(Checkpoint(origin=ORIGIN, size=tree.size, root=tree.root()))

    def save_backup(self) -> None:
        """Make the backup that a later `restore` goes back to."""
        self.backup = (len(self.entries), self.head)

    def restore(self) -> int:
        """Go back to the backup; return how many records are lost. Snapshots are no part of it."""
        self.torn = []
        if self.backup is None:
            return 0
        size, self.head = self.backup
        lost = len(self.entries) - size
        del self.entries[size:]
        self.checkpoints = [each for each in self.checkpoints if each.size <= size]
        self.snapshot = None
        return lost
