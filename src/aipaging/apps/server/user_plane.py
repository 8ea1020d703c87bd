"""The user plane that a controller runs: the driver, what gateways and sidecars ask it, and the Envoy it supervises."""

from typing import Final, Protocol

from starlette.types import ASGIApp

from aipaging.adapters.steering.envoy.ads import AdsServer, XdsListener
from aipaging.adapters.steering.envoy.bootstrap import Gateway, Listener
from aipaging.adapters.steering.envoy.driver import EnvoySteering
from aipaging.adapters.steering.envoy.supervisor import EnvoySupervisor
from aipaging.apps.server.config import ServerConfig
from aipaging.apps.server.identities import CONTROLLER_ID, Identities
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import AnchorId, GatewayId, SessionId
from aipaging.core.paging import commands as c
from aipaging.ports.revocation import Revocations
from aipaging.ports.steering import SteeringDriver
from aipaging.runtime.engine import Engine


_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what is listened on, not listening
"""Where a gateway of this machine reaches a controller that listens everywhere."""


class UserPlane(Protocol):
    """A driver with its surroundings."""

    driver: SteeringDriver
    look_up: ASGIApp

    @property
    def connected(self) -> bool:
        """Whether a gateway is there."""
        ...

    async def since(self, term: int, sequence: int, wait_s: float) -> Revocations:
        """Return what was revoked after a place, waiting for the first entry."""
        ...

    async def start(self) -> None:
        """Let gateways in."""
        ...

    async def stop(self) -> None:
        """Drain, and let go."""
        ...


class EnvoyUserPlane:
    """Envoy, supervised."""

    def __init__(self, config: ServerConfig, identities: Identities, engine: Engine) -> None:
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
            )
        )
        self.driver = EnvoySteering(self._xds, clock=engine.now)
        self.look_up: ASGIApp = self.driver.endpoint(
            verifier=identities.verifier, on_installed=self._installed, gate=lambda: engine.healthy
        )
        self._supervisor = EnvoySupervisor(self._gateway())

    @property
    def connected(self) -> bool:
        """Whether a gateway is there."""
        return bool(self.driver.gateways)

    async def since(self, term: int, sequence: int, wait_s: float) -> Revocations:
        """Return what was revoked after a place, waiting for the first entry."""
        page = await self.driver.revocations_since(term, sequence, wait_ms=int(wait_s * 1000))
        entries = tuple((entry.session, entry.epoch) for entry in page.entries)
        return Revocations(term=page.term, sequence=page.sequence, entries=entries, reset=page.reset)

    async def start(self) -> None:
        """Let gateways in, and adopt or start the Envoy."""
        await self._xds.start()
        await self._supervisor.start()

    async def stop(self) -> None:
        """Drain the Envoy and end it, then the discovery service."""
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
            listener=Listener(host=plan.listen.host, port=plan.listen.port, certificate=certificate, key=key),
            controller_id=CONTROLLER_ID,
            controller_host=_ANYWHERE.get(south.listen.host, south.listen.host),
            look_up_port=south.listen.port,
            xds_port=south.ads_listen.port,
            identity=identity,
            run_directory=self._config.operator.data_dir / "gateway",
            workers=plan.concurrency,
        )
