"""Findings of the continuous audit as documents."""

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from aipaging.adapters.northbound.documents.words import PER_PAGE_MAX, Count, Instant, Pagination, instant
from aipaging.core.paging.standing import Finding

FindingId: TypeAlias = Annotated[str, Meta(max_length=64, pattern="^[0-9a-f-]{1,64}$", description="A finding's id.")]
Digits: TypeAlias = Annotated[str, Meta(max_length=64)]


class AuditSummary(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One alarm or verdict about a contract in force."""

    audit_id: FindingId
    kind: Annotated[
        Literal["ALARM", "VERDICT"], Meta(description="An ALARM is early and may be wrong; a VERDICT closes a period.")
    ]
    domain: Annotated[str, Meta(max_length=64, description="The domain, or `end-to-end`.")]
    tenant: Annotated[str, Meta(max_length=64, description="Whose requests it is about; empty for all.")]
    verdict: Annotated[
        Literal["compliant", "violated", "insufficient_evidence"],
        Meta(description="How the period of the contract stands."),
    ]
    delay_ms: Annotated[float, Meta(description="The contracted delay.")]
    epsilon: Annotated[float, Meta(description="The fraction of requests that may miss it.")]
    requests: Annotated[Count, Meta(description="That were counted.")]
    exceedances_low: Annotated[Count, Meta(description="Late for certain.")]
    exceedances_high: Annotated[Count, Meta(description="Late, if all that is unknown or missing was.")]
    missing: Annotated[Count, Meta(description="Requests that nobody reported.")]
    reason: Annotated[str, Meta(max_length=1024, description="In words.")]
    found_at: Instant


class AuditDocument(AuditSummary, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A finding, with what it was computed from and who made requests late."""

    record: Annotated[
        dict[str, Any], Meta(description="The fields of its evidence record, AUDIT_ALARM or AUDIT_VERDICT.")
    ]
    envelope: Annotated[str, Meta(max_length=64, description="Digest of the envelope that promised it.")] = ""
    attribution: Annotated[
        dict[str, Any] | None,
        Meta(
            description="Of a violated path: observed = permitted + sum of blame + unattributed, as fractions of its "
            "requests. Only a domain whose own contract is violated can be blamed."
        ),
    ] = None


class AuditList(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Findings, the latest first."""

    audits: Annotated[list[AuditSummary], Meta(max_length=PER_PAGE_MAX, description="The findings of this page.")]
    pagination: Pagination


def _summary(finding: Finding) -> dict[str, Any]:
    fields = finding.fields
    return {
        "audit_id": finding.finding,
        "kind": finding.kind,
        "domain": finding.domain,
        "tenant": finding.tenant,
        "verdict": finding.verdict,
        "delay_ms": float(fields["delay_ms"]),
        "epsilon": float(fields["epsilon"]),
        "requests": int(fields["requests"]),
        "exceedances_low": int(fields["exceedances_low"]),
        "exceedances_high": int(fields["exceedances_high"]),
        "missing": int(fields["missing"]),
        "reason": str(fields["reason"]),
        "found_at": instant(finding.wall_us),
    }


def audit_summary(finding: Finding) -> AuditSummary:
    """Return the line of a finding in a list."""
    return AuditSummary(**_summary(finding))


def audit_document(finding: Finding) -> AuditDocument:
    """Return a finding with its record and its account."""
    account = msgspec.json.decode(finding.account, type=dict[str, Any]) if finding.account else None
    return AuditDocument(
        **_summary(finding), record=dict(finding.fields), envelope=finding.envelope, attribution=account
    )
