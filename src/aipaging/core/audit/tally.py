"""The second pass: the counts of every contract, in one sweep, merged batch by batch.

A request counts once. Copies of one id are set aside until all are seen: the request exceeded for certain if every copy
says so, and perhaps if one does. Whoever repeats a record with a better delay therefore gains nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from aipaging.core.audit.contract import END_TO_END, Contract
from aipaging.core.audit.dependence import WINDOWS
from aipaging.core.audit.exceedance import Exceedances, disagreement_us, exceedances, failed
from aipaging.core.audit.layout import Layout
from aipaging.core.audit.opening import Opened, Opening
from aipaging.core.audit.rows import ExceedingRows, select
from aipaging.core.audit.scope import in_period, placed, scope_of
from aipaging.core.audit.sessions import SESSION_GROUPS
from aipaging.core.audit.sketch import DelaySketch
from aipaging.core.audit.tail import TopDelays
from aipaging.core.audit.telemetry import Batch, Flaws, Integers, Mask, screened

SKETCH_WINDOWS: Final = 64
"""Windows of the sketches: enough to resample, few enough to keep."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """What was counted for one contract.

    Attributes:
        contract: The contract.
        requests: Requests of its tenant in its period.
        certain: Of those, exceedances for certain.
        possible: Exceedances if everything unknown was late.
        by_window: Requests and certain exceedances by window of time.
        sketch: Delays by window.
        by_session: Delays by group of sessions, None where sessions are not known.
        session_requests: Requests by group of sessions.
        top: The latest delays, as they are.
        opened: Records opened at random, in the order of opening.
        sums: Sum and number of the known delays in each domain, of end-to-end contracts only.
        exceeding: Rows that exceeded, for attribution; of end-to-end contracts only.
    """

    contract: Contract
    requests: int = 0
    certain: int = 0
    possible: int = 0
    by_window: tuple[Integers, Integers]
    sketch: DelaySketch
    by_session: DelaySketch | None = None
    session_requests: Integers
    top: TopDelays
    opened: Opened
    sums: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    exceeding: ExceedingRows = field(default_factory=ExceedingRows)


class TallyScan:
    """Counts for several contracts.

    Attributes:
        flaws: What could not be believed.
        tallies: Counts, in the order of the contracts.
        duplicates: Rows beyond the first of each id.
        conflicting: Ids whose copies differ about an exceedance.
        copies: Which rows those duplicates are, None where there is none.
        outside: Rows outside a contract's period, by the contract's place.
    """

    def __init__(self, contracts: Sequence[Contract], layout: Layout, opening: Opening | None = None) -> None:
        self.flaws = Flaws()
        self.tallies = [_empty(contract) for contract in contracts]
        self._layout = layout
        self._opening = opening
        self._row = 0
        self._aside: list[_Aside] = []
        self.duplicates = 0
        self.conflicting = 0
        self.copies: Mask | None = None
        self.outside: dict[int, int] = {}

    def add(self, batch: Batch) -> None:
        """Count the next rows of the table."""
        batch = screened(batch, self.flaws)
        if batch.ids is not None:
            self.flaws.add("missing_id", np.count_nonzero(batch.ids.missing()) - batch.malformed)
        if batch.tenants is None and any(tally.contract.tenant is not None for tally in self.tallies):
            self.flaws.add("tenants_unknown", len(batch))
        excess_us = disagreement_us(batch, self.flaws)
        rows = np.arange(self._row, self._row + len(batch), dtype=np.int64)
        self._row += len(batch)
        aside = (
            None if self._layout.aside is None else self._layout.aside[rows[0] : rows[-1] + 1] if len(rows) else None
        )
        counted = None if aside is None or not aside.any() else ~aside
        window = self._layout.windows_of(batch.start_us)
        found: list[tuple[Exceedances, Mask | None]] = []
        for index, tally in enumerate(self.tallies):
            late = placed(tally.contract, batch, exceedances(tally.contract, batch, excess_us))
            scope = self._scope(index, batch, counted)
            found.append((late, scope_of(tally.contract, batch)))
            self._account(tally, batch, late, scope=scope, window=window, rows=rows)
        if counted is not None:
            chosen = np.flatnonzero(~counted)
            self._aside.append(_aside(batch, chosen, rows=rows, window=window, found=found))

    def finish(self) -> None:
        """Count the requests that came more than once, each once."""
        if not self._aside:
            return
        whole = _Aside.joined(self._aside)
        self._aside = []
        names, first, inverse = np.unique(np.asarray(whole.ids), return_index=True, return_inverse=True)
        self.duplicates += len(whole.ids) - len(names)
        self.copies = np.zeros(self._row, dtype=np.bool_)
        self.copies[whole.rows] = True
        self.copies[whole.rows[first]] = False
        order = np.argsort(inverse, kind="stable")
        edges = np.searchsorted(inverse[order], np.arange(len(names)))
        conflicting = np.zeros(len(names), dtype=np.bool_)
        for tally, (late, scope) in zip(self.tallies, whole.found, strict=True):
            inside = np.ones(len(whole.ids), dtype=np.bool_) if scope is None else scope
            # A copy outside the scope says nothing about this contract.
            certain = np.logical_and.reduceat((late.certain | ~inside)[order], edges)
            possible = np.logical_or.reduceat((late.possible & inside)[order], edges)
            any_inside = np.logical_or.reduceat(inside[order], edges)
            differs = possible & ~certain & np.logical_or.reduceat((late.certain & inside)[order], edges)
            conflicting |= differs & any_inside
            merged = Exceedances(certain & any_inside, possible)
            self._account(
                tally,
                select(whole.batch, first),
                merged,
                scope=any_inside,
                window=whole.window[first],
                rows=whole.rows[first],
            )
        self.conflicting += int(np.count_nonzero(conflicting))

    def _scope(self, index: int, batch: Batch, counted: Mask | None) -> Mask | None:
        scope = scope_of(self.tallies[index].contract, batch)
        if scope is None:
            return counted
        contract = self.tallies[index].contract
        if contract.has_period:
            outside = np.count_nonzero(~in_period(contract, batch))
            if outside:
                self.outside[index] = self.outside.get(index, 0) + int(outside)
        return scope if counted is None else scope & counted

    def _account(
        self, tally: Tally, batch: Batch, late: Exceedances, *, scope: Mask | None, window: Integers, rows: Integers
    ) -> None:
        contract = tally.contract
        certain, possible = late.certain, late.possible
        if scope is not None:
            certain, possible = certain & scope, possible & scope
        tally.requests += len(batch) if scope is None else int(np.count_nonzero(scope))
        tally.certain += int(np.count_nonzero(certain))
        tally.possible += int(np.count_nonzero(possible))
        requests, exceeding = tally.by_window
        requests += np.bincount(window if scope is None else window[scope], minlength=WINDOWS)
        late_rows = np.flatnonzero(certain)
        exceeding += np.bincount(window[late_rows], minlength=WINDOWS)
        if batch.sessions is not None:
            mine = batch.sessions if scope is None else batch.sessions[scope]
            tally.session_requests += np.bincount(mine, minlength=SESSION_GROUPS)
        _insert_delays(tally, batch, scope, window)
        if contract.domain == END_TO_END:
            tally.exceeding.add(batch, late_rows, window)
            _sum_domains(tally, batch, scope)
        if self._opening is not None:
            tally.opened.add(self._opening.positions(rows), scope, certain, possible)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Aside:
    """Rows whose ids are to be compared, and what they say."""

    ids: list[str]
    batch: Batch
    rows: Integers
    window: Integers
    found: Sequence[tuple[Exceedances, Mask | None]]

    @staticmethod
    def joined(parts: "Sequence[_Aside]") -> "_Aside":
        found: list[tuple[Exceedances, Mask | None]] = []
        for index in range(len(parts[0].found)):
            late = Exceedances(
                np.concatenate([part.found[index][0].certain for part in parts]),
                np.concatenate([part.found[index][0].possible for part in parts]),
            )
            scopes = [part.found[index][1] for part in parts]
            masks = [mask for mask in scopes if mask is not None]
            found.append((late, np.concatenate(masks) if masks else None))
        return _Aside(
            ids=[name for part in parts for name in part.ids],
            batch=_joined([part.batch for part in parts]),
            rows=np.concatenate([part.rows for part in parts]),
            window=np.concatenate([part.window for part in parts]),
            found=found,
        )


def _aside(
    batch: Batch,
    chosen: Integers,
    *,
    rows: Integers,
    window: Integers,
    found: Sequence[tuple[Exceedances, Mask | None]],
) -> _Aside:
    if batch.ids is None:
        raise AssertionError("the layout asks for ids, so the reader brings them")
    masks = [
        (Exceedances(late.certain[chosen], late.possible[chosen]), None if scope is None else scope[chosen])
        for late, scope in found
    ]
    return _Aside(
        ids=batch.ids.take(chosen), batch=select(batch, chosen), rows=rows[chosen], window=window[chosen], found=masks
    )


def _joined(parts: Sequence[Batch]) -> Batch:
    domains: Mapping[str, Integers] = {
        name: np.concatenate([part.domains[name] for part in parts]) for name in parts[0].domains
    }
    known = [part.sessions for part in parts if part.sessions is not None]
    return Batch(
        start_us=np.concatenate([part.start_us for part in parts]),
        status=np.concatenate([part.status for part in parts]),
        end_to_end_us=np.concatenate([part.end_to_end_us for part in parts]),
        domains=domains,
        sessions=None if not known else np.concatenate(known),
    )


def _empty(contract: Contract) -> Tally:
    return Tally(
        contract=contract,
        by_window=(np.zeros(WINDOWS, dtype=np.int64), np.zeros(WINDOWS, dtype=np.int64)),
        sketch=DelaySketch((contract.delay_us,), windows=SKETCH_WINDOWS),
        session_requests=np.zeros(SESSION_GROUPS, dtype=np.int64),
        top=TopDelays(),
        opened=Opened(),
    )


def _sum_domains(tally: Tally, batch: Batch, scope: Mask | None) -> None:
    for name, column in batch.domains.items():
        chosen = column >= 0 if scope is None else (column >= 0) & scope
        total, count = tally.sums.get(name, (0, 0))
        known = column if chosen.all() else column[chosen]
        tally.sums[name] = (total + int(known.sum()), count + len(known))


def _insert_delays(tally: Tally, batch: Batch, scope: Mask | None, window: Integers) -> None:
    contract = tally.contract
    coarse = window // (WINDOWS // SKETCH_WINDOWS)
    if contract.domain == END_TO_END:
        lost = failed(batch) if scope is None else failed(batch) & scope
        if lost.any():
            tally.sketch.infinite += np.bincount(coarse[lost], minlength=SKETCH_WINDOWS)
            if batch.sessions is not None:
                sessions = _by_session(tally)
                sessions.infinite += np.bincount(batch.sessions[lost], minlength=SESSION_GROUPS)
        delay_us = batch.end_to_end_us
        chosen = (delay_us >= 0) & ~lost
    elif contract.domain in batch.domains:
        delay_us = batch.domains[contract.domain]
        chosen = delay_us >= 0
    else:
        return
    if scope is not None:
        chosen &= scope
    whole = bool(chosen.all())
    if not whole:
        delay_us, coarse = delay_us[chosen], coarse[chosen]
    tally.sketch.insert(delay_us, coarse)
    if batch.sessions is not None:
        _by_session(tally).insert(delay_us, batch.sessions if whole else batch.sessions[chosen])
    tally.top.add(delay_us)


def _by_session(tally: Tally) -> DelaySketch:
    if tally.by_session is None:
        tally.by_session = DelaySketch(windows=SESSION_GROUPS)
    return tally.by_session
