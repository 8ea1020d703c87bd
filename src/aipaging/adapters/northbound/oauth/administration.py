"""What an operator does about clients and token keys while the controller runs."""

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from aipaging.adapters.northbound.credentials import Caller
from aipaging.adapters.northbound.oauth import documents as d
from aipaging.adapters.northbound.oauth.access import Access
from aipaging.adapters.northbound.oauth.clients import RegisteredClient
from aipaging.adapters.northbound.operation import BASE, Operation, Reply
from aipaging.adapters.northbound.service import Northbound
from aipaging.core.foundation.errors import InvalidInputError, RefusedError
from aipaging.core.foundation.names import ClientId, checked_name
from aipaging.core.foundation.time import MS, Now
from aipaging.core.paging.state import State
from aipaging.runtime.http.exchange import NO_CONTENT, Answer, Request, json_answer

_CLIENT: Final = {"clientId": "app", "sessionsEnded": 2}


class Retirement(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """How a key is retired; `force`: although it signs or tokens signed with it are in use, for it was stolen."""

    force: Annotated[bool, Meta(description="Retire it although tokens that it signed are in use.")] = False


_RETIREMENT: Final = msgspec.json.Decoder(Retirement)


class AdministrationRoutes:
    """The operations on clients and keys."""

    def __init__(self, service: Northbound, access: Access) -> None:
        self._service = service
        self._access = access

    async def clients(self, request: Request, _caller: Caller) -> Answer:
        """List the clients."""
        request.parameters_of_query()
        access = self._access
        found = access.clients.listed()
        return json_answer(
            d.ClientList(
                clients=[self._described(client) for client in found],
                shut_out=sorted(access.revocations.clients),
            )
        )

    def _described(self, client: RegisteredClient) -> d.ClientDocument:
        return d.ClientDocument(
            client_id=client.client,
            tenant=client.tenant,
            role=client.role,
            scopes=sorted(client.scopes),
            keys=len(client.keys),
            shut_out=self._access.revocations.covers_client(client.client),
        )

    async def shut_out(self, request: Request, caller: Caller) -> Answer:
        """Take a client's tokens back and end its sessions."""
        client = self._client(request)
        if client == caller.client:
            raise RefusedError("a client cannot shut itself out: let another operator do it", code="INCOMPATIBLE_STATE")
        ended = await self._access.entitlement.shut_out(client)
        return json_answer(d.ClientShutOut(client_id=client, sessions_ended=ended))

    async def reinstate(self, request: Request, _caller: Caller) -> Answer:
        """Let a client come back."""
        await self._access.entitlement.reinstate(self._client(request))
        return NO_CONTENT

    def _client(self, request: Request) -> ClientId:
        client = ClientId(checked_name(request.parameters["clientId"], field="clientId"))
        if not self._access.entitlement.knows(client):
            raise InvalidInputError(f"there is no client {client}", code="NOT_FOUND", field="clientId")
        return client

    async def keys(self, request: Request, _caller: Caller) -> Answer:
        """List the token keys."""
        request.parameters_of_query()
        return self._keys()

    async def rotate(self, _request: Request, _caller: Caller) -> Answer:
        """Publish a new token key."""
        self._access.keys.rotate()
        return self._keys(status=201)

    async def retire(self, request: Request, _caller: Caller) -> Answer:
        """Remove a token key."""
        force = (await request.document(_RETIREMENT, optional=True)).force
        needed_ms = await self._service.control.view(_longest_ms)
        self._access.keys.retire(request.parameters["keyId"], needed_us=needed_ms * MS, force=force)
        return self._keys()

    def _keys(self, *, status: Literal[200, 201] = 200) -> Answer:
        keys = [
            d.TokenKeyDocument(
                key_id=key.kid,
                signs=key.signs,
                published_at=d.instant_of(key.published_us),
                replaced_at=None if key.replaced_us is None else d.instant_of(key.replaced_us),
            )
            for key in self._access.keys.listed()
        ]
        return json_answer(d.TokenKeyList(keys=keys), status=status)

    def operations(self) -> Sequence[Operation]:
        """Return the table of these operations."""
        # tidy: long because it is a table
        keys = Reply(meaning="The keys.", document=d.TokenKeyList, example=d.EXAMPLE_KEYS)
        on_client = ("INVALID_ARGUMENT", "NOT_FOUND", "INCOMPATIBLE_STATE")
        body = ("AI_PAGING.PAYLOAD_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE", "ABORTED", "INVALID_ARGUMENT")
        return [
            Operation(
                method="GET",
                path=f"{BASE}/clients",
                name="getClients",
                summary="List the clients",
                tag="Access",
                handler=self.clients,
                scope="ai-paging:clients:read",
                replies={200: Reply(meaning="The clients.", document=d.ClientList, example=d.EXAMPLE_CLIENTS)},
            ),
            Operation(
                method="POST",
                path=f"{BASE}/clients/{{clientId}}/shut-out",
                name="shutClientOut",
                summary="Take a client's tokens back and end its sessions",
                description="It stays out over restarts, until it is reinstated.",
                tag="Access",
                handler=self.shut_out,
                scope="ai-paging:clients:update",
                replies={200: Reply(meaning="It is out.", document=d.ClientShutOut, example=_CLIENT)},
                errors=on_client,
                protects=True,
            ),
            Operation(
                method="POST",
                path=f"{BASE}/clients/{{clientId}}/reinstate",
                name="reinstateClient",
                summary="Let a client come back",
                description="Tokens that it was issued before stay taken back.",
                tag="Access",
                handler=self.reinstate,
                scope="ai-paging:clients:update",
                replies={204: Reply(meaning="It may ask again.")},
                errors=on_client,
            ),
            Operation(
                method="GET",
                path=f"{BASE}/keys",
                name="getTokenKeys",
                summary="List the token keys: which one signs, and since when",
                tag="Access",
                handler=self.keys,
                scope="ai-paging:keys:read",
                replies={200: keys},
            ),
            Operation(
                method="POST",
                path=f"{BASE}/keys/rotate",
                name="rotateTokenKeys",
                summary="Publish a new token key",
                description="It signs 11 minutes later, when everybody has fetched it; no session is lost.",
                tag="Access",
                handler=self.rotate,
                scope="ai-paging:keys:update",
                replies={201: keys},
                errors=("INCOMPATIBLE_STATE",),
            ),
            Operation(
                method="POST",
                path=f"{BASE}/keys/{{keyId}}/retire",
                name="retireTokenKey",
                summary="Remove a token key",
                description="Refused while tokens that it signed may be in use, unless it was stolen (`force`).",
                tag="Access",
                handler=self.retire,
                scope="ai-paging:keys:update",
                request=Retirement,
                request_optional=True,
                request_example={"force": False},
                replies={200: keys},
                errors=(*body, "NOT_FOUND", "INCOMPATIBLE_STATE"),
                protects=True,
            ),
        ]


def _longest_ms(state: State, _now: Now) -> int:
    """Return how long a session's token may be in use: the limit may have been higher when a session began."""
    sessions = (session.duration_ms for session in state.sessions.values() if session.available)
    return max(state.settings.duration_s_max * 1000, max(sessions, default=0))
