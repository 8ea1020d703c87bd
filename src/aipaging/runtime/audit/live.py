"""The controller's own audit: takes what gateways report, watches every contract in force, and says what it finds.

`offer` is the hot path: it appends bytes and returns. Everything else happens in `run`, four times a second: decoding
in a thread, counting on the loop in bounded slices, findings through the engine like every other transition. What does
not fit into the bounds is counted as missing, in every contract that is watched meanwhile.

State is in memory alone. A controller that starts begins new periods; what was served while it was away is missing,
as far as the gateway's own counter says so.
"""

import asyncio
import logging
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import msgspec
import numpy as np

from aipaging.core.audit.account import Row, live_account
from aipaging.core.audit.continuous import NOTHING, Change, ChangeKind, Counts
from aipaging.core.audit.contract import END_TO_END, Contract
from aipaging.core.audit.delays import DelayBook, Series
from aipaging.core.audit.live import LivePlan, Watch, finding_fields
from aipaging.core.audit.verdict import Outcome
from aipaging.core.envelope.envelope import Envelope
from aipaging.core.foundation.errors import AipagingError
from aipaging.core.foundation.time import Now, WallUs
from aipaging.core.paging.standing import ALARM, VERDICT, Finding, RecordFinding
from aipaging.core.paging.state import State
from aipaging.ports.control import ControlPlane
from aipaging.ports.telemetry import LateRequest, LateRequests, SeenRequest
from aipaging.runtime.audit.contracts import Reading, Watched, contract_of, reading

LOG: Final = logging.getLogger("aipaging.audit")

TICK_S: Final = 0.25
"""Four times a second: a fifth of a second is what Envoy waits before it sends."""

BUFFER_BYTES_MAX: Final = 16 * 1024 * 1024
"""Messages that wait: about 50,000 requests, ten seconds of a busy gateway."""

SLICE_REQUESTS: Final = 500
"""Requests between two looks at the loop: about five milliseconds."""

WATCHED_MAX: Final = 4_096
"""Contracts watched at a time; requests of others are counted as unwatched."""

WATCHED_PER_TENANT_MAX: Final = 256
"""Of those, a tenant's: clients choose delays and epsilons, and must not use up what watches over others."""

ROWS_MAX: Final = 20_000
"""Requests kept of each path for the account of who was late; the latest count."""

ROWS_TOTAL_MAX: Final = 400_000
"""Of all paths, at about 150 bytes: 60 MB."""

PATHS_PER_TENANT_MAX: Final = 4
"""Of the twenty paths that there is room for, a tenant's."""

TRACES_PER_TICK_MAX: Final = 32
"""Traces kept of late requests: 128 a second, however many are late."""

TRACES_OF_TENANT_MAX: Final = 8
"""Of those, a tenant's in one tick."""

FINDINGS_WAITING_MAX: Final = 1_024
"""Findings that the journal has not taken yet."""

Decode = Callable[[bytes], Sequence[SeenRequest]]


@dataclass(slots=True)
class AuditCounts:
    """What the audit has seen since it started; all of it is in the metrics.

    Attributes:
        records: Requests that were counted.
        missing: Requests that were not reported, or found no room.
        unknown: Requests of sessions, anchors or paths that are not known; what a gateway refuses is not reported.
        unwatched: Requests of contracts for which there was no room.
        malformed: Messages that could not be read.
        traces: Late requests whose trace was kept.
        traces_left_out: Those for which there was no room.
        findings: By (kind, verdict).
    """

    records: int = 0
    missing: int = 0
    unknown: int = 0
    unwatched: int = 0
    malformed: int = 0
    traces: int = 0
    traces_left_out: int = 0
    findings: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])


async def _none_dropped() -> int:
    return 0


