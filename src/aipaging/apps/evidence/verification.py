"""One verification, from whatever reader: signatures, checkpoints, witnesses, records, tiles."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aipaging.adapters.signing.notes import NoteVerifier, verified_text
from aipaging.core.evidence.finding import Verdict
from aipaging.core.evidence.log import Checkpoint, noted_checkpoint
from aipaging.core.evidence.tiles import TILE_WIDTH
from aipaging.core.evidence.verify import Verifier
from aipaging.core.foundation.errors import InvalidInputError, UnverifiedError
from aipaging.ports.journal import EvidenceReader

UNSIGNED_TAIL_MAX: Final = 8_192
"""Records behind the newest checkpoint: a controller signs every 64, the largest single step has half as many."""

PROGRESS_EVERY: Final = 5_000
"""Records between two reports of progress."""

_SIGNATURE: Final = "\u2014 "


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """A signed checkpoint, the name that findings call it by, and what it says."""

    name: str
    note: str
    checkpoint: Checkpoint


def verify(
    reader: EvidenceReader,
    keys: Sequence[NoteVerifier],
    witnessed: Sequence[Noted] = (),
    progress: Callable[[int], None] = lambda _records: None,
) -> Verdict:
    """Verify a log from its first record on.

    Args:
        reader: The log.
        keys: Whose checkpoints are believed.
        witnessed: Checkpoints that were kept elsewhere.
        progress: Told the number of records read, now and then.
    """
    own, malformed = _own_checkpoints(reader)
    verifier = Verifier((noted.name, noted.checkpoint) for noted in (*own, *witnessed))
    for what in malformed:
        verifier.unsigned(what, size=0)
    for noted in (*own, *witnessed):
        try:
            verified_text(noted.note, keys)
        except UnverifiedError as error:
            verifier.unsigned(f"{noted.name}: {error.message}", size=noted.checkpoint.size)
    for stored in reader.records(0):
        verifier.feed(stored.record, stored_hash=stored.leaf_hash, leaves=stored.leaves)
        if not verifier.records % PROGRESS_EVERY:
            progress(verifier.records)
    progress(verifier.records)
    signed = max((noted.checkpoint.size for noted in own), default=0)
    if verifier.records and (not own or verifier.records - signed > UNSIGNED_TAIL_MAX):
        verifier.unsigned(f"no checkpoint covers the records from {signed} on", size=signed + 1)
    _check_tiles(reader, verifier)
    return verifier.verdict()


def _own_checkpoints(reader: EvidenceReader) -> tuple[list[Noted], list[str]]:
    own: list[Noted] = []
    malformed: list[str] = []
    for note in reader.checkpoints(newest=False):
        try:
            checkpoint = noted_checkpoint(note)
        except UnverifiedError as error:
            malformed.append(error.message)
        else:
            own.append(Noted(name=f"the log's checkpoint of {checkpoint.size}", note=note, checkpoint=checkpoint))
    return own, malformed


def _check_tiles(reader: EvidenceReader, verifier: Verifier) -> None:
    """Compare the stored hashes above the records with those that the records lead to."""
    rows: dict[int, dict[int, bytes]] = {}
    for level, index, root in verifier.completed:
        rows.setdefault(level, {})[index] = root
    for level, row in rows.items():
        for index, stored in enumerate(reader.hashes(level, 0, len(row))):
            if stored != row[index]:
                what = f"the stored hash {index} of tile level {level} is not the one of its records"
                each = TILE_WIDTH**level
                verifier.inconsistent(what, first=index * each, end=(index + 1) * each)
                return


def split_notes(text: str) -> list[str]:
    """Return the signed notes of a file of several, one after the other: `checkpoint >> witness.txt` makes one."""
    notes: list[str] = []
    lines: list[str] = []
    for line in text.splitlines():
        if lines and lines[-1].startswith(_SIGNATURE) and not line.startswith(_SIGNATURE):
            notes.append("\n".join(lines) + "\n")
            lines = []
        if line or lines:
            lines.append(line)
    if lines:
        notes.append("\n".join(lines) + "\n")
    return notes


def witnessed_checkpoints(text: str, file: str) -> list[Noted]:
    """Return the checkpoints of a witness file.

    Raises:
        InvalidInputError: It holds none, or something else.
    """
    noted: list[Noted] = []
    for note in split_notes(text):
        try:
            checkpoint = noted_checkpoint(note)
        except UnverifiedError as error:
            raise InvalidInputError(f"{file}: {error.message}", code="WITNESS_MALFORMED", field="witness") from error
        name = f"the checkpoint of {checkpoint.size} in {file}"
        noted.append(Noted(name=name, note=note, checkpoint=checkpoint))
    if not noted:
        raise InvalidInputError(f"{file} holds no checkpoint", code="WITNESS_MALFORMED", field="witness")
    return noted


def verdict_document(verdict: Verdict) -> dict[str, Any]:
    """Return the verdict in the form that programs rely on."""
    bad = verdict.first_bad
    return {
        "records": verdict.records,
        "chain_ok": verdict.chain_ok,
        "tree_ok": verdict.tree_ok,
        "signatures_ok": verdict.signatures_ok,
        "invariants_ok": verdict.invariants_ok,
        "first_bad": None
        if bad is None
        else {"seq": bad.seq, "type": bad.type, "what": bad.what, "invariant": bad.invariant.value},
        "sessions": verdict.sessions,
    }
