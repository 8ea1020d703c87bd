"""What everybody may ask: health, readiness, the description of the interface, keys; and metrics for operators."""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from aipaging.adapters.northbound import examples
from aipaging.adapters.northbound.credentials import Caller
from aipaging.adapters.northbound.documents.words import Sentence, Text, Url
from aipaging.adapters.northbound.metrics import Metrics
from aipaging.adapters.northbound.operation import BASE, Operation, Reply
from aipaging.adapters.northbound.service import Northbound
from aipaging.runtime.http.exchange import Answer, Request, json_answer


class Health(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The process runs."""

    status: Literal["UP"]


class Readiness(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Whether sessions can be paged now, and if not, why."""

    status: Literal["READY", "NOT_READY"]
    reasons: Annotated[list[Sentence], Meta(max_length=8)]


class KeySet(msgspec.Struct, frozen=True, kw_only=True):
    """A JWK Set (RFC 7517)."""

    keys: Annotated[list[dict[str, Text]], Meta(max_length=64)]


class Discovery(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Where everything is."""

    issuer: Url
    api_base_url: Url
    gateway_url: Url
    jwks_uri: Url
    openapi_url: Url
    evidence_base_url: Url
    software: Text


class DiscoveryRoutes:
    """The operations that describe the service itself."""

    def __init__(self, service: Northbound, metrics: Metrics, described: Callable[[], bytes]) -> None:
        """Take what answers are made of; `described` returns the OpenAPI document."""
        self._service = service
        self._metrics = metrics
        self._described = described

    async def health(self, _request: Request) -> Answer:
        """Answer that the process runs."""
        return json_answer(Health(status="UP"))

    async def readiness(self, _request: Request) -> Answer:
        """Answer whether sessions can be paged."""
        control = self._service.control
        reasons = [] if control.healthy else [control.ill or "the engine is not healthy"]
        if not self._service.gateway_connected():
            reasons.append("no gateway is connected")
        document = Readiness(status="NOT_READY" if reasons else "READY", reasons=reasons)
        return json_answer(document, status=503 if reasons else 200)

    async def openapi(self, _request: Request) -> Answer:
        """Answer the description of this interface."""
        return Answer(body=self._described())

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
                summary="Say whether sessions can be paged",
                description="True only while the journal is writable, this node leads, and a gateway is connected.",
                tag="Service",
                handler=self.readiness,
                scope=None,
                replies={
                    200: Reply(meaning="They can.", document=Readiness, example={"status": "READY", "reasons": []}),
                    503: Reply(meaning="They cannot.", document=Readiness, example=examples.NOT_READY),
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
                replies={200: Reply(meaning="An OpenAPI 3.1 document.", document=dict)},
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
