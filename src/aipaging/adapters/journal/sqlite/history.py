"""Reading entries back with what is private in them, over all files of the journal.

In every file a session has a key of its own, and its salt is where it was given: what another file knows of a salt, or
of an erasure, holds for all.
"""

import sqlite3
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from cryptography.exceptions import InvalidTag

from aipaging.adapters.journal.errors import journal_corrupt
from aipaging.adapters.journal.sqlite.files import Span
from aipaging.adapters.journal.sqlite.schema import READ_ROWS
from aipaging.adapters.journal.sqlite.standing import StandingFiles
from aipaging.adapters.journal.sqlite.vault import CACHED_SESSIONS_MAX, NO_SESSION, Vault
from aipaging.core.evidence.record import SealedEntry
from aipaging.core.evidence.tiles import unbundled
from aipaging.core.foundation.names import SessionId

_ENTRIES: Final = (
    "SELECT seq, leaf_hash, record, payload, session_keys.session, root, bundle FROM entries "
    "LEFT JOIN session_keys ON number = entries.session LEFT JOIN leaves USING (seq) "
    "WHERE seq >= ?1 AND (?2 IS NULL OR seq < ?2) ORDER BY seq LIMIT ?3"
)

_ERASED: Final = "SELECT session FROM session_keys WHERE secret IS NULL"


class Opened(NamedTuple):
    """A file that is open, and what its sessions' payloads are encrypted with."""

    connection: sqlite3.Connection
    vault: Vault


class History:
    """Reads a journal back, from one thread.

    Args:
        standing: The files that are there; closed when all is read.
        head: The one that is written.
        key_encryption_key: What wraps the sessions' keys.
    """

    def __init__(self, standing: StandingFiles, head: Opened, key_encryption_key: bytes) -> None:
        self._standing = standing
        self._head = head
        self._key_encryption_key = key_encryption_key
        self._older: dict[int, Opened] = {}
        self._salts: OrderedDict[str, bytes] = OrderedDict()

    def entries(self, first_seq: int) -> Iterator[SealedEntry]:
        """Yield the entries from `first_seq` on.

        Raises:
            UnavailableError: Some are in a file that is not there (JOURNAL_FILE_MISSING), or were altered.
        """
        erased = frozenset(row[0] for row in self._head.connection.execute(_ERASED))
        try:
            spans = [span for span in self._standing.spans() if span.end is None or span.end > first_seq]
            if lacking := [span for span in spans if not span.present]:
                raise self._standing.lost(lacking)
            for span in spans:
                yield from self._entries_of(span, max(first_seq, span.first), erased)
        finally:
            self._standing.close()

    def _entries_of(self, span: Span, after: int, erased: frozenset[str]) -> Iterator[SealedEntry]:
        while rows := self._opened(span).connection.execute(_ENTRIES, (after, span.end, READ_ROWS)).fetchall():
            for row in rows:
                yield self._entry(span, row, erased)
            after = rows[-1][0] + 1

    def _entry(self, span: Span, row: Sequence[Any], erased: frozenset[str]) -> SealedEntry:
        seq, hashed, record, stored, session, root, leaves = row
        payload, salt = None, b""
        if stored is not None and session not in erased:
            payload, salt = self._decrypted(span, session or NO_SESSION, seq, stored)
        return SealedEntry(
            seq=seq,
            record=record,
            leaf_hash=hashed,
            leaves=tuple(unbundled(leaves)) if leaves else (),
            root=root or b"",
            payload=payload,
            session=SessionId(session) if session else None,
            salt=salt or None,
        )

    def _decrypted(self, span: Span, session: str, seq: int, stored: bytes) -> tuple[bytes | None, bytes]:
        try:
            found = self._opened(span).vault.decrypted(session, seq, stored)
        except InvalidTag as error:
            where = str(self._standing.files.path_of(span.first))
            raise journal_corrupt(where, f"the payload of record {seq} does not decrypt") from error
        if found is None:
            return None, b""
        payload, salt = found
        return payload, salt or self._salt(session)

    def _salt(self, session: str) -> bytes:
        """Return the salt that another file has for a session."""
        present = self._standing.present()
        if len(present) == 1:
            return b""
        if session not in self._salts:
            salts = (self._opened(span).vault.salt(session) for span in reversed(present))
            self._salts[session] = next(filter(None, salts), b"")
            if len(self._salts) > CACHED_SESSIONS_MAX:
                self._salts.popitem(last=False)
        return self._salts[session]

    def _opened(self, span: Span) -> Opened:
        if span.end is None:
            return self._head
        connection = self._standing.connection(span)
        known = self._older.get(span.first)
        if known is None or known.connection is not connection:
            known = self._older[span.first] = Opened(connection, Vault(connection, self._key_encryption_key))
        return known
