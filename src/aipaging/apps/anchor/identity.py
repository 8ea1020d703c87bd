"""The sidecar's certificate in its folder, and the contexts that are made of it."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aipaging.adapters.sidecar.clocks import Clocks
from aipaging.adapters.signing.ca import renewal_due_us, signing_request, store_chain
from aipaging.adapters.signing.peer import client_context, identity_of, server_context
from aipaging.core.foundation.errors import InvalidInputError, UnverifiedError


class FolderIdentity:
    """Implements `adapters.sidecar.controller.NodeIdentity` over `cert.pem`, `key.pem` and `ca.pem`."""

    def __init__(self, folder: Path, *, anchor: str, clocks: Clocks) -> None:
        """Read the folder.

        Raises:
            InvalidInputError: It holds no certificate, or that of somebody else.
            AipagingError: Its key is readable by others.
        """
        self._folder = folder
        self._clocks = clocks
        try:
            der = ssl.PEM_cert_to_DER_cert(_first_certificate((folder / "cert.pem").read_text()))
        except (OSError, ValueError) as error:
            raise InvalidInputError(
                f"{folder} holds no certificate: enrol with `aipaging anchors enrol {anchor} --out {folder}`",
                code="NOT_ENROLLED",
                field="identity",
            ) from error
        self.trust_domain = _trust_domain_of(der)
        enrolled = identity_of(der, trust_domain=self.trust_domain)
        if tuple(enrolled) != ("anchor", anchor):
            raise InvalidInputError(
                f"the certificate in {folder} is of {enrolled.role} {enrolled.name}, not of anchor {anchor}",
                code="IDENTITY_MISMATCH",
                field="identity",
            )
        self._server: ssl.SSLContext | None = None

    def server_context(self) -> ssl.SSLContext:
        """Return the context of the listener: a client certificate is required."""
        self._server = server_context(self._folder)
        return self._server

    def client_context(self) -> ssl.SSLContext:
        """Return a context for the controller."""
        return client_context(self._folder)

    def role_of(self, certificate: Mapping[str, Any]) -> str:
        """Return the role of a verified peer.

        Raises:
            UnverifiedError: It is not of this trust domain.
        """
        return identity_of(certificate, trust_domain=self.trust_domain).role

    def renewal_request(self) -> bytes | None:
        """Return a certificate request if the certificate should be renewed by now."""
        if renewal_due_us(self._folder) > self._clocks.wall_us():
            return None
        return signing_request(self._folder)

    def store(self, chain_pem: bytes) -> None:
        """Take a renewed chain, in the listener's context too."""
        store_chain(self._folder, chain_pem)
        if self._server is not None:
            self._server.load_cert_chain(self._folder / "cert.pem", self._folder / "key.pem")


def _first_certificate(pem: str) -> str:
    end = "-----END CERTIFICATE-----"
    return pem[: pem.index(end) + len(end)] + "\n"


def _trust_domain_of(der: bytes) -> str:
    """Return the trust domain in our own certificate.

    Raises:
        InvalidInputError: It names none.
    """
    start = der.find(b"spiffe://")
    domain = der[start + 9 : start + 9 + 255].split(b"/", 1)[0] if start >= 0 else b""
    if not domain:
        raise InvalidInputError("the certificate names no identity", code="NOT_ENROLLED", field="identity")
    try:
        return domain.decode("ascii")
    except UnicodeDecodeError as error:
        raise UnverifiedError("the certificate's identity is not ASCII", code="NOT_ENROLLED") from error
