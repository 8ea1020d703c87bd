"""Processes that die without a word: what they granted dies on time, what they held comes back, nothing is made up."""

import asyncio
import os
import signal
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from tests.system.living import ANCHORS, LEASE_MS, Asked, Living
from tests.system.upstream import boot_us

from aipaging.testing.stack import CONTROLLER

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("system-deaths")]


async def test_a_killed_controller_leaves_steering_that_dies_on_time_and_is_taken_over(mortal: Living) -> None:
    sessions = [await mortal.page() for _ in range(3)]
    before = [(await mortal.session(session))["commit"]["epoch"] for session in sessions]
    envoy = mortal.processes.gateway_pid()
    async with mortal.load(*sessions) as asked:
        await asyncio.sleep(1)
        killed_us = mortal.kill(CONTROLLER)
        await asyncio.sleep(LEASE_MS / 1000 + 1)
    over_us = killed_us + LEASE_MS * 1000
    assert [each for each in asked if each.began_us > killed_us and each.served], "the user plane died with it"
    assert [each for each in asked if each.began_us > over_us and each.served] == []
    # By when it was sent, not by when a busy upstream saw it: what a client began too late got nowhere.
    assert mortal.reached_by(each.mark for each in asked if each.began_us > over_us) == []
    for session in sessions:
        assert mortal.outside_leases(session, asked) == []
    assert mortal.processes.gateway_pid() == envoy, "the gateway must outlive its controller"

    await mortal.start_controller()
    await mortal.until_ready()
    for session, epoch in zip(sessions, before, strict=True):
        await mortal.until_served(session["aist"])
        after = (await mortal.session(session))["commit"]["epoch"]
        assert (after["term"], after["n"]) > (epoch["term"], epoch["n"])
        assert after["term"] > epoch["term"]
    assert mortal.processes.gateway_pid() == envoy, "it was to be adopted, not replaced"
    mortal.verified()
    await mortal.end(*sessions)


async def test_a_killed_gateway_is_started_again_and_refilled(mortal: Living) -> None:
    sessions = [await mortal.page() for _ in range(2)]
    for session in sessions:
        assert (await mortal.ask(session["aist"])).served
    first = mortal.processes.gateway_pid()
    assert first is not None
    os.kill(first, signal.SIGKILL)
    for session in sessions:
        await mortal.until_served(session["aist"])
    second = mortal.processes.gateway_pid()
    assert second is not None
    assert second != first
    mortal.verified()
    await mortal.end(*sessions)


@dataclass(slots=True)
class Streamed:
    """What came of a stream.

    Attributes:
        count: How many events.
        last_us: When the last of them was sent by the upstream, on the boot clock.
        ending: "well", or what was raised.
    """

    count: int = 0
    last_us: int = 0
    ending: str = "well"


async def streamed(system: Living, token: str, began: asyncio.Event, *, events: int = 2_000) -> Streamed:
    came = Streamed()
    async with system.user() as client:
        try:
            path = f"/stream?events={events}&gap_ms=20"
            async with client.stream("GET", path, headers={"authorization": f"Bearer {token}"}) as stream:
                async for line in stream.aiter_lines():
                    if line.startswith("event: error"):
                        came.ending = "error event"
                        break
                    if line.startswith("data: "):
                        came.count += 1
                        came.last_us = int(line.split()[2])
                        began.set()
        except httpx.HTTPError as error:
            came.ending = type(error).__name__
    return came


async def test_a_sidecar_killed_under_a_stream_is_an_explicit_error(mortal: Living) -> None:
    session = await mortal.page()
    began = asyncio.Event()
    stream = asyncio.create_task(streamed(mortal, session["aist"], began))
    async with asyncio.timeout(60):
        await began.wait()
    mortal.kill(session["anchorId"])
    came = await stream
    assert 0 < came.count < 2_000
    assert came.ending != "well", "a broken stream was passed on as a finished one"
    await mortal.until_served(session["aist"])  # on the other anchor, which serves a moment before it is written down
    async with asyncio.timeout(60):
        while (await mortal.session(session))["anchorId"] == session["anchorId"]:
            await asyncio.sleep(0.02)
    await mortal.start_sidecar(session["anchorId"])
    await mortal.until_ready()
    mortal.verified()
    await mortal.end(session)


async def test_an_upstream_that_breaks_off_is_an_explicit_error(mortal: Living) -> None:
    session = await mortal.page()
    began = asyncio.Event()
    stream = asyncio.create_task(streamed(mortal, session["aist"], began))
    async with asyncio.timeout(60):
        await began.wait()
    upstream = mortal.upstreams[session["anchorId"]]
    upstream.die()
    came = await stream
    upstream.live_again()
    assert 0 < came.count < 2_000
    assert came.ending != "well"
    await mortal.until_served(session["aist"])
    await mortal.until_ready()
    await mortal.end(session)


