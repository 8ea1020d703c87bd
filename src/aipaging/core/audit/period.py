"""An audit from beginning to end, over a table that is read two or three times and never held in memory.

First pass: ids and starts. Second: counts, sketches, the latest delays, the exceeding rows. Third, only where a domain
may be blamed: ranks. Reading is the caller's: `Table` is satisfied by every source of `adapters.telemetry`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from aipaging.core.audit.contract import Contract
from aipaging.core.audit.layout import Layout, LayoutScan
from aipaging.core.audit.opening import OPENED_MAX, Opening, opening_key, opening_order
from aipaging.core.audit.tally import TallyScan
from aipaging.core.audit.telemetry import Batch, Integers, RequestIds
from aipaging.core.audit.verdict import Verdict, judge
from aipaging.core.foundation.errors import InvalidInputError


class Table(Protocol):
    """Telemetry that can be read several times, in the same order."""

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains that it has columns for."""
        ...

    def identities(self) -> Iterator[tuple[Integers, RequestIds]]:
        """Yield starts and ids, batch by batch."""
        ...

    def batches(self, *, ids: bool, tenants: bool) -> Iterator[Batch]:
        """Yield the table, batch by batch."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Which records to open, instead of counting all.

    Attributes:
        count: How many rows are opened.
        seed: Drawn after the provider committed.
        root: What the provider committed to; empty where nobody did, and the seed alone decides.
    """

    count: int
    seed: int
    root: bytes = b""

    def __post_init__(self) -> None:
        if not 0 < self.count <= OPENED_MAX:
            raise InvalidInputError(f"{self.count} records; 1 to {OPENED_MAX} can be opened", field="sample")


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodAudit:
    """What the first two passes found.

    Attributes:
        contracts: The contracts, in their order.
        domains: The domains that the telemetry has columns for.
        layout: What the first pass found.
        scan: Counts, by contract, and what was wrong with the telemetry.
        verdicts: The verdicts, in the order of the contracts.
    """

    contracts: tuple[Contract, ...]
    domains: tuple[str, ...]
    layout: Layout
    scan: TallyScan
    verdicts: tuple[Verdict, ...]


def audit_period(
    table: Table, contracts: Sequence[Contract], *, alpha: float, sampling: Sampling | None = None
) -> PeriodAudit:
    """Return the verdicts about a period.

    Args:
        table: The telemetry.
        contracts: What was promised.
        alpha: Error probability of all verdicts together, on each side.
        sampling: Open records at random instead of counting all.

    Raises:
        InvalidInputError: There is no contract, or alpha is no probability.
    """
    if not contracts:
        raise InvalidInputError("there is no contract to audit", code="CONTRACT_MISSING", field="contract")
    if not 0 < alpha < 1:
        raise InvalidInputError(f"alpha is {alpha}; it lies between 0 and 1", field="alpha")
    looked = LayoutScan()
    for start_us, ids in table.identities():
        looked.add(start_us, ids)
    layout = looked.layout(contracts)
    opening = None
    if sampling is not None:
        key = opening_key(sampling.seed, sampling.root)
        opening = Opening(opening_order(key, layout.rows, sampling.count))
    scan = TallyScan(contracts, layout, opening)
    for batch in table.batches(ids=layout.needs_ids, tenants=any(c.tenant is not None for c in contracts)):
        scan.add(batch)
    scan.finish()
    verdicts = tuple(
        judge(tally, alpha=alpha, family=len(contracts), sampled=sampling is not None) for tally in scan.tallies
    )
    return PeriodAudit(contracts=tuple(contracts), domains=table.domains, layout=layout, scan=scan, verdicts=verdicts)
