"""AIP 5: how long sessions are without service when an anchor, a domain or the gateway is lost, and what is lost.

Three anchors: two in one domain, one in another; every session begins in the first. Clients send all the time and
repeat nothing. Killed (SIGKILL) are the sidecar that serves, all sidecars of its domain, or Envoy.
"""

import asyncio
import os
import signal
import statistics
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from aipaging.apps.evaluate.curves import bars, quantile, steps
from aipaging.apps.evaluate.experiment import Experiment, Finding, Measured, NotRunError, Setting
from aipaging.apps.evaluate.stack import require_envoy
from aipaging.testing.loopback_stack import HOST, BenchAnchor, BenchStack, Times, bench_stack
from aipaging.testing.recording_upstream import boot_us, recording_upstream
from aipaging.testing.traffic import Outcome, TrafficPlan, traffic

ANCHORS: Final = (
    BenchAnchor(name="paris-1", domain="edge-paris"),
    BenchAnchor(name="paris-2", domain="edge-paris"),
    BenchAnchor(name="dublin-1", domain="edge-dublin"),
)
TIMES: Final = Times(lease_ms=2_000, anchor_lost_ms=1_500)
FAILURES: Final = ("anchor loss", "domain loss", "gateway restart")
SESSIONS, SESSIONS_FULL = 12, 60
RUNS, RUNS_FULL = 1, 5
PERIOD_MS: Final = 50.0
BEFORE_S: Final = 1.0
AFTER_S: Final = 5.5
RECOVERED_MS_MAX: Final = 5_000.0
"""Silence of an anchor is noticed after 1.5 s; an Envoy that died is started anew; the rest is relocation."""


def lost(outcomes: Sequence[Outcome], failed_us: int) -> dict[str, Any]:
    """Return how long each session was without an answer, what failed, and how many never came back."""
    recovery_ms: list[float] = []
    never = 0
    for key in {one.key for one in outcomes}:
        own = [one for one in outcomes if one.key == key]
        bad = [one.sent_us for one in own if not one.ok and one.last_us >= failed_us]
        if not bad:
            recovery_ms.append(0.0)
            continue
        good = [one.last_us for one in own if one.ok and one.sent_us > max(bad)]
        never += not good
        recovery_ms += [(min(good) - failed_us) / 1e3] if good else []
    after = [one for one in outcomes if one.last_us >= failed_us]
    return {
        "recovery_ms": recovery_ms,
        "never": never,
        "requests": len(after),
        "failed": sum(not one.ok for one in after),
    }


async def _anchors_of(stack: BenchStack, sessions: Sequence[str]) -> set[str]:
    documents = [(await stack.call("GET", f"/sessions/{session}"))[1] for session in sessions]
    return {document["anchorId"] for document in documents}


async def _fail(stack: BenchStack, failure: str, sessions: Sequence[str]) -> int:
    """Make something fail; return when."""
    serving = await _anchors_of(stack, sessions)
    if failure == "gateway restart":
        pid = stack.processes.gateway_pid()
        if pid is None:
            raise NotRunError("the gateway's process was not found", code="PART_FAILED")
        at_us = boot_us()
        os.kill(pid, signal.SIGKILL)
        return at_us
    domains = {anchor.stands_in for anchor in ANCHORS if anchor.name in serving}
    doomed = [a.name for a in ANCHORS if (a.name in serving if failure == "anchor loss" else a.stands_in in domains)]
    at_us = boot_us()
    for name in doomed:
        stack.processes.children[name].kill()
    return at_us


async def _run(setting: Setting, failure: str, *, sessions: int, port: int, name: str) -> dict[str, Any]:
    async with bench_stack(setting.work / name, ANCHORS, TIMES, upstream_port=port) as stack:
        pace = TrafficPlan(host=HOST, port=stack.gateway_port, period_ms=PERIOD_MS, seed=setting.seed)
        async with traffic(pace, setting.work / f"{name}.json") as clients:
            paged = []
            for key in range(sessions):
                document = await stack.page()
                paged.append(document["sessionId"])
                await clients.client(key, document["aist"])
            await asyncio.sleep(BEFORE_S)
            failed_us = await _fail(stack, failure, paged)
            await asyncio.sleep(AFTER_S)
            serving = await _anchors_of(stack, paged)
            outcomes = await clients.stop()
        sound = await stack.evidence_holds()
    return {**lost(outcomes, failed_us), "serving": sorted(serving), "sound": sound}


