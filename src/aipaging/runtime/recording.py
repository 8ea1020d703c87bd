"""The evidence log behind the engine: sealing, appending, checkpoints, snapshots, and the state rebuilt from it.

Whatever touches the journal runs in one thread of its own, one call after the other; sealing does not touch it. Whose
answers wait for what, and what follows from a failure, is the engine's matter.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from aipaging.core.evidence.log import EMPTY_LOG, LogHead, Sealer
from aipaging.core.evidence.record import Draft, SealedEntry
from aipaging.core.foundation.errors import UnavailableError
from aipaging.core.foundation.time import Now
from aipaging.core.paging.evolve import evolve
from aipaging.core.paging.records import event_of
from aipaging.core.paging.snapshot import decode_state, encode_state
from aipaging.core.paging.state import State
from aipaging.ports.journal import Journal, SnapshotStore
from aipaging.ports.signing import CheckpointSigner

T = TypeVar("T")

CHECKPOINT_RECORDS: Final = 64
CHECKPOINT_MS: Final = 100
"""A checkpoint is signed every 64 records or 100 ms, whichever is first (design, section 5)."""

SNAPSHOT_RECORDS: Final = 50_000
"""A snapshot every so many records: replaying that many takes about a second."""


class Recorder:
    """Writes the evidence of one engine, and reads it back.

    Args:
        journal: Where the records go.
        snapshots: Where states go that need not be replayed; None for nowhere.
        signer: Of checkpoints.
        writer: What every record says of who wrote it: the node, and its boot.
    """

    def __init__(
        self, journal: Journal, snapshots: SnapshotStore | None, signer: CheckpointSigner, *, writer: tuple[str, str]
    ) -> None:
        self._journal = journal
        self._snapshots = snapshots
        self._signer = signer
        self._writer = writer
        self._sealer = Sealer(*writer, EMPTY_LOG)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._checkpoint_seq = 0
        self._checkpoint_us = 0
        self._snapshot_seq = 0

    @property
    def head(self) -> LogHead:
        """Where the log stands, sealed but not yet durable records included."""
        return self._sealer.head

    async def recover(self) -> State:
        """Take the journal's lock and return the state that it holds.

        Raises:
            UnavailableError: The journal is locked by another controller, corrupt, or unreadable.
        """
        self._go_on_from(await self._in_thread(self._journal.open))
        self._checkpoint_seq = self._snapshot_seq = self.head.seq
        return await self._in_thread(self._rebuilt)

    async def reopen(self) -> State:
        """Forget what was sealed and not appended, and return the state that the journal holds.

        Raises:
            UnavailableError: The journal cannot be opened or read.
        """
        head, state = await self._in_thread(self._reopened)
        self._go_on_from(head)
        return state

    async def close(self) -> None:
        """Close the journal."""
        await self._in_thread(self._journal.close)
        self._thread.shutdown(wait=True)

    def seal(self, drafts: Sequence[Draft], term: int, now: Now) -> list[SealedEntry]:
        """Return the entries of what was decided at once, in order."""
        return self._sealer.seal(drafts, term=term, now=now) if drafts else []

    async def append(self, entries: Sequence[SealedEntry], checkpoint: str | None, *, restrictive: bool) -> None:
        """Return when the entries are durable.

        Raises:
            AipagingError: They are not.
        """
        await self._in_thread(lambda: self._journal.append(entries, checkpoint, restrictive=restrictive))

    def due_checkpoint(self, now: Now) -> str | None:
        """Return a signed checkpoint of all that was sealed, if one is due."""
        seq, now_us = self.head.seq, now.boot_us
        if seq - self._checkpoint_seq < CHECKPOINT_RECORDS and now_us - self._checkpoint_us < CHECKPOINT_MS * 1000:
            return None
        self._checkpoint_seq, self._checkpoint_us = seq, now_us
        return self._signer.sign_note(self._sealer.checkpoint_text(self._signer.key_name))

    async def snapshot_if_due(self, state: State) -> None:
        """Store the state, if it has been long since it was; it must hold nothing that is not durable."""
        seq, store = self.head.seq, self._snapshots
        if store is None or seq - self._snapshot_seq < SNAPSHOT_RECORDS:
            return
        self._snapshot_seq = seq
        blob, root = encode_state(state), self.head.tree.root().hex()
        with contextlib.suppress(UnavailableError):
            await self._in_thread(lambda: store.save(seq, root, blob))

    def _go_on_from(self, head: LogHead) -> None:
        self._sealer = Sealer(*self._writer, head)

    def _reopened(self) -> tuple[LogHead, State]:
        self._journal.close()
        return self._journal.open(), self._rebuilt()

    def _rebuilt(self) -> State:
        """Return the state that the journal holds (runs in the journal's thread)."""
        newest = self._snapshots.newest() if self._snapshots is not None else None
        state, first = None, 0
        if newest is not None:
            state, first = decode_state(newest[2]), newest[0]
        if state is None:
            state, first = State(), 0
        for entry in self._journal.read(first):
            event = event_of(entry, state.sessions.__contains__)
            if event is not None:
                evolve(state, event)
        return state

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)
