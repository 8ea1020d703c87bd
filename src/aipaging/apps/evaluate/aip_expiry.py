"""AIP 3: whether anything is served after a lease has ended, whatever has become of the controller.

Sessions are used all the time. Then the controller goes on (and ends the sessions at their duration), is killed
(SIGKILL), is paused (SIGSTOP: it neither answers nor closes a connection), or is cut off (it lives, but no look-up and
no renewal ever gets an answer). The end of a lease is the controller's own instant of the grant or renewal plus the
lease, by its evidence; what reached the upstream is by the upstream's clock, on the same machine.

Cut off is tried at the gateway alone, with the controller's side in this process; the other three on the whole stack.
There leases are such that refreshes which nobody answers are given up around the deadline, many just before it: that
is when requests are steered at the last moment. When a request left the gateway is told by Envoy's access log, and
none may leave late at all. What the anchor notes is reported, and proves little: it shares a process with the
clients, and on a busy machine it has noted requests 35 ms after the end that had left 291 ms before it.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from aipaging.adapters.terminal.picture import COLOURS
from aipaging.apps.evaluate.curves import bars, quantile
from aipaging.apps.evaluate.experiment import Experiment, Finding, Measured, Setting
from aipaging.apps.evaluate.stack import require_envoy
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import SessionId
from aipaging.core.foundation.time import MS, SECOND
from aipaging.testing.departures import departures
from aipaging.testing.envoy_rig import EnvoyRig, envoy_rig
from aipaging.testing.lease_times import lease_times
from aipaging.testing.loopback_stack import HOST, BenchAnchor, BenchStack, Times, bench_stack
from aipaging.testing.recording_upstream import read_seen, recording_upstream
from aipaging.testing.stack import CONTROLLER
from aipaging.testing.traffic import Traffic, TrafficPlan, traffic

LEASE_MS: Final = 1_000
SESSIONS: Final = 40
ROUNDS, ROUNDS_FULL = 1, 10
"""A full run repeats the same load: ten times as many sessions at once would measure the machine, not the lease."""

STREAMS_OF: Final = 4
PERIOD_MS: Final = 40.0
TOKENS, GAP_MS = 2_000, 20.0
"""A stream of 40 s: none ends by itself."""

DURATION_S: Final = 2
BEFORE_S: Final = 1.5
AFTER_S: Final = 1.2
CUT_MS_MAX: Final = 50.0
"""Between the end of a lease and the last token of a stream, or the beginning of a request that was on its way from
the sidecar to its model server when the lease ended, on a machine that runs everything at once."""

CUT_OFF: Final = "cut off"
MODES: Final = ("alive", "killed", "paused", CUT_OFF)
RIG_SESSIONS: Final = 8
RIG_LEASE_MS: Final = 1_050
"""Of sessions that are cut off: a refresh begins with the first request of the second half and is given up after
500 ms, so that it is often given up in the last 25 ms of the lease, and its request is steered then."""

USERS: Final = 6
"""Of each session that is cut off: a refresh holds one of them for 500 ms, and somebody should ask until the end."""

LOGGED_S_MAX: Final = 10.0


async def _page_all(stack: BenchStack, clients: Traffic, sessions: int, duration_s: int) -> list[str]:
    names: list[str] = []
    for key in range(sessions):
        document = await stack.page(duration_s=duration_s)
        names.append(document["sessionId"])
        await clients.client(key, document["aist"], kind="stream" if key % STREAMS_OF == 0 else "json")
    return names


async def _on_stack(setting: Setting, mode: str, round_: int, port: int) -> dict[str, Any]:
    """Run one mode on the whole stack; return the lease times and what the clients saw."""
    name = _name(mode, round_)
    folder = setting.work / name
    async with bench_stack(folder, [BenchAnchor(name="east")], Times(lease_ms=LEASE_MS), upstream_port=port) as stack:
        pace = TrafficPlan(
            host=HOST,
            port=stack.gateway_port,
            period_ms=PERIOD_MS,
            tokens=TOKENS,
            gap_ms=GAP_MS,
            seed=setting.seed + round_,
        )
        async with traffic(pace, setting.work / f"{name}-outcomes.json") as clients:
            duration_s = DURATION_S if mode == "alive" else 3_600
            names = await _page_all(stack, clients, setting.count(SESSIONS, SESSIONS, 4), duration_s)
            await asyncio.sleep(BEFORE_S)
            process = stack.processes.children[CONTROLLER].process
            if mode == "killed":
                stack.processes.children[CONTROLLER].kill()
            elif mode == "paused":
                os.kill(process.pid, signal.SIGSTOP)
            try:
                await asyncio.sleep((LEASE_MS / 1e3 if mode != "alive" else DURATION_S) + AFTER_S)
                outcomes = await clients.stop()
                times = lease_times(stack.journal)
            finally:
                if mode == "paused":
                    os.kill(process.pid, signal.SIGCONT)
    return {"leases": [times[session] for session in names], "outcomes": outcomes}


def judged(found: Mapping[str, Any], seen: list[Any]) -> dict[str, Any]:
    """Return what one mode came to, from lease times, the clients' and the upstream's notes."""
    leases = found["leases"]
    late_us = [leases[one.key].late_us(one.started_us) for one in seen]
    tokens_us = [one.last_us - leases[one.key].last_us for one in seen if one.stream and one.last_us]
    uncut = sum(one.stream and not one.ended_us for one in seen)
    after = [o for o in found["outcomes"] if o.kind == "json" and o.sent_us > leases[o.key].last_us]
    ends = {o.key: leases[o.key].last_us - o.sent_us for o in found["outcomes"] if o.kind == "json" and o.ok}
    return {
        "requests": len(seen),
        "noted_late_ms": [late / MS for late in late_us if late > 0],
        "sent_after": len(after),
        "served_after": sum(o.status == 200 for o in after),
        "streams": len(tokens_us),
        "streams_uncut": uncut,
        "token_late_ms": [late / MS for late in tokens_us],
        "lost_early_ms": [early / MS for early in ends.values()],
    }


async def _cut_off(setting: Setting, name: str) -> dict[str, Any]:
    """Use sessions at a gateway whose look-ups stop being answered; return what left it, and what anchors noted."""
    sessions = setting.count(RIG_SESSIONS, RIG_SESSIONS, 2)
    ends: dict[Any, int] = {}
    log, logged = list[bytes](), asyncio.Event()

    def logs(message: bytes) -> None:
        log.append(message)
        logged.set()

    # Look-ups that still hang when the rig closes are cancelled, and uvicorn would tell each of them as an error.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    async with envoy_rig(setting.work / name, log=logs) as rig:
        anchor = rig.anchors[0]

        async def begin(session: SessionId) -> None:
            grant = rig.grant(session, anchor, Epoch(1, 1), RIG_LEASE_MS)
            await rig.driver.install([grant])
            ends[session] = grant.deadline_us
            await rig.send(session)

        await asyncio.gather(*(begin(rig.session()) for _ in range(sessions)))
        rig.controller.fault = "silence"
        outcomes = await _used(rig, ends)
        names = {f"Bearer {rig.tokens[session]}": session for session in ends}
        noted = [(names[one.headers["authorization"]], int(one.at_us)) for one in rig.anchor_servers[anchor].received]
        async with asyncio.timeout(LOGGED_S_MAX):
            while len(left := departures(log)) < len(noted):
                logged.clear()
                await logged.wait()
    served = [(session, sent_us) for session, sent_us, ok in outcomes if ok]
    last_ok = dict(sorted(served, key=lambda each: each[1]))
    return {
        "requests": len(noted),
        "noted_late_ms": [late / MS for session, at_us in noted if (late := at_us - ends[session]) > 0],
        "left_before_ms": [(ends[SessionId(one.session)] - one.at_us) / MS for one in left],
        "sent_after": sum(sent_us > ends[session] for session, sent_us, _ in outcomes),
        "served_after": sum(sent_us > ends[session] for session, sent_us in served),
        "streams": 0,
        "streams_uncut": 0,
        "token_late_ms": [],
        "lost_early_ms": [(ends[session] - at) / MS for session, at in last_ok.items()],
    }


async def _used(rig: EnvoyRig, ends: Mapping[Any, int]) -> list[tuple[Any, int, bool]]:
    """Use every session until well after all have ended; return session, instant of sending, whether it was served."""
    stop_us = max(ends.values()) + int(AFTER_S * SECOND)
    outcomes: list[tuple[Any, int, bool]] = []

    async def use(session: Any) -> None:
        while (sent_us := int(rig.now().boot_us)) < stop_us:
            try:
                async with asyncio.timeout(2.0):
                    answer = await rig.send(session)
                ok = answer.status_code == 200
            except TimeoutError:
                ok = False
            outcomes.append((session, sent_us, ok))
            await asyncio.sleep(PERIOD_MS / 1e3)

    await asyncio.gather(*(use(session) for session in ends for _ in range(USERS)))
    return outcomes


def measure(setting: Setting) -> Measured:
    """Try every mode."""
    require_envoy()

    def once(mode: str, round_: int) -> dict[str, Any]:
        name = _name(mode, round_)
        if mode == CUT_OFF:
            return asyncio.run(_cut_off(setting, name))
        file = setting.work / f"{name}-upstream.json"
        with recording_upstream(file) as port:
            found = asyncio.run(_on_stack(setting, mode, round_, port))
        return judged(found, read_seen(file))

    rounds = setting.count(ROUNDS, ROUNDS_FULL)
    return {
        "modes": {
            mode: _together([setting.part(_name(mode, k), partial(once, mode, k)) for k in range(rounds)])
            for mode in MODES
        },
        "lease_ms": LEASE_MS,
    }


def _name(mode: str, round_: int) -> str:
    return f"{mode.replace(' ', '-')}-{round_}"


def _together(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the rounds of a mode as one: numbers added, lists joined."""
    return {key: sum((one[key] for one in rounds), type(rounds[0][key])()) for key in rounds[0]}


