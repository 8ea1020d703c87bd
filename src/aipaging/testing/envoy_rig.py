"""A real Envoy between real sockets: controller side, gateway and recording anchors in one place.

For the conformance kit, fault tests and benchmarks. The controller side (xDS, look-ups) runs in this process and can
be killed without a word; the anchors record what reached them, on their own clock.
"""

import asyncio
import contextlib
import hashlib
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import uvicorn
from uvicorn.server import ServerState

from aipaging.adapters.signing.ca import CertificateAuthority
from aipaging.adapters.signing.keys import KeyStore
from aipaging.adapters.signing.peer import server_context
from aipaging.adapters.signing.tokens import JwtSigner, JwtVerifier
from aipaging.adapters.steering.envoy.ads import AdsServer, XdsListener
from aipaging.adapters.steering.envoy.bootstrap import IDLE_S, Gateway, Listener
from aipaging.adapters.steering.envoy.driver import EnvoySteering
from aipaging.adapters.steering.envoy.steering_endpoint import Receive, Scope, Send
from aipaging.adapters.steering.envoy.supervisor import EnvoySupervisor
from aipaging.adapters.steering.envoy.tracing import TraceExport
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import AnchorId, ClientId, GatewayId, ServiceUri, SessionId, TenantId
from aipaging.core.foundation.time import MS, SECOND, BootUs, Now, WallUs
from aipaging.core.identity.claims import AistClaims, CommitClaims
from aipaging.core.steering.grant import AnchorEndpoint, SteeringGrant
from aipaging.runtime.peer_identity import peer_identity_protocol
from aipaging.testing.recording_anchor import HOST, RecordingAnchor
from aipaging.testing.stack import free_ports

TRUST_DOMAIN: Final = "rig.example"
CONTROLLER: Final = "controller-1"
GATEWAY: Final = GatewayId("gateway-1")
SERVICE: Final = ServiceUri("aisi://rig/echo/one")

TOKEN_LIFETIME_US: Final = 3_600 * SECOND
IN_FLIGHT_MAX: Final = 1_024
WIDE_MRPS: Final = 1_000_000_000
WIDE_BURST: Final = 100_000
"""A contract that nothing here exceeds: where guardrails are not the matter, they stay out of it."""

READY_S_MAX: Final = 60.0
ANSWER_S_MAX: Final = 60.0
"""Limits for what hangs, not for what is slow: a busy machine is no fault."""

KEEP_ALIVE_S: Final = 75
"""Longer than the gateway's idle timeout, so that it is always the gateway that closes."""


