"""Encryption at rest: one data key per session, wrapped by the key that the caller gives.

AES-256-GCM throughout, with random nonces: after a restored backup the same sequence numbers come again under the
same key, and a nonce made from them would repeat. Erasing a session deletes its wrapped key and salt; what was
encrypted under it is then noise.
"""

import os
import sqlite3
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from aipaging.adapters.journal.errors import session_erased
from aipaging.adapters.journal.sqlite.schema import ROWS_TOGETHER_MAX, insert_rows
from aipaging.core.foundation.errors import UnavailableError

KEY_BYTES: Final = 32
"""AES-256."""

NONCE_BYTES: Final = 12
"""What GCM takes without hashing; random, for fewer than 2**32 messages a key (NIST SP 800-38D, 8.3)."""

CACHED_SESSIONS_MAX: Final = 4_096
"""Sessions whose keys stay in memory, a third of a kilobyte each: those that were written last. Others are unwrapped
again, at 20 us."""

UNCOUNTED: Final = -1
"""How many numbers were given is to be read from the file."""

NO_SESSION: Final = ""
"""Whose key encrypts the payloads of records that are about no session: it is never erased."""

_KEY_CHECK: Final = b"aipaging journal"


class _Cached(NamedTuple):
    number: int
    secret: bytes
    """Key and salt; nothing is left of an erased session. Not a cipher: that takes 2.6 kB, and 1 us to be made."""

    @property
    def cipher(self) -> AESGCM:
        return AESGCM(self.secret[:KEY_BYTES])

    @property
    def salt(self) -> bytes:
        return self.secret[KEY_BYTES:]