def conclude(measured: Measured) -> Finding:
    """Say what was served too late."""
    modes = measured["modes"]
    cut_off, on_stack = modes[CUT_OFF], [modes[name] for name in MODES[:-1]]
    left_before = cut_off["left_before_ms"]
    left_late = sum(value < 0 for value in left_before)
    noted = [value for one in on_stack for value in one["noted_late_ms"]]
    noted_max, noted_cut_max = max(noted, default=0.0), max(cut_off["noted_late_ms"], default=0.0)
    served = sum(one["served_after"] for one in modes.values())
    sent = sum(one["sent_after"] for one in modes.values())
    tokens = [value for one in modes.values() for value in one["token_late_ms"]]
    uncut = sum(one["streams_uncut"] for one in modes.values())
    worst = max(tokens, default=0.0)
    early = [value for one in modes.values() for value in one["lost_early_ms"]]
    sentence = (
        f"With the controller {', '.join(MODES[:-1])} or {CUT_OFF}, {served} of {sent:,} requests sent after the end "
        f"of their lease were served; {len(noted)} of {sum(one['requests'] for one in on_stack):,} began at an anchor "
        f"after it{_by_at_most(noted_max)} (allowed for what is on its way: {CUT_MS_MAX:g} ms); cut off, "
        f"{left_late} of {len(left_before)} left the gateway after it, by Envoy's log, the last "
        f"{min(left_before):.1f} ms before it, and the anchor, in one process with the clients, noted "
        f"{len(cut_off['noted_late_ms'])} of them after it{_by_at_most(noted_cut_max)}; of {len(tokens)} streams "
        f"{uncut} were not cut, and the latest token left {abs(worst):.1f} ms {'after' if worst > 0 else 'before'} "
        f"the end (allowed: {CUT_MS_MAX:g} ms); the price is that a session is last served "
        f"{quantile(early, 0.5):.0f} ms (median) before its end."
    )
    return Finding(
        sentence=sentence,
        confirmed=served == 0
        and left_late == 0
        and len(left_before) >= cut_off["requests"]
        and noted_max <= CUT_MS_MAX
        and uncut == 0
        and worst <= CUT_MS_MAX
        and all(one["sent_after"] > 0 for one in modes.values()),
        numbers={
            "left_late": left_late,
            "left_before_ms_min": min(left_before),
            "noted_late": len(noted),
            "noted_late_ms_max": noted_max,
            "noted_late_cut_off": len(cut_off["noted_late_ms"]),
            "noted_late_cut_off_ms_max": noted_cut_max,
            "served_after": served,
            "sent_after": sent,
            "token_late_ms_max": worst,
        },
    )


