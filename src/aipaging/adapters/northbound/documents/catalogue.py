"""Services, domains and anchors on the wire."""

from typing import Annotated

import msgspec
from msgspec import Meta

from aipaging.adapters.northbound.documents.words import (
    ANSWER_ITEMS_MAX,
    DATA_CLASS_WORDS,
    DOMAIN_KIND_WORDS,
    END,
    RATE_RPS_MAX,
    Aisi,
    Count,
    DataClassWord,
    DomainKindWord,
    Language,
    Name,
    Port,
    Price,
    RatePerSecond,
    Text,
    Trust,
    rate_of,
)
from aipaging.core.anchor.catalogue import Anchor, AnchorState, Domain, Service
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import AnchorId, DomainName, ServiceUri
from aipaging.core.lease.queues import EVERYBODY
from aipaging.core.paging.state import State

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class ScoreDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A score that the operator vouches for."""

    benchmark: Annotated[Text, Meta(description="Which one.")]
    score: Annotated[float, Meta(ge=-1e9, le=1e9, description="What the variant reaches there.")]


class ServiceDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One variant of an AI service."""

    aisi: Aisi
    task: Annotated[Text, Meta(description="What it does.")]
    modality: Annotated[Text, Meta(description="What goes in.")]
    model: Annotated[Text, Meta(description="Which model it is.")]
    languages: Annotated[
        list[Language], Meta(max_length=256, description="ISO 639 codes; empty: not a matter of language.")
    ]
    scores: Annotated[list[ScoreDocument], Meta(max_length=256, description="What the operator vouches for.")]
    licence: Annotated[Text, Meta(description="Of the model.")]
    price: Price


class ServiceList(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The catalogue."""

    services: Annotated[list[ServiceDocument], Meta(max_length=ANSWER_ITEMS_MAX, description="All that may be paged.")]


class TenantReservation(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What one tenant has reserved in a domain."""

    tenant: Name
    reserved_per_second: RatePerSecond


class DomainDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """An administrative domain; what may be and is reserved in it is shown to operators only."""

    name: Name
    kind: Annotated[DomainKindWord, Meta(description="Its part of the path.")]
    region: Annotated[Text, Meta(description="Where it is.")]
    jurisdiction: Annotated[Text, Meta(description="Whose law applies there.")]
    trust: Trust
    data_class_max: Annotated[DataClassWord, Meta(description="The most sensitive data that it may see.")]
    capacity_per_second: Annotated[RatePerSecond, Meta(description="0 is unlimited.")] | None = None
    reserved_per_second: RatePerSecond | None = None
    tenants: Annotated[
        list[TenantReservation], Meta(max_length=ANSWER_ITEMS_MAX, description="Who has reserved how much of it.")
    ] = []


class DomainList(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Every domain; those of kind ACCESS are the places of an intent."""

    domains: Annotated[list[DomainDocument], Meta(max_length=ANSWER_ITEMS_MAX, description="All of them.")]


class AnchorRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """An anchor to register: one endpoint that executes one service in one domain."""

    anchor_id: Name
    domain: Name
    aisi: Aisi
    host: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=253,
            pattern="^[A-Za-z0-9._:-]+" + END,
            description="Name or address of its sidecar.",
        ),
    ]
    port: Annotated[Port, Meta(description="Of its sidecar.")]
    capacity_per_second: Annotated[
        float, Meta(ge=0.001, le=RATE_RPS_MAX, description="Requests per second that may be reserved at it.")
    ]
    tls: Annotated[bool, Meta(description="Mutual TLS to its sidecar; without it only on loopback.")] = True
    in_flight_max: Annotated[int, Meta(ge=1, le=1_000_000, description="Requests that it works on at once.")] = 64


class AnchorDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An AI execution anchor (AEXF)."""

    anchor_id: Name
    domain: Name
    aisi: Aisi
    host: Annotated[str, Meta(max_length=253, description="Name or address of its sidecar.")]
    port: Annotated[Port, Meta(description="Of its sidecar.")]
    tls: Annotated[bool, Meta(description="Whether it is reached by mutual TLS.")]
    capacity_per_second: RatePerSecond
    in_flight_max: Annotated[Count, Meta(description="Requests that it works on at once.")]
    state: AnchorState
    reserved_per_second: RatePerSecond
    sessions: Annotated[Count, Meta(description="Sessions that it serves now.")]


class AnchorList(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Every anchor."""

    anchors: Annotated[list[AnchorDocument], Meta(max_length=ANSWER_ITEMS_MAX, description="All of them.")]


def anchor_of(document: AnchorRequest) -> Anchor:
    """Return the anchor that a document says.

    Raises:
        InvalidInputError: It would be reached without TLS beyond loopback.
    """
    if not document.tls and document.host not in _LOOPBACK:
        raise InvalidInputError(
            f"tls is false and host is {document.host}: without TLS only 127.0.0.1, ::1 and localhost are allowed",
            field="tls",
        )
    return Anchor(
        anchor=AnchorId(document.anchor_id),
        domain=DomainName(document.domain),
        aisi=ServiceUri(document.aisi),
        host=document.host,
        port=document.port,
        tls=document.tls,
        capacity_mrps=int(document.capacity_per_second * 1000 + 0.5),
        in_flight_max=document.in_flight_max,
    )


def anchor_document(state: State, anchor: Anchor) -> AnchorDocument:
    """Return the document of an anchor."""
    return AnchorDocument(
        anchor_id=anchor.anchor,
        domain=anchor.domain,
        aisi=anchor.aisi,
        host=anchor.host,
        port=anchor.port,
        tls=anchor.tls,
        capacity_per_second=rate_of(anchor.capacity_mrps),
        in_flight_max=anchor.in_flight_max,
        state=anchor.state,
        reserved_per_second=rate_of(state.ledger.anchor_mrps(anchor.anchor)),
        sessions=len(state.on_anchor.get(anchor.anchor, ())),
    )


def service_document(service: Service) -> ServiceDocument:
    """Return the document of a service."""
    return ServiceDocument(
        aisi=service.aisi,
        task=service.task,
        modality=service.modality,
        model=service.model,
        languages=list(service.languages),
        scores=[ScoreDocument(benchmark=benchmark, score=score) for benchmark, score in service.scores],
        licence=service.licence,
        price=service.price,
    )


def domain_document(state: State, domain: Domain, *, whole: bool) -> DomainDocument:
    """Return the document of a domain; `whole` with what is reserved in it."""
    return DomainDocument(
        name=domain.name,
        kind=DOMAIN_KIND_WORDS[domain.kind],
        region=domain.region,
        jurisdiction=domain.jurisdiction,
        trust=domain.trust,
        data_class_max=DATA_CLASS_WORDS[domain.data_class_max],
        capacity_per_second=rate_of(domain.capacity_mrps) if whole else None,
        reserved_per_second=rate_of(state.ledger.domain_mrps(domain.name)) if whole else None,
        tenants=_tenants(state, domain.name) if whole else [],
    )


def _tenants(state: State, domain: DomainName) -> list[TenantReservation]:
    """Return what each tenant has reserved, the largest first."""
    found = [
        TenantReservation(tenant=tenant, reserved_per_second=rate_of(reserved.rate_mrps))
        for (name, tenant), reserved in state.ledger.sums.items()
        if name == domain and tenant != EVERYBODY and reserved.rate_mrps
    ]
    return sorted(found, key=lambda each: (-each.reserved_per_second, each.tenant))[:ANSWER_ITEMS_MAX]
