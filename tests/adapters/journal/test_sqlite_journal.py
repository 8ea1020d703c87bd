"""The SQLite journal: the kit, and the faults that only a real file has."""

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from aipaging.adapters.journal.sqlite import schema
from aipaging.adapters.journal.sqlite.reader import SqliteEvidenceReader
from aipaging.adapters.journal.sqlite.writer import SqliteJournal
from aipaging.core.evidence.log import EMPTY_LOG, Sealer
from aipaging.core.evidence.record import Draft
from aipaging.core.foundation.errors import UnavailableError
from aipaging.testing.journal import JOURNAL_CHECKS, OTHER, SESSION, expect, moved, sealed, unsigned

KEY = bytes(range(32))
BALLAST = 1 << 20


class SqliteRig:
    def __init__(self, directory: Path) -> None:
        self.path = directory / "journal.sqlite"
        self.pages_max: int | None = None
        self.opened: list[SqliteJournal] = []

    def journal(self) -> SqliteJournal:
        journal = SqliteJournal(self.path, KEY, ballast_bytes=BALLAST, pages_max=self.pages_max)
        self.opened.append(journal)
        return journal

    def crash(self, journal: SqliteJournal) -> None:
        journal._lock.release()  # the kernel does this; the connection is left as it is

    def fill(self) -> None:
        journal = self.opened[-1]
        (pages,) = journal._connection.execute("PRAGMA page_count").fetchone()
        self.pages_max = journal._pages_max = pages + 1
        journal._limit_pages(journal._connection, self.pages_max)

    def alter(self, seq: int, record: bytes) -> None:
        with sqlite3.connect(self.path) as connection:
            connection.execute("UPDATE entries SET record = ? WHERE seq = ?", (record, seq))
        connection.close()


@pytest.fixture
def rig(tmp_path: Path):
    made = SqliteRig(tmp_path)
    yield made
    for journal in made.opened:
        journal.close()


@pytest.mark.parametrize("check", JOURNAL_CHECKS, ids=lambda check: check.__name__)
def test_conformance(check, rig: SqliteRig) -> None:
    check(rig)


def filled(rig: SqliteRig, batches: int = 3) -> tuple[SqliteJournal, Sealer]:
    journal = rig.journal()
    sealer = Sealer("node-1", "boot-1", journal.open())
    for _ in range(batches):
        journal.append(sealer.seal([moved(payload=b"private", salt=b"s" * 16)] * 4, term=1, now=NOW), None)
    return journal, sealer


NOW = sealed.__globals__["_NOW"]


def snapshots_of(rig: SqliteRig) -> list[Path]:
    return sorted(rig.path.parent.glob("journal.sqlite.snapshot-*"))


