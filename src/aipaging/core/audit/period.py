"""An audit from beginning to end, over a table that is read two or three times and never held in memory.

First pass: ids and starts. Second: counts, sketches, the latest delays, the exceeding rows. Third, only where a domain
may be blamed: ranks. Reading is the caller's: `Table` is satisfied by every source of `adapters.telemetry`.
"""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from aipaging.core.audit.commitment import Commitment, CommitmentScan, Node, leaves
from aipaging.core.audit.contract import Contract
from aipaging.core.audit.layout import Layout, LayoutScan
from aipaging.core.audit.opening import OPENED_MAX, Opening, opening_key, opening_order
from aipaging.core.audit.tally import TallyScan
from aipaging.core.audit.telemetry import Batch, Integers, RequestIds
from aipaging.core.audit.verdict import Multiplicity, Verdict, judge, undecided
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
        multiplicity: How they share alpha.
    """

    contracts: tuple[Contract, ...]
    domains: tuple[str, ...]
    layout: Layout
    scan: TallyScan
    verdicts: tuple[Verdict, ...]
    multiplicity: Multiplicity = Multiplicity.SPLIT


def audit_period(
    table: Table,
    contracts: Sequence[Contract],
    *,
    alpha: float,
    sampling: Sampling | None = None,
    committed: Commitment | None = None,
    multiplicity: Multiplicity = Multiplicity.SPLIT,
) -> PeriodAudit:
    """Return the verdicts about a period.

    Args:
        table: The telemetry.
        contracts: What was promised.
        alpha: Error probability of all verdicts together, on each side.
        sampling: Open records at random instead of counting all.
        committed: What the rows of the table are openings of, in the order of opening; then `sampling` is not needed.
        multiplicity: How the verdicts share alpha.

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
    elif committed is not None:
        opening = Opening(np.arange(layout.rows, dtype=np.int64))
    scan = TallyScan(contracts, layout, opening)
    for batch in table.batches(ids=layout.needs_ids, tenants=any(c.tenant is not None for c in contracts)):
        scan.add(batch)
    scan.finish()
    if committed is not None:
        scan.flaws.counts.pop("clock_step", None)  # records come in the order of opening, not of time
    sampled = sampling is not None
    verdicts = judge(scan.tallies, alpha=alpha, sampled=sampled, multiplicity=multiplicity, committed=committed)
    return PeriodAudit(
        contracts=tuple(contracts),
        domains=table.domains,
        layout=layout,
        scan=scan,
        verdicts=verdicts,
        multiplicity=multiplicity,
    )


def without_commitment(audit: PeriodAudit) -> PeriodAudit:
    """Return the audit of records that are not those that were committed to: named, and without a verdict."""
    audit.scan.flaws.add("root_mismatch", 1)
    return replace(audit, verdicts=undecided(audit.verdicts, "the records are not those that were committed to"))


def hashed(table: Table, wanted: AbstractSet[Node] = frozenset()) -> CommitmentScan:
    """Return the tree over the rows of a table.

    Args:
        table: The telemetry.
        wanted: Subtrees whose hashes proofs will need.
    """
    scan = CommitmentScan(wanted)
    for batch in table.batches(ids=True, tenants=True):
        scan.add(leaves(batch))
    return scan
