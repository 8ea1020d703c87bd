"""The authorization server: client credentials in, access tokens out; tokens taken back and looked into.

Sources: RFC 6749 (4.4, 5), RFC 7009, RFC 7523, RFC 7662, RFC 9068. Nobody else is ever acted for: there is no user,
no redirect and no refresh token.
"""

import secrets
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol
from urllib.parse import parse_qsl, unquote_plus

from aipaging.adapters.northbound.oauth.clients import Clients, RegisteredClient
from aipaging.adapters.northbound.oauth.failures import Failures
from aipaging.adapters.northbound.oauth.public_keys import unproved_claim
from aipaging.adapters.northbound.oauth.revocations import Revocations
from aipaging.core.foundation.errors import RefusedError, UnverifiedError
from aipaging.core.foundation.time import SECOND, WallUs
from aipaging.core.identity.claims import AccessClaims

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

FORM_FIELDS_MAX: Final = 12
"""No request has more than six."""

TOKEN_ID_BYTES: Final = 16


class OAuthError(RefusedError):
    """A refusal in the words of OAuth2.

    Attributes:
        error: As RFC 6749, 5.2, has it.
        status: HTTP status.
    """

    def __init__(self, error: str, message: str) -> None:
        code = "UNAUTHENTICATED" if error == "invalid_client" else "INVALID_ARGUMENT"
        super().__init__(message, code=code)
        self.error = error
        self.status = 401 if error == "invalid_client" else 400


class AccessTokens(Protocol):
    """Verifies access tokens; see `adapters.signing`."""

    @property
    def generation(self) -> int:
        """How often the keys have changed."""
        ...

    def verify_access(self, token: str) -> AccessClaims:
        """Return the claims of a token that is ours and not expired."""
        ...


