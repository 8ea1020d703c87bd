"""Many live sessions: what each takes, what renewing them takes, whether they slow pages down, and recovery.

In process: the real engine with SQLite, keys and steering of memory. A hundred thousand sessions with leases of 60 s
renew 4,000 times a second; a quick run has a tenth of the sessions and of the lease, so that as many fall due at once,
and says so in its metrics' names. Whatever else the controller does meanwhile counts as theirs.

Memory is what the process holds more of, by the kernel's count, divided by the number of sessions: once after they were
paged, once after they were renewed and others were paged beside them. The first thousand are not counted, since they
bring what all share. All ask for the same, as the users of one application do; what sessions take that share no intent
is said beside it, without the first ones again.

Pages are timed beside a thousand sessions before and after they are beside all of them: disks have better minutes and
worse.

The journal's file is looked at, too: nothing is ever taken out of it, so what a renewal and a record add is what an
operator's disk has to hold.

Recovery: a journal of pages and ends is read back as after a crash, once from a snapshot, and once without any. A
controller has a snapshot that is at most 50,000 records old, so it takes as long as a snapshot and that many records.
"""

import asyncio
import gc
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from aipaging.apps.bench.engine_stage import EngineStage, engine_stage
from aipaging.apps.bench.interleaved import Goal, against, alone
from aipaging.apps.bench.result import BenchResult
from aipaging.core.lease.machine import LeaseTerms
from aipaging.core.paging import commands as c
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.core.paging.settings import Settings
from aipaging.core.paging.snapshot import frozen, parts
from aipaging.runtime.clock import SystemClock
from aipaging.runtime.recording import SNAPSHOT_RECORDS

SESSIONS: Final = 100_000
LEASE_MS: Final = 60_000
FEW: Final = 1_000
"""Sessions that are there when memory is first looked at, and while pages are timed without the others."""

DIFFERENT_OF_ALL: Final = 5
"""A fifth of the sessions once more, each with an intent of its own; a quarter of these bring what all share."""

RECORDS: Final = 1_000_000
RECORDS_OF_A_LIFE: Final = 4
"""Of a session that was paged and ended: requested, granted, revoked, ended; its release comes later."""

AT_ONCE: Final = 256
PACED_PER_S: Final = 50.0
GOLDEN: Final = 0.618034
"""Its multiples, without what is before the point, fill the time between two pages evenly, in no rhythm."""

BYTES_MAX: Final = 2_048
RENEWAL_SHARE_MAX: Final = 0.25
RECOVERY_S_MAX: Final = 20.0
SLOWER_MAX: Final = 1.2
STATED: Final = Goal(text="stated")


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much is measured.

    Attributes:
        sessions: Live ones.
        watched_s: How long renewals are watched, and pages timed.
        records: In the journal that is recovered.
    """

    sessions: int
    watched_s: float
    records: int

    @property
    def lease_ms(self) -> int:
        """The lease that gives as many renewals a second as the whole number of sessions has with its own."""
        return LEASE_MS * self.sessions // SESSIONS


FULL: Final = Extent(sessions=SESSIONS, watched_s=60.0, records=RECORDS)
QUICK: Final = Extent(sessions=SESSIONS // 10, watched_s=6.0, records=20_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Watched:
    """What was seen of live sessions."""

    bytes_each: float
    bytes_each_later: float
    renewing_share: float
    renewals: int
    seconds: float
    journal_bytes: int
    few_ms: Sequence[float]
    many_ms: Sequence[float]


def settings(lease_ms: int) -> Settings:
    """Return the engine's settings for a lease."""
    terms = LeaseTerms(lease_ms=lease_ms, drift_ppm=500, grace_ms=500, drain_ms_max=lease_ms)
    return Settings(lease=terms, lease_ms_max=lease_ms, sessions_max=10_000_000)


def run(*, quick: bool, seed: int) -> list[BenchResult]:
    """Measure; nothing is random but ids and keys."""
    del seed
    return uvloop.run(measure(QUICK if quick else FULL))