def measure(setting: Setting) -> Measured:
    """Make everything fail once, or several times."""
    require_envoy()
    sessions = setting.count(SESSIONS, SESSIONS_FULL, 3)
    runs = setting.count(RUNS, RUNS_FULL)

    def one(failure: str, run: int) -> dict[str, Any]:
        name = f"{failure.replace(' ', '-')}-{run}"
        with recording_upstream(setting.work / f"{name}-upstream.json") as port:
            return asyncio.run(_run(setting, failure, sessions=sessions, port=port, name=name))

    failures = FAILURES if setting.scale >= 1.0 else FAILURES[:1]
    return {
        "sessions": sessions,
        "failures": {
            failure: [
                setting.part(f"{failure.replace(' ', '-')}-{run}", partial(one, failure, run)) for run in range(runs)
            ]
            for failure in failures
        },
    }


def _recoveries(runs: Sequence[Measured]) -> list[float]:
    return [value for run in runs for value in run["recovery_ms"]]


def conclude(measured: Measured) -> Finding:
    """Say how long it took and what was lost."""
    told: list[str] = []
    for failure, runs in measured["failures"].items():
        values = _recoveries(runs)
        told.append(
            f"{failure}: {statistics.median(values):,.0f} ms (median; longest {max(values):,.0f} ms), "
            f"{sum(run['failed'] for run in runs)} of {sum(run['requests'] for run in runs):,} requests lost"
        )
    every = [run for runs in measured["failures"].values() for run in runs]
    never = sum(run["never"] for run in every)
    longest = max(value for run in every for value in run["recovery_ms"])
    sound = all(run["sound"] for run in every)
    felt = all(run["failed"] > 0 for run in every)
    sentence = (
        f"Time until a session is served again, without a repeated request: {'; '.join(told)}. {never} of "
        f"{sum(len(run['recovery_ms']) + run['never'] for run in every)} sessions did not come back; the longest "
        f"gap is {longest / RECOVERED_MS_MAX:.0%} of the {RECOVERED_MS_MAX / 1e3:g} s allowed, and the evidence "
        f"{'holds' if sound else 'does NOT hold'} afterwards{'' if felt else '; NOT every failure was felt at all'}."
    )
    return Finding(
        sentence=sentence,
        confirmed=never == 0 and longest <= RECOVERED_MS_MAX and sound and felt,
        numbers={
            f"recovery_ms_p50 {failure}": statistics.median(_recoveries(runs))
            for failure, runs in measured["failures"].items()
        },
    )


def draw(figure: Any, measured: Measured) -> None:
    """Draw the times to recover and the requests lost."""
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    names = list(measured["failures"])
    for place, failure in enumerate(names):
        values = _recoveries(measured["failures"][failure])
        steps(left, values, place, f"{failure}, p95 {quantile(values, 0.95):,.0f} ms")
    left.set(xlabel="ms from the failure to the next answer", ylabel="share of sessions served again", ylim=(0, 1.01))
    left.set_xlim(left=0)
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=7.5, columnspacing=1.0)
    per = [
        sum(run["failed"] for run in runs) / max(1, len(runs) * measured["sessions"])
        for runs in measured["failures"].values()
    ]
    bars(right, [name.replace(" ", "\n") for name in names], {"lost": per}, text="{:.1f}")
    right.set_ylabel(f"requests lost per session (one every {PERIOD_MS:g} ms)")
    right.margins(y=0.12)


AIP5: Final = Experiment(
    name="AIP5",
    title="Failures: anchor, domain, gateway",
    claim="sessions survive failures of anchors, domains and the gateway",
    method=(
        "Two sidecars in one domain, one in another, one Envoy. An anchor is given up after 1.5 s of silence. What is "
        "killed is killed by SIGKILL. Clients send one request after the other and never repeat one."
    ),
    measure=measure,
    conclude=conclude,
    draw=draw,
)
