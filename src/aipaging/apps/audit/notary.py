"""Signatures of audits: providers' commitments and auditors' verdicts, as signed notes with Ed25519 keys in files."""

from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from aipaging.adapters.signing.files import create_once, read_private, unreadable_key
from aipaging.adapters.signing.notes import NoteSigner, NoteVerifier, verified_text
from aipaging.core.foundation.errors import InvalidInputError


def note_signer(path: Path, key_name: str) -> NoteSigner:
    """Return the signer with the key in a file; on first use the key is made.

    Raises:
        AipagingError: The file is no Ed25519 key, cannot be read or written, or others may read it.
    """
    if not path.exists():
        pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        create_once(path, pem)
    content = read_private(path)
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The parser's own message may quote the file; the cause is dropped on purpose.
        raise unreadable_key(path) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise unreadable_key(path)
    return NoteSigner(key, key_name)


def note_verifiers(texts: Sequence[str]) -> list[NoteVerifier]:
    """Return verifiers of keys given as text, or in files.

    Raises:
        InvalidInputError: One is neither.
    """
    return [NoteVerifier.from_text(_text(text)) for text in texts]


def _text(given: str) -> str:
    if given.count("+") >= 2 and not Path(given).exists():
        return given
    try:
        return Path(given).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"cannot read the verifier key {given}", field="verifier-key") from error


def note_text(content: str, verifiers: Sequence[NoteVerifier]) -> str:
    """Return the text of a note, checked if there are verifiers; a text without signatures is one, if there are none.

    Raises:
        UnverifiedError: None of the keys signed it.
    """
    if verifiers:
        return verified_text(content, verifiers)
    body, separator, _ = content.rpartition("\n\n")
    return f"{body}\n" if separator else content
