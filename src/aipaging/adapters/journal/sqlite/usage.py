"""Running sums of what tenants used, in a file beside the journal; derived, so it may be deleted at any time.

Sums are kept by tenant and quarter of an hour: every zone's midnight is the beginning of one. What is taken in and how
far that goes are written in one transaction, so nothing counts twice after a crash. A file that knows another history
than the journal (a backup was restored), or that is damaged, is begun anew.
"""

import logging
import sqlite3
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec

from aipaging.core.evidence.usage import TYPES_USED, Begun, Counted, Held, Usage, uses
from aipaging.core.foundation.errors import UnavailableError
from aipaging.core.foundation.time import SECOND, WallUs
from aipaging.ports.journal import EvidenceReader, StoredRecord
from aipaging.ports.usage import UsageSums

LOG: Final = logging.getLogger("aipaging.usage")

QUARTER_US: Final = 900 * SECOND
"""The finest period: zones differ by quarters of an hour."""

SLICE_RECORDS: Final = 1_000
"""Records taken in at a time: some ten milliseconds."""

QUARTERS_HELD_MAX: Final = 40_000
"""Quarters into which one session is divided, a little more than a year; the clock was wrong in one that lasted longer,
and what is beyond counts in the last."""

NANO: Final = 1_000_000_000
"""Thousandths of a request per second times microseconds: so many are a request. Sums of the product would not fit into
64 bits, so that whole requests and the rest are summed apart."""

SCHEMA_VERSION: Final = 1

_TABLES: Final = """
CREATE TABLE account (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER, last_hash BLOB, last_us INTEGER);
INSERT INTO account VALUES (1, 0, x'', 0);
CREATE TABLE begun (session TEXT PRIMARY KEY, tenant TEXT, rate_mrps INTEGER, since_us INTEGER) WITHOUT ROWID;
CREATE TABLE quarters (
    quarter INTEGER, tenant TEXT, sessions INTEGER, lease_us INTEGER, reserved INTEGER, reserved_nano INTEGER,
    requests INTEGER, tokens INTEGER, charged INTEGER, refunded INTEGER, PRIMARY KEY (quarter, tenant)
) WITHOUT ROWID;
"""

_ADD: Final = """
INSERT INTO quarters VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (quarter, tenant) DO UPDATE SET
    sessions = sessions + excluded.sessions, lease_us = lease_us + excluded.lease_us,
    reserved = reserved + excluded.reserved, reserved_nano = reserved_nano + excluded.reserved_nano,
    requests = requests + excluded.requests, tokens = tokens + excluded.tokens,
    charged = charged + excluded.charged, refunded = refunded + excluded.refunded
"""

_SUMS: Final = """
SELECT tenant, sum(sessions), sum(lease_us), sum(reserved), sum(reserved_nano), sum(requests), sum(tokens),
    sum(charged), sum(refunded)
FROM quarters WHERE quarter >= ? AND quarter < ? AND (?3 IS NULL OR tenant = ?3) GROUP BY tenant
"""

_GOING_ON: Final = """
SELECT tenant, rate_mrps, sum(min(?1, ?3) - max(since_us, ?2)) FROM begun
WHERE max(since_us, ?2) < min(?1, ?3) AND (?4 IS NULL OR tenant = ?4) GROUP BY tenant, rate_mrps
"""


class _Head(msgspec.Struct):
    type: str
    wall_us: int


_HEAD: Final = msgspec.json.Decoder(_Head)
_RECORD: Final = msgspec.json.Decoder(dict[str, Any])


