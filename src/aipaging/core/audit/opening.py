"""Opening records of a committed log at random: which ones, and in which order.

The provider commits to the rows first (a Merkle root), then a seed is drawn. Both go into a hash, so neither side can
choose what is opened, and anybody can draw the same order again: it depends on SHA-256 alone, on no library's dice.
The order is uniform over the permutations of the rows, so its restriction to any subset of rows (a tenant, a period) is
uniform over the permutations of that subset.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aipaging.core.audit.telemetry import Integers, Mask

LABEL: Final = b"aipaging audit opening v1"
"""Keeps these numbers apart from every other use of the same seed."""

BEACON_LABEL: Final = b"aipaging audit beacon v1"
"""Keeps seeds apart from every other digest of the same beacon."""

OPENED_MAX: Final = 2_000_000
"""Records that may be opened: whoever opens more counts them all."""


def opening_key(seed: int, root: bytes) -> bytes:
    """Return what the order is drawn from."""
    return sha256(LABEL + len(root).to_bytes(1) + root + str(seed).encode()).digest()


def beacon_seed(beacon: bytes) -> int:
    """Return the seed that a beacon decides: 63 bits, which no one can know before the beacon is out.

    A beacon is whatever was published after the commitment and could not be predicted: the signed note of a witness
    over a later checkpoint, or a round of a public randomness beacon.
    """
    return int.from_bytes(sha256(BEACON_LABEL + beacon).digest()[:8]) >> 1


def opening_order(key: bytes, rows: int, count: int) -> Integers:
    """Return the first rows to open: the head of a uniform permutation, by Fisher and Yates over a sparse table."""
    moved: dict[int, int] = {}
    words = _words(key)
    order = np.empty(min(count, rows), dtype=np.int64)
    for position in range(len(order)):
        drawn = position + _below(words, rows - position)
        order[position] = moved.get(drawn, drawn)
        moved[drawn] = moved.get(position, position)
    return order


def _words(key: bytes) -> Iterator[int]:
    counter = 0
    while True:
        block = sha256(key + counter.to_bytes(8)).digest()
        yield from (int.from_bytes(block[start : start + 8]) for start in range(0, 32, 8))
        counter += 1


def _below(words: Iterator[int], bound: int) -> int:
    """Return a uniform number below the bound; words in the last, incomplete stretch would favour small numbers."""
    fair = (1 << 64) - (1 << 64) % bound
    return next(word for word in words if word < fair) % bound


class Opening:
    """Which rows are opened, by row."""

    def __init__(self, order: Integers) -> None:
        self._rows = np.sort(order)
        self._positions = np.argsort(order, kind="stable")

    def positions(self, rows: Integers) -> tuple[Integers, Integers]:
        """Return which of some rows (by their place in `rows`) are opened, and as which in the order."""
        place = np.searchsorted(self._rows, rows)
        inside = place < len(self._rows)
        chosen = np.flatnonzero(inside)
        chosen = chosen[self._rows[place[chosen]] == rows[chosen]]
        return chosen, np.asarray(self._positions[place[chosen]], dtype=np.int64)


@dataclass(slots=True, kw_only=True)
class Opened:
    """What opened records of one contract said, in no order until `ordered`.

    Attributes:
        drawn: Opened records seen so far, of whichever contract.
    """

    drawn: int = 0
    _parts: list[tuple[Integers, NDArray[np.bool_], NDArray[np.bool_]]] = field(
        default_factory=list[tuple[Integers, NDArray[np.bool_], NDArray[np.bool_]]]
    )

    def add(self, drawn: tuple[Integers, Integers], scope: Mask | None, certain: Mask, possible: Mask) -> None:
        """Take what the opened rows of a batch said."""
        chosen, position = drawn
        self.drawn += len(chosen)
        if scope is not None:
            mine = scope[chosen]
            chosen, position = chosen[mine], position[mine]
        if chosen.size:
            self._parts.append((position, certain[chosen], possible[chosen]))

    def ordered(self) -> tuple[Mask, Mask]:
        """Return whether each opened record exceeded for certain, and perhaps, in the order of opening."""
        if not self._parts:
            return np.zeros(0, dtype=np.bool_), np.zeros(0, dtype=np.bool_)
        position, certain, possible = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        order = np.argsort(position)
        return np.asarray(certain[order], dtype=np.bool_), np.asarray(possible[order], dtype=np.bool_)
