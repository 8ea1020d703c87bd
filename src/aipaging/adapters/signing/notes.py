"""Tree heads as C2SP signed notes with Ed25519.

A note is a text, an empty line and signature lines `— <key name> <base64(key hash ‖ signature)>`. The key hash is the
first four bytes of SHA-256(name ‖ 0x0A ‖ 0x01 ‖ public key); it picks the key, the signature alone proves.
What the text of a checkpoint says lives in `core.evidence`.
"""

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from aipaging.core.foundation.errors import InvalidInputError, UnverifiedError

NOTE_CHARS_MAX: Final = 1_000_000
"""The most that we read of a note, as the reference implementation of the format has it."""

NOTE_SIGNATURES_MAX: Final = 100
"""Log, witnesses and their rotations; more is an attempt to make us verify."""

_ED25519: Final = b"\x01"
_KEY_HASH_BYTES: Final = 4
_KEY_BYTES: Final = 32
_MARK: Final = "— "
_MALFORMED: Final = "NOTE_MALFORMED"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteVerifier:
    """A key that notes are checked against.

    Attributes:
        key_name: The name in its signature lines.
        public_key: Its 32 bytes.
    """

    key_name: str
    public_key: bytes

    @classmethod
    def from_text(cls, verifier_key: str) -> "NoteVerifier":
        """Return the verifier of `<name>+<hash>+<base64>`.

        Raises:
            InvalidInputError: It does not have that form, is not Ed25519, or its hash is not that of its key.
        """
        name, _, rest = verifier_key.strip().partition("+")
        hash_text, _, encoded = rest.partition("+")
        try:
            raw = b64decode(encoded, validate=True)
        except ValueError:
            raw = b""
        if raw[:1] != _ED25519 or len(raw) != 1 + _KEY_BYTES or not _is_key_name(name):
            raise InvalidInputError(
                "a verifier key has the form <name>+<8 hex digits>+<base64 of 0x01 and an Ed25519 key>",
                code="VERIFIER_KEY_MALFORMED",
                field="verifierKey",
            )
        verifier = cls(key_name=name, public_key=raw[1:])
        if verifier.key_hash.hex() != hash_text:
            raise InvalidInputError(
                f"the verifier key of {name} was altered: its hash is {verifier.key_hash.hex()}",
                code="VERIFIER_KEY_MALFORMED",
                field="verifierKey",
            )
        return verifier

    @property
    def key_hash(self) -> bytes:
        """The four bytes that pick this key in a signature line."""
        preimage = self.key_name.encode() + b"\n" + _ED25519 + self.public_key
        return hashlib.sha256(preimage).digest()[:_KEY_HASH_BYTES]

    @property
    def text(self) -> str:
        """The verifier key in the form that `from_text` reads."""
        return f"{self.key_name}+{self.key_hash.hex()}+{b64encode(_ED25519 + self.public_key).decode()}"

    def accepts(self, text: str, signature: bytes) -> bool:
        """Return whether `signature` is this key's over `text`."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, text.encode())
        except InvalidSignature:
            return False
        return True


class NoteSigner:
    """A `CheckpointSigner` with one Ed25519 key."""

    def __init__(self, key: Ed25519PrivateKey, key_name: str) -> None:
        """Take a key and the name that it signs under.

        Raises:
            InvalidInputError: The name is empty, or holds white space or a plus sign.
        """
        if not _is_key_name(key_name):
            raise InvalidInputError(
                f"key name {key_name[:80]!r}: a word without white space and plus signs is expected, such as "
                "aipaging.example/log",
                field="key_name",
            )
        self._key = key
        self._verifier = NoteVerifier(key_name=key_name, public_key=key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"NoteSigner(verifier_key={self._verifier.text!r})"

    @property
    def key_name(self) -> str:
        """The name in the note's signature line."""
        return self._verifier.key_name

    @property
    def verifier(self) -> NoteVerifier:
        """The public half, to hand to verifiers."""
        return self._verifier

    def sign_note(self, text: str) -> str:
        """Return the signed note whose text is `text`.

        Raises:
            InvalidInputError: The text does not end in a newline or holds control characters.
        """
        if not _is_note_text(text):
            raise InvalidInputError("the text of a note ends in a newline and holds no other control characters")
        signature = b64encode(self._verifier.key_hash + self._key.sign(text.encode())).decode()
        return f"{text}\n{_MARK}{self.key_name} {signature}\n"


def verified_text(note: str, verifiers: Sequence[NoteVerifier]) -> str:
    """Return the text of a note that at least one of `verifiers` signed.

    Signatures of unknown keys are ignored; a wrong signature of a known key refuses the note.

    Raises:
        UnverifiedError: The note is malformed, or no known key signed it, or a known key's signature is wrong.
    """
    if len(note) > NOTE_CHARS_MAX:
        raise UnverifiedError("the note is too long", code=_MALFORMED)
    body, separator, tail = note.rpartition("\n\n")
    text = body + "\n"
    if not separator or not _is_note_text(text):
        raise UnverifiedError("the note has no text followed by an empty line and signatures", code=_MALFORMED)
    known = {(verifier.key_name, verifier.key_hash): verifier for verifier in verifiers}
    signed = False
    for name, key_hash, signature in _signatures(tail):
        verifier = known.get((name, key_hash))
        if verifier is None:
            continue
        if not verifier.accepts(text, signature):
            raise UnverifiedError(f"the signature of {name} on the note is wrong", code="NOTE_SIGNATURE")
        signed = True
    if not signed:
        raise UnverifiedError("no known key signed the note", code="NOTE_UNSIGNED")
    return text


def _signatures(tail: str) -> list[tuple[str, bytes, bytes]]:
    lines = tail.split("\n")
    if len(lines) < 2 or lines.pop() or len(lines) > NOTE_SIGNATURES_MAX:
        raise UnverifiedError("the note's signature lines are malformed", code=_MALFORMED)
    return [_signature(line) for line in lines]


def _signature(line: str) -> tuple[str, bytes, bytes]:
    name, _, encoded = line.removeprefix(_MARK).partition(" ")
    try:
        raw = b64decode(encoded, validate=True)
    except ValueError:
        raw = b""
    if not line.startswith(_MARK) or not _is_key_name(name) or len(raw) <= _KEY_HASH_BYTES:
        raise UnverifiedError("a signature line of the note is malformed", code=_MALFORMED)
    return name, raw[:_KEY_HASH_BYTES], raw[_KEY_HASH_BYTES:]


def _is_key_name(name: str) -> bool:
    return bool(name) and "+" not in name and len(name.split()) == 1 and name == name.strip() and name.isprintable()


def _is_note_text(text: str) -> bool:
    return text.endswith("\n") and not any(character < " " and character != "\n" for character in text)
