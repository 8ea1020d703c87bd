"""Signed envelopes: a compact JWS (RFC 7515) over the RFC 8785 bytes of the document, with ES256 or Ed25519.

The header holds `alg`, `typ` (`ai-envelope+jwt`: a compact JWS whose payload is a JSON object is a JWT, and the suffix
is the registered one) and `kid`, and nothing else. Rules (RFC 8725): the key decides about the algorithm, never the
header; the type is explicit, so no token or receipt passes for an envelope; `crit`, `jwk`, `jku` and `x5u` are refused
with every other member, for a key that comes with the signature proves nothing.

A domain's keys are a directory with `envelope-<number>.pem`, the highest number signs. A rotation is a new file, a new
key set published, and then signing. A retirement is the removal of a file: what the old key signed is accepted no more.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeAlias

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from jwt.algorithms import ECAlgorithm, OKPAlgorithm
from jwt.api_jws import PyJWS

from aipaging.adapters.signing.files import create_once, private_directory, read_private, unreadable_key
from aipaging.adapters.signing.keys import Jwks, TokenKey, thumbprint
from aipaging.core.envelope.document import DOCUMENT_BYTES_MAX, EnvelopeDocument, canonical_bytes, require_consistent
from aipaging.core.envelope.refusals import (
    EnvelopeAlgorithmError,
    EnvelopeKeyUnknownError,
    EnvelopeNotSignedError,
    EnvelopeSignatureError,
    EnvelopeTooLargeError,
)
from aipaging.core.envelope.trust import CheckedSignature, SignedEnvelope
from aipaging.core.foundation.errors import AipagingError, InvalidInputError, UnverifiedError, Who
from aipaging.core.foundation.names import DomainName

ENVELOPE_TYPE: Final = "ai-envelope+jwt"

SIGNED_BYTES_MAX: Final = DOCUMENT_BYTES_MAX * 4 // 3 + 1024
"""The document in base64url, its header (below 200 characters) and its signature (86)."""

HEADER_CHARS_MAX: Final = 512
"""Three members of ours are below 200 characters; nothing longer is decoded before the signature is checked."""

KEYS_MAX: Final = 16
"""Keys of one domain: more are retirements forgotten, and each one is a key to steal."""

ES256: Final = "ES256"
EDDSA: Final = "EdDSA"
ALGORITHMS: Final = (ES256, EDDSA)

PublicKey: TypeAlias = ec.EllipticCurvePublicKey | Ed25519PublicKey
PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | Ed25519PrivateKey

_FILE: Final = re.compile(r"envelope-(\d{4,})\.pem")
_BASE64URL: Final = re.compile(rb"[A-Za-z0-9_-]+")


class _Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    alg: str
    typ: str
    kid: str


_HEADER_DECODER: Final = msgspec.json.Decoder(_Header)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvelopeKey:
    """A key that signs envelopes; its private part is in no text form of it.

    Attributes:
        kid: RFC 7638 thumbprint of the public key.
        algorithm: ES256 for a P-256 key, EdDSA for an Ed25519 key.
        private: The key.
    """

    kid: str
    algorithm: str
    private: PrivateKey = field(repr=False)

    def public_jwk(self) -> dict[str, str]:
        """Return the public key as a JWK (RFC 7517)."""
        if isinstance(self.private, Ed25519PrivateKey):
            return {
                "kty": "OKP", "crv": "Ed25519", "x": _x_of(self.private.public_key()), "kid": self.kid, "alg": EDDSA,
                "use": "sig",
            }  # fmt: skip
        return TokenKey(kid=self.kid, private=self.private).public_jwk()


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvelopeKeys:
    """The envelope keys of one domain, oldest first; the last one signs."""

    directory: Path
    keys: tuple[EnvelopeKey, ...]

    @classmethod
    def open(cls, directory: Path, *, algorithm: str = ES256) -> "EnvelopeKeys":
        """Return the keys in `directory`; on first use it is made, with one key of the algorithm.

        Raises:
            AipagingError: A file is not a key of ours, cannot be read or written, or others may read it.
        """
        private_directory(directory)
        if not _files(directory):
            create_once(directory / "envelope-0001.pem", _new_pem(algorithm))
        return cls(directory=directory, keys=tuple(_key(path) for path in _files(directory)[-KEYS_MAX:]))

    def rotated(self, *, algorithm: str = ES256) -> "EnvelopeKeys":
        """Return the keys with one more, which signs from now on; the older ones stay in the key set.

        Raises:
            AipagingError: The directory cannot be written.
        """
        number = max((_number(path) for path in _files(self.directory)), default=0) + 1
        create_once(self.directory / f"envelope-{number:04d}.pem", _new_pem(algorithm))
        return EnvelopeKeys.open(self.directory)

    def jwks(self) -> Jwks:
        """Return the public keys as a JWK Set."""
        return {"keys": [key.public_jwk() for key in self.keys]}

    def signed(self, document: EnvelopeDocument) -> SignedEnvelope:
        """Return the envelope, signed with the newest key.

        Raises:
            InvalidInputError: The document contradicts itself, or is too long.
        """
        require_consistent(document)
        payload = canonical_bytes(document)
        if len(payload) > DOCUMENT_BYTES_MAX:
            raise InvalidInputError(f"the envelope has {len(payload)} bytes: at most {DOCUMENT_BYTES_MAX} are allowed")
        key = self.keys[-1]
        headers = {"typ": ENVELOPE_TYPE, "kid": key.kid}
        compact = PyJWS().encode(payload, key.private, algorithm=key.algorithm, headers=headers)
        return SignedEnvelope(raw=compact.encode())


class EnvelopeSignatures:
    """Checks signatures against the key sets of domains; make a new one when a set changes."""

    def __init__(self, key_sets: Mapping[DomainName, Jwks]) -> None:
        """Take the P-256 and Ed25519 keys of every set; those of other kinds are left out.

        Raises:
            UnverifiedError: A key of ours does not parse, or a set has too many.
        """
        self._keys: dict[str, list[tuple[DomainName, str, PublicKey]]] = {}
        for domain, jwks in key_sets.items():
            if len(jwks["keys"]) > KEYS_MAX:
                raise UnverifiedError(f"the key set of {domain} has more than {KEYS_MAX} keys", code="KEY_SET_INVALID")
            for jwk in jwks["keys"]:
                algorithm = _algorithm_of(jwk)
                if algorithm and jwk.get("use", "sig") == "sig":
                    key = _public_key(jwk, algorithm, domain)
                    self._keys.setdefault(jwk.get("kid", ""), []).append((domain, algorithm, key))

    def __repr__(self) -> str:
        return f"EnvelopeSignatures(kids={sorted(self._keys)!r})"

    def checked(self, signed: SignedEnvelope) -> CheckedSignature:
        """Return what the signature proves.

        A key identifier is a name that anybody may give: if several domains use it, the domains are those whose key
        does verify.

        Raises:
            EnvelopeRefusedError: One of its kinds, and nothing of the bytes.
        """
        if len(signed.raw) > SIGNED_BYTES_MAX:
            raise EnvelopeTooLargeError(f"a signed envelope has at most {SIGNED_BYTES_MAX} bytes")
        header = _header_of(signed.raw)
        candidates = self._keys.get(header.kid, [])
        if not candidates:
            raise EnvelopeKeyUnknownError("the envelope names a key that is in no key set that is trusted here")
        fitting = [(domain, key) for domain, algorithm, key in candidates if algorithm == header.alg]
        if not fitting:
            raise EnvelopeAlgorithmError("the envelope's algorithm is not that of the key that it names")
        payloads = {domain: _payload(signed.raw, key, header.alg) for domain, key in fitting}
        verified = {domain: payload for domain, payload in payloads.items() if payload is not None}
        if not verified:
            raise EnvelopeSignatureError("the envelope's signature is wrong")
        return CheckedSignature(payload=next(iter(verified.values())), key_id=header.kid, signers=frozenset(verified))


def key_set_from(raw: bytes) -> Jwks:
    """Return the JWK Set in `raw`.

    Raises:
        InvalidInputError: It is none.
    """
    try:
        keys = msgspec.json.decode(raw, type=dict[str, list[dict[str, Any]]])["keys"]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError):
        raise InvalidInputError('a key set is {"keys": [{...}, ...]} (RFC 7517)', code="KEY_SET_INVALID") from None
    return {"keys": [{name: value for name, value in key.items() if isinstance(value, str)} for key in keys]}


def unverified_payload(signed: SignedEnvelope) -> bytes:
    """Return the payload without any check of the signature: for showing, never for using.

    Raises:
        EnvelopeRefusedError: The bytes are not a signed envelope.
    """
    if len(signed.raw) > SIGNED_BYTES_MAX:
        raise EnvelopeTooLargeError(f"a signed envelope has at most {SIGNED_BYTES_MAX} bytes")
    _header_of(signed.raw)
    return _decoded(signed.raw.split(b".")[1])


def _header_of(raw: bytes) -> _Header:
    segments = raw.split(b".")
    if len(segments) != 3 or len(segments[0]) > HEADER_CHARS_MAX or not all(map(_BASE64URL.fullmatch, segments)):
        raise EnvelopeNotSignedError("the bytes are not a compact JWS")
    try:
        header = _HEADER_DECODER.decode(_decoded(segments[0]))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise EnvelopeNotSignedError("the header does not hold exactly alg, typ and kid") from None
    if header.typ != ENVELOPE_TYPE:
        raise EnvelopeNotSignedError(f"what is signed is not of the type {ENVELOPE_TYPE}")
    if header.alg not in ALGORITHMS:
        raise EnvelopeAlgorithmError(f"envelopes are signed with {' or '.join(ALGORITHMS)}, this one is not")
    return header


def _decoded(segment: bytes) -> bytes:
    try:
        return urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    except ValueError:
        raise EnvelopeNotSignedError("the bytes are not a compact JWS") from None


def _payload(raw: bytes, key: PublicKey, algorithm: str) -> bytes | None:
    try:
        payload: bytes = PyJWS().decode(raw, key, algorithms=[algorithm])
    except jwt.InvalidTokenError:
        return None
    return payload


def _algorithm_of(jwk: Mapping[str, str]) -> str:
    kind = (jwk.get("kty", ""), jwk.get("crv", ""))
    algorithm = {("EC", "P-256"): ES256, ("OKP", "Ed25519"): EDDSA}.get(kind, "")
    return algorithm if jwk.get("alg", algorithm) == algorithm else ""


def _public_key(jwk: Mapping[str, str], algorithm: str, domain: str) -> PublicKey:
    try:
        key = (ECAlgorithm if algorithm == ES256 else OKPAlgorithm).from_jwk(dict(jwk))
    except (jwt.InvalidKeyError, ValueError):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey | Ed25519PublicKey):
        # A private key in a published set has leaked: it is refused like any other that is not public.
        raise UnverifiedError(
            f"key {jwk.get('kid', '')[:64]!r} in the key set of {domain} is not a public key", code="KEY_SET_INVALID"
        )
    return key


def _files(directory: Path) -> list[Path]:
    return sorted((path for path in directory.iterdir() if _FILE.fullmatch(path.name)), key=_number)


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("envelope-"))


def _new_pem(algorithm: str) -> bytes:
    if algorithm not in ALGORITHMS:
        raise AipagingError(f"there is no algorithm {algorithm}", code="INTERNAL", who=Who.BUG)
    key = ec.generate_private_key(ec.SECP256R1()) if algorithm == ES256 else Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _key(path: Path) -> EnvelopeKey:
    content = read_private(path)
    try:
        private = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The parser's own message may quote the file; the cause is dropped on purpose.
        raise unreadable_key(path) from None
    if isinstance(private, Ed25519PrivateKey):
        members = f'{{"crv":"Ed25519","kty":"OKP","x":"{_x_of(private.public_key())}"}}'
        return EnvelopeKey(kid=_base64url(sha256(members.encode()).digest()), algorithm=EDDSA, private=private)
    if isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(private.curve, ec.SECP256R1):
        return EnvelopeKey(kid=thumbprint(private.public_key()), algorithm=ES256, private=private)
    raise unreadable_key(path)


def _x_of(public: Ed25519PublicKey) -> str:
    return _base64url(public.public_bytes(Encoding.Raw, PublicFormat.Raw))


def _base64url(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
