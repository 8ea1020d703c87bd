"""Sealing: drafts become journal entries with a place in the hash chain and in the Merkle tree.

The sealer keeps no history: its whole state is the `LogHead`, so a failed append is undone by going on from the
head before it. Checkpoints are the text of C2SP `tlog-checkpoint`; signing it is `ports.signing`'s matter.
"""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import msgspec
from msgspec import structs

from aipaging.core.evidence.merkle import EMPTY_TREE, HASH_BYTES, TILE_HEIGHT, Frontier, tree_root
from aipaging.core.evidence.merkle import leaf_hash as hash_leaf
from aipaging.core.evidence.record import (
    FIRST_PREV,
    LEAF_TYPES,
    LEAVES_MAX,
    RECORD_VERSION,
    Draft,
    Fields,
    SealedEntry,
    canonical_leaf,
    canonical_record,
    malformed,
)
from aipaging.core.foundation.errors import UnverifiedError, Who
from aipaging.core.foundation.names import SessionId
from aipaging.core.foundation.time import Now


class LogHead(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """All that is needed to go on writing a log.

    Attributes:
        seq: The place of the next record; how many there are.
        prev: Hex SHA-256 of the last record.
        tree: The tree over all records.
    """

    seq: int
    prev: str
    tree: Frontier


EMPTY_LOG: Final = LogHead(seq=0, prev=FIRST_PREV, tree=EMPTY_TREE)
"""The head of a log without records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a checkpoint says: the log `origin` had `size` records with this root."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Return the body of the signed note."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def parse_checkpoint(body: str) -> Checkpoint:
    """Return what the body of a checkpoint says; whether it was signed is for the caller to have checked.

    Raises:
        UnverifiedError: It is not a checkpoint.
    """
    lines = body.split("\n")
    try:
        origin, size, root = lines[0], int(lines[1]), base64.b64decode(lines[2], validate=True)
    except (IndexError, ValueError) as error:
        raise _not_a_checkpoint(body) from error
    if not origin or size < 0 or str(size) != lines[1] or len(root) != HASH_BYTES:
        raise _not_a_checkpoint(body)
    return Checkpoint(origin=origin, size=size, root=root)


def noted_checkpoint(note: str) -> Checkpoint:
    """Return what a signed note says as a checkpoint, without judging its signatures.

    Raises:
        UnverifiedError: It is not a note with a checkpoint.
    """
    return parse_checkpoint(note.rpartition("\n\n")[0] + "\n")


class Sealer:
    """Gives records their place in the log.

    Attributes:
        head: Where the next record goes.
    """

    __slots__ = ("_boot", "_node", "head")

    def __init__(self, node: str, boot: str, head: LogHead) -> None:
        self._node = node
        self._boot = boot
        self.head = head

    def seal(self, drafts: Iterable[Draft], *, term: int, now: Now) -> list[SealedEntry]:
        """Return the entries of `drafts`, in order, and move the head behind them.

        Raises:
            AipagingError: A draft does not fit its type; the head has not moved.
        """
        seq, prev = self.head.seq, self.head.prev
        entries: list[SealedEntry] = []
        for draft in drafts:
            leaves, root = _sealed_leaves(draft)
            batch: Fields = {"count": len(leaves), "root": root.hex()} if leaves else {}
            record = canonical_record(
                {
                    **draft.fields,
                    **batch,
                    "v": RECORD_VERSION,
                    "seq": seq,
                    "type": draft.type,
                    "node": self._node,
                    "boot": self._boot,
                    "term": term,
                    "wall_us": now.wall_us,
                    "boot_us": now.boot_us,
                    "prev": prev,
                }
            )
            entries.append(
                SealedEntry(
                    seq=seq,
                    record=record,
                    leaf_hash=hash_leaf(record),
                    leaves=leaves,
                    root=root,
                    payload=draft.payload,
                    session=draft.session or _session_of(draft.fields),
                    salt=draft.salt,
                )
            )
            seq, prev = seq + 1, sha256(record).hexdigest()
        tree, completed = self.head.tree.grown([entry.leaf_hash for entry in entries])
        for level, index, root_hash in completed:
            place = (index + 1 << TILE_HEIGHT * level) - 1 - self.head.seq
            entries[place] = structs.replace(entries[place], tiles=(*entries[place].tiles, (level, index, root_hash)))
        self.head = LogHead(seq=seq, prev=prev, tree=tree)
        return entries

    def checkpoint_text(self, origin: str) -> str:
        """Return the checkpoint body for the present head."""
        tree = self.head.tree
        return Checkpoint(origin=origin, size=tree.size, root=tree.root()).text()


def resumed(base: LogHead, records: Iterable[bytes], checkpoint: Checkpoint | None) -> LogHead:
    """Return the head after `records`, which must continue the log at `base` and lead to `checkpoint` on the way.

    Raises:
        UnverifiedError: A record does not fit the chain, or the tree at the checkpoint's size has another root.
    """
    hashes: list[bytes] = []
    seq, prev = base.seq, base.prev
    for record in records:
        if place_of(record) != (seq, prev):
            raise UnverifiedError(f"record {seq} does not continue the chain", code="CHAIN_BROKEN", who=Who.OPERATOR)
        hashes.append(hash_leaf(record))
        seq, prev = seq + 1, sha256(record).hexdigest()
    if checkpoint is not None:
        if not base.seq <= checkpoint.size <= seq:
            raise _not_the_log(f"the newest checkpoint is of {checkpoint.size} records, there are {seq}")
        covered = base.tree.extended(hashes[: checkpoint.size - base.seq])
        if covered.root() != checkpoint.root:
            raise _not_the_log(f"the tree of the first {checkpoint.size} records is not the one of its checkpoint")
    return LogHead(seq=seq, prev=prev, tree=base.tree.extended(hashes))


def place_of(record: bytes) -> tuple[int, str] | None:
    """Return `(seq, prev)` as the record says, or None if it says neither."""
    try:
        decoded = msgspec.json.decode(record, type=dict[str, str | int])
        seq, prev = decoded["seq"], decoded["prev"]
    except (msgspec.MsgspecError, KeyError):
        return None
    return (seq, prev) if isinstance(seq, int) and isinstance(prev, str) else None


def _not_the_log(what: str) -> UnverifiedError:
    return UnverifiedError(what, code="CHECKPOINT_MISMATCH", who=Who.OPERATOR)


def _sealed_leaves(draft: Draft) -> tuple[tuple[bytes, ...], bytes]:
    """Return the canonical leaves of a batch draft and their root."""
    if draft.type not in LEAF_TYPES:
        if draft.leaves:
            raise malformed(f"{draft.type} has leaves, and only {', '.join(LEAF_TYPES)} may")
        return (), b""
    if not 1 <= len(draft.leaves) <= LEAVES_MAX:
        raise malformed(f"{draft.type} has {len(draft.leaves)} leaves, 1 to {LEAVES_MAX} are allowed")
    leaves = tuple(canonical_leaf(draft.type, leaf) for leaf in draft.leaves)
    return leaves, tree_root(hash_leaf(leaf) for leaf in leaves)


def _session_of(fields: Fields) -> SessionId | None:
    session = fields.get("session")
    return SessionId(session) if isinstance(session, str) else None


def _not_a_checkpoint(body: str) -> UnverifiedError:
    return UnverifiedError(
        f"not a checkpoint (origin, size, base64 root, one per line): {body[:80]!r}", code="CHECKPOINT_MALFORMED"
    )
