"""Who is at the other end of a mutually authenticated connection, and the TLS contexts that make sure of it."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args

from cryptography import x509

from aipaging.adapters.signing.files import read_private
from aipaging.core.foundation.errors import AipagingError, InvalidInputError, UnverifiedError, Who
from aipaging.core.foundation.names import checked_name

Role = Literal["controller", "gateway", "anchor"]
"""What an enrolled node may be."""

ROLES: Final[tuple[Role, ...]] = get_args(Role)


class PeerIdentity(NamedTuple):
    """The identity that a certificate of our authority carries."""

    role: Role
    name: str


def spiffe_id(trust_domain: str, role: Role, name: str) -> str:
    """Return `spiffe://<trust domain>/<role>/<name>`."""
    return f"spiffe://{trust_domain}/{role}/{name}"


def identity_of(certificate: bytes | Mapping[str, Any], *, trust_domain: str) -> PeerIdentity:
    """Return the role and name of a peer whose chain the TLS stack has already verified.

    Args:
        certificate: DER bytes, or the dictionary of `ssl.SSLSocket.getpeercert()`.
        trust_domain: The domain whose identities are accepted.

    Raises:
        UnverifiedError: It does not carry exactly one URI that is an identity of that domain.
    """
    uris = _uris_of_der(certificate) if isinstance(certificate, bytes) else _uris_of_peercert(certificate)
    prefix = f"spiffe://{trust_domain}/"
    if len(uris) != 1 or not uris[0].startswith(prefix):
        raise _not_a_peer()
    role_text, _, name = uris[0].removeprefix(prefix).partition("/")
    for role in ROLES:
        if role == role_text:
            try:
                return PeerIdentity(role=role, name=checked_name(name, field="name"))
            except InvalidInputError:
                break
    raise _not_a_peer()


def server_context(directory: Path) -> ssl.SSLContext:
    """Return the context of a southbound listener with the identity in `directory`: no certificate, no entry.

    Tickets are off: a resumed connection would let a peer in on a certificate that has expired since.

    Raises:
        AipagingError: `cert.pem`, `key.pem` or `ca.pem` cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    return _completed(context, directory)


def client_context(directory: Path, *, check_hostname: bool = True) -> ssl.SSLContext:
    """Return the context of a southbound client with the identity in `directory`.

    Args:
        directory: Holds `cert.pem`, `key.pem` and `ca.pem`.
        check_hostname: False only where the caller checks `identity_of` the server itself.

    Raises:
        AipagingError: A file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = check_hostname
    return _completed(context, directory)


def _completed(context: ssl.SSLContext, directory: Path) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    read_private(directory / "key.pem")
    try:
        context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
        context.load_verify_locations(directory / "ca.pem")
    except (OSError, ssl.SSLError) as error:
        raise AipagingError(
            f"{directory} does not hold a usable identity (cert.pem, key.pem, ca.pem): {error.strerror or error}; "
            "enrol this node again",
            code="NOT_ENROLLED",
            who=Who.OPERATOR,
        ) from None
    return context


def _uris_of_der(der: bytes) -> list[str]:
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        raise _not_a_peer() from None
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _uris_of_peercert(peercert: Mapping[str, Any]) -> list[str]:
    return [value for kind, value in peercert.get("subjectAltName", ()) if kind == "URI"]


def _not_a_peer() -> UnverifiedError:
    return UnverifiedError(
        "the peer's certificate carries no identity of this trust domain; enrol the node", code="PEER_NOT_ENROLLED"
    )
