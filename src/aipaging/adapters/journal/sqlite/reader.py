"""Reading the public part of a journal file, while its controller runs or on a copy of it."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aipaging.adapters.journal.errors import journal_corrupt, journal_io
from aipaging.adapters.journal.sqlite.schema import READ_ROWS, reader_connection, stored_hashes
from aipaging.core.evidence.tiles import unbundled
from aipaging.core.foundation.errors import UnavailableError
from aipaging.core.foundation.names import SessionId
from aipaging.ports.journal import StoredRecord


class SqliteEvidenceReader:
    """An `EvidenceReader` on a journal file; it cannot write and never holds up the writer.

    One reader is used from one thread at a time; any number of readers may be open.
    """

    def __init__(self, path: Path) -> None:
        """Open the file for reading.

        Raises:
            UnavailableError: There is no such file (JOURNAL_IO), or it is not a journal (JOURNAL_CORRUPT).
        """
        self._path = path
        if not path.is_file():
            raise journal_io(str(path), "there is no such file")
        try:
            self._connection = reader_connection(path)
            self._connection.execute("SELECT 1 FROM entries LIMIT 1")
        except sqlite3.DatabaseError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def records(self, first_seq: int, end_seq: int | None = None) -> Iterator[StoredRecord]:
        """See `EvidenceReader.records`."""
        end = self.size() if end_seq is None else end_seq
        query = (
            "SELECT seq, record, leaf_hash, bundle FROM entries LEFT JOIN leaves USING (seq) "
            "WHERE seq >= ? AND seq < ? ORDER BY seq LIMIT ?"
        )
        after = first_seq
        while rows := self._rows(query, (after, end, READ_ROWS)):
            for _, record, hashed, leaves in rows:
                yield StoredRecord(record=record, leaf_hash=hashed, leaves=_leaves(leaves))
            after = rows[-1][0] + 1

    def hashes(self, level: int, first: int, count: int) -> list[bytes]:
        """See `EvidenceReader.hashes`."""
        return stored_hashes(self._connection, level, first, count)

    def leaves(self, root: bytes) -> tuple[bytes, ...] | None:
        """See `EvidenceReader.leaves`."""
        rows = self._rows("SELECT bundle FROM leaves WHERE root = ? LIMIT 1", (root,))
        return _leaves(rows[0][0]) if rows else None

    def checkpoints(self, *, newest: bool) -> list[str]:
        """See `EvidenceReader.checkpoints`."""
        order = "DESC LIMIT 1" if newest else "ASC"
        return [row[0] for row in self._rows(f"SELECT note FROM checkpoints ORDER BY size {order}", ())]  # noqa: S608

    def verifier_keys(self) -> tuple[str, ...]:
        """See `EvidenceReader.verifier_keys`."""
        rows = self._rows("SELECT value FROM meta WHERE key = 'verifier_keys'", ())
        return tuple(str(rows[0][0]).split("\n")) if rows else ()

    def session_records(self, session: SessionId) -> list[tuple[int, bytes]]:
        """Return (seq, record) of the session's own records; renewals in batches are not among them."""
        query = (
            "WITH RECURSIVE segment (part) AS (SELECT 0 UNION ALL SELECT part + 1 FROM segment WHERE part < ? >> 11) "
            "SELECT seq, record FROM segment CROSS JOIN entries ON seq >> 11 = part AND entries.session = "
            "(SELECT number FROM session_keys WHERE session = ?) ORDER BY seq"
        )
        return [(row[0], row[1]) for row in self._rows(query, (self.size(), session))]

    def size(self) -> int:
        """Return how many records there are now."""
        return int(self._rows("SELECT coalesce(max(seq) + 1, 0) FROM entries", ())[0][0])

    def _rows(self, query: str, arguments: tuple[object, ...]) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(query, arguments).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._failed(error) from error

    def _failed(self, error: sqlite3.DatabaseError) -> UnavailableError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        unread = code in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_PERM}
        return (journal_io if unread else journal_corrupt)(str(self._path), str(error))


def _leaves(raw: bytes | None) -> tuple[bytes, ...]:
    if raw is None:
        return ()
    try:
        return tuple(unbundled(raw))
    except ValueError:
        return ()
