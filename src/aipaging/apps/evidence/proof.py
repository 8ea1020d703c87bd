"""The proof that a record is in the log, as a document and in the form of C2SP tlog-proof."""

from base64 import b64encode
from dataclasses import dataclass
from typing import Any

from aipaging.core.evidence.log import noted_checkpoint
from aipaging.core.evidence.merkle import inclusion_proof, leaf_hash, verify_inclusion
from aipaging.core.evidence.tiles import subtree_hashes
from aipaging.core.foundation.errors import InvalidInputError, UnverifiedError, Who
from aipaging.ports.journal import EvidenceReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Inclusion:
    """A record, its place, and the way from it to the root of a signed checkpoint."""

    seq: int
    record: bytes
    path: tuple[bytes, ...]
    size: int
    root: bytes
    note: str


def inclusion(reader: EvidenceReader, seq: int, note: str) -> Inclusion:
    """Return the proof of record `seq`, checked.

    Raises:
        InvalidInputError: The checkpoint does not cover the record.
        UnverifiedError: The stored hashes do not lead to the checkpoint: the log was altered.
    """
    checkpoint = noted_checkpoint(note)
    stored = next(iter(reader.records(seq, seq + 1)), None)
    if seq >= checkpoint.size or stored is None:
        raise InvalidInputError(
            f"record {seq} is not covered: the newest checkpoint is of {checkpoint.size}", code="NOT_FOUND", field="seq"
        )
    try:
        path = tuple(inclusion_proof(seq, checkpoint.size, subtree_hashes(reader.hashes)))
    except LookupError:
        path = ()
    hashed = leaf_hash(stored.record)
    if not verify_inclusion(hashed, seq, size=checkpoint.size, proof=path, root=checkpoint.root):
        raise UnverifiedError(
            f"record {seq} does not lead to the root of the checkpoint: the log was altered, run `verify`",
            code="EVIDENCE_ALTERED",
            who=Who.OPERATOR,
        )
    return Inclusion(seq=seq, record=stored.record, path=path, size=checkpoint.size, root=checkpoint.root, note=note)


def proof_document(proof: Inclusion) -> dict[str, Any]:
    """Return the proof as a JSON document."""
    return {
        "seq": proof.seq,
        "record": proof.record.decode(),
        "leaf_hash": leaf_hash(proof.record).hex(),
        "size": proof.size,
        "root": proof.root.hex(),
        "proof": [node.hex() for node in proof.path],
        "checkpoint": proof.note,
    }


def proof_text(proof: Inclusion) -> str:
    """Return the proof in the form of C2SP tlog-proof."""
    path = "".join(f"{b64encode(node).decode()}\n" for node in proof.path)
    return f"c2sp.org/tlog-proof@v1\nindex {proof.seq}\n{path}\n{proof.note}"
