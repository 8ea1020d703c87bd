"""The documents of OAuth2, and those on clients and keys."""

import datetime as dt
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from aipaging.adapters.northbound.documents.words import Count, Instant, Name, Sentence, Text, Token, Url
from aipaging.core.foundation.time import SECOND

Secret = Annotated[str, Meta(max_length=4096)]
Assertion = Annotated[str, Meta(max_length=8192)]
Scopes = Annotated[str, Meta(max_length=2048, description="Scopes with blanks between.")]
KeyId = Annotated[str, Meta(max_length=64, pattern="^[A-Za-z0-9_-]{43}$", description="RFC 7638 thumbprint.")]


class ClientProof(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a client proves itself in a form, where it does not by `authorization: Basic`."""

    client_id: Name | None = None
    client_secret: Secret | None = None
    client_assertion_type: Text | None = None
    client_assertion: Assertion | None = None


class TokenForm(ClientProof, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 6749, 4.4.2."""

    grant_type: Literal["client_credentials"]
    scope: Scopes | None = None


class TokenNamed(ClientProof, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 7009, 2.1, and RFC 7662, 2.1."""

    token: Assertion
    token_type_hint: Text | None = None


class TokenGranted(msgspec.Struct, frozen=True, kw_only=True):
    """RFC 6749, 5.1."""

    access_token: Token
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - a type, not a secret
    expires_in: Count
    scope: Scopes


class OAuthFault(msgspec.Struct, frozen=True, kw_only=True):
    """RFC 6749, 5.2, with the members that every error of this interface has."""

    error: Text
    error_description: Sentence
    status: Annotated[int, Meta(ge=400, le=599)]
    code: Text
    message: Sentence
    who: Text = "caller"


class TokenExplained(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 7662, 2.2."""

    active: bool
    scope: Scopes | None = None
    client_id: Name | None = None
    sub: Name | None = None
    aud: Text | None = None
    iss: Url | None = None
    iat: Count | None = None
    exp: Count | None = None
    jti: Text | None = None
    token_type: Literal["Bearer"] | None = None


class ServerMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """RFC 8414, 2."""

    issuer: Url
    token_endpoint: Url
    revocation_endpoint: Url
    introspection_endpoint: Url
    jwks_uri: Url
    scopes_supported: Annotated[list[Text], Meta(max_length=64)]
    response_types_supported: Annotated[list[Text], Meta(max_length=1)]
    grant_types_supported: Annotated[list[Text], Meta(max_length=4)]
    token_endpoint_auth_methods_supported: Annotated[list[Text], Meta(max_length=4)]
    token_endpoint_auth_signing_alg_values_supported: Annotated[list[Text], Meta(max_length=4)]
    revocation_endpoint_auth_methods_supported: Annotated[list[Text], Meta(max_length=4)]
    introspection_endpoint_auth_methods_supported: Annotated[list[Text], Meta(max_length=4)]


class ClientDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A client, without anything that proves it."""

    client_id: Name
    tenant: Name
    role: Literal["client", "operator"]
    scopes: Annotated[list[Text], Meta(max_length=64)]
    keys: Annotated[int, Meta(ge=0, le=64, description="How many public keys are registered for it.")]
    shut_out: bool


class ClientList(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The clients of the configuration, and those that are shut out."""

    clients: Annotated[list[ClientDocument], Meta(max_length=10_000)]
    shut_out: Annotated[list[Name], Meta(max_length=10_000)]


class ClientShutOut(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What shutting a client out did."""

    client_id: Name
    sessions_ended: Count


class TokenKeyDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A token key; `replacedAt` once a newer one signs."""

    key_id: KeyId
    signs: bool
    published_at: Instant
    replaced_at: Instant | None = None


class TokenKeyList(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The token keys, oldest first."""

    keys: Annotated[list[TokenKeyDocument], Meta(max_length=16)]


def instant_of(wall_us: int) -> dt.datetime:
    """Return an instant of the wall clock."""
    return dt.datetime.fromtimestamp(wall_us / SECOND, tz=dt.UTC)


EXAMPLE_GRANTED: Final = {
    "access_token": "eyJ...",
    "token_type": "Bearer",
    "expires_in": 300,
    "scope": "ai-paging:sessions:create ai-paging:sessions:read",
}
EXAMPLE_FAULT: Final = {
    "error": "invalid_client",
    "error_description": "no such client, or not its secret",
    "status": 401,
    "code": "UNAUTHENTICATED",
    "message": "no such client, or not its secret",
    "who": "caller",
}
EXAMPLE_KEYS: Final = {
    "keys": [
        {
            "keyId": "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
            "signs": True,
            "publishedAt": "2026-06-01T12:00:00Z",
        }
    ]
}
