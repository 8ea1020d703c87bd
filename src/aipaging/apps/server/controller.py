"""The controller: every part, wired and started in the order that the invariants ask for.

    keys, journal        nothing works without them, and its lock says that this data directory is ours
    certificates         fresh ones with every start
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
import ssl
import uuid
from pathlib import Path
from typing import Final, Literal

from aipaging import __version__
from aipaging.adapters.anchors.http import HttpAnchorClient
from aipaging.adapters.journal.sqlite.reader import SqliteEvidenceReader
from aipaging.adapters.journal.sqlite.usage import SqliteUsageAccount
from aipaging.adapters.journal.sqlite.writer import SqliteJournal
from aipaging.adapters.northbound.app import northbound_app
from aipaging.adapters.northbound.audit_metrics import AuditCollector
from aipaging.adapters.northbound.documents.configuration import ConfigurationStatus
from aipaging.adapters.northbound.events import source_of
from aipaging.adapters.northbound.evidence_desk import EvidenceDesk
from aipaging.adapters.northbound.metrics import ExpositionForm, Metrics
from aipaging.adapters.northbound.service import Northbound
from aipaging.adapters.northbound.usage_desk import UsageDesk
from aipaging.adapters.signing.domain_keys import DomainKeyRing
from aipaging.adapters.southbound.app import Southbound, southbound_app
from aipaging.adapters.telemetry.exposition import MEDIA_TYPE, exposition, wants_protobuf
from aipaging.adapters.telemetry.live_delays import DelayCollector
from aipaging.adapters.tracing.otlp import OtlpTracer
from aipaging.apps.server.access import AccessDesk
from aipaging.apps.server.audit import DelayExport, live_audit
from aipaging.apps.server.config import ServerConfig, TlsFiles
from aipaging.apps.server.domain_keys import KeySources
from aipaging.apps.server.free_text import warmed
from aipaging.apps.server.identities import Identities, alternatives
from aipaging.apps.server.late_requests import LateRequestSpans
from aipaging.apps.server.listeners import Listener
from aipaging.apps.server.notifications import ControllerNotifications
from aipaging.apps.server.policies import PolicyFile
from aipaging.apps.server.reloading import LiveRates, Reloading
from aipaging.apps.server.stated_envelopes import StatedEnvelopes
from aipaging.apps.server.user_plane import EnvoyUserPlane, MemoryUserPlane, UserPlane
from aipaging.core.foundation.errors import AipagingError, RefusedError, Who
from aipaging.core.foundation.names import AnchorId
from aipaging.core.foundation.time import WallUs
from aipaging.core.paging import commands as c
from aipaging.runtime.clock import SystemClock
from aipaging.runtime.effects import SteeringEffects
from aipaging.runtime.engine import Engine
from aipaging.runtime.envelopes import EnvelopeIntake
from aipaging.runtime.events.hub import EventHub, owner_in
from aipaging.runtime.http.counted import counted
from aipaging.runtime.http.rates import CallerRates
from aipaging.runtime.peer_identity import ClientCertificateProtocol, peer_identity_protocol
from aipaging.runtime.tokens import SessionTokens

LOG: Final = logging.getLogger("aipaging.controller")

HEARTBEATS_MISSED: Final = 3
"""An anchor is LOST when so many heartbeats in a row did not come."""

HEARTBEAT_MS_MIN: Final = 100
"""Faster than this, heartbeats of a thousand anchors would be a load of their own."""


class Controller:
    """One running controller."""

    def __init__(self, config: ServerConfig) -> None:
        """Open the keys.

        Raises:
            AipagingError: A key file is not usable.
        """
        self.config = config
        self._clock = SystemClock()
        self._identities = Identities.open(config, self._wall_clock)
        self._journal = self._made_journal()
        self.engine = self._engine()
        self._tokens = SessionTokens(self._identities.signer)
        self._audit = live_audit(config, self.engine, dropped=self._dropped)
        self._user_plane = self._plane()
        self._intake = EnvelopeIntake(
            self.engine,
            DomainKeyRing(config.operator.data_dir / "keys" / "envelopes"),
            configured=lambda: self._key_sources.domains,
        )
        self._key_sources = KeySources(self._intake, config.key_sources)
        self._envelopes = StatedEnvelopes(lambda: self.engine.state, self._intake, self._wall_clock)
        self._policies = PolicyFile(config.policies, self.engine.submit)
        self._desk = EvidenceDesk(lambda: SqliteEvidenceReader(config.journal.path))
        self._usage = UsageDesk(
            SqliteUsageAccount(config.operator.data_dir / "usage.db", lambda: SqliteEvidenceReader(config.journal.path))
        )
        self.hub = EventHub(
            lambda: SqliteEvidenceReader(config.journal.path),
            owner_of=lambda session: owner_in(self.engine.state, session),
            wall_us=self._wall_clock,
        )
        self._tracer = (
            OtlpTracer(config.tracing_endpoint, service="aipaging-controller") if config.tracing_endpoint else None
        )
        self.engine.tracer = self._tracer
        self.metrics = Metrics()
        if self._audit is not None:
            self.metrics.include(AuditCollector(self._audit.counts))
            self.metrics.include(DelayCollector(self._audit.delays.histograms))
            self.metrics.offer(ExpositionForm(MEDIA_TYPE, wants_protobuf, exposition))
            self._audit.late_requests = None if self._tracer is None else LateRequestSpans(self._tracer)
        self.engine.watch(self.hub)
        self.engine.watch(self.metrics)
        self.metrics.at_scrape(self._measured)
        self.notifications = ControllerNotifications(
            config.operator.data_dir, config.notification, state=lambda: self.engine.state, wall_us=self._wall_clock
        )
        self._access = AccessDesk(config, self._identities, self.engine, self._wall_clock)
        self._rates = CallerRates(config.northbound.rate)
        self._reloading = Reloading(
            config,
            self.engine,
            (self._policies, self._access, self.notifications, LiveRates(self._rates)),
            envelopes=self._envelopes,
            key_sources=self._key_sources,
            wall_us=self._wall_clock,
        )
        self._northbound_port = config.northbound.listen.port
        self._stops = contextlib.AsyncExitStack()
        self._stops.callback(self._desk.close)
        self._stops.callback(self._usage.close)
        if self._tracer is not None:
            self._stops.callback(self._tracer.close)
        self._stops.push_async_callback(self._access.close)

    async def start(self) -> None:
        """Start everything, in order.

        Raises:
            AipagingError: Something cannot start; what had started is stopped again.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        stops = self._stops
        await self.engine.recover()
        stops.push_async_callback(self.engine.stop)
        # The journal's lock is ours: from here on nobody else uses this data directory.
        self._identities.issue(self.config)
        contexts = (self._identities.southbound_context(), self._identities.anchors_context())
        southbound = self._south_listener(contexts[0])
        anchors = HttpAnchorClient(contexts[1], trust_domain=self.config.operator.trust_domain)
        stops.push_async_callback(anchors.close)
        effects = SteeringEffects(self.engine, self._user_plane.driver, anchors, self._tokens)
        stops.push_async_callback(effects.stop)
        northbound = self._north_listener()
        await southbound.start()
        stops.push_async_callback(southbound.stop)
        stops.push_async_callback(self._user_plane.stop)
        await self._user_plane.open()
        await self.engine.start(effects, self.config.settings, software=f"aipaging {__version__}")
        await self._user_plane.start()
        for command in _registrations(self.config):
            await self.engine.submit(command)
        await self._policies.load()
        await self._key_sources.load()
        for envelope in self.config.catalogue.envelopes.values():
            await self._envelopes.put(envelope)
        for anchor in self.config.catalogue.anchors.values():
            await self.engine.submit(c.RegisterAnchor(anchor=anchor))
        await self._access.begin()
        if self._audit is not None:
            audit = asyncio.create_task(self._audit.run())
            stops.callback(audit.cancel)
            if self.config.delays_endpoint is not None:
                delays = DelayExport(self._audit.delays, self.config.delays_endpoint, self._wall_clock)
                stops.push_async_callback(delays.stop)
                delays.start()
        await northbound.start()
        stops.push_async_callback(northbound.stop)
        await self.notifications.start(self.hub, source_of(self._identities.issuer))
        stops.push_async_callback(self.notifications.stop)
        stops.callback(self.hub.close)  # open streams end at once, and are resumed at the next controller
        policies = asyncio.create_task(self._policies.keep_current())
        stops.callback(policies.cancel)
        usage = asyncio.create_task(self._usage.keep_current())
        stops.callback(usage.cancel)
        keys = asyncio.create_task(self._key_sources.keep_current())
        stops.callback(keys.cancel)
        keep = asyncio.create_task(self._identities.keep_renewed(self.config, contexts, self._wall_clock))
        stops.callback(keep.cancel)

    async def reload(self) -> ConfigurationStatus:
        """Read the configuration file anew and put into force what can change while this runs."""
        return await self._reloading.reload()

    async def stop(self) -> None:
        """Stop everything, in the reverse order."""
        await self._stops.aclose()

    @property
    def northbound_url(self) -> str:
        """Where clients reach the API."""
        plan = self.config.northbound
        scheme = "https" if plan.tls else "http"
        return plan.public_url or f"{scheme}://{_host(plan.listen.host)}:{self._northbound_port}"

    @property
    def gateway_url(self) -> str:
        """Where clients send their requests."""
        plan = self.config.gateway
        scheme = "http" if plan.plain_text else "https"
        return plan.public_url or f"{scheme}://{_host(plan.listen.host)}:{plan.listen.port}"

    def _measured(self) -> None:
        self.metrics.holds(gateway=self._user_plane.connected, waiting=self.engine.waiting)
        self.metrics.configuration(refused=bool(self._reloading.status.problems))
        snapshots = self.engine.snapshots
        self.metrics.snapshots(failed=snapshots.failed, behind_records=snapshots.behind_records)
        self.metrics.journal_files(failed=self._journal.failures, first_seq=self._journal.first_seq)
        courier = self.notifications.courier
        if courier is not None:
            self.metrics.notifications(
                delivered=courier.delivered,
                failures=courier.failures,
                given_up=courier.given_up,
                waiting=courier.waiting,
            )

    def _wall_clock(self) -> WallUs:
        return self._clock.now().wall_us

    async def _dropped(self) -> int:
        return await self._user_plane.dropped()

    def _made_journal(self) -> SqliteJournal:
        plan = self.config.journal
        return SqliteJournal(
            plan.path,
            self._identities.journal_key,
            verifier_keys=[self._identities.notes.verifier.text],
            ballast_bytes=plan.reserve_bytes,
            file_bytes_max=plan.file_bytes,
        )

    def _engine(self) -> Engine:
        return Engine(
            journal=self._journal,
            snapshots=self._journal,
            signer=self._identities.notes,
            clock=self._clock,
            writer=(self.config.operator.name, uuid.uuid4().hex),
            eraser=self._journal,
        )

    def _plane(self) -> UserPlane:
        if self.config.gateway.driver == "memory":
            return MemoryUserPlane(self.engine)
        access_log = None if self._audit is None else self._audit.offer
        return EnvoyUserPlane(self.config, self._identities, self.engine, access_log=access_log)

    def _south_listener(self, context: ssl.SSLContext) -> Listener:
        app = southbound_app(
            Southbound(
                control=self.engine,
                feed=self._user_plane,
                renew=self._renewed,
                jwks=self._identities.keys.jwks,
                look_up=counted(self._user_plane.look_up, self.metrics.looked_up),
                heartbeat_ms=self._heartbeat_ms,
            ),
            tracer=self._tracer,
        )
        listen, trust_domain = self.config.southbound.listen, self.config.operator.trust_domain
        protocol = peer_identity_protocol(trust_domain)
        return Listener(app, listen.host, listen.port, context=context, protocol=protocol)

    def _heartbeat_ms(self) -> int:
        return max(self.engine.state.settings.anchor_lost_ms // HEARTBEATS_MISSED, HEARTBEAT_MS_MIN)

    def _renewed(self, csr_pem: bytes, role: str, name: str) -> bytes:
        """Return a fresh certificate for an identity that proved itself by its present one."""
        if role not in {"gateway", "anchor"}:
            raise RefusedError(f"a {role} does not renew here", code="PERMISSION_DENIED")
        enrolled: Literal["gateway", "anchor"] = "gateway" if role == "gateway" else "anchor"
        anchor = self.engine.state.catalogue.anchors.get(AnchorId(name))
        host = anchor.host if anchor is not None else ""
        dns_names, addresses = alternatives((host,) if host else ())
        return self._identities.authority.renew_from_csr(
            csr_pem, enrolled, name, dns_names=dns_names, addresses=addresses
        )

    def _north_listener(self) -> Listener:
        plan = self.config.northbound
        doorkeeper, access = self._access.opened(plan.public_url or "")
        app = northbound_app(
            Northbound(
                control=self.engine,
                authenticator=doorkeeper,
                tokens=self._tokens,
                evidence=self._desk,
                usage=self._usage,
                hub=self.hub,
                metrics=self.metrics,
                notifications=self.notifications,
                tracer=self._tracer,
                gateway_url=self.gateway_url,
                public_url=plan.public_url or "",
                issuer=self._identities.issuer,
                jwks=lambda: self.notifications.public_jwks(self._identities.keys.jwks()),
                envelopes=self._intake,
                gateway_connected=lambda: self._user_plane.connected,
                task_reader=warmed(plan.free_text),
                unsaid=plan.unsaid,
                software=f"aipaging {__version__}",
                access=access,
                rates=self._rates,
                configuration=self._reloading,
                policies=lambda: self._policies.status,
            )
        )
        context = _own_context(plan.tls, plan.client_ca) if plan.tls else None
        protocol = ClientCertificateProtocol if plan.client_ca else None
        listener = Listener(app, plan.listen.host, plan.listen.port, context=context, protocol=protocol)
        self._northbound_port = listener.port
        return listener


def _registrations(config: ServerConfig) -> list[c.Command]:
    """Return the commands that make the configured catalogue known; those already known leave no record."""
    catalogue = config.catalogue
    return [
        *(c.RegisterService(service=service) for service in catalogue.services.values()),
        *(c.RegisterDomain(domain=domain) for domain in catalogue.domains.values()),
        *(c.RegisterPath(path=path) for path in catalogue.paths.values()),
        *(c.RegisterTenant(tenant=tenant) for tenant in config.tenants),
    ]


def _own_context(files: TlsFiles, client_ca: Path | None) -> ssl.SSLContext:
    """Return the context of the operator's own certificate, which asks clients for theirs if that serves for anything.

    Raises:
        AipagingError: The pair, or the clients' authorities, cannot be loaded.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(files.certificate, files.key)
    except (OSError, ssl.SSLError) as error:
        raise AipagingError(
            f"{files.certificate} and {files.key} are not a certificate and its key: {error}",
            code="CERTIFICATE_UNUSABLE",
            who=Who.OPERATOR,
            field="northbound.certificate",
        ) from error
    if client_ca is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.options |= ssl.OP_NO_TICKET  # resumed, a connection would outlive the certificate it was made with
        context.num_tickets = 0
        try:
            context.load_verify_locations(client_ca)
        except (OSError, ssl.SSLError) as error:
            raise AipagingError(
                f"{client_ca} holds no certificates of authorities: {error}",
                code="CERTIFICATE_UNUSABLE",
                who=Who.OPERATOR,
                field="northbound.client_ca",
            ) from error
    return context


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