class LiveAudit:
    """One controller's audit.

    Attributes:
        counts: What it has seen.
        delays: The delays that were measured, to be exported.
        late_requests: Keeps the traces of requests that were late; None: nobody does.
    """

    def __init__(
        self,
        control: ControlPlane,
        plan: LivePlan,
        *,
        decode: Decode,
        new_id: Callable[[], str],
        software: str,
        dropped: Callable[[], Awaitable[int]] = _none_dropped,
    ) -> None:
        """Set up.

        Args:
            control: The engine.
            plan: How contracts are watched.
            decode: Reads a message; raises ValueError where it is none.
            new_id: Ids of findings.
            software: Name and version, for the records.
            dropped: How many requests the gateways could not report since they started.
        """
        self.counts = AuditCounts()
        self.delays = DelayBook()
        self.late_requests: LateRequests | None = None
        self._late_of_tick: Counter[str] = Counter()
        self._control = control
        self._plan = plan
        self._decode = decode
        self._new_id = new_id
        self._software = software
        self._dropped = dropped
        self._dropped_before = 0
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._watches: dict[Watched, Watch] = {}
        self._watches_of: Counter[str] = Counter()
        self._rows: dict[Watched, deque[Row]] = {}
        self._number = 0
        self._unsaid: deque[RecordFinding] = deque()

    def offer(self, message: bytes) -> None:
        """Take a message of a gateway; never waits."""
        if self._waiting_bytes + len(message) > BUFFER_BYTES_MAX:
            self._forget(message)
            return
        self._waiting.append(message)
        self._waiting_bytes += len(message)

    def _forget(self, message: bytes) -> None:
        try:
            self.counts.missing += len(self._decode(message))
        except ValueError:
            self.counts.malformed += 1

    async def run(self) -> None:
        """Audit until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self.tick()
            except AipagingError as error:
                LOG.warning("the audit waits", extra={"code": error.code, "reason": error.message})

    async def tick(self) -> None:
        """Take in what has come, close the periods that are over, and say what was found.

        Raises:
            AipagingError: The engine takes nothing now; what was found is kept, and said later.
        """
        await self._note_dropped()
        self._late_of_tick.clear()
        messages, self._waiting, self._waiting_bytes = list(self._waiting), deque(), 0
        found = await asyncio.to_thread(self._decoded, messages) if messages else []
        for first in range(0, len(found), SLICE_REQUESTS):
            part = found[first : first + SLICE_REQUESTS]
            await self._news(await self._control.view(partial(self._take, part)))
        await self._news(await self._control.view(self._close))
        await self._say()

    async def _note_dropped(self) -> None:
        dropped = await self._dropped()
        if dropped > self._dropped_before:
            self.counts.missing += dropped - self._dropped_before
        self._dropped_before = dropped

    def _decoded(self, messages: Sequence[bytes]) -> list[SeenRequest]:
        found: list[SeenRequest] = []
        for message in messages:
            try:
                found += self._decode(message)
            except ValueError:
                self.counts.malformed += 1
        return found

    # -- counting

    def _take(self, part: Sequence[SeenRequest], state: State, now: Now) -> "list[_News]":
        batches: dict[Watched, list[int]] = {}
        read = [said for said in (reading(state, seen) for seen in part) if said is not None]
        self.counts.unknown += len(part) - len(read)
        self.counts.records += len(read)
        for said in read:
            self._count(said, batches)
        self._keep(read)
        news: list[_News] = []
        envelopes = {envelope.digest: envelope for envelope in state.catalogue.envelopes.values()}
        for watched, (requests, certain, possible) in batches.items():
            watch = self._watch(watched, envelopes.get(watched.envelope), now.wall_us)
            if watch is None:
                self.counts.unwatched += requests
                continue
            after, changes = watch.fed(Counts(requests=requests, certain=certain, possible=possible))
            self._watches[watched] = after
            news += (self._changed(watched, after, change, now.wall_us) for change in changes)
        return news

    def _count(self, said: Reading, batches: dict[Watched, list[int]]) -> None:
        for one in said.said:
            counts = batches.setdefault(one.watched, [0, 0, 0])
            counts[0] += 1
            counts[1] += one.certain
            counts[2] += one.possible
            if one.watched.domain == END_TO_END:
                rows = self._rows_of(one.watched)
                if rows is not None:
                    rows.append(said.row)

    def _rows_of(self, watched: Watched) -> deque[Row] | None:
        rows = self._rows.get(watched)
        if rows is None and len(self._rows) * ROWS_MAX < ROWS_TOTAL_MAX:
            of_tenant = sum(other.tenant == watched.tenant for other in self._rows)
            if of_tenant < PATHS_PER_TENANT_MAX:
                rows = self._rows[watched] = deque(maxlen=ROWS_MAX)
        return rows

    def _keep(self, read: Sequence[Reading]) -> None:
        """Note the delays, and keep the traces of who was late, as far as there is room."""
        delays_us: defaultdict[Series, list[int]] = defaultdict(list)
        late: list[LateRequest] = []
        for one in read:
            for series, value_us in one.delays_us:
                delays_us[series].append(value_us)
            if one.late is not None and self.late_requests is not None:
                tenant, kept = one.late.tenant, self._late_of_tick
                if kept.total() < TRACES_PER_TICK_MAX and kept[tenant] < TRACES_OF_TENANT_MAX:
                    kept[tenant] += 1
                    late.append(one.late)
                else:
                    self.counts.traces_left_out += 1
        self.delays.add(delays_us)
        if self.late_requests is not None and late:
            self.counts.traces += len(late)
            self.late_requests.keep(late)

    def _watch(self, watched: Watched, envelope: Envelope | None, now_us: WallUs) -> Watch | None:
        watch = self._watches.get(watched)
        room = len(self._watches) < WATCHED_MAX and self._watches_of[watched.tenant] < WATCHED_PER_TENANT_MAX
        if watch is None and room:
            self._number += 1
            self._watches_of[watched.tenant] += 1
            contract = contract_of(watched, envelope)
            missing = self.counts.missing
            watch = Watch.begun(contract, self._plan, number=self._number, now_us=now_us, missing=missing)
        return watch

    def _close(self, _state: State, now: Now) -> "list[_News]":
        """End the periods that are over; a contract of which nothing came is not watched any more."""
        news: list[_News] = []
        for watched, watch in list(self._watches.items()):
            if not watch.over(now.wall_us):
                continue
            if watch.audit.total == NOTHING:
                del self._watches[watched]
                self._watches_of[watched.tenant] -= 1
                self._rows.pop(watched, None)
                continue
            after, verdict = watch.closed(now.wall_us, self.counts.missing)
            self._watches[watched] = after
            if watch.audit.outcome is not Outcome.VIOLATED:  # that was said when it was certain
                fields = finding_fields(verdict, watch, software=self._software)
                news.append(_News(watched, VERDICT, verdict.outcome, fields, now.wall_us))
        return news

    def _changed(self, watched: Watched, watch: Watch, change: Change, now_us: WallUs) -> "_News":
        verdict = watch.verdict(now_us, self.counts.missing)
        fields = finding_fields(verdict, watch, software=self._software)
        kind = ALARM if change.kind is ChangeKind.ALARM else VERDICT
        if kind == ALARM:
            fields["reason"] = change.reason
        return _News(watched, kind, verdict.outcome, fields, now_us)

    # -- saying

    async def _news(self, news: "Sequence[_News]") -> None:
        for one in news:
            account = ""
            if one.watched.domain == END_TO_END and one.outcome is Outcome.VIOLATED:
                account = await asyncio.to_thread(self._account, one.watched)
            finding = Finding(
                finding=self._new_id(),
                kind=one.kind,
                domain=one.watched.domain,
                tenant=one.watched.tenant,
                verdict=one.outcome.value,
                envelope=one.watched.envelope,
                fields=one.fields,
                account=account,
                wall_us=one.wall_us,
            )
            # A domain is suspect by its own contract alone; a path that is late names nobody.
            suspect = one.watched.envelope and (one.kind == ALARM or one.outcome is Outcome.VIOLATED)
            self._unsaid.append(
                RecordFinding(
                    finding=finding, suspect=f"audit {finding.finding}: {one.kind.lower()}" if suspect else ""
                )
            )
            self.counts.findings[one.kind, one.outcome.value] += 1
            if len(self._unsaid) > FINDINGS_WAITING_MAX:
                self._unsaid.popleft()
                LOG.error("a finding was lost: the journal has not taken any for too long")

    async def _say(self) -> None:
        while self._unsaid:
            command = self._unsaid[0]
            finding = command.finding
            await self._control.submit(command)
            self._unsaid.popleft()
            log = LOG.info if finding.verdict == Outcome.COMPLIANT.value else LOG.warning
            log(
                "audit finding",
                extra={
                    "finding": finding.finding,
                    "kind": finding.kind,
                    "domain": finding.domain,
                    "tenant": finding.tenant,
                    "verdict": finding.verdict,
                    "reason": finding.fields["reason"],
                },
            )

    def _account(self, watched: Watched) -> str:
        """Return who made the requests of a path late, as canonical JSON; runs in a thread."""
        rows = list(self._rows.get(watched, ()))
        if not rows:
            return ""
        contract = self._watches[watched].audit.contract
        account = live_account(contract, rows, self._violated(watched.tenant), np.random.default_rng(0))
        return msgspec.json.encode(account, order="sorted").decode()

    def _violated(self, tenant: str) -> Mapping[str, Contract]:
        """Return the contracts of domains that are violated in their present period: who may be blamed."""
        found: dict[str, Contract] = {}
        for watched, watch in list(self._watches.items()):
            if watched.tenant == tenant and watched.envelope and watch.audit.outcome is Outcome.VIOLATED:
                contract = watch.audit.contract
                found[watched.domain] = Contract(
                    domain=contract.domain, delay_ms=contract.delay_ms, epsilon=contract.epsilon, tail=contract.tail
                )
        return found


@dataclass(frozen=True, slots=True)
class _News:
    """A finding that has no id yet."""

    watched: Watched
    kind: str
    outcome: Outcome
    fields: dict[str, str | int]
    wall_us: WallUs
