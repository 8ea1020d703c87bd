"""The log as static files: which bytes are at which path (C2SP tlog-tiles, and the leaves of batch records).

| Path | Bytes |
|---|---|
| `checkpoint` | the newest signed checkpoint |
| `tile/<L>/<N>[.p/<W>]` | hashes of perfect subtrees of 256**L records, 256 of them, or W of a partial tile |
| `tile/entries/<N>[.p/<W>]` | records, each after its length in two bytes |
| `verifier-keys` | the keys that the log names as its own, one a line |
| `leaves/<root>` | the leaves of the batch record with this root, in the form of an entry bundle |

Reading and writing the files lives in adapters.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from aipaging.core.evidence.merkle import HASH_BYTES, TILE_HEIGHT, SubtreeHash, tree_root

TILE_WIDTH: Final = 1 << TILE_HEIGHT
"""Hashes in a full tile, records in a full bundle."""

LEVEL_MAX: Final = 7
"""256**8 records are more than can be numbered."""

CHECKPOINT_PATH: Final = "checkpoint"
"""Where the newest signed checkpoint is."""

KEYS_PATH: Final = "verifier-keys"
"""Where the log names its own keys."""

TileHashes: TypeAlias = Callable[[int, int, int], list[bytes]]
"""`(level, first, count)` -> hashes of perfect subtrees of 256**level records, as many as there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One file of the tree.

    Attributes:
        level: Row of tiles, 0 for the records' own hashes; None for a bundle of the records themselves.
        index: Which tile of the row.
        width: How many hashes or records it holds; 256 unless partial.
    """

    level: int | None
    index: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """Return its path: three digits a part, all but the last with an x before them."""
        digits = f"{self.index:d}"
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        parts = [digits[place : place + 3] for place in range(0, len(digits), 3)]
        number = "/".join([*(f"x{part}" for part in parts[:-1]), parts[-1]])
        row = "entries" if self.level is None else str(self.level)
        return f"tile/{row}/{number}" + ("" if self.width == TILE_WIDTH else f".p/{self.width}")

    @property
    def first(self) -> int:
        """Where the tile begins in its row."""
        return self.index * TILE_WIDTH


_TILE_PATH: Final = re.compile(r"tile/(entries|[0-7])/((?:x\d{3}/){0,5}\d{3})(?:\.p/([1-9]\d{0,2}))?", re.ASCII)
_LEAVES_PATH: Final = re.compile(r"leaves/([0-9a-f]{64})")


def tile_at(path: str) -> Tile | None:
    """Return the tile that a path names, or None; every tile has exactly one path."""
    match = _TILE_PATH.fullmatch(path)
    if match is None:
        return None
    row, number, width = match.groups()
    tile = Tile(
        level=None if row == "entries" else int(row),
        index=int(number.replace("x", "").replace("/", "")),
        width=int(width) if width else TILE_WIDTH,
    )
    return tile if tile.path == path else None


def leaves_path(root: bytes) -> str:
    """Return where the leaves of the batch record with this root are."""
    return f"leaves/{root.hex()}"


def leaves_root_at(path: str) -> bytes | None:
    """Return the root that a path of leaves names, or None."""
    match = _LEAVES_PATH.fullmatch(path)
    return bytes.fromhex(match.group(1)) if match else None


def bundle(entries: Iterable[bytes]) -> bytes:
    """Return entries in one file, each after its length in two bytes."""
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def unbundled(raw: bytes) -> list[bytes]:
    """Return the entries of a bundle.

    Raises:
        ValueError: The bytes end within an entry.
    """
    entries: list[bytes] = []
    place = 0
    while place < len(raw):
        begin = place + 2
        place = begin + int.from_bytes(raw[place:begin], "big")
        if place > len(raw) or begin > len(raw):
            raise ValueError("the bundle ends within an entry")
        entries.append(raw[begin:place])
    return entries


def hashes_of(raw: bytes) -> list[bytes]:
    """Return the hashes of a tile file."""
    return [raw[place : place + HASH_BYTES] for place in range(0, len(raw), HASH_BYTES)]


def tiles_of(old_size: int, size: int) -> Iterator[Tile]:
    """Yield the tiles and bundles of a log of `size` records that one of `old_size` did not have in full."""
    for level in (None, *range(LEVEL_MAX + 1)):
        records_each = 1 if level is None else TILE_WIDTH**level
        have, want = old_size // records_each, size // records_each
        for index in range(have // TILE_WIDTH, -(-want // TILE_WIDTH)):
            width = min(TILE_WIDTH, want - index * TILE_WIDTH)
            if have < index * TILE_WIDTH + width:
                yield Tile(level=level, index=index, width=width)


def subtree_hashes(hashes: TileHashes) -> SubtreeHash:
    """Return the hashes of perfect subtrees of any height, from those that tiles hold."""

    def subtree(height: int, index: int) -> bytes:
        level, spread = divmod(height, TILE_HEIGHT)
        row = hashes(level, index << spread, 1 << spread)
        if len(row) != 1 << spread:
            raise LookupError(f"the log lacks hashes of level {level} from {index << spread} on")
        return tree_root(row)  # of a row of perfect subtrees: their hashes stand for leaves

    return subtree
