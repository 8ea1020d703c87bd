"""What a provider does: commit to the records of a period, and open those that a seed picks."""

from contextlib import closing
from pathlib import Path
from typing import Any

from aipaging.adapters.signing.notes import NoteVerifier
from aipaging.adapters.telemetry.openings import head_line, opening_line
from aipaging.adapters.telemetry.source import open_telemetry
from aipaging.apps.audit.notary import note_signer, note_text
from aipaging.apps.audit.progress import Shown
from aipaging.core.audit.commitment import Commitment, commitment_from, leaves, needed
from aipaging.core.audit.opening import beacon_seed, opening_key, opening_order
from aipaging.core.audit.period import hashed
from aipaging.core.foundation.errors import InvalidInputError, UnverifiedError

BEACON_BYTES_MAX = 1_000_000
"""A signed note or a round of a beacon; nothing longer is one."""


def commit(telemetry: Path, output: Path, *, origin: str, key: Path | None, key_name: str | None) -> dict[str, Any]:
    """Write the commitment to a telemetry file, signed if there is a key, and return what it says.

    Raises:
        InvalidInputError: A file cannot be read or written, or the origin is no word.
    """
    if not origin or len(origin.split()) != 1 or not origin.isprintable():
        raise InvalidInputError("the origin is a word, such as provider.example/2026-11", field="origin")
    with Shown(open_telemetry(telemetry), "hashing") as table:
        commitment = hashed(table).commitment(origin)
    content = commitment.text()
    document: dict[str, Any] = {
        "origin": origin,
        "size": commitment.size,
        "root": commitment.root.hex(),
        "output": str(output),
        "verifier_key": None,
    }
    if key is not None:
        signer = note_signer(key, key_name or origin)
        content = signer.sign_note(content)
        document["verifier_key"] = signer.verifier.text
    write(output, content.encode())
    return document


def read_commitment(path: Path, verifiers: list[NoteVerifier]) -> Commitment:
    """Return the commitment in a file.

    Raises:
        InvalidInputError: It is none.
        UnverifiedError: There are verifiers, and none of them signed it.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"cannot read {path}: {error}", code="FILE_UNREADABLE", field="commitment") from error
    return commitment_from(note_text(content, verifiers))


def seed_of(seed: int, beacon: Path | None) -> int:
    """Return the seed that is given, or that a beacon in a file decides.

    Raises:
        InvalidInputError: The beacon cannot be read.
    """
    if beacon is None:
        return seed
    try:
        with beacon.open("rb") as file:
            content = file.read(BEACON_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidInputError(f"cannot read {beacon}: {error.strerror}", field="beacon") from error
    if not content or len(content) > BEACON_BYTES_MAX:
        raise InvalidInputError(f"a beacon has 1 to {BEACON_BYTES_MAX} bytes", field="beacon")
    return beacon_seed(content)


def open_records(telemetry: Path, output: Path, commitment: Commitment, *, seed: int, count: int) -> dict[str, Any]:
    """Write the records that a seed picks, with their proofs, and return how many.

    Raises:
        InvalidInputError: A file cannot be read or written, or too many records are asked for.
        UnverifiedError: The telemetry is not what was committed to.
    """
    order: list[int] = opening_order(opening_key(seed, commitment.root), commitment.size, count).tolist()
    wanted = set(order)
    with Shown(open_telemetry(telemetry), "hashing") as table:
        scan = hashed(table, needed(order, commitment.size))
    if (scan.size, scan.commitment("").root) != (commitment.size, commitment.root):
        raise UnverifiedError(
            f"{telemetry} has {scan.size} records and another root: it is not what was committed to",
            code="ROOT_MISMATCH",
        )
    found: dict[int, bytes] = {}
    row = 0
    with Shown(open_telemetry(telemetry), "opening") as table, closing(table.batches(ids=True, tenants=True)) as parts:
        for batch in parts:
            for leaf in leaves(batch):
                if row in wanted:
                    found[row] = leaf
                row += 1
    lines = [head_line(commitment, seed=seed, opened=len(order))]
    lines += [opening_line(row, found[row], scan.proof(row)) for row in order]
    write(output, b"".join(lines))
    return {"opened": len(order), "size": commitment.size, "seed": seed, "output": str(output)}


def write(path: Path, content: bytes) -> None:
    """Put content into a file.

    Raises:
        InvalidInputError: It cannot be written.
    """
    try:
        path.write_bytes(content)
    except OSError as error:
        raise InvalidInputError(f"cannot write {path}: {error.strerror}", field="output") from error
