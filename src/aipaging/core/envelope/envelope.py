"""What one domain promises about its tail, in the form that admission reads.

An envelope holds for flows within its guardrail, up to its capacity, until it expires. Its delay contract is
P(D > T + x) <= M exp(-eta x); lost and failed requests are a budget line of their own and count as exceedances.
Where the domain says how it serves (`service`), the contract of a session follows from its own rate and burst, and the
envelope's own contract is what holds for every session that the guardrail lets in.
"""

import enum
from dataclasses import dataclass

from aipaging.core.calculus.risk_budget import DelayContract
from aipaging.core.envelope.service import ServiceModel
from aipaging.core.foundation.names import DomainName
from aipaging.core.foundation.time import WallUs


class Dependence(enum.Enum):
    """What a domain claims about the dependence of its delay on the other domains of a path."""

    ANY = "any"
    CONDITIONAL = "conditional"
    INDEPENDENT = "independent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """The Tail-Risk Envelope of one domain, or of one service in it.

    Attributes:
        domain: Who promises.
        segment: The AISI that it is about, or "" for all traffic of the domain.
        sequence: Rises with every version; a lower one is refused.
        contract: The delay contract (T, M, eta).
        loss: Probability that a request is lost.
        error: Probability that a request fails or times out.
        rate_mrps_max: Guardrail: the sustained rate of one session up to which the contract holds.
        burst_max: Guardrail: the burst of one session.
        capacity_mrps: What may be reserved in total under this envelope; 0 is unlimited.
        valid_from_us: Start of validity, wall clock.
        valid_until_us: End of validity, wall clock.
        dependence: The dependence clause.
        common_cause: Name of a shared cause of delay; domains that name the same one are never independent.
        digest: Hex SHA-256 of the document that the envelope was read from.
        service: How the domain serves, or None: only the contract is promised.
        tenant_capacity_mrps: What one tenant may reserve under this envelope; 0 is no limit of its own.
    """

    domain: DomainName
    segment: str
    sequence: int
    contract: DelayContract
    loss: float
    error: float
    rate_mrps_max: int
    burst_max: int
    capacity_mrps: int
    valid_from_us: WallUs
    valid_until_us: WallUs
    dependence: Dependence
    common_cause: str
    digest: str
    service: ServiceModel | None = None
    tenant_capacity_mrps: int = 0

    def __hash__(self) -> int:
        """Hash by who promises and by the digest: what else there is follows from the document, and hashing is hot."""
        return hash((self.domain, self.digest))
