"""Who may ask what.

`Authenticator` is the seam: OAuth2 access tokens (`oauth.doorkeeper`), and static secrets of the configuration. Routes
see only the `Caller` and its scopes, named as an OAuth2 server names them.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Literal, Protocol, TypeAlias

from aipaging.core.foundation.errors import InvalidInputError, RefusedError
from aipaging.core.foundation.names import ClientId, TenantId

Role: TypeAlias = Literal["client", "operator"]

CREDENTIAL_CHARS_MAX: Final = 4096
"""Longer than any secret; nobody makes us hash a megabyte before we know who it is."""

CLIENT_SCOPES: Final = frozenset(
    {
        "ai-paging:intents:resolve",
        "ai-paging:sessions:create",
        "ai-paging:sessions:read",
        "ai-paging:sessions:update",
        "ai-paging:sessions:delete",
        "ai-paging:events:read",
        "ai-paging:audits:read",
        "ai-paging:services:read",
        "ai-paging:domains:read",
        "ai-paging:usage:read",
    }
)
"""What a client may do, with its own sessions only."""

OPERATOR_SCOPES: Final = CLIENT_SCOPES | {
    "ai-paging:sessions:move",
    "ai-paging:sessions:erase",
    "ai-paging:anchors:read",
    "ai-paging:anchors:create",
    "ai-paging:anchors:update",
    "ai-paging:anchors:delete",
    "ai-paging:envelopes:read",
    "ai-paging:envelopes:create",
    "ai-paging:envelopes:update",
    "ai-paging:domains:update",
    "ai-paging:tenants:read",
    "ai-paging:tenants:update",
    "ai-paging:switches:read",
    "ai-paging:switches:update",
    "ai-paging:policies:read",
    "ai-paging:configuration:read",
    "ai-paging:configuration:update",
    "ai-paging:evidence:read",
    "ai-paging:metrics:read",
    "ai-paging:dead-letters:read",
    "ai-paging:clients:read",
    "ai-paging:clients:update",
    "ai-paging:keys:read",
    "ai-paging:keys:update",
    "ai-paging:tokens:introspect",
}
"""What an operator may do, with everybody's sessions."""

_SCOPES: Final = {"client": CLIENT_SCOPES, "operator": OPERATOR_SCOPES}


def scopes_of(role: Role) -> frozenset[str]:
    """Return everything that a role may do."""
    return _SCOPES[role]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks.

    Attributes:
        client: Its id.
        tenant: Who its reservations belong to.
        scopes: What it may do.
        operator: Whether it sees the sessions of all.
    """

    client: ClientId
    tenant: TenantId
    scopes: frozenset[str]
    operator: bool


class Authenticator(Protocol):
    """Turns the `authorization` header into a caller."""

    async def caller(self, authorization: str, address: str = "") -> Caller:
        """Return who asks.

        Args:
            authorization: The header.
            address: Where it came from.

        Raises:
            RefusedError: Nobody that is known (`UNAUTHENTICATED`), or after too many failures (`TOO_MANY_REQUESTS`).
            UnavailableError: Who it is cannot be told now.
        """
        ...


def bearer_of(authorization: str) -> str:
    """Return the bearer credential in an `authorization` header.

    Raises:
        RefusedError: There is none.
    """
    scheme, _, credential = authorization.partition(" ")
    credential = credential.strip()
    if scheme.lower() != "bearer" or not credential:
        raise RefusedError(
            "a bearer credential is expected: authorization: Bearer <access token, or secret of the client>",
            code="UNAUTHENTICATED",
        )
    return credential


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCredential:
    """One client of the configuration; its secret is known by its SHA-256 only.

    Attributes:
        client_id: Its id.
        tenant: Who its reservations belong to.
        role: What it may do at most.
        secret_sha256: Hex digest of its secret.
        scopes: What it may do; None for all that its role may.
    """

    client_id: ClientId
    tenant: TenantId
    role: Role
    secret_sha256: str
    scopes: frozenset[str] | None = None


class StaticCredentials:
    """An `Authenticator` over the clients of the configuration.

    Secrets are machine-made and long, so a plain hash does; the comparison looks at all of them, so that its time
    says nothing about which one nearly fitted.
    """

    def __init__(self, credentials: Sequence[ClientCredential]) -> None:
        """Take the clients.

        Raises:
            InvalidInputError: A digest is not 64 hex digits, or two clients share an id or a secret.
        """
        digests: dict[bytes, str] = {}
        self._known: list[tuple[bytes, Caller]] = []
        for credential in credentials:
            digest = _digest_of(credential)
            if digest in digests or credential.client_id in digests.values():
                raise InvalidInputError(
                    f"client {credential.client_id} shares its id or its secret with another", field="secret_sha256"
                )
            digests[digest] = credential.client_id
            caller = Caller(
                client=credential.client_id,
                tenant=credential.tenant,
                scopes=_SCOPES[credential.role] & (credential.scopes or _SCOPES[credential.role]),
                operator=credential.role == "operator",
            )
            self._known.append((digest, caller))

    def __repr__(self) -> str:
        return f"StaticCredentials({[caller.client for _, caller in self._known]!r})"

    async def caller(self, authorization: str, address: str = "") -> Caller:  # noqa: ARG002 - it counts nothing
        """See `Authenticator.caller`."""
        found = self.known(bearer_of(authorization))
        if found is None:
            raise RefusedError("the bearer credential is not that of a known client", code="UNAUTHENTICATED")
        return found

    def known(self, secret: str) -> Caller | None:
        """Return whose secret it is, or None."""
        presented = sha256(secret[:CREDENTIAL_CHARS_MAX].encode()).digest()
        found: Caller | None = None
        for digest, caller in self._known:
            if hmac.compare_digest(digest, presented):
                found = caller
        return found if len(secret) <= CREDENTIAL_CHARS_MAX else None


def _digest_of(credential: ClientCredential) -> bytes:
    try:
        digest = bytes.fromhex(credential.secret_sha256)
    except ValueError:
        digest = b""
    if len(digest) != sha256().digest_size:
        raise InvalidInputError(
            f"secret_sha256 of client {credential.client_id} is not the hex SHA-256 of a secret (64 digits)",
            field="secret_sha256",
        )
    return digest