class Vault:
    """Session numbers, keys and salts of one journal file."""

    def __init__(self, connection: sqlite3.Connection, key_encryption_key: bytes) -> None:
        self._connection = connection
        self._wrapping = AESGCM(key_encryption_key)
        self._cached: OrderedDict[str, _Cached] = OrderedDict()
        self._numbers = UNCOUNTED

    def check_key(self) -> None:
        """Check that this key wrapped the keys of the file; leave a mark in a new file.

        Raises:
            UnavailableError: It is another key (JOURNAL_KEY).
        """
        row = self._connection.execute("SELECT value FROM meta WHERE key='key_check'").fetchone()
        if row is None:
            mark = _sealed(self._wrapping, _KEY_CHECK, b"key_check")
            self._connection.execute("INSERT INTO meta VALUES ('key_check', ?)", (mark,))
            return
        try:
            _opened(self._wrapping, row[0], b"key_check")
        except InvalidTag:
            raise UnavailableError(
                "the key-encryption key is not the one that the journal was written with; the operator must configure "
                "that one",
                code="JOURNAL_KEY",
            ) from None

    def know(self, salts: Mapping[str, bytes | None]) -> None:
        """Look up sessions, with their salts where these are known; those that are new get numbers and keys."""
        unknown = [session for session in salts if session not in self._cached]
        if not unknown:
            return
        new = dict.fromkeys(unknown)
        for session, number, wrapped in self._stored(unknown):
            del new[session]
            self._keep(session, number, wrapped)
        if not new:
            return
        if self._numbers == UNCOUNTED:
            query = "SELECT coalesce(max(number), 0) FROM session_keys"
            (self._numbers,) = self._connection.execute(query).fetchone()
        rows: list[tuple[int, str, bytes]] = []
        for number, session in enumerate(new, self._numbers + 1):
            secret = os.urandom(KEY_BYTES) + (salts[session] or b"")
            rows.append((number, session, _sealed(self._wrapping, secret, session.encode())))
            self._cache(session, _Cached(number, secret))
        insert_rows(self._connection, "session_keys", rows)
        self._numbers += len(rows)

    def number(self, session: str) -> int:
        """Return the number in this file of a session that is known."""
        return self._of(session).number

    def encrypted(self, session: str, seq: int, payload: bytes, salt: bytes | None) -> bytes:
        """Return `payload` encrypted under the session's key, bound to its place.

        Raises:
            AipagingError: The session was erased (SESSION_ERASED).
        """
        known = self._of(session)
        if not known.secret:
            raise session_erased(session)
        if salt is not None and salt != known.salt:
            self._keep_salt(session, known, salt)
        return _sealed(known.cipher, payload, seq.to_bytes(8, "big"))

    def decrypted(self, session: str, seq: int, stored: bytes) -> tuple[bytes, bytes] | None:
        """Return (payload, salt), or None when the session was erased.

        Raises:
            InvalidTag: The stored bytes were altered.
        """
        known = self._of(session)
        if not known.secret:
            return None
        return _opened(known.cipher, stored, seq.to_bytes(8, "big")), known.salt

    def salt(self, session: str) -> bytes:
        """Return the salt that the file has for a session, empty where it has none."""
        return self._of(session).salt if self.knows(session) else b""

    def knows(self, session: str) -> bool:
        """Whether the file has the session, erased or not."""
        return session in self._cached or bool(self._stored([session]))

    def bury(self, session: str) -> None:
        """Erase the key and salt of a session in a transaction; a session that the file does not have is noted."""
        erased = self._connection.execute("UPDATE session_keys SET secret = NULL WHERE session = ?", (session,))
        if not erased.rowcount:
            query = "INSERT INTO session_keys SELECT coalesce(max(number), 0) + 1, ?, NULL FROM session_keys"
            self._connection.execute(query, (session,))
        self.forget()

    def encrypted_snapshot(self, blob: bytes, place: str) -> bytes:
        """Return a snapshot encrypted under the wrapping key, bound to the tree head that it is of."""
        return _sealed(self._wrapping, blob, place.encode())

    def decrypted_snapshot(self, stored: bytes, place: str) -> bytes:
        """Return a snapshot decrypted.

        Raises:
            InvalidTag: The stored bytes were altered, or are of another tree head.
        """
        return _opened(self._wrapping, stored, place.encode())

    def forget(self) -> None:
        """Drop what is cached: a rolled back transaction may have made it, or an erasure ended it."""
        self._cached.clear()
        self._numbers = UNCOUNTED

    def _of(self, session: str) -> _Cached:
        known = self._cached.get(session)
        if known is not None:
            self._cached.move_to_end(session)
            return known
        ((_, number, wrapped),) = self._stored([session])
        return self._keep(session, number, wrapped)

    def _stored(self, sessions: Sequence[str]) -> list[tuple[str, int, bytes | None]]:
        """Return (session, number, wrapped secret) of those that the file has."""
        found: list[tuple[str, int, bytes | None]] = []
        for first in range(0, len(sessions), ROWS_TOGETHER_MAX):
            asked = sessions[first : first + ROWS_TOGETHER_MAX]
            # One statement for each power of two, so that they stay prepared: the last is asked for more than once.
            width = 1 << (len(asked) - 1).bit_length()
            places = ", ".join("?" * width)
            query = f"SELECT session, number, secret FROM session_keys WHERE session IN ({places})"  # noqa: S608
            found += self._connection.execute(query, [*asked, *[asked[-1]] * (width - len(asked))])
        return found

    def _keep(self, session: str, number: int, wrapped: bytes | None) -> _Cached:
        secret = b"" if wrapped is None else _opened(self._wrapping, wrapped, session.encode())
        return self._cache(session, _Cached(number, secret))

    def _keep_salt(self, session: str, known: _Cached, salt: bytes) -> None:
        """Store a salt that came after the key."""
        secret = known.secret[:KEY_BYTES] + salt
        wrapped = _sealed(self._wrapping, secret, session.encode())
        self._connection.execute("UPDATE session_keys SET secret = ? WHERE number = ?", (wrapped, known.number))
        self._cache(session, known._replace(secret=secret))

    def _cache(self, session: str, known: _Cached) -> _Cached:
        self._cached[session] = known
        if len(self._cached) > CACHED_SESSIONS_MAX:
            self._cached.popitem(last=False)
        return known


def _sealed(cipher: AESGCM, plain: bytes, aad: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, plain, aad)


def _opened(cipher: AESGCM, stored: bytes, aad: bytes) -> bytes:
    return cipher.decrypt(stored[:NONCE_BYTES], stored[NONCE_BYTES:], aad)
