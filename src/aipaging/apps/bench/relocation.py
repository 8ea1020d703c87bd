"""Relocations under load, make-before-break, beside break-before-make, in the same system at the same time.

Half of the sessions are relocated between two real anchors again and again. The others are moved as one moves without
relocation: the session is ended and another is paged at the other anchor, and the client goes on with the new token as
soon as it has it. All clients send at the same pace and repeat nothing; some of the relocated ones hold streams that
are shorter than the drain, and that must not break. Failed requests are counted by the clients.
"""

import asyncio
import logging
import statistics
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from aipaging.apps.bench.interleaved import Goal, alone
from aipaging.apps.bench.result import BenchResult
from aipaging.testing.loopback_stack import HOST, Times, bench_stack
from aipaging.testing.moves import ANCHORS, MovePlan, Moving, move_all
from aipaging.testing.recording_upstream import recording_upstream
from aipaging.testing.traffic import Outcome, TrafficPlan, traffic

PEER: Final = "break-before-make"
TIMES: Final = Times(lease_ms=2_000)
"""The drain lasts as long as a lease: a session can be relocated every two seconds and a little."""

RELOCATIONS: Final = 1_000
RELOCATIONS_QUICK: Final = 50
SESSIONS: Final = 40
SESSIONS_QUICK: Final = 10
"""Relocated sessions; as many others are ended and paged anew."""

PERIOD_MS: Final = 60.0
TOKENS, GAP_MS = 32, 25.0
"""A stream of 0.8 s: the source of a relocation may finish it within its drain."""

REASONS_MAX: Final = 5
"""Different reasons of failures that are told."""

LOG: Final = logging.getLogger("aipaging.bench")

NONE: Final = Goal(text="0", most=0)
STATED: Final = Goal(text="stated")


def run(*, quick: bool, seed: int) -> list[BenchResult]:
    """Measure; the seed spreads the clients' requests."""
    sessions, relocations = (SESSIONS_QUICK, RELOCATIONS_QUICK) if quick else (SESSIONS, RELOCATIONS)
    return asyncio.run(measure(sessions=sessions, rounds=-(-relocations // sessions), seed=seed))


async def measure(*, sessions: int, rounds: int, seed: int) -> list[BenchResult]:
    """Move every session `rounds` times and return the results.

    Args:
        sessions: How many are relocated, and how many others are ended and paged anew.
        rounds: How often each is moved.
        seed: Spreads the clients' requests.
    """
    with tempfile.TemporaryDirectory(prefix="aipaging-bench-") as name:
        folder = Path(name)
        with recording_upstream(folder / "upstream.json") as port:
            async with bench_stack(folder / "stack", ANCHORS, TIMES, upstream_port=port) as stack:
                plan = TrafficPlan(
                    host=HOST, port=stack.gateway_port, period_ms=PERIOD_MS, tokens=TOKENS, gap_ms=GAP_MS, seed=seed
                )
                async with traffic(plan, folder / "outcomes.json") as clients:
                    ours, theirs = await move_all(stack, clients, MovePlan(sessions=sessions, rounds=rounds))
                    outcomes = await clients.stop()
                sound = await stack.evidence_holds()
    return _results(outcomes, ours, theirs, sound=sound)


def _results(
    outcomes: Sequence[Outcome], ours: Sequence[Moving], theirs: Sequence[Moving], *, sound: bool
) -> list[BenchResult]:
    of_ours = [outcome for outcome in outcomes if outcome.key % 2 == 0]
    of_theirs = [outcome for outcome in outcomes if outcome.key % 2]
    durations = [duration for moving in ours for duration in moving.durations_ms]
    durations_of_theirs = [duration for moving in theirs for duration in moving.durations_ms]
    not_moved = [why for moving in (*ours, *theirs) for why in moving.failed]
    for why, times in Counter(not_moved).most_common(REASONS_MAX):
        LOG.warning("%d moves failed: %s", times, why)
    for why, times in Counter(_why(outcome) for outcome in of_ours if not outcome.ok).most_common(REASONS_MAX):
        LOG.warning("%d requests of relocated sessions failed: %s", times, why)
    return [
        _beside("failed_requests", "requests", (_failed(of_ours), _failed(of_theirs)), NONE),
        _beside("requests", "requests", (len(of_ours), len(of_theirs)), STATED),
        _beside("moves", "moves", (len(durations), len(durations_of_theirs)), STATED),
        alone("moves_failed", "moves", [len(not_moved)], NONE),
        _beside("move_ms_p50", "ms", (_middle(durations), _middle(durations_of_theirs)), STATED),
        _beside("request_ms_max", "ms", (_slowest_ms(of_ours), _slowest_ms(of_theirs)), STATED),
        alone("evidence_invariants_hold", "1 = yes", [float(sound)], Goal(text="1", least=1)),
    ]


def _failed(outcomes: Sequence[Outcome]) -> int:
    return sum(not outcome.ok for outcome in outcomes)


def _why(outcome: Outcome) -> str:
    return f"{outcome.kind} {outcome.status} {outcome.code or ('whole' if outcome.whole else 'broken')}"


def _middle(durations_ms: Sequence[float]) -> float:
    return statistics.median(durations_ms) if durations_ms else 0.0


def _slowest_ms(outcomes: Sequence[Outcome]) -> float:
    answered = [outcome for outcome in outcomes if outcome.ok and outcome.kind == "json"]
    return max((outcome.last_us - outcome.sent_us for outcome in answered), default=0) / 1000


def _beside(metric: str, unit: str, numbers: tuple[float, float], goal: Goal) -> BenchResult:
    """Return a number of ours and one of theirs, from the one run that held both kinds of moves."""
    ours, theirs = numbers
    return BenchResult(
        metric=metric,
        unit=unit,
        ours=ours,
        peer=PEER,
        theirs=theirs,
        ratio=ours / theirs if theirs else None,
        goal=goal.text,
        ok=goal.met(ours),
        runs=1,
        spread=0.0,
    )