def test_a_torn_last_batch_vanishes_whole(rig: SqliteRig, tmp_path: Path) -> None:
    journal, sealer = filled(rig, batches=2)
    wal = rig.path.with_name("journal.sqlite-wal")
    before, acknowledged = wal.stat().st_size, sealer.head
    journal.append(sealer.seal([moved(payload=b"z" * 9_000)] * 4, term=1, now=NOW), None)
    whole = wal.read_bytes()
    for length in {before, before + 1, (before + len(whole)) // 2, len(whole) - 1}:
        copy = tmp_path / str(length)
        copy.mkdir()
        shutil.copy(rig.path, copy / "journal.sqlite")
        (copy / "journal.sqlite-wal").write_bytes(whole[:length])
        torn = SqliteJournal(copy / "journal.sqlite", KEY, ballast_bytes=BALLAST)
        assert torn.open() == acknowledged
        torn.close()


def test_a_second_process_is_refused_and_told_who_writes(rig: SqliteRig) -> None:
    filled(rig)
    code = (
        "import sys, pathlib; from aipaging.adapters.journal.sqlite.writer import SqliteJournal\n"
        "try: SqliteJournal(pathlib.Path(sys.argv[1]), bytes(range(32))).open()\n"
        "except Exception as error: print(error.code, error)"
    )
    out = subprocess.run([sys.executable, "-c", code, str(rig.path)], capture_output=True, text=True, check=True)
    assert out.stdout.startswith("JOURNAL_LOCKED")
    assert f"process {os.getpid()}" in out.stdout
    assert str(rig.path) in out.stdout


@pytest.mark.real
def test_what_a_killed_process_acknowledged_is_there(rig: SqliteRig) -> None:
    code = (
        "import sys, pathlib; from aipaging.adapters.journal.sqlite.writer import SqliteJournal\n"
        "from aipaging.testing.journal import *; from aipaging.testing.journal import _NOW\n"
        "journal = SqliteJournal(pathlib.Path(sys.argv[1]), bytes(range(32)), ballast_bytes=1 << 20)\n"
        "sealer = Sealer('node-1', 'boot-1', journal.open())\n"
        "while True:\n"
        "    journal.append(sealer.seal([moved(payload=b'p' * 300)] * 7, term=1, now=_NOW), unsigned(sealer))\n"
        "    print(sealer.head.seq, sealer.head.prev, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(rig.path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(60)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
    acknowledged = int(lines[-1].split()[0])
    head = rig.journal().open()
    assert head.seq in {acknowledged, acknowledged + 7}  # the last batch may be stored and not yet acknowledged
    assert head.seq > acknowledged or head.prev == lines[-1].split()[1]


def test_an_ordinary_record_comes_back_when_there_is_space_again(rig: SqliteRig) -> None:
    journal, sealer = filled(rig)
    rig.fill()
    before = sealer.head
    big = [moved(payload=b"y" * 20_000)] * 20
    expect("JOURNAL_FULL", lambda: journal.append(sealer.seal(big, term=1, now=NOW), None))
    journal._pages_max = None
    journal._connection.execute("PRAGMA max_page_count = 1000000")
    entries, after = sealed(before, *big)
    journal.append(entries, None)
    rig.crash(journal)
    assert rig.journal().open() == after.head


@pytest.mark.real
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting a small tmpfs needs privileges: {mounted.stderr.strip()}")
    try:
        fill_and_recover(disk)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill_and_recover(disk: Path) -> None:
    def journal() -> SqliteJournal:
        return SqliteJournal(disk / "journal.sqlite", KEY, ballast_bytes=12 << 20)

    opened = journal()
    head = opened.open()
    batch = [moved(payload=b"y" * 2_000)] * 50
    code = ""
    while not code:
        entries, sealer = sealed(head, *batch)
        try:
            opened.append(entries, unsigned(sealer))
            head = sealer.head
        except UnavailableError as error:
            code = error.code
    assert code == "JOURNAL_FULL"
    assert head.seq > 0
    ended = Draft(type="SESSION_ENDED", fields={"session": SESSION, "status_info": "NETWORK_TERMINATED"})
    for _ in range(20):
        entries, sealer = sealed(head, *[ended] * 20)
        opened.append(entries, unsigned(sealer), restrictive=True)
        head = sealer.head
    expect("JOURNAL_FULL", lambda: opened.append(sealed(head, *batch)[0], None))
    opened.close()
    again = journal()
    assert again.open() == head
    entries, sealer = sealed(head, ended)
    again.append(entries, unsigned(sealer), restrictive=True)
    assert sum(1 for _ in again.read(0)) == sealer.head.seq
    again.close()


def test_a_failed_sync_shuts_the_journal(rig: SqliteRig, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, sealer = filled(rig)
    head = sealer.head
    connection = journal._connection

    class Broken:
        in_transaction = True

        def execute(self, query: str, *arguments: object) -> object:
            if query == "COMMIT":
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
                raise error
            return connection.execute(query, *arguments)

        def executemany(self, *arguments: object) -> object:
            return connection.executemany(*arguments)

    journal._connection = Broken()
    entries = sealer.seal([moved()], term=1, now=NOW)
    expect("JOURNAL_IO", lambda: journal.append(entries, None))
    journal._connection = connection
    expect("JOURNAL_IO", lambda: journal.append(entries, None))
    rig.crash(journal)
    assert rig.journal().open() == head


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE entries SET leaf_hash = zeroblob(32) WHERE seq = 299",
        "UPDATE entries SET leaf_hash = zeroblob(32) WHERE seq = 260",
        "DELETE FROM entries WHERE seq = 299",
        "DELETE FROM entries WHERE seq = 280",
        "DELETE FROM subtrees",
        "UPDATE subtrees SET hash = zeroblob(32)",
        "UPDATE checkpoints SET size = 400, note = replace(note, '300', '400')",
        "UPDATE checkpoints SET note = 'nonsense'",
        "UPDATE meta SET value = 9 WHERE key = 'schema_version'",
    ],
)
def test_a_damaged_file_is_not_used(rig: SqliteRig, damage: str) -> None:
    journal = rig.journal()
    entries, sealer = sealed(journal.open(), *[moved()] * 300)
    journal.append(entries, unsigned(sealer))
    rig.crash(journal)
    with sqlite3.connect(rig.path) as connection:
        connection.execute(damage)
    connection.close()
    error = expect("JOURNAL_CORRUPT", rig.journal().open)
    assert str(rig.path) in error.message


def test_what_is_no_journal_is_not_used(rig: SqliteRig) -> None:
    rig.path.write_bytes(b"not a database, and long enough to be looked at" * 100)
    expect("JOURNAL_CORRUPT", rig.journal().open)
    expect("JOURNAL_CORRUPT", lambda: SqliteEvidenceReader(rig.path))


def test_a_missing_directory_and_file_are_named(tmp_path: Path) -> None:
    expect("JOURNAL_IO", SqliteJournal(tmp_path / "none" / "j", KEY).open)
    expect("JOURNAL_IO", lambda: SqliteEvidenceReader(tmp_path / "j"))


def test_another_key_is_refused(rig: SqliteRig) -> None:
    rig.crash(filled(rig)[0])
    expect("JOURNAL_KEY", SqliteJournal(rig.path, bytes(32)).open)


def test_payloads_are_encrypted_and_bound_to_their_place(rig: SqliteRig) -> None:
    journal, _ = filled(rig)
    rig.crash(journal)
    stored = b"".join(path.read_bytes() for path in rig.path.parent.iterdir() if path.suffix != ".ballast")
    assert b"private" not in stored
    assert b"s" * 16 not in stored
    with sqlite3.connect(rig.path) as connection:
        connection.execute("UPDATE entries SET payload = (SELECT payload FROM entries WHERE seq = 1) WHERE seq = 2")
    connection.close()
    again = rig.journal()
    again.open()
    expect("JOURNAL_CORRUPT", lambda: list(again.read(0)))


def test_erasure_leaves_no_key_on_disk(rig: SqliteRig) -> None:
    journal, _ = filled(rig)
    (secret,) = journal._connection.execute("SELECT secret FROM session_keys").fetchone()
    journal.save(1, "aa" * 32, journal.write([b"snapshot"]))
    (snapshot,) = journal._connection.execute("SELECT blob FROM snapshots").fetchone()
    assert snapshots_of(rig)
    journal.erase(SESSION)
    assert not snapshots_of(rig)
    for path in rig.path.parent.iterdir():
        assert secret not in path.read_bytes()
        assert snapshot not in path.read_bytes()


def test_an_altered_snapshot_counts_as_none(rig: SqliteRig) -> None:
    journal, _ = filled(rig)
    journal.save(1, "aa" * 32, journal.write([b"snapshot"]))
    journal._connection.execute("UPDATE snapshots SET seq = 2")
    assert journal.newest() is None


@pytest.mark.parametrize("place", [0, 3, 5, -1])
def test_a_snapshot_whose_file_was_altered_is_not_read(rig: SqliteRig, place: int) -> None:
    journal, _ = filled(rig)
    journal.save(1, "aa" * 32, journal.write([b"snapshot"]))
    (path,) = snapshots_of(rig)
    altered = bytearray(path.read_bytes())
    assert b"snapshot" not in altered
    altered[place] ^= 1
    path.write_bytes(altered)
    newest = journal.newest()
    assert newest is not None
    expect("SNAPSHOT_DAMAGED", lambda: list(newest[2]))
    path.unlink()
    assert journal.newest() is None


def test_files_of_snapshots_that_were_never_saved_go_when_the_journal_is_opened(rig: SqliteRig) -> None:
    journal, _ = filled(rig)
    journal.save(1, "aa" * 32, journal.write([b"snapshot"]))
    kept = snapshots_of(rig)
    journal.write([b"later"])
    assert len(snapshots_of(rig)) == 2
    rig.crash(journal)
    rig.journal().open()
    assert snapshots_of(rig) == kept


def test_sessions_out_of_the_cache_keep_their_keys(rig: SqliteRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aipaging.adapters.journal.sqlite.vault.CACHED_SESSIONS_MAX", 1)
    journal = rig.journal()
    entries, _ = sealed(journal.open(), *[moved(SESSION, b"a", b"salt"), moved(OTHER, b"b")] * 3)
    journal.append(entries, None)
    assert [entry.payload for entry in journal.read(0)] == [b"a", b"b"] * 3
    assert [entry.salt for entry in journal.read(0)] == [b"salt", None] * 3


def test_a_reader_follows_a_running_writer(rig: SqliteRig) -> None:
    journal, sealer = filled(rig)
    reader = SqliteEvidenceReader(rig.path)
    assert [stored.record for stored in reader.records(0)] == [entry.record for entry in journal.read(0)]
    journal.append(sealer.seal([moved(OTHER)], term=1, now=NOW), unsigned(sealer))
    assert reader.size() == 13
    assert [seq for seq, _ in reader.session_records(OTHER)] == [12]
    assert reader.checkpoints(newest=True) == [unsigned(sealer)]
    assert reader.leaves(b"none") is None
    assert reader.verifier_keys() == ()
    reader.close()


def test_empty_log_is_read_as_empty(rig: SqliteRig) -> None:
    assert rig.journal().open() == EMPTY_LOG
    reader = SqliteEvidenceReader(rig.path)
    assert list(reader.records(0)) == []
    assert reader.checkpoints(newest=False) == []
    reader.close()


def test_a_salt_that_comes_after_the_key_is_kept(rig: SqliteRig) -> None:
    journal = rig.journal()
    entries, sealer = sealed(journal.open(), moved(payload=b"first"), moved(payload=b"second", salt=b"late"))
    journal.append(entries, unsigned(sealer))
    rig.crash(journal)
    again = rig.journal()
    again.open()
    assert [(entry.payload, entry.salt) for entry in again.read(0)] == [(b"first", b"late"), (b"second", b"late")]


def test_a_journal_opens_on_a_full_disk_by_giving_up_its_ballast(rig: SqliteRig, monkeypatch) -> None:
    journal, sealer = filled(rig)
    rig.crash(journal)
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    recovered = SqliteJournal._recovered
    attempts: list[bool] = []

    def once_full(self: SqliteJournal) -> object:
        attempts.append(self._ballast._path.exists())
        if len(attempts) == 1:
            raise full
        return recovered(self)

    monkeypatch.setattr(SqliteJournal, "_recovered", once_full)
    assert rig.journal().open() == sealer.head
    assert attempts == [True, False]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (sqlite3.SQLITE_FULL, "JOURNAL_FULL"),
        (sqlite3.SQLITE_IOERR, "JOURNAL_IO"),
        (sqlite3.SQLITE_CORRUPT, "JOURNAL_CORRUPT"),
    ],
)
def test_failures_of_sqlite_are_told_apart(rig: SqliteRig, monkeypatch, number: int, code: str) -> None:
    error = sqlite3.OperationalError("it failed")
    error.sqlite_errorcode = number

    def fails(self: SqliteJournal) -> object:
        raise error

    monkeypatch.setattr(SqliteJournal, "_recovered", fails)
    expect(code, rig.journal().open)


