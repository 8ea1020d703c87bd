"""An audit done again from the files alone: every number must come out as it was."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from aipaging.adapters.signing.notes import NoteVerifier, verified_text
from aipaging.apps.audit.run import Request, run_audit
from aipaging.core.audit.commitment import Commitment
from aipaging.core.audit.record import signed_text
from aipaging.core.audit.verdict import Multiplicity
from aipaging.core.foundation.errors import InvalidInputError, UnverifiedError

COMPARED: Final = ("provenance", "verdicts", "multiplicity", "data_quality", "records", "attribution", "estimates")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rechecked:
    """What an audit done again found.

    Attributes:
        differences: As sentences; none where all is the same.
        signatures: How many verdicts are signed by a key that was asked about.
    """

    differences: list[str]
    signatures: int


def recheck_audit(
    document: Path,
    telemetry: Path,
    contract_file: Path,
    *,
    committed: Commitment | None = None,
    verifiers: Sequence[NoteVerifier] = (),
) -> Rechecked:
    """Return what differs between a document and the files that it is about.

    Args:
        document: What `run --json` wrote.
        telemetry: The telemetry, or the openings.
        contract_file: The contracts.
        committed: What the provider committed to, from elsewhere; the document's own word otherwise.
        verifiers: Keys of the auditor: with any, every verdict must be signed by one of them.

    Raises:
        InvalidInputError: The document is none that `run --json` wrote, or a file cannot be audited.
    """
    said = _read(document)
    try:
        request = _request(said["provenance"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInputError(f"{document} does not say how it was made", field="document") from error
    if committed is not None:
        request = replace(request, committed=committed)
    # As the document was written: integers and floats by their text, tuples as lists.
    again: dict[str, Any] = json.loads(msgspec.json.encode(run_audit(telemetry, contract_file, request)))
    found = [line for part in COMPARED for line in _differences(part, said.get(part), again.get(part))]
    if again["provenance"]["root_matches"] is False:
        found.append("provenance.root: the records are not those that were committed to")
    signed, unsigned = _signatures(said, again["records"], verifiers)
    return Rechecked(differences=found + unsigned, signatures=signed)


def _request(how: dict[str, Any]) -> Request:
    committed = None
    if how["root"] is not None:
        committed = Commitment(origin=str(how["origin"]), size=int(how["committed"]), root=bytes.fromhex(how["root"]))
    return Request(
        alpha=float(how["alpha"]),
        seed=int(how["seed"]),
        sample=None if how["sample"] is None else int(how["sample"]),
        committed=committed,
        multiplicity=Multiplicity(how["multiplicity"]),
    )


def _signatures(
    said: dict[str, Any], records: list[dict[str, str | int]], verifiers: Sequence[NoteVerifier]
) -> tuple[int, list[str]]:
    """Return how many records are signed as they come out now, and what is to be said of the others."""
    if not verifiers:
        return 0, []
    notes: Any = said.get("notes")
    signed, missing = 0, list[str]()
    for index, record in enumerate(records):
        try:
            text = verified_text(str(notes[index]), verifiers)
        except (UnverifiedError, TypeError, IndexError, KeyError) as error:
            missing.append(f"notes[{index}]: not signed by a key that was given ({error})")
            continue
        if text == signed_text(record):
            signed += 1
        else:
            missing.append(f"notes[{index}]: what is signed is not what the files say")
    return signed, missing


def _read(document: Path) -> dict[str, Any]:
    try:
        said: Any = json.loads(document.read_text())
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{document} holds no JSON document: {error}", field="document") from error
    if not isinstance(said, dict) or not isinstance(said.get("provenance"), dict):
        raise InvalidInputError(f"{document} was not written by `run --json`", field="document")
    return said


def _differences(place: str, said: Any, again: Any) -> list[str]:
    if isinstance(said, dict) and isinstance(again, dict):
        names = dict.fromkeys([*said, *again])
        return [line for name in names for line in _differences(f"{place}.{name}", said.get(name), again.get(name))]
    if isinstance(said, list) and isinstance(again, list) and len(said) == len(again):
        return [
            line
            for index, (one, other) in enumerate(zip(said, again, strict=True))
            for line in _differences(f"{place}[{index}]", one, other)
        ]
    return [] if said == again else [f"{place}: the document says {said!r}, the files say {again!r}"]
