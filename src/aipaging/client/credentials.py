"""How a client proves who it is: a bearer secret, or access tokens of an OAuth2 authorization server.

`ClientSecret` and `PrivateKey` are the client-credentials grant (RFC 6749, section 4.4) with the secret in the header
(section 2.3.1) or a signed assertion (RFC 7523). A token is used until shortly before it expires, then replaced.
"""

import secrets
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol
from urllib.parse import quote

import msgspec

from aipaging.client.calls import Call, Flow, Received, error_of
from aipaging.core.foundation.errors import UnavailableError

TOKEN_PATH: Final = "//oauth2/token"  # noqa: S105 - a path, not a secret

EARLY_S: Final = 30.0
"""A token is replaced so long before it expires: no call is under way longer."""

ASSERTION_S: Final = 60
"""How long a signed assertion is good for: long enough for two clocks that are not quite together."""

_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class Credential(Protocol):
    """What a client proves itself with."""

    def bearer(self, now_s: float) -> str | None:
        """Return the bearer credential, or None if a new one must be fetched first."""
        ...

    def fetch(self, now_s: float) -> Flow[None]:
        """Fetch a new one."""
        ...


@dataclass(frozen=True, slots=True)
class BearerSecret:
    """A secret that is the bearer credential itself."""

    secret: str = field(repr=False)

    def bearer(self, now_s: float) -> str:  # noqa: ARG002 - it never expires
        """Return the secret."""
        return self.secret

    def fetch(self, now_s: float) -> Flow[None]:  # noqa: ARG002
        """Do nothing: there is nothing to fetch."""
        yield from ()


class _TokenAnswer(msgspec.Struct, frozen=True, kw_only=True):
    access_token: str
    expires_in: float = 300.0


@dataclass(slots=True)
class _Tokens:
    """The access token that is held, and until when."""

    token: str = field(default="", repr=False)
    until_s: float = 0.0

    def bearer(self, now_s: float) -> str | None:
        return self.token if self.token and now_s < self.until_s else None

    def take(self, received: Received, now_s: float) -> None:
        if received.status >= 400:
            raise error_of(received)
        try:
            answer = msgspec.json.decode(received.content, type=_TokenAnswer)
        except msgspec.MsgspecError as error:
            raise UnavailableError(f"the token endpoint answered no token: {error}", code="ANSWER_MALFORMED") from None
        self.token = answer.access_token
        self.until_s = now_s + max(0.0, answer.expires_in - min(EARLY_S, answer.expires_in / 2))


@dataclass(slots=True)
class ClientSecret:
    """Client credentials with a secret (`client_secret_basic`)."""

    client_id: str
    secret: str = field(repr=False)
    scope: str = ""
    _tokens: _Tokens = field(default_factory=_Tokens, repr=False)

    def bearer(self, now_s: float) -> str | None:
        """See `Credential.bearer`."""
        return self._tokens.bearer(now_s)

    def fetch(self, now_s: float) -> Flow[None]:
        """See `Credential.fetch`.

        Raises:
            RefusedError: The authorization server does not know the client or the secret.
        """
        form = {"grant_type": "client_credentials"} | ({"scope": self.scope} if self.scope else {})
        pair = f"{quote(self.client_id, safe='')}:{quote(self.secret, safe='')}"
        call = _TokenCall(
            method="POST", path=TOKEN_PATH, form=form, authenticated=False, basic=b64encode(pair.encode()).decode()
        )
        self._tokens.take((yield call), now_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class _TokenCall(Call):
    basic: str = field(default="", repr=False)

    def headers(self, bearer: str) -> dict[str, str]:
        """Return the headers, the client's credential among them."""
        return Call.headers(self, bearer) | ({"authorization": f"Basic {self.basic}"} if self.basic else {})


class _SignedForm(Mapping[str, str]):
    """A form with an assertion that is signed whenever it is sent: each is good once, and a lost answer uses it up."""

    def __init__(self, fixed: Mapping[str, str], sign: Callable[[], str]) -> None:
        self._fixed = fixed
        self._sign = sign

    def __getitem__(self, name: str) -> str:
        return self._sign() if name == "client_assertion" else self._fixed[name]

    def __iter__(self) -> Iterator[str]:
        return iter((*self._fixed, "client_assertion"))

    def __len__(self) -> int:
        return len(self._fixed) + 1


@dataclass(slots=True)
class PrivateKey:
    """Client credentials with a key pair (`private_key_jwt`): nothing secret travels.

    Attributes:
        client_id: Who it is.
        private_pem: PEM of a P-256 or Ed25519 private key.
        audience: The issuer, or its token endpoint, as the server's metadata says.
        key_id: `kid` of the public key as the operator registered it; "" if there is only one.
        scope: Scopes to ask for, separated by blanks; "" for all.
        wall_clock: Seconds since 1970.
    """

    client_id: str
    private_pem: str = field(repr=False)
    audience: str
    key_id: str = ""
    scope: str = ""
    wall_clock: Callable[[], float] = time.time
    _tokens: _Tokens = field(default_factory=_Tokens, repr=False)

    def bearer(self, now_s: float) -> str | None:
        """See `Credential.bearer`."""
        return self._tokens.bearer(now_s)

    def fetch(self, now_s: float) -> Flow[None]:
        """See `Credential.fetch`.

        Raises:
            RefusedError: The authorization server does not know the client or the key.
        """
        fixed = {"grant_type": "client_credentials", "client_assertion_type": _ASSERTION_TYPE}
        form = _SignedForm(fixed | ({"scope": self.scope} if self.scope else {}), self._assertion)
        self._tokens.take((yield Call(method="POST", path=TOKEN_PATH, form=form, authenticated=False)), now_s)

    def _assertion(self) -> str:
        import jwt  # noqa: PLC0415 - only who signs needs it
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
        from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

        key = load_pem_private_key(self.private_pem.encode(), password=None)
        issued_s = int(self.wall_clock())
        claims = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": self.audience,
            "iat": issued_s,
            "exp": issued_s + ASSERTION_S,
            "jti": secrets.token_urlsafe(16),
        }
        algorithm = "EdDSA" if isinstance(key, Ed25519PrivateKey) else "ES256"
        headers = {"kid": self.key_id} if self.key_id else None
        return jwt.encode(claims, self.private_pem, algorithm=algorithm, headers=headers)
