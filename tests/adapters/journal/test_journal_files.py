"""A journal goes on in other files: no reader can tell, and no crash or fault at any moment loses anything."""

import contextlib
import os
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aipaging.adapters.journal.sqlite.files import JournalFiles, carried_from
from aipaging.adapters.journal.sqlite.reader import SqliteEvidenceReader
from aipaging.adapters.journal.sqlite.writer import SqliteJournal
from aipaging.adapters.journal.tiles import resource
from aipaging.core.evidence.log import Sealer, noted_checkpoint
from aipaging.core.evidence.merkle import consistency_proof, inclusion_proof, leaf_hash, verify_inclusion
from aipaging.core.evidence.record import Draft
from aipaging.core.evidence.tiles import KEYS_PATH, leaves_path, subtree_hashes, tiles_of
from aipaging.core.foundation.names import SessionId
from aipaging.testing.journal import JOURNAL_CHECKS, SESSION, moved, sealed, unsigned

KEY = bytes(range(32))
BALLAST = 1 << 20
NOW = sealed.__globals__["_NOW"]
NAME = "journal.sqlite"
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where a sync takes no time; None for the usual place."""


class RollingJournal(SqliteJournal):
    """Goes on in another file after every batch after which it may."""

    def append(self, entries, checkpoint, *, restrictive=False) -> None:
        super().append(entries, checkpoint, restrictive=restrictive)
        if self._ballast.held:
            self.go_on()


class RollingRig:
    """The rig of the conformance kit, on files of one batch each."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / NAME
        self.pages_max: int | None = None
        self.opened: list[SqliteJournal] = []

    def journal(self) -> SqliteJournal:
        journal = RollingJournal(self.path, KEY, ballast_bytes=BALLAST, pages_max=self.pages_max)
        self.opened.append(journal)
        return journal

    def crash(self, journal: SqliteJournal) -> None:
        journal._lock.release()

    def fill(self) -> None:
        journal = self.opened[-1]
        sealed_bytes = sum(path.stat().st_size for path in files_of(self.path)[:-1])
        (pages,) = journal._connection.execute("PRAGMA page_count").fetchone()
        self.pages_max = journal._pages_max = pages + 1 + sealed_bytes // 4096
        journal._limit_pages(journal._connection, self.pages_max)

    def alter(self, seq: int, record: bytes) -> None:
        for path in files_of(self.path):
            with contextlib.closing(sqlite3.connect(path)) as connection, connection:
                connection.execute("UPDATE entries SET record = ? WHERE seq = ?", (record, seq))


def files_of(path: Path) -> list[Path]:
    files = JournalFiles(path)
    return [files.path_of(first) for first in files.present()]


@pytest.fixture
def rig(tmp_path: Path):
    made = RollingRig(tmp_path)
    yield made
    for journal in made.opened:
        journal.close()


@pytest.mark.parametrize("check", JOURNAL_CHECKS, ids=lambda check: check.__name__)
def test_conformance_of_a_journal_that_always_goes_on_in_another_file(check, rig: RollingRig) -> None:
    check(rig)
    if check.__name__ in {"keeps_what_it_acknowledged", "goes_on_across_many_batches"}:
        assert len(files_of(rig.path)) > 2


class Twins:
    """Two journals that are given the same; one of them goes on in another file now and then."""

    def __init__(self, folder: Path) -> None:
        self.paths = (folder / "one" / NAME, folder / "many" / NAME)
        for path in self.paths:
            path.parent.mkdir()
        self.journals: list[SqliteJournal] = []
        self.sealer = Sealer("node-1", "boot-1", self.open())
        self.rolls = 0

    def open(self):
        self.journals = [SqliteJournal(path, KEY, ballast_bytes=0) for path in self.paths]
        one, many = (journal.open() for journal in self.journals)
        assert one == many
        return one

    def reopen(self) -> None:
        for journal in self.journals:
            journal.close()
        assert self.open() == self.sealer.head

    def append(self, drafts: list[Draft], *, signed: bool, roll: bool) -> None:
        entries = self.sealer.seal(drafts, term=1, now=NOW)
        for journal in self.journals:
            journal.append(entries, unsigned(self.sealer) if signed else None)
        if roll:
            self.rolls += self.journals[1].go_on()

    def close(self) -> None:
        for journal in self.journals:
            journal.close()


SESSIONS = [SessionId(f"00000000-0000-4000-8000-{number:012}") for number in range(4)]


def salt_of(session: SessionId) -> bytes:
    return session[-16:].encode()


def leaf(session: SessionId) -> dict[str, object]:
    return {"session": session, "epoch_term": 1, "epoch_n": 1, "renewal": 1, "lease_ms": 5_000}


