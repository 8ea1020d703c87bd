"""The evidence log behind the engine: sealing, appending, checkpoints, snapshots, and the state rebuilt from it.

Whatever touches the journal runs in one thread of its own, one call after the other; sealing does not touch it. Whose
answers wait for what, and what follows from a failure, is the engine's matter.

Snapshots hold nobody up: the loop only freezes the state, which is copying a few lists; a second thread encodes and
writes it part by part, and steps back after each. One that fails costs recovery its time, and nothing else: it is
logged and counted, and the next is tried when it is due.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from aipaging.core.evidence.log import EMPTY_LOG, LogHead, Sealer
from aipaging.core.evidence.record import Draft, SealedEntry
from aipaging.core.foundation.errors import AipagingError, UnavailableError
from aipaging.core.foundation.names import SessionId
from aipaging.core.foundation.time import Now
from aipaging.core.paging.evolve import evolve
from aipaging.core.paging.records import event_of
from aipaging.core.paging.snapshot import frozen, parts, restored
from aipaging.core.paging.state import State
from aipaging.ports.journal import Eraser, Journal, SnapshotStore
from aipaging.ports.signing import CheckpointSigner
from aipaging.runtime.journal_thread import JournalThread

LOG: Final = logging.getLogger("aipaging.recording")

CHECKPOINT_RECORDS: Final = 64
CHECKPOINT_MS: Final = 100
"""A checkpoint is signed every 64 records or 100 ms, whichever is first (design, section 5)."""

SNAPSHOT_RECORDS: Final = 50_000
"""A snapshot every so many records: replaying that many takes about a second."""

STEP_BACK_S: Final = 0.002
"""How long the snapshot's thread leaves the interpreter to the loop after every part, which takes about half of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotCounts:
    """What came of snapshots.

    Attributes:
        failed: Those that were not taken, since the start.
        behind_records: The durable records since the newest: what a recovery would replay.
    """

    failed: int
    behind_records: int


class _StoppedError(Exception):
    """A snapshot is not wanted any more."""


