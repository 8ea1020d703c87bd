"""AIST and COMMIT receipt as JWTs, signed and verified with ES256 only.

Rules that hold here (RFC 8725): the algorithm is ours to choose, never the token's; each kind has its own `typ`, so
neither passes for the other; every claim is checked for presence, type and grammar before it becomes part of a
claims object; no message repeats anything of a token. Times: `iat` rounds down and `exp` rounds *up* to the whole
second, because a session must not lose its token before its end, and steering ends with the COMMIT, not with it.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeVar

import jwt
import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from jwt.algorithms import ECAlgorithm

from aipaging.adapters.signing.keys import Jwks, TokenKey
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import InvalidInputError, UnverifiedError, Who
from aipaging.core.foundation.names import (
    AnchorId,
    ClientId,
    TenantId,
    checked_name,
    service_uri,
    session_id,
)
from aipaging.core.foundation.time import SECOND, WallUs
from aipaging.core.identity.claims import (
    ACCESS_AUDIENCE,
    AIST_AUDIENCE,
    AIST_SCOPE,
    AIST_TYPE,
    COMMIT_TYPE,
    AccessClaims,
    AistClaims,
    CommitClaims,
)

TOKEN_CHARS_MAX: Final = 4096
"""Our tokens are below 1,000 characters; nobody makes us decode more before the signature is checked."""

CLAIM_CHARS_MAX: Final = 256
"""No claim of ours is longer."""

SCOPE_CHARS_MAX: Final = 2048
"""All scopes that there are, with blanks between, have below 700."""

REMARK_CHARS_MAX: Final = 1_280
"""Sixteen digests with commas between have 1,039."""

KNOWN_HEADERS_MAX: Final = 64
"""Two types of token for every key of a set, twice over."""

ALGORITHM: Final = "ES256"

CONFIRMATION: Final = "x5t#S256"
"""The one member of `cnf` that is known here (RFC 8705, 3.1)."""

_THUMBPRINT: Final = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")
"""32 bytes in base64url, whose last character carries four bits: of each digest there is one spelling."""

RECEIPTS_KEPT: Final = 1024
"""A page's receipt goes to the gateway and into the answer: signed once, it must be remembered for that long."""

_COORDINATE_BYTES: Final = 32
"""Of each half of an ES256 signature (RFC 7518, 3.4)."""

_HASHED: Final = ec.ECDSA(hashes.SHA256())
_JSON: Final = msgspec.json.Encoder().encode


class SigningKeys(Protocol):
    """Where the key comes from: a `KeyStore`, or a `TokenKeyRing` that follows one."""

    @property
    def signing_key(self) -> TokenKey:
        """The key that signs now."""
        ...