drafts = st.one_of(
    st.builds(
        lambda session, payload, salted: moved(session, payload, salt_of(session) if salted and payload else None),
        st.sampled_from(SESSIONS), st.sampled_from([None, b"", b"private", b"p" * 500]), st.booleans(),
    ),
    st.builds(
        lambda sessions: Draft(
            type="LEASES_RENEWED", fields={}, leaves=tuple(map(leaf, sessions)), payload=b"everybody's"
        ),
        st.lists(st.sampled_from(SESSIONS), min_size=1, max_size=3),
    ),
)  # fmt: skip
mostly = st.sampled_from([True, True, True, False])
batches = st.tuples(
    st.lists(drafts, min_size=1, max_size=3), st.sampled_from([1, 1, 1, 40, 130, 256]), mostly, mostly
)  # drafts, how often each, whether signed, and whether the journal is to go on in another file
happenings = st.lists(
    st.one_of(batches, batches, batches, batches, st.just("reopen"), st.sampled_from(SESSIONS[2:])),
    min_size=4, max_size=14,
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(happenings)
def test_a_journal_of_many_files_is_as_one_of_one(happened) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        twins = Twins(Path(folder))
        erased: set[SessionId] = set()
        readers = [SqliteEvidenceReader(path) for path in twins.paths]  # from before it goes on anywhere
        for each in happened:
            if each == "reopen":
                twins.reopen()
            elif isinstance(each, str):
                erased.add(SessionId(each))
                for journal in twins.journals:
                    journal.erase(SessionId(each))
            else:
                some, times, signed, roll = each
                kept = [d for d in some if d.payload is None or d.fields.get("session") not in erased] or [moved()]
                twins.append(kept * times, signed=signed, roll=roll)
        compare(twins, readers)
        twins.reopen()
        compare(twins, readers)
        for reader in readers:
            reader.close()
        twins.close()


def compare(twins: Twins, readers: list[SqliteEvidenceReader]) -> None:
    one, many = twins.journals
    size = twins.sealer.head.seq
    for first in {0, size // 3, max(0, size - 5), size}:
        assert list(one.read(first)) == list(many.read(first))
    assert one.checkpoint() == many.checkpoint()
    plain, spread = readers
    assert plain.size() == spread.size() == size
    for first, end in ((0, None), (size // 2, None), (size // 3, size // 2), (size, None)):
        assert list(plain.records(first, end)) == list(spread.records(first, end))
    for level in range(3):
        for first, count in ((0, 256), (0, size + 9), (size // 2, 77), (size >> 8 * level, 3)):
            assert plain.hashes(level, first, count) == spread.hashes(level, first, count)
    for newest in (True, False):
        assert plain.checkpoints(newest=newest) == spread.checkpoints(newest=newest)
    for session in (*SESSIONS, SESSION):
        assert plain.session_records(session) == spread.session_records(session)
    paths = [tile.path for tile in tiles_of(0, size)] + [KEYS_PATH, "checkpoint", "tile/9/000", "tile/0/999"]
    paths += [leaves_path(entry.root) for entry in one.read(max(0, size - 300)) if entry.root]
    assert [resource(plain, path) for path in paths] == [resource(spread, path) for path in paths]
    assert plain.first_seq() == spread.first_seq() == 0
    assert spread.continued_in() is None


def written(folder: Path, sizes=(300, 215, 1, 256, 40)) -> tuple[SqliteJournal, Sealer, list]:
    """Return a journal in as many files as there are sizes, and all of its entries."""
    journal = SqliteJournal(folder / NAME, KEY, ballast_bytes=0)
    sealer = Sealer("node-1", "boot-1", journal.open())
    everything = []
    for number, size in enumerate(sizes):
        if number:
            assert journal.go_on()
        requested = Draft(type="CLIENT_MOVED", fields=moved(SESSIONS[number % 4]).fields, payload=b"p", salt=b"s" * 16)
        entries = sealer.seal([requested] * size, term=1, now=NOW)
        everything += entries
        journal.append(entries, unsigned(sealer))
    return journal, sealer, everything


def test_a_file_that_goes_on_is_small_and_named_after_its_first_record(tmp_path: Path) -> None:
    journal, _, _ = written(tmp_path)
    names = [path.name for path in files_of(tmp_path / NAME)]
    assert names == [NAME, *(f"{NAME}.{first:016}" for first in (300, 515, 516, 772))]
    assert sorted(names) == names
    journal.close()
    assert not list(tmp_path.glob("*.next*"))
    for first in (300, 515, 516, 772):
        with contextlib.closing(sqlite3.connect(tmp_path / f"{NAME}.{first:016}")) as connection:
            assert connection.execute("SELECT min(seq) FROM entries").fetchone() == (carried_from(first),)


def test_proofs_are_those_of_one_file_and_old_trees_are_proven(tmp_path: Path) -> None:
    journal, sealer, everything = written(tmp_path)
    reader = SqliteEvidenceReader(tmp_path / NAME)
    subtree = subtree_hashes(reader.hashes)
    root = sealer.head.tree.root()
    for seq in (0, 255, 299, 300, 514, 515, 516, 771, 811):
        proof = inclusion_proof(seq, sealer.head.seq, subtree)
        assert verify_inclusion(everything[seq].leaf_hash, seq, size=sealer.head.seq, proof=proof, root=root)
    for note in reader.checkpoints(newest=False):
        assert consistency_proof(noted_checkpoint(note).size, sealer.head.seq, subtree) is not None
    assert leaf_hash(everything[0].record) == reader.hashes(0, 0, 1)[0]
    reader.close()
    journal.close()
