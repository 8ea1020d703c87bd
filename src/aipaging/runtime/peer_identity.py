"""Who is at the other end of a southbound connection, read once per connection and put into every request's scope.

`scope["extensions"]["aipaging.identity"]` is `(role, name)` for a peer whose verified certificate carries exactly one
URI `spiffe://<trust domain>/<role>/<name>`; without such a certificate the entry is absent, and routes refuse.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, TypeAlias

from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import checked_name
from aipaging.runtime.http.heads import BoundedHeadsProtocol

IDENTITY: Final = "aipaging.identity"
"""Key in `scope["extensions"]`."""

ROLES: Final = frozenset({"controller", "gateway", "anchor"})

Identity: TypeAlias = tuple[str, str]
"""`(role, name)`."""


def identity_of_uris(uris: Sequence[str], *, trust_domain: str) -> Identity | None:
    """Return the identity in a verified certificate's URIs, or None if it is not exactly one of the trust domain."""
    prefix = f"spiffe://{trust_domain}/"
    if len(uris) != 1 or not uris[0].startswith(prefix):
        return None
    role, _, name = uris[0].removeprefix(prefix).partition("/")
    if role not in ROLES:
        return None
    try:
        return role, checked_name(name, field="name")
    except InvalidInputError:
        return None


def gateway_of_uris(names: Sequence[str], *, trust_domain: str) -> str | None:
    """Return the gateway's id among a verified certificate's alternative names, or None if it is not a gateway's."""
    uris = [name for name in names if name.startswith("spiffe://")]
    identity = identity_of_uris(uris, trust_domain=trust_domain)
    return identity[1] if identity is not None and identity[0] == "gateway" else None


def identity_of_peercert(peercert: Mapping[str, Any] | None, *, trust_domain: str) -> Identity | None:
    """Return the identity in what `ssl.SSLSocket.getpeercert()` gives for a verified peer."""
    alternatives = (peercert or {}).get("subjectAltName", ())
    uris = [value for kind, value in alternatives if kind == "URI"]
    return identity_of_uris(uris, trust_domain=trust_domain)


class PeerIdentityProtocol(BoundedHeadsProtocol):
    """uvicorn's HTTP/1.1 protocol that knows its peer; use `peer_identity_protocol` to name the trust domain."""

    trust_domain: ClassVar[str] = ""

    _extensions: dict[str, Any]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Read the peer's certificate, once."""
        super().connection_made(transport)
        peercert = transport.get_extra_info("peercert")
        identity = identity_of_peercert(peercert, trust_domain=self.trust_domain)
        self._extensions = {} if identity is None else {IDENTITY: identity}

    def on_message_begin(self) -> None:
        """Put the identity into the scope of the request that begins."""
        super().on_message_begin()
        # A copy: a scope belongs to its request.
        self.scope["extensions"] = dict(self._extensions)


def peer_identity_protocol(trust_domain: str) -> type[PeerIdentityProtocol]:
    """Return the protocol class to hand to uvicorn as `http=`."""
    return type("PeerIdentityProtocol", (PeerIdentityProtocol,), {"trust_domain": trust_domain})
