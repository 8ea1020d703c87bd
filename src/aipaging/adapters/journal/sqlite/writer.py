"""The journal on SQLite: write-ahead log, one sync per batch, one transaction per batch.

SQLite's commit is atomic, so a torn last batch vanishes as a whole when the file is opened; nobody was told that it
was stored. What did commit is checked on opening from the last full tile on (chain, hashes, newest checkpoint); a
tail that does not fit was altered or damaged afterwards, may hold acknowledged records, and is therefore neither
used nor cut: the journal refuses to open, and `aipaging evidence verify` names the record.
When the file is large the journal goes on in another (`succession`), right after a batch whose checkpoint covers it.
After a failed append the transaction is rolled back and the head is read from the file; if the file cannot say, or
a sync failed (the kernel may then have dropped the pages), the journal stays shut until it is opened anew.
"""

import contextlib
import logging
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag

from aipaging.adapters.journal.errors import (
    journal_corrupt,
    journal_file_missing,
    journal_full,
    journal_gap,
    journal_io,
    snapshot_damaged,
)
from aipaging.adapters.journal.sqlite.ballast import BALLAST_BYTES, Ballast
from aipaging.adapters.journal.sqlite.erasure import (
    erased_in,
    files_with_key,
    files_with_log,
    make_up,
    recorded_since,
)
from aipaging.adapters.journal.sqlite.failing import Transaction, is_full, read_error, write_error
from aipaging.adapters.journal.sqlite.files import JournalFiles, files_named, successor_named
from aipaging.adapters.journal.sqlite.history import History, Opened
from aipaging.adapters.journal.sqlite.lock import FileLock
from aipaging.adapters.journal.sqlite.moving import LogMover
from aipaging.adapters.journal.sqlite.schema import (
    SCHEMA_VERSIONS,
    insert_rows,
    reader_connection,
    stored_hashes,
    stored_version,
    writer_connection,
)
from aipaging.adapters.journal.sqlite.sealing import Sealing, seal_older
from aipaging.adapters.journal.sqlite.snapshots import SnapshotFiles
from aipaging.adapters.journal.sqlite.standing import StandingFiles
from aipaging.adapters.journal.sqlite.succession import clear, make_next
from aipaging.adapters.journal.sqlite.vault import NO_SESSION, Vault
from aipaging.core.evidence.log import LogHead, noted_checkpoint, resumed
from aipaging.core.evidence.merkle import Frontier, frontier, leaf_hash
from aipaging.core.evidence.record import FIRST_PREV, SealedEntry
from aipaging.core.evidence.tiles import TILE_WIDTH, bundle, subtree_hashes
from aipaging.core.foundation.errors import AipagingError, UnavailableError, UnverifiedError
from aipaging.core.foundation.names import SessionId
from aipaging.ports.journal import WrittenSnapshot

LOG: Final = logging.getLogger("aipaging.journal")

SPARE_FACTOR: Final = 2
"""Free space, in ballasts, at which a journal that was full takes ordinary records again: no flapping at the edge."""

_ENCODE: Final = msgspec.msgpack.Encoder().encode
_WRITTEN: Final = msgspec.msgpack.Decoder(WrittenSnapshot)