class JwtSigner:
    """A `TokenSigner` over the key that signs now."""

    def __init__(self, keys: SigningKeys, issuer: str) -> None:
        self._keys = keys
        self._issuer = issuer
        self._heads: dict[tuple[str, str], bytes] = {}
        self._receipts: dict[tuple[str, CommitClaims], str] = {}

    def __repr__(self) -> str:
        return f"JwtSigner(kid={self._keys.signing_key.kid!r}, issuer={self._issuer!r})"

    def sign_aist(self, claims: AistClaims) -> str:
        """Return the AIST as a compact JWT (RFC 9068)."""
        bound = {"cnf": {CONFIRMATION: _thumbprint(claims.certificate)}} if claims.certificate else {}
        return self._signed(
            AIST_TYPE,
            {
                "iss": self._issuer,
                "sub": f"{claims.tenant}/{claims.client}",
                "aud": AIST_AUDIENCE,
                "iat": claims.issued_us // SECOND,
                "exp": _second_after(claims.expires_us),
                "jti": claims.token_id,
                "client_id": claims.client,
                "scope": AIST_SCOPE,
                "sid": claims.session,
                "aisi": claims.aisi,
                **bound,
            },
        )

    def sign_access(self, claims: AccessClaims) -> str:
        """Return an access token for the controller's interface as a compact JWT (RFC 9068)."""
        return self._signed(
            AIST_TYPE,
            {
                "iss": self._issuer,
                "sub": claims.client,
                "aud": ACCESS_AUDIENCE,
                "iat": claims.issued_us // SECOND,
                "exp": _second_after(claims.expires_us),
                "jti": claims.token_id,
                "client_id": claims.client,
                "scope": " ".join(sorted(claims.scopes)),
            },
        )

    def sign_commit(self, claims: CommitClaims) -> str:
        """Return the COMMIT receipt as a compact JWS; the same claims, a moment later, give the same receipt."""
        known = (self._keys.signing_key.kid, claims)
        receipt = self._receipts.get(known)
        if receipt is None:
            if len(self._receipts) >= RECEIPTS_KEPT:
                self._receipts.pop(next(iter(self._receipts)))
            receipt = self._receipts[known] = self._signed_commit(claims)
        return receipt

    def _signed_commit(self, claims: CommitClaims) -> str:
        return self._signed(
            COMMIT_TYPE,
            {
                "iss": self._issuer,
                "sub": claims.session,
                "jti": claims.commit_id,
                "iat": claims.issued_us // SECOND,
                "exp": _second_after(claims.expires_us),
                "aisi": claims.aisi,
                "anchor": claims.anchor,
                "term": claims.epoch.term,
                "n": claims.epoch.n,
                "lease_ms": claims.lease_ms,
                "tenant": claims.tenant,
                "rate_mrps": claims.rate_mrps,
                "burst": claims.burst,
                "aist_jti_sha256": claims.token_id_sha256,
                "delay_us": claims.delay_us,
                "epsilon": claims.epsilon,
                "epsilon_bound": claims.epsilon_bound,
                "rung": claims.rung,
                "assumptions": claims.assumptions,
                "envelopes": claims.envelopes,
            },
        )

    def _signed(self, token_type: str, payload: Mapping[str, object]) -> str:
        """Return a compact JWS (RFC 7515, 7.1); signing is most of its cost, and nothing else should be."""
        key = self._keys.signing_key
        head = self._heads.get((token_type, key.kid))
        if head is None:
            head = _encoded(_JSON({"alg": ALGORITHM, "kid": key.kid, "typ": token_type}))
            self._heads[token_type, key.kid] = head
        signed = head + b"." + _encoded(_JSON(payload))
        r, s = decode_dss_signature(key.private.sign(signed, _HASHED))
        signature = r.to_bytes(_COORDINATE_BYTES, "big") + s.to_bytes(_COORDINATE_BYTES, "big")
        return (signed + b"." + _encoded(signature)).decode("ascii")


def _thumbprint(certificate: str) -> str:
    """Return a hex digest as `x5t#S256` has it."""
    return _encoded(bytes.fromhex(certificate)).decode("ascii")


def _certificate(payload: Mapping[str, Any]) -> str:
    """Return the hex digest of the certificate that a token is bound to, or "" where it is bound to nothing.

    A binding that is not understood is none that could be left out: the token is refused.
    """
    if "cnf" not in payload:
        return ""
    bound = payload["cnf"]
    said = bound.get(CONFIRMATION) if isinstance(bound, dict) and len(bound) == 1 else None
    if not isinstance(said, str) or _THUMBPRINT.fullmatch(said) is None:
        raise InvalidInputError("not a certificate's thumbprint", field="cnf")
    return urlsafe_b64decode(said + "=").hex()


def _encoded(raw: bytes) -> bytes:
    """Return base64url without padding (RFC 7515, 2)."""
    return urlsafe_b64encode(raw).rstrip(b"=")


