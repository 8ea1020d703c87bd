"""What a finding of the audit does: it is recorded, its envelope becomes suspect, and trust moves by the rule.

Whatever suspects an envelope never clears it: an operator does, or a newer envelope. So nothing flaps.
"""

from dataclasses import replace

from aipaging.core.anchor.catalogue import Domain
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import DomainName
from aipaging.core.foundation.time import Now
from aipaging.core.paging.decision import Decision
from aipaging.core.paging.promise_events import EnvelopeSuspected
from aipaging.core.paging.standing import (
    COMPLIANT,
    COMPLIANT_TO_RESTORE,
    FINDINGS_MAX,
    VERDICT,
    VIOLATED,
    AuditFound,
    Finding,
    RecordFinding,
    Standing,
    TrustChanged,
)
from aipaging.core.paging.state import State


def record_finding(state: State, command: RecordFinding, now: Now) -> Decision:
    """Record a finding; a suspicion and a change of trust follow in the same breath.

    Raises:
        InvalidInputError: The finding is known already.
    """
    finding = command.finding
    if finding.finding in state.audits.findings:
        raise InvalidInputError(f"finding {finding.finding} is known already", code="ALREADY_EXISTS", field="finding")
    decision = Decision(events=[AuditFound(finding=finding)])
    envelope = next((one for one in state.catalogue.envelopes.values() if one.digest == finding.envelope), None)
    if command.suspect and envelope is not None and envelope.digest not in state.catalogue.suspect:
        decision.events.append(
            EnvelopeSuspected(
                domain=envelope.domain,
                segment=envelope.segment,
                digest=envelope.digest,
                reason=command.suspect,
                boot_us=now.boot_us,
            )
        )
    domain = state.catalogue.domains.get(DomainName(finding.domain))
    after = None if domain is None or finding.kind != VERDICT else _after(state, domain, finding)
    if after is not None:
        cause = f"AUDIT_{finding.verdict.upper()}"
        decision.events.append(
            TrustChanged(domain=DomainName(finding.domain), standing=after, cause=cause, boot_us=now.boot_us)
        )
    return decision


def _after(state: State, domain: Domain, finding: Finding) -> Standing | None:
    """Return the standing that a verdict leads to, None where trust stays as it is."""
    before = state.audits.standings.get(domain.name, Standing(stated=domain.trust))
    if finding.verdict == VIOLATED and before.lost < before.stated:
        return replace(before, lost=before.lost + 1, compliant=0)
    if finding.verdict == COMPLIANT and before.lost and before.compliant + 1 >= COMPLIANT_TO_RESTORE:
        return replace(before, lost=before.lost - 1, compliant=0)
    return None


def audit_found(state: State, event: AuditFound) -> None:
    """Keep the finding, and as many earlier ones as there is room for."""
    finding, audits = event.finding, state.audits
    audits.findings[finding.finding] = finding
    if len(audits.findings) > FINDINGS_MAX:
        del audits.findings[next(iter(audits.findings))]
    standing = audits.standings.get(DomainName(finding.domain))
    if standing is not None and finding.kind == VERDICT and finding.verdict in {VIOLATED, COMPLIANT}:
        compliant = standing.compliant + 1 if finding.verdict == COMPLIANT else 0
        audits.standings[DomainName(finding.domain)] = replace(standing, compliant=compliant)


def stated(state: State, domain: Domain) -> Domain:
    """Return a domain with the trust that its operator states."""
    standing = state.audits.standings.get(domain.name)
    return domain if standing is None else replace(domain, trust=standing.stated)


def standing_kept(state: State, domain: Domain) -> Domain:
    """Return a domain as admission reads it; an operator who states another level of trust begins anew."""
    standing = state.audits.standings.get(domain.name)
    if standing is None:
        return domain
    if standing.stated != domain.trust:
        del state.audits.standings[domain.name]
        return domain
    return replace(domain, trust=standing.trust)


def trust_changed(state: State, event: TrustChanged) -> None:
    """Read another trust from now on."""
    state.audits.standings[event.domain] = event.standing
    domain = state.catalogue.domains[event.domain]
    state.catalogue.domains[event.domain] = replace(domain, trust=event.standing.trust)