class Recorder:
    """Writes the evidence of one engine, and reads it back.

    Args:
        journal: Where the records go.
        snapshots: Where states go that need not be replayed; None for nowhere.
        eraser: Forgets sessions; None where nothing is forgotten.
        signer: Of checkpoints.
        writer: What every record says of who wrote it: the node, and its boot.
    """

    def __init__(
        self,
        journal: Journal,
        snapshots: SnapshotStore | None,
        signer: CheckpointSigner,
        *,
        writer: tuple[str, str],
        eraser: Eraser | None = None,
    ) -> None:
        self._journal = journal
        self._snapshots = snapshots
        self._eraser = eraser
        self._signer = signer
        self._writer = writer
        self._sealer = Sealer(*writer, EMPTY_LOG)
        self._thread = JournalThread()
        self._checkpoint_seq = 0
        self._checkpoint_us = 0
        self._durable_seq = 0
        self._appended = asyncio.Event()
        self._given_s: float | None = None
        self._snapshot_due = SNAPSHOT_RECORDS
        self._snapshot_seq = 0
        self._snapshots_failed = 0
        self._snapshot_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="snapshot")
        self._snapshotting: asyncio.Task[None] | None = None
        self._unwanted = threading.Event()

    @property
    def head(self) -> LogHead:
        """Where the log stands, sealed but not yet durable records included."""
        return self._sealer.head

    @property
    def waits_s(self) -> float:
        """For how long the journal has not answered what it was given; 0 if nothing is under way."""
        return 0.0 if self._given_s is None else time.monotonic() - self._given_s

    @property
    def snapshots(self) -> SnapshotCounts:
        """What came of snapshots."""
        return SnapshotCounts(failed=self._snapshots_failed, behind_records=self._durable_seq - self._snapshot_seq)

    async def recover(self) -> State:
        """Take the journal's lock and return the state that it holds.

        Raises:
            UnavailableError: The journal is locked by another controller, corrupt, or unreadable.
        """
        self._go_on_from(await self._thread.run(self._journal.open))
        self._checkpoint_seq = self.head.seq
        state = await self._thread.run(self._rebuilt)
        # Not from here on: who is restarted before that many records, time and again, would never take one.
        self._snapshot_due = self._snapshot_seq + SNAPSHOT_RECORDS
        return state

    async def reopen(self) -> State:
        """Forget what was sealed and not appended, and return the state that the journal holds.

        Raises:
            UnavailableError: The journal cannot be opened or read.
        """
        await self.give_up_snapshot()  # it may be of what never became durable
        head, state = await self._thread.run(self._reopened)
        self._go_on_from(head)
        return state

    async def close(self) -> None:
        """Close the journal."""
        await self.give_up_snapshot()
        await asyncio.to_thread(self._snapshot_thread.shutdown)  # the part that it is at is finished
        await self._thread.run(self._journal.close)
        self._thread.close()

    def seal(self, drafts: Sequence[Draft], term: int, now: Now) -> list[SealedEntry]:
        """Return the entries of what was decided at once, in order."""
        return self._sealer.seal(drafts, term=term, now=now) if drafts else []

    async def append(
        self,
        entries: Sequence[SealedEntry],
        checkpoint: str | None,
        *,
        restrictive: bool,
        meanwhile: Callable[[], None],
    ) -> None:
        """Return when the entries are durable; `meanwhile` is called once they are on their way.

        Raises:
            AipagingError: They are not.
        """
        self._given_s = time.monotonic()
        try:
            written = self._thread.begin(lambda: self._journal.append(entries, checkpoint, restrictive=restrictive))
            meanwhile()
            await written
        finally:
            self._given_s = None
        self._durable_seq = entries[-1].seq + 1
        self._appended.set()

    def due_checkpoint(self, now: Now) -> str | None:
        """Return a signed checkpoint of all that was sealed, if one is due."""
        seq, now_us = self.head.seq, now.boot_us
        if seq - self._checkpoint_seq < CHECKPOINT_RECORDS and now_us - self._checkpoint_us < CHECKPOINT_MS * 1000:
            return None
        self._checkpoint_seq, self._checkpoint_us = seq, now_us
        return self._signer.sign_note(self._sealer.checkpoint_text(self._signer.key_name))

    def snapshot_if_due(self, state: State) -> None:
        """Begin to store the state, if it has been long since it was; it must be what the sealed records make of it."""
        if self._snapshots is not None and self.head.seq >= self._snapshot_due and self._snapshotting is None:
            self._snapshot(self._snapshots, state)

    async def erase(self, session: SessionId, state: Callable[[], State]) -> bool:
        """Delete what is private of a session that `state` has forgotten; return whether it was ever stored.

        Before its key goes, the state is stored without it: a snapshot in which it lives, and records of its end that
        nobody can read any more, would bring it back.

        Raises:
            UnavailableError: It is not deleted, or not for good: ask again.
        """
        if self._eraser is None:
            raise UnavailableError("this controller keeps a journal that erases nothing", code="UNAVAILABLE")
        while self._snapshotting is not None:
            await asyncio.wait([self._snapshotting])
        if self._snapshots is not None:
            seq, snapshotting = self.head.seq, self._snapshot(self._snapshots, state())
            await asyncio.wait([snapshotting])
            if self._snapshot_seq < seq:
                raise UnavailableError(
                    "the state without the session could not be stored, so that nothing was erased: ask again",
                    code="SNAPSHOT_FAILED",
                )
        eraser = self._eraser
        return await self._thread.run(lambda: eraser.erase(session))

    def _snapshot(self, store: SnapshotStore, state: State) -> "asyncio.Task[None]":
        seq = self.head.seq
        self._snapshot_due = seq + SNAPSHOT_RECORDS
        self._unwanted = threading.Event()
        written = _at_leisure(parts(frozen(state)), self._unwanted)
        kept = self._keep(store, seq, self.head.tree.root().hex(), written)
        self._snapshotting = asyncio.get_running_loop().create_task(kept)
        return self._snapshotting

    async def give_up_snapshot(self) -> None:
        """Give up the snapshot that is being written, if one is; the older one stays."""
        if self._snapshotting is not None:
            self._unwanted.set()
            self._snapshotting.cancel()
            await asyncio.gather(self._snapshotting, return_exceptions=True)
            self._snapshotting = None

    async def _keep(self, store: SnapshotStore, seq: int, root_hex: str, encoded: Iterable[bytes]) -> None:
        """Write a snapshot, and make it the newest once all that it rests on is durable."""
        begun, loop = time.perf_counter(), asyncio.get_running_loop()
        try:
            written = await loop.run_in_executor(self._snapshot_thread, lambda: store.write(encoded))
            while self._durable_seq < seq:
                self._appended.clear()
                await self._appended.wait()
            await self._thread.run(lambda: store.save(seq, root_hex, written))
        except Exception as error:
            self._snapshots_failed += 1
            expected = isinstance(error, AipagingError | OSError)
            why = {"reason": str(error)}
            LOG.warning("no snapshot was taken: a recovery will take longer", extra=why, exc_info=not expected)
        else:
            self._snapshot_seq = seq
            LOG.info("snapshot taken", extra={"records": seq, "seconds": round(time.perf_counter() - begun, 3)})
        finally:
            self._snapshotting = None

    def _go_on_from(self, head: LogHead) -> None:
        self._durable_seq = head.seq
        self._sealer = Sealer(*self._writer, head)

    def _reopened(self) -> tuple[LogHead, State]:
        self._journal.close()
        return self._journal.open(), self._rebuilt()

    def _rebuilt(self) -> State:
        """Return the state that the journal holds (runs in the journal's thread)."""
        newest = self._snapshots.newest() if self._snapshots is not None else None
        state, first = None, 0
        if newest is not None:
            with contextlib.suppress(UnavailableError):  # it was altered
                state, first = restored(newest[2]), newest[0]
        if state is None:
            state, first = State(), 0
        self._snapshot_seq = first
        for entry in self._journal.read(first):
            event = event_of(entry, state.sessions.__contains__)
            if event is not None:
                evolve(state, event)
        return state


def _at_leisure(encoded: Iterable[bytes], unwanted: threading.Event) -> Iterator[bytes]:
    """Yield parts with time for others between them (runs in the snapshot's thread).

    Raises:
        _StoppedError: The snapshot is not wanted any more.
    """
    for part in encoded:
        yield part
        if unwanted.wait(STEP_BACK_S):
            raise _StoppedError
