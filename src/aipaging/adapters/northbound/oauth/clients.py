"""The clients that the authorization server knows, and how each proves who it is."""

import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from aipaging.adapters.northbound.credentials import CREDENTIAL_CHARS_MAX, Role, scopes_of
from aipaging.adapters.northbound.oauth.public_keys import PublicKey, header_of, key_for, payload_of, refused
from aipaging.core.foundation.names import ClientId, TenantId
from aipaging.core.foundation.time import SECOND, WallUs

ASSERTION_ALGORITHMS: Final = frozenset({"ES256", "EdDSA"})

ASSERTION_S_MAX: Final = 300
"""The longest life of an assertion: every one must be remembered that long, against replay."""

SKEW_S: Final = 60
"""How far two clocks may be apart."""

ASSERTIONS_MAX: Final = 20_000
"""Assertions remembered at once, about 4 MB; one beyond it is refused until others expire, for nothing is forgotten."""

ASSERTIONS_OF_CLIENT_MAX: Final = 2_000
"""Of one client, so that none takes the room of the others: six a second, where a token lasts minutes."""

JTI_CHARS_MAX: Final = 256

_NOBODY: Final = sha256(b"no client has this secret").digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredClient:
    """One client of the configuration.

    Attributes:
        client: Its id.
        tenant: Who its reservations belong to.
        role: What it may do at most.
        scopes: What it may do.
        secret_sha256: Digest of its secret; empty if it has none.
        keys: Public keys by which it signs assertions.
    """

    client: ClientId
    tenant: TenantId
    role: Role
    scopes: frozenset[str]
    secret_sha256: bytes = field(default=b"", repr=False)
    keys: tuple[PublicKey, ...] = ()

    @classmethod
    def of_role(cls, client: ClientId, tenant: TenantId, role: Role, **rest: Any) -> "RegisteredClient":
        """Return a client with all the scopes of its role."""
        return cls(client=client, tenant=tenant, role=role, scopes=scopes_of(role), **rest)


class Clients:
    """Knows the clients, and whether they are who they say."""

    def __init__(
        self, clients: Sequence[RegisteredClient], *, audiences: frozenset[str], clock: Callable[[], WallUs]
    ) -> None:
        """Take the clients.

        Args:
            clients: Those of the configuration.
            audiences: What the `aud` of an assertion may be: the issuer and its endpoints.
            clock: The wall clock.
        """
        self._known: Mapping[str, RegisteredClient] = {}
        self.exchange(clients)
        self._audiences = audiences
        self._clock = clock
        self._began_s = clock() // SECOND
        self._used: dict[str, dict[bytes, int]] = {}

    def exchange(self, clients: Sequence[RegisteredClient]) -> None:
        """Know these clients from now on, and no others."""
        self._known = {client.client: client for client in clients}

    def listed(self) -> Sequence[RegisteredClient]:
        """Return all clients, in order."""
        return tuple(self._known.values())

    def known(self, client: str) -> RegisteredClient | None:
        """Return a client by its id."""
        return self._known.get(client)

    def by_secret(self, client: str, secret: str) -> RegisteredClient | None:
        """Return the client if the secret is its own; the time it takes does not say what was wrong."""
        known = self._known.get(client)
        presented = sha256(secret[:CREDENTIAL_CHARS_MAX].encode("utf-8", "replace")).digest()
        expected = known.secret_sha256 if known is not None and known.secret_sha256 else _NOBODY
        fits = hmac.compare_digest(expected, presented) and len(secret) <= CREDENTIAL_CHARS_MAX
        return known if fits and expected is not _NOBODY else None

    def by_assertion(self, assertion: str, claimed: str) -> RegisteredClient:
        """Return the client that signed an assertion (RFC 7523, section 3); each is good once.

        Raises:
            UnverifiedError: It proves nothing, with a code that says which check failed.
        """
        header = header_of(assertion)
        known = self._known.get(claimed)
        keys = known.keys if known is not None else ()
        key = key_for(header, keys)
        if known is None or key is None:
            raise refused("ASSERTION_KEY_UNKNOWN", "no registered key of the client fits the assertion")
        payload = payload_of(assertion, header, key)
        if payload.get("iss") != known.client or payload.get("sub") != known.client:
            raise refused("ASSERTION_SUBJECT", "iss and sub of the assertion must both be the client_id")
        self._require_audience(payload.get("aud"))
        expires_s = self._require_times(payload)
        self._require_fresh(known.client, payload.get("jti"), expires_s)
        return known

    def _require_audience(self, audience: object) -> None:
        named = audience if isinstance(audience, list) else [audience]
        if len(named) != 1 or named[0] not in self._audiences:
            raise refused(
                "ASSERTION_AUDIENCE",
                f"aud of the assertion must be one of {', '.join(sorted(self._audiences))}, and nothing beside it",
            )

    def _require_times(self, payload: Mapping[str, Any]) -> int:
        now_s = self._clock() // SECOND
        issued_s, expires_s, begins_s = payload.get("iat"), payload.get("exp"), payload.get("nbf", 0)
        if type(issued_s) is not int or type(expires_s) is not int or type(begins_s) is not int:
            raise refused("ASSERTION_TIMES", "iat and exp of the assertion must be whole seconds")
        if expires_s <= now_s or max(issued_s, begins_s) > now_s + SKEW_S:
            raise refused("ASSERTION_EXPIRED", "the assertion has expired or is not valid yet: compare the clocks")
        if expires_s > now_s + ASSERTION_S_MAX or expires_s - issued_s > ASSERTION_S_MAX:
            raise refused("ASSERTION_TOO_LONG", f"the assertion is valid for more than {ASSERTION_S_MAX} s")
        if issued_s < self._began_s:
            # What was used before this start is not remembered: it would be good twice.
            raise refused("ASSERTION_BEFORE_START", "the assertion is older than this controller: sign a fresh one")
        return expires_s

    def _require_fresh(self, client: ClientId, jti: object, expires_s: int) -> None:
        if not isinstance(jti, str) or not 0 < len(jti) <= JTI_CHARS_MAX:
            raise refused("ASSERTION_ID", f"jti of the assertion must be text of 1 to {JTI_CHARS_MAX} characters")
        now_s = self._clock() // SECOND
        digest = sha256(jti.encode("utf-8", "replace")).digest()
        if digest in self._used.setdefault(client, {}):
            raise refused("ASSERTION_REPLAYED", "the assertion was used before: sign a fresh one")
        if self._full(client):
            self._forget(now_s)
        if self._full(client):
            raise refused("ASSERTIONS_TOO_MANY", "too many assertions: use a token until it expires")
        self._used[client][digest] = expires_s

    def _full(self, client: ClientId) -> bool:
        return (
            len(self._used[client]) >= ASSERTIONS_OF_CLIENT_MAX or sum(map(len, self._used.values())) >= ASSERTIONS_MAX
        )

    def _forget(self, now_s: int) -> None:
        for client, used in self._used.items():
            self._used[client] = {digest: until for digest, until in used.items() if until > now_s}
