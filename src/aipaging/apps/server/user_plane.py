"""The user plane that a controller runs: the driver, what gateways and sidecars ask it, and the Envoy it supervises."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from aipaging.adapters.steering.envoy.access_log import DROPPED_COUNTER
from aipaging.adapters.steering.envoy.ads import AdsServer, XdsListener
from aipaging.adapters.steering.envoy.bootstrap import Gateway, Listener
from aipaging.adapters.steering.envoy.driver import EnvoySteering
from aipaging.adapters.steering.envoy.supervisor import EnvoySupervisor
from aipaging.adapters.steering.envoy.tracing import TraceExport
from aipaging.adapters.steering.memory import MemorySteering
from aipaging.apps.server.config import ServerConfig
from aipaging.apps.server.identities import CONTROLLER_ID, Identities
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import AnchorId, GatewayId, SessionId
from aipaging.core.paging import commands as c
from aipaging.ports.revocation import Revocations, RevokedEpoch
from aipaging.ports.steering import SteeringDriver
from aipaging.runtime.engine import Engine

DROPPED_ASKED_S: Final = 2.0
"""How often the gateway is asked what it could not report: only verdicts that say `compliant` wait for it."""

_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what is listened on, not listening
"""Where a gateway of this machine reaches a controller that listens everywhere."""


class UserPlane(Protocol):
    """A driver with its surroundings."""

    @property
    def driver(self) -> SteeringDriver:
        """What the engine steers by."""
        ...

    @property
    def look_up(self) -> ASGIApp:
        """What answers gateways."""
        ...

    @property
    def connected(self) -> bool:
        """Whether a gateway is there."""
        ...

    async def since(self, term: int, sequence: int, *, wait_s: float) -> Revocations:
        """Return what was revoked after a place, waiting for the first entry."""
        ...

    async def dropped(self) -> int:
        """Return how many requests the gateway could not report."""
        ...

    async def open(self) -> None:
        """Let gateways in; they are told nothing before the engine reconciles."""
        ...

    async def start(self) -> None:
        """Start the gateway that this controller supervises."""
        ...

    async def stop(self) -> None:
        """Drain, and let go."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _NothingRevoked:
    term: int
    sequence: int
    reset: bool
    entries: Sequence[RevokedEpoch] = ()


class MemoryUserPlane:
    """No traffic at all: for trying the controller out where no gateway can run."""

    connected = True

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.driver: SteeringDriver = MemorySteering(engine.now)

    async def look_up(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse: there is no gateway that could ask."""
        await Response(status_code=503)(scope, receive, send)

    async def since(self, term: int, sequence: int, *, wait_s: float) -> Revocations:
        """Return nothing, after the wait: nothing is steered, so nothing is cut."""
        present = self._engine.state.term
        if term == present:
            await asyncio.sleep(wait_s)
        return _NothingRevoked(term=present, sequence=sequence, reset=term != present)

    async def dropped(self) -> int:
        """Return that nothing was lost: there is nothing."""
        return 0

    async def open(self) -> None:
        """Do nothing."""

    async def start(self) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Do nothing."""


class EnvoyUserPlane:
    """Envoy, supervised."""

    def __init__(
        self,
        config: ServerConfig,
        identities: Identities,
        engine: Engine,
        *,
        access_log: Callable[[bytes], None] | None = None,
    ) -> None:
        self._config = config
        self._engine = engine
        self._identities = identities
        listen = config.southbound.ads_listen
        self._xds = AdsServer(
            XdsListener(
                host=listen.host,
                port=listen.port,
                identity=identities.controller,
                trust_domain=config.operator.trust_domain,
                access_log=access_log,
            )
        )
        self._steering = EnvoySteering(self._xds, clock=engine.now)
        self.driver: SteeringDriver = self._steering
        self.look_up: ASGIApp = self._steering.endpoint(
            verifier=identities.verifier, on_installed=self._installed, gate=lambda: engine.healthy
        )
        self._supervisor = EnvoySupervisor(self._gateway())
        self._closing = asyncio.Event()
        self._dropped = 0
        self._dropped_asked_s = 0.0

    @property
    def connected(self) -> bool:
        """Whether a gateway is there."""
        return bool(self._steering.gateways)

    async def since(self, term: int, sequence: int, *, wait_s: float) -> Revocations:
        """Return what was revoked after a place, waiting for the first entry."""
        asked = asyncio.ensure_future(self._steering.revocations_since(term, sequence, wait_ms=int(wait_s * 1000)))
        closing = asyncio.ensure_future(self._closing.wait())
        await asyncio.wait({asked, closing}, return_when=asyncio.FIRST_COMPLETED)
        closing.cancel()
        if not asked.done():  # the controller stops: whoever waits is answered now, not cut off later
            asked.cancel()
            return await self._steering.revocations_since(term, sequence, wait_ms=0)
        return asked.result()

    async def dropped(self) -> int:
        """Return how many requests the gateway could not report; asked every few seconds, and as it was before."""
        if time.monotonic() - self._dropped_asked_s >= DROPPED_ASKED_S:
            self._dropped_asked_s = time.monotonic()
            counters = await self._supervisor.counters(DROPPED_COUNTER)
            self._dropped = max(self._dropped, sum(counters.values()))
        return self._dropped

    async def open(self) -> None:
        """Let gateways in; an Envoy that outlived the last controller comes back by itself."""
        await self._xds.start()

    async def start(self) -> None:
        """Adopt or start the Envoy."""
        await self._supervisor.start()

    async def stop(self) -> None:
        """Drain the Envoy and end it, then the discovery service."""
        self._closing.set()
        await self._supervisor.stop()
        await self._xds.stop()

    async def _installed(self, session: SessionId, anchor: AnchorId, epoch: Epoch, gateway: GatewayId) -> None:
        """Put a gateway's first take-up of an epoch into the journal before it may steer.

        Raises:
            AipagingError: The epoch is not live, or the journal did not take it: the gateway is told no.
        """
        await self._engine.submit(c.ConfirmInstalled(session=session, anchor=anchor, epoch=epoch, gateway=gateway))

    def _gateway(self) -> Gateway:
        plan, south = self._config.gateway, self._config.southbound
        tls = plan.tls
        identity = self._identities.gateway
        certificate = None if plan.plain_text else tls.certificate if tls else identity / "cert.pem"
        key = None if plan.plain_text else tls.key if tls else identity / "key.pem"
        return Gateway(
            gateway=plan.gateway,
            trust_domain=self._config.operator.trust_domain,
            listener=Listener(
                host=plan.listen.host,
                port=plan.listen.port,
                certificate=certificate,
                key=key,
                client_authority=plan.client_ca,
            ),
            controller_id=CONTROLLER_ID,
            controller_host=_ANYWHERE.get(south.listen.host, south.listen.host),
            look_up_port=south.listen.port,
            xds_port=south.ads_listen.port,
            identity=identity,
            run_directory=self._config.operator.data_dir / "gateway",
            workers=plan.concurrency,
            idle_s=plan.idle_s,
            traces=None
            if self._config.tracing_endpoint is None
            else TraceExport(endpoint=self._config.tracing_endpoint, requests_percent=self._config.traced_percent),
        )
