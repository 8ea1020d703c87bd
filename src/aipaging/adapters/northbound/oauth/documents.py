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
    client_secret: Annotated[Secret, Meta(description="For client_secret_post.")] | None = None
    client_assertion_type: (
        Annotated[
            Text, Meta(description="For private_key_jwt: `urn:ietf:params:oauth:client-assertion-type:jwt-bearer`.")
        ]
        | None
    ) = None
    client_assertion: Annotated[Assertion, Meta(description="For private_key_jwt: the JWT.")] | None = None


class TokenForm(ClientProof, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 6749, 4.4.2."""

    grant_type: Annotated[Literal["client_credentials"], Meta(description="The one grant that there is.")]
    scope: Scopes | None = None


class TokenNamed(ClientProof, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 7009, 2.1, and RFC 7662, 2.1."""

    token: Annotated[Assertion, Meta(description="The token that it is about.")]
    token_type_hint: Annotated[Text, Meta(description="Not needed; accepted as the RFC demands.")] | None = None


class TokenGranted(msgspec.Struct, frozen=True, kw_only=True):
    """RFC 6749, 5.1."""

    access_token: Annotated[Token, Meta(description="A JWT of RFC 9068.")]
    token_type: Annotated[Literal["Bearer"], Meta(description="RFC 6750.")] = "Bearer"  # noqa: S105 - a type, not a secret
    expires_in: Annotated[Count, Meta(description="Seconds.")]
    scope: Scopes


class OAuthFault(msgspec.Struct, frozen=True, kw_only=True):
    """RFC 6749, 5.2, with the members that every error of this interface has."""

    error: Annotated[Text, Meta(description="The word of RFC 6749, 5.2.")]
    error_description: Annotated[Sentence, Meta(description="In words.")]
    status: Annotated[int, Meta(ge=400, le=599, description="As of the answer.")]
    code: Annotated[Text, Meta(description="Stable: programs branch on it.")]
    message: Annotated[Sentence, Meta(description="In words.")]
    who: Annotated[Text, Meta(description="Who must act.")] = "caller"


class TokenExplained(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 7662, 2.2."""

    active: Annotated[
        bool, Meta(description="Whether it is good for anything; nothing else stands in the answer if not.")
    ]
    scope: Scopes | None = None
    client_id: Name | None = None
    sub: Name | None = None
    aud: Annotated[Text, Meta(description="Whom it is for.")] | None = None
    iss: Annotated[Url, Meta(description="Who granted it.")] | None = None
    iat: Annotated[Count, Meta(description="When it was granted, seconds of the epoch.")] | None = None
    exp: Annotated[Count, Meta(description="When it ends, seconds of the epoch.")] | None = None
    jti: Annotated[Text, Meta(description="Its id.")] | None = None
    token_type: Annotated[Literal["Bearer"], Meta(description="RFC 6750.")] | None = None


class ServerMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """RFC 8414, 2."""

    issuer: Annotated[Url, Meta(description="`iss` of its tokens.")]
    token_endpoint: Annotated[Url, Meta(description="Where tokens are granted.")]
    revocation_endpoint: Annotated[Url, Meta(description="Where they are taken back.")]
    introspection_endpoint: Annotated[Url, Meta(description="Where they are looked into.")]
    jwks_uri: Annotated[Url, Meta(description="The keys that sign them.")]
    scopes_supported: Annotated[list[Text], Meta(max_length=64, description="All scopes.")]
    response_types_supported: Annotated[
        list[Text], Meta(max_length=1, description="None: there is no authorization endpoint.")
    ]
    grant_types_supported: Annotated[list[Text], Meta(max_length=4, description="Grants.")]
    token_endpoint_auth_methods_supported: Annotated[
        list[Text], Meta(max_length=4, description="How clients prove themselves.")
    ]
    token_endpoint_auth_signing_alg_values_supported: Annotated[
        list[Text], Meta(max_length=4, description="Algorithms of their assertions.")
    ]
    revocation_endpoint_auth_methods_supported: Annotated[
        list[Text], Meta(max_length=4, description="How clients prove themselves.")
    ]
    revocation_endpoint_auth_signing_alg_values_supported: Annotated[
        list[Text], Meta(max_length=4, description="Algorithms of their assertions.")
    ]
    introspection_endpoint_auth_methods_supported: Annotated[
        list[Text], Meta(max_length=4, description="How clients prove themselves; `Bearer` is an access token.")
    ]
    introspection_endpoint_auth_signing_alg_values_supported: Annotated[
        list[Text], Meta(max_length=4, description="Algorithms of their assertions.")
    ]


class ClientDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A client, without anything that proves it."""

    client_id: Name
    tenant: Name
    role: Annotated[Literal["client", "operator"], Meta(description="What its scopes come with.")]
    scopes: Annotated[list[Text], Meta(max_length=64, description="What it may do.")]
    keys: Annotated[int, Meta(ge=0, le=64, description="How many public keys are registered for it.")]
    shut_out: Annotated[bool, Meta(description="Whether it is.")]


class ClientList(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The clients of the configuration, and those that are shut out."""

    clients: Annotated[list[ClientDocument], Meta(max_length=10_000, description="Those of the configuration.")]
    shut_out: Annotated[list[Name], Meta(max_length=10_000, description="Who is.")]


class ClientShutOut(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What shutting a client out did."""

    client_id: Name
    sessions_ended: Annotated[Count, Meta(description="How many of its sessions were ended by that.")]


class TokenKeyDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A token key; `replacedAt` once a newer one signs."""

    key_id: KeyId
    signs: Annotated[bool, Meta(description="Whether new tokens are signed with it.")]
    published_at: Instant
    replaced_at: Instant | None = None


class TokenKeyList(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The token keys, oldest first."""

    keys: Annotated[list[TokenKeyDocument], Meta(max_length=16, description="All that are published.")]


def instant_of(wall_us: int) -> dt.datetime:
    """Return an instant of the wall clock."""
    return dt.datetime.fromtimestamp(wall_us / SECOND, tz=dt.UTC)


EXAMPLE_FORM: Final = {
    "grant_type": "client_credentials",
    "client_id": "acme-app",
    "client_secret": "...",
    "scope": "ai-paging:sessions:create ai-paging:sessions:read",
}
EXAMPLE_NAMED: Final = {"client_id": "acme-app", "client_secret": "...", "token": "eyJ..."}
EXAMPLE_METADATA: Final = {
    "issuer": "https://control.operator.example",
    "token_endpoint": "https://control.operator.example/oauth2/token",
    "revocation_endpoint": "https://control.operator.example/oauth2/revoke",
    "introspection_endpoint": "https://control.operator.example/oauth2/introspect",
    "jwks_uri": "https://control.operator.example/.well-known/jwks.json",
    "scopes_supported": ["ai-paging:sessions:create", "ai-paging:sessions:read"],
    "response_types_supported": [],
    "grant_types_supported": ["client_credentials"],
    "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "private_key_jwt"],
    "token_endpoint_auth_signing_alg_values_supported": ["ES256"],
    "revocation_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "private_key_jwt"],
    "revocation_endpoint_auth_signing_alg_values_supported": ["ES256"],
    "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "Bearer"],
    "introspection_endpoint_auth_signing_alg_values_supported": ["ES256"],
}
EXAMPLE_CLIENTS: Final = {
    "clients": [
        {
            "clientId": "acme-app",
            "tenant": "acme",
            "role": "client",
            "scopes": ["ai-paging:sessions:create", "ai-paging:sessions:read"],
            "keys": 0,
            "shutOut": False,
        }
    ],
    "shutOut": [],
}
EXAMPLE_GRANTED: Final = {
    "access_token": "eyJ...",
    "token_type": "Bearer",
    "expires_in": 300,
    "scope": "ai-paging:sessions:create ai-paging:sessions:read",
}
EXAMPLE_FAULTS: Final = {
    status: {
        "error": error,
        "error_description": message,
        "status": status,
        "code": code,
        "message": message,
        "who": "caller",
    }
    for status, error, code, message in (
        (400, "invalid_scope", "INVALID_ARGUMENT", "the client may not have ai-paging:anchors:update"),
        (401, "invalid_client", "UNAUTHENTICATED", "no such client, or not its secret"),
        (429, "temporarily_unavailable", "TOO_MANY_REQUESTS", "too many failures; come back in 30 s"),
    )
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
