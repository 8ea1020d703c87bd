"""The third pass: ranks of the late requests' delays, then the account of each end-to-end contract."""

import enum
from collections.abc import Mapping, Sequence

import numpy as np

from aipaging.core.audit.attribution import Attribution, LateRequests, Ranks, attribute, permitted_delays
from aipaging.core.audit.contract import END_TO_END, Contract
from aipaging.core.audit.dependence import WINDOWS
from aipaging.core.audit.dice import Dice
from aipaging.core.audit.period import PeriodAudit, Table
from aipaging.core.audit.scope import scope_of
from aipaging.core.audit.special import Floats
from aipaging.core.audit.tally import SKETCH_WINDOWS, Tally
from aipaging.core.audit.telemetry import Batch, Flaws, Integers, Mask, screened
from aipaging.core.audit.verdict import Outcome
from aipaging.core.foundation.errors import InvalidInputError


class Resampled(enum.Enum):
    """What is drawn again for the intervals of blame: what depends on one another stays together."""

    WINDOWS = "windows"
    SESSIONS = "sessions"


def accounts(
    table: Table, audit: PeriodAudit, dice: Dice, *, resampled: Resampled = Resampled.WINDOWS
) -> list[Attribution]:
    """Return the attribution of every end-to-end contract, in their order.

    Args:
        table: The telemetry that was audited; read again only where a domain may be blamed.
        audit: What was found.
        dice: For the intervals.
        resampled: Over what the intervals are.

    Raises:
        InvalidInputError: Sessions are to be resampled, and are not known.
    """
    tallies = [tally for tally in audit.scan.tallies if tally.contract.domain == END_TO_END]
    late = [_late(tally, audit.domains, resampled) for tally in tallies]
    scans = [
        RankScan(contract, rows.delays_us[:, audit.domains.index(contract.domain)], index)
        for index, (tally, rows) in enumerate(zip(tallies, late, strict=True))
        for contract in blamable(audit, tally.contract)
    ]
    if scans:
        _read_again(table, audit, scans)
    found: list[Attribution] = []
    for index, (tally, rows) in enumerate(zip(tallies, late, strict=True)):
        caps: dict[str, Floats] = {}
        for scan in scans:
            if scan.index == index:
                before = caps.get(scan.contract.domain)
                caps[scan.contract.domain] = scan.caps() if before is None else np.minimum(before, scan.caps())
        found.append(attribute(tally.contract, rows, caps, dice))
    return found


def blamable(audit: PeriodAudit, contract: Contract) -> list[Contract]:
    """Return the violated contracts of domains that an end-to-end contract's requests passed."""
    return [
        verdict.contract
        for verdict in audit.verdicts
        if verdict.outcome is Outcome.VIOLATED
        and verdict.contract.domain in audit.domains
        and verdict.contract.tenant in {None, contract.tenant}
        and _overlap(verdict.contract, contract)
    ]


def _overlap(one: Contract, other: Contract) -> bool:
    ends = [(c.period_start_us, c.period_end_us) for c in (one, other)]
    starts = [start for start, _ in ends if start is not None]
    stops = [stop for _, stop in ends if stop is not None]
    return not starts or not stops or max(starts) < min(stops)


class RankScan:
    """Counts how many delays of a domain are longer than each late request's."""

    def __init__(self, contract: Contract, values_us: Integers, index: int) -> None:
        self.contract = contract
        self.index = index
        self._values = values_us
        self._known = np.unique(values_us[values_us >= 0])
        self._longer = np.zeros(len(self._known) + 1, dtype=np.int64)
        self._as_long = np.zeros(len(self._known) + 1, dtype=np.int64)
        self._population = 0

    def add(self, batch: Batch, counted: Mask | None) -> None:
        """See the next rows, screened."""
        delay_us = batch.domains[self.contract.domain]
        chosen = delay_us >= 0
        for mask in (scope_of(self.contract, batch), counted):
            if mask is not None:
                chosen = chosen & mask
        self._population += int(np.count_nonzero(chosen))
        if self._known.size:
            # Shorter delays than every late one have no part in any rank.
            long = delay_us[chosen & (delay_us >= self._known[0])]
            size = len(self._longer)
            self._longer += np.bincount(np.searchsorted(self._known, long, side="left"), minlength=size)
            self._as_long += np.bincount(np.searchsorted(self._known, long, side="right"), minlength=size)

    def caps(self) -> Floats:
        """Return what the contract permits to each late request; nothing is taken off where the delay is unknown."""
        if not self._known.size:
            return np.full(len(self._values), np.inf)
        place = np.searchsorted(self._known, np.maximum(self._values, self._known[0]))
        # A delay with p values below it is longer than those, so a value is beaten by all delays placed after it.
        above = np.cumsum(self._longer[::-1])[::-1][1:][place]
        at_least = np.cumsum(self._as_long[::-1])[::-1][1:][place]
        ranks = Ranks(above=above, at_least=at_least, population=self._population)
        return np.where(self._values >= 0, permitted_delays(self.contract, self._values, ranks), np.inf)


def _read_again(table: Table, audit: PeriodAudit, scans: Sequence[RankScan]) -> None:
    tenants = any(scan.contract.tenant is not None for scan in scans)
    ignored, row = Flaws(), 0
    for raw in table.batches(ids=False, tenants=tenants):
        batch = screened(raw, ignored)
        copies = audit.scan.copies
        counted = None if copies is None else ~copies[row : row + len(batch)]
        row += len(batch)
        for scan in scans:
            scan.add(batch, counted)


def _late(tally: Tally, domains: Sequence[str], resampled: Resampled) -> LateRequests:
    delays_us, end_to_end_us, window = tally.exceeding.joined(tuple(domains))
    coarse = WINDOWS // SKETCH_WINDOWS
    cluster, requests = window // coarse, tally.by_window[0].reshape(-1, coarse).sum(axis=1)
    if resampled is Resampled.SESSIONS:
        if tally.requests and not tally.session_requests.any():
            raise InvalidInputError("the telemetry has no column session", code="COLUMN_MISSING", field="session")
        cluster, requests = tally.exceeding.sessions(), tally.session_requests
    means: Mapping[str, float] = {name: total / count for name, (total, count) in tally.sums.items() if count}
    return LateRequests(
        domains=domains,
        delays_us=delays_us,
        end_to_end_us=end_to_end_us,
        window=cluster,
        requests=requests,
        weight=tally.certain / len(window) if len(window) else 1.0,
        means_us=np.asarray([means[name] for name in domains]) if len(means) == len(domains) else None,
    )
