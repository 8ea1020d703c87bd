"""Going on in another file: the next one is made whole beside the head, and becomes the head by getting its name.

Until the rename the old file is the head and nothing has happened; a file without its name is deleted when the journal
is opened. After it the new file is the head, and holds all that is needed to go on without the old one: the newest
checkpoint, which covers every record before it; the hashes of the tree's right edge; the records of the tile that is
not full; the newest snapshot's key; who was erased.

Sessions' keys are not among it: in every file a session has a key of its own. So this takes as long with a hundred
thousand sessions as with none, and whoever can read one file can read no other.
"""

import contextlib
import errno
import os
import sqlite3
import stat
from pathlib import Path

from aipaging.adapters.journal.errors import journal_corrupt
from aipaging.adapters.journal.sqlite.files import JournalFiles, carried_from, files_named
from aipaging.adapters.journal.sqlite.schema import SCHEMA_VERSION, TABLES, insert_rows, stored_hashes
from aipaging.core.evidence.log import noted_checkpoint
from aipaging.core.evidence.merkle import TILE_HEIGHT, frontier
from aipaging.core.evidence.tiles import TILE_WIDTH, subtree_hashes

_CARRIED_KEYS = ("key_check", "verifier_keys")


def make_next(head: sqlite3.Connection, files: JournalFiles, size: int) -> None:
    """Make the file that goes on after the first `size` records, and give it its name; its folder is not yet synced.

    Args:
        head: The writer's connection to the file that is full; its newest checkpoint covers all of its records.
        files: The journal's.
        size: How many records the journal has.

    Raises:
        OSError: It could not be made, and nothing has happened.
        sqlite3.Error: Likewise.
        UnavailableError: What the new file has to begin with is damaged in the old one (JOURNAL_CORRUPT); likewise.
    """
    clear(files)
    if files.path_of(size).exists():  # another's, put there while the journal is in use: a rename would overwrite it
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(files.path_of(size)))
    try:
        mode = stat.S_IMODE(files.path_of(files_named(head)[-1]).stat().st_mode)
        os.close(os.open(files.unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        _fill(head, files, size)
        _sync(files.unfinished, mode)
        os.rename(files.unfinished, files.path_of(size))  # noqa: PTH104 - the one moment that counts
    except BaseException:
        with contextlib.suppress(OSError):
            clear(files)
        raise


def clear(files: JournalFiles) -> None:
    """Delete what is left of a file that never got its name."""
    for ending in ("", "-wal", "-shm", "-journal"):
        path = files.unfinished
        path.with_name(path.name + ending).unlink(missing_ok=True)


def _fill(head: sqlite3.Connection, files: JournalFiles, size: int) -> None:
    with contextlib.closing(sqlite3.connect(files.unfinished, isolation_level=None)) as made:
        # Nobody relies on it before it is whole, synced at once and renamed.
        for pragma in ("journal_mode=OFF", "synchronous=OFF"):
            made.execute(f"PRAGMA {pragma}")
        made.executescript(f"BEGIN;{TABLES}")
        _carry(head, made, size)
        meta = [(key, value) for key in _CARRIED_KEYS for value in _meta(head, key)]
        meta.append(("files", " ".join(map(str, [*files_named(head), size]))))
        insert_rows(made, "meta", meta)
        made.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (SCHEMA_VERSION,))
        made.execute("COMMIT")
        _check(made, files, size)
        made.execute("PRAGMA journal_mode=WAL")


def _carry(head: sqlite3.Connection, made: sqlite3.Connection, size: int) -> None:
    copies = (carried_from(size), size)
    records = "SELECT seq, NULL, leaf_hash, record, NULL FROM entries WHERE seq >= ? AND seq < ? ORDER BY seq"
    insert_rows(made, "entries", head.execute(records, copies).fetchall())
    leaves = "SELECT seq, root, bundle FROM leaves WHERE seq >= ? AND seq < ?"
    insert_rows(made, "leaves", head.execute(leaves, copies).fetchall())
    level, row = 1, size >> TILE_HEIGHT
    while row:
        first = row // TILE_WIDTH * TILE_WIDTH
        edge = enumerate(stored_hashes(head, level, first, row - first), first)
        insert_rows(made, "subtrees", [(level, place, hashed) for place, hashed in edge])
        level, row = level + 1, row >> TILE_HEIGHT
    newest = "SELECT size, note FROM checkpoints ORDER BY size DESC LIMIT 1"
    insert_rows(made, "checkpoints", head.execute(newest).fetchall())
    insert_rows(made, "snapshots", head.execute("SELECT seq, root, blob FROM snapshots").fetchall())
    erased = head.execute("SELECT session FROM session_keys WHERE secret IS NULL")
    insert_rows(made, "session_keys", [(number, each, None) for number, (each,) in enumerate(erased, 1)])


def _check(made: sqlite3.Connection, files: JournalFiles, size: int) -> None:
    """Check that the new file leads to its checkpoint by itself: a damaged edge would be found when it is needed."""

    def hashes(level: int, first: int, count: int) -> list[bytes]:
        return stored_hashes(made, level, first, count)

    signed = [noted_checkpoint(row[0]) for row in made.execute("SELECT note FROM checkpoints")]
    last = made.execute("SELECT max(seq) FROM entries").fetchone()
    try:
        root = frontier(size, subtree_hashes(hashes)).root()
        sound = last == (size - 1,) and [(each.size, each.root) for each in signed] == [(size, root)]
    except LookupError:
        sound = False
    if not sound:
        raise journal_corrupt(str(files.base), f"its tree does not lead to its checkpoint of {size} records")


def _meta(connection: sqlite3.Connection, key: str) -> list[object]:
    return [row[0] for row in connection.execute("SELECT value FROM meta WHERE key = ?", (key,))]


def _sync(path: Path, mode: int) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
