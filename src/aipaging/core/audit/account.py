"""Who made the requests of a watched path late: the accountable attribution over rows that are still in memory.

Every request was executed in one domain. The rows are divided by it, each part is accounted for by itself (its domain
against what no domain reported), and the parts are added with their weights: everything is linear, so observed =
permitted + sum of blame + unattributed stays exact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from aipaging.core.audit.accounts import accounts
from aipaging.core.audit.contract import END_TO_END, Contract
from aipaging.core.audit.dice import Dice
from aipaging.core.audit.period import audit_period
from aipaging.core.audit.table import ArrayTable
from aipaging.core.audit.telemetry import UNKNOWN, Batch

ALPHA: Final = 0.05
"""Of the verdicts inside: they are arithmetic, so nothing depends on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One request of a path.

    Attributes:
        start_us: When it began.
        status: Code of `Status`.
        total_us: Delay over the path; negative where unknown.
        domain: The domain that executed it.
        domain_us: How long it took there; negative where unknown.
    """

    start_us: int
    status: int
    total_us: int
    domain: str
    domain_us: int


def live_account(
    contract: Contract, rows: Sequence[Row], promised: Mapping[str, Contract], dice: Dice
) -> dict[str, Any]:
    """Return the account of a path's contract: what interfaces say of attribution.

    Args:
        contract: Of the path; its period does not matter.
        rows: Its requests.
        promised: The contracts of the domains that are violated, by domain: nobody else may be blamed.
        dice: For the intervals.
    """
    domains = sorted({row.domain for row in rows})
    found: dict[str, Any] = {
        "observed": 0.0,
        "permitted": 0.0,
        "domains": {},
        "unattributed": 0.0,
        "requests": len(rows),
    }
    for domain in domains:
        part = [row for row in rows if row.domain == domain]
        weight = len(part) / len(rows)
        path = Contract(domain=END_TO_END, delay_ms=contract.delay_ms, epsilon=contract.epsilon)
        contracts = [path, promised[domain]] if domain in promised else [path]
        table = _table(domain, part)
        (account,) = accounts(table, audit_period(table, contracts, alpha=ALPHA), dice)
        blame = account.domains[domain]
        found["observed"] += weight * account.observed
        found["permitted"] += weight * account.permitted
        found["unattributed"] += weight * account.unattributed
        found["domains"][domain] = {
            "blame": weight * blame.blame, "low": weight * blame.low, "high": weight * blame.high
        }  # fmt: skip
    return found


def _table(domain: str, rows: Sequence[Row]) -> ArrayTable:
    def column(values: list[int]) -> Any:
        array = np.asarray(values, dtype=np.int64)
        return np.where(array < 0, UNKNOWN, array)

    return ArrayTable(
        Batch(
            start_us=np.asarray([row.start_us for row in rows], dtype=np.int64),
            status=np.asarray([row.status for row in rows], dtype=np.uint8),
            end_to_end_us=column([row.total_us for row in rows]),
            domains={domain: column([row.domain_us for row in rows])},
        )
    )
