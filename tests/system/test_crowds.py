"""Many at once, and what is restarted under them: held connections, floods, slow readers of heads, rolling restarts."""

import asyncio
import contextlib
import resource
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from tests.system.living import ANCHORS, INTENT, Living
from tests.system.upstream import HOST

from aipaging.testing.stack import CONTROLLER

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("system-crowds")]

HELD = 10_000
LEASE_MS = 6_000
"""Longer than a controller takes to start again on a busy machine of two cores: what a rolling restart has to span."""

SPARE_FILES = 500
"""For this test's own requests and what pytest has open."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def crowded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Living]:
    system = Living.prepared(tmp_path_factory.mktemp("crowded"), lease_ms=LEASE_MS, drain_ms_max=LEASE_MS)
    try:
        await system.start()
        yield system
    finally:
        system.stop()


@pytest.fixture
def many_files() -> Iterator[int]:
    """Return how many connections this process may hold."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = HELD + SPARE_FILES
    granted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, granted), hard))
    yield granted - SPARE_FILES
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def held_open(port: int, count: int) -> list[socket.socket]:
    """Return connections that say nothing."""
    held = []
    for _ in range(count):
        connection = socket.socket()
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            connection.connect((HOST, port))
        held.append(connection)
        if len(held) % 200 == 0:
            await asyncio.sleep(0.01)  # within the listener's backlog
    return held


async def restart_sidecars(crowded: Living) -> None:
    for name in ANCHORS:
        process = crowded.processes.children[name].process
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 60) == 0
        await crowded.start_sidecar(name)
        await crowded.until_ready()


@pytest.mark.parametrize("what", ["controller", "sidecars"])
async def test_a_rolling_restart_fails_no_request_of_a_user(crowded: Living, what: str) -> None:
    sessions = [await crowded.page() for _ in range(3)]
    async with crowded.load(*sessions, pause_s=0.25) as asked:
        await asyncio.sleep(0.3)
        if what == "controller":  # it goes as for an update that leaves the gateway alone
            crowded.kill(CONTROLLER)
            await crowded.start_controller()
            await crowded.until_ready()
        else:
            await restart_sidecars(crowded)
        await asyncio.sleep(0.3)
    assert [each for each in asked if not each.served] == []
    for session in sessions:
        assert crowded.outside_leases(session, asked) == []
    crowded.verified()
    await crowded.end(*sessions)


@pytest.mark.parametrize("door", ["northbound", "gateway"])
async def test_ten_thousand_held_connections_keep_nobody_out(crowded: Living, many_files: int, door: str) -> None:
    if many_files < HELD:
        pytest.skip(f"this machine lets a process have {many_files} connections, not {HELD}")
    session = await crowded.page()
    count = HELD - 200 if door == "northbound" else HELD  # the northbound listener takes as many, and no more
    async with crowded.load(session, pause_s=0.25) as asked:
        held = await held_open(getattr(crowded.ports, door), count)
        try:
            await asyncio.sleep(1)
            status, _ = await crowded.call("GET", f"/sessions/{session['sessionId']}")
            assert status == 200
            assert (await crowded.ask(session["aist"])).served
            other = await crowded.page()
            await crowded.end(other)
        finally:
            for connection in held:
                connection.close()
    assert [each for each in asked if not each.served] == []
    await crowded.end(session)


async def test_a_tenant_that_floods_with_pages_leaves_the_other_its_turn(crowded: Living) -> None:
    over = asyncio.Event()
    flooded: list[int] = []

    async def flood() -> None:
        while not over.is_set():
            body = {"intent": INTENT | {"ratePerSecond": 0.01, "burst": 1}}
            status, _ = await crowded.call("POST", "/sessions", body, who="stranger")
            flooded.append(status)

    async def worked() -> list[float]:
        took_s = []
        for _ in range(8):
            began_s = time.monotonic()
            session = await crowded.page(ratePerSecond=0.1, burst=1)
            took_s.append(time.monotonic() - began_s)
            await crowded.end(session)
        return sorted(took_s)

    async with asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(flood())
        took_s = await worked()
        over.set()
    assert len(flooded) > 40, "it did not flood"
    assert {status // 100 for status in flooded} <= {2, 4}
    # The worst of eight, with sixteen of the other always before it: no more than a few rounds of everybody's turn.
    assert took_s[-1] < 3.0, took_s
    status, listed = await crowded.call("POST", "/retrieve-sessions", {}, who="stranger")
    assert status == 200
    assert listed["sessions"]