def system_now() -> Now:
    """Return this machine's clocks."""
    return Now(
        boot_us=BootUs(time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000), wall_us=WallUs(time.time_ns() // 1000)
    )


AccessLog = Callable[[bytes], None]
Answer = tuple[int, dict[bytes, bytes]]

FAULTS: Final[dict[str, Callable[[dict[bytes, bytes]], Answer]]] = {
    "garbage": lambda _: (200, {b"x-aipaging-lease-ms": b"\xff\xfe"}),
    "no-anchor": lambda h: (200, {k: v for k, v in h.items() if k != b"x-aipaging-anchor"}),
    "foreign-anchor": lambda h: (200, h | {b"x-aipaging-anchor": b"controller"}),
    "lease-negative": lambda h: (200, h | {b"x-aipaging-lease-ms": b"-5"}),
    "lease-text": lambda h: (200, h | {b"x-aipaging-lease-ms": b"1e9"}),
    "lease-huge": lambda h: (200, h | {b"x-aipaging-lease-ms": b"99999999999999"}),
    "lease-zero": lambda h: (200, h | {b"x-aipaging-lease-ms": b"0"}),
    "no-receipt": lambda h: (200, {k: v for k, v in h.items() if k != b"x-aipaging-commit"}),
    "no-rate": lambda h: (200, {k: v for k, v in h.items() if k != b"x-aipaging-rate-mrps"}),
    "rate-zero": lambda h: (200, h | {b"x-aipaging-rate-mrps": b"0"}),
    "burst-text": lambda h: (200, h | {b"x-aipaging-burst": b"1e9"}),
    "certificate-text": lambda h: (200, h | {b"x-aipaging-certificate": b"any"}),
    "no-generation": lambda h: (200, {k: v for k, v in h.items() if k != b"x-aipaging-generation"}),
    "old-term": lambda h: (200, h | {b"x-aipaging-term": b"0", b"x-aipaging-generation": b"0.0"}),
    "server-error": lambda h: (500, h),
    "forbidden": lambda h: (403, h),
    "redirect": lambda h: (302, h | {b"location": b"http://127.0.0.1:1/"}),
}
"""What a broken or hostile controller may answer; "silence" is the one without an answer."""


@dataclass(slots=True)
class Controller:
    """The controller side, whole in this process."""

    identity: Path
    driver: EnvoySteering
    xds: AdsServer
    look_up_port: int = 0
    fault: str | None = None
    installed: list[tuple[SessionId, Epoch, GatewayId]] = field(default_factory=list)
    look_ups: int = 0
    open: bool = True
    journal_open: asyncio.Event = field(default_factory=asyncio.Event)
    journalling: int = 0
    _server: asyncio.Server | None = None
    _state: ServerState = field(default_factory=ServerState)

    @classmethod
    def make(
        cls, identity: Path, *, xds_port: int = 0, look_up_port: int = 0, log: AccessLog | None = None
    ) -> "Controller":
        """Return a controller that is not started."""
        listener = XdsListener(host=HOST, port=xds_port, identity=identity, trust_domain=TRUST_DOMAIN, access_log=log)
        xds = AdsServer(listener)
        return cls(identity=identity, driver=EnvoySteering(xds, clock=system_now), xds=xds, look_up_port=look_up_port)

    async def start(self, verifier: JwtVerifier) -> None:
        """Open both listeners."""
        self.journal_open.set()
        await self.xds.start()
        endpoint = self.driver.endpoint(verifier=verifier, on_installed=self._on_installed, gate=lambda: self.open)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            self.look_ups += 1
            if self.fault == "silence":
                await asyncio.sleep(10)
            await endpoint(scope, receive, send if self.fault is None else self._faulty(send))

        config = uvicorn.Config(
            app,  # pyright: ignore[reportArgumentType]
            http=peer_identity_protocol(TRUST_DOMAIN),
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        config.load()
        protocol: Any = config.http_protocol_class
        self._server = await asyncio.get_running_loop().create_server(
            lambda: protocol(config=config, server_state=self._state, app_state={}),
            HOST,
            self.look_up_port,
            ssl=server_context(self.identity),
        )
        self.look_up_port = self._server.sockets[0].getsockname()[1]

    async def kill(self) -> None:
        """Close everything at once, without a word to anybody."""
        if self._server is not None:
            self._server.close()
            for connection in list(self._state.connections):
                connection.transport.abort()  # pyright: ignore[reportOptionalMemberAccess]
        await self.xds.stop()

    async def _on_installed(self, session: SessionId, anchor: AnchorId, epoch: Epoch, gateway: GatewayId) -> None:
        del anchor
        self.journalling += 1
        await self.journal_open.wait()
        self.journalling -= 1
        self.installed.append((session, epoch, gateway))

    def _faulty(self, send: Send) -> Send:
        async def altered(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                assert self.fault is not None
                status, headers = FAULTS[self.fault](dict(message["headers"]))
                message = {**message, "status": status, "headers": list(headers.items())}
            await send(message)

        return altered


@dataclass(slots=True)
class EnvoyRig:
    """Implements `testing.steering.SteeringRig` around a real Envoy."""

    directory: Path
    controller: Controller
    supervisor: EnvoySupervisor
    gateway: Gateway
    anchor_servers: dict[AnchorId, RecordingAnchor]
    client: httpx.AsyncClient
    signer: JwtSigner
    verifier: JwtVerifier
    authority: CertificateAuthority
    short_ms: int = 700
    rate_mrps: int = WIDE_MRPS
    burst: int = WIDE_BURST
    tokens: dict[SessionId, str] = field(default_factory=dict)

    @property
    def driver(self) -> EnvoySteering:
        """The driver that is checked."""
        return self.controller.driver

    @property
    def anchors(self) -> tuple[AnchorId, AnchorId]:
        """The first two anchors."""
        first, second, *_ = self.anchor_servers
        return first, second

    @property
    def url(self) -> str:
        """Where clients reach the gateway."""
        return f"{'https' if self.gateway.listener.certificate else 'http'}://{HOST}:{self.gateway.listener.port}"

    def now(self) -> Now:
        """Return the clocks."""
        return system_now()

    def session(self, *, lifetime_us: int = TOKEN_LIFETIME_US, certificate: str = "") -> SessionId:
        """Return a new session with a token of that lifetime, bound to the certificate of that hex digest, if any."""
        session = SessionId(str(uuid.uuid4()))
        now_us = system_now().wall_us
        claims = AistClaims(
            session=session,
            tenant=TenantId("tenant-1"),
            client=ClientId("client-1"),
            aisi=SERVICE,
            token_id=str(uuid.uuid4()),
            issued_us=now_us,
            expires_us=WallUs(now_us + lifetime_us),
            certificate=certificate,
        )
        self.tokens[session] = self.signer.sign_aist(claims)
        return session

    def grant(self, session: SessionId, anchor: AnchorId, epoch: Epoch, lease_ms: int) -> SteeringGrant:
        """Return a grant that starts now, with a real receipt."""
        now = system_now()
        expires_us = WallUs(now.wall_us + TOKEN_LIFETIME_US)
        claims = CommitClaims(
            session=session,
            tenant=TenantId("tenant-1"),
            aisi=SERVICE,
            anchor=anchor,
            epoch=epoch,
            lease_ms=lease_ms,
            rate_mrps=self.rate_mrps,
            burst=self.burst,
            delay_us=100_000,
            epsilon="0.01",
            epsilon_bound="0.005",
            token_id_sha256=hashlib.sha256(session.encode()).hexdigest(),
            commit_id=str(uuid.uuid4()),
            issued_us=now.wall_us,
            expires_us=expires_us,
        )
        return SteeringGrant(
            session=session,
            anchor=anchor,
            epoch=epoch,
            deadline_us=now.after(lease_ms * MS),
            token_expires_us=expires_us,
            receipt=self.signer.sign_commit(claims),
            rate_mrps=self.rate_mrps,
            burst=self.burst,
        )

    async def request(self, session: SessionId, headers: Mapping[str, str] | None = None) -> AnchorId | None:
        """Send one request; believe the anchor's record, not the answer."""
        before = {anchor: len(server.received) for anchor, server in self.anchor_servers.items()}
        reply = await self.send(session, headers=headers)
        if reply.status_code == 200:
            return AnchorId(reply.json()["anchor"])
        token = f"Bearer {self.tokens[session]}"
        for anchor, server in self.anchor_servers.items():
            late = [each for each in server.received[before[anchor] :] if each.headers.get("authorization") == token]
            assert not late, f"answered {reply.status_code} and yet reached {anchor}"
        return None

    async def send(
        self, session: SessionId, path: str = "/v1/echo", *, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Send one request as the session and return the whole answer."""
        authorization = {"authorization": f"Bearer {self.tokens[session]}"}
        return await self.client.post(f"{self.url}{path}", headers={**authorization, **(headers or {})}, content=b"x")

    async def advance(self, duration_ms: float) -> None:
        """Really wait."""
        await asyncio.sleep(duration_ms / 1000)

    async def answer_malformed(self, fault: str | None) -> bool:
        """Let look-ups be answered wrongly."""
        self.controller.fault = fault
        return True

    async def kill_controller(self) -> None:
        """End the controller side."""
        await self.controller.kill()

    async def restart_controller(self) -> None:
        """Put a new controller, which knows nothing, in the place of the killed one."""
        self.controller = Controller.make(
            self.controller.identity,
            xds_port=self.controller.xds.port,
            look_up_port=self.controller.look_up_port,
        )
        await self.controller.start(self.verifier)

    async def stop_gateway(self) -> None:
        """End whatever Envoy runs in the rig's directory, also one that a later supervisor started."""
        await self.supervisor.stop()

    async def place(self) -> None:
        """Announce the anchors."""
        await self.driver.place_anchors(
            [
                AnchorEndpoint(anchor=anchor, host=HOST, port=server.port, tls=False, in_flight_max=IN_FLIGHT_MAX)
                for anchor, server in self.anchor_servers.items()
            ]
        )

    async def connected(self) -> None:
        """Return when the gateway serves: it has the anchors and the route."""
        async with asyncio.timeout(READY_S_MAX):
            while True:
                with contextlib.suppress(httpx.TransportError):
                    await self.client.get(self.url)
                    return
                await asyncio.sleep(0.02)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What few rigs need of their gateway.

    Attributes:
        client_authority: Who vouches for clients' certificates.
        traces: Where spans go.
        idle_s: After so long the gateway ends a request on which nothing moves.
    """

    client_authority: Path | None = None
    traces: TraceExport | None = None
    idle_s: int = IDLE_S


NO_EXTRAS: Final = Extras()


@contextlib.asynccontextmanager
async def envoy_rig(
    directory: Path,
    *,
    tls: bool = False,
    workers: int = 1,
    anchors: int = 2,
    log: AccessLog | None = None,
    extras: Extras = NO_EXTRAS,
) -> AsyncGenerator[EnvoyRig]:
    """Start a controller side, recording anchors and an Envoy; yield when the gateway serves.

    `log` takes the messages of the gateway's access log.
    """
    authority = CertificateAuthority.open(directory / "ca", TRUST_DOMAIN)
    controller_identity, gateway_identity = directory / "controller", directory / "gateway"
    authority.write_identity(controller_identity, "controller", CONTROLLER, addresses=[HOST])
    authority.write_identity(gateway_identity, "gateway", GATEWAY, addresses=[HOST])
    keys = KeyStore.open(directory / "keys")
    verifier = JwtVerifier(keys.jwks(), "https://rig.example", lambda: system_now().wall_us)
    controller = Controller.make(controller_identity, log=log)
    servers = {name: RecordingAnchor(name) for name in (AnchorId(f"anchor-{n}") for n in range(1, anchors + 1))}
    async with contextlib.AsyncExitStack() as stack:
        for server in servers.values():
            await server.start()
            stack.callback(server.stop)
        await controller.start(verifier)
        pair = gateway_identity if tls else None
        gateway = Gateway(
            gateway=GATEWAY,
            trust_domain=TRUST_DOMAIN,
            listener=Listener(
                host=HOST,
                port=free_ports(1)[0],
                certificate=pair / "cert.pem" if pair else None,
                key=pair / "key.pem" if pair else None,
                client_authority=extras.client_authority,
            ),
            controller_id=CONTROLLER,
            controller_host=HOST,
            look_up_port=controller.look_up_port,
            xds_port=controller.xds.port,
            identity=gateway_identity,
            run_directory=directory / "envoy",
            workers=workers,
            idle_s=extras.idle_s,
            traces=extras.traces,
        )
        supervisor = EnvoySupervisor(gateway, drain_timeout_s=2.0)
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
        client = await stack.enter_async_context(
            httpx.AsyncClient(verify=False, http2=tls, timeout=ANSWER_S_MAX, limits=limits, trust_env=False)  # noqa: S501
        )
        rig = EnvoyRig(
            directory=directory,
            controller=controller,
            supervisor=supervisor,
            gateway=gateway,
            anchor_servers=servers,
            client=client,
            signer=JwtSigner(keys, "https://rig.example"),
            verifier=verifier,
            authority=authority,
        )
        stack.push_async_callback(rig.kill_controller)
        stack.push_async_callback(rig.stop_gateway)
        await supervisor.start()
        await rig.place()
        await rig.driver.reconcile(1, [])
        await rig.connected()
        yield rig
