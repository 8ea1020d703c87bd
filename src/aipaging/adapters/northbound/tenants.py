"""Tenants and their quotas."""

from collections.abc import Sequence
from typing import Final

import msgspec

from aipaging.adapters.northbound.credentials import Caller
from aipaging.adapters.northbound.documents.tenancy import (
    TenantDocument,
    TenantList,
    TenantRequest,
    tenant_document,
    tenant_of,
)
from aipaging.adapters.northbound.operation import BASE, JSON_ERRORS, Operation, Reply
from aipaging.adapters.northbound.pages import first, whole_list
from aipaging.adapters.northbound.service import Northbound
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import TenantId, checked_name
from aipaging.core.foundation.time import Now
from aipaging.core.paging import commands as c
from aipaging.core.paging.state import State
from aipaging.runtime.http.exchange import Answer, Request, json_answer

_TENANT: Final = msgspec.json.Decoder(TenantRequest)

EXAMPLE: Final[dict[str, object]] = {
    "quotas": {
        "sessionsMax": 100,
        "requestsPerSecondMax": 500.0,
        "reservedPerSecondMax": 600.0,
        "spendMax": 50000000,
        "periodS": 86400,
    },
    "priority": "STANDARD",
    "preempts": False,
}
_ANSWER: Final[dict[str, object]] = {
    "tenant": "acme",
    **EXAMPLE,
    "holds": {
        "sessions": 3,
        "requestsPerSecond": 60.0,
        "reservedPerSecond": 80.0,
        "spent": 1200000,
        "periodEndsAt": "2026-11-23T00:00:00Z",
    },
}


class TenantRoutes:
    """The operations on tenants."""

    def __init__(self, service: Northbound) -> None:
        self._control = service.control

    async def tenants(self, request: Request, _caller: Caller) -> Answer:
        """List the registered tenants."""
        return await whole_list(
            request,
            self._control,
            lambda state, now: TenantList(
                tenants=[tenant_document(state, tenant, now) for tenant in first(state.tenancy.tenants)]
            ),
        )

    async def tenant(self, request: Request, caller: Caller) -> Answer:
        """Answer one tenant; a client may read its own."""
        name = _tenant_of(request)
        if not caller.operator and caller.tenant != name:
            raise InvalidInputError(f"there is no tenant {name}", code="NOT_FOUND", field="tenant")
        return json_answer(await self._document(name))

    async def register(self, request: Request, _caller: Caller) -> Answer:
        """Register a tenant, or describe it anew."""
        name = _tenant_of(request)
        await self._control.submit(c.RegisterTenant(tenant=tenant_of(name, await request.document(_TENANT))))
        return json_answer(await self._document(name))

    async def _document(self, name: TenantId) -> TenantDocument:
        def read(state: State, now: Now) -> TenantDocument:
            found = state.tenancy.tenants.get(name)
            if found is None:
                raise InvalidInputError(f"there is no tenant {name}", code="NOT_FOUND", field="tenant")
            return tenant_document(state, found, now)

        return await self._control.view(read)

    def operations(self) -> Sequence[Operation]:
        """Return the table of these operations."""
        one = Reply(meaning="The tenant.", document=TenantDocument, example=_ANSWER)
        return [
            Operation(
                method="GET",
                path=f"{BASE}/tenants",
                name="getTenants",
                summary="List the registered tenants, their quotas and what they hold",
                tag="Tenants",
                handler=self.tenants,
                scope="ai-paging:tenants:read",
                replies={200: Reply(meaning="Them.", document=TenantList, example={"tenants": [_ANSWER]})},
            ),
            Operation(
                method="GET",
                path=f"{BASE}/tenants/{{tenant}}",
                name="getTenant",
                summary="Read a tenant",
                description="A client reads its own tenant.",
                tag="Tenants",
                handler=self.tenant,
                scope="ai-paging:sessions:read",
                replies={200: one},
                errors=("INVALID_ARGUMENT", "NOT_FOUND"),
            ),
            Operation(
                method="PUT",
                path=f"{BASE}/tenants/{{tenant}}",
                name="putTenant",
                summary="Register a tenant, or describe it anew",
                description="Quotas count for what is admitted from then on: what a tenant holds beyond them it keeps.",
                tag="Tenants",
                handler=self.register,
                scope="ai-paging:tenants:update",
                request=TenantRequest,
                request_example=EXAMPLE,
                replies={200: one},
                errors=JSON_ERRORS,
            ),
        ]


def _tenant_of(request: Request) -> TenantId:
    return TenantId(checked_name(request.parameters["tenant"], field="tenant"))
