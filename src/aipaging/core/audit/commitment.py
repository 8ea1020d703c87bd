"""What a provider commits to before a seed is drawn: the Merkle tree of a period's records, and proofs of single ones.

A leaf is one row of the telemetry as compact JSON with sorted keys; the tree is that of RFC 9162, in the order of the
rows. The commitment is the size *and* the root (the root alone does not say how many leaves there are), written as the
text of a C2SP `tlog-checkpoint`: whoever witnesses logs can witness telemetry. Rows that are not opened stay hidden as
long as their ids cannot be guessed: trace ids of W3C trace context (128 random bits) cannot.

Hashing streams: a scan holds one hash per level of the tree, and the few that proofs need.
"""

from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import msgspec
import numpy as np

from aipaging.core.audit.telemetry import STATUS_WORDS, UNKNOWN, UNREADABLE, Batch, Integers, Status
from aipaging.core.evidence.merkle import HASH_BYTES, Frontier, inclusion_proof, leaf_hash, verify_inclusion
from aipaging.core.foundation.errors import InvalidInputError

PROVEN_MAX: Final = 200_000
"""Records that may be opened with proofs: each needs some thirty hashes in memory while the telemetry is read."""

SIZE_DIGITS_MAX: Final = 15
"""Of the number of leaves in a commitment: 2**53 records are no period's."""

UNREADABLE_WORD: Final = "unreadable"
"""What a leaf holds for a cell that was there and was no integer."""

Node = tuple[int, int]
"""(level, index) of a perfect subtree."""

_ENCODER: Final = msgspec.json.Encoder()
_SORTED: Final = msgspec.json.Encoder(order="sorted")
_WORDS: Final[Mapping[int, str]] = {int(code): word for word, code in STATUS_WORDS.items()} | {
    Status.UNKNOWN: "unknown"
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """The records of a period, all of them, in their order.

    Attributes:
        origin: Whose records of what: a name that is used for nothing else.
        size: How many records.
        root: Merkle tree hash of their leaves.
    """

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Return the checkpoint to sign."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"


def commitment_from(text: str) -> Commitment:
    """Return the commitment that a checkpoint's text states.

    Raises:
        InvalidInputError: It is none.
    """
    lines = text.split("\n")
    origin, size, encoded = lines[:3] if len(lines) >= 4 else ("", "", "")
    try:
        root = b64decode(encoded, validate=True)
    except ValueError:
        root = b""
    digits = size.isascii() and size.isdigit() and len(size) <= SIZE_DIGITS_MAX
    if not origin or not digits or len(root) != HASH_BYTES:
        raise InvalidInputError(
            "a commitment is a checkpoint: a line each for origin, number of records and root (base64)",
            code="COMMITMENT_MALFORMED",
            field="commitment",
        )
    return Commitment(origin=origin, size=int(size), root=root)


def leaves(batch: Batch) -> Iterator[bytes]:
    """Yield the leaf of every row; the batch has ids, and tenants where the table has them.

    What is empty is null, so a leaf says which columns there were. Values are as they were read: what cannot be true
    is judged later, by whoever opens it.
    """
    if batch.ids is None:
        raise AssertionError("leaves hold ids: ask the table for them")
    names = sorted(batch.domains)
    keys = (*(f"domain_{name}_us" for name in names), "end_to_end_us", "request_id", "start_us", "status", "tenant")
    missing: list[str | None] = [None]
    tenants = missing * len(batch)
    if batch.tenants is not None:
        tenants = [batch.tenant_names[code] or None for code in batch.tenants.tolist()]
    columns: list[list[Any]] = [
        *(_cells(batch.domains[name]) for name in names),
        _cells(batch.end_to_end_us),
        [name or None for name in batch.ids.take(np.arange(len(batch)))],
        _cells(batch.start_us),
        [_WORDS[code] for code in batch.status.tolist()],
        tenants,
    ]
    encode = _ENCODER.encode
    for row in zip(*columns, strict=True):
        yield encode(dict(zip(keys, row, strict=True)))


def leaf_of(record: Mapping[str, Any]) -> bytes:
    """Return the leaf of an opened record."""
    return _SORTED.encode(record)


def _cells(column: Integers) -> list[Any]:
    cells: list[Any] = column.tolist()
    if not column.size or column.min() > UNREADABLE:
        return cells
    return [None if cell == UNKNOWN else UNREADABLE_WORD if cell == UNREADABLE else cell for cell in cells]


class CommitmentScan:
    """Hashes leaves, in their order.

    Attributes:
        size: How many were hashed.
    """

    def __init__(self, wanted: AbstractSet[Node] = frozenset()) -> None:
        """Begin an empty tree; the hashes of the subtrees in `wanted` are kept for proofs."""
        self.size = 0
        self._nodes: list[bytes] = []
        self._wanted = wanted
        self._kept: dict[Node, bytes] = {}

    def add(self, entries: Iterable[bytes]) -> None:
        """Append leaves."""
        nodes, wanted, size = self._nodes, self._wanted, self.size
        for entry in entries:
            node, index, level = sha256(b"\x00" + entry).digest(), size, 0
            while True:
                if wanted and (level, index) in wanted:
                    self._kept[level, index] = node
                if not index & 1:
                    break
                node = sha256(b"\x01" + nodes.pop() + node).digest()
                index >>= 1
                level += 1
            nodes.append(node)
            size += 1
        self.size = size

    def commitment(self, origin: str) -> Commitment:
        """Return what was hashed so far as a commitment."""
        return Commitment(origin=origin, size=self.size, root=Frontier(size=self.size, nodes=tuple(self._nodes)).root())

    def proof(self, row: int) -> list[bytes]:
        """Return the inclusion proof of a row that `needed` was asked about."""
        return inclusion_proof(row, self.size, lambda level, index: self._kept[level, index])


def needed(rows: Sequence[int], size: int) -> set[Node]:
    """Return the subtrees whose hashes the proofs of some rows need.

    Raises:
        InvalidInputError: More rows than can be proven at once.
    """
    if len(rows) > PROVEN_MAX:
        raise InvalidInputError(f"{len(rows)} records; at most {PROVEN_MAX} can be opened with proofs", field="sample")
    found: set[Node] = set()

    def seen(level: int, index: int) -> bytes:
        found.add((level, index))
        return b""

    for row in rows:
        inclusion_proof(row, size, seen)
    return found


def is_proven(commitment: Commitment, row: int, record: Mapping[str, Any], proof: Sequence[bytes]) -> bool:
    """Tell whether an opened record is the leaf at `row` of what was committed to."""
    return verify_inclusion(leaf_hash(leaf_of(record)), row, size=commitment.size, proof=proof, root=commitment.root)
