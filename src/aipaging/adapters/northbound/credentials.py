"""Who may ask what.

`Authenticator` is the seam: static client secrets from the configuration today, OAuth2 access tokens later. Routes see
only the `Caller` and its scopes, named as an OAuth2 server would name them.
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
        "ai-paging:services:read",
        "ai-paging:domains:read",
    }
)
"""What a client may do, with its own sessions only."""

OPERATOR_SCOPES: Final = CLIENT_SCOPES | {
    "ai-paging:sessions:move",
    "ai-paging:anchors:read",
    "ai-paging:anchors:create",
    "ai-paging:anchors:update",
    "ai-paging:anchors:delete",
    "ai-paging:envelopes:read",
    "ai-paging:envelopes:create",
    "ai-paging:envelopes:update",
    "ai-paging:domains:update",
    "ai-paging:evidence:read",
    "ai-paging:metrics:read",
}
"""What an operator may do, with everybody's sessions."""

_SCOPES: Final = {"client": CLIENT_SCOPES, "operator": OPERATOR_SCOPES}


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

    def caller(self, authorization: str) -> Caller:
        """Return who asks.

        Raises:
            RefusedError: Nobody that is known (`UNAUTHENTICATED`).
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCredential:
    """One client of the configuration; its secret is known by its SHA-256 only."""

    client_id: ClientId
    tenant: TenantId
    role: Role
    secret_sha256: str


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
                scopes=_SCOPES[credential.role],
                operator=credential.role == "operator",
            )
            self._known.append((digest, caller))

    def __repr__(self) -> str:
        return f"StaticCredentials({[caller.client for _, caller in self._known]!r})"

    def caller(self, authorization: str) -> Caller:
        """See `Authenticator.caller`."""
        scheme, _, secret = authorization.partition(" ")
        secret = secret.strip()
        if scheme.lower() != "bearer" or not secret:
            raise RefusedError(
                "a bearer credential is expected: authorization: Bearer <secret of the client>", code="UNAUTHENTICATED"
            )
        presented = sha256(secret[:CREDENTIAL_CHARS_MAX].encode()).digest()
        found: Caller | None = None
        for digest, caller in self._known:
            if hmac.compare_digest(digest, presented):
                found = caller
        if found is None or len(secret) > CREDENTIAL_CHARS_MAX:
            raise RefusedError("the bearer credential is not that of a known client", code="UNAUTHENTICATED")
        return found


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