class JwtVerifier:
    """A `TokenVerifier` over a fixed key set; make a new one when the set changes."""

    def __init__(self, jwks: Jwks, issuer: str, clock: Callable[[], WallUs]) -> None:
        """Take the ES256 keys of a JWK Set.

        Args:
            jwks: Public keys; those of other kinds are left out.
            issuer: The one issuer that is accepted.
            clock: The wall clock that `exp` is held against.

        Raises:
            UnverifiedError: A key of ours does not parse.
        """
        self._keys = {jwk.get("kid", ""): _public_key(jwk) for jwk in jwks["keys"] if jwk.get("alg") == ALGORITHM}
        self._issuer = issuer
        self._clock = clock
        # Headers of tokens that verified: ours repeat letter by letter, and parsing one costs a third of a check.
        self._known_headers: dict[tuple[str, str], ec.EllipticCurvePublicKey] = {}

    def __repr__(self) -> str:
        return f"JwtVerifier(kids={sorted(self._keys)!r}, issuer={self._issuer!r})"

    def verify_aist(self, token: str) -> AistClaims:
        """Return the claims of an AIST that is whole, ours and not expired.

        `iat` in the future is not judged: after a backward step of the clock our own fresh tokens would fail.

        Raises:
            UnverifiedError: With a code that says which check failed, and nothing of the token.
        """
        payload = self._payload(token, AIST_TYPE)
        if payload.get("aud") != AIST_AUDIENCE:
            raise _refused("TOKEN_AUDIENCE", f"the token is not for the audience {AIST_AUDIENCE}")
        if payload.get("scope") != AIST_SCOPE:
            raise _refused("TOKEN_SCOPE", f"the token does not have exactly the scope {AIST_SCOPE}")
        claims = _checked(_aist_claims, payload)
        if self._clock() >= claims.expires_us:
            raise _refused("TOKEN_EXPIRED", "the token has expired; page again for a new session")
        return claims

    def verify_access(self, token: str) -> AccessClaims:
        """Return the claims of an access token that is whole, ours and not expired.

        Raises:
            UnverifiedError: With a code that says which check failed, and nothing of the token.
        """
        payload = self._payload(token, AIST_TYPE)
        if payload.get("aud") != ACCESS_AUDIENCE:
            raise _refused("TOKEN_AUDIENCE", f"the token is not for the audience {ACCESS_AUDIENCE}")
        claims = _checked(_access_claims, payload)
        if self._clock() >= claims.expires_us:
            raise _refused("TOKEN_EXPIRED", "the token has expired; fetch a new one")
        return claims

    def verify_commit(self, token: str) -> CommitClaims:
        """Return the claims of a COMMIT receipt that is whole and ours; its `exp` is not judged.

        Raises:
            UnverifiedError: With a code that says which check failed, and nothing of the receipt.
        """
        return _checked(_commit_claims, self._payload(token, COMMIT_TYPE))

    def _payload(self, token: str, token_type: str) -> Mapping[str, Any]:
        if len(token) > TOKEN_CHARS_MAX:
            raise _refused("TOKEN_MALFORMED", f"the token is longer than {TOKEN_CHARS_MAX} characters")
        known = (token_type, token.partition(".")[0])
        key = self._known_headers.get(known) or self._key_for(token, token_type)
        try:
            # Times, audience and issuer are judged by us: against our clock, with our types, with our codes.
            payload = jwt.decode(token, key, algorithms=[ALGORITHM], options=_SIGNATURE_ONLY)
        except jwt.InvalidSignatureError:
            raise _refused("TOKEN_SIGNATURE", "the token's signature is wrong") from None
        except jwt.InvalidTokenError:
            raise _refused("TOKEN_MALFORMED", "the token is not a compact JWT") from None
        if payload.get("iss") != self._issuer:
            raise _refused("TOKEN_ISSUER", "the token was issued by somebody else")
        if len(self._known_headers) < KNOWN_HEADERS_MAX:
            self._known_headers[known] = key
        return payload

    def _key_for(self, token: str, token_type: str) -> ec.EllipticCurvePublicKey:
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.InvalidTokenError, ValueError):
            raise _refused("TOKEN_MALFORMED", "the token is not a compact JWT") from None
        if header.get("alg") != ALGORITHM or "crit" in header:
            raise _refused("TOKEN_ALGORITHM", f"the token is not signed with plain {ALGORITHM}")
        if header.get("typ") != token_type:
            raise _refused("TOKEN_TYPE", f"the token is not of the type {token_type}")
        key = self._keys.get(header.get("kid", ""))
        if key is None:
            raise _refused("TOKEN_KEY_UNKNOWN", "the token names a key that is not in the key set")
        return key


_SIGNATURE_ONLY: Final[Any] = {
    "verify_signature": True,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}


def _refused(code: str, message: str) -> UnverifiedError:
    return UnverifiedError(message, code=code, who=Who.CALLER)


