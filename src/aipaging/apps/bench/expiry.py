"""Leases that last at most: what an upstream sees of sessions whose leases end, under load, on its own clock.

How renewal stops: in each of several systems, whose leases last 0.2 to 5 s, sessions are paged and used; half of them
last 1 to 5 s and so have a last lease that ends with them, while the controller lives or not; the others would go on.
Then the controller is killed (SIGKILL) in the middle of its renewals. Gateway and sidecar live, and their clients go on
sending all the time. So every session ends by a lease that nobody renews, and those of the dead by nothing else.

What counts as late: the end of a lease is the instant at which the controller decided to grant or renew it, by its own
evidence, plus the lease; that instant is before any answer, so it is stricter than "lease counted from the answer".
For sessions with a duration, what the client was told is checked beside it: its page's answer plus the duration.
All processes share the boot clock of one machine.

A cut cannot be more punctual than the machine lets a process run. So beside the cuts stands a bare timer, in a process
that does nothing else at that time: by how much it fired late, in the same run.
"""

import asyncio
import logging
import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aipaging.apps.bench.interleaved import Goal, alone
from aipaging.apps.bench.result import BenchResult
from aipaging.core.foundation.time import MS, SECOND
from aipaging.testing.lease_times import LeaseTimes, lease_times
from aipaging.testing.loopback_stack import HOST, BenchAnchor, BenchStack, Times, bench_stack
from aipaging.testing.recording_upstream import SeenRequest, boot_us, read_seen, recording_upstream
from aipaging.testing.stack import CONTROLLER
from aipaging.testing.traffic import Outcome, Traffic, TrafficPlan, traffic

LOG: Final = logging.getLogger("aipaging.bench")

LEASES_MS: Final = (200, 400, 800, 1_500, 3_000, 5_000)
LEASES_MS_QUICK: Final = (200, 1_000, 3_000)
SESSIONS: Final = 1_000
SESSIONS_QUICK: Final = 100

DURATIONS_S: Final = (1, 5)
"""The least and the most that a session lasts that ends by itself."""

STREAMS_OF: Final = 4
"""One session in so many streams."""

PAGED_AT_ONCE: Final = 8
PERIOD_MS: Final = 80.0
TOKENS, GAP_MS = 4_000, 20.0
"""A stream of 80 s: none ends by itself."""

KILLED_AFTER_S: Final = 2.0
"""From the last page to the kill: some of the sessions with a duration have ended by then."""

AFTER_S: Final = 1.2
"""Traffic goes on for so long after the last lease can have ended."""

TIMER_S: Final = 0.01
"""How often a bare timer is looked at."""

CUT_MS_MAX: Final = 50.0
NONE: Final = Goal(text="0", most=0)
STATED: Final = Goal(text="stated")


