"""Who may hold sessions: the clients of the configuration, and those of other issuers that came in; less the shut out.

The engine is told of the whole set whenever it changes. A client of another issuer is known by the name of its issuer,
so that after a restart its sessions go on although it has not asked for anything yet.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

from aipaging.adapters.northbound.oauth.revocations import Revocations
from aipaging.core.foundation.errors import RefusedError, UnavailableError
from aipaging.core.foundation.names import ClientId, SessionId
from aipaging.core.paging import commands as c
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.core.paging.state import State
from aipaging.ports.control import ControlPlane

FOREIGN_MAX: Final = 10_000
"""Clients of other issuers since the start, about 1 MB; one beyond it is refused, not forgotten."""


class Entitlement:
    """Keeps the engine's set of entitled clients."""

    def __init__(
        self,
        control: ControlPlane,
        revocations: Revocations,
        *,
        configured: Sequence[ClientId],
        issuers: Sequence[str] = (),
    ) -> None:
        """Take who may hold sessions.

        Args:
            control: The engine.
            revocations: Who was shut out.
            configured: The clients of the configuration.
            issuers: Names of the other issuers.
        """
        self._control = control
        self._revocations = revocations
        self._configured = frozenset(configured)
        self._prefixes = tuple(f"{issuer}." for issuer in issuers)
        self._foreign: set[ClientId] = set()
        self._changing = asyncio.Lock()

    async def begin(self) -> None:
        """Entitle who is known now, the clients of other issuers that hold sessions among them."""
        holders = await self._control.view(lambda state, _: {each.client for each in state.sessions.values()})
        self._foreign |= {client for client in holders if client.startswith(self._prefixes)}
        await self._apply()

    async def came(self, client: ClientId) -> None:
        """Entitle a client of another issuer that has proved itself.

        Raises:
            UnavailableError: There are too many.
        """
        if client in self._foreign or self._revocations.covers_client(client):
            return
        if len(self._foreign) >= FOREIGN_MAX:
            raise UnavailableError(f"more than {FOREIGN_MAX} clients of other issuers came since the start")
        self._foreign.add(client)
        await self._apply()

    def with_configured(self, configured: Sequence[ClientId]) -> c.EntitleClients:
        """Return what tells the engine that these are the clients of the configuration."""
        return self._entitled(frozenset(configured))

    def exchange(self, configured: Sequence[ClientId]) -> None:
        """Know these clients of the configuration from now on."""
        self._configured = frozenset(configured)

    def knows(self, client: str) -> bool:
        """Tell whether there is such a client."""
        return client in self._configured or client in self._foreign or client.startswith(self._prefixes)

    async def shut_out(self, client: ClientId) -> int:
        """Take a client's tokens back and end its sessions; return how many ended.

        Raises:
            UnavailableError: It could not be made durable; what is in force stays in force.
        """
        await self._revocations.take_back_client(client)
        await self._apply()
        ended = 0
        for session in await self._control.view(lambda state, _: _live(state, client)):
            with contextlib.suppress(RefusedError):  # it ended by itself meanwhile
                await self._control.submit(c.End(session=session, status_info=StatusInfo.NETWORK_TERMINATED))
                ended += 1
        return ended

    async def reinstate(self, client: ClientId) -> None:
        """Let a client come back.

        Raises:
            UnavailableError: It could not be made durable.
        """
        await self._revocations.reinstate(client)
        await self._apply()

    async def _apply(self) -> None:
        async with self._changing:
            await self._control.submit(self._entitled(self._configured))

    def _entitled(self, configured: frozenset[ClientId]) -> c.EntitleClients:
        entitled = (configured | self._foreign) - self._revocations.clients
        return c.EntitleClients(clients=tuple(sorted(entitled)))


def _live(state: State, client: ClientId) -> list[SessionId]:
    return [each.session for each in state.sessions.values() if each.client == client and each.available]
