"""Public keys that others publish or an operator registers, and JWTs that are verified by them.

The algorithm is chosen by the key and by what the operator allows, never by the token (RFC 8725, 2.1): a symmetric
algorithm is in no list, so a public key never becomes a secret.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from aipaging.core.foundation.errors import InvalidInputError, UnverifiedError, Who

KEYS_MAX: Final = 64
"""More keys than any issuer has; every one is a key that opens."""

RSA_BITS_MIN: Final = 2048
"""RFC 7518, 3.3."""

JWT_CHARS_MAX: Final = 8192
"""Tokens of issuers with many roles have a few thousand characters; nobody makes us decode more."""

ASYMMETRIC: Final = frozenset({"ES256", "ES384", "EdDSA", "RS256", "PS256"})
"""Every algorithm that may be allowed."""

_OF_CURVE: Final = {"secp256r1": frozenset({"ES256"}), "secp384r1": frozenset({"ES384"})}
_PARSERS: Final[Mapping[str, Any]] = {"RSA": RSAAlgorithm, "EC": ECAlgorithm, "OKP": OKPAlgorithm}
_SIGNATURE_ONLY: Final[Any] = {
    "verify_signature": True,
    **{f"verify_{claim}": False for claim in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A key that verifies.

    Attributes:
        kid: Its name; "" if it has none.
        algorithms: With which it verifies.
        key: The key.
    """

    kid: str
    algorithms: frozenset[str]
    key: Any = field(repr=False)


def keys_of(raw: bytes, *, allowed: frozenset[str]) -> tuple[PublicKey, ...]:
    """Return the keys of a JWK Set, or of one public key in PEM, that fit an allowed algorithm; others are left out.

    Raises:
        InvalidInputError: It is neither, holds a private key, or holds no key that fits.
    """
    found = [_of_pem(raw)] if raw.lstrip().startswith(b"-----BEGIN") else [_of_jwk(jwk) for jwk in _jwks(raw)]
    keys = tuple(
        PublicKey(kid=key.kid, algorithms=key.algorithms & allowed, key=key.key)
        for key in found
        if key is not None and key.algorithms & allowed
    )
    if not keys:
        raise InvalidInputError(
            f"there is no public key for {', '.join(sorted(allowed))} in it", code="KEY_SET_INVALID"
        )
    return keys


def _jwks(raw: bytes) -> list[dict[str, Any]]:
    try:
        document = msgspec.json.decode(raw, type=dict[str, Any])
        keys = msgspec.convert(document.get("keys"), list[dict[str, Any]])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise InvalidInputError("it is neither a JWK Set nor a public key in PEM", code="KEY_SET_INVALID") from None
    if len(keys) > KEYS_MAX:
        raise InvalidInputError(f"it holds more than {KEYS_MAX} keys", code="KEY_SET_INVALID")
    if any("d" in jwk for jwk in keys):
        raise InvalidInputError("it holds a private key: publish public ones only", code="KEY_SET_INVALID")
    return keys


def _of_pem(raw: bytes) -> PublicKey | None:
    try:
        key = load_pem_public_key(raw)
    except (ValueError, UnsupportedAlgorithm):
        # The parser's own message may quote the file; the cause is dropped on purpose.
        raise InvalidInputError("the PEM holds no public key", code="KEY_SET_INVALID") from None
    algorithms = _algorithms(key)
    return PublicKey(kid="", algorithms=algorithms, key=key) if algorithms else None


def _of_jwk(jwk: Mapping[str, Any]) -> PublicKey | None:
    """Return the key of a JWK, or None if it is none that verifies signatures here."""
    parser = _PARSERS.get(str(jwk.get("kty")))
    if parser is None or jwk.get("use", "sig") != "sig":
        return None
    try:
        key = parser.from_jwk(dict(jwk))
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    algorithms = _algorithms(key)
    stated, kid = jwk.get("alg"), jwk.get("kid", "")
    if stated is not None:
        algorithms &= frozenset({str(stated)})
    return PublicKey(kid=kid, algorithms=algorithms, key=key) if isinstance(kid, str) else None


def _algorithms(key: object) -> frozenset[str]:
    if isinstance(key, rsa.RSAPublicKey):
        return frozenset({"RS256", "PS256"}) if key.key_size >= RSA_BITS_MIN else frozenset()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return _OF_CURVE.get(key.curve.name, frozenset())
    return frozenset({"EdDSA"}) if isinstance(key, ed25519.Ed25519PublicKey) else frozenset()


def header_of(token: str) -> Mapping[str, Any]:
    """Return the header of a compact JWT, which proves nothing.

    Raises:
        UnverifiedError: It is none, or too long, or its header asks for what is not done here.
    """
    if len(token) > JWT_CHARS_MAX:
        raise refused("TOKEN_MALFORMED", f"the token is longer than {JWT_CHARS_MAX} characters")
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.InvalidTokenError, ValueError, RecursionError):
        raise refused("TOKEN_MALFORMED", "the token is not a compact JWT") from None
    if "crit" in header or str(header.get("alg")) not in ASYMMETRIC:
        raise refused("TOKEN_ALGORITHM", f"the token is not signed with one of {', '.join(sorted(ASYMMETRIC))}")
    return header


def unproved_claim(token: str, claim: str) -> str:
    """Return a text claim of a token nobody has verified, or "": only to choose whose keys to hold against it."""
    if len(token) > JWT_CHARS_MAX:
        return ""
    try:
        value = jwt.decode(token, options={"verify_signature": False}).get(claim)
    except (jwt.InvalidTokenError, ValueError, RecursionError):
        return ""
    return value if isinstance(value, str) else ""


def key_for(header: Mapping[str, Any], keys: Sequence[PublicKey]) -> PublicKey | None:
    """Return the key that a header names; without a name, the only one that fits its algorithm."""
    kid, algorithm = header.get("kid"), header.get("alg")
    fitting = [key for key in keys if algorithm in key.algorithms and (kid is None or key.kid == kid)]
    if kid is not None and not fitting:
        # A key that was registered without a name answers to any.
        fitting = [key for key in keys if algorithm in key.algorithms and not key.kid]
    return fitting[0] if len(fitting) == 1 else None


def payload_of(token: str, header: Mapping[str, Any], key: PublicKey) -> Mapping[str, Any]:
    """Return the payload of a token whose signature is right.

    Raises:
        UnverifiedError: It is not.
    """
    try:
        return jwt.decode(token, key.key, algorithms=[str(header["alg"])], options=_SIGNATURE_ONLY)
    except jwt.InvalidSignatureError:
        raise refused("TOKEN_SIGNATURE", "the token's signature is wrong") from None
    except (jwt.InvalidTokenError, ValueError, RecursionError):
        raise refused("TOKEN_MALFORMED", "the token is not a compact JWT") from None


def refused(code: str, message: str) -> UnverifiedError:
    """Return the error for a token; it repeats nothing of the token."""
    return UnverifiedError(message, code=code, who=Who.CALLER)
