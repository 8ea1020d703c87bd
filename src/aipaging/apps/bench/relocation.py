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
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from aipaging.apps.bench.interleaved import Goal, alone
from aipaging.apps.bench.result import BenchResult
from aipaging.testing.loopback_stack import HOST, BenchAnchor, BenchStack, Times, bench_stack
from aipaging.testing.recording_upstream import recording_upstream
from aipaging.testing.traffic import Outcome, Traffic, TrafficPlan, traffic

PEER: Final = "break-before-make"
ANCHORS: Final = (BenchAnchor(name="east"), BenchAnchor(name="west"))
TIMES: Final = Times(lease_ms=2_000)
"""The drain lasts as long as a lease: a session can be relocated every two seconds and a little."""

RELOCATIONS: Final = 1_000
RELOCATIONS_QUICK: Final = 50
SESSIONS: Final = 40
SESSIONS_QUICK: Final = 10
"""Relocated sessions; as many others are ended and paged anew."""

STREAMS_OF: Final = 5
"""One relocated session in so many streams."""

PERIOD_MS: Final = 60.0
TOKENS, GAP_MS = 32, 25.0
"""A stream of 0.8 s: the source of a relocation may finish it within its drain."""

CYCLE_S: Final = 2.8
"""From one move of a session to its next, so that both kinds of moves fall evenly on the same time."""

SETTLE_S: Final = 1.0
"""Traffic before the first move, and after the last."""

ACCEPTED: Final = 202
REASONS_MAX: Final = 5
"""Different reasons of failures that are told."""

LOG: Final = logging.getLogger("aipaging.bench")

SWITCH_S_MAX: Final = 15.0
POLL_S: Final = 0.01

NONE: Final = Goal(text="0", most=0)
STATED: Final = Goal(text="stated")


class _Moving(ABC):
    """A session that is moved again and again while its client goes on.

    Attributes:
        durations_ms: Of the moves that came off.
        failed: Why the others did not.
    """

    def __init__(self, stack: BenchStack, key: int, document: dict[str, Any]) -> None:
        self.stack = stack
        self.key = key
        self.session: str = document["sessionId"]
        self.durations_ms: list[float] = []
        self.failed: list[str] = []

    async def run(self, *, rounds: int, first_s: float) -> None:
        """Move the session `rounds` times, beginning at an instant of the loop's clock."""
        loop = asyncio.get_running_loop()
        for turn in range(rounds):
            await asyncio.sleep(first_s + turn * CYCLE_S - loop.time())
            await self.until_free()
            began_s = time.monotonic()
            why = await self.move(turn)
            if why:
                self.failed.append(why)
            else:
                self.durations_ms.append((time.monotonic() - began_s) * 1000)

    @abstractmethod
    async def until_free(self) -> None:
        """Wait until the last move is quite over."""

    @abstractmethod
    async def move(self, turn: int) -> str:
        """Move the session once; return why that failed, or nothing."""


class _Relocated(_Moving):
    """Make before break."""

    async def until_free(self) -> None:
        """Wait until the source of the last relocation has been released: on a busy machine its drain began late."""
        while True:
            _, document = await self.stack.call("GET", f"/sessions/{self.session}")
            if "relocation" not in document or document["relocation"]["phase"] in {"SOURCE_RELEASED", "FAILED"}:
                return
            await asyncio.sleep(POLL_S)

    async def move(self, turn: int) -> str:
        """Ask for a relocation and wait for the switch."""
        del turn
        status, document = await self.stack.call("POST", f"/sessions/{self.session}/relocate", {})
        if status != ACCEPTED:
            return f"{status} {document.get('code')}: {document.get('message')}"
        number = document["relocation"]["number"]
        end_s = time.monotonic() + SWITCH_S_MAX
        while time.monotonic() < end_s:
            relocation = document["relocation"]
            if relocation["number"] != number or relocation["phase"] in {"SWITCHED", "SOURCE_RELEASED"}:
                return ""
            if relocation["phase"] == "FAILED":
                return str(relocation.get("message"))
            await asyncio.sleep(POLL_S)
            _, document = await self.stack.call("GET", f"/sessions/{self.session}")
        return "no switch in time"


class _PagedAnew(_Moving):
    """Break before make."""

    def __init__(self, stack: BenchStack, key: int, document: dict[str, Any], clients: Traffic) -> None:
        super().__init__(stack, key, document)
        self._clients = clients

    async def until_free(self) -> None:
        """Return: a session that was just paged can be ended."""

    async def move(self, turn: int) -> str:
        """End the session, page another at the other anchor, and give its token to the client."""
        await self.stack.call("DELETE", f"/sessions/{self.session}")
        document = await self.stack.page(anchor=ANCHORS[(self.key + turn + 1) % 2].name)
        self.session = document["sessionId"]
        await self._clients.client(self.key, document["aist"])
        return ""


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
                    ours, theirs = await _move_all(stack, clients, sessions=sessions, rounds=rounds)
                    outcomes = await clients.stop()
                sound = await stack.evidence_holds()
    return _results(outcomes, ours, theirs, sound=sound)


async def _move_all(
    stack: BenchStack, clients: Traffic, *, sessions: int, rounds: int
) -> tuple[list[_Moving], list[_Moving]]:
    ours: list[_Moving] = []
    theirs: list[_Moving] = []
    for key in range(2 * sessions):
        relocated = key % 2 == 0
        streams = relocated and key // 2 % STREAMS_OF == 0
        document = await stack.page(anchor="" if relocated else ANCHORS[key // 2 % 2].name)
        await clients.client(key, document["aist"], kind="stream" if streams else "json")
        if relocated:
            ours.append(_Relocated(stack, key // 2, document))
        else:
            theirs.append(_PagedAnew(stack, key, document, clients))
    begin_s = asyncio.get_running_loop().time() + SETTLE_S
    async with asyncio.TaskGroup() as group:
        for place in range(sessions):
            # Moves of different sessions are spread over the cycle; of each kind one falls on the same instant.
            first_s = begin_s + CYCLE_S * place / sessions
            group.create_task(ours[place].run(rounds=rounds, first_s=first_s))
            group.create_task(theirs[place].run(rounds=rounds, first_s=first_s))
    await asyncio.sleep(SETTLE_S)
    return ours, theirs


def _results(
    outcomes: Sequence[Outcome], ours: Sequence[_Moving], theirs: Sequence[_Moving], *, sound: bool
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