class AccessSigner(Protocol):
    """Signs access tokens."""

    def sign_access(self, claims: AccessClaims) -> str:
        """Return the token."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """An access token and what it is good for."""

    token: str = field(repr=False)
    expires_in_s: int
    scope: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """A form that came in, who sent it, and the `authorization` header beside it."""

    form: Mapping[str, str] = field(repr=False)
    authorization: str = field(repr=False)
    address: str


def form_of(raw: bytes) -> dict[str, str]:
    """Return the fields of a form.

    Raises:
        OAuthError: It is malformed, or a field stands twice (RFC 6749, 3.2).
    """
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, strict_parsing=bool(raw), max_num_fields=FORM_FIELDS_MAX
        )
    except ValueError:
        raise OAuthError("invalid_request", "the body is not a form: name=value&name=value is expected") from None
    found = dict(pairs)
    if len(found) != len(pairs):
        raise OAuthError("invalid_request", "a field of the form stands twice")
    return {name: value for name, value in found.items() if value}


def token_of(request: TokenRequest) -> str:
    """Return the token that a request is about.

    Raises:
        OAuthError: It names none: a slip in the field's name must not look like a token that is taken back.
    """
    token = request.form.get("token")
    if token is None:
        raise OAuthError("invalid_request", "the form names no token: token=... is expected")
    return token


class Issuer:
    """Grants, takes back and explains access tokens."""

    def __init__(
        self,
        clients: Clients,
        signer: AccessSigner,
        tokens: AccessTokens,
        revocations: Revocations,
        *,
        clock: Callable[[], WallUs],
        token_s: int,
    ) -> None:
        self._clients = clients
        self._signer = signer
        self._tokens = tokens
        self._revocations = revocations
        self._clock = clock
        self._token_s = token_s
        self._failures = Failures(clock)

    def granted(self, request: TokenRequest, admit: Callable[[RegisteredClient], None]) -> Grant:
        """Return a token by client credentials.

        Args:
            request: What came in.
            admit: Refuses a client that asks too often; called when it has proved itself, before anything is signed.

        Raises:
            OAuthError: The client is not who it says, or asks for what it may not have.
            RefusedError: Too many failures, or as `admit`.
        """
        if request.form.get("grant_type") != "client_credentials":
            error = "unsupported_grant_type" if "grant_type" in request.form else "invalid_request"
            raise OAuthError(error, "grant_type must be client_credentials")
        client = self.client_of(request)
        admit(client)
        scopes = self._scopes(client, request.form.get("scope"))
        now_us = self._clock()
        claims = AccessClaims(
            client=client.client,
            scopes=scopes,
            token_id=secrets.token_urlsafe(TOKEN_ID_BYTES),
            issued_us=WallUs(max(now_us, self._revocations.good_from_us(client.client))),
            expires_us=WallUs(now_us + self._token_s * SECOND),
        )
        return Grant(token=self._signer.sign_access(claims), expires_in_s=self._token_s, scope=" ".join(sorted(scopes)))

    async def take_back(self, request: TokenRequest, admit: Callable[[RegisteredClient], None]) -> None:
        """Take a token back (RFC 7009); one that is none, or not good any more, is taken back already.

        Args:
            request: What came in.
            admit: Refuses a client that asks too often; called when it has proved itself.

        Raises:
            OAuthError: No token is named, the client is not who it says, or the token is another's.
            RefusedError: Too many failures, or as `admit`.
        """
        token = token_of(request)
        client = self.client_of(request)
        admit(client)
        claims = self._good(token)
        if claims is None:
            return
        if claims.client != client.client:
            raise OAuthError("unauthorized_client", "the token was issued to another client")
        await self._revocations.take_back_token(claims)

    def looked_into(self, token: str, asker: str | None) -> AccessClaims | None:
        """Return what a token says, or None if it is not good, or not the asker's business (RFC 7662).

        Args:
            token: The token.
            asker: The client that asks; None for who may look into all.
        """
        claims = self._good(token)
        return claims if claims is not None and asker in {None, claims.client} else None

    def client_of(self, request: TokenRequest) -> RegisteredClient:
        """Return the client that a request proves; one way of proving, never two.

        Raises:
            OAuthError: It proves none.
            RefusedError: It has failed too often.
        """
        form = request.form
        ways = [way for way in (request.authorization, form.get("client_secret"), form.get("client_assertion")) if way]
        if len(ways) > 1:
            raise OAuthError("invalid_request", "the client proves itself in two ways: choose one")
        try:
            client = self._proved(request)
        except UnverifiedError as error:
            self._failures.note(request.address, _claimed(request))
            raise OAuthError("invalid_client", error.message) from None
        if client is None or self._revocations.covers_client(client.client):
            self._failures.note(request.address, _claimed(request))
            raise OAuthError(
                "invalid_client",
                "no such client, or not its secret: prove the client by client_secret_basic, client_secret_post or "
                "private_key_jwt",
            )
        return client

    def _proved(self, request: TokenRequest) -> RegisteredClient | None:
        form = request.form
        if "client_assertion" in form:
            if form.get("client_assertion_type") != ASSERTION_TYPE:
                raise OAuthError("invalid_request", f"client_assertion_type must be {ASSERTION_TYPE}")
            assertion = form["client_assertion"]
            claimed = unproved_claim(assertion, "sub")
            if form.get("client_id", claimed) != claimed:
                raise OAuthError("invalid_request", "client_id is not the sub of the assertion")
            return self._clients.by_assertion(assertion, claimed)
        if request.authorization:
            name, secret = _basic(request.authorization)
            if form.get("client_id", name) != name:
                raise OAuthError("invalid_request", "client_id is not the client of the authorization header")
            return self._clients.by_secret(name, secret)
        return self._clients.by_secret(form.get("client_id", ""), form.get("client_secret", ""))

    def _scopes(self, client: RegisteredClient, asked: str | None) -> frozenset[str]:
        scopes = frozenset(asked.split()) if asked else client.scopes
        beyond = scopes - client.scopes
        if beyond:
            raise OAuthError("invalid_scope", f"the client may have {' '.join(sorted(client.scopes))}, and no other")
        return scopes

    def _good(self, token: str) -> AccessClaims | None:
        try:
            claims = self._tokens.verify_access(token)
        except UnverifiedError:
            return None
        good = self._clients.known(claims.client) is not None and not self._revocations.covers(claims)
        return claims if good else None


def _basic(authorization: str) -> tuple[str, str]:
    """Return client id and secret of an `authorization` header (RFC 6749, 2.3.1)."""
    scheme, _, encoded = authorization.partition(" ")
    try:
        pair = b64decode(encoded.strip(), validate=True).decode()
    except (Base64Error, ValueError):
        pair = ""
    name, colon, secret = pair.partition(":")
    if scheme.lower() != "basic" or not colon:
        raise OAuthError("invalid_client", "authorization: Basic <client_id:secret, each form-encoded> is expected")
    return unquote_plus(name), unquote_plus(secret)


def _claimed(request: TokenRequest) -> str:
    return request.form.get("client_id", "")
