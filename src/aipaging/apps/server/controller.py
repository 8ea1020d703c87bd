"""The controller: every part, wired and started in the order that the invariants ask for.

    keys, journal        nothing works without them
    southbound, xDS      gateways may connect, and are told nothing yet
    engine               recovers, begins a term, reconciles the user plane
    catalogue            what the configuration says is registered
    northbound           only now may anybody ask

It stops in the reverse order. A controller that is killed leaves its Envoy running: what was granted runs out there by
itself, and the next controller adopts it.
"""

import asyncio
import contextlib
import logging
import uuid
from typing import Final

from aipaging import __version__
from aipaging.adapters.anchors.http import HttpAnchorClient
from aipaging.adapters.journal.sqlite.reader import SqliteEvidenceReader
from aipaging.adapters.journal.sqlite.writer import SqliteJournal
from aipaging.adapters.northbound.app import northbound_app
from aipaging.adapters.northbound.credentials import Authenticator, Credential
from aipaging.adapters.northbound.evidence_desk import EvidenceDesk
from aipaging.adapters.northbound.service import Northbound
from aipaging.adapters.southbound.app import Southbound, southbound_app
from aipaging.apps.server.config import ServerConfig
from aipaging.apps.server.identities import CONTROLLER_ID, Identities
from aipaging.apps.server.listeners import Listener
from aipaging.apps.server.user_plane import EnvoyUserPlane, MemoryUserPlane, UserPlane
from aipaging.core.foundation.time import WallUs
from aipaging.core.paging import commands as c
from aipaging.runtime.clock import SystemClock
from aipaging.runtime.effects import SteeringEffects
from aipaging.runtime.engine import Engine
from aipaging.runtime.peer_identity import peer_identity_protocol
from aipaging.runtime.tokens import SessionTokens

LOG: Final = logging.getLogger("aipaging.controller")


class Controller:
    """One running controller."""

    def __init__(self, config: ServerConfig) -> None:
        """Open keys and bind addresses.

        Raises:
            AipagingError: A key file is not usable, or an address is taken.
        """
        self.config = config
        self._clock = SystemClock()
        self._identities = Identities.open(config, self._wall_clock)
        self.engine = self._engine()
        tokens = SessionTokens(self._identities.signer)
        self._user_plane = self._plane()
        self._anchors = HttpAnchorClient(self._identities.anchors_context(), trust_domain=config.operator.trust_domain)
        self._effects = SteeringEffects(self.engine, self._user_plane.driver, self._anchors, tokens)
        self._desk = EvidenceDesk(lambda: SqliteEvidenceReader(config.journal.path))
        self._south_context = self._identities.southbound_context()
        self._southbound = self._south_listener()
        self._northbound = self._north_listener(tokens)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start everything, in order.

        Raises:
            AipagingError: Something cannot start; what had started is stopped again.
        """
        try:
            await self._effects_first()
            for command in _registrations(self.config):
                await self.engine.submit(command)
            await self._northbound.start()
        except BaseException:
            await self.stop()
            raise
        keep = self._identities.keep_renewed(self.config, self._south_context, self._wall_clock)
        self._tasks = [asyncio.create_task(keep)]

    async def _effects_first(self) -> None:
        await self.engine.recover()
        await self._southbound.start()
        await self._user_plane.start()
        await self.engine.start(self._effects, self.config.settings, software=f"aipaging {__version__}")

    async def stop(self) -> None:
        """Stop everything, in the reverse order."""
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks)
        await self._northbound.stop()
        await self._user_plane.stop()
        await self._effects.stop()
        await self.engine.stop()
        await self._southbound.stop()
        await self._anchors.close()
        self._desk.close()

    @property
    def northbound_url(self) -> str:
        """Where clients reach the API."""
        plan = self.config.northbound
        scheme = "https" if plan.tls else "http"
        return plan.public_url or f"{scheme}://{_host(plan.listen.host)}:{self._northbound.port}"

    @property
    def gateway_url(self) -> str:
        """Where clients send their requests."""
        plan = self.config.gateway
        scheme = "http" if plan.plain_text else "https"
        return plan.public_url or f"{scheme}://{_host(plan.listen.host)}:{plan.listen.port}"

    def _wall_clock(self) -> WallUs:
        return self._clock.now().wall_us

    def _engine(self) -> Engine:
        plan = self.config.journal
        journal = SqliteJournal(
            plan.path,
            self._identities.journal_key,
            verifier_keys=[self._identities.notes.verifier.text],
            ballast_bytes=plan.reserve_bytes,
        )
        return Engine(
            journal=journal,
            snapshots=journal,
            signer=self._identities.notes,
            clock=self._clock,
            node=self.config.operator.name,
            boot=uuid.uuid4().hex,
        )

    def _plane(self) -> UserPlane:
        if self.config.gateway.driver == "memory":
            return MemoryUserPlane(self.engine)
        return EnvoyUserPlane(self.config, self._identities, self.engine)

    def _south_listener(self) -> Listener:
        app = southbound_app(
            Southbound(
                control=self.engine,
                revocations=self._user_plane,
                look_up=self._user_plane.look_up,
                authority=self._identities.authority,
                jwks=self._identities.keys.jwks,
            )
        )
        listen, trust_domain = self.config.southbound.listen, self.config.operator.trust_domain
        protocol = peer_identity_protocol(trust_domain)
        return Listener(app, listen.host, listen.port, context=self._south_context, protocol=protocol)

    def _north_listener(self, tokens: SessionTokens) -> Listener:
        plan = self.config.northbound
        credentials = [
            Credential(client=client.client, tenant=client.tenant, role=client.role, secret_sha256=client.secret_sha256)
            for client in self.config.clients
        ]
        app = northbound_app(
            Northbound(
                control=self.engine,
                authenticator=Authenticator(credentials),
                tokens=tokens,
                evidence=self._desk,
                gateway_url=self.gateway_url,
                public_url=plan.public_url or "",
                issuer=self._identities.issuer,
                jwks=self._identities.keys.jwks,
                gateway_connected=lambda: self._user_plane.connected,
                software=f"aipaging {__version__}",
            )
        )
        return Listener(app, plan.listen.host, plan.listen.port)


def _registrations(config: ServerConfig) -> list[c.Command]:
    """Return the commands that make the configured catalogue known; those already known leave no record."""
    catalogue = config.catalogue
    return [
        *(c.RegisterService(service=service) for service in catalogue.services.values()),
        *(c.RegisterDomain(domain=domain) for domain in catalogue.domains.values()),
        *(c.RegisterPath(path=path) for path in catalogue.paths.values()),
        *(c.AcceptEnvelope(envelope=envelope) for envelope in catalogue.envelopes.values()),
        *(c.RegisterAnchor(anchor=anchor) for anchor in catalogue.anchors.values()),
        c.EntitleClients(clients=tuple(client.client for client in config.clients)),
    ]


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


__all__ = ["CONTROLLER_ID", "Controller"]
