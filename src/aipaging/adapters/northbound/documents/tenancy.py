"""Tenants, kill switches and policies on the wire."""

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from aipaging.adapters.northbound.documents.words import ANSWER_ITEMS_MAX, Count, Instant, Name, Text, instant
from aipaging.core.foundation.names import TenantId
from aipaging.core.foundation.time import SECOND, Now
from aipaging.core.identity.tenant import PERIOD_S_MAX, PriorityClass, Quotas, Tenant
from aipaging.core.paging.state import State
from aipaging.core.paging.tenancy import Account
from aipaging.core.paging.tenancy_events import SwitchKilled

ClassWord: TypeAlias = Literal["BACKGROUND", "STANDARD", "URGENT", "EMERGENCY"]
KindWord: TypeAlias = Literal["TENANT", "SERVICE", "ANCHOR", "ALL"]
Reason: TypeAlias = Annotated[
    str, Meta(min_length=1, max_length=256, pattern="^[ -~]+$(?!\\n)", description="Stands in answers and evidence.")
]
Rate: TypeAlias = Annotated[float, Meta(ge=0.0, le=1e9, description="Requests per second; 0: no limit.")]
Money: TypeAlias = Annotated[int, Meta(ge=0, le=10**15, description="Millionths of the catalogue's currency.")]

CLASS_WORDS: dict[PriorityClass, ClassWord] = {
    PriorityClass.BACKGROUND: "BACKGROUND",
    PriorityClass.STANDARD: "STANDARD",
    PriorityClass.URGENT: "URGENT",
    PriorityClass.EMERGENCY: "EMERGENCY",
}


class QuotasDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The most that a tenant may hold or spend; 0 is no limit."""

    sessions_max: Annotated[int, Meta(ge=0, le=10**9, description="Sessions that are AVAILABLE.")] = 0
    requests_per_second_max: Annotated[Rate, Meta(description="The sum of their rates.")] = 0.0
    reserved_per_second_max: Annotated[Rate, Meta(description="Likewise, with what ended sessions still hold.")] = 0.0
    spend_max: Money = 0
    period_s: Annotated[int, Meta(ge=1, le=PERIOD_S_MAX, description="What the spend is counted over.")] = 86_400


class TenantRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A tenant, described whole: what is left out is as if it had never been said."""

    quotas: QuotasDocument = msgspec.field(default_factory=QuotasDocument)
    priority: Annotated[ClassWord, Meta(description="Who is served first where it is short.")] = "STANDARD"
    preempts: Annotated[
        bool, Meta(description="Whether its pages may displace sessions of a lower class where there is no room.")
    ] = False


class HoldingDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a tenant holds now."""

    sessions: Annotated[Count, Meta(description="That are AVAILABLE.")]
    requests_per_second: Rate
    reserved_per_second: Rate
    spent: Money
    period_ends_at: Instant


class TenantDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A tenant."""

    tenant: Name
    quotas: QuotasDocument
    priority: Annotated[ClassWord, Meta(description="Who is served first where it is short.")]
    preempts: Annotated[bool, Meta(description="Whether its pages may displace a lower class.")]
    holds: HoldingDocument


class TenantList(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The registered tenants."""

    tenants: Annotated[list[TenantDocument], Meta(max_length=ANSWER_ITEMS_MAX, description="All of them.")]


class SwitchRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What to stop, or to let go on: a tenant, a service or an anchor by name, or ALL."""

    kind: Annotated[KindWord, Meta(description="What is stopped.")]
    name: Annotated[Text, Meta(description="Empty for ALL.")] = ""
    reason: Reason


class SwitchDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A kill switch that is thrown."""

    kind: Annotated[KindWord, Meta(description="What is stopped.")]
    name: Annotated[Text, Meta(description="Which one; empty for ALL.")]
    reason: Reason
    killed_at: Instant


class SwitchList(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The kill switches that are thrown."""

    switches: Annotated[list[SwitchDocument], Meta(max_length=4096, description="All that are thrown.")]
    note: Annotated[
        str,
        Meta(max_length=1024, description="Where a tenant was killed that nobody knows: that, and whom it is like."),
    ] = ""


def tenant_of(name: TenantId, document: TenantRequest) -> Tenant:
    """Return the tenant that a document describes."""
    quotas = document.quotas
    return Tenant(
        tenant=name,
        quotas=Quotas(
            sessions_max=quotas.sessions_max,
            requests_mrps_max=round(quotas.requests_per_second_max * 1000),
            reserved_mrps_max=round(quotas.reserved_per_second_max * 1000),
            spend_max=quotas.spend_max,
            period_s=quotas.period_s,
        ).checked(),
        priority=PriorityClass[document.priority],
        preempts=document.preempts,
    )


def tenant_document(state: State, tenant: Tenant, now: Now) -> TenantDocument:
    """Return a tenant with what it holds."""
    quotas, account = tenant.quotas, state.tenancy.accounts.get(tenant.tenant) or Account()
    period = max(now.wall_us // (quotas.period_s * SECOND), account.period)
    return TenantDocument(
        tenant=tenant.tenant,
        quotas=QuotasDocument(
            sessions_max=quotas.sessions_max,
            requests_per_second_max=quotas.requests_mrps_max / 1000,
            reserved_per_second_max=quotas.reserved_mrps_max / 1000,
            spend_max=quotas.spend_max,
            period_s=quotas.period_s,
        ),
        priority=CLASS_WORDS[tenant.priority],
        preempts=tenant.preempts,
        holds=HoldingDocument(
            sessions=len(account.sessions),
            requests_per_second=account.requests_mrps / 1000,
            reserved_per_second=state.ledger.tenant_mrps(tenant.tenant) / 1000,
            spent=account.spent if account.period == period else 0,
            period_ends_at=instant((period + 1) * quotas.period_s * SECOND),
        ),
    )


def switch_document(killed: SwitchKilled) -> SwitchDocument:
    """Return a switch that is thrown."""
    return SwitchDocument(
        kind=killed.kind.value, name=killed.name, reason=killed.reason, killed_at=instant(killed.wall_us)
    )
