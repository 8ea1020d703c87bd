"""Old files of a journal are moved away, damaged, put back: what needs them says so, and nothing else does."""

import contextlib
import logging
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from aipaging.adapters.journal.sqlite import moving, schema, sealing, standing, succession
from aipaging.adapters.journal.sqlite.files import JournalFiles, carried_from
from aipaging.adapters.journal.sqlite.reader import SqliteEvidenceReader
from aipaging.adapters.journal.sqlite.schema import reader_connection
from aipaging.adapters.journal.sqlite.sealing import movable
from aipaging.adapters.journal.sqlite.standing import StandingFiles
from aipaging.adapters.journal.sqlite.usage import SqliteUsageAccount
from aipaging.adapters.journal.sqlite.writer import SqliteJournal
from aipaging.adapters.journal.tiles import TileReader, directory_fetch, export, resource
from aipaging.core.evidence.log import Sealer
from aipaging.core.evidence.merkle import EMPTY_TREE, consistency_proof, frontier, inclusion_proof, verify_inclusion
from aipaging.core.evidence.record import Draft, SealedEntry
from aipaging.core.evidence.tiles import leaves_path, subtree_hashes, tiles_of
from aipaging.core.foundation.errors import UnavailableError
from aipaging.core.foundation.names import SessionId
from aipaging.testing.journal import OTHER, SESSION, expect, moved, sealed, unsigned

KEY = bytes(range(32))
NOW = sealed.__globals__["_NOW"]
NAME = "journal.db"
SIZES = (300, 215, 1, 256, 40)
FIRSTS = (0, 300, 515, 516, 772)
SIZE = sum(SIZES)


def session(number: int) -> SessionId:
    return SessionId(f"00000000-0000-4000-9000-{number:012}")


def requested(number: int) -> Draft:
    fields = {
        "session": session(number), "client": "c", "tenant": "t", "aisi": "aisi://a/b/c", "duration_ms": 1,
        "intent_commitment": "00" * 32,
    }  # fmt: skip
    return Draft(type="SESSION_REQUESTED", fields=fields, payload=b"intent", salt=b"salt-%d" % number)


