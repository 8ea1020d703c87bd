"""What everybody may ask: health, readiness, the description of the interface, keys; and metrics for operators."""

from collections.abc import Callable, Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from aipaging.adapters.northbound import examples
from aipaging.adapters.northbound.credentials import Caller
from aipaging.adapters.northbound.documents.words import Sentence, Text, Url
from aipaging.adapters.northbound.metrics import Metrics
from aipaging.adapters.northbound.openapi_page import CONTENT_SECURITY_POLICY
from aipaging.adapters.northbound.operation import BASE, Operation, Reply
from aipaging.adapters.northbound.service import Northbound
from aipaging.runtime.http.exchange import Answer, Request, json_answer

HTML: Final = "text/html; charset=utf-8"

STALLED_S: Final = 5.0
"""A journal that takes longer is no slow disk any more: whoever pages waits with it, and should ask another."""


class Health(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The process runs."""

    status: Annotated[Literal["UP"], Meta(description="That it answers is all that it says.")]


class Readiness(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Whether sessions can be paged now, and if not, why."""

    status: Annotated[Literal["READY", "NOT_READY"], Meta(description="Whether sessions can be paged now.")]
    reasons: Annotated[list[Sentence], Meta(max_length=8, description="Why not.")]


class KeySet(msgspec.Struct, frozen=True, kw_only=True):
    """A JWK Set (RFC 7517)."""

    keys: Annotated[list[dict[str, Text]], Meta(max_length=64, description="Public keys.")]


class Discovery(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Where everything is."""

    issuer: Annotated[Url, Meta(description="`iss` of every token.")]
    api_base_url: Annotated[Url, Meta(description="Of the operations.")]
    gateway_url: Annotated[Url, Meta(description="Where requests for AI go.")]
    jwks_uri: Annotated[Url, Meta(description="Keys of tokens and receipts.")]
    openapi_url: Annotated[Url, Meta(description="The description of this interface.")]
    evidence_base_url: Annotated[Url, Meta(description="The log as static files.")]
    software: Annotated[Text, Meta(description="Name and version.")]


class DiscoveryRoutes:
    """The operations that describe the service itself."""

    def __init__(
        self, service: Northbound, metrics: Metrics, described: Callable[[], bytes], page: Callable[[], bytes]
    ) -> None:
        """Take what answers are made of; `described` returns the OpenAPI document, `page` the same for people."""
        self._service = service
        self._metrics = metrics
        self._described = described
        self._page = page

    async def health(self, _request: Request) -> Answer:
        """Answer that the process runs."""
        return json_answer(Health(status="UP"))

    async def readiness(self, _request: Request) -> Answer:
        """Answer whether sessions can be paged."""
        control = self._service.control
        reasons = [] if control.healthy else [control.ill or "the engine is not healthy"]
        if control.stalled_s > STALLED_S:
            reasons.append(f"the journal has not answered for {control.stalled_s:.0f} s")
        if not self._service.gateway_connected():
            reasons.append("no gateway is connected")
        document = Readiness(status="NOT_READY" if reasons else "READY", reasons=reasons)
        return json_answer(document, status=503 if reasons else 200)

    async def openapi(self, _request: Request) -> Answer:
        """Answer the description of this interface."""
        return Answer(body=self._described())

    async def reference(self, _request: Request) -> Answer:
        """Answer the description of this interface as a page for people."""
        return Answer(
            body=self._page(),
            media_type=HTML,
            headers=(
                (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
                (b"x-content-type-options", b"nosniff"),
                (b"referrer-policy", b"no-referrer"),
            ),
        )

    async def jwks(self, _request: Request) -> Answer:
        """Answer the public keys of tokens and receipts."""
        return json_answer(self._service.jwks(), headers=((b"access-control-allow-origin", b"*"),))

    async def discovery(self, _request: Request) -> Answer:
        """Answer where everything is."""
        service = self._service
        root = service.public_url.rstrip("/")
        return json_answer(
            Discovery(
                issuer=service.issuer,
                api_base_url=f"{root}{BASE}",
                gateway_url=service.gateway_url,
                jwks_uri=f"{root}/.well-known/jwks.json",
                openapi_url=f"{root}/openapi.json",
                evidence_base_url=f"{root}{BASE}/evidence",
                software=service.software,
            )
        )

    async def metrics(self, request: Request, _caller: Caller) -> Answer:
        """Answer the metrics."""
        body, media_type = await self._metrics.scraped(self._service.control, request.header(b"accept"))
        return Answer(body=body, media_type=media_type)

    def operations(self) -> Sequence[Operation]:
        """Return the table of these operations."""
        # tidy: long because it is a table
        return [
            Operation(
                method="GET",
                path="/healthz",
                name="getHealth",
                summary="Say that the process runs",
                tag="Service",
                handler=self.health,
                scope=None,
                replies={200: Reply(meaning="It does.", document=Health, example={"status": "UP"})},
                quiet=True,
            ),
            Operation(
                method="GET",
                path="/readyz",
                name="getReadiness",
                summary="Say whether this controller is able to page sessions",
                description="True only while the journal is writable and answers, this node leads, and a gateway is "
                "connected. What a kill switch or a lack of anchors refuses is told by the refusal: to take the "
                "controller out of service would help nobody.",
                tag="Service",
                handler=self.readiness,
                scope=None,
                replies={
                    200: Reply(meaning="It is.", document=Readiness, example={"status": "READY", "reasons": []}),
                    503: Reply(meaning="It is not.", document=Readiness, example=examples.NOT_READY),
                },
                quiet=True,
            ),
            Operation(
                method="GET",
                path="/openapi.json",
                name="getOpenApi",
                summary="Read this document",
                tag="Service",
                handler=self.openapi,
                scope=None,
                replies={
                    200: Reply(meaning="An OpenAPI 3.1 document.", document=dict, example={"openapi": "3.1.0"}),
                },
            ),
            Operation(
                method="GET",
                path="/reference",
                name="getReference",
                summary="Read this document as a page",
                description="For people: one page of HTML without scripts that loads nothing from anywhere else.",
                tag="Service",
                handler=self.reference,
                scope=None,
                replies={200: Reply(meaning="The page.", media_type=HTML, example="<!doctype html>...")},
            ),
            Operation(
                method="GET",
                path="/.well-known/jwks.json",
                name="getKeys",
                summary="Read the public keys of tokens and receipts",
                tag="Service",
                handler=self.jwks,
                scope=None,
                replies={200: Reply(meaning="The keys.", document=KeySet, example={"keys": [examples.JWK]})},
            ),
            Operation(
                method="GET",
                path="/.well-known/ai-paging",
                name="getDiscovery",
                summary="Read where everything is",
                tag="Service",
                handler=self.discovery,
                scope=None,
                replies={200: Reply(meaning="Where.", document=Discovery, example=examples.DISCOVERY)},
            ),
            Operation(
                method="GET",
                path="/metrics",
                name="getMetrics",
                summary="Read the metrics (Prometheus)",
                tag="Service",
                handler=self.metrics,
                scope="ai-paging:metrics:read",
                replies={
                    200: Reply(
                        meaning="Exposition text.", media_type="text/plain", example="aipaging_sessions_live 1.0\n"
                    )
                },
                quiet=True,
            ),
        ]
