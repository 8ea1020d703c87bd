"""What audits found, and what it did to the trust in a domain.

The rule: a `violated` verdict about a domain's own contract takes one level of trust from the domain, at most all that
its operator stated; `COMPLIANT_TO_RESTORE` verdicts `compliant` in a row give one level back, and so does nothing else
but an operator who states another level. Alarms and verdicts about whole paths take nothing: they name no domain.
"""

from dataclasses import dataclass, field
from typing import Final

from aipaging.core.foundation.names import DomainName, TenantId
from aipaging.core.foundation.time import BootUs, WallUs

FINDINGS_MAX: Final = 1_024
"""Findings kept for those who ask, at about two kilobytes each; older ones are in the journal."""

COMPLIANT_TO_RESTORE: Final = 5
"""Verdicts in a row that give a level of trust back: trust is lost faster than it is won."""

ALARM: Final = "ALARM"
VERDICT: Final = "VERDICT"
VIOLATED: Final = "violated"
COMPLIANT: Final = "compliant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One alarm or verdict about a contract in force.

    Attributes:
        finding: Its id.
        kind: ALARM or VERDICT.
        domain: The domain, or `end-to-end`.
        tenant: Whose requests; "" for everybody's.
        verdict: How the period stands: `compliant`, `violated` or `insufficient_evidence`.
        envelope: Digest of the envelope that promised it, "" where a whole path did.
        fields: Of its record: all that is needed to compute it again.
        account: Who made requests late: canonical JSON, "" where nobody was asked.
        wall_us: When.
    """

    finding: str
    kind: str
    domain: str
    tenant: str
    verdict: str
    envelope: str
    fields: dict[str, str | int]
    account: str = ""
    wall_us: WallUs

    def concerns(self, tenant: TenantId) -> bool:
        """Whether a tenant may see it: its own alone."""
        return self.tenant == tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The trust in a domain that audits have changed.

    Attributes:
        stated: The level that its operator states.
        lost: Levels that verdicts took.
        compliant: Compliant verdicts in a row.
    """

    stated: int
    lost: int = 0
    compliant: int = 0

    @property
    def trust(self) -> int:
        """The level that admission reads."""
        return max(0, self.stated - self.lost)


@dataclass(slots=True)
class Audits:
    """Findings by id, oldest first, and the standing of the domains that were judged."""

    findings: dict[str, Finding] = field(default_factory=dict[str, Finding])
    standings: dict[DomainName, Standing] = field(default_factory=dict[DomainName, Standing])


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFound:
    """An audit raised an alarm or reached a verdict."""

    finding: Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustChanged:
    """A domain is trusted less after a violation, or more again."""

    domain: DomainName
    standing: Standing
    cause: str
    boot_us: BootUs


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFinding:
    """Record what an audit found, and do what follows from it.

    Attributes:
        finding: What was found.
        suspect: Whether the envelope is put under suspicion; "" leaves it alone, else the reason in the evidence.
    """

    finding: Finding
    suspect: str = ""
