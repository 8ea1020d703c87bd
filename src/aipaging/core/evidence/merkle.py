"""The Merkle tree of RFC 9162, section 2.1: heads, inclusion proofs, consistency proofs.

Leaves and interior nodes are hashed in separate domains (0x00 and 0x01), so that no interior node passes for a
leaf. A tree is held as its *frontier*, the roots of the perfect subtrees that its size decomposes into: appending
is O(1) amortised, the root O(log n). Proofs ask the caller for the hashes of perfect subtrees, so they work over a
list, a table or tile files alike. Signing a root is left out; it lives behind `ports.signing`.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Final, TypeAlias

import msgspec

HASH_BYTES: Final = 32
"""SHA-256, the only hash of RFC 9162 logs that C2SP tiles allow."""

TILE_HEIGHT: Final = 8
"""C2SP tlog-tiles cuts the tree into tiles of this height: 256 hashes, 8,192 bytes."""

CompletedTile: TypeAlias = tuple[int, int, bytes]
"""`(level, index, root)`: the hash at `index` of the row of tiles at `level` (1 is the first above the leaves)."""

SubtreeHash: TypeAlias = Callable[[int, int], bytes]
"""`(level, index)` -> root of the perfect subtree of the 2**level leaves that begin at index * 2**level."""


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of a log entry as a leaf."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an interior node."""
    return sha256(b"\x01" + left + right).digest()


class Frontier(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A tree as the roots of its perfect subtrees, the largest (leftmost) first.

    Attributes:
        size: How many leaves the tree has.
        nodes: One root per set bit of `size`.
    """

    size: int = 0
    nodes: tuple[bytes, ...] = ()

    def extended(self, leaf_hashes: Iterable[bytes]) -> "Frontier":
        """Return the tree with further leaves."""
        return self.grown(leaf_hashes)[0]

    def grown(self, leaf_hashes: Iterable[bytes]) -> "tuple[Frontier, list[CompletedTile]]":
        """Return the tree with further leaves, and the tiles that they completed, as `(level, index, root)`."""
        nodes, size = list(self.nodes), self.size
        completed: list[CompletedTile] = []
        for appended in leaf_hashes:
            node, carry, height = appended, size, 0
            while carry & 1:  # two perfect subtrees of one height become one: binary addition
                node = sha256(b"\x01" + nodes.pop() + node).digest()
                carry >>= 1
                height += 1
                if not height % TILE_HEIGHT:
                    completed.append((height // TILE_HEIGHT, carry, node))
            nodes.append(node)
            size += 1
        return Frontier(size=size, nodes=tuple(nodes)), completed

    def root(self) -> bytes:
        """Return the Merkle tree hash of all leaves."""
        if not self.nodes:
            return sha256(b"").digest()
        node = self.nodes[-1]
        for left in self.nodes[-2::-1]:
            node = node_hash(left, node)
        return node


EMPTY_TREE: Final = Frontier()
"""The tree of no leaves; its root is the hash of the empty string."""


def tree_root(leaf_hashes: Iterable[bytes]) -> bytes:
    """Return the root of the tree over these leaf hashes."""
    return EMPTY_TREE.extended(leaf_hashes).root()


def frontier(size: int, subtree: SubtreeHash) -> Frontier:
    """Return the frontier of the tree of the first `size` leaves of a stored log."""
    nodes: list[bytes] = []
    begin = 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            nodes.append(subtree(level, begin >> level))
            begin += 1 << level
    return Frontier(size=size, nodes=tuple(nodes))


def inclusion_proof(index: int, size: int, subtree: SubtreeHash) -> list[bytes]:
    """Return PATH(index, D[0:size]) of RFC 9162, 2.1.3.1: the siblings from the leaf up.

    Raises:
        ValueError: There is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} of a tree of {size}")
    begin, end = 0, size
    path: list[bytes] = []
    while end - begin > 1:
        middle = begin + _left_size(end - begin)
        if index < middle:
            path.append(_range_root(middle, end, subtree))
            end = middle
        else:
            path.append(_range_root(begin, middle, subtree))
            begin = middle
    return path[::-1]


def consistency_proof(old_size: int, size: int, subtree: SubtreeHash) -> list[bytes]:
    """Return PROOF(old_size, D[0:size]) of RFC 9162, 2.1.4.1: the larger tree only appended to the smaller.

    Raises:
        ValueError: `old_size` is not within 0..size.
    """
    if not 0 <= old_size <= size:
        raise ValueError(f"a tree of {old_size} within one of {size}")
    if old_size == 0:
        return []
    begin, end, remaining, whole = 0, size, old_size, True
    path: list[bytes] = []
    while remaining != end - begin:
        left = _left_size(end - begin)
        if remaining <= left:
            path.append(_range_root(begin + left, end, subtree))
            end = begin + left
        else:
            path.append(_range_root(begin, begin + left, subtree))
            begin, remaining, whole = begin + left, remaining - left, False
    if not whole:  # the old tree's own root is known to the asker and is left out
        path.append(_range_root(begin, end, subtree))
    return path[::-1]


def verify_inclusion(entry_hash: bytes, index: int, *, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Tell whether the leaf is at `index` of the tree of `size` with this root (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    position, last, node = index, size - 1, entry_hash
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            node = node_hash(sibling, node)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and node == root


def verify_consistency(old: tuple[int, bytes], new: tuple[int, bytes], proof: Sequence[bytes]) -> bool:
    """Tell whether the tree `new` (size, root) only appended to the tree `old` (RFC 9162, 2.1.4.2)."""
    (old_size, old_root), (size, root) = old, new
    if not 0 <= old_size <= size:
        return False
    if old_size in {0, size}:
        return not proof and (old_root == root if old_size == size else old_root == EMPTY_TREE.root())
    path = list(proof)
    if old_size & (old_size - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return False
    position, last = old_size - 1, size - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    return _climb(path, position, last) == (old_root, root)


def _climb(path: Sequence[bytes], position: int, last: int) -> tuple[bytes, bytes] | None:
    """Return the roots of the old and the new tree that a consistency path leads to."""
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            return None
        if position & 1 or position == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        position, last = position >> 1, last >> 1
    return (old, new) if last == 0 else None


def _left_size(size: int) -> int:
    """Return the largest power of two smaller than `size`: where RFC 9162 splits a tree."""
    return 1 << ((size - 1).bit_length() - 1)


def _range_root(begin: int, end: int, subtree: SubtreeHash) -> bytes:
    """Return the root over the leaves begin..end-1, where `begin` is where a split of the tree begins."""
    pieces: list[bytes] = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        pieces.append(subtree(level, begin >> level))
        begin += 1 << level
    node = pieces[-1]
    for left in pieces[-2::-1]:
        node = node_hash(left, node)
    return node
