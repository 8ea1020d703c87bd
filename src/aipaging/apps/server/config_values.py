"""The core's own values of a configuration whose tables are free of mistakes."""

import hashlib
import math

from aipaging.apps.server.config_checks import Tables
from aipaging.apps.server.config_fields import HostPort, Table
from aipaging.apps.server.config_notification import NotificationPlan, OperatorSink, networks
from aipaging.core.anchor.catalogue import Anchor, Catalogue, Domain, DomainKind, Path, Service
from aipaging.core.anchor.intent import DataClass
from aipaging.core.calculus.risk_budget import DelayContract
from aipaging.core.envelope.envelope import Dependence, Envelope
from aipaging.core.foundation.canonical import canonical_json
from aipaging.core.foundation.names import AnchorId, DomainName, ServiceUri, TenantId
from aipaging.core.foundation.time import WallUs
from aipaging.core.identity.tenant import PriorityClass, Quotas, Tenant
from aipaging.core.lease.machine import LeaseTerms
from aipaging.core.paging.settings import Settings


def settings_of(tables: Tables) -> Settings:
    """Return the engine's settings."""
    lease, limits = tables.one["lease"].values, tables.one["limits"].values
    terms = {key: value for key, value in lease.items() if key != "lease_ms_max"}
    return Settings(lease=LeaseTerms(**terms), lease_ms_max=lease["lease_ms_max"], **limits)


def tenants_of(tables: Tables) -> tuple[Tenant, ...]:
    """Return the tenants."""
    return tuple(
        Tenant(
            tenant=TenantId(table.get("name")),
            quotas=Quotas(
                sessions_max=table.get("sessions_max"),
                requests_mrps_max=round(table.get("requests_rps_max") * 1000),
                reserved_mrps_max=round(table.get("reserved_rps_max") * 1000),
                spend_max=table.get("spend_max"),
                period_s=table.get("period_s"),
            ),
            priority=PriorityClass[table.get("priority").upper()],
            preempts=table.get("preempts"),
        )
        for table in tables.many["tenant"]
    )


def notification_of(tables: Tables) -> NotificationPlan:
    """Return where events are pushed."""
    plan = tables.one["notification"]
    return NotificationPlan(
        allow_networks=networks(plan.get("allow_networks")),
        ca=plan.get("ca"),
        sinks=tuple(
            OperatorSink(
                name=table.get("name"),
                url=table.get("url"),
                token_file=table.get("token_file"),
                events=frozenset(table.get("events")),
            )
            for table in tables.many["sink"]
        ),
    )


def catalogue_of(tables: Tables) -> Catalogue:
    """Return everything that is on offer."""
    envelopes = [_envelope(table) for table in tables.many["envelope"]]
    paths = [_path(table) for table in tables.many["path"]]
    return Catalogue(
        services={table.get("aisi"): Service(**table.values) for table in tables.many["service"]},
        domains={table.get("name"): _domain(table) for table in tables.many["domain"]},
        paths={(path.access, path.compute): path for path in paths},
        anchors={table.get("id"): _anchor(table) for table in tables.many["anchor"]},
        envelopes={(envelope.domain, envelope.segment): envelope for envelope in envelopes},
    )


def _domain(table: Table) -> Domain:
    return Domain(
        name=DomainName(table.get("name")),
        kind=DomainKind(table.get("kind")),
        region=table.get("region"),
        jurisdiction=table.get("jurisdiction"),
        trust=table.get("trust"),
        data_class_max=DataClass[table.get("data_class_max").upper()],
        capacity_mrps=_capacity_mrps(table.get("capacity_rps")),
    )


def _path(table: Table) -> Path:
    return Path(
        access=DomainName(table.get("access")),
        compute=DomainName(table.get("compute")),
        transport=tuple(DomainName(name) for name in table.get("transport")),
    )


def _envelope(table: Table) -> Envelope:
    return Envelope(
        domain=DomainName(table.get("domain")),
        segment=table.get("aisi") or "",
        sequence=table.get("sequence"),
        contract=DelayContract(
            offset_ms=table.get("offset_ms"), prefactor=table.get("prefactor"), decay_per_ms=table.get("decay_per_ms")
        ),
        loss=table.get("loss"),
        error=table.get("error"),
        rate_mrps_max=_capacity_mrps(table.get("rate_rps_max")),
        burst_max=table.get("burst_max"),
        capacity_mrps=_capacity_mrps(table.get("capacity_rps")),
        valid_from_us=WallUs(table.get("valid_from")),
        valid_until_us=WallUs(table.get("valid_until")),
        dependence=Dependence(table.get("dependence")),
        common_cause=table.get("common_cause"),
        digest=_digest(table),
    )


def _digest(table: Table) -> str:
    """Return the SHA-256 of what the table says, however it is laid out in the file."""
    said = {key: value if isinstance(value, int) else str(value) for key, value in table.values.items()}
    in_ascii = {key: ascii(value) if isinstance(value, str) else value for key, value in said.items()}
    return hashlib.sha256(canonical_json(in_ascii)).hexdigest()


def _anchor(table: Table) -> Anchor:
    address: HostPort = table.get("address")
    return Anchor(
        anchor=AnchorId(table.get("id")),
        domain=DomainName(table.get("domain")),
        aisi=ServiceUri(table.get("aisi")),
        host=address.host,
        port=address.port,
        tls=table.get("tls"),
        capacity_mrps=_capacity_mrps(table.get("capacity_rps")),
        in_flight_max=table.get("in_flight_max"),
    )


def _capacity_mrps(rate_rps: float) -> int:
    """Return a capacity in thousandths, rounded down: what is sold must be there. Above 0 it stays above 0."""
    return max(math.floor(rate_rps * 1000 + 1e-6), 1) if rate_rps else 0
