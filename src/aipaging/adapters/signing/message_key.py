"""The key that signs notifications: Ed25519, in `notifications.pem`, made on first use, and used for nothing else.

Rotation: remove the file and restart. Receivers look the key up by `keyid` in the published key set, and find the new
one there; what was signed before and is still under way fails to verify once, and is retried under the new key.
"""

import hashlib
from base64 import urlsafe_b64encode
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from aipaging.adapters.signing.files import create_once, private_directory, read_private, unreadable_key


class MessageKey:
    """A `MessageSigner`."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self._x = urlsafe_b64encode(raw).rstrip(b"=").decode()
        members = f'{{"crv":"Ed25519","kty":"OKP","x":"{self._x}"}}'  # RFC 8037, appendix A.3
        self._key_id = urlsafe_b64encode(hashlib.sha256(members.encode()).digest()).rstrip(b"=").decode()

    @classmethod
    def open(cls, directory: Path) -> "MessageKey":
        """Return the key in a directory, making it on first use.

        Raises:
            AipagingError: The file is no such key, or others may read it.
        """
        private_directory(directory)
        path = directory / "notifications.pem"
        if not path.exists():
            pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            create_once(path, pem)
        try:
            private = load_pem_private_key(read_private(path), password=None)
        except ValueError as error:
            raise unreadable_key(path) from error
        if not isinstance(private, Ed25519PrivateKey):
            raise unreadable_key(path)
        return cls(private)

    @property
    def key_id(self) -> str:
        """RFC 7638 thumbprint of the public key."""
        return self._key_id

    def sign(self, message: bytes) -> bytes:
        """Return a signature."""
        return self._private.sign(message)

    def public_jwk(self) -> dict[str, str]:
        """Return the public key as a JWK (RFC 8037)."""
        return {"kty": "OKP", "crv": "Ed25519", "x": self._x, "kid": self._key_id, "alg": "EdDSA", "use": "sig"}