async def measure(extent: Extent) -> list[BenchResult]:
    """Measure live sessions, then recovery, and return the results."""
    with tempfile.TemporaryDirectory(prefix="aipaging-bench-") as name:
        watched = await _live(Path(name) / "live", extent)
    gc.collect()
    with tempfile.TemporaryDirectory(prefix="aipaging-bench-") as name:
        different = await _different(Path(name) / "different", extent)
    gc.collect()
    with tempfile.TemporaryDirectory(prefix="aipaging-bench-") as name:
        recovered = await _recoveries(Path(name) / "past", extent)
    return [*_live_results(watched, extent, different), *_recovery_results(extent, recovered)]


async def _live(folder: Path, extent: Extent) -> _Watched:
    async with engine_stage(folder, settings(extent.lease_ms)) as stage:
        await stage.pages(FEW, at_once=AT_ONCE)
        few_ms = await _paged_ms(stage, extent.watched_s / 2)
        before = _held_bytes()
        count = extent.sessions - len(stage.engine.state.sessions)
        await stage.pages(count, at_once=AT_ONCE)
        bytes_each = (_held_bytes() - before) / count
        journal_bytes = _stored_bytes(folder)
        many, renewing_share, seconds = await _watch(stage, extent.watched_s)
        journal_bytes = _stored_bytes(folder) - journal_bytes
        many_ms = await _paged_ms(stage, extent.watched_s)
        bytes_each_later = (_held_bytes() - before) / (len(stage.engine.state.sessions) - extent.sessions + count)
    async with engine_stage(folder.with_name("few"), settings(extent.lease_ms)) as stage:
        await stage.pages(FEW, at_once=AT_ONCE)
        few_ms += await _paged_ms(stage, extent.watched_s / 2)
    return _Watched(
        bytes_each=bytes_each,
        bytes_each_later=bytes_each_later,
        renewing_share=renewing_share,
        renewals=many,
        seconds=seconds,
        journal_bytes=journal_bytes,
        few_ms=sorted(few_ms),
        many_ms=many_ms,
    )


