"""Who asks: by an access token of ours, by one of another issuer, or by a static secret of the configuration.

What was verified is remembered by the SHA-256 of the token until it expires, so that a page costs a hash and a look-up
and not a signature. A change of keys, a revocation and a retired client empty or overrule that memory at once.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Protocol

from aipaging.adapters.northbound.credentials import Caller, StaticCredentials, bearer_of
from aipaging.adapters.northbound.oauth.clients import Clients
from aipaging.adapters.northbound.oauth.failures import Failures
from aipaging.adapters.northbound.oauth.issuer import AccessTokens
from aipaging.adapters.northbound.oauth.public_keys import JWT_CHARS_MAX, refused, unproved_claim
from aipaging.adapters.northbound.oauth.revocations import Revocations
from aipaging.core.foundation.errors import RefusedError, UnverifiedError
from aipaging.core.foundation.time import WallUs
from aipaging.core.identity.claims import AccessClaims

REMEMBERED_MAX: Final = 8192
"""Tokens remembered, about 4 MB; the one that came first is verified again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Who a foreign token is of, since when (0 if it does not say) and until when."""

    caller: Caller
    issued_us: WallUs
    expires_us: WallUs


class ForeignIssuer(Protocol):
    """Verifies tokens of one issuer that is elsewhere."""

    @property
    def issuer(self) -> str:
        """`iss` of its tokens."""
        ...

    async def known(self, token: str) -> Known:
        """Return who a token is of.

        Raises:
            UnverifiedError: It proves nothing.
            UnavailableError: The issuer's keys are not known.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remembered:
    caller: Caller
    expires_us: WallUs
    issued_us: WallUs
    claims: AccessClaims | None


class Doorkeeper:
    """An `Authenticator` for tokens and secrets."""

    def __init__(
        self,
        clients: Clients,
        tokens: AccessTokens,
        revocations: Revocations,
        *,
        static: StaticCredentials | None,
        foreign: Sequence[ForeignIssuer] = (),
        clock: Callable[[], WallUs],
    ) -> None:
        self._clients = clients
        self._tokens = tokens
        self._revocations = revocations
        self._static = static
        self._foreign = {issuer.issuer: issuer for issuer in foreign}
        self._clock = clock
        self._failures = Failures(clock)
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._generation = tokens.generation

    def __repr__(self) -> str:
        return f"Doorkeeper(static={self._static!r}, issuers={sorted(self._foreign)!r})"

    def exchange(self, static: StaticCredentials | None) -> None:
        """Let these secrets in from now on, and verify every token anew: its client may not be known any more."""
        self._static = static
        self._remembered.clear()

    async def caller(self, authorization: str, address: str = "") -> Caller:
        """See `Authenticator.caller`."""
        credential = bearer_of(authorization)
        if self._tokens.generation != self._generation:
            self._remembered.clear()
            self._generation = self._tokens.generation
        digest = sha256(credential.encode("utf-8", "replace")).digest()
        found = self._again(digest)
        if found is None:
            found = await self._first(credential, digest, address)
        if self._revocations.covers_client(found.client):
            raise RefusedError(f"client {found.client} was shut out by the operator", code="UNAUTHENTICATED")
        return found

    def _again(self, digest: bytes) -> Caller | None:
        known = self._remembered.get(digest)
        if known is None:
            return None
        claims, revocations = known.claims, self._revocations
        before = revocations.covers_issued(known.caller.client, known.issued_us)
        if before or (claims is not None and revocations.covers(claims)) or self._clock() >= known.expires_us:
            del self._remembered[digest]
            return None
        return known.caller

    async def _first(self, credential: str, digest: bytes, address: str) -> Caller:
        static = self._static.known(credential) if self._static is not None else None
        if static is not None:
            return static
        try:
            known = await self._verified(credential)
        except UnverifiedError as error:
            self._failures.note(address)
            raise RefusedError(error.message, code="UNAUTHENTICATED") from None
        self._remembered[digest] = known
        while len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)
        return known.caller

    def _ours(self, token: str) -> AccessClaims:
        try:
            return self._tokens.verify_access(token)
        except UnverifiedError as error:
            if error.code != "TOKEN_KEY_UNKNOWN":
                raise
            raise refused(
                error.code,
                "the token is signed with no key of this controller, and its iss is not, letter by letter, that of an "
                "issuer in the configuration",
            ) from None

    async def _verified(self, token: str) -> _Remembered:
        if token.count(".") != 2 or len(token) > JWT_CHARS_MAX:
            raise refused("TOKEN_MALFORMED", "the bearer credential is not that of a known client")
        foreign = self._foreign.get(unproved_claim(token, "iss"))
        if foreign is not None:
            known = await foreign.known(token)
            who = known.caller.client
            out = self._revocations.covers_client(who)  # told as what it is, by `caller`
            if not out and self._revocations.covers_issued(who, known.issued_us):
                raise refused("TOKEN_REVOKED", "the token was issued before its client was shut out: fetch a new one")
            return _Remembered(caller=known.caller, expires_us=known.expires_us, issued_us=known.issued_us, claims=None)
        claims = self._ours(token)
        client = self._clients.known(claims.client)
        if client is None or self._revocations.covers(claims):
            raise refused("TOKEN_REVOKED", "the token was taken back, or its client is not known any more")
        caller = Caller(
            client=client.client,
            tenant=client.tenant,
            # What the client may do now, narrowed to what the token says: never more than either.
            scopes=client.scopes & claims.scopes,
            operator=client.role == "operator",
        )
        return _Remembered(caller=caller, expires_us=claims.expires_us, issued_us=claims.issued_us, claims=claims)