@dataclass(frozen=True, slots=True, kw_only=True)
class Paged:
    """A session, and what its client was told.

    Attributes:
        session: Its id.
        stream: Whether it streams.
        ends_us: The page's answer plus the duration; 0 where the session would go on.
    """

    session: str
    stream: bool
    ends_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What one system left behind.

    Attributes:
        paged: Its sessions; their place is the key of their requests.
        times: When each could be steered.
        seen: What the upstream noted.
        outcomes: What the clients noted.
        timer_us: By how much a bare timer fired late meanwhile.
    """

    paged: Sequence[Paged]
    times: Mapping[str, LeaseTimes]
    seen: Sequence[SeenRequest]
    outcomes: Sequence[Outcome]
    timer_us: Sequence[int]


@dataclass(slots=True)
class Observed:
    """What was seen of all sessions of all systems.

    Attributes:
        leases: Grants and renewals.
        requests: JSON requests that began at the upstream.
        late_us: Of each of them, its beginning less the end of its lease: negative when within.
        told_late_us: Of those whose session has a duration: less what the client was told.
        cut_us: Of each stream that was cut at the end of its session: the cut less the end of the lease.
        token_us: Of each of those: its last token at the upstream less the end of the lease.
        received_us: Of each of those: the last token at its client less the end of the lease.
        early_us: Of each session with JSON requests: the end of its last lease less its last request's beginning.
        refused: Requests that were sent after the end, and were refused.
        served: Requests that were sent after the end, and were answered.
        uncut: Streams that nobody ever cut.
        timer_us: By how much a bare timer fired late.
    """

    leases: int = 0
    requests: int = 0
    late_us: list[int] = field(default_factory=list)
    told_late_us: list[int] = field(default_factory=list)
    cut_us: list[int] = field(default_factory=list)
    token_us: list[int] = field(default_factory=list)
    received_us: list[int] = field(default_factory=list)
    early_us: list[int] = field(default_factory=list)
    refused: int = 0
    served: int = 0
    uncut: int = 0
    timer_us: list[int] = field(default_factory=list)


def run(*, quick: bool, seed: int) -> list[BenchResult]:
    """Measure; the seed chooses durations and spreads the requests."""
    leases_ms, sessions = (LEASES_MS_QUICK, SESSIONS_QUICK) if quick else (LEASES_MS, SESSIONS)
    return asyncio.run(measure(leases_ms=leases_ms, sessions=-(-sessions // len(leases_ms)), seed=seed))


async def measure(*, leases_ms: Sequence[int], sessions: int, seed: int) -> list[BenchResult]:
    """Run one system for each duration of leases and return the results.

    Args:
        leases_ms: The durations.
        sessions: Of each system.
        seed: Chooses durations and spreads the requests.
    """
    observed = Observed()
    with tempfile.TemporaryDirectory(prefix="aipaging-bench-") as name:
        for lease_ms in leases_ms:
            tally(observed, await _system(Path(name), lease_ms, sessions=sessions, seed=seed))
    return results(observed, sessions=sessions * len(leases_ms))


async def _system(folder: Path, lease_ms: int, *, sessions: int, seed: int) -> Watched:
    """Page, load, kill, wait, and return what was seen."""
    with recording_upstream(folder / "upstream.json") as port:
        anchor = BenchAnchor(name="anchor-1")
        async with bench_stack(folder / "stack", [anchor], Times(lease_ms=lease_ms), upstream_port=port) as stack:
            plan = TrafficPlan(
                host=HOST, port=stack.gateway_port, period_ms=PERIOD_MS, tokens=TOKENS, gap_ms=GAP_MS, seed=seed
            )
            async with traffic(plan, folder / "outcomes.json") as clients:
                paged = await _page_all(stack, clients, sessions, random.Random(seed + lease_ms))  # noqa: S311
                timer_us = await _timer(KILLED_AFTER_S)
                stack.processes.children[CONTROLLER].kill()
                timer_us += await _timer(lease_ms / 1000 + AFTER_S)
                outcomes = await clients.stop()
            times = lease_times(stack.journal)
    seen = read_seen(folder / "upstream.json")
    return Watched(paged=paged, times=times, seen=seen, outcomes=outcomes, timer_us=timer_us)


async def _timer(seconds: float) -> list[int]:
    """Wait; return by how much each of the timers on the way fired late."""
    loop = asyncio.get_running_loop()
    late_us: list[int] = []
    end_s = loop.time() + seconds
    while (due_s := loop.time() + TIMER_S) < end_s + TIMER_S:
        await asyncio.sleep(TIMER_S)
        late_us.append(int((loop.time() - due_s) * SECOND))
    return late_us


async def _page_all(stack: BenchStack, clients: Traffic, sessions: int, chance: random.Random) -> list[Paged]:
    """Page all sessions; each is used from the moment it is paged."""
    paged: dict[int, Paged] = {}
    keys = iter([(key, chance.randint(*DURATIONS_S) if key % 2 else 0) for key in range(sessions)])

    async def some() -> None:
        for key, duration_s in keys:
            document: dict[str, Any] = await stack.page(duration_s=duration_s or 3_600)
            ends_us = boot_us() + duration_s * SECOND if duration_s else 0
            stream = key // 2 % STREAMS_OF == 0
            paged[key] = Paged(session=document["sessionId"], stream=stream, ends_us=ends_us)
            await clients.client(key, document["aist"], kind="stream" if stream else "json")

    async with asyncio.TaskGroup() as group:
        for _ in range(PAGED_AT_ONCE):
            group.create_task(some())
    return [paged[key] for key in range(sessions)]


def tally(observed: Observed, system: Watched) -> None:
    """Add what the upstream and the clients of one system saw."""
    paged, times = system.paged, system.times
    leases = [times[one.session] for one in paged]
    observed.timer_us += system.timer_us
    observed.leases += sum(len(one.begins_us) for one in leases)
    last_us = [0] * len(paged)
    for request in system.seen:
        lease, session = leases[request.key], paged[request.key]
        if request.stream and request.ended_us and lease.late_us(request.started_us) < 0:
            # A stream may outlive many leases of its session; what cuts it is the last one's end.
            observed.cut_us.append(request.ended_us - lease.last_us)
            observed.token_us.append(request.last_us - lease.last_us)
        observed.uncut += request.stream and not request.ended_us
        observed.requests += 1
        observed.late_us.append(lease.late_us(request.started_us))
        last_us[request.key] = max(last_us[request.key], request.started_us)
        if session.ends_us:
            observed.told_late_us.append(request.started_us - session.ends_us)
    observed.early_us += [
        lease.last_us - at_us
        for lease, session, at_us in zip(leases, paged, last_us, strict=True)
        if at_us and not session.stream
    ]
    for outcome in system.outcomes:
        end_us = leases[outcome.key].last_us
        if outcome.kind == "stream" and outcome.status == 200:
            observed.received_us.append(outcome.last_us - end_us)
        elif outcome.sent_us > end_us:
            observed.served += outcome.status == 200
            observed.refused += outcome.status != 200


def results(observed: Observed, *, sessions: int) -> list[BenchResult]:
    """Return the results of all systems together."""
    cut_goal = Goal(text=f"<= {CUT_MS_MAX:g}", most=CUT_MS_MAX)
    late = [late for late in observed.late_us if late > 0]
    told_late = [late for late in observed.told_late_us if late > 0]
    return [
        alone("sessions", "sessions", [sessions], STATED),
        alone("leases_granted_or_renewed", "leases", [observed.leases], STATED),
        alone("requests_at_upstream", "requests", [observed.requests], Goal(text="> 0", least=1)),
        alone("requests_started_after_lease_end", "requests", [len(late)], NONE),
        alone("request_late_ms_max", "ms", [max(observed.late_us, default=0) / MS], STATED),
        alone("requests_started_after_answer_and_duration", "requests", [len(told_late)], NONE),
        alone("requests_sent_after_lease_end_refused", "requests", [observed.refused], Goal(text="> 0", least=1)),
        alone("requests_sent_after_lease_end_served", "requests", [observed.served], NONE),
        alone("streams_cut", "streams", [len(observed.cut_us)], Goal(text="> 0", least=1)),
        alone("streams_never_cut", "streams", [observed.uncut], NONE),
        alone("stream_token_late_ms_max", "ms", [max(observed.token_us, default=0) / MS], cut_goal),
        alone("stream_received_late_ms_max", "ms", [max(observed.received_us, default=0) / MS], STATED),
        *_distribution("stream_cut_late_ms", observed.cut_us, cut_goal),
        *_distribution("bare_timer_late_ms", observed.timer_us, STATED),
        *_distribution("session_lost_early_ms", observed.early_us, STATED),
    ]


def _distribution(metric: str, values_us: Sequence[int], of_most: Goal) -> list[BenchResult]:
    """Return a distribution; the goal is that of its largest value."""
    ranked = sorted(values_us) or [0]
    return [
        alone(f"{metric}_{name}", "ms", [ranked[int(part * (len(ranked) - 1))] / MS], goal)
        for name, part, goal in (
            ("min", 0.0, STATED),
            ("p50", 0.5, STATED),
            ("p99", 0.99, STATED),
            ("max", 1.0, of_most),
        )
    ]
