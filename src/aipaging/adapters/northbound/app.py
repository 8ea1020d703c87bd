"""The factory of the public interface."""

from functools import cache
from typing import Any

import msgspec

from aipaging.adapters.northbound.audits import AuditRoutes
from aipaging.adapters.northbound.catalogue import CatalogueRoutes
from aipaging.adapters.northbound.configuration import ConfigurationRoutes
from aipaging.adapters.northbound.discovery import DiscoveryRoutes
from aipaging.adapters.northbound.envelopes import EnvelopeRoutes
from aipaging.adapters.northbound.events import EventRoutes
from aipaging.adapters.northbound.evidence import EvidenceRoutes
from aipaging.adapters.northbound.oauth.administration import AdministrationRoutes
from aipaging.adapters.northbound.oauth.endpoints import OAuthRoutes
from aipaging.adapters.northbound.openapi import openapi_document
from aipaging.adapters.northbound.openapi_page import openapi_page
from aipaging.adapters.northbound.operation import Operation, route_of
from aipaging.adapters.northbound.policies import PolicyRoutes
from aipaging.adapters.northbound.rate_limits import Limits
from aipaging.adapters.northbound.service import Northbound
from aipaging.adapters.northbound.sessions import SessionRoutes
from aipaging.adapters.northbound.sinks import SinkRoutes
from aipaging.adapters.northbound.switches import SwitchRoutes
from aipaging.adapters.northbound.tenants import TenantRoutes
from aipaging.adapters.northbound.usage import UsageRoutes
from aipaging.adapters.northbound.wording import WordingRoutes
from aipaging.runtime.http.routing import HttpApp


def northbound_app(service: Northbound) -> HttpApp:
    """Return the public interface as an ASGI application."""
    limits = Limits(service.rates, service.operator_rates)
    routes = [
        route_of(operation, service.authenticator, limits, service.control) for operation in operations_of(service)
    ]
    return HttpApp(routes, observe=service.metrics.observe, tracer=service.tracer)


def operations_of(service: Northbound) -> list[Operation]:
    """Return the whole table of operations, the description of the interface among them."""
    operations: list[Operation] = []

    @cache
    def document() -> dict[str, Any]:
        return openapi_document(operations, server_url=service.public_url)

    @cache
    def description() -> bytes:
        return msgspec.json.encode(document())

    @cache
    def page() -> bytes:
        return openapi_page(document())

    for routes in (
        SessionRoutes(service),
        WordingRoutes(service),
        CatalogueRoutes(service),
        EnvelopeRoutes(service),
        TenantRoutes(service),
        UsageRoutes(service),
        SwitchRoutes(service),
        PolicyRoutes(service),
        EventRoutes(service),
        SinkRoutes(service),
        EvidenceRoutes(service),
        AuditRoutes(service),
        DiscoveryRoutes(service, service.metrics, description, page),
    ):
        operations += routes.operations()
    if service.configuration is not None:
        operations += ConfigurationRoutes(service.configuration).operations()
    if service.access is not None:
        operations += OAuthRoutes(service, service.access).operations()
        operations += AdministrationRoutes(service, service.access).operations()
    return operations
