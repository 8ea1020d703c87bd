"""The journal on SQLite: write-ahead log, one sync per batch, one transaction per batch.

SQLite's commit is atomic, so a torn last batch vanishes as a whole when the file is opened; nobody was told that it
was stored. What did commit is checked on opening from the last full tile on (chain, hashes, newest checkpoint); a
tail that does not fit was altered or damaged afterwards, may hold acknowledged records, and is therefore neither
used nor cut: the journal refuses to open, and `aipaging evidence verify` names the record.
After a failed append the transaction is rolled back and the head is read from the file; if the file cannot say, or
a sync failed (the kernel may then have dropped the pages), the journal stays shut until it is opened anew.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag

from aipaging.adapters.journal.errors import (
    journal_corrupt,
    journal_full,
    journal_gap,
    journal_io,
    snapshot_damaged,
)
from aipaging.adapters.journal.sqlite.ballast import BALLAST_BYTES, Ballast
from aipaging.adapters.journal.sqlite.lock import FileLock
from aipaging.adapters.journal.sqlite.moving import LogMover
from aipaging.adapters.journal.sqlite.schema import (
    READ_ROWS,
    SCHEMA_VERSION,
    insert_rows,
    stored_hashes,
    stored_version,
    writer_connection,
)
from aipaging.adapters.journal.sqlite.snapshots import SnapshotFiles
from aipaging.adapters.journal.sqlite.vault import NO_SESSION, Vault
from aipaging.core.evidence.log import LogHead, noted_checkpoint, resumed
from aipaging.core.evidence.merkle import Frontier, frontier, leaf_hash
from aipaging.core.evidence.record import FIRST_PREV, SealedEntry
from aipaging.core.evidence.tiles import TILE_WIDTH, bundle, subtree_hashes, unbundled
from aipaging.core.foundation.errors import UnavailableError, UnverifiedError
from aipaging.core.foundation.names import SessionId
from aipaging.ports.journal import WrittenSnapshot

SPARE_FACTOR: Final = 2
"""Free space, in ballasts, at which a journal that was full takes ordinary records again: no flapping at the edge."""

_SHORT_BYTES: Final = 1 << 20
"""With less than this free, a failed write of the shared index is for want of space, not a broken disk."""


_ENCODE: Final = msgspec.msgpack.Encoder().encode
_WRITTEN: Final = msgspec.msgpack.Decoder(WrittenSnapshot)


class SqliteJournal:
    """A `Journal`, `SnapshotStore` and `Eraser` in one file; used from one thread at a time, but for `write`.

    Args:
        path: The journal file; its lock and ballast stand beside it.
        key_encryption_key: 32 bytes that wrap the sessions' keys.
        verifier_keys: The C2SP verifier keys of the log's checkpoints, kept in the file for its readers.
        ballast_bytes: Space kept aside for restrictive records.
        pages_max: A ceiling on the file's size, for quotas and tests; the ballast comes on top of it.
    """

    def __init__(
        self,
        path: Path,
        key_encryption_key: bytes,
        *,
        verifier_keys: Sequence[str] = (),
        ballast_bytes: int = BALLAST_BYTES,
        pages_max: int | None = None,
    ) -> None:
        self._path = path
        self._key_encryption_key = key_encryption_key
        self._verifier_keys = tuple(verifier_keys)
        self._pages_max = pages_max
        self._ballast_bytes = ballast_bytes
        self._lock = FileLock(path.with_name(path.name + ".lock"))
        self._ballast = Ballast(path.with_name(path.name + ".ballast"), ballast_bytes)
        self._snapshots = SnapshotFiles(path, spare_bytes=SPARE_FACTOR * ballast_bytes)
        self._mover = LogMover(path)
        self._connection: sqlite3.Connection | None = None
        self._vault: Vault | None = None
        self._size = 0
        self._broken = ""

    def open(self) -> LogHead:
        """See `Journal.open`."""
        where = str(self._path)
        try:
            self._lock.acquire()
        except OSError as error:
            raise journal_io(where, f"{error.strerror}: {error.filename}") from error
        try:
            try:
                head = self._recovered()
            except sqlite3.OperationalError as error:
                if not self._is_full(error):
                    raise
                self._ballast.release()  # a full disk must not keep revocations from being recorded
                head = self._recovered()
            else:
                self._ballast.hold()
            self._size, self._broken = head.seq, ""
            newest = self._newest()
            self._snapshots.keep_only(newest[2].name if newest is not None else "")
        except (sqlite3.Error, UnverifiedError, LookupError) as error:
            self.close()
            raise self._open_error(error) from error
        except BaseException:
            self.close()
            raise
        return head

    def append(self, entries: Sequence[SealedEntry], checkpoint: str | None, *, restrictive: bool = False) -> None:
        """See `Journal.append`."""
        connection, vault = self._opened()
        self._check_places(entries)
        if not restrictive and not self._ballast.held:
            if not self._ballast.hold(spare_factor=SPARE_FACTOR):
                raise journal_full(str(self._path))
            self._limit_pages(connection, self._pages_max)
        try:
            self._write(connection, vault, entries, checkpoint)
            self._size += len(entries)
            self._mover.wrote(connection, len(entries))
        except BaseException as error:
            self._undo(connection, vault, error)
            if not isinstance(error, sqlite3.Error):
                raise
            if not self._is_full(error):
                raise journal_io(str(self._path), str(error)) from error
            if not restrictive or not self._ballast.held:
                raise journal_full(str(self._path), restrictive=restrictive) from error
            self._make_room(connection)
            self.append(entries, checkpoint, restrictive=True)  # once: the ballast is no longer held

    def read(self, first_seq: int) -> Iterator[SealedEntry]:
        """See `Journal.read`."""
        connection, vault = self._opened()
        query = (
            "SELECT seq, leaf_hash, record, payload, session_keys.session, root, bundle FROM entries "
            "LEFT JOIN session_keys ON number = entries.session LEFT JOIN leaves USING (seq) "
            "WHERE seq >= ? ORDER BY seq LIMIT ?"
        )
        while rows := connection.execute(query, (first_seq, READ_ROWS)).fetchall():
            for seq, hashed, record, stored, session, root, leaves in rows:
                payload, salt = None, None
                if stored is not None:
                    payload, salt = self._decrypted(vault, session or NO_SESSION, seq, stored)
                yield SealedEntry(
                    seq=seq,
                    record=record,
                    leaf_hash=hashed,
                    leaves=tuple(unbundled(leaves)) if leaves else (),
                    root=root or b"",
                    payload=payload,
                    session=SessionId(session) if session else None,
                    salt=salt or None,
                )
            first_seq = rows[-1][0] + 1

    def checkpoint(self) -> str | None:
        """See `Journal.checkpoint`."""
        row = self._opened()[0].execute("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1").fetchone()
        return row[0] if row else None

    def close(self) -> None:
        """See `Journal.close`."""
        if self._connection is not None:
            self._mover.wait()
            self._connection.close()
        self._connection, self._vault = None, None
        self._lock.release()

    def write(self, parts: Iterable[bytes]) -> WrittenSnapshot:
        """See `SnapshotStore.write`."""
        return self._snapshots.write(parts)

    def save(self, seq: int, root_hex: str, written: WrittenSnapshot) -> None:
        """See `SnapshotStore.save`."""
        connection, vault = self._opened()
        if not self._snapshots.exists(written):
            raise snapshot_damaged(written.name, "it was discarded")
        stored = vault.encrypted_snapshot(_ENCODE(written), f"{seq} {root_hex}")
        with _Transaction(self, connection):
            connection.execute("DELETE FROM snapshots")
            connection.execute("INSERT INTO snapshots VALUES (?, ?, ?)", (seq, root_hex, stored))
        self._snapshots.keep_only(written.name)

    def newest(self) -> tuple[int, str, Iterator[bytes]] | None:
        """See `SnapshotStore.newest`; one whose place was altered, or whose file is gone, counts as none."""
        found = self._newest()
        return None if found is None else (found[0], found[1], self._snapshots.read(found[2]))

    def _newest(self) -> tuple[int, str, WrittenSnapshot] | None:
        connection, vault = self._opened()
        row = connection.execute("SELECT seq, root, blob FROM snapshots ORDER BY seq DESC LIMIT 1").fetchone()
        if row is None:
            return None
        seq, root_hex, stored = row
        try:
            written = _WRITTEN.decode(vault.decrypted_snapshot(stored, f"{seq} {root_hex}"))
        except (InvalidTag, msgspec.MsgspecError):
            return None
        return (seq, root_hex, written) if self._snapshots.exists(written) else None

    def discard(self) -> None:
        """See `SnapshotStore.discard`."""
        connection, _ = self._opened()
        with _Transaction(self, connection):
            connection.execute("DELETE FROM snapshots")
        self._snapshots.keep_only("")

    def erase(self, session: SessionId) -> bool:
        """See `Eraser.erase`.

        Raises:
            UnavailableError: A reader keeps the write-ahead log from being emptied of the key (JOURNAL_BUSY); the
                session is erased, and erasing again empties it.
        """
        connection, vault = self._opened()
        with _Transaction(self, connection):
            query = "UPDATE session_keys SET secret = NULL WHERE session = ? RETURNING number"
            numbers: list[tuple[int]] = connection.execute(query, (session,)).fetchall()
            connection.executemany(
                "DELETE FROM snapshots WHERE EXISTS "
                "(SELECT 1 FROM entries WHERE entries.seq >= snapshots.seq AND entries.session = ?)",
                numbers,
            )
        newest = self._newest()
        self._snapshots.keep_only(newest[2].name if newest is not None else "")
        vault.forget()
        self._mover.wait()
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise UnavailableError(
                f"{self._path}: a reader holds the write-ahead log, which still has the erased key; erase again later",
                code="JOURNAL_BUSY",
            )
        return bool(numbers)

    def _opened(self) -> tuple[sqlite3.Connection, Vault]:
        if self._connection is None or self._vault is None:
            raise journal_io(str(self._path), "it is not open")
        if self._broken:
            raise journal_io(str(self._path), self._broken)
        return self._connection, self._vault

    def _check_places(self, entries: Sequence[SealedEntry]) -> None:
        for place, entry in enumerate(entries, self._size):
            if entry.seq != place:
                raise journal_gap(entry.seq, place)

    def _recovered(self) -> LogHead:
        """Open the file and return its head, after checking its tail."""
        if self._connection is not None:
            self._connection.close()
        self._connection = connection = writer_connection(self._path)
        if (version := stored_version(connection)) != SCHEMA_VERSION:
            raise journal_corrupt(str(self._path), f"its schema version is {version!r}, not {SCHEMA_VERSION}")
        self._limit_pages(connection, self._pages_max)
        self._vault = Vault(connection, self._key_encryption_key)
        self._vault.check_key()
        keys = "\n".join(self._verifier_keys)
        if keys:
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('verifier_keys', ?)", (keys,))
        note = self._newest_note(connection)
        checkpoint = noted_checkpoint(note) if note else None
        (count,) = connection.execute("SELECT coalesce(max(seq) + 1, 0) FROM entries").fetchone()
        first = min(count, checkpoint.size if checkpoint else count) // TILE_WIDTH * TILE_WIDTH
        rows = connection.execute("SELECT record, leaf_hash FROM entries WHERE seq >= ? ORDER BY seq", (first,))
        tail = [(record, hashed) for record, hashed in rows]
        base = LogHead(seq=first, prev=self._prev(connection, first), tree=self._stored_tree(connection, first))
        head = resumed(base, [record for record, _ in tail], checkpoint)
        for seq, (record, hashed) in enumerate(tail, first):
            if leaf_hash(record) != hashed:
                raise journal_corrupt(str(self._path), f"record {seq} does not have the hash that it was stored with")
        return head

    def _newest_note(self, connection: sqlite3.Connection) -> str | None:
        row = connection.execute("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1").fetchone()
        return row[0] if row else None

    def _prev(self, connection: sqlite3.Connection, seq: int) -> str:
        row = connection.execute("SELECT record FROM entries WHERE seq = ?", (seq - 1,)).fetchone()
        return sha256(row[0]).hexdigest() if row else FIRST_PREV

    def _stored_tree(self, connection: sqlite3.Connection, size: int) -> Frontier:
        def hashes(level: int, first: int, count: int) -> list[bytes]:
            return stored_hashes(connection, level, first, count)

        return frontier(size, subtree_hashes(hashes))

    def _write(
        self,
        connection: sqlite3.Connection,
        vault: Vault,
        entries: Sequence[SealedEntry],
        checkpoint: str | None,
    ) -> None:
        """Store a batch in one transaction."""
        connection.execute("BEGIN IMMEDIATE")
        vault.know(_salts(entries))
        rows: list[tuple[int, int | None, bytes, bytes, bytes | None]] = []
        batches: list[tuple[int, bytes, bytes]] = []
        for entry in entries:
            number = None if entry.session is None else vault.number(entry.session)
            stored = None
            if entry.payload is not None:
                stored = vault.encrypted(entry.session or NO_SESSION, entry.seq, entry.payload, entry.salt)
            rows.append((entry.seq, number, entry.leaf_hash, entry.record, stored))
            if entry.leaves:
                batches.append((entry.seq, entry.root, bundle(entry.leaves)))
        completed = [tile for entry in entries for tile in entry.tiles]
        insert_rows(connection, "entries", rows)
        insert_rows(connection, "leaves", batches)
        insert_rows(connection, "subtrees", completed)
        if checkpoint is not None:
            size = noted_checkpoint(checkpoint).size
            connection.execute("INSERT OR REPLACE INTO checkpoints VALUES (?, ?)", (size, checkpoint))
        connection.execute("COMMIT")

    def _undo(self, connection: sqlite3.Connection, vault: Vault, error: BaseException) -> None:
        """Roll back, and make sure that the file holds what it held before."""
        vault.forget()
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            (count,) = connection.execute("SELECT coalesce(max(seq) + 1, 0) FROM entries").fetchone()
        except sqlite3.Error as undo_error:
            self._broken = f"{error}; then {undo_error}"
            return
        if count != self._size:
            self._broken = f"{error}; the file has {count} records, {self._size} were acknowledged"
        elif isinstance(error, sqlite3.Error) and not self._is_full(error):
            self._broken = str(error)

    def _open_error(self, error: Exception) -> UnavailableError:
        where = str(self._path)
        if isinstance(error, sqlite3.Error):
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
                return journal_corrupt(where, str(error))
            return journal_full(where) if self._is_full(error) else journal_io(where, str(error))
        return journal_corrupt(where, str(error))

    def _is_full(self, error: BaseException) -> bool:
        if not isinstance(error, sqlite3.Error):
            return False
        code: int = getattr(error, "sqlite_errorcode", 0)
        if code == sqlite3.SQLITE_FULL:
            return True
        free = os.statvfs(self._path.parent)
        short = free.f_bavail * free.f_frsize < _SHORT_BYTES
        return short and code in {sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_CANTOPEN}

    def _make_room(self, connection: sqlite3.Connection) -> None:
        """Give the ballast to the journal, and the write-ahead log's space too."""
        self._ballast.release()
        self._limit_pages(connection, self._pages_with_ballast(connection))
        self._mover.wait()
        with contextlib.suppress(sqlite3.Error):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _pages_with_ballast(self, connection: sqlite3.Connection) -> int | None:
        if self._pages_max is None:
            return None
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        return self._pages_max + self._ballast_bytes // int(page_bytes)

    def _limit_pages(self, connection: sqlite3.Connection, pages: int | None) -> None:
        if pages is not None:
            connection.execute(f"PRAGMA max_page_count = {int(pages)}")

    def _decrypted(
        self, vault: Vault, session: str, seq: int, stored: bytes
    ) -> tuple[bytes, bytes] | tuple[None, None]:
        try:
            return vault.decrypted(session, seq, stored) or (None, None)
        except InvalidTag as error:
            raise journal_corrupt(str(self._path), f"the payload of record {seq} does not decrypt") from error

    def transaction_failed(self, error: BaseException) -> UnavailableError:
        """Return what to raise when a transaction outside the log failed; the log is as it was."""
        where = str(self._path)
        return journal_full(where) if self._is_full(error) else journal_io(where, str(error))


def _salts(entries: Sequence[SealedEntry]) -> dict[str, bytes | None]:
    """Return the sessions that entries are about or encrypted for, and their salts where these are given."""
    salts: dict[str, bytes | None] = {}
    for entry in entries:
        if entry.session is not None or entry.payload is not None:
            session = entry.session or NO_SESSION
            salts[session] = salts.get(session) or entry.salt
    return salts


class _Transaction:
    """A transaction on tables outside the log: all or nothing, in the journal's errors."""

    def __init__(self, journal: SqliteJournal, connection: sqlite3.Connection) -> None:
        self._journal = journal
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        failure = error
        if failure is None:
            try:
                self._connection.execute("COMMIT")
            except sqlite3.Error as commit_error:
                failure = commit_error
        if self._connection.in_transaction:  # a full disk makes SQLite roll back by itself
            self._connection.execute("ROLLBACK")
        if isinstance(failure, sqlite3.Error):
            raise self._journal.transaction_failed(failure) from failure
