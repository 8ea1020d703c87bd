"""Who may ask, wired: clients, tokens, other issuers, revocations and the memory of what was verified."""

from collections.abc import Awaitable, Callable

from aipaging.adapters.northbound.credentials import ClientCredential, Role, StaticCredentials, scopes_of
from aipaging.adapters.northbound.oauth.access import Access
from aipaging.adapters.northbound.oauth.clients import Clients, RegisteredClient
from aipaging.adapters.northbound.oauth.doorkeeper import Doorkeeper
from aipaging.adapters.northbound.oauth.endpoints import audiences_of
from aipaging.adapters.northbound.oauth.entitlement import Entitlement
from aipaging.adapters.northbound.oauth.foreign import JwksIssuer
from aipaging.adapters.northbound.oauth.issuer import Issuer
from aipaging.adapters.northbound.oauth.revocations import Revocations
from aipaging.apps.server.config import Client, ServerConfig
from aipaging.apps.server.domain_keys import KeySource, published
from aipaging.apps.server.identities import Identities
from aipaging.apps.server.reloading import Step
from aipaging.core.foundation.time import WallUs
from aipaging.ports.control import ControlPlane


class AccessDesk:
    """Everything about who may ask, of one controller."""

    def __init__(
        self, config: ServerConfig, identities: Identities, control: ControlPlane, clock: Callable[[], WallUs]
    ) -> None:
        """Read what was taken back; nothing is fetched yet.

        Raises:
            AipagingError: What was taken back cannot be read.
        """
        self._config = config
        self._in_force = config.clients
        self._doors: tuple[Clients, Doorkeeper] | None = None
        self._identities = identities
        self._clock = clock
        self._revocations = Revocations(config.operator.data_dir / "oauth" / "revocations.json", clock)
        self._entitlement = Entitlement(
            control,
            self._revocations,
            configured=[client.client for client in config.clients],
            issuers=[each.plan.name for each in config.issuers],
        )
        came = self._entitlement.came
        self._foreign = [JwksIssuer(each.plan, _fetch(each.keys), clock, came) for each in config.issuers]

    async def begin(self) -> None:
        """Tell the engine who may hold sessions."""
        await self._entitlement.begin()

    async def close(self) -> None:
        """End what is under way."""
        for issuer in self._foreign:
            await issuer.close()

    def prepared(self, wanted: ServerConfig) -> Step:
        """See `LivePart.prepared`: the clients, their secrets, keys and scopes."""
        if wanted.clients == self._in_force or self._doors is None:
            return Step()
        clients, doorkeeper = self._doors
        registered = [_registered(client) for client in wanted.clients]
        static = _secrets(wanted)
        ids = [client.client for client in wanted.clients]

        def exchange() -> None:
            self._in_force = wanted.clients
            clients.exchange(registered)
            doorkeeper.exchange(static if self._config.northbound.static_secrets else None)
            self._entitlement.exchange(ids)

        return Step([self._entitlement.with_configured(ids)], exchange)

    def opened(self, public_url: str) -> tuple[Doorkeeper, Access]:
        """Return who asks and what is done about it, for an interface at a URL."""
        config, identities = self._config, self._identities
        clients = Clients(
            [_registered(client) for client in config.clients],
            audiences=audiences_of(identities.issuer, public_url),
            clock=self._clock,
        )
        static = _secrets(config)
        doorkeeper = Doorkeeper(
            clients,
            identities.verifier,
            self._revocations,
            static=static if config.northbound.static_secrets else None,
            foreign=self._foreign,
            clock=self._clock,
        )
        access = Access(
            issuer=Issuer(
                clients,
                identities.signer,
                identities.verifier,
                self._revocations,
                clock=self._clock,
                token_s=config.northbound.token_s,
            ),
            clients=clients,
            revocations=self._revocations,
            entitlement=self._entitlement,
            keys=identities.keys,
            clock=self._clock,
        )
        self._doors = clients, doorkeeper
        return doorkeeper, access


def _secrets(config: ServerConfig) -> StaticCredentials:
    return StaticCredentials([_static(client) for client in config.clients if client.secret_sha256])


def _registered(client: Client) -> RegisteredClient:
    role = _role(client)
    return RegisteredClient(
        client=client.client,
        tenant=client.tenant,
        role=role,
        scopes=scopes_of(role) & (client.scopes or scopes_of(role)),
        secret_sha256=bytes.fromhex(client.secret_sha256),
        keys=client.keys,
    )


def _static(client: Client) -> ClientCredential:
    return ClientCredential(
        client_id=client.client,
        tenant=client.tenant,
        role=_role(client),
        secret_sha256=client.secret_sha256,
        scopes=client.scopes or None,
    )


def _role(client: Client) -> Role:
    return "operator" if client.role == "operator" else "client"


def _fetch(source: KeySource) -> Callable[[], Awaitable[bytes]]:
    return lambda: published(source)
