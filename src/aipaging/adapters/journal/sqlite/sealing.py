"""A file that the journal went on from is sealed: it names its successor, and its write-ahead log is moved into it.

Both may come late, and are made up for when the journal is opened: what seals a file is that there is a next one. The
name of the successor is what shows, later, that the head is missing: without it, an old file would be written on.
"""

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from aipaging.adapters.journal.sqlite.files import JournalFiles, log_bytes, successor_named
from aipaging.adapters.journal.sqlite.moving import LogMover
from aipaging.adapters.journal.sqlite.schema import SCHEMA_VERSION, reader_connection, writer_connection
from aipaging.adapters.journal.sqlite.standing import StandingFiles

LOG: Final = logging.getLogger("aipaging.journal")

TRIES_MAX: Final = 10
"""How often a write-ahead log that a reader holds is tried to be moved, after the five seconds that SQLite waits."""


def sealed(connection: sqlite3.Connection, successor: int) -> bool:
    """Seal a file; tell whether its write-ahead log is empty.

    Raises:
        sqlite3.Error: It cannot be written.
    """
    if successor_named(connection) != successor:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('successor', ?)", (successor,))
        connection.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (SCHEMA_VERSION,))
        connection.execute("DELETE FROM snapshots")  # its key is in the successor, and must be erased in one place
        connection.execute("COMMIT")
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


def movable(standing: StandingFiles) -> list[Path]:
    """Return the files that may be moved away: sealed, and not needed to recover from the newest snapshot.

    Raises:
        UnavailableError: There is no journal.
        sqlite3.Error: A file cannot be read.
    """
    *older, head = standing.present()
    (covered,) = standing.connection(head).execute("SELECT coalesce(max(seq), 0) FROM snapshots").fetchone()
    if not list(standing.files.base.parent.glob(f"{standing.files.base.name}.snapshot-*")):
        covered = 0
    paths = [(standing.files.path_of(span.first), span.end or 0) for span in older]
    return [path for path, end in paths if end <= covered and not unsealed(path, end)]


def unsealed(path: Path, successor: int) -> bool:
    """Whether something is left to do for a file: it does not name its successor, or has a write-ahead log.

    Raises:
        sqlite3.Error: It cannot be read.
    """
    with contextlib.closing(reader_connection(path)) as connection:
        if successor_named(connection) != successor:
            return True
    return log_bytes(path) > 0


class Sealing:
    """Seals files in a thread beside the writer."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._stop = threading.Event()

    def begin(self, connection: sqlite3.Connection, mover: LogMover, path: Path, successor: int) -> None:
        """Seal a file by the connection that wrote it, and close that."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(
            target=self._seal, args=(connection, mover, path, successor), name="journal-sealing", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # no more threads: made up for at the next opening
            LOG.warning("a file of the journal is not sealed yet", extra={"file": str(path), "reason": str(error)})
            connection.close()
        else:
            self._threads.append(thread)

    def wait(self) -> None:
        """Wait for what was begun."""
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def close(self) -> None:
        """Give up waiting for readers, and end."""
        self._stop.set()
        self.wait()
        self._stop.clear()

    def _seal(self, connection: sqlite3.Connection, mover: LogMover, path: Path, successor: int) -> None:
        reason = "a reader holds its write-ahead log"
        try:
            mover.wait()
            with contextlib.closing(connection):
                for _ in range(TRIES_MAX):
                    if sealed(connection, successor):
                        LOG.info("a file of the journal is sealed", extra={"file": str(path)})
                        return
                    if self._stop.wait(1.0):
                        break
        except sqlite3.Error as error:
            reason = str(error)
        LOG.warning("a file of the journal is not sealed yet", extra={"file": str(path), "reason": reason})


def seal_older(files: JournalFiles, ever: Sequence[int]) -> None:
    """Seal what a crash, or a reader, kept from being sealed; what cannot be is logged.

    Args:
        files: The journal's.
        ever: The first records of all files that there are or were.
    """
    for first, successor in pairwise(ever):
        path = files.path_of(first)
        try:
            if path.exists() and unsealed(path, successor):
                with contextlib.closing(writer_connection(path)) as connection:
                    sealed(connection, successor)
        except (sqlite3.Error, OSError) as error:
            LOG.warning("a file of the journal is not sealed yet", extra={"file": str(path), "reason": str(error)})
