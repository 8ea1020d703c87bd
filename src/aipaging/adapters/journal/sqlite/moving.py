"""Moves the write-ahead log into the file, beside the writer.

SQLite would do it within a commit: ten milliseconds, every two thousand pages, for which whoever pages then waits. Here
a thread with a connection of its own moves what is there, while commits go on; then the writer moves the few pages
that came meanwhile itself, so that its next commit begins the write-ahead log anew.
"""

import contextlib
import logging
import sqlite3
import threading
from pathlib import Path
from typing import Final

from aipaging.adapters.journal.sqlite.schema import BUSY_SECONDS, WAL_PAGES

LOG: Final = logging.getLogger("aipaging.journal")

PAGES_OF_BATCH: Final = 6
"""Pages that a batch touches at least: every table's last, its keys, and the segment of the index."""

_MOVE: Final = "PRAGMA wal_checkpoint(PASSIVE)"
"""It waits for nobody, and nobody waits for it."""


class LogMover:
    """Keeps the write-ahead log of one journal short; used by its writer, from one thread at a time.

    Args:
        path: The journal file.

    Attributes:
        rounds: How often the log had become long.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pages = 0
        self.rounds = 0
        self._thread: threading.Thread | None = None

    def wrote(self, connection: sqlite3.Connection, entries: int) -> None:
        """Note that the writer committed a batch of so many entries."""
        if self._thread is None:
            self._pages += PAGES_OF_BATCH + entries  # four records share a page, and their index takes as many
            if self._pages >= WAL_PAGES:
                self._pages = 0
                self._begin()
        elif not self._thread.is_alive():
            self._thread = None
            with contextlib.suppress(sqlite3.Error):  # the log stays as long as it is; what it holds is durable
                connection.execute(_MOVE).fetchall()

    def wait(self) -> None:
        """Wait until nothing is moved: two cannot move the write-ahead log at once, nor one that is being closed."""
        if self._thread is not None:
            self._thread.join()

    def _begin(self) -> None:
        self.rounds += 1
        thread = threading.Thread(target=self._move, name="journal-log", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads: what was committed is committed all the same
            LOG.warning("the write-ahead log stays long", extra={"reason": str(error)})
        else:
            self._thread = thread

    def _move(self) -> None:
        try:
            with contextlib.closing(sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)) as beside:
                beside.execute(_MOVE).fetchall()
        except sqlite3.Error as error:
            LOG.warning("the write-ahead log stays long", extra={"reason": str(error)})
