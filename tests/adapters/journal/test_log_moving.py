"""The write-ahead log is moved beside the writer: it stays short, and nothing waits for it or is lost by it."""

import contextlib
import sqlite3
import threading
from pathlib import Path

import pytest

from aipaging.adapters.journal.sqlite import moving
from aipaging.adapters.journal.sqlite.moving import LogMover
from aipaging.adapters.journal.sqlite.schema import WAL_PAGES
from aipaging.adapters.journal.sqlite.writer import SqliteJournal
from aipaging.core.evidence.log import Sealer
from aipaging.core.foundation.names import SessionId
from aipaging.testing.journal import SESSION, moved, sealed

KEY = bytes(range(32))
NOW = sealed.__globals__["_NOW"]
WAL_HEADER_BYTES = 32
FRAME_BYTES = 4_096 + 24


@pytest.fixture
def writer(tmp_path: Path):
    connection = sqlite3.connect(tmp_path / "log.sqlite", isolation_level=None)
    with contextlib.closing(connection):
        for pragma in ("journal_mode=WAL", "wal_autocheckpoint=0"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("CREATE TABLE entries (seq INTEGER PRIMARY KEY, record BLOB)")
        yield connection


def commit(connection: sqlite3.Connection, rows: int = 1) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("INSERT INTO entries (record) VALUES (?)", [(bytes(3_000),)] * rows)
    connection.execute("COMMIT")


def generation(path: Path) -> bytes:
    """Return the salts of the write-ahead log, which are others whenever it begins anew."""
    return path.with_name(path.name + "-wal").read_bytes()[16:24]


def test_the_log_begins_anew_after_it_was_moved(writer: sqlite3.Connection, tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    mover = LogMover(path)
    commit(writer, rows=100)
    first = generation(path)
    mover.wrote(writer, WAL_PAGES - moving.PAGES_OF_BATCH - 1)
    commit(writer)
    assert generation(path) == first  # one page too few: nothing is moved
    mover.wrote(writer, 1)
    mover.wait()
    commit(writer, rows=20)  # what came while the thread was at it
    mover.wrote(writer, 20)
    commit(writer)
    assert generation(path) != first
    assert writer.execute("SELECT count(*) FROM entries").fetchone() == (122,)


def test_commits_go_on_while_the_log_is_moved(
    writer: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    connect = sqlite3.connect

    def slow(path: Path, **options: float | None) -> sqlite3.Connection:
        begun.set()
        assert go_on.wait(20)
        return connect(path, **options)

    monkeypatch.setattr(moving.sqlite3, "connect", slow)
    mover = LogMover(tmp_path / "log.sqlite")
    mover.wrote(writer, WAL_PAGES)
    assert begun.wait(20)
    for _ in range(3):
        commit(writer)
        mover.wrote(writer, WAL_PAGES)  # neither waits, nor begins a second one
    assert [thread.name for thread in threading.enumerate()].count("journal-log") == 1
    go_on.set()
    mover.wait()
    assert "journal-log" not in [thread.name for thread in threading.enumerate()]


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return why the journal's log was not moved; what others log meanwhile is theirs."""
    return [record.__dict__["reason"] for record in caplog.records if record.name == "aipaging.journal"]


def test_a_log_that_cannot_be_moved_is_told_and_harms_nobody(
    writer: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object, **__: object) -> sqlite3.Connection:
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(moving.sqlite3, "connect", refused)
    mover = LogMover(tmp_path / "log.sqlite")
    mover.wrote(writer, WAL_PAGES)
    mover.wait()
    commit(writer)
    mover.wrote(writer, 1)
    assert reasons(caplog) == ["unable to open database file"]
    assert writer.execute("SELECT count(*) FROM entries").fetchone() == (1,)


def test_a_batch_is_stored_although_there_are_no_more_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(moving, "WAL_PAGES", 1)
    path = tmp_path / "journal.sqlite"
    journal = SqliteJournal(path, KEY, ballast_bytes=0)
    sealer = Sealer("node-1", "boot-1", journal.open())
    with monkeypatch.context() as exhausted:
        exhausted.setattr(threading.Thread, "start", refused)
        for _ in range(2):
            journal.append(sealer.seal([moved(payload=b"z", salt=b"s" * 16)], term=1, now=NOW), None)
    assert reasons(caplog) == ["can't start new thread"] * 2
    journal.erase(SessionId(SESSION))
    journal.close()
    again = SqliteJournal(path, KEY, ballast_bytes=0)
    assert again.open().seq == 2
    again.close()


def test_a_journal_is_closed_and_opened_anew_while_its_log_is_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an append that failed."""
    monkeypatch.setattr(moving, "WAL_PAGES", 1)
    path = tmp_path / "journal.sqlite"
    journal = SqliteJournal(path, KEY, ballast_bytes=0)
    sealer = Sealer("node-1", "boot-1", journal.open())
    connect, begun, go_on = sqlite3.connect, threading.Event(), threading.Event()

    def slow(path: Path, **options: float | None) -> sqlite3.Connection:
        begun.set()
        assert go_on.wait(20)
        return connect(path, **options)

    def store() -> None:
        journal.append(sealer.seal([moved(payload=b"z", salt=b"s" * 16)], term=1, now=NOW), None)

    with monkeypatch.context() as slowly:
        slowly.setattr(moving.sqlite3, "connect", slow)
        store()
        assert begun.wait(20)
    closing = threading.Thread(target=journal.close)
    closing.start()
    go_on.set()
    closing.join(20)
    assert not closing.is_alive()
    assert journal.open() == sealer.head
    for _ in range(3):
        store()
    journal.close()
    again = SqliteJournal(path, KEY, ballast_bytes=0)
    assert again.open() == sealer.head
    again.close()


def test_a_journal_keeps_its_log_short_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "WAL_PAGES", 100)
    path = tmp_path / "journal.sqlite"
    journal = SqliteJournal(path, KEY, ballast_bytes=0)
    sealer = Sealer("node-1", "boot-1", journal.open())
    batches = 300
    for _ in range(batches):
        journal.append(sealer.seal([moved(payload=b"z" * 2_000, salt=b"s" * 16)] * 4, term=1, now=NOW), None)
        if journal._mover._thread is not None:  # a machine with one core may write all of it before a thread begins
            journal._mover._thread.join()
    frames = (path.with_name("journal.sqlite-wal").stat().st_size - WAL_HEADER_BYTES) / FRAME_BYTES
    assert frames < 200  # ten times as many were written
    journal.erase(SessionId(SESSION))  # has the log to itself
    journal.close()
    again = SqliteJournal(path, KEY, ballast_bytes=0)
    assert again.open().seq == sealer.head.seq == 4 * batches
    again.close()


def test_erasing_waits_for_a_log_that_is_being_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "WAL_PAGES", 1)
    journal = SqliteJournal(tmp_path / "journal.sqlite", KEY, ballast_bytes=0)
    sealer = Sealer("node-1", "boot-1", journal.open())
    connect, begun, order = sqlite3.connect, threading.Event(), []

    def slow(path: Path, **options: float | None) -> sqlite3.Connection:
        begun.set()
        assert threading.Event().wait(0.05) is False
        order.append("moved")
        return connect(path, **options)

    monkeypatch.setattr(moving.sqlite3, "connect", slow)
    journal.append(sealer.seal([moved(payload=b"z", salt=b"s" * 16)], term=1, now=NOW), None)
    assert begun.wait(20)
    journal.erase(SessionId(SESSION))
    order.append("erased")
    assert order == ["moved", "erased"]
    journal.close()
