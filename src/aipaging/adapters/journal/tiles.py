"""The log as static files: served from a journal, written to a directory, read back from either.

`resource` is what a server answers for a path, `Export` writes the same bytes to files, and `TileReader` reads them
through any function from path to bytes (a directory, a URL). Files are immutable but for the checkpoint and partial
tiles; the checkpoint is written last, so a reader never sees one that runs ahead of its tiles.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from shutil import rmtree
from typing import Final, TypeAlias

from aipaging.adapters.journal.errors import journal_corrupt, journal_io
from aipaging.core.evidence.log import noted_checkpoint
from aipaging.core.evidence.merkle import TILE_HEIGHT, frontier, leaf_hash, tree_root
from aipaging.core.evidence.tiles import (
    CHECKPOINT_PATH,
    KEYS_PATH,
    TILE_WIDTH,
    Tile,
    bundle,
    hashes_of,
    leaves_path,
    leaves_root_at,
    subtree_hashes,
    tile_at,
    tiles_of,
    unbundled,
)
from aipaging.core.foundation.errors import RefusedError, UnavailableError, UnverifiedError
from aipaging.ports.journal import EvidenceReader, StoredRecord

Fetch: TypeAlias = Callable[[str], bytes | None]
"""From a path of `core.evidence.tiles` to its bytes, or None where there are none."""

FETCHED_BYTES_MAX: Final = TILE_WIDTH * (2 + 65_535)
"""The largest bundle that the format allows; whoever fetches reads no more."""


def resource(reader: EvidenceReader, path: str) -> bytes | None:
    """Return the bytes at a path of the log, or None where the log has none (yet); any partial width is served."""
    if path == CHECKPOINT_PATH:
        return next((note.encode() for note in reader.checkpoints(newest=True)), None)
    if path == KEYS_PATH:
        return "".join(f"{key}\n" for key in reader.verifier_keys()).encode() or None
    if (root := leaves_root_at(path)) is not None:
        leaves = reader.leaves(root)
        return bundle(leaves) if leaves else None
    tile = tile_at(path)
    return None if tile is None else _tile_bytes(reader, tile)


def _tile_bytes(reader: EvidenceReader, tile: Tile) -> bytes | None:
    if tile.level is None:
        parts = [stored.record for stored in reader.records(tile.first, tile.first + tile.width)]
        return bundle(parts) if len(parts) == tile.width else None
    hashes = reader.hashes(tile.level, tile.first, tile.width)
    return b"".join(hashes) if len(hashes) == tile.width else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export did: the log's size in the directory before and after, and how many files it wrote."""

    old_size: int
    size: int
    files: int


def export(reader: EvidenceReader, directory: Path) -> Exported:
    """Write the log up to its newest checkpoint into a directory, adding to what is there.

    Raises:
        UnavailableError: The log has no checkpoint yet, or the directory cannot be written.
        RefusedError: The directory holds another log.
    """
    note = next(iter(reader.checkpoints(newest=True)), None)
    if note is None:
        raise UnavailableError("the log has no checkpoint yet: nothing can be exported", code="NO_CHECKPOINT")
    size = noted_checkpoint(note).size
    try:
        old_size = _exported_size(reader, directory, size)
        files = sum(_write_tile(reader, directory, tile) for tile in tiles_of(old_size, size))
        for stored in reader.records(old_size, size):
            if stored.leaves:
                root = tree_root(leaf_hash(leaf) for leaf in stored.leaves)
                _write(directory / leaves_path(root), bundle(stored.leaves))
                files += 1
        if keys := resource(reader, KEYS_PATH):
            _write(directory / KEYS_PATH, keys)
        _write(directory / CHECKPOINT_PATH, note.encode())
    except OSError as error:
        raise journal_io(str(directory), f"{error.strerror}: {error.filename}") from error
    return Exported(old_size=old_size, size=size, files=files)


def _exported_size(reader: EvidenceReader, directory: Path, size: int) -> int:
    """Return the size of the log in the directory, after proving that it is this log."""
    path = directory / CHECKPOINT_PATH
    if not path.exists():
        return 0
    there = noted_checkpoint(path.read_text())
    if there.size > size or frontier(there.size, subtree_hashes(reader.hashes)).root() != there.root:
        raise RefusedError(
            f"{directory} holds a log of {there.size} records that this one does not continue: export into another "
            "directory",
            code="EVIDENCE_FORKED",
        )
    return there.size


def _write_tile(reader: EvidenceReader, directory: Path, tile: Tile) -> int:
    raw = _tile_bytes(reader, tile)
    if raw is None:
        raise journal_corrupt("the log", f"it lacks what {tile.path} must hold")
    path = directory / tile.path
    _write(path, raw)
    if tile.width == TILE_WIDTH:  # its partial versions are superseded; readers fall back to the full tile
        rmtree(path.with_name(f"{path.name}.p"), ignore_errors=True)
    return 1


