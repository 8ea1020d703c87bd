"""What tenants used, on the wire."""

from typing import Annotated

import msgspec
from msgspec import Meta

from aipaging.adapters.northbound.documents.words import PER_PAGE_MAX, Count, Instant, Name, Pagination
from aipaging.core.evidence.usage import Usage
from aipaging.core.foundation.time import SECOND

Amount = Annotated[int, Meta(ge=0, le=2**63 - 1, description="In millionths of the catalogue's currency.")]
Total = Annotated[float, Meta(ge=0.0)]


class TenantUsage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What one tenant used in the period."""

    tenant: Name
    sessions: Annotated[Count, Meta(description="Sessions admitted.")]
    lease_seconds: Annotated[Total, Meta(description="How long sessions were AVAILABLE, summed over them.")]
    reserved_requests: Annotated[Total, Meta(description="Reserved rate times that time: what could have been sent.")]
    requests: Annotated[Count, Meta(description="Requests that anchors' sidecars counted.")]
    tokens: Annotated[Count, Meta(description="Tokens that they counted.")]
    charged: Annotated[Amount, Meta(description="What was charged; 0 for tenants without spendMax.")]
    refunded: Annotated[Amount, Meta(description="What of it was given back.")]


class UsageList(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What tenants used in a period, derived from the evidence."""

    usage: Annotated[list[TenantUsage], Meta(max_length=PER_PAGE_MAX, description="By name; without those of nothing.")]
    accounted_to: Annotated[
        Instant, Meta(description="When the last record in the sums was written: sessions that go on count up to it.")
    ]
    pagination: Pagination
    period_start: Annotated[Instant, Meta(description="Left out: the log's beginning.")] | None = None
    period_end: Annotated[Instant, Meta(description="Not included. Left out: now.")] | None = None


def tenant_usage(tenant: str, used: Usage) -> TenantUsage:
    """Return what a tenant used as it is sent."""
    return TenantUsage(
        tenant=tenant,
        sessions=used.sessions,
        lease_seconds=used.lease_us / SECOND,
        reserved_requests=used.reserved / (1000 * SECOND),
        requests=used.requests,
        tokens=used.tokens,
        charged=used.charged,
        refunded=used.refunded,
    )
