"""What is on offer: services, domains and anchors."""

from collections.abc import Sequence
from typing import Final

import msgspec

from aipaging.adapters.northbound import examples
from aipaging.adapters.northbound.credentials import Caller
from aipaging.adapters.northbound.documents.catalogue import (
    AnchorDocument,
    AnchorList,
    AnchorRequest,
    DomainList,
    ServiceList,
    anchor_document,
    anchor_of,
    domain_document,
    service_document,
)
from aipaging.adapters.northbound.operation import BASE, JSON_ERRORS, Operation, Reply
from aipaging.adapters.northbound.pages import first, whole_list
from aipaging.adapters.northbound.service import Northbound
from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import AnchorId, checked_name
from aipaging.core.paging import commands as c
from aipaging.core.paging.state import State
from aipaging.runtime.http.exchange import NO_CONTENT, Answer, Request, json_answer

_ANCHOR: Final = msgspec.json.Decoder(AnchorRequest)


class CatalogueRoutes:
    """The operations on services, domains and anchors."""

    def __init__(self, service: Northbound) -> None:
        self._control = service.control

    async def services(self, request: Request, _caller: Caller) -> Answer:
        """List the services."""
        return await whole_list(
            request,
            self._control,
            lambda state, _: ServiceList(
                services=[service_document(service) for service in first(state.catalogue.services)]
            ),
        )

    async def domains(self, request: Request, caller: Caller) -> Answer:
        """List the domains."""
        return await whole_list(
            request,
            self._control,
            lambda state, _: DomainList(
                domains=[
                    domain_document(state, domain, whole=caller.operator) for domain in first(state.catalogue.domains)
                ]
            ),
        )

    async def anchors(self, request: Request, _caller: Caller) -> Answer:
        """List the anchors."""
        return await whole_list(
            request,
            self._control,
            lambda state, _: AnchorList(
                anchors=[anchor_document(state, anchor) for anchor in first(state.catalogue.anchors)]
            ),
        )

    async def register(self, request: Request, _caller: Caller) -> Answer:
        """Register an anchor, or describe it anew."""
        anchor = anchor_of(await request.document(_ANCHOR))
        known = await self._control.view(lambda state, _: anchor.anchor in state.catalogue.anchors)
        await self._control.submit(c.RegisterAnchor(anchor=anchor))
        return json_answer(await self._anchor(anchor.anchor), status=200 if known else 201)

    async def remove(self, request: Request, _caller: Caller) -> Answer:
        """Take an anchor out of the catalogue."""
        await self._control.submit(c.RemoveAnchor(anchor=_anchor_of(request)))
        return NO_CONTENT

    async def drain(self, request: Request, _caller: Caller) -> Answer:
        """Let an anchor take nothing new, and move its sessions."""
        return await self._set(request, AnchorState.DRAINING)

    async def ready(self, request: Request, _caller: Caller) -> Answer:
        """Let a drained anchor take sessions again."""
        return await self._set(request, AnchorState.READY)

    async def _set(self, request: Request, to: AnchorState) -> Answer:
        anchor = _anchor_of(request)
        await self._control.submit(c.SetAnchorState(anchor=anchor, state=to, cause="OPERATOR"))
        return json_answer(await self._anchor(anchor))

    async def _anchor(self, anchor: AnchorId) -> AnchorDocument:
        def read(state: State, _now: object) -> AnchorDocument:
            found = state.catalogue.anchors.get(anchor)
            if found is None:
                raise InvalidInputError(f"there is no anchor {anchor}", code="NOT_FOUND", field="anchorId")
            return anchor_document(state, found)

        return await self._control.view(read)

    def operations(self) -> Sequence[Operation]:
        """Return the table of these operations."""
        # tidy: long because it is a table
        anchor_reply = Reply(meaning="The anchor.", document=AnchorDocument, example=examples.ANCHOR)
        on_anchor = ("INVALID_ARGUMENT", "NOT_FOUND", "INCOMPATIBLE_STATE")
        return [
            Operation(
                method="GET",
                path=f"{BASE}/services",
                name="getServices",
                summary="List the services",
                tag="Catalogue",
                handler=self.services,
                scope="ai-paging:services:read",
                replies={200: Reply(meaning="The services.", document=ServiceList, example=examples.SERVICES)},
            ),
            Operation(
                method="GET",
                path=f"{BASE}/domains",
                name="getDomains",
                summary="List the domains",
                description="Those of kind ACCESS are the places of an intent.",
                tag="Catalogue",
                handler=self.domains,
                scope="ai-paging:domains:read",
                replies={200: Reply(meaning="The domains.", document=DomainList, example=examples.DOMAINS)},
            ),
            Operation(
                method="GET",
                path=f"{BASE}/anchors",
                name="getAnchors",
                summary="List the anchors",
                tag="Anchors",
                handler=self.anchors,
                scope="ai-paging:anchors:read",
                replies={200: Reply(meaning="The anchors.", document=AnchorList, example=examples.ANCHORS)},
            ),
            Operation(
                method="POST",
                path=f"{BASE}/anchors",
                name="registerAnchor",
                summary="Register an anchor, or describe it anew",
                description="It takes sessions once its sidecar has sent a heartbeat.",
                tag="Anchors",
                handler=self.register,
                scope="ai-paging:anchors:create",
                request=AnchorRequest,
                request_example=examples.ANCHOR_REQUEST,
                replies={
                    201: anchor_reply,
                    200: Reply(meaning="It was known.", document=AnchorDocument, example=examples.ANCHOR),
                },
                errors=(*JSON_ERRORS, "NOT_FOUND"),
            ),
            Operation(
                method="DELETE",
                path=f"{BASE}/anchors/{{anchorId}}",
                name="deleteAnchor",
                summary="Take an anchor out of the catalogue",
                description="Refused while sessions are on it or its capacity is still held: drain it and wait.",
                tag="Anchors",
                handler=self.remove,
                scope="ai-paging:anchors:delete",
                replies={204: Reply(meaning="It is gone.")},
                errors=on_anchor,
            ),
            Operation(
                method="POST",
                path=f"{BASE}/anchors/{{anchorId}}/drain",
                name="drainAnchor",
                summary="Let an anchor take nothing new, and move its sessions away",
                tag="Anchors",
                handler=self.drain,
                scope="ai-paging:anchors:update",
                replies={200: anchor_reply},
                errors=on_anchor,
            ),
            Operation(
                method="POST",
                path=f"{BASE}/anchors/{{anchorId}}/ready",
                name="readyAnchor",
                summary="Let a drained anchor take sessions again",
                tag="Anchors",
                handler=self.ready,
                scope="ai-paging:anchors:update",
                replies={200: anchor_reply},
                errors=on_anchor,
            ),
        ]


def _anchor_of(request: Request) -> AnchorId:
    return AnchorId(checked_name(request.parameters["anchorId"], field="anchorId"))
