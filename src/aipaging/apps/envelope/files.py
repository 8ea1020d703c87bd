"""What the commands read: documents, signed envelopes, key sets, and the numbers accepted before."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from aipaging.adapters.signing.envelopes import SIGNED_BYTES_MAX, EnvelopeSignatures, key_set_from, unverified_payload
from aipaging.adapters.signing.keys import Jwks
from aipaging.core.envelope.document import EnvelopeDocument, document_from
from aipaging.core.envelope.trust import Accepted, SignedEnvelope, TrustedEnvelopes
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import DomainName, checked_name

PRETTY_BYTES_MAX: Final = 4 * SIGNED_BYTES_MAX
"""A draft may be laid out with as many blanks as it likes, within reason."""


class _Known(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    domain: str
    segment: str
    sequence: int
    digest: str


class _Memory(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    accepted: list[_Known]


def read_bytes(path: Path, limit: int = PRETTY_BYTES_MAX) -> bytes:
    """Return a short file, or standard input for `-`.

    Raises:
        InvalidInputError: It cannot be read, or is longer than anything that it may be.
    """
    try:
        if str(path) == "-":
            raw = sys.stdin.buffer.read(limit + 1)
        else:
            with path.open("rb") as file:
                raw = file.read(limit + 1)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}", code="FILE_UNREADABLE") from None
    if len(raw) > limit:
        raise InvalidInputError(f"{path} has more than {limit} bytes: this is no envelope", code="FILE_UNREADABLE")
    return raw


def read_draft(path: Path) -> EnvelopeDocument:
    """Return the unsigned document in a file."""
    raw = read_bytes(path)
    if _looks_signed(raw):
        raise InvalidInputError(f"{path} is signed already: an unsigned document is expected")
    # Layout is not part of the document and does not count towards its size.
    try:
        return document_from(msgspec.json.format(raw, indent=-1))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise InvalidInputError(f"{path} is not JSON") from None


def read_signed(path: Path) -> SignedEnvelope:
    """Return the signed envelope in a file, of which nothing is known."""
    return SignedEnvelope(raw=read_bytes(path).strip())


def read_any(path: Path) -> tuple[EnvelopeDocument, bool]:
    """Return the document in a file, and whether it is signed; the signature is not checked."""
    raw = read_bytes(path).strip()
    if _looks_signed(raw):
        return document_from(unverified_payload(SignedEnvelope(raw=raw))), True
    return read_draft(path) if str(path) != "-" else document_from(raw), False


def signatures_of(key_sets: Sequence[str]) -> EnvelopeSignatures:
    """Return the checker for `DOMAIN=FILE` options.

    Raises:
        InvalidInputError: An option has another form, or a file holds no key set.
    """
    sets: dict[DomainName, Jwks] = {}
    for text in key_sets:
        domain, equals, path = text.partition("=")
        if not equals:
            raise InvalidInputError(f"--keys is {text!r}: DOMAIN=FILE is expected", field="keys")
        name = DomainName(checked_name(domain, field="keys"))
        found = key_set_from(read_bytes(Path(path)))
        sets[name] = {"keys": [*sets.get(name, {"keys": []})["keys"], *found["keys"]]}
    return EnvelopeSignatures(sets)


def remembered(path: Path | None) -> TrustedEnvelopes:
    """Return the set with what was accepted before, as the file says; a missing file is an empty memory.

    Raises:
        InvalidInputError: The file holds something else: an attacker's way to a rollback is to break it.
    """
    if path is None or not path.exists():
        return TrustedEnvelopes()
    try:
        memory = msgspec.json.decode(path.read_bytes(), type=_Memory)
    except (msgspec.MsgspecError, UnicodeDecodeError, OSError):
        raise InvalidInputError(f"{path} is not a memory of accepted envelopes", field="state") from None
    return TrustedEnvelopes(
        accepted={
            (DomainName(known.domain), known.segment): Accepted(sequence=known.sequence, digest=known.digest)
            for known in memory.accepted
        }
    )


def remember(path: Path | None, trusted: TrustedEnvelopes) -> None:
    """Write down what was accepted, whole or not at all.

    Raises:
        InvalidInputError: The file cannot be written.
    """
    if path is None:
        return
    known = [
        _Known(domain=domain, segment=segment, sequence=accepted.sequence, digest=accepted.digest)
        for (domain, segment), accepted in sorted(trusted.accepted.items())
    ]
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(_Memory(accepted=known)), indent=1) + b"\n")
        temporary.replace(path)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be written: {error.strerror}", field="state") from None


def _looks_signed(raw: bytes) -> bool:
    return not raw.lstrip().startswith(b"{")
