"""Who is at the other end of a connection, read once per connection and put into every request's scope.

`scope["extensions"]["aipaging.identity"]` is `(role, name)` for a peer whose verified certificate carries exactly one
URI `spiffe://<trust domain>/<role>/<name>`; without such a certificate the entry is absent, and routes refuse.
`scope["extensions"]["aipaging.certificate"]` is the hex SHA-256 of the verified certificate of a northbound client that
shows one, whatever stands in it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, ClassVar, Final, TypeAlias

from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import checked_name
from aipaging.runtime.http.heads import BoundedHeadsProtocol

IDENTITY: Final = "aipaging.identity"
"""Key in `scope["extensions"]`."""

CERTIFICATE: Final = "aipaging.certificate"
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


class _PeerProtocol(BoundedHeadsProtocol):
    """uvicorn's HTTP/1.1 protocol that reads its peer's certificate, once."""

    _extensions: dict[str, Any]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Read it."""
        super().connection_made(transport)
        self._extensions = self.extensions_of(transport)

    def extensions_of(self, transport: asyncio.Transport) -> dict[str, Any]:
        """Return what requests are told of the peer."""
        raise NotImplementedError

    def on_message_begin(self) -> None:
        """Put the identity into the scope of the request that begins."""
        super().on_message_begin()
        # A copy: a scope belongs to its request.
        self.scope["extensions"] = dict(self._extensions)


class PeerIdentityProtocol(_PeerProtocol):
    """For nodes of ours; use `peer_identity_protocol` to name the trust domain."""

    trust_domain: ClassVar[str] = ""

    def extensions_of(self, transport: asyncio.Transport) -> dict[str, Any]:
        """Return the identity, if there is one."""
        identity = identity_of_peercert(transport.get_extra_info("peercert"), trust_domain=self.trust_domain)
        return {} if identity is None else {IDENTITY: identity}


class ClientCertificateProtocol(_PeerProtocol):
    """For clients, who may show a certificate of an authority that the operator trusts."""

    def extensions_of(self, transport: asyncio.Transport) -> dict[str, Any]:
        """Return the certificate's digest, if there is one: TLS has verified it, or there were no connection."""
        tls = transport.get_extra_info("ssl_object")
        shown = None if tls is None else tls.getpeercert(binary_form=True)
        return {} if shown is None else {CERTIFICATE: sha256(shown).hexdigest()}


def peer_identity_protocol(trust_domain: str) -> type[PeerIdentityProtocol]:
    """Return the protocol class to hand to uvicorn as `http=`."""
    return type("PeerIdentityProtocol", (PeerIdentityProtocol,), {"trust_domain": trust_domain})
