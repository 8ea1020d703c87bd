"""Many at once, and what is restarted under them: held connections, floods, slow readers of heads, rolling restarts."""

import asyncio
import contextlib
import resource
import signal
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from tests.system.living import ANCHORS, INTENT, Living
from tests.system.upstream import HOST

from aipaging.testing.stack import CONTROLLER

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("system-crowds")]

HELD = 10_000
LEASE_MS = 20_000
"""Half of it is what a rolling restart has to span: more than a controller takes to start on a busy machine."""

FLOODING = 16
"""Pages that the flooding tenant has under way at any moment."""

ROUNDS_MAX = 4
"""Of everybody's turn, that a page of another may wait."""

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


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def healed(crowded: Living) -> AsyncIterator[None]:
    yield
    await crowded.heal()


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


# Sidecars that are told to stop wait for their sessions to move and for leases of twenty seconds: a third of a minute.
@pytest.mark.parametrize("what", ["controller", pytest.param("sidecars", marks=pytest.mark.soak)])
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

    async def worked() -> list[int]:
        """Return how many of the other's pages were answered while one of ours waited."""
        overtaken = []
        for _ in range(8):
            before = len(flooded)
            session = await crowded.page(ratePerSecond=0.1, burst=1)
            overtaken.append(len(flooded) - before)
            await crowded.end(session)
        return overtaken

    async with asyncio.TaskGroup() as group:
        for _ in range(FLOODING):
            group.create_task(flood())
        async with asyncio.timeout(60):
            while len(flooded) < 2 * FLOODING:
                await asyncio.sleep(0.01)
        overtaken = await worked()
        over.set()
    assert {status // 100 for status in flooded} <= {2, 4}
    assert max(overtaken) <= ROUNDS_MAX * FLOODING, overtaken
    status, listed = await crowded.call("POST", "/retrieve-sessions", {}, who="stranger")
    assert status == 200
    assert listed["sessions"]
