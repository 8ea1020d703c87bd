"""What the audit did, as evidence. Part of `core.paging.records`."""

from hashlib import sha256

from aipaging.core.evidence.record import Fields
from aipaging.core.paging.standing import AuditFound, TrustChanged
from aipaging.core.paging.state import State


def audit_found(event: AuditFound, _state: State) -> Fields:
    """Return the fields of an alarm or a verdict; the account of who was late is private, and named by its digest."""
    finding = event.finding
    account = sha256(finding.account.encode()).hexdigest() if finding.account else ""
    return {**finding.fields, "audit": finding.finding, "envelope": finding.envelope, "account": account}


def trust_changed(event: TrustChanged, _state: State) -> Fields:
    """Return the fields of a change of trust."""
    standing = event.standing
    return {"domain": event.domain, "stated": standing.stated, "trust": standing.trust, "cause": event.cause}
