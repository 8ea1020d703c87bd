"""The keys and certificates that a controller keeps in its data directory.

keys/         token keys, checkpoint key, the key that wraps the journal's session keys
ca/           the southbound authority
identities/   one folder per role: cert.pem, key.pem, ca.pem
"""

import asyncio
import logging
import secrets
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aipaging.adapters.signing.ca import CertificateAuthority, renewal_due_us
from aipaging.adapters.signing.files import create_once, private_directory, read_private
from aipaging.adapters.signing.keys import KeyStore
from aipaging.adapters.signing.notes import NoteSigner
from aipaging.adapters.signing.peer import client_context, server_context
from aipaging.adapters.signing.rotation import RotatingVerifier, TokenKeyRing
from aipaging.adapters.signing.tokens import JwtSigner
from aipaging.apps.server.config import ServerConfig
from aipaging.core.foundation.time import WallUs

LOG: Final = logging.getLogger("aipaging.identities")

RENEWAL_CHECK_S: Final = 300
"""How often the controller looks whether one of its own certificates is due; they last a day."""

JOURNAL_KEY_BYTES: Final = 32
"""AES-256."""

CONTROLLER_ID: Final = "controller"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identities:
    """Keys, authority and certificates of one controller.

    Attributes:
        keys: Token keys, followed as they are rotated.
        authority: Issues southbound certificates.
        issuer: `iss` of every token.
        signer: Signs AISTs and receipts.
        verifier: Verifies them.
        notes: Signs checkpoints.
        journal_key: Wraps the sessions' keys in the journal.
        controller: Folder of the controller's certificate.
        gateway: Folder of the gateway's certificate.
    """

    keys: TokenKeyRing
    authority: CertificateAuthority
    issuer: str
    signer: JwtSigner
    verifier: RotatingVerifier
    notes: NoteSigner
    journal_key: bytes
    controller: Path
    gateway: Path

    @classmethod
    def open(cls, config: ServerConfig, wall_clock: Callable[[], WallUs]) -> "Identities":
        """Create what is missing, and load the rest.

        What another controller of this data directory uses stays as it is: only who holds the journal may `issue`.

        Raises:
            AipagingError: A file is unreadable, or readable by others.
        """
        data_dir = config.operator.data_dir
        private_directory(data_dir)
        keys = TokenKeyRing(store := KeyStore.open(data_dir / "keys"), wall_clock)
        authority = CertificateAuthority.open(data_dir / "ca", config.operator.trust_domain, clock=wall_clock)
        key_file = data_dir / "keys" / "journal.key"
        create_once(key_file, secrets.token_bytes(JOURNAL_KEY_BYTES))
        issuer = f"https://{config.operator.trust_domain}"
        return cls(
            keys=keys,
            authority=authority,
            issuer=issuer,
            signer=JwtSigner(keys, issuer),
            verifier=RotatingVerifier(keys, issuer, wall_clock),
            notes=NoteSigner(store.checkpoint_key, f"{config.operator.trust_domain}/log"),
            journal_key=read_private(key_file),
            controller=data_dir / "identities" / "controller",
            gateway=data_dir / "identities" / "gateway",
        )

    def issue(self, config: ServerConfig) -> None:
        """Write fresh certificates of the controller and of the gateway that it supervises."""
        south = (config.southbound.listen.host, config.southbound.ads_listen.host, *config.southbound.names)
        dns_names, addresses = alternatives(south)
        self.authority.write_identity(
            self.controller, "controller", CONTROLLER_ID, dns_names=dns_names, addresses=addresses
        )
        # The gateway's certificate is also what clients see while the operator gives no certificate of its own.
        dns_names, addresses = alternatives((config.gateway.listen.host,))
        self.authority.write_identity(
            self.gateway, "gateway", config.gateway.gateway, dns_names=dns_names, addresses=addresses
        )

    def southbound_context(self) -> ssl.SSLContext:
        """Return the context of the southbound listener: a client certificate is required."""
        return server_context(self.controller)

    def anchors_context(self) -> ssl.SSLContext:
        """Return the context with which the controller calls sidecars; who answers is read from the certificate."""
        return client_context(self.controller, check_hostname=False)

    async def keep_renewed(
        self, config: ServerConfig, contexts: Sequence[ssl.SSLContext], wall_clock: Callable[[], WallUs]
    ) -> None:
        """Renew the controller's own certificates before half of their life, for as long as this runs.

        Args:
            config: Says which names the certificates carry.
            contexts: All that were made of the controller's certificate.
            wall_clock: What lifetimes are held against.
        """
        while True:
            await asyncio.sleep(RENEWAL_CHECK_S)
            if renewal_due_us(self.controller) <= wall_clock():
                self.issue(config)
                for context in contexts:
                    context.load_cert_chain(self.controller / "cert.pem", self.controller / "key.pem")
                LOG.info("renewed the certificates of controller and gateway")


def alternatives(hosts: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the DNS names and addresses under which hosts are reached; loopback by its name too."""
    addresses = tuple(dict.fromkeys(host for host in hosts if _is_address(host)))
    names = dict.fromkeys(host for host in hosts if not _is_address(host))
    if any(address.startswith("127.") or address == "::1" for address in addresses):
        names["localhost"] = None
    return tuple(names), addresses


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()
