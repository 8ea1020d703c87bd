"""Paths and bytes of the static files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipaging.core.evidence.tiles import (
    LEVEL_MAX,
    TILE_WIDTH,
    Tile,
    bundle,
    leaves_path,
    leaves_root_at,
    tile_at,
    tiles_of,
    unbundled,
)

TILES = st.builds(
    Tile,
    level=st.none() | st.integers(0, LEVEL_MAX),
    index=st.integers(0, 10**15),
    width=st.integers(1, TILE_WIDTH),
)


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(level=0, index=0), "tile/0/000"),
        (Tile(level=1, index=7, width=3), "tile/1/007.p/3"),
        (Tile(level=None, index=1_234_067), "tile/entries/x001/x234/067"),
        (Tile(level=None, index=1_000, width=255), "tile/entries/x001/000.p/255"),
    ],
)
def test_paths_are_those_of_the_specification(tile: Tile, path: str) -> None:
    assert tile.path == path
    assert tile_at(path) == tile


@given(TILES)
def test_every_tile_has_one_path(tile: Tile) -> None:
    assert tile_at(tile.path) == tile


@pytest.mark.parametrize(
    "path",
    ["", "checkpoint", "tile/0/0", "tile/0/x000/000", "tile/8/000", "tile/0/000.p/0", "tile/0/000.p/256",
     "tile/0/000.p/007", "tile/0/../000", "tile/0/000/", "/tile/0/000", "tile/0/x001", "tile/-1/000",
     "tile/0/\u0661\u0661\u0661", "tile/0/000\n", "leaves/" + "0" * 64],
)  # fmt: skip
def test_other_paths_name_no_tile(path: str) -> None:
    assert tile_at(path) is None


def test_leaves_are_named_by_their_root() -> None:
    root = bytes(range(32))
    assert leaves_root_at(leaves_path(root)) == root
    assert leaves_root_at("leaves/00") is None


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_bundles_read_back(entries: list[bytes]) -> None:
    assert unbundled(bundle(entries)) == entries


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=5), st.data())
def test_a_cut_bundle_is_refused(entries: list[bytes], data: st.DataObject) -> None:
    raw = bundle(entries)
    borders = {sum(2 + len(entry) for entry in entries[:count]) for count in range(len(entries) + 1)}
    cut = data.draw(st.integers(1, len(raw)).filter(lambda place: place not in borders))
    with pytest.raises(ValueError, match="ends within"):
        unbundled(raw[:cut])


@given(st.integers(0, 200_000), st.integers(0, 200_000))
def test_what_is_added_covers_every_hash_once(old: int, more: int) -> None:
    size = old + more
    covered: dict[int | None, int] = {}
    for tile in tiles_of(old, size):
        row = size // (1 if tile.level is None else TILE_WIDTH**tile.level)
        assert tile.first + tile.width <= row
        assert tile.width == TILE_WIDTH or tile.first + tile.width == row
        covered[tile.level] = max(covered.get(tile.level, 0), tile.first + tile.width)
    for level in (None, 0, 1, 2):
        before, row = (n // (1 if level is None else TILE_WIDTH**level) for n in (old, size))
        assert covered.get(level, row) == row
        assert (level in covered) == (row > before)
