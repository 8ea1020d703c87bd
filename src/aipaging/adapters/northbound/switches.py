"""Kill switches: stop a tenant, a service, an anchor, or everything, at once."""

from collections.abc import Sequence
from typing import Final

import msgspec

from aipaging.adapters.northbound.credentials import Caller
from aipaging.adapters.northbound.documents.tenancy import SwitchList, SwitchRequest, switch_document
from aipaging.adapters.northbound.operation import BASE, JSON_ERRORS, Operation, Reply
from aipaging.adapters.northbound.service import Northbound
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import TenantId, checked_name, service_uri
from aipaging.core.paging import commands as c
from aipaging.core.paging.kill_check import CheckKill, KillChecked
from aipaging.core.paging.tenancy_events import SwitchKind
from aipaging.runtime.http.exchange import Answer, Request, json_answer

_SWITCH: Final = msgspec.json.Decoder(SwitchRequest)

EXAMPLE: Final[dict[str, object]] = {"kind": "TENANT", "name": "acme", "reason": "credentials leaked"}
_LIST: Final[dict[str, object]] = {"switches": [{**EXAMPLE, "killedAt": "2026-11-22T16:00:00Z"}]}


class SwitchRoutes:
    """The operations on kill switches."""

    def __init__(self, service: Northbound) -> None:
        self._control = service.control
        self._access = service.access

    async def switches(self, request: Request, _caller: Caller) -> Answer:
        """List the switches that are thrown."""
        request.parameters_of_query()
        return await self._listed()

    async def kill(self, request: Request, _caller: Caller) -> Answer:
        """Throw a switch."""
        kind, name, reason = _wanted(await request.document(_SWITCH))
        # This waits for no journal: what is known stops at once, also while the disk hangs.
        checked = await self._control.submit(CheckKill(kind=kind, name=name, tenants=self._tenants()))
        await self._control.submit(c.Kill(kind=kind, name=name, reason=reason))
        return await self._listed(checked.note if isinstance(checked, KillChecked) else "")

    def _tenants(self) -> tuple[TenantId, ...] | None:
        if self._access is None:
            return None
        return tuple({client.tenant for client in self._access.clients.listed()})

    async def restore(self, request: Request, _caller: Caller) -> Answer:
        """Take a switch back."""
        kind, name, reason = _wanted(await request.document(_SWITCH))
        await self._control.submit(c.Restore(kind=kind, name=name, reason=reason))
        return await self._listed()

    async def _listed(self, note: str = "") -> Answer:
        return json_answer(
            await self._control.view(
                lambda state, _: SwitchList(
                    switches=[switch_document(each) for each in state.tenancy.switches.values()], note=note
                )
            )
        )

    def operations(self) -> Sequence[Operation]:
        """Return the table of these operations."""
        reply = {200: Reply(meaning="The switches that are thrown.", document=SwitchList, example=_LIST)}
        return [
            Operation(
                method="GET",
                path=f"{BASE}/switches",
                name="getSwitches",
                summary="List the kill switches that are thrown",
                tag="Switches",
                handler=self.switches,
                scope="ai-paging:switches:read",
                replies=reply,
            ),
            Operation(
                method="POST",
                path=f"{BASE}/switches/kill",
                name="kill",
                summary="Stop a tenant, a service, an anchor, or everything",
                description="Sessions end and steering is revoked at once; new pages are refused with the reason. It "
                "stands until it is restored, over restarts, and works while the journal takes only what restricts. "
                "An anchor or service that is neither registered nor in use is NOT_FOUND, and nothing is stopped. A "
                "tenant may be killed before its first request; where nobody knows it, `note` says so.",
                tag="Switches",
                handler=self.kill,
                scope="ai-paging:switches:update",
                request=SwitchRequest,
                request_example=EXAMPLE,
                replies=reply,
                errors=(*JSON_ERRORS, "NOT_FOUND"),
                protects=True,
            ),
            Operation(
                method="POST",
                path=f"{BASE}/switches/restore",
                name="restore",
                summary="Take a kill back",
                description="What it ended stays ended.",
                tag="Switches",
                handler=self.restore,
                scope="ai-paging:switches:update",
                request=SwitchRequest,
                request_example=EXAMPLE,
                replies=reply,
                errors=(*JSON_ERRORS, "NOT_FOUND"),
            ),
        ]


def _wanted(document: SwitchRequest) -> tuple[SwitchKind, str, str]:
    """Return what a document is about.

    Raises:
        InvalidInputError: The name is not one of its kind.
    """
    kind = SwitchKind(document.kind)
    if kind is SwitchKind.ALL:
        if document.name:
            raise InvalidInputError("ALL has no name", field="name")
    elif kind is SwitchKind.SERVICE:
        service_uri(document.name, field="name")
    else:
        checked_name(document.name, field="name")
    return kind, document.name, document.reason
