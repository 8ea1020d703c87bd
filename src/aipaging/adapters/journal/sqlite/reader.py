"""Reading the public part of a journal, while its controller runs or on copies of its files.

All files of the journal that are there are read as one log. What stands in one that was moved away is an error that
names it, never an answer that lacks it: nobody who asks can tell a short answer from a whole one.
"""

import sqlite3
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from aipaging.adapters.journal.errors import journal_corrupt, journal_io
from aipaging.adapters.journal.sqlite.files import Span, successor_named
from aipaging.adapters.journal.sqlite.schema import READ_ROWS, stored_hashes
from aipaging.adapters.journal.sqlite.standing import StandingFiles
from aipaging.core.evidence.merkle import TILE_HEIGHT
from aipaging.core.evidence.tiles import unbundled
from aipaging.core.foundation.errors import UnavailableError
from aipaging.core.foundation.names import SessionId
from aipaging.ports.journal import StoredRecord

_BEGINNINGS: Final = (b'"type":"SESSION_REQUESTED"', b'"type":"SESSION_REFUSED"')
"""What the first record of every session holds."""


class SqliteEvidenceReader:
    """An `EvidenceReader` on the files of a journal; it cannot write and never holds up the writer.

    One reader is used from one thread at a time; any number of readers may be open.
    """

    def __init__(self, path: Path) -> None:
        """Open the journal for reading; `path` is that of any of its files.

        Raises:
            UnavailableError: There is no such file (JOURNAL_IO), or it is not a journal (JOURNAL_CORRUPT).
        """
        self._standing = StandingFiles(path)
        self._rows(self._head(), "SELECT 1 FROM entries LIMIT 1", ())

    def close(self) -> None:
        """Close the files."""
        self._standing.close()

    def records(self, first_seq: int, end_seq: int | None = None) -> Iterator[StoredRecord]:
        """See `EvidenceReader.records`."""
        end = self.size() if end_seq is None else end_seq
        query = (
            "SELECT seq, record, leaf_hash, bundle FROM entries LEFT JOIN leaves USING (seq) "
            "WHERE seq >= ? AND seq < ? ORDER BY seq LIMIT ?"
        )
        after = first_seq
        while after < end:
            with self._reading():
                span = self._standing.holding(after)
            rows = self._rows(span, query, (after, end if span.end is None else min(end, span.end), READ_ROWS))
            for _, record, hashed, leaves in rows:
                yield StoredRecord(record=record, leaf_hash=hashed, leaves=_leaves(leaves))
            if rows:
                after = rows[-1][0] + 1
            elif span.end is None:
                return
            else:
                after = span.end

    def hashes(self, level: int, first: int, count: int) -> list[bytes]:
        """See `EvidenceReader.hashes`."""
        found: list[bytes] = []
        place, end = first, first + count
        while place < end:
            # A hash is stored with its last record, and carried on into the next file until its parent is whole.
            span, lacking = self._nearest((place + 1 << TILE_HEIGHT * level) - 1)
            ends = (lacking[0] if lacking else span).end
            upto = end if ends is None else min(end, ends >> TILE_HEIGHT * level)
            with self._reading(span):
                rows = stored_hashes(self._standing.connection(span), level, place, upto - place)
            found += rows
            if len(rows) < upto - place:
                if lacking:
                    raise self._standing.lost(lacking)
                return found
            place = upto
        return found

    def leaves(self, root: bytes) -> tuple[bytes, ...] | None:
        """See `EvidenceReader.leaves`."""
        for span in reversed(self._spans(present=True)):
            rows = self._rows(span, "SELECT bundle FROM leaves WHERE root = ? LIMIT 1", (root,))
            if rows:
                return _leaves(rows[0][0])
        lacking = self._spans(present=False)
        if lacking:
            raise self._standing.lost(lacking)
        return None

    def checkpoints(self, *, newest: bool) -> list[str]:
        """See `EvidenceReader.checkpoints`; those of files that are not there are left out."""
        if newest:
            rows = self._rows(self._head(), "SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1", ())
            return [row[0] for row in rows]
        found: dict[int, str] = {}
        for span in self._spans(present=True):  # a file begins with the newest checkpoint of the one before it
            found.update(self._rows(span, "SELECT size, note FROM checkpoints ORDER BY size", ()))
        return list(found.values())

    def verifier_keys(self) -> tuple[str, ...]:
        """See `EvidenceReader.verifier_keys`."""
        rows = self._rows(self._head(), "SELECT value FROM meta WHERE key = 'verifier_keys'", ())
        return tuple(str(rows[0][0]).split("\n")) if rows else ()

    def session_records(self, session: SessionId) -> list[tuple[int, bytes]]:
        """See `EvidenceLog.session_records`."""
        query = (
            "WITH RECURSIVE segment (part) AS "
            "(SELECT ?1 >> 11 UNION ALL SELECT part + 1 FROM segment WHERE part < ?2 >> 11) "
            "SELECT seq, record FROM segment CROSS JOIN entries ON seq >> 11 = part AND entries.session = "
            "(SELECT number FROM session_keys WHERE session = ?3) ORDER BY seq"
        )
        found: list[tuple[int, bytes]] = []
        size = self.size()
        for span in self._spans(present=True):
            end = size if span.end is None else span.end
            found += [(row[0], row[1]) for row in self._rows(span, query, (span.first, end, session))]
        begun = bool(found) and any(beginning in found[0][1] for beginning in _BEGINNINGS)
        lacking = [span for span in self._spans(present=False) if not begun or span.first > found[0][0]]
        if lacking:
            raise self._standing.lost(lacking)
        return found

    def first_seq(self) -> int:
        """See `EvidenceLog.first_seq`."""
        return max((span.end or 0 for span in self._spans(present=False)), default=0)

    def size(self) -> int:
        """Return how many records there are now."""
        return int(self._rows(self._head(), "SELECT coalesce(max(seq) + 1, 0) FROM entries", ())[0][0])

    def continued_in(self) -> str | None:
        """Return the name of the file in which the log goes on, if that one is not there."""
        head = self._head()
        with self._reading(head):
            successor = successor_named(self._standing.connection(head))
        return None if successor is None else self._standing.files.path_of(successor).name

    def _spans(self, *, present: bool) -> list[Span]:
        with self._reading():
            return self._standing.present() if present else self._standing.missing()

    def _head(self) -> Span:
        return self._spans(present=True)[-1]

    def _nearest(self, seq: int) -> tuple[Span, list[Span]]:
        with self._reading():
            return self._standing.nearest(seq)

    def _rows(self, span: Span, query: str, arguments: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._reading(span):
            return self._standing.connection(span).execute(query, arguments).fetchall()

    @contextmanager
    def _reading(self, span: Span | None = None) -> Generator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise self._failed(error, span) from error

    def _failed(self, error: sqlite3.DatabaseError, span: Span | None) -> UnavailableError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        unread = code in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_PERM}
        files = self._standing.files
        where = files.base if span is None else files.path_of(span.first)
        return (journal_io if unread else journal_corrupt)(str(where), str(error))


def _leaves(raw: bytes | None) -> tuple[bytes, ...]:
    if raw is None:
        return ()
    try:
        return tuple(unbundled(raw))
    except ValueError:
        return ()