def _write(path: Path, raw: bytes) -> None:
    """Write a file as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(raw)
    os.replace(part, path)  # noqa: PTH105 - one word for "atomically"


def directory_fetch(directory: Path) -> Fetch:
    """Return a `Fetch` that reads the files of a directory."""

    def fetch(path: str) -> bytes | None:
        try:
            return (directory / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise journal_io(str(directory / path), error.strerror or "unreadable") from error

    return fetch


class TileReader:
    """An `EvidenceReader` over tiles, up to their checkpoint.

    Args:
        fetch: Where the tiles come from.
        name: What errors call the log.
    """

    def __init__(self, fetch: Fetch, name: str) -> None:
        """Read the checkpoint.

        Raises:
            UnavailableError: There is no checkpoint (JOURNAL_IO), or it cannot be read as one (JOURNAL_CORRUPT).
        """
        self._fetch = fetch
        self._name = name
        raw = fetch(CHECKPOINT_PATH)
        if raw is None:
            raise journal_io(name, "there is no checkpoint: it is not an exported log")
        try:
            self._note = raw.decode()
            self._size = noted_checkpoint(self._note).size
        except (UnicodeDecodeError, UnverifiedError) as error:
            raise journal_corrupt(name, "its checkpoint cannot be read") from error

    def records(self, first_seq: int, end_seq: int | None = None) -> Iterator[StoredRecord]:
        """See `EvidenceReader.records`; it ends early where a bundle is missing or cut."""
        end = min(self._size, self._size if end_seq is None else end_seq)
        for index in range(first_seq // TILE_WIDTH, -(-end // TILE_WIDTH)):
            records = self._entries(index)
            hashes = self.hashes(0, index * TILE_WIDTH, TILE_WIDTH)
            for place, record in enumerate(records):
                seq = index * TILE_WIDTH + place
                if first_seq <= seq < end:
                    stored = hashes[place] if place < len(hashes) else b""
                    yield StoredRecord(record=record, leaf_hash=stored, leaves=self._leaves_of(record))
            if len(records) < self._width(None, index):
                return

    def hashes(self, level: int, first: int, count: int) -> list[bytes]:
        """See `EvidenceReader.hashes`."""
        found: list[bytes] = []
        for index in range(first // TILE_WIDTH, -(-(first + count) // TILE_WIDTH)):
            raw = self._tile(level, index)
            if raw is None:
                break
            found += hashes_of(raw)
        skipped = first % TILE_WIDTH
        return found[skipped : skipped + count]

    def leaves(self, root: bytes) -> tuple[bytes, ...] | None:
        """See `EvidenceReader.leaves`."""
        raw = self._fetch(leaves_path(root))
        return None if raw is None else tuple(_entries_of(raw))

    def checkpoints(self, *, newest: bool) -> list[str]:
        """See `EvidenceReader.checkpoints`; only the newest is published."""
        _ = newest
        return [self._note]

    def verifier_keys(self) -> tuple[str, ...]:
        """See `EvidenceReader.verifier_keys`."""
        raw = self._fetch(KEYS_PATH)
        return () if raw is None else tuple(raw.decode(errors="replace").split())

    def _width(self, level: int | None, index: int) -> int:
        row = self._size >> TILE_HEIGHT * (level or 0)
        return max(0, min(TILE_WIDTH, row - index * TILE_WIDTH))

    def _tile(self, level: int | None, index: int) -> bytes | None:
        """Return a tile as wide as the checkpoint says, from a wider one if the partial one is gone."""
        width = self._width(level, index)
        if not width:
            return None
        raw = self._fetch(Tile(level=level, index=index, width=width).path)
        if raw is None and width < TILE_WIDTH:
            raw = self._fetch(Tile(level=level, index=index).path)
        return raw

    def _entries(self, index: int) -> list[bytes]:
        return _entries_of(self._tile(None, index) or b"")[: self._width(None, index)]

    def _leaves_of(self, record: bytes) -> tuple[bytes, ...] | None:
        place = record.find(b'"root":"')
        if place < 0:
            return ()
        try:
            root = bytes.fromhex(record[place + 8 : place + 8 + 2 * sha256().digest_size].decode())
        except ValueError:
            return None
        return self.leaves(root)


def _entries_of(raw: bytes) -> list[bytes]:
    """Return the entries of a bundle; one that is cut counts as empty, and the verifier finds it too short."""
    try:
        return unbundled(raw)
    except ValueError:
        return []