async def test_a_stream_is_cut_when_the_controller_stays_dead(mortal: Living) -> None:
    session = await mortal.page()
    began = asyncio.Event()
    stream = asyncio.create_task(streamed(mortal, session["aist"], began))
    async with asyncio.timeout(60):
        await began.wait()
    killed_us = mortal.kill(CONTROLLER)
    came = await stream
    # By when the upstream sent it, and not by when it came: a busy machine passes late on what was sent in time.
    assert came.last_us < killed_us + LEASE_MS * 1000, "events were passed on without a lease"
    assert came.ending != "well", f"{came.count} events and a clean end, without a lease"
    await mortal.start_controller()
    await mortal.until_ready()
    mortal.verified()


async def test_a_second_controller_refuses_and_leaves_the_first_unharmed(mortal: Living) -> None:
    session = await mortal.page()
    certificates = {path: path.read_bytes() for path in (mortal.data_dir / "identities").rglob("*.pem")}
    async with mortal.load(session, pause_s=0.25) as asked:
        second = await asyncio.create_subprocess_exec(
            *(__import__("sys").executable, "-m", "aipaging.apps.cli", "serve", str(mortal.config), "--json"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            stdout, _ = await second.communicate()
        await asyncio.sleep(LEASE_MS / 1000)
    assert second.returncode == 4
    assert b"JOURNAL_LOCKED" in stdout
    assert str(mortal.journal).encode() in stdout
    assert [each for each in asked if not each.served] == []
    assert {path: path.read_bytes() for path in certificates} == certificates, "it touched what the first one uses"
    mortal.verified()
    await mortal.end(session)


async def test_a_stream_outlives_the_order_to_stop(mortal: Living) -> None:
    session = await mortal.page()
    began = asyncio.Event()
    stream = asyncio.create_task(streamed(mortal, session["aist"], began, events=150))
    async with asyncio.timeout(60):
        await began.wait()
    controller = mortal.processes.children[CONTROLLER].process
    controller.send_signal(signal.SIGTERM)
    came = await stream
    assert (came.count, came.ending) == (150, "well"), "3 s of a stream were not let finish"
    assert await asyncio.to_thread(controller.wait, 60) == 0
    assert mortal.processes.gateway_pid() is None
    await mortal.start_controller()
    await mortal.until_ready()
    mortal.verified()
    await mortal.end(session)


async def stopped_and_left(system: Living, leaving: str, sessions: list[dict[str, Any]], asked: list[Asked]) -> None:
    """Wait for the sidecar to end, and look at what became of the sessions that it served."""
    assert await asyncio.to_thread(system.processes.children[leaving].process.wait, 60) == 0
    await asyncio.sleep(0.5)
    assert [each for each in asked if not each.served] == []
    assert {(await system.session(session))["anchorId"] for session in sessions} == {*ANCHORS} - {leaving}
    said = [each["state"] for each in system.verified() if each.get("anchor") == leaving and "state" in each]
    assert said[-1] == "DRAINING", "it closed before it was heard"
    await system.start_sidecar(leaving)
    await system.until_ready()
    await system.end(*sessions)


async def test_a_sidecar_that_is_stopped_lets_its_sessions_move_first(mortal: Living) -> None:
    sessions = [await mortal.page() for _ in range(4)]
    leaving = sessions[0]["anchorId"]
    async with mortal.load(*sessions) as asked:
        await asyncio.sleep(0.5)
        mortal.processes.children[leaving].process.send_signal(signal.SIGTERM)
        await stopped_and_left(mortal, leaving, sessions, asked)


async def test_a_sidecar_that_is_stopped_before_it_has_met_its_sessions_lets_them_move_too(mortal: Living) -> None:
    sessions = [await mortal.page() for _ in range(4)]
    leaving = sessions[0]["anchorId"]
    mortal.processes.children[leaving].process.send_signal(signal.SIGTERM)
    async with mortal.load(*sessions) as asked:
        await stopped_and_left(mortal, leaving, sessions, asked)


@pytest.mark.soak  # ten seconds; the same in virtual time is part of every run
async def test_a_sidecar_that_hung_serves_nothing_late_when_it_goes_on(mortal: Living) -> None:
    """What lies in its sockets was sent under leases that are over by then."""
    sessions = [await mortal.page() for _ in range(3)]
    source = sessions[0]["anchorId"]
    process = mortal.processes.children[source].process
    async with mortal.load(*sessions) as asked:
        await asyncio.sleep(0.5)
        process.send_signal(signal.SIGSTOP)
        try:
            late = [asyncio.create_task(mortal.ask(session["aist"])) for session in sessions for _ in range(3)]
            async with asyncio.timeout(60):
                while source in {(await mortal.session(session))["anchorId"] for session in sessions}:
                    await asyncio.sleep(0.1)
            for session in sessions:
                await mortal.until_served(session["aist"])
            await asyncio.sleep(LEASE_MS / 1000 + 1)
        finally:
            process.send_signal(signal.SIGCONT)
        over_us = boot_us()
        waited = await asyncio.gather(*late)
        await asyncio.sleep(1)
    assert [each for each in mortal.upstreams[source].reached if each.at_us > over_us] == []
    assert max(each.ended_us for each in waited) > over_us, "nobody waited in its sockets"
    assert 0 not in {each.status for each in waited}, "refused, or sent to where the session is now"
    for session in sessions:
        assert mortal.outside_leases(session, [*asked, *waited]) == []
    mortal.verified()
    await mortal.until_ready()
    await mortal.end(*sessions)
