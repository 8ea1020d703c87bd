"""Controller, gateway and sidecars are killed at moments that nobody chose, under pages, ends, moves and load."""

import asyncio
import contextlib
import os
import random
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.system.living import ANCHORS, INTENT, LEASE_MS, Asked, Living

from aipaging.testing.stack import CONTROLLER

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("system-campaign")]

SESSIONS_MAX = 12


@dataclass(slots=True)
class Acknowledged:
    """What the controller has said is done."""

    pages: dict[str, dict[str, Any]] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    asked: list[Asked] = field(default_factory=list)
    epochs: dict[str, tuple[int, int]] = field(default_factory=dict)

    def living(self) -> list[dict[str, Any]]:
        return [page for name, page in self.pages.items() if name not in self.ended]


async def operate(system: Living, seen: Acknowledged, dice: random.Random, over: asyncio.Event) -> None:
    """Page, end, extend and move until the end; a controller that is away is asked again."""
    while not over.is_set():
        with contextlib.suppress(httpx.HTTPError):
            await operate_once(system, seen, dice)
        await asyncio.sleep(dice.uniform(0, 0.02))


async def operate_once(system: Living, seen: Acknowledged, dice: random.Random) -> None:
    living = seen.living()
    what = dice.choice(("page", "page", "end", "extend", "relocate", "read"))
    if what == "page" and len(living) < SESSIONS_MAX:
        status, said = await system.call("POST", "/sessions", {"intent": INTENT | {"ratePerSecond": 1}})
        if status == 201:
            seen.pages[said["sessionId"]] = said
        return
    if not living:
        return
    name = dice.choice(living)["sessionId"]
    if what == "end":
        if (await system.call("DELETE", f"/sessions/{name}"))[0] == 204:
            seen.ended.add(name)
    elif what == "extend":
        await system.call("POST", f"/sessions/{name}/extend", {"additionalDurationS": 5})
    elif what == "relocate":
        await system.call("POST", f"/sessions/{name}/relocate", {}, who="root")
    else:
        status, said = await system.call("GET", f"/sessions/{name}")
        if status == 200 and "commit" in said:
            epoch = (said["commit"]["epoch"]["term"], said["commit"]["epoch"]["n"])
            # Reads of one session do not overlap here: what was said later may not be less.
            assert epoch >= seen.epochs.get(name, (0, 0)), f"the epoch of {name} fell"
            seen.epochs[name] = epoch


async def use(system: Living, seen: Acknowledged, dice: random.Random, over: asyncio.Event) -> None:
    """Send requests of whatever sessions there are or were."""
    async with system.user() as client:
        while not over.is_set():
            if seen.pages:
                page = dice.choice(list(seen.pages.values()))
                seen.asked.append(await system.ask(page["aist"], client=client))
            await asyncio.sleep(0.01)


async def campaign(folder: Path, seed: int, rounds: int) -> None:
    dice, seen = random.Random(seed), Acknowledged()
    async with Living.running(folder, file_mb=1) as system:  # the journal is to go on in other files meanwhile
        for _ in range(rounds):
            over = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(operate(system, seen, dice, over))
                for _ in range(2):
                    group.create_task(use(system, seen, dice, over))
                await asyncio.sleep(dice.uniform(0.2, 2.5))
                system.kill(CONTROLLER)
                if dice.random() < 0.5:
                    await asyncio.sleep(dice.uniform(0, LEASE_MS / 1000 + 0.5))
                await system.start_controller()
                await system.until_ready()
                await asyncio.sleep(dice.uniform(0, 1))
                over.set()
            check(system, seen)
        alive = [page for page in seen.living() if page["sessionId"] not in unsure(system, seen)]
        for page in alive[:3]:
            await system.until_served(page["aist"])
        assert any(asked.served for asked in seen.asked), "nothing was ever served: the campaign saw nothing"


def check(system: Living, seen: Acknowledged, *, anchors_died: bool = False) -> None:
    """Hold the evidence against what was said; where anchors die, a session may end for want of one, and says so."""
    records = system.verified()
    granted = {record["session"] for record in records if record["type"] == "COMMIT_GRANTED"}
    ended = {record["session"] for record in records if record["type"] == "SESSION_ENDED"}
    assert set(seen.pages) <= granted, "an acknowledged page is lost"
    assert seen.ended <= ended, "an acknowledged end is lost"
    told = {
        record["session"]
        for record in records
        if record["type"] == "SESSION_ENDED" and record["status_info"] in {"ANCHOR_LOST", "NETWORK_TERMINATED"}
    }
    excused = unsure(system, seen) | (told if anchors_died else set())
    seen.ended |= told & excused
    assert not (ended & set(seen.pages)) - seen.ended - excused, "a session ended without anybody's word"
    for page in seen.pages.values():
        assert system.outside_leases(page, seen.asked) == []


def unsure(system: Living, seen: Acknowledged) -> set[str]:
    """Return the sessions whose end was asked for, but not acknowledged before the kill."""
    return {
        record["session"]
        for record in system.records()
        if record["type"] == "SESSION_ENDED" and record["status_info"] == "DELETE_REQUESTED"
    } - seen.ended


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(12))
async def test_killed_at_random_moments_a_dozen_times(tmp_path: Path, seed: int) -> None:
    await campaign(tmp_path / str(seed), seed=seed, rounds=8)


# -- any process


async def kill_one(system: Living, seen: Acknowledged, seed: int) -> None:
    """Kill one of the processes at a moment of the seed's choosing, bring it back, and look at what was promised."""
    dice = random.Random(seed)
    victim = (CONTROLLER, "gateway", *ANCHORS)[seed % 4]
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(operate(system, seen, dice, over))
        for _ in range(2):
            group.create_task(use(system, seen, dice, over))
        await asyncio.sleep(dice.uniform(0.1, 1.5))
        if victim == "gateway":
            pid = system.processes.gateway_pid()
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        else:
            system.kill(victim)
            await asyncio.sleep(dice.choice((0, dice.uniform(0, LEASE_MS / 1000 + 0.5))))
            await (system.start_controller() if victim == CONTROLLER else system.start_sidecar(victim))
        await system.until_ready()
        over.set()
    check(system, seen, anchors_died=True)


async def kill_runs(folder: Path, seeds: range) -> None:
    """Run the seeds one after another on one system, whose wounds add up."""
    seen = Acknowledged()
    async with Living.running(folder) as system:
        for seed in seeds:
            try:
                await kill_one(system, seen, seed)
            except AssertionError as error:
                error.add_note(f"seed {seed}, of {seeds} on one system")
                raise
        assert any(asked.served for asked in seen.asked), "nothing was ever served: the campaign saw nothing"


async def test_whichever_process_is_killed_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    await kill_runs(tmp_path / "few", range(5))  # every process, and the controller once more


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(0, 200, 20))
async def test_two_hundred_seeded_kills(tmp_path: Path, first: int) -> None:
    await kill_runs(tmp_path / str(first), range(first, first + 20))