class SqliteUsageAccount:
    """A `UsageAccount` in a file."""

    def __init__(self, path: Path, open_reader: Callable[[], EvidenceReader]) -> None:
        """Take where the sums are, and what opens the log; both are opened in the thread that uses them."""
        self._path = path
        self._open_reader = open_reader
        self._reader: EvidenceReader | None = None
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def take(self) -> bool:
        """See `UsageAccount.take`."""
        with self._opened() as connection:
            seq, _, last_us = self._place(connection)
            stored = list(islice(self._log().records(seq, seq + SLICE_RECORDS), SLICE_RECORDS))
            if not stored:
                return False
            batch = _Batch(connection)
            for each in stored:
                last_us = max(last_us, batch.take(each))
            connection.execute("BEGIN")
            try:
                batch.write()
                place = (seq + len(stored), stored[-1].leaf_hash, last_us)
                connection.execute("UPDATE account SET seq = ?, last_hash = ?, last_us = ?", place)
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
            return len(stored) == SLICE_RECORDS

    def between(self, from_us: WallUs, to_us: WallUs, tenant: str | None) -> UsageSums:
        """See `UsageAccount.between`."""
        with self._opened() as connection:
            _, _, last_us = self._place(connection)
            found: dict[str, Usage] = {}
            for name, sessions, lease_us, whole, nano, *counts in connection.execute(
                _SUMS, (from_us // QUARTER_US, -(-to_us // QUARTER_US), tenant)
            ):
                requests, tokens, charged, refunded = counts
                found[name] = Usage(
                    sessions=sessions, lease_us=lease_us, reserved=whole * NANO + nano, requests=requests,
                    tokens=tokens, charged=charged, refunded=refunded,
                )  # fmt: skip
            for name, rate_mrps, lasted_us in connection.execute(_GOING_ON, (last_us, from_us, to_us, tenant)):
                found.setdefault(name, Usage()).hold(rate_mrps, lasted_us)
        used = {name: usage for name, usage in sorted(found.items()) if usage != Usage()}
        return UsageSums(tenants=used, accounted_us=WallUs(last_us))

    def _log(self) -> EvidenceReader:
        if self._reader is None:
            self._reader = self._open_reader()
        return self._reader

    @contextmanager
    def _opened(self) -> Generator[sqlite3.Connection]:
        """Give the connection; what is damaged is begun anew at the next use.

        Raises:
            UnavailableError: The file cannot be read or written.
        """
        try:
            if self._connection is None:
                self._connection = self._usable()
            yield self._connection
        except sqlite3.Error as error:
            self.close()
            if not isinstance(error, sqlite3.OperationalError):
                _remove(self._path)
            raise UnavailableError(f"{self._path}: the sums of usage cannot be kept or read ({error})") from error

    def _usable(self) -> sqlite3.Connection:
        """Return a connection to sums of this journal's beginning, or to none yet."""
        try:
            connection = _connection(self._path)
            if self._continues(connection):
                return connection
            LOG.warning("the sums of usage are of another history: they are made anew", extra={"file": str(self._path)})
            connection.close()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            LOG.warning("the sums of usage are damaged: they are made anew", extra={"file": str(self._path)})
        _remove(self._path)
        return _connection(self._path)

    def _continues(self, connection: sqlite3.Connection) -> bool:
        if connection.execute("PRAGMA user_version").fetchone()[0] != SCHEMA_VERSION:
            return False
        seq, last_hash, _ = self._place(connection)
        return seq == 0 or self._log().hashes(0, seq - 1, 1) == [last_hash]

    @staticmethod
    def _place(connection: sqlite3.Connection) -> tuple[int, bytes, int]:
        """Return how many records are in the sums, the hash of the last, and the latest instant among them."""
        seq, last_hash, last_us = connection.execute("SELECT seq, last_hash, last_us FROM account").fetchone()
        return seq, last_hash, last_us


class _Batch:
    """What some records add: sessions that begin and end among them never touch the file."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._begun: dict[str, Begun] = {}
        self._ended: set[str] = set()
        self._sums: dict[tuple[int, str], Usage] = {}

    def take(self, stored: StoredRecord) -> int:
        """Take a record in; return its instant."""
        head = _HEAD.decode(stored.record)
        if head.type in TYPES_USED:
            leaves = map(_RECORD.decode, stored.leaves or ())
            for used in uses(_RECORD.decode(stored.record), leaves, self):
                self._add(used)
        return head.wall_us

    def begin(self, session: str, begun: Begun) -> None:
        """See `BegunSessions.begin`."""
        self._begun[session] = begun

    def end(self, session: str) -> Begun | None:
        """See `BegunSessions.end`."""
        begun = self._begun.pop(session, None)
        if begun is None and session not in self._ended:
            query = "SELECT tenant, rate_mrps, since_us FROM begun WHERE session = ?"
            row: Sequence[Any] | None = self._connection.execute(query, (session,)).fetchone()
            if row is not None:
                self._ended.add(session)
                begun = Begun(*row)
        return begun

    def write(self) -> None:
        """Write it, within a transaction."""
        self._connection.executemany("DELETE FROM begun WHERE session = ?", [(session,) for session in self._ended])
        self._connection.executemany(
            "INSERT OR REPLACE INTO begun VALUES (?, ?, ?, ?)",
            [(session, each.tenant, each.rate_mrps, each.since_us) for session, each in self._begun.items()],
        )
        self._connection.executemany(_ADD, [_row(*place, usage) for place, usage in self._sums.items()])

    def _add(self, used: Counted | Held) -> None:
        if isinstance(used, Counted):
            self._of(used.wall_us // QUARTER_US, used.tenant).add(used.usage)
            return
        session = used.session
        first, last = session.since_us // QUARTER_US, max(session.since_us, used.until_us - 1) // QUARTER_US
        last = min(last, first + QUARTERS_HELD_MAX)
        for quarter in range(first, last + 1):
            to_us = (quarter + 1) * QUARTER_US if quarter < last else used.until_us
            self._of(quarter, session.tenant).hold(session.rate_mrps, used.within(quarter * QUARTER_US, to_us))

    def _of(self, quarter: int, tenant: str) -> Usage:
        return self._sums.setdefault((quarter, tenant), Usage())


def _row(quarter: int, tenant: str, usage: Usage) -> tuple[object, ...]:
    whole, nano = divmod(usage.reserved, NANO)
    return (
        quarter, tenant, usage.sessions, usage.lease_us, whole, nano,
        usage.requests, usage.tokens, usage.charged, usage.refunded,
    )  # fmt: skip


def _connection(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        # NORMAL: a power cut may lose the last transactions, and the journal still has what they took in.
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
            connection.execute(f"PRAGMA {pragma}")
        if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
            connection.executescript(f"BEGIN IMMEDIATE; PRAGMA user_version = {SCHEMA_VERSION}; {_TABLES} COMMIT;")
    except BaseException:
        connection.close()
        raise
    return connection


def _remove(path: Path) -> None:
    for ending in ("", "-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
