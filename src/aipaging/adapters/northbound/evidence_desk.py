"""The evidence log, asked over HTTP: static files, proofs, and the records of one session.

Reading blocks, so it happens in one thread with a reader of its own; it never holds up the writer. Only what is in the
journal is seen: nothing that is not durable yet.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from aipaging.core.evidence.log import noted_checkpoint
from aipaging.core.evidence.merkle import consistency_proof, inclusion_proof
from aipaging.core.evidence.tiles import (
    CHECKPOINT_PATH,
    KEYS_PATH,
    Tile,
    bundle,
    leaves_root_at,
    subtree_hashes,
    tile_at,
)
from aipaging.core.foundation.errors import InvalidInputError, UnavailableError
from aipaging.core.foundation.names import SessionId
from aipaging.ports.evidence import EvidenceLog

T = TypeVar("T")

QUESTIONS_MAX: Final = 64
"""Questions that wait for the one thread; beyond it the caller is asked to come back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenRecord:
    """One record, and why it is in the log.

    Attributes:
        seq: Its place.
        record: Its canonical bytes.
        proof: Inclusion proof (RFC 9162, 2.1.3.1) in the tree of the checkpoint beside it, or None while no
            checkpoint covers it.
    """

    seq: int
    record: bytes
    proof: tuple[bytes, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEvidence:
    """Some of a session's records.

    Attributes:
        checkpoint: The newest signed checkpoint, or None.
        total: How many records the session has.
        records: Those of the page.
    """

    checkpoint: str | None
    total: int
    records: tuple[ProvenRecord, ...]


class EvidenceDesk:
    """Answers questions about the log."""

    def __init__(self, open_reader: Callable[[], EvidenceLog]) -> None:
        """Take what opens a reader; it is called in the thread that will use it, at the first question."""
        self._open = open_reader
        self._reader: EvidenceLog | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="evidence")
        self._waiting = 0

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def file(self, path: str) -> bytes | None:
        """Return the static file at a path of the log, or None."""
        return await self._ask(partial(_file, path))

    async def session(self, session: SessionId, first: int, count: int) -> SessionEvidence:
        """Return the session's records first..first+count-1 with their proofs."""
        return await self._ask(partial(_session, session, first, count))

    async def first_record(self, session: SessionId) -> bytes | None:
        """Return the session's first record, which says whose it is, or None."""
        return await self._ask(partial(_first_record, session))

    async def inclusion(self, seq: int, size: int) -> list[bytes]:
        """Return the proof that record `seq` is in the tree of `size` records.

        Raises:
            InvalidInputError: There is no such record in such a tree (`OUT_OF_RANGE`).
        """
        return await self._ask(partial(_inclusion, seq, size))

    async def consistency(self, old_size: int, size: int) -> list[bytes]:
        """Return the proof that the tree of `size` records only appended to that of `old_size`.

        Raises:
            InvalidInputError: There are no such trees (`OUT_OF_RANGE`).
        """
        return await self._ask(partial(_consistency, old_size, size))

    async def _ask(self, question: Callable[[EvidenceLog], T]) -> T:
        if self._waiting >= QUESTIONS_MAX:
            raise UnavailableError("too many questions about the evidence are waiting", code="OVERLOADED")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._answered, question)
        finally:
            self._waiting -= 1

    def _answered(self, question: Callable[[EvidenceLog], T]) -> T:
        if self._reader is None:
            self._reader = self._open()
        return question(self._reader)


def _file(path: str, reader: EvidenceLog) -> bytes | None:
    if path == CHECKPOINT_PATH:
        notes = reader.checkpoints(newest=True)
        return notes[0].encode() if notes else None
    if path == KEYS_PATH:
        keys = reader.verifier_keys()
        return "".join(f"{key}\n" for key in keys).encode() if keys else None
    root = leaves_root_at(path)
    if root is not None:
        leaves = reader.leaves(root)
        return bundle(leaves) if leaves else None
    tile = tile_at(path)
    return _tile(tile, reader) if tile is not None else None


def _tile(tile: Tile, reader: EvidenceLog) -> bytes | None:
    if tile.level is None:
        records = [stored.record for stored in reader.records(tile.first, tile.first + tile.width)]
        return bundle(records) if len(records) == tile.width else None
    hashes = reader.hashes(tile.level, tile.first, tile.width)
    return b"".join(hashes) if len(hashes) == tile.width else None


def _session(session: SessionId, first: int, count: int, reader: EvidenceLog) -> SessionEvidence:
    records = reader.session_records(session)
    notes = reader.checkpoints(newest=True)
    size = noted_checkpoint(notes[0]).size if notes else 0
    subtree = subtree_hashes(reader.hashes)
    return SessionEvidence(
        checkpoint=notes[0] if notes else None,
        total=len(records),
        records=tuple(
            ProvenRecord(
                seq=seq,
                record=record,
                proof=tuple(inclusion_proof(seq, size, subtree)) if seq < size else None,
            )
            for seq, record in records[first : first + count]
        ),
    )


def _first_record(session: SessionId, reader: EvidenceLog) -> bytes | None:
    records = reader.session_records(session)
    return records[0][1] if records else None


def _inclusion(seq: int, size: int, reader: EvidenceLog) -> list[bytes]:
    try:
        return inclusion_proof(seq, size, subtree_hashes(reader.hashes))
    except (ValueError, LookupError) as error:
        raise _no_tree(str(error), "seq") from None


def _consistency(old_size: int, size: int, reader: EvidenceLog) -> list[bytes]:
    try:
        return consistency_proof(old_size, size, subtree_hashes(reader.hashes))
    except (ValueError, LookupError) as error:
        raise _no_tree(str(error), "from") from None


def _no_tree(reason: str, field: str) -> InvalidInputError:
    return InvalidInputError(
        f"no such proof: {reason}; sizes up to that of the newest checkpoint are provable",
        code="OUT_OF_RANGE",
        field=field,
    )
