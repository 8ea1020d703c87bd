"""Erasing sessions from sealed files: in every file a session has a key of its own, and each is to be erased.

Who was erased is noted in the head and carried on. So a file that was away then, and is put back, is made up for when
the journal is next opened.
"""

import contextlib
import logging
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from aipaging.adapters.journal.sqlite.files import JournalFiles, log_bytes
from aipaging.adapters.journal.sqlite.schema import reader_connection, writer_connection
from aipaging.adapters.journal.sqlite.standing import StandingFiles

LOG: Final = logging.getLogger("aipaging.journal")

_KEY: Final = "SELECT 1 FROM session_keys WHERE session = ? AND secret IS NOT NULL"


def files_with_key(standing: StandingFiles, session: str) -> list[Path]:
    """Return the sealed files that have a session's key.

    Raises:
        sqlite3.Error: One cannot be read.
    """
    sealed = [span for span in standing.present() if span.end is not None]
    having = [span for span in sealed if standing.connection(span).execute(_KEY, (session,)).fetchone()]
    return [standing.files.path_of(span.first) for span in having]


def files_with_log(standing: StandingFiles) -> list[Path]:
    """Return the sealed files whose write-ahead log may have what was erased, because a reader was in the way."""
    sealed = [standing.files.path_of(span.first) for span in standing.present() if span.end is not None]
    return [path for path in sealed if log_bytes(path)]


def recorded_since(standing: StandingFiles, session: str, seq: int) -> bool:
    """Whether a session has records from `seq` on, in files that are there.

    Raises:
        sqlite3.Error: One cannot be read.
    """
    query = (
        "SELECT 1 FROM entries WHERE seq >= ? AND session = (SELECT number FROM session_keys WHERE session = ?) LIMIT 1"
    )
    later = [span for span in standing.present() if span.end is None or span.end > seq]
    return any(standing.connection(span).execute(query, (seq, session)).fetchone() for span in later)


def erased_in(path: Path, sessions: Iterable[str]) -> bool:
    """Erase the keys of sessions from a sealed file; tell whether its write-ahead log is empty of them.

    Raises:
        sqlite3.Error: It cannot be written.
    """
    with contextlib.closing(writer_connection(path)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        query = "UPDATE session_keys SET secret = NULL WHERE session = ?"
        connection.executemany(query, [(session,) for session in sessions])
        connection.execute("DELETE FROM snapshots")  # where it could not be sealed
        connection.execute("COMMIT")
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


def make_up(head: sqlite3.Connection, files: JournalFiles, ever: Sequence[int]) -> None:
    """Erase from sealed files who was erased while they were away; what cannot be is logged."""
    erased = [row[0] for row in head.execute("SELECT session FROM session_keys WHERE secret IS NULL")]
    for path in [files.path_of(first) for first in ever[:-1]] if erased else []:
        if not path.exists():
            continue
        try:
            with contextlib.closing(reader_connection(path)) as connection:
                left = [session for session in erased if connection.execute(_KEY, (session,)).fetchone()]
            if left:
                erased_in(path, left)
                LOG.info("erased from a file that was away", extra={"file": str(path), "sessions": len(left)})
        except sqlite3.Error as error:
            LOG.warning("sessions are not erased yet", extra={"file": str(path), "reason": str(error)})
