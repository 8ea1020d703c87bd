"""How far notifications came, and what was given up: a small SQLite file beside the journal.

It is no evidence. Losing it loses no promise but one: after a restart, events of the time in between are not sent to
sinks again. It never holds a URL or a credential.
"""

import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Final

from aipaging.core.foundation.errors import UnavailableError
from aipaging.ports.notification import DeadLetter

DEAD_LETTERS_MAX: Final = 10_000
"""About two megabytes; the oldest go first."""

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS settled (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS ahead (destination TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dead_letters (
    number INTEGER PRIMARY KEY AUTOINCREMENT, destination TEXT NOT NULL, tenant TEXT NOT NULL, event_id TEXT NOT NULL,
    event_type TEXT NOT NULL, session TEXT NOT NULL, reason TEXT NOT NULL, attempts INTEGER NOT NULL,
    wall_us INTEGER NOT NULL
);
"""


class SqliteLedger:
    """A `DeliveryLedger` in a file."""

    def __init__(self, path: Path) -> None:
        """Open the file, making it on first use.

        Raises:
            UnavailableError: It cannot be opened (`LEDGER_UNUSABLE`).
        """
        self._path = path
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.executescript(_TABLES)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def progress(self) -> tuple[int | None, Mapping[str, int]]:
        """See `DeliveryLedger.progress`."""
        with self._lock:
            row = self._connection.execute("SELECT seq FROM settled").fetchone()
            ahead = self._connection.execute("SELECT destination, seq FROM ahead").fetchall()
        return (None if row is None else int(row[0])), {str(key): int(seq) for key, seq in ahead}

    def save(self, settled: int, ahead: Mapping[str, int], dead: Sequence[DeadLetter]) -> None:
        """See `DeliveryLedger.save`.

        Raises:
            UnavailableError: It cannot be written.
        """
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.execute("INSERT OR REPLACE INTO settled VALUES (1, ?)", (settled,))
                self._connection.execute("DELETE FROM ahead WHERE seq <= ?", (settled,))
                self._connection.executemany("INSERT OR REPLACE INTO ahead VALUES (?, ?)", ahead.items())
                self._connection.executemany(
                    "INSERT INTO dead_letters VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)", map(astuple, dead)
                )
                self._connection.execute(
                    "DELETE FROM dead_letters WHERE number <= (SELECT max(number) FROM dead_letters) - ?",
                    (DEAD_LETTERS_MAX,),
                )
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise self._failed(error) from error

    def dead_letters(self, first: int, count: int) -> tuple[int, Sequence[DeadLetter]]:
        """See `DeliveryLedger.dead_letters`."""
        with self._lock:
            total = int(self._connection.execute("SELECT count(*) FROM dead_letters").fetchone()[0])
            rows = self._connection.execute(
                "SELECT destination, tenant, event_id, event_type, session, reason, attempts, wall_us "
                "FROM dead_letters ORDER BY number DESC LIMIT ? OFFSET ?",
                (count, first),
            ).fetchall()
        names = [column.name for column in fields(DeadLetter)]
        return total, [DeadLetter(**dict(zip(names, row, strict=True))) for row in rows]

    def _failed(self, error: sqlite3.Error) -> UnavailableError:
        return UnavailableError(f"{self._path} cannot be used: {error}", code="LEDGER_UNUSABLE")