async def _different(folder: Path, extent: Extent) -> float:
    """Return what a session takes whose intent nobody shares."""
    count = extent.sessions // DIFFERENT_OF_ALL
    async with engine_stage(folder, settings(LEASE_MS)) as stage:
        await stage.pages(count // 4, at_once=AT_ONCE, different=True)
        before = _held_bytes()
        await stage.pages(count, at_once=AT_ONCE, different=True)
        return (_held_bytes() - before) / count


def _held_bytes() -> int:
    """Return what the process holds, garbage left out."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _stored_bytes(folder: Path) -> int:
    """Return how long the journal's file is, without what still waits in the write-ahead log."""
    return (folder / "journal.db").stat().st_size


async def _watch(stage: EngineStage, seconds: float) -> tuple[int, float, float]:
    """Let renewals happen; return how many did, the share of a core that went into it, and how long it was."""
    renewed, wall, cpu = _renewals(stage), time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    took_s = time.perf_counter() - wall
    return _renewals(stage) - renewed, (time.process_time() - cpu) / took_s, took_s


def _renewals(stage: EngineStage) -> int:
    leases = (session.lease for session in stage.engine.state.sessions.values())
    return sum(lease.renewal for lease in leases if lease is not None)


async def _paged_ms(stage: EngineStage, seconds: float) -> list[float]:
    """Page at a steady pace, at no fixed distance from renewals; return what each page took from when it was due."""
    began_s = time.perf_counter()
    took_ms: list[float] = []

    async def one(due_s: float) -> None:
        await stage.page(3_600)
        took_ms.append((time.perf_counter() - due_s) * 1_000)

    async with asyncio.TaskGroup() as group:
        for place in range(int(seconds * PACED_PER_S)):
            due_s = began_s + (place + place * GOLDEN % 1) / PACED_PER_S
            await asyncio.sleep(due_s - time.perf_counter())
            group.create_task(one(due_s))
    return sorted(took_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recovered:
    """A journal that was read back."""

    records: int
    journal_bytes: int
    with_snapshot_s: float
    without_s: float


async def _recoveries(folder: Path, extent: Extent) -> _Recovered:
    """Write a journal and read it back, from the snapshot and without."""
    async with engine_stage(folder, settings(LEASE_MS)) as stage:
        await _lives(stage, extent.records)
        head, state = stage.engine.head, frozen(stage.engine.state)
        records = head.seq
    stage.journal.open()
    stage.journal.save(records, head.tree.root().hex(), stage.journal.write(parts(state)))
    stage.journal.close()
    return _Recovered(
        records=records,
        journal_bytes=_stored_bytes(folder),  # closed: all of it is in the file
        with_snapshot_s=await _recovery_s(folder, erased=False),
        without_s=await _recovery_s(folder, erased=True),
    )


async def _lives(stage: EngineStage, records: int) -> None:
    """Page sessions and end nine of ten, until the log has so many records."""
    left = iter(range(records // RECORDS_OF_A_LIFE))

    async def some() -> None:
        for place in left:
            session = await stage.paged(3_600)
            if place % 10:
                await stage.engine.submit(c.End(session=session, status_info=StatusInfo.DELETE_REQUESTED))

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(some())


async def _recovery_s(folder: Path, *, erased: bool) -> float:
    """Return how long a controller takes until it knows all that it knew."""
    stage = EngineStage(folder, SystemClock())
    if erased:
        stage.journal.open()
        stage.journal.discard()
        stage.journal.close()
    began = time.perf_counter()
    await stage.engine.recover()
    took_s = time.perf_counter() - began
    await stage.stop()
    return took_s


def _live_results(watched: _Watched, extent: Extent, different: float) -> list[BenchResult]:
    label = "" if extent.sessions == SESSIONS else f"_from_{extent.sessions}_with_leases_of_{extent.lease_ms}_ms"
    per_s = watched.renewals / watched.seconds
    wanted_per_s = SESSIONS / (LEASE_MS / 1_000 * 5 / 12)
    share = watched.renewing_share * wanted_per_s / per_s
    few, many = watched.few_ms, watched.many_ms
    # A tenth of the sessions share caches that are as large: what is divided is not what the goal is about.
    small = STATED if label else Goal(text=f"<= {BYTES_MAX}", most=BYTES_MAX)
    of = f"_of_{extent.sessions}" if label else ""
    ratio = Goal(text=f"<= {SLOWER_MAX:g} times", most=SLOWER_MAX, of_ratio=True)
    pairs = [(rank, [(_at(many, rank), _at(few, rank))]) for rank in (0.5, 0.99)]
    return [
        alone(f"bytes_per_session{of}", "B", [watched.bytes_each], small),
        alone(f"bytes_per_session_after_renewals{of}", "B", [watched.bytes_each_later], small),
        alone(f"bytes_per_session_with_an_intent_of_its_own{of}", "B", [different], STATED),
        alone(
            f"renewals_of_100000_share_of_core{label}", "cores", [share],
            Goal(text=f"<= {RENEWAL_SHARE_MAX}", most=RENEWAL_SHARE_MAX),
        ),
        alone("renewals_per_s", "1/s", [per_s], STATED),
        alone("journal_bytes_per_renewal", "B", [watched.journal_bytes / watched.renewals], STATED),
        alone("cpu_us_per_renewal", "us", [share / wanted_per_s * 1e6], STATED),
        *(
            against(f"page_ms_p{rank * 100:g}_with_{extent.sessions}_sessions", "ms", pair,
                    peer=f"the same with {FEW} sessions", goal=ratio if rank > 0.9 else STATED)
            for rank, pair in pairs
        ),
    ]  # fmt: skip


def _at(ranked: Sequence[float], rank: float) -> float:
    return ranked[int(rank * (len(ranked) - 1))]


def _recovery_results(extent: Extent, recovered: _Recovered) -> list[BenchResult]:
    records, with_snapshot_s, without_s = recovered.records, recovered.with_snapshot_s, recovered.without_s
    label = "" if extent.records == RECORDS else f"_extrapolated_from_{records}"
    goal = Goal(text=f"<= {RECOVERY_S_MAX:g}", most=RECOVERY_S_MAX)
    record_s = without_s / records
    # A snapshot is taken every so many records: no more than that is replayed, however long the log is.
    longest_s = with_snapshot_s + SNAPSHOT_RECORDS * record_s
    return [
        alone(f"recovery_of_1000000_records{label}", "s", [longest_s], goal),
        alone(f"recovery_of_1000000_records_without_snapshot{label}", "s", [record_s * RECORDS], STATED),
        alone("snapshot_read_s", "s", [with_snapshot_s], STATED),
        alone("journal_bytes_per_record", "B", [recovered.journal_bytes / records], STATED),
        alone("us_per_record_replayed", "us", [record_s * 1e6], STATED),
    ]
