"""An audit done again from the files alone: every number must come out as it was."""

import json
from pathlib import Path
from typing import Any, Final

import msgspec

from aipaging.apps.audit.run import run_audit
from aipaging.core.foundation.errors import InvalidInputError

COMPARED: Final = ("provenance", "verdicts", "multiplicity", "data_quality", "attribution", "estimates")


def recheck_audit(document: Path, telemetry: Path, contract_file: Path) -> list[str]:
    """Return what differs, as sentences; nothing where all is the same.

    Raises:
        InvalidInputError: The document is none that `run --json` wrote, or a file cannot be audited.
    """
    said = _read(document)
    how: dict[str, Any] = said["provenance"]
    try:
        found = run_audit(
            telemetry,
            contract_file,
            alpha=float(how["alpha"]),
            seed=int(how["seed"]),
            sample=None if how["sample"] is None else int(how["sample"]),
            root=how["root"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(f"{document} does not say how it was made", field="document") from error
    # As the document was written: integers and floats by their text, tuples as lists.
    again: dict[str, Any] = json.loads(msgspec.json.encode(found))
    return [line for part in COMPARED for line in _differences(part, said.get(part), again.get(part))]


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