def _by_at_most(late_ms: float) -> str:
    return f", {late_ms:.1f} ms at most" if late_ms else ""


def draw(figure: Any, measured: Measured) -> None:
    """Draw what was sent, what was served, and when streams ended."""
    left, right = figure.subplots(1, 2)
    modes = measured["modes"]
    names = list(modes)
    bars(
        left, names,
        {
            "sent after the lease's end": [float(modes[name]["sent_after"]) for name in names],
            "served": [float(modes[name]["served_after"]) for name in names],
        },
        text="{:.0f}",
    )  # fmt: skip
    left.set_ylabel("requests")
    left.margins(y=0.1)
    left.legend(loc="upper right")
    left.set_xlabel("controller")
    held = [name for name in names if modes[name]["token_late_ms"]]
    tokens = [modes[name]["token_late_ms"] for name in held]
    right.boxplot(tokens, whis=(0, 100), widths=0.45, medianprops={"color": COLOURS[1], "linewidth": 1.8})
    right.set_xticks(range(1, len(held) + 1), held)
    right.axhline(0.0, color="#0f172a", linestyle="--", linewidth=1.2)
    right.set_ylabel("last token of a stream: ms from the end")
    right.set_xlabel("controller")
    right.set_title("dashed: end of the lease; box: quartiles; whiskers: all streams", fontsize=9)


AIP3: Final = Experiment(
    name="AIP3",
    title="Enforcement correctness under lease expiry",
    claim="enforcement correctness under lease expiry",
    revision=2,
    method=(
        f"Leases of {LEASE_MS} ms ({RIG_LEASE_MS} where cut off); one session in {STREAMS_OF} streams. Gateway and "
        "sidecar are left to themselves; clients go on sending. A request counts as late from the controller's own "
        "instant of the last grant or renewal plus the lease. Cut off: look-ups at a real Envoy hang for ever."
    ),
    measure=measure,
    conclude=conclude,
    draw=draw,
)