class SqliteJournal:
    """A `Journal`, `SnapshotStore` and `Eraser` in files; used from one thread at a time, but for `write`.

    Args:
        path: The first file; the others, the lock and the ballast stand beside it.
        key_encryption_key: 32 bytes that wrap the sessions' keys.
        verifier_keys: The C2SP verifier keys of the log's checkpoints, kept in the file for its readers.
        ballast_bytes: Space kept aside for restrictive records.
        pages_max: A ceiling on the size of all files, for quotas and tests; the ballast comes on top of it.
        file_bytes_max: The size at which the journal goes on in another file, looked at whenever the write-ahead log
            has become long; 0 for never.

    Attributes:
        first_seq: The first record of the file that is written.
        failures: How often the journal could not go on in another file.
    """

    def __init__(
        self,
        path: Path,
        key_encryption_key: bytes,
        *,
        verifier_keys: Sequence[str] = (),
        ballast_bytes: int = BALLAST_BYTES,
        pages_max: int | None = None,
        file_bytes_max: int = 0,
    ) -> None:
        self._files = JournalFiles(path)
        path = self._files.base
        self._key_encryption_key = key_encryption_key
        self._verifier_keys = tuple(verifier_keys)
        self._pages_max = pages_max
        self._ballast_bytes = ballast_bytes
        self._lock = FileLock(path.with_name(path.name + ".lock"))
        self._ballast = Ballast(path.with_name(path.name + ".ballast"), ballast_bytes)
        self._snapshots = SnapshotFiles(path, spare_bytes=SPARE_FACTOR * ballast_bytes)
        self._file_bytes_max = file_bytes_max
        self.first_seq = 0
        self.failures = 0
        self._mover = LogMover(path)
        self._sealing = Sealing()
        self._connection: sqlite3.Connection | None = None
        self._vault: Vault | None = None
        self._size = 0
        self._signed_size = 0
        self._weighed = 0
        self._broken = ""

    @property
    def _path(self) -> Path:
        return self._files.path_of(self.first_seq)

    def open(self) -> LogHead:
        """See `Journal.open`."""
        where = str(self._files.base)
        try:
            self._lock.acquire()
        except OSError as error:
            raise journal_io(where, f"{error.strerror}: {error.filename}") from error
        try:
            try:
                head = self._recovered()
            except sqlite3.OperationalError as error:
                if not is_full(error, self._path.parent):
                    raise
                self._ballast.release()  # a full disk must not keep revocations from being recorded
                head = self._recovered()
            else:
                self._ballast.hold()
            self._size, self._broken = head.seq, ""
            newest = self._newest()
            self._snapshots.keep_only(newest[2].name if newest is not None else "")
        except (sqlite3.Error, OSError, UnverifiedError, LookupError) as error:
            self.close()
            raise read_error(error, self._path) from error
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
            if not (restrictive and self._ballast.held and is_full(error, self._path.parent)):
                raise write_error(error, self._path, restrictive=restrictive) from error
            self._make_room(connection)
            self.append(entries, checkpoint, restrictive=True)  # once: the ballast is no longer held
        else:
            if self._mover.rounds != self._weighed:
                self._weigh(connection)

    def go_on(self) -> bool:
        """Go on in another file, if a checkpoint covers all records of this one; tell whether it does.

        Where the other file cannot be made, nothing has happened: it is logged and counted, and tried again later.
        """
        connection, _ = self._opened()
        if self._size == self.first_seq or self._signed_size != self._size:
            return False
        begun = time.perf_counter()
        try:
            make_next(connection, self._files, self._size)
        except (OSError, sqlite3.Error, AipagingError) as error:
            self.failures += 1
            LOG.warning("the journal does not go on in another file yet", extra={"reason": str(error)})
            return False
        mover, path = self._mover, self._path
        self.first_seq, self._connection = self._size, None
        try:
            self._files.sync_folder()  # before anything is acknowledged that only the new file has
            self._connect().execute("DELETE FROM meta WHERE key = ''")  # SQLite may have opened it for reading only
        except (OSError, sqlite3.Error, AipagingError) as error:
            mover.wait()
            connection.close()
            self._broken = f"going on in another file: {error}"
            LOG.error("the journal is to be opened anew", extra={"reason": self._broken})  # noqa: TRY400 - expected
            return False
        self._sealing.begin(connection, mover, path, self._size)
        took_s = round(time.perf_counter() - begun, 4)
        LOG.info("the journal goes on in another file", extra={"file": str(self._path), "seconds": took_s})
        return True

    def read(self, first_seq: int) -> Iterator[SealedEntry]:
        """See `Journal.read`."""
        head = Opened(*self._opened())
        try:
            yield from History(
                StandingFiles(self._files.base, head.connection), head, self._key_encryption_key
            ).entries(first_seq)
        except sqlite3.Error as error:
            raise read_error(error, self._path) from error

    def checkpoint(self) -> str | None:
        """See `Journal.checkpoint`."""
        row = self._opened()[0].execute("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1").fetchone()
        return row[0] if row else None

    def close(self) -> None:
        """See `Journal.close`."""
        self._mover.wait()
        self._sealing.close()
        if self._connection is not None:
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
        with Transaction(connection, self._path):
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
        with Transaction(connection, self._path):
            connection.execute("DELETE FROM snapshots")
        self._snapshots.keep_only("")

    def erase(self, session: SessionId) -> bool:
        """See `Eraser.erase`.

        Raises:
            UnavailableError: A reader keeps the write-ahead log from being emptied of the key (JOURNAL_BUSY); the
                session is erased, and erasing again empties it.
        """
        connection, vault = self._opened()
        self._sealing.wait()
        with (
            contextlib.closing(StandingFiles(self._files.base, connection)) as standing,
            Transaction(connection, self._path),
        ):
            older = files_with_key(standing, session)
            # In files that are away it may be known too: they are made up for when they are back.
            known = bool(older) or vault.knows(session) or bool(standing.missing())
            if known:
                vault.bury(session)
            (snapshot,) = connection.execute("SELECT max(seq) FROM snapshots").fetchone()
            if snapshot is not None and recorded_since(standing, session, snapshot):
                connection.execute("DELETE FROM snapshots")
            left = {*older, *files_with_log(standing)}
        newest = self._newest()
        self._snapshots.keep_only(newest[2].name if newest is not None else "")
        vault.forget()
        self._mover.wait()
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        try:
            holding = [path for path in sorted(left) if not erased_in(path, [session])]
        except sqlite3.Error as error:
            raise write_error(error, self._path) from error
        if busy or holding:
            raise UnavailableError(
                f"{(holding or [self._path])[0]}: a reader holds the write-ahead log, which still has the erased key; "
                "erase again later",
                code="JOURNAL_BUSY",
            )
        return known

    def _opened(self) -> tuple[sqlite3.Connection, Vault]:
        if self._broken:
            raise journal_io(str(self._path), self._broken)
        if self._connection is None or self._vault is None:
            raise journal_io(str(self._path), "it is not open")
        return self._connection, self._vault

    def _check_places(self, entries: Sequence[SealedEntry]) -> None:
        for place, entry in enumerate(entries, self._size):
            if entry.seq != place:
                raise journal_gap(entry.seq, place)

    def _recovered(self) -> LogHead:
        """Open the head and return where to go on, after checking its tail."""
        if self._connection is not None:
            self._connection.close()
        clear(self._files)
        self.first_seq = max(self._files.present(), default=0)
        connection = self._connect()
        ever = files_named(connection)
        self._check_neighbours(connection, ever)
        if self.first_seq:
            self._files.sync_folder()  # a crash may have left the name of the head only in memory
            seal_older(self._files, ever)
            make_up(connection, self._files, ever)
        note = self._newest_note(connection)
        checkpoint = noted_checkpoint(note) if note else None
        self._signed_size = checkpoint.size if checkpoint else 0
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

    def _connect(self) -> sqlite3.Connection:
        """Open the head for writing."""
        self._connection = connection = writer_connection(self._path)
        if (version := stored_version(connection)) not in SCHEMA_VERSIONS:
            allowed = " or ".join(map(str, sorted(SCHEMA_VERSIONS)))
            raise journal_corrupt(str(self._path), f"its schema version is {version!r}, not {allowed}")
        self._mover, self._weighed = LogMover(self._path), 0
        self._limit_pages(connection, self._pages_max)
        self._vault = Vault(connection, self._key_encryption_key)
        self._vault.check_key()
        keys = "\n".join(self._verifier_keys)
        stored = connection.execute("SELECT value FROM meta WHERE key = 'verifier_keys'").fetchone()
        if keys and stored != (keys,):
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('verifier_keys', ?)", (keys,))
        return connection

    def _check_neighbours(self, connection: sqlite3.Connection, ever: Sequence[int]) -> None:
        """Check that no later file is missing, and that the head goes on where the file before it ends."""
        successor = successor_named(connection)
        if successor is not None:
            missing = self._files.path_of(successor)
            raise journal_file_missing(str(self._files.base), [missing.name], f"the records from {successor} on")
        if ever[-1] != self.first_seq:
            raise journal_corrupt(str(self._path), f"it begins with record {ever[-1]}, and its name says otherwise")
        before = self._files.path_of(ever[-2]) if len(ever) > 1 else None
        if before is not None and before.exists():
            with contextlib.closing(reader_connection(before)) as other:
                last = other.execute("SELECT seq, record FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
            row = connection.execute("SELECT seq, record FROM entries WHERE seq = ?", (self.first_seq - 1,)).fetchone()
            if last != row:
                raise journal_corrupt(str(self._path), f"it does not go on where {before.name} ends")

    def _weigh(self, connection: sqlite3.Connection) -> None:
        """Go on in another file if this one is large and signed to its end; another batch will be, if it is not."""
        if self._signed_size != self._size or not self._ballast.held:
            return
        self._weighed = self._mover.rounds
        if not self._file_bytes_max:
            return
        with contextlib.suppress(sqlite3.Error):  # the next batch shows what is the matter
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
            if pages * page_bytes >= self._file_bytes_max:
                self.go_on()

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
        signed = 0
        insert_rows(connection, "entries", rows)
        insert_rows(connection, "leaves", batches)
        insert_rows(connection, "subtrees", completed)
        if checkpoint is not None:
            signed = noted_checkpoint(checkpoint).size
            connection.execute("INSERT OR REPLACE INTO checkpoints VALUES (?, ?)", (signed, checkpoint))
        connection.execute("COMMIT")
        self._signed_size = max(self._signed_size, signed)

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
        elif isinstance(error, sqlite3.Error) and not is_full(error, self._path.parent):
            self._broken = str(error)

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
            (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
            sealed = [self._files.path_of(first) for first in self._files.present() if first != self.first_seq]
            left = pages - sum(path.stat().st_size for path in sealed) // int(page_bytes)
            connection.execute(f"PRAGMA max_page_count = {max(1, left)}")


def _salts(entries: Sequence[SealedEntry]) -> dict[str, bytes | None]:
    """Return the sessions that entries are about or encrypted for, and their salts where these are given."""
    salts: dict[str, bytes | None] = {}
    for entry in entries:
        if entry.session is not None or entry.payload is not None:
            session = entry.session or NO_SESSION
            salts[session] = salts.get(session) or entry.salt
    return salts
