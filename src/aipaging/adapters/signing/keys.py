"""The controller's own keys: ES256 for tokens, Ed25519 for checkpoints.

The directory holds `token-<number>.pem`, one per token key, and `checkpoint.pem`. The token key with the highest
number signs; every one that is present verifies. So a rotation is a new file, and a retirement is the removal
of an old one after the last token that it signed has expired. Keys are made on first use.
"""

import hashlib
import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from aipaging.adapters.signing.files import create_once, private_directory, read_private, remove, unreadable_key
from aipaging.core.foundation.errors import InvalidInputError, RefusedError

TOKEN_KEYS_MAX: Final = 16
"""More token keys than that are a retirement forgotten, and every one is a key to steal."""

_COORDINATE_BYTES: Final = 32
_TOKEN_FILE: Final = re.compile(r"token-(\d{4,})\.pem")

Jwks: TypeAlias = dict[str, list[dict[str, str]]]
"""A JWK Set (RFC 7517, 5) of public keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenKey:
    """A key that signs tokens; its private part is in no text form of it.

    Attributes:
        kid: RFC 7638 thumbprint of the public key.
        private: The P-256 key.
    """

    kid: str
    private: ec.EllipticCurvePrivateKey = field(repr=False)

    def public_jwk(self) -> dict[str, str]:
        """Return the public key as a JWK (RFC 7518, 6.2.1)."""
        return {**_thumbprint_members(self.private.public_key()), "kid": self.kid, "alg": "ES256", "use": "sig"}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStore:
    """The keys of one directory, as they were when it was opened.

    Attributes:
        directory: Where they lie.
        token_keys: Oldest first; the last one signs.
        checkpoint_key: Signs tree heads.
    """

    directory: Path
    token_keys: tuple[TokenKey, ...]
    checkpoint_key: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def open(cls, directory: Path) -> "KeyStore":
        """Return the keys in `directory`, making it and them on first use.

        Raises:
            AipagingError: A file is not a key of ours, cannot be read or written, or others may read it.
        """
        private_directory(directory)
        if not _token_files(directory):
            create_once(directory / "token-0001.pem", _pem(ec.generate_private_key(ec.SECP256R1())))
        checkpoint_path = directory / "checkpoint.pem"
        if not checkpoint_path.exists():
            create_once(checkpoint_path, _pem(Ed25519PrivateKey.generate()))
        checkpoint_key = _loaded(checkpoint_path)
        if not isinstance(checkpoint_key, Ed25519PrivateKey):
            raise unreadable_key(checkpoint_path)
        files = _token_files(directory)[-TOKEN_KEYS_MAX:]
        return cls(
            directory=directory,
            token_keys=tuple(_token_key(path) for path in files),
            checkpoint_key=checkpoint_key,
        )

    @property
    def signing_key(self) -> TokenKey:
        """The token key that signs: the newest."""
        return self.token_keys[-1]

    def jwks(self) -> Jwks:
        """Return the public token keys as a JWK Set."""
        return {"keys": [key.public_jwk() for key in self.token_keys]}

    def rotated(self) -> "KeyStore":
        """Return the store with one more token key, which signs from now on; the older ones still verify.

        Publish the new key set before signing with it: whoever holds the old set knows nothing of the new key.

        Raises:
            RefusedError: There are `TOKEN_KEYS_MAX` already.
            AipagingError: The directory cannot be written.
        """
        if len(_token_files(self.directory)) >= TOKEN_KEYS_MAX:
            raise RefusedError(
                f"there are {TOKEN_KEYS_MAX} token keys already: retire those that nobody needs",
                code="INCOMPATIBLE_STATE",
            )
        numbers = [_number(path) for path in _token_files(self.directory)]
        create_once(
            self.directory / f"token-{max(numbers, default=0) + 1:04d}.pem",
            _pem(ec.generate_private_key(ec.SECP256R1())),
        )
        return KeyStore.open(self.directory)

    def retired(self, kid: str) -> "KeyStore":
        """Return the store without a token key; what it signed is not accepted any more.

        Raises:
            InvalidInputError: There is no such key.
            RefusedError: It is the only one.
            AipagingError: The directory cannot be written.
        """
        paths = {_token_key(path).kid: path for path in _token_files(self.directory)}
        if kid not in paths:
            raise InvalidInputError(
                f"there is no token key {kid[:64]!r}: there are {', '.join(paths)}", code="NOT_FOUND", field="keyId"
            )
        if len(paths) == 1:
            raise RefusedError("it is the only token key: rotate first", code="INCOMPATIBLE_STATE", field="keyId")
        remove(paths[kid])
        remove(self.directory / f"{kid}.published")
        return KeyStore.open(self.directory)


def _token_files(directory: Path) -> list[Path]:
    return sorted((path for path in directory.iterdir() if _TOKEN_FILE.fullmatch(path.name)), key=_number)


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("token-"))


def _token_key(path: Path) -> TokenKey:
    private = _loaded(path)
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise unreadable_key(path)
    return TokenKey(kid=thumbprint(private.public_key()), private=private)


def thumbprint(public_key: ec.EllipticCurvePublicKey) -> str:
    """Return the RFC 7638 thumbprint of a P-256 key: a name for it that cannot be given to another key."""
    members = _thumbprint_members(public_key)
    text = ",".join(f'"{name}":"{members[name]}"' for name in sorted(members))
    return _base64url(hashlib.sha256(f"{{{text}}}".encode()).digest())


def _thumbprint_members(public_key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    numbers = public_key.public_numbers()
    return {
        "kty": "EC",
        "crv": "P-256",
        "x": _base64url(numbers.x.to_bytes(_COORDINATE_BYTES, "big")),
        "y": _base64url(numbers.y.to_bytes(_COORDINATE_BYTES, "big")),
    }


def _base64url(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _pem(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _loaded(path: Path) -> object:
    content = read_private(path)
    try:
        return load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The parser's own message may quote the file; the cause is dropped on purpose.
        raise unreadable_key(path) from None
