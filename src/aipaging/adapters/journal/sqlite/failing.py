"""What SQLite's failures mean for a journal, and transactions on tables outside the log."""

import os
import sqlite3
from pathlib import Path
from typing import Final

from aipaging.adapters.journal.errors import journal_corrupt, journal_full, journal_io
from aipaging.core.foundation.errors import UnavailableError

_SHORT_BYTES: Final = 1 << 20
"""With less than this free, a failed write of the shared index is for want of space, not a broken disk."""


def is_full(error: BaseException, folder: Path) -> bool:
    """Whether it failed for want of space in a folder."""
    if not isinstance(error, sqlite3.Error):
        return False
    code: int = getattr(error, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_FULL:
        return True
    free = os.statvfs(folder)
    short = free.f_bavail * free.f_frsize < _SHORT_BYTES
    return short and code in {sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_CANTOPEN}


def read_error(error: Exception, path: Path) -> UnavailableError:
    """Return what to raise when a file cannot be opened or read."""
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code not in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            return write_error(error, path)
    elif isinstance(error, OSError):
        return journal_io(str(path), f"{error.strerror}: {error.filename}")
    return journal_corrupt(str(path), str(error))


def write_error(error: BaseException, path: Path, *, restrictive: bool = False) -> UnavailableError:
    """Return what to raise when a file cannot be written; what it holds is as it was."""
    if is_full(error, path.parent):
        return journal_full(str(path), restrictive=restrictive)
    return journal_io(str(path), str(error))


class Transaction:
    """A transaction on tables outside the log: all or nothing, in the journal's errors.

    Args:
        connection: The writer's.
        path: The file that it writes.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

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
            raise write_error(failure, self._path) from failure