def _second_after(instant_us: WallUs) -> int:
    return -(-instant_us // SECOND)


def _public_key(jwk: Mapping[str, str]) -> ec.EllipticCurvePublicKey:
    try:
        key = ECAlgorithm.from_jwk(dict(jwk))
    except (jwt.InvalidKeyError, ValueError):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UnverifiedError(
            f"key {jwk.get('kid', '')[:64]!r} of the key set is not a public P-256 key", code="KEY_SET_INVALID"
        )
    return key


_Claims = TypeVar("_Claims", AccessClaims, AistClaims, CommitClaims)


def _checked(read: Callable[[Mapping[str, Any]], _Claims], payload: Mapping[str, Any]) -> _Claims:
    try:
        return read(payload)
    except InvalidInputError as error:
        # The error of a name repeats the name: only the claim's own name goes further.
        raise UnverifiedError(
            f"the token's claim {error.field} is missing or malformed",
            code="TOKEN_CLAIMS",
            who=Who.CALLER,
            field=error.field,
        ) from None


def _aist_claims(payload: Mapping[str, Any]) -> AistClaims:
    tenant, _, client = _text(payload, "sub").partition("/")
    if _text(payload, "client_id") != client:
        raise InvalidInputError("client_id is not the client of sub", field="client_id")
    return AistClaims(
        session=session_id(_text(payload, "sid"), field="sid"),
        tenant=TenantId(checked_name(tenant, field="sub")),
        client=ClientId(checked_name(client, field="sub")),
        aisi=service_uri(_text(payload, "aisi"), field="aisi"),
        token_id=_text(payload, "jti"),
        issued_us=WallUs(_count(payload, "iat") * SECOND),
        expires_us=WallUs(_count(payload, "exp") * SECOND),
        certificate=_certificate(payload),
    )


def _access_claims(payload: Mapping[str, Any]) -> AccessClaims:
    client = _text(payload, "sub")
    if payload.get("client_id") != client:
        raise InvalidInputError("client_id is not sub", field="client_id")
    scope = payload.get("scope")
    if not isinstance(scope, str) or len(scope) > SCOPE_CHARS_MAX or not scope.isascii():
        raise InvalidInputError("not scopes with blanks between", field="scope")
    return AccessClaims(
        client=ClientId(checked_name(client, field="sub")),
        scopes=frozenset(scope.split()),
        token_id=_text(payload, "jti"),
        issued_us=WallUs(_count(payload, "iat") * SECOND),
        expires_us=WallUs(_count(payload, "exp") * SECOND),
    )


def _commit_claims(payload: Mapping[str, Any]) -> CommitClaims:
    return CommitClaims(
        session=session_id(_text(payload, "sub"), field="sub"),
        tenant=TenantId(checked_name(_text(payload, "tenant"), field="tenant")),
        aisi=service_uri(_text(payload, "aisi"), field="aisi"),
        anchor=AnchorId(checked_name(_text(payload, "anchor"), field="anchor")),
        epoch=Epoch(_count(payload, "term"), _count(payload, "n")),
        lease_ms=_count(payload, "lease_ms"),
        rate_mrps=_count(payload, "rate_mrps"),
        burst=_count(payload, "burst"),
        delay_us=_count(payload, "delay_us"),
        epsilon=_text(payload, "epsilon"),
        epsilon_bound=_text(payload, "epsilon_bound"),
        token_id_sha256=_text(payload, "aist_jti_sha256"),
        commit_id=_text(payload, "jti"),
        rung=_remark(payload, "rung"),
        assumptions=_remark(payload, "assumptions"),
        envelopes=_remark(payload, "envelopes"),
        issued_us=WallUs(_count(payload, "iat") * SECOND),
        expires_us=WallUs(_count(payload, "exp") * SECOND),
    )


def _text(payload: Mapping[str, Any], claim: str) -> str:
    value = payload.get(claim)
    if not isinstance(value, str) or not 0 < len(value) <= CLAIM_CHARS_MAX or not value.isascii():
        raise InvalidInputError("not a short ASCII string", field=claim)
    return value


def _remark(payload: Mapping[str, Any], claim: str) -> str:
    """Return what a receipt says about its bound; those of earlier controllers say nothing."""
    value = payload.get(claim, "")
    if not isinstance(value, str) or len(value) > REMARK_CHARS_MAX or not value.isascii():
        raise InvalidInputError("not ASCII text of a bound", field=claim)
    return value


def _count(payload: Mapping[str, Any], claim: str) -> int:
    value = payload.get(claim)
    if type(value) is not int or value < 0:
        raise InvalidInputError("not a non-negative integer", field=claim)
    return value
