"""AIP 2: what clients notice of a move, make-before-break beside break-before-make, in one system at the same time.

Half of the sessions are relocated between two real anchors again and again; the others are ended and paged anew at the
other anchor, as one moves without relocation. The interruption of a move is the longest time without an answer around
it, less the client's pace; a stream is interrupted if it breaks.
"""

import asyncio
import itertools
import statistics
from collections.abc import Sequence
from typing import Any, Final

from aipaging.apps.evaluate.curves import bars, quantile, steps
from aipaging.apps.evaluate.experiment import Experiment, Finding, Measured, Setting
from aipaging.apps.evaluate.stack import require_envoy
from aipaging.testing.loopback_stack import HOST, Times, bench_stack
from aipaging.testing.moves import ANCHORS, MovePlan, Moving, move_all
from aipaging.testing.recording_upstream import recording_upstream
from aipaging.testing.traffic import Outcome, TrafficPlan, traffic

PERIOD_MS: Final = 60.0
TOKENS, GAP_MS = 32, 25.0
"""A stream of 0.8 s: a source may finish it within its drain."""

AROUND_US: Final = 500_000
"""What is still due to a move after it was done."""

WAYS: Final = ("make-before-break", "break-before-make")
SESSIONS, SESSIONS_FULL = 10, 40
ROUNDS, ROUNDS_FULL = 5, 25


def interruptions(moving: Sequence[Moving], outcomes: Sequence[Outcome], *, keys: Sequence[int]) -> list[float]:
    """Return the interruption of every move in ms, of clients that send requests."""
    found: list[float] = []
    by_key = dict(zip(keys, moving, strict=True))
    for key, one in by_key.items():
        answered = sorted(o.last_us for o in outcomes if o.key == key and o.kind == "json" and o.ok)
        gaps = list(itertools.pairwise(answered))
        for began_us, ended_us in one.instants_us if gaps else ():
            near = [b - a for a, b in gaps if b >= began_us and a <= ended_us + AROUND_US]
            found.append(max(0.0, max(near, default=0) / 1e3 - PERIOD_MS))
    return found


async def _moved(setting: Setting, port: int) -> Measured:
    plan = MovePlan(
        sessions=setting.count(SESSIONS, SESSIONS_FULL, 5), rounds=setting.count(ROUNDS, ROUNDS_FULL), all_stream=True
    )
    times = Times(lease_ms=2_000)
    async with bench_stack(setting.work / "stack", ANCHORS, times, upstream_port=port) as stack:
        pace = TrafficPlan(
            host=HOST, port=stack.gateway_port, period_ms=PERIOD_MS, tokens=TOKENS, gap_ms=GAP_MS, seed=setting.seed
        )
        async with traffic(pace, setting.work / "outcomes.json") as clients:
            kinds = await move_all(stack, clients, plan)
            outcomes = await clients.stop()
        sound = await stack.evidence_holds()
    found: Measured = {"sound": sound}
    for place, way in enumerate(WAYS):
        own = [outcome for outcome in outcomes if outcome.key % 2 == place]
        requests, streams = ([o for o in own if o.kind == kind] for kind in ("json", "stream"))
        keys = range(place, 2 * plan.sessions, 2)
        found[way] = {
            "moves": sum(len(one.instants_us) for one in kinds[place]),
            "moves_failed": sum(len(one.failed) for one in kinds[place]),
            "interruption_ms": interruptions(kinds[place], own, keys=keys),
            "requests": len(requests),
            "requests_failed": sum(not one.ok for one in requests),
            "streams": len(streams),
            "streams_broken": sum(not one.ok for one in streams),
        }
    return found


def measure(setting: Setting) -> Measured:
    """Move sessions under traffic."""
    require_envoy()
    with recording_upstream(setting.work / "upstream.json") as port:
        return asyncio.run(_moved(setting, port))


def conclude(measured: Measured) -> Finding:
    """Say what clients noticed."""
    ours, theirs = (measured[way] for way in WAYS)
    middle = [statistics.median(one["interruption_ms"]) for one in (ours, theirs)]
    late = [quantile(one["interruption_ms"], 0.95) for one in (ours, theirs)]
    unnoticed = ours["requests_failed"] == 0 and ours["streams_broken"] == 0
    sentence = (
        f"In {ours['moves']} relocations make-before-break fails {ours['requests_failed']} of {ours['requests']:,} "
        f"requests and breaks {ours['streams_broken']} of {ours['streams']} streams, with an interruption of "
        f"{middle[0]:.0f} ms (median; p95 {late[0]:.0f} ms); in {theirs['moves']} moves break-before-make fails "
        f"{theirs['requests_failed']} of {theirs['requests']:,} requests and breaks {theirs['streams_broken']} of "
        f"{theirs['streams']} streams, with {middle[1]:.0f} ms (median; p95 {late[1]:.0f} ms)."
    )
    worse = theirs["requests_failed"] + theirs["streams_broken"] > 0 and late[1] >= late[0]
    return Finding(
        sentence=sentence,
        confirmed=unnoticed and worse and ours["moves_failed"] == 0 and bool(measured["sound"]),
        numbers={
            "failed_make_before_break": ours["requests_failed"],
            "failed_break_before_make": theirs["requests_failed"],
            "streams_broken_break_before_make": theirs["streams_broken"],
            "interruption_ms_p95": late[0],
            "interruption_ms_p95_break_before_make": late[1],
        },
    )


def draw(figure: Any, measured: Measured) -> None:
    """Draw interruptions and losses."""
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for place, way in enumerate(WAYS):
        steps(left, measured[way]["interruption_ms"], place, f"{way}: {measured[way]['moves']} moves")
    left.set(
        xlabel="interruption of a move beyond the client's pace, ms", ylabel="share of moves below", ylim=(0, 1.01)
    )
    left.legend(loc="lower right")
    shares = {
        way: [
            1e2 * measured[way]["requests_failed"] / max(1, measured[way]["requests"]),
            1e2 * measured[way]["streams_broken"] / max(1, measured[way]["streams"]),
        ]
        for way in WAYS
    }
    bars(right, ["requests failed", "streams broken"], shares, text="{:.3g} %")
    right.set_ylabel("share, %")
    right.margins(y=0.15)
    right.legend(loc="upper left")


AIP2: Final = Experiment(
    name="AIP2",
    title="Relocation interruption under mobility",
    claim="relocation interruption: make-before-break keeps sessions going while they move",
    method=(
        f"Clients send a request every {PERIOD_MS:g} ms or streams of {TOKENS * GAP_MS / 1e3:g} s and repeat nothing. "
        "Each session moves every 2.8 s between two sidecars behind one Envoy, which answer from one upstream."
    ),
    measure=measure,
    conclude=conclude,
    draw=draw,
)