def test_a_snapshot_that_does_not_fit_leaves_the_log_alone(rig: SqliteRig) -> None:
    journal, sealer = filled(rig)
    before, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    try:
        with pytest.raises(OSError, match="too large"):
            journal.write([bytes(1 << 19)] * 4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, resource.RLIM_INFINITY))
    assert journal.newest() is None
    assert not snapshots_of(rig)
    rig.crash(journal)
    assert rig.journal().open() == sealer.head


def test_a_snapshot_leaves_the_space_that_is_kept_aside(rig: SqliteRig) -> None:
    journal, _ = filled(rig)
    journal._snapshots._spare_bytes = 1 << 60
    expect("JOURNAL_FULL", lambda: journal.write([bytes(1 << 20)]))
    assert not snapshots_of(rig)


def test_a_reader_that_is_in_the_way_of_an_erasure_is_reported(rig: SqliteRig, monkeypatch) -> None:
    journal, _ = filled(rig)
    journal._connection.execute("PRAGMA busy_timeout = 10")
    reader = sqlite3.connect(rig.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM entries").fetchone()
    expect("JOURNAL_BUSY", lambda: journal.erase(SESSION))
    reader.close()
    journal.erase(SESSION)
    assert all(entry.payload is None for entry in journal.read(0))


def test_a_copy_on_read_only_media_is_read(rig: SqliteRig, monkeypatch) -> None:
    journal, sealer = filled(rig)
    journal.close()
    connection = schema._uri_connection

    class Unwritable:
        def execute(self, query: str) -> object:
            raise sqlite3.OperationalError("unable to open database file")

        def close(self) -> None:
            pass

    monkeypatch.setattr(schema, "_uri_connection", lambda uri: Unwritable() if "mode=ro" in uri else connection(uri))
    reader = SqliteEvidenceReader(rig.path)
    assert reader.size() == sealer.head.seq
    reader.close()


@pytest.mark.parametrize(
    ("number", "code"), [(sqlite3.SQLITE_IOERR, "JOURNAL_IO"), (sqlite3.SQLITE_CORRUPT, "JOURNAL_CORRUPT")]
)
def test_what_a_reader_cannot_read_is_told_apart(rig: SqliteRig, number: int, code: str) -> None:
    filled(rig)
    reader = SqliteEvidenceReader(rig.path)

    class Failing:
        def execute(self, *arguments: object) -> object:
            error = sqlite3.DatabaseError("it failed")
            error.sqlite_errorcode = number
            raise error

    reader._standing._open[0] = Failing()
    expect(code, reader.size)


def test_the_records_of_a_session_are_found_in_every_segment(rig: SqliteRig) -> None:
    journal = rig.journal()
    drafts = [moved(OTHER if place in {0, 2_047, 2_048, 4_100} else SESSION) for place in range(4_200)]
    entries, _ = sealed(journal.open(), *drafts)
    journal.append(entries, None)
    reader = SqliteEvidenceReader(rig.path)
    assert [seq for seq, _ in reader.session_records(OTHER)] == [0, 2_047, 2_048, 4_100]
    assert len(reader.session_records(SESSION)) == 4_196
    reader.close()


def test_damaged_leaves_are_read_as_missing(rig: SqliteRig) -> None:
    journal = rig.journal()
    leaf = {"session": SESSION, "epoch_term": 1, "epoch_n": 1, "renewal": 1, "lease_ms": 1}
    entries, _ = sealed(journal.open(), Draft(type="LEASES_RENEWED", fields={}, leaves=(leaf,)))
    journal.append(entries, None)
    journal._connection.execute("UPDATE leaves SET bundle = x'ffff00'")
    reader = SqliteEvidenceReader(rig.path)
    assert next(reader.records(0)).leaves == ()
    reader.close()


def test_a_disk_that_stays_full_takes_no_ordinary_record_until_there_is_room_twice(rig: SqliteRig, monkeypatch) -> None:
    journal, sealer = filled(rig)
    journal._ballast.release()
    free = os.statvfs_result((4096, 4096, 9, 9, BALLAST // 4096 + 1, 9, 9, 9, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: free)
    entries = sealer.seal([moved()], term=1, now=NOW)
    expect("JOURNAL_FULL", lambda: journal.append(entries, None))
    journal.append(entries, None, restrictive=True)
    monkeypatch.undo()
    journal.append(sealer.seal([moved()], term=1, now=NOW), None)
    assert journal._ballast.held


def test_a_ballast_that_does_not_fit_is_not_held(rig: SqliteRig, monkeypatch) -> None:
    def full(descriptor: int, begin: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    journal = rig.journal()
    entries, _ = sealed(journal.open(), moved())
    expect("JOURNAL_FULL", lambda: journal.append(entries, None))
    journal.append(entries, None, restrictive=True)