class Log:
    """A journal of five files; in each a session begins, and one goes on through all of them."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.files = JournalFiles(self.path)
        self.away = folder / "away"
        self.away.mkdir()
        self.entries: list[SealedEntry] = []
        self.journal = self.made()
        self.sealer = Sealer("node-1", "boot-1", self.journal.open())
        for number, size in enumerate(SIZES):
            if number:
                assert self.journal.go_on()
            leaf = {"session": SESSION, "epoch_term": 1, "epoch_n": 1, "renewal": number + 1, "lease_ms": 5_000}
            batch = Draft(type="LEASES_RENEWED", fields={}, leaves=(leaf,), payload=b"everybody's")
            first = [moved(SESSION, b"place", b"salt"), moved(session(number), b"place", b"salt"), batch]
            self.store(*(first + [moved(session(number), b"place", b"salt")] * size)[: size - 1], batch)
        self.journal._sealing.wait()

    def made(self) -> SqliteJournal:
        return SqliteJournal(self.path, KEY, ballast_bytes=0)

    def store(self, *drafts: Draft) -> list[SealedEntry]:
        entries = self.sealer.seal(drafts, term=1, now=NOW)
        self.journal.append(entries, unsigned(self.sealer))
        self.entries += entries
        return entries

    def move(self, *numbers: int) -> None:
        for number in numbers:
            path = self.files.path_of(FIRSTS[number])
            assert not self.log_bytes(path), "it is not sealed"
            path.rename(self.away / path.name)

    @staticmethod
    def log_bytes(path: Path) -> int:
        beside = path.with_name(path.name + "-wal")
        return beside.stat().st_size if beside.exists() else 0

    def put_back(self) -> None:
        for path in self.away.iterdir():
            path.rename(self.path.with_name(path.name))

    def reopened(self) -> SqliteJournal:
        self.journal.close()
        self.journal = self.made()
        assert self.journal.open() == self.sealer.head
        return self.journal


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path)
    yield made
    made.journal.close()


@pytest.fixture
def reader(log: Log) -> Iterator[SqliteEvidenceReader]:
    made = SqliteEvidenceReader(log.path)
    assert sum(1 for _ in made.records(0)) == SIZE
    yield made
    made.close()


def missing(code_of: object) -> str:
    """Return what is said of a file that is not there."""
    assert callable(code_of)
    return expect("JOURNAL_FILE_MISSING", code_of).message


def test_the_journal_goes_on_with_its_old_files_away(log: Log) -> None:
    log.move(0, 1, 2, 3)
    journal = log.reopened()
    log.store(moved(SESSION, b"late"))
    assert journal.go_on()
    log.store(moved(OTHER, b"later"))
    assert [entry.seq for entry in journal.read(FIRSTS[4])] == list(range(FIRSTS[4], SIZE + 2))
    log.reopened()


def test_a_replay_that_needs_what_is_away_is_refused_whole(log: Log) -> None:
    log.move(1)
    journal = log.reopened()
    said = missing(lambda: next(journal.read(0)))  # not after the records that are there: nothing is to be taken in
    assert f"{NAME}.{300:016}" in said
    assert "records 300 to 514" in said
    assert "operator must put back" in said
    assert missing(lambda: next(journal.read(514)))
    assert list(journal.read(515)) == log.entries[515:]
    log.put_back()
    assert list(journal.read(0)) == log.entries


def test_a_journal_whose_head_is_away_is_not_written(log: Log) -> None:
    log.journal.close()
    log.move(4)
    said = missing(log.made().open)
    assert f"{NAME}.{772:016}" in said
    assert "records from 772 on" in said
    log.put_back()
    log.reopened()


def test_a_journal_all_of_whose_files_but_the_first_are_away_is_not_written(log: Log) -> None:
    log.journal.close()
    log.move(1, 2, 3, 4)
    missing(log.made().open)


@pytest.mark.parametrize("away", [(0,), (0, 1), (1,), (0, 2), (0, 1, 2, 3)])
def test_a_reader_answers_wholly_or_says_what_is_away(
    log: Log, reader: SqliteEvidenceReader, away: tuple[int, ...]
) -> None:
    full = {path: resource(reader, path) for path in paths(log)}
    log.move(*away)
    lost = {seq for number in away for seq in range(FIRSTS[number], FIRSTS[number] + SIZES[number])}
    there = [first for number, first in enumerate(FIRSTS) if number not in away]
    copied = {seq for first in there for seq in range(carried_from(first), first)}
    for opened in (reader, SqliteEvidenceReader(log.path)):
        for seq, entry in enumerate(log.entries):
            if seq in lost - copied:
                said = missing(lambda opened=opened, seq=seq: next(opened.records(seq)))
                assert f"records {FIRSTS[first_lost(seq, away)]} to" in said
            else:
                stored = next(opened.records(seq, seq + 1))
                assert (stored.record, stored.leaves) == (entry.record, entry.leaves)
        answered = 0
        for path, whole in full.items():
            with contextlib.suppress(UnavailableError):
                assert resource(opened, path) == whole
                answered += 1
        assert 0 < answered < len(full)
        assert opened.size() == SIZE
        assert opened.first_seq() == FIRSTS[max(away) + 1]
    log.put_back()
    assert {path: resource(reader, path) for path in full} == full
    assert reader.first_seq() == 0


def first_lost(seq: int, away: tuple[int, ...]) -> int:
    return next(number for number in away if FIRSTS[number] <= seq < FIRSTS[number] + SIZES[number])


def paths(log: Log) -> list[str]:
    tiles = [tile.path for tile in tiles_of(0, SIZE)]
    return [*tiles, *(leaves_path(entry.root) for entry in log.entries if entry.root)]


def test_new_records_are_proven_without_the_old_files(log: Log, reader: SqliteEvidenceReader) -> None:
    log.move(0, 1, 2, 3)
    root, subtree = log.sealer.head.tree.root(), subtree_hashes(reader.hashes)
    for seq in range(FIRSTS[4], SIZE):
        proof = inclusion_proof(seq, SIZE, subtree)
        assert verify_inclusion(log.entries[seq].leaf_hash, seq, size=SIZE, proof=proof, root=root)
        assert consistency_proof(seq, SIZE, subtree)
    missing(lambda: inclusion_proof(5, SIZE, subtree))
    missing(lambda: consistency_proof(299, SIZE, subtree))


def test_sessions_are_answered_wholly_or_not_at_all(log: Log, reader: SqliteEvidenceReader) -> None:
    begun = log.store(requested(77), moved(session(77)))
    log.move(0)
    assert [seq for seq, _ in reader.session_records(session(77))] == [entry.seq for entry in begun]
    missing(lambda: reader.session_records(SESSION))  # it began in the file that is away
    missing(lambda: reader.session_records(session(0)))
    missing(lambda: reader.session_records(session(99)))  # nobody can say that there is none
    missing(lambda: reader.leaves(b"?" * 32))
    log.put_back()
    assert len(reader.session_records(SESSION)) == len(SIZES) - 1  # in the file of one record there is another
    assert reader.session_records(session(99)) == []
    assert reader.leaves(b"?" * 32) is None


def test_an_export_goes_on_without_the_files_that_it_has_already(log: Log, tmp_path: Path) -> None:
    public = tmp_path / "public"
    reader = SqliteEvidenceReader(log.path)
    export(reader, public)
    log.move(0, 1, 2, 3)
    log.store(*[moved()] * 600)
    assert export(reader, public).size == SIZE + 600
    log.put_back()
    export(reader, tmp_path / "at-once")
    tiles = TileReader(directory_fetch(public), "public")
    assert [stored.record for stored in tiles.records(0)] == [entry.record for entry in log.entries]
    fetched = directory_fetch(tmp_path / "at-once")
    for tile in tiles_of(0, SIZE + 600):
        assert directory_fetch(public)(tile.path) == fetched(tile.path), tile.path
    log.move(0)
    missing(lambda: export(reader, tmp_path / "too-late"))
    reader.close()


def test_usage_is_summed_on_or_says_what_is_away(log: Log, tmp_path: Path) -> None:
    account = SqliteUsageAccount(tmp_path / "usage.db", lambda: SqliteEvidenceReader(log.path))
    while account.take():
        pass
    account.close()
    log.move(0, 1, 2, 3)
    log.store(moved())
    again = SqliteUsageAccount(tmp_path / "usage.db", lambda: SqliteEvidenceReader(log.path))
    assert again.take() is False
    again.close()
    for path in tmp_path.glob("usage.db*"):
        path.unlink()
    anew = SqliteUsageAccount(tmp_path / "usage.db", lambda: SqliteEvidenceReader(log.path))
    missing(anew.take)
    anew.close()


def test_a_part_of_the_files_elsewhere_is_a_log_of_its_own_until_they_end(log: Log) -> None:
    log.move(0, 1)
    archive = SqliteEvidenceReader(log.away / NAME)
    assert [stored.record for stored in archive.records(0)] == [entry.record for entry in log.entries[:515]]
    assert archive.continued_in() == f"{NAME}.{515:016}"
    assert len(archive.checkpoints(newest=False)) == 2
    archive.close()


def test_every_file_names_the_journal(log: Log) -> None:
    for first in FIRSTS:
        reader = SqliteEvidenceReader(log.files.path_of(first))
        assert reader.size() == SIZE
        assert len(list(reader.records(0))) == SIZE
        reader.close()


# -- erasure


def test_a_session_is_erased_from_every_file(log: Log) -> None:
    (secret,) = log.journal._connection.execute(
        "SELECT secret FROM session_keys WHERE session = ?", (SESSION,)
    ).fetchone()
    secrets = {secret}
    for first in FIRSTS[:-1]:
        with contextlib.closing(reader_connection(log.files.path_of(first))) as connection:
            found = connection.execute("SELECT secret FROM session_keys WHERE session = ?", (SESSION,)).fetchall()
            secrets |= {row[0] for row in found}
    assert len(secrets) == len(FIRSTS) - 1, "in every file that it is in it has a key of its own"
    log.journal.erase(SESSION)
    for path in log.path.parent.glob(f"{NAME}*"):
        assert not any(each in path.read_bytes() for each in secrets), path
    of_session = {entry.payload for entry in log.journal.read(0) if entry.session == SESSION}
    assert of_session == {None}
    assert {entry.payload for entry in log.journal.read(0) if entry.session == session(0)} == {b"place"}
    log.store(moved(OTHER, b"here"))
    assert log.journal.go_on()
    late = log.sealer.seal([moved(SESSION, b"again")], term=1, now=NOW)
    expect("SESSION_ERASED", lambda: log.journal.append(late, None))


def test_a_file_that_was_away_is_erased_when_it_is_back(log: Log) -> None:
    path = log.files.path_of(0)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (secret,) = connection.execute("SELECT secret FROM session_keys WHERE session = ?", (session(0),)).fetchone()
    assert secret in path.read_bytes()
    log.move(0)
    log.journal.erase(session(0))  # which no file that is there knows
    log.store(moved(OTHER, b"here"))
    assert log.journal.go_on()
    log.put_back()
    assert all(entry.payload is None for entry in log.journal.read(0) if entry.session == session(0))
    log.reopened()
    assert secret not in path.read_bytes()
    assert all(entry.payload is None for entry in log.journal.read(0) if entry.session == session(0))
    assert {entry.payload for entry in log.journal.read(0) if entry.session == SESSION} == {b"place"}


def test_a_session_that_nobody_knows_is_no_error_and_may_come(log: Log) -> None:
    log.journal.erase(session(55))
    log.store(moved(session(55), b"here"))
    assert next(log.journal.read(SIZE)).payload == b"here"


def test_an_erasure_says_whether_there_was_such_a_session(log: Log) -> None:
    assert log.journal.erase(session(0)), "it stands in a sealed file"
    assert log.journal.erase(session(0))
    assert not log.journal.erase(session(55))
    log.move(0)
    assert log.journal.erase(session(56)), "nobody can say: it may stand in what is away"


def test_a_snapshot_stays_unless_the_erased_has_later_records_in_any_file(log: Log) -> None:
    root = log.sealer.head.tree.root().hex()
    log.journal.save(FIRSTS[2] - 1, root, log.journal.write([b"state"]))
    assert log.journal.erase(session(0))
    assert log.journal.newest() is not None
    assert log.journal.erase(session(3)), "which begins after it, in a file that is sealed"
    assert log.journal.newest() is None


# -- what is damaged


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE subtrees SET hash = zeroblob(32) WHERE level = 1",
        "DELETE FROM subtrees",
        "UPDATE entries SET leaf_hash = zeroblob(32) WHERE seq = 811",
        "DELETE FROM entries WHERE seq = 800",
        "DELETE FROM entries",
        "DELETE FROM checkpoints",
    ],
)
def test_nothing_is_carried_on_from_a_damaged_file(log: Log, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    log.journal._connection.execute(damage)
    assert not log.journal.go_on()
    assert log.journal.failures == 1
    assert "does not go on" in caplog.text
    assert len(log.files.present()) == len(FIRSTS)
    assert not log.files.unfinished.exists()
    log.store(moved())  # the old file is the head


@pytest.mark.parametrize(
    ("first", "damage", "what"),
    [
        (772, "UPDATE meta SET value = '0 300 515 516' WHERE key = 'files'", "its name says otherwise"),
        (772, "UPDATE entries SET record = x'00' WHERE seq = 771", "does not go on where"),
        (516, "UPDATE entries SET record = x'00' WHERE seq = 771", "does not go on where"),
        (516, "DELETE FROM entries WHERE seq = 771", "does not go on where"),
        (772, "UPDATE subtrees SET hash = zeroblob(32)", "is damaged or was altered"),
        (772, "UPDATE meta SET value = 3 WHERE key = 'schema_version'", "schema version is 3, not 1 or 2"),
    ],
)
def test_a_head_that_does_not_fit_its_name_or_the_file_before_it_is_not_used(
    log: Log, first: int, damage: str, what: str
) -> None:
    log.journal.close()
    with contextlib.closing(sqlite3.connect(log.files.path_of(first))) as connection, connection:
        connection.execute(damage)
    assert what in expect("JOURNAL_CORRUPT", log.made().open).message


def test_what_is_left_of_a_file_that_never_got_its_name_goes_when_the_journal_is_opened(log: Log) -> None:
    log.files.unfinished.write_bytes(b"half")
    log.reopened()
    assert not log.files.unfinished.exists()


# -- sealing, and the moment of going on


def test_names_are_durable_before_anything_is_acknowledged(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, rename = os.fsync, os.rename

    def synced(descriptor: int) -> None:
        order.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def renamed(old: Path, new: Path) -> None:
        order.append(f"rename {old.name} {new.name}")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    assert log.journal.go_on()
    new = f"{NAME}.{SIZE:016}"
    assert order == [f"sync {NAME}.next", f"rename {NAME}.next {new}", f"sync {log.path.parent.name}"]


def test_a_name_that_is_not_durable_shuts_the_journal_until_it_is_opened_anew(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: JournalFiles) -> None:
        raise OSError(5, "Input/output error", str(self.base.parent))

    with monkeypatch.context() as broken:
        broken.setattr(JournalFiles, "sync_folder", failing)
        assert not log.journal.go_on()
        entries, _ = sealed(log.sealer.head, moved())
        assert "going on in another file" in expect("JOURNAL_IO", lambda: log.journal.append(entries, None)).message
        log.journal.close()
        expect("JOURNAL_IO", log.made().open)
    log.reopened()
    log.store(moved())
    with contextlib.closing(reader_connection(log.files.path_of(772))) as connection:
        assert connection.execute("SELECT value FROM meta WHERE key = 'successor'").fetchone() == (SIZE,)


def test_a_reader_that_is_in_the_way_of_sealing_is_waited_for(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = sqlite3.connect(log.files.path_of(772), isolation_level=None)
    holder.execute("BEGIN")
    holder.execute("SELECT count(*) FROM entries").fetchone()
    log.journal._connection.execute("PRAGMA busy_timeout = 10")
    log.store(moved())
    assert log.journal.go_on()
    entries = log.store(moved(OTHER, b"while it waits"))  # nobody waits for it
    assert log.log_bytes(log.files.path_of(772)) > 0
    holder.close()
    log.journal._sealing.wait()
    assert log.log_bytes(log.files.path_of(772)) == 0
    assert next(log.journal.read(SIZE + 1)) == entries[0]


def test_what_a_reader_kept_from_being_sealed_is_sealed_at_the_next_opening(
    log: Log, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sealing, "TRIES_MAX", 1)
    monkeypatch.setattr(sealing.Sealing, "begin", lambda self, connection, mover, path, successor: connection.close())
    log.store(moved())
    assert log.journal.go_on()
    log.store(moved())
    with contextlib.closing(reader_connection(log.files.path_of(772))) as connection:
        assert connection.execute("SELECT * FROM meta WHERE key = 'successor'").fetchone() is None
    log.reopened()
    with contextlib.closing(reader_connection(log.files.path_of(772))) as connection:
        assert connection.execute("SELECT value FROM meta WHERE key = 'successor'").fetchone() == (SIZE + 1,)


def test_files_may_be_moved_when_a_later_snapshot_covers_them(log: Log) -> None:
    with contextlib.closing(StandingFiles(log.path)) as files:
        assert movable(files) == []
        root = log.sealer.head.tree.root().hex()
        for covered, allowed in ((514, 1), (515, 2), (SIZE, 4)):
            log.journal.save(covered, root, log.journal.write([b"state"]))
            assert movable(files) == [log.files.path_of(first) for first in FIRSTS[:allowed]]
        with contextlib.closing(sqlite3.connect(log.files.path_of(0))) as connection, connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('note', 'in the write-ahead log')")
            held = reader_connection(log.files.path_of(0))
        assert movable(files) == [log.files.path_of(first) for first in FIRSTS[1:4]]
        held.close()
        log.journal._snapshots.keep_only("")
        assert movable(files) == []


def test_the_snapshot_goes_on_with_the_journal(log: Log) -> None:
    log.journal.save(SIZE, "aa" * 32, log.journal.write([b"state"]))
    log.store(moved())
    assert log.journal.go_on()
    for again in (False, True):
        newest = (log.reopened() if again else log.journal).newest()
        assert newest is not None
        assert (newest[0], list(newest[2])) == (SIZE, [b"state"])
    log.journal.discard()
    assert log.journal.newest() is None
    assert log.reopened().newest() is None


def test_it_goes_on_by_itself_when_the_file_is_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(moving, "WAL_PAGES", 10)
    journal = SqliteJournal(tmp_path / NAME, KEY, ballast_bytes=0, file_bytes_max=1 << 20)
    sealer = Sealer("node-1", "boot-1", journal.open())
    for number in range(300):
        entries = sealer.seal([moved(payload=b"z" * 2_000, salt=b"s" * 16)] * 4, term=1, now=NOW)
        journal.append(entries, unsigned(sealer) if number % 2 else None)
    files = JournalFiles(tmp_path / NAME)
    present = files.present()
    assert len(present) >= 3
    assert "the journal goes on in another file" in caplog.text
    journal._sealing.wait()
    for first in present[:-1]:
        assert 1 << 20 <= files.path_of(first).stat().st_size < 2 << 20
    assert sum(1 for _ in journal.read(0)) == 1_200
    journal.close()


def test_it_is_tried_again_later_where_it_could_not_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(moving, "WAL_PAGES", 40)
    journal = SqliteJournal(tmp_path / NAME, KEY, ballast_bytes=0, file_bytes_max=1)
    sealer = Sealer("node-1", "boot-1", journal.open())

    def store() -> None:
        entries = sealer.seal([moved(payload=b"z" * 2_000, salt=b"s" * 16)] * 4, term=1, now=NOW)
        journal.append(entries, unsigned(sealer))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as failing:
        failing.setattr(succession, "_sync", full)
        while journal.failures < 3:
            store()
    assert caplog.text.count("does not go on") == 3
    assert journal.first_seq == 0
    while not journal.first_seq:
        store()
    assert sum(1 for _ in journal.read(0)) == sealer.head.seq
    journal.close()


def test_a_journal_without_its_ballast_does_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "WAL_PAGES", 1)
    journal = SqliteJournal(tmp_path / NAME, KEY, ballast_bytes=1 << 20, file_bytes_max=1)
    sealer = Sealer("node-1", "boot-1", journal.open())
    journal._ballast.release()
    for _ in range(3):
        journal.append(sealer.seal([moved()], term=1, now=NOW), unsigned(sealer), restrictive=True)
    assert journal.first_seq == 0
    journal.append(sealer.seal([moved()], term=1, now=NOW), unsigned(sealer))
    assert journal.first_seq > 0
    journal.close()


def test_a_journal_of_one_file_from_before_goes_on(tmp_path: Path) -> None:
    path = tmp_path / NAME
    journal = SqliteJournal(path, KEY, ballast_bytes=0)
    sealer = Sealer("node-1", "boot-1", journal.open())
    journal.append(sealer.seal([moved(payload=b"old")] * 5, term=1, now=NOW), unsigned(sealer))
    journal.erase(OTHER)
    journal.close()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP INDEX erased_sessions")
        assert connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone() == (1,)
    again = SqliteJournal(path, KEY, ballast_bytes=0)
    assert again.open() == sealer.head
    assert again.go_on()
    again.append(sealer.seal([moved(payload=b"new")], term=1, now=NOW), unsigned(sealer))
    assert [entry.payload for entry in again.read(0)] == [b"old"] * 5 + [b"new"]
    again.close()


def test_files_on_another_journal_s_place_are_not_taken_for_its_own(log: Log, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    stranger = SqliteJournal(other / NAME, KEY, ballast_bytes=0)
    sealer = Sealer("node-2", "boot-2", stranger.open())
    stranger.append(sealer.seal([moved()] * SIZE, term=1, now=NOW), unsigned(sealer))
    assert stranger.go_on()
    stranger.close()
    log.journal.close()
    shutil.copy(other / f"{NAME}.{SIZE:016}", tmp_path)
    expect("JOURNAL_CORRUPT", log.made().open)


def test_a_file_that_is_in_the_place_of_the_next_is_not_overwritten(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    other = log.files.path_of(SIZE)
    other.write_bytes(b"somebody's")
    assert not log.journal.go_on()
    assert [record.reason for record in caplog.records][-1].startswith("[Errno 17] File exists")
    assert other.read_bytes() == b"somebody's"
    other.unlink()
    assert log.journal.go_on()


def test_a_file_may_be_read_by_whom_the_one_before_it_may_be_read_by(log: Log) -> None:
    log.files.path_of(772).chmod(0o640)
    assert log.journal.go_on()
    assert log.files.path_of(SIZE).stat().st_mode & 0o777 == 0o640


def test_three_rows_of_tiles_go_on_with_the_journal(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / NAME, KEY, ballast_bytes=0)
    sealer = Sealer("node-1", "boot-1", journal.open())
    leaf_hashes: list[bytes] = []
    for size in (65_300, 500, 300):  # the second file has the record that makes the first hash of the third row whole
        entries = sealer.seal([moved()] * size, term=1, now=NOW)
        journal.append(entries, unsigned(sealer))
        leaf_hashes += [entry.leaf_hash for entry in entries]
        assert journal.go_on()
    tree, completed = EMPTY_TREE.grown(leaf_hashes)
    files = JournalFiles(tmp_path / NAME)
    reader = SqliteEvidenceReader(tmp_path / NAME)
    for away in ([], [0], [0, 65_300], [0, 65_300, 65_800]):
        for first in away:
            with contextlib.suppress(FileNotFoundError):
                files.path_of(first).rename(tmp_path / f"away-{first}")
        assert frontier(tree.size, subtree_hashes(reader.hashes)).root() == tree.root()
        assert reader.hashes(2, 0, 5) == [root for level, _, root in completed if level == 2]
        rows = [root for level, _, root in completed if level == 1]
        assert reader.hashes(1, 256, 10) == rows[256:]
        if len(away) > 1:  # the second file has what was not whole in the first
            missing(lambda: reader.hashes(1, 0, 256))
        else:
            assert reader.hashes(1, 0, 300) == rows
    reader.close()
    journal.close()
    again = SqliteJournal(tmp_path / NAME, KEY, ballast_bytes=0)
    assert again.open() == sealer.head
    again.close()


def test_a_session_that_went_on_in_a_file_that_is_away_is_not_answered(log: Log, reader: SqliteEvidenceReader) -> None:
    begun = log.store(requested(77))
    assert log.journal.go_on()
    log.store(moved(session(77)))
    assert log.journal.go_on()
    last = log.store(moved(session(77)))
    log.journal._sealing.wait()
    path = log.files.path_of(SIZE + 1)
    path.rename(log.away / path.name)
    missing(lambda: reader.session_records(session(77)))
    log.put_back()
    assert [seq for seq, _ in reader.session_records(session(77))] == [begun[0].seq, SIZE + 1, last[0].seq]


def test_a_salt_is_found_in_whatever_file_it_was_given(log: Log) -> None:
    log.store(moved(session(77), b"early"))
    assert log.journal.go_on()
    log.store(moved(session(77), b"with it", b"its salt"))
    assert log.journal.go_on()
    log.store(moved(session(77), b"late"))
    of_session = [(entry.payload, entry.salt) for entry in log.journal.read(SIZE)]
    assert of_session == [(b"early", b"its salt"), (b"with it", b"its salt"), (b"late", b"its salt")]


def test_what_happens_within_one_tick_of_the_file_system_is_seen(
    log: Log, reader: SqliteEvidenceReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "SETTLED_NS", 3_600 * 10**9)
    folder = log.path.parent
    ticked = folder.stat()
    assert reader.size() == SIZE
    assert log.journal.go_on()
    log.store(moved(OTHER))
    os.utime(folder, ns=(ticked.st_atime_ns, ticked.st_mtime_ns))
    assert reader.size() == SIZE + 1


def test_a_file_without_records_of_its_own_is_not_gone_on_from(log: Log) -> None:
    assert log.journal.go_on()
    assert not log.journal.go_on()
    log.reopened()
    assert not log.journal.go_on()
    assert log.journal.failures == 0
    log.store(moved())
    assert log.journal.go_on()


def test_a_copy_of_every_file_opens(log: Log, tmp_path: Path) -> None:
    """As the page on backups makes it."""
    backup = tmp_path / "backup"
    backup.mkdir()
    for first in log.files.present():
        source, copy = (sqlite3.connect(place / log.files.path_of(first).name) for place in (tmp_path, backup))
        source.backup(copy)
        copy.close()
        source.close()
    restored = SqliteJournal(backup / NAME, KEY, ballast_bytes=0)
    assert restored.open() == log.sealer.head
    assert list(restored.read(0)) == log.entries
    restored.close()


def test_a_ceiling_is_one_of_all_files(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / NAME, KEY, ballast_bytes=0, pages_max=400)
    sealer = Sealer("node-1", "boot-1", journal.open())
    entries = sealer.seal([moved(payload=b"z" * 3_000)] * 300, term=1, now=NOW)
    journal.append(entries, unsigned(sealer))
    (used,) = journal._connection.execute("PRAGMA page_count").fetchone()
    journal._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert used > 225
    assert journal.go_on()
    assert journal._connection.execute("PRAGMA max_page_count").fetchone() == (400 - used,)
    more = sealer.seal([moved(payload=b"z" * 3_000)] * 300, term=1, now=NOW)
    expect("JOURNAL_FULL", lambda: journal.append(more, None))
    journal.close()


def test_a_reader_that_is_in_the_way_of_an_erasure_from_an_old_file_is_reported_and_it_is_erased_the_next_time(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = log.files.path_of(300)
    with contextlib.closing(reader_connection(path)) as connection:
        (secret,) = connection.execute("SELECT secret FROM session_keys WHERE session = ?", (session(1),)).fetchone()
    monkeypatch.setattr(schema, "BUSY_SECONDS", 0.01)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN")
    holder.execute("SELECT count(*) FROM entries").fetchone()
    assert path.name in expect("JOURNAL_BUSY", lambda: log.journal.erase(session(1))).message
    assert secret in path.read_bytes()
    holder.close()
    log.journal.erase(session(1))
    for left in log.path.parent.glob(f"{path.name}*"):
        assert secret not in left.read_bytes()


def test_who_was_never_stored_may_come_although_an_old_file_has_a_write_ahead_log(log: Log) -> None:
    with contextlib.closing(sqlite3.connect(log.files.path_of(300))) as connection, connection:
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('note', 'in the write-ahead log')")
        held = reader_connection(log.files.path_of(300))
    log.journal.erase(session(99))
    held.close()
    log.store(moved(session(99), b"here"))
    assert next(log.journal.read(SIZE)).payload == b"here"


def test_a_file_that_is_busy_is_not_read_as_if_it_could_not_change(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    class Busy:
        def execute(self, query: str) -> object:
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error

        def close(self) -> None:
            pass

    reader = SqliteEvidenceReader(log.path)
    assert log.journal.go_on()
    log.store(moved())
    with monkeypatch.context() as held:
        held.setattr(schema, "_uri_connection", lambda _: Busy())
        expect("JOURNAL_IO", reader.size)
    assert reader.size() == SIZE + 1
    reader.close()
