"""The tree against the recursive definition of RFC 9162, and the laws of its proofs."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipaging.core.evidence.merkle import (
    EMPTY_TREE,
    consistency_proof,
    frontier,
    inclusion_proof,
    leaf_hash,
    tree_root,
    verify_consistency,
    verify_inclusion,
)

ENTRIES = [b"entry %d" % place for place in range(80)]
HASHES = [leaf_hash(entry) for entry in ENTRIES]


def naive(entries: list[bytes]) -> bytes:
    """MTH of RFC 9162, 2.1.1, word for word."""
    if not entries:
        return sha256(b"").digest()
    if len(entries) == 1:
        return sha256(b"\x00" + entries[0]).digest()
    k = 1
    while k * 2 < len(entries):
        k *= 2
    return sha256(b"\x01" + naive(entries[:k]) + naive(entries[k:])).digest()


def subtree(level: int, index: int) -> bytes:
    return naive(ENTRIES[index << level : (index + 1) << level])


def flipped(value: bytes) -> bytes:
    return bytes([value[0] ^ 1]) + value[1:]


@pytest.mark.parametrize("size", range(len(ENTRIES)))
def test_root_is_the_recursive_definition(size: int) -> None:
    assert tree_root(HASHES[:size]) == naive(ENTRIES[:size])


@pytest.mark.parametrize("size", range(len(ENTRIES)))
def test_frontier_from_storage_is_the_frontier_from_appending(size: int) -> None:
    assert frontier(size, subtree) == EMPTY_TREE.extended(HASHES[:size])


@given(st.integers(0, 79), st.integers(0, 79))
def test_appending_in_two_parts_is_appending_at_once(split: int, size: int) -> None:
    part = HASHES[: min(split, size)]
    assert EMPTY_TREE.extended(part).extended(HASHES[len(part) : size]) == EMPTY_TREE.extended(HASHES[:size])


@given(st.data(), st.integers(1, 80))
def test_every_leaf_is_proved_and_nothing_else_is(data: st.DataObject, size: int) -> None:
    index = data.draw(st.integers(0, size - 1))
    root = tree_root(HASHES[:size])
    proof = inclusion_proof(index, size, subtree)
    assert len(proof) <= (size - 1).bit_length()
    assert verify_inclusion(HASHES[index], index, size=size, proof=proof, root=root)
    assert not verify_inclusion(flipped(HASHES[index]), index, size=size, proof=proof, root=root)
    assert not verify_inclusion(HASHES[index], index, size=size, proof=proof, root=flipped(root))
    assert not verify_inclusion(HASHES[index], index, size=size, proof=[*proof, HASHES[0]], root=root)
    other = data.draw(st.integers(-1, size).filter(lambda place: place != index))
    assert not verify_inclusion(HASHES[index], other, size=size, proof=proof, root=root)
    if proof:
        broken = data.draw(st.integers(0, len(proof) - 1))
        bad = [flipped(node) if place == broken else node for place, node in enumerate(proof)]
        assert not verify_inclusion(HASHES[index], index, size=size, proof=bad, root=root)
        assert not verify_inclusion(HASHES[index], index, size=size, proof=proof[:-1], root=root)


@given(st.data(), st.integers(0, 80))
def test_growth_is_proved_and_a_fork_is_not(data: st.DataObject, size: int) -> None:
    old_size = data.draw(st.integers(0, size))
    old, new = (old_size, tree_root(HASHES[:old_size])), (size, tree_root(HASHES[:size]))
    proof = consistency_proof(old_size, size, subtree)
    assert verify_consistency(old, new, proof)
    assert not verify_consistency(old, new, [*proof, HASHES[0]])
    if 0 < old_size < size:
        assert not verify_consistency((old_size, flipped(old[1])), new, proof)
        assert not verify_consistency(old, (size, flipped(new[1])), proof)
        assert not verify_consistency(old, new, proof[:-1])
    if old_size < size:
        assert not verify_consistency(new, old, proof)


def test_a_node_does_not_pass_for_a_leaf() -> None:
    assert leaf_hash(HASHES[0] + HASHES[1]) != tree_root(HASHES[:2])


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0)])
def test_no_proof_of_a_leaf_that_is_not_there(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="leaf"):
        inclusion_proof(index, size, subtree)
    assert not verify_inclusion(HASHES[0], index, size=size, proof=[], root=HASHES[0])


@pytest.mark.parametrize(("old_size", "size"), [(-1, 3), (4, 3)])
def test_no_proof_of_shrinking(old_size: int, size: int) -> None:
    with pytest.raises(ValueError, match="within"):
        consistency_proof(old_size, size, subtree)


def test_an_empty_proof_shows_no_growth() -> None:
    assert not verify_consistency((3, tree_root(HASHES[:3])), (5, tree_root(HASHES[:5])), [])
    assert not verify_consistency((4, tree_root(HASHES[:4])), (5, tree_root(HASHES[:5])), [])
