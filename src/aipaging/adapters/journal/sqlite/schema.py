"""Tables of the journal file, and connections to it.

Every page that a batch touches is written and synced with it, so what is written stays close together: an entry names
its session by a number given in the order of arrival, and the index of a session's entries is cut into segments of
2,048 records. Only the newest segment is ever written to; a plain index would touch a page per record (measured: 3.5
kB written for each record, against 2.5 kB). A session is looked up in every segment since its first record.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

SCHEMA_VERSION: Final = 2
"""In `meta`, of a file that goes on from another, or from which another goes on."""

SCHEMA_VERSIONS: Final = frozenset({1, SCHEMA_VERSION})
"""What can be read and written: a journal of one file is of version 1. Any other is refused, never guessed at."""

READ_ROWS: Final = 1_000
"""Rows fetched at a time by readers: under a megabyte, and no read transaction stays open to hold up the writer."""

BUSY_SECONDS: Final = 5.0
"""How long a connection waits for another's lock before it gives up."""

WAL_PAGES: Final = 1_000
"""Pages after which the write-ahead log is moved into the file: 4 MB, for which the disk is busy a few milliseconds."""

WAL_PAGES_MAX: Final = 4_000
"""Pages after which SQLite does it within a commit, should it not have come about: 16 MB, half of the ballast."""

ROWS_TOGETHER_MAX: Final = 256
"""Rows in one statement: 1,280 values at most, and SQLite takes 32,766."""

ROWS_STEP: Final = 16
"""Statements have a multiple of so many rows, or fewer: thirty of them for a table, which all stay prepared."""

_TABLES: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('schema_version', 1);
CREATE TABLE entries (
    seq INTEGER PRIMARY KEY, session INTEGER, leaf_hash BLOB NOT NULL, record BLOB NOT NULL, payload BLOB
);
CREATE INDEX entries_by_session ON entries (seq >> 11, session) WHERE session IS NOT NULL;
CREATE TABLE leaves (seq INTEGER PRIMARY KEY, root BLOB NOT NULL, bundle BLOB NOT NULL);
CREATE INDEX leaves_by_root ON leaves (root);
CREATE TABLE subtrees (level INTEGER, place INTEGER, hash BLOB NOT NULL, PRIMARY KEY (level, place)) WITHOUT ROWID;
CREATE TABLE checkpoints (size INTEGER PRIMARY KEY, note TEXT NOT NULL);
CREATE TABLE session_keys (
    number INTEGER PRIMARY KEY, session TEXT NOT NULL UNIQUE, secret BLOB
);
CREATE TABLE snapshots (seq INTEGER PRIMARY KEY, root TEXT NOT NULL, blob BLOB NOT NULL);
"""

_ERASED: Final = "CREATE INDEX IF NOT EXISTS erased_sessions ON session_keys (session) WHERE secret IS NULL;"
"""Which sessions were erased is carried on from file to file, and must not be looked for among millions."""

TABLES: Final = _TABLES + _ERASED


def writer_connection(path: Path) -> sqlite3.Connection:
    """Return the one connection that writes, with its tables in place."""
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    # FULL syncs the write-ahead log at every commit: an acknowledged batch survives a power cut.
    # secure_delete overwrites what is deleted: an erased session's key must not linger in free pages.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", f"wal_autocheckpoint={WAL_PAGES_MAX}"):
        connection.execute(f"PRAGMA {pragma}")
    if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
        connection.executescript(f"BEGIN IMMEDIATE;{TABLES}COMMIT;")
    connection.execute(_ERASED)
    return connection


def reader_connection(path: Path) -> sqlite3.Connection:
    """Return a connection that cannot write, usable while the controller runs."""
    location = f"file:{quote(str(path.resolve()))}"
    connection = _uri_connection(f"{location}?mode=ro")
    try:
        connection.execute("SELECT 1 FROM sqlite_schema").fetchall()
    except sqlite3.OperationalError as error:
        connection.close()
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
            raise  # somebody writes it: what is read as if nothing could change would never show that
        # A copy on read-only media: WAL mode wants to create its index beside the file, unless nothing can change.
        connection = _uri_connection(f"{location}?immutable=1")
    return connection


def _uri_connection(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def stored_version(connection: sqlite3.Connection) -> object:
    """Return the schema version of the file."""
    row: Sequence[object] | None = connection.execute("SELECT value FROM meta WHERE key='schema_version'").fetchone()
    return row[0] if row else None


def stored_hashes(connection: sqlite3.Connection, level: int, first: int, count: int) -> list[bytes]:
    """Return hashes of perfect subtrees of 256**level records, as many of `count` as there are."""
    if level == 0:
        query = "SELECT leaf_hash FROM entries WHERE seq >= ? AND seq < ? ORDER BY seq"
        rows = connection.execute(query, (first, first + count))
    else:
        query = "SELECT hash FROM subtrees WHERE level = ? AND place >= ? AND place < ? ORDER BY place"
        rows = connection.execute(query, (level, first, first + count))
    return [row[0] for row in rows]


def insert_rows(connection: sqlite3.Connection, table: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Insert rows, many in one statement.

    Every row of `executemany` gives the interpreter's lock away and asks for it back, which takes up to a switch
    interval when the engine is busy: a batch of a hundred rows waited for the engine to run out of work.
    """
    first = 0
    while first < len(rows):
        left = len(rows) - first
        count = left if left < ROWS_STEP else min(left - left % ROWS_STEP, ROWS_TOGETHER_MAX)
        places = f"({', '.join('?' * len(rows[0]))})"
        statement = f"INSERT INTO {table} VALUES {', '.join([places] * count)}"  # noqa: S608 - a table of ours
        connection.execute(statement, [value for row in rows[first : first + count] for value in row])
        first += count
