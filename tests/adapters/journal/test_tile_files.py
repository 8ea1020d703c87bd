"""The log as files: exported in steps, served by path, read back, and the same in every way."""

from itertools import islice
from pathlib import Path

import pytest

from aipaging.adapters.journal.sqlite.reader import SqliteEvidenceReader
from aipaging.adapters.journal.sqlite.writer import SqliteJournal
from aipaging.adapters.journal.tiles import TileReader, directory_fetch, export, resource
from aipaging.core.evidence.log import Sealer
from aipaging.core.evidence.tiles import tiles_of
from aipaging.core.foundation.errors import RefusedError, UnavailableError
from aipaging.testing.evidence import History, Plan, sealed_history
from aipaging.testing.journal import expect, moved, sealed, unsigned

KEYS = ("log.example+00000000+AAAA",)


class Log:
    """A journal that grows."""

    def __init__(self, path: Path, seed: int = 5) -> None:
        self.path = path
        self.journal = SqliteJournal(path, bytes(32), ballast_bytes=0, verifier_keys=KEYS)
        self.head = self.journal.open()
        self.entries = sealed_history(History(seed, Plan(sessions_per_second=3.0)))

    def grow(self, count: int) -> None:
        batch = list(islice(self.entries, count))
        sealer = Sealer("n", "b", self.head)
        tree = sealer.head.tree.extended(entry.leaf_hash for entry in batch)
        sealer.head = type(self.head)(seq=tree.size, prev="", tree=tree)
        self.head = sealer.head
        self.journal.append(batch, unsigned(sealer))


@pytest.fixture
def log(tmp_path: Path):
    made = Log(tmp_path / "journal.db")
    yield made
    made.journal.close()


def assert_same(reader: TileReader, own: SqliteEvidenceReader) -> None:
    size = own.size()
    assert list(reader.records(0)) == list(own.records(0))
    assert list(reader.records(size - 3, size - 1)) == list(own.records(size - 3, size - 1))
    for level in (0, 1):
        row = size >> 8 * level
        assert reader.hashes(level, 0, row) == own.hashes(level, 0, row)
        assert reader.hashes(level, row // 2, 3) == own.hashes(level, row // 2, 3)
    assert reader.checkpoints(newest=False) == own.checkpoints(newest=True)
    assert reader.verifier_keys() == KEYS


def test_an_export_grows_with_the_log(log: Log, tmp_path: Path) -> None:
    directory, own = tmp_path / "tiles", SqliteEvidenceReader(log.path)
    size = 0
    for count in (1, 99, 156, 1, 300, 600):
        log.grow(count)
        done = export(own, directory)
        assert (done.old_size, done.size) == (size, size + count)
        size += count
        assert_same(TileReader(directory_fetch(directory), "it"), own)
    assert export(own, directory).files == 0
    assert not list(directory.rglob("*.part"))
    assert not (directory / "tile/0/000.p").exists()
    own.close()


def test_what_is_served_is_what_is_exported(log: Log, tmp_path: Path) -> None:
    log.grow(777)
    own = SqliteEvidenceReader(log.path)
    export(own, tmp_path / "tiles")
    files = [path for path in (tmp_path / "tiles").rglob("*") if path.is_file()]
    assert len(files) > sum(1 for _ in tiles_of(0, 777))
    for path in files:
        assert resource(own, str(path.relative_to(tmp_path / "tiles"))) == path.read_bytes()
    assert_same(TileReader(lambda path: resource(own, path), "it"), own)
    own.close()


@pytest.mark.parametrize(
    "path",
    ["", "tile/0/003", "tile/0/003.p/10", "tile/entries/004", "tile/2/000", "leaves/" + "0" * 64, "../journal.db"],
)
def test_what_the_log_does_not_have_is_not_served(log: Log, path: str) -> None:
    log.grow(777)
    own = SqliteEvidenceReader(log.path)
    assert resource(own, path) is None
    own.close()


def test_a_directory_of_another_log_is_left_alone(log: Log, tmp_path: Path) -> None:
    log.grow(300)
    own = SqliteEvidenceReader(log.path)
    export(own, tmp_path / "tiles")
    other = Log(tmp_path / "other.db", seed=6)
    for count in (200, 200):
        other.grow(count)
        theirs = SqliteEvidenceReader(other.path)
        with pytest.raises(RefusedError, match="another"):
            export(theirs, tmp_path / "tiles")
        theirs.close()
    other.journal.close()
    own.close()


def test_nothing_is_exported_without_a_checkpoint(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "j", bytes(32), ballast_bytes=0)
    journal.append(sealed(journal.open(), moved())[0], None)
    reader = SqliteEvidenceReader(tmp_path / "j")
    expect("NO_CHECKPOINT", lambda: export(reader, tmp_path / "tiles"))
    reader.close()
    journal.close()


def test_a_directory_that_cannot_be_written_is_named(log: Log, tmp_path: Path) -> None:
    log.grow(3)
    (tmp_path / "tiles").write_text("in the way")
    own = SqliteEvidenceReader(log.path)
    with pytest.raises(UnavailableError, match="tiles"):
        export(own, tmp_path / "tiles")
    own.close()


@pytest.mark.parametrize("content", [None, b"nonsense", b"\xff"])
def test_what_is_no_exported_log_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "checkpoint").write_bytes(content)
    with pytest.raises(UnavailableError, match="checkpoint"):
        TileReader(directory_fetch(tmp_path), "it")
