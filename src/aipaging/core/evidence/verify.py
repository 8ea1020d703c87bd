"""The offline verification of a log: schema, chain, tree, checkpoints, and the replay of the invariants.

Nothing read is trusted. The records are fed in order; the checkpoints that the log must agree with (its own, and
those that a witness kept) are known beforehand, because a root is checked when the tree has that size. Recomputing
the root of an old size from the records is the consistency proof in its strongest form.
Signatures live in an adapter; what it found is handed in.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from aipaging.core.evidence.chain import ChainCheck
from aipaging.core.evidence.finding import Finding, Invariant, Verdict
from aipaging.core.evidence.log import Checkpoint
from aipaging.core.evidence.merkle import CompletedTile, Frontier, tree_root
from aipaging.core.evidence.merkle import leaf_hash as hash_leaf
from aipaging.core.evidence.record import LEAF_TYPES, leaf_fault, record_fault
from aipaging.core.evidence.replay import Replay

Decoded = dict[str, str | int]

_RECORD: Final = msgspec.json.Decoder(Decoded)
_CANONICAL: Final = msgspec.json.Encoder(order="sorted")
_PENDING_MAX: Final = 256
"""Leaf hashes taken into the tree at once."""


class Verifier:
    """Verifies one log as it is read.

    Args:
        checkpoints: What the log must agree with, each with the name that findings call it by.

    Attributes:
        completed: The roots of the tiles that the records filled, to be compared with the stored ones.
    """

    def __init__(self, checkpoints: Iterable[tuple[str, Checkpoint]] = ()) -> None:
        self._waiting = sorted(checkpoints, key=lambda named: named[1].size, reverse=True)
        self._replay = Replay()
        self._chain = ChainCheck()
        self._tree = Frontier()
        self._pending: list[bytes] = []
        self._seq = 0
        self._agreed = 0
        self._differing: list[tuple[int, int, str]] = []
        self.completed: list[CompletedTile] = []
        self._misfit: Finding | None = None
        self._altered: list[Finding] = []
        self._signature: Finding | None = None
        self._check_roots()

    @property
    def records(self) -> int:
        """How many records were read."""
        return self._seq

    def feed(self, record: bytes, *, stored_hash: bytes | None = None, leaves: Sequence[bytes] | None = ()) -> None:
        """Verify the next record.

        Args:
            record: Its bytes.
            stored_hash: The hash that the log's storage or tile has for it.
            leaves: The leaves of a batch record; None when they are missing.
        """
        decoded, fault = _decoded(record)
        hashed = hash_leaf(record)
        if stored_hash is not None and stored_hash != hashed:
            record_type = str(decoded.get("type", "")) if decoded else ""
            self._tree_finding(self._seq, "the record was altered: the tree was built from another one", record_type)
        self._chain.feed(record, decoded)
        if self._misfit is None:
            self._judge(decoded or {}, fault, leaves)
        self._pending.append(hashed)
        self._seq += 1
        self._check_roots()

    def unsigned(self, what: str, *, size: int) -> None:
        """Take note that a checkpoint of this size was not signed by the log's key."""
        if self._signature is None:
            self._signature = Finding(seq=max(0, size - 1), type="", what=what, invariant=Invariant.SIGNATURE)

    def inconsistent(self, what: str, *, first: int, end: int) -> None:
        """Take note of a stored hash that does not fit the records first..end-1."""
        self._differing.append((first, end, what))

    def verdict(self) -> Verdict:
        """Return what came of it; called once, after the last record."""
        for name, checkpoint in reversed(self._waiting):
            self._tree_finding(
                self._seq, f"the log ends here, and {name} is of {checkpoint.size} records: its tail was cut"
            )
        self._waiting.clear()
        self._chain.end()
        self._name_the_rewritten()
        semantic = [finding for finding in (self._misfit, self._replay.finding) if finding]
        # Of findings at one record the chain comes first: that it was altered explains the others.
        found = [f for f in (self._chain.finding, *self._altered, *semantic, self._signature) if f]
        return Verdict(
            records=self._seq,
            chain_ok=self._chain.finding is None,
            tree_ok=not self._altered,
            signatures_ok=self._signature is None,
            invariants_ok=not semantic,
            first_bad=min(found, key=lambda finding: finding.seq) if found else None,
            sessions=self._replay.sessions,
        )

    def _judge(self, decoded: Decoded, fault: str | None, leaves: Sequence[bytes] | None) -> None:
        """Replay the record, or take note that it does not fit its type, which ends the replay."""
        record_type = str(decoded.get("type", ""))
        batch: Sequence[Decoded] = ()
        if fault is None and record_type in LEAF_TYPES:
            batch, fault = _decoded_leaves(decoded, leaves)
        if fault is None:
            self._replay.feed(decoded, batch)
        else:
            self._misfit = Finding(seq=self._seq, type=record_type, what=fault, invariant=Invariant.SCHEMA)

    def _tree_finding(self, seq: int, what: str, record_type: str = "") -> None:
        self._altered.append(Finding(seq=seq, type=record_type, what=what, invariant=Invariant.TREE))

    def _check_roots(self) -> None:
        """Compare the root with every checkpoint of the present size."""
        due = bool(self._waiting) and self._waiting[-1][1].size == self._seq
        if not due and len(self._pending) < _PENDING_MAX:
            return
        self._tree, completed = self._tree.grown(self._pending)
        self.completed += completed
        self._pending.clear()
        while self._waiting and self._waiting[-1][1].size == self._seq:
            name, checkpoint = self._waiting.pop()
            if checkpoint.root == self._tree.root():
                self._agreed = self._seq
            elif not self._differing:  # every later root differs for the same reason
                what = f"of records {self._agreed} to {self._seq - 1} one or more are not those that {name} was made of"
                self._differing.append((self._agreed, self._seq, what))

    def _name_the_rewritten(self) -> None:
        """Turn roots that differ into findings about a record.

        Another check may know exactly which record of the range it is; if not, the first of them is named.
        """
        exact = [f for f in (self._chain.finding, self._misfit, self._replay.finding, *self._altered) if f]
        for first, end, what in self._differing:
            known = [finding.seq for finding in exact if first <= finding.seq < end]
            self._tree_finding(min(known, default=first), what)
        self._differing.clear()


def _decoded(record: bytes) -> tuple[Decoded | None, str | None]:
    """Return the record, where it can be read at all, and what is wrong with it."""
    try:
        decoded = _RECORD.decode(record)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None, "it is not a flat JSON record"
    fault = record_fault(decoded)
    if fault is None and _CANONICAL.encode(decoded) != record:
        fault = "the record is not in canonical form"
    return decoded, fault


def _decoded_leaves(
    decoded: Decoded, leaves: Sequence[bytes] | None
) -> tuple[Sequence[Decoded], None] | tuple[tuple[()], str]:
    """Return the leaves of a batch record, or what is wrong with them."""
    if not leaves or len(leaves) != decoded["count"]:
        return (), f"{len(leaves or ())} of {decoded['count']} leaves are there"
    if tree_root(hash_leaf(leaf) for leaf in leaves).hex() != decoded["root"]:
        return (), "the leaves are not those whose root the record has"
    try:
        batch = [_RECORD.decode(leaf) for leaf in leaves]
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return (), "a leaf is not a flat JSON map"
    faults = (leaf_fault(str(decoded["type"]), leaf) for leaf in batch)
    fault = next((found for found in faults if found), None)
    return ((), fault) if fault else (batch, None)
