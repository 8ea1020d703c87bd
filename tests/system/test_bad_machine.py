"""A machine whose disk is slow, fails or is read-only, and whose wall clock is stepped, under a running system.

A small library, compiled here and loaded before the C library, stands between the processes and the machine; see
`bad_machine.c`. It is told by a file what goes wrong, so that it goes wrong while they run, and heals.
"""

import asyncio
import errno
import os
import shutil
import struct
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.system.living import INTENT, Living

from aipaging.testing.stack import CONTROLLER

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("system-machine")]

LEASE_MS = 8_000
"""Longer than a sync of one second and a few that wait behind it."""

HOUR_S = 3_600


@dataclass(slots=True)
class Machine:
    """What goes wrong now."""

    told: Path

    def goes(self, *, sync_ms: int = 0, sync_errno: int = 0, write_errno: int = 0, clock_s: int = 0) -> None:
        with self.told.open("r+b") as file:
            file.write(struct.pack("4i", sync_ms, sync_errno, write_errno, clock_s))


@dataclass(slots=True)
class Bad:
    system: Living
    machine: Machine


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bad(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bad]:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler to build what stands between a process and its machine")
    folder = tmp_path_factory.mktemp("machine")
    source, library = Path(__file__).with_name("bad_machine.c"), folder / "bad_machine.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    machine = Machine(folder / "told")
    machine.told.write_bytes(bytes(16))
    system = Living.prepared(folder / "system", lease_ms=LEASE_MS, drain_ms_max=LEASE_MS)
    before = dict(os.environ)
    os.environ |= {"LD_PRELOAD": str(library), "BAD_MACHINE": str(machine.told)}
    try:
        await system.start()
        yield Bad(system, machine)
    finally:
        machine.goes()
        system.stop()
        os.environ.clear()
        os.environ.update(before)


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def healed(bad: Bad) -> AsyncIterator[None]:
    yield
    bad.machine.goes()
    await bad.system.heal()


async def attempt(system: Living) -> tuple[int, dict[str, Any]]:
    return await system.call("POST", "/sessions", {"intent": INTENT | {"ratePerSecond": 0.1}})


async def test_a_journal_that_takes_a_second_to_sync_delays_and_loses_nothing(bad: Bad) -> None:
    system = bad.system
    session = await system.page()
    await system.until_served(session["aist"])  # the gateway knows it: a first look-up may well wait for the journal
    async with system.load(session, pause_s=0.25) as asked:
        bad.machine.goes(sync_ms=1_000)
        try:
            began_s = time.monotonic()
            pages = await asyncio.gather(*(attempt(system) for _ in range(4)))
            assert time.monotonic() - began_s > 1, "the disk was to be slow"
            await asyncio.sleep(LEASE_MS / 1000)
        finally:
            bad.machine.goes()
    assert [status for status, _ in pages] == [201] * 4
    assert [each for each in asked if not each.served] == [], "the user plane waited for the journal"
    granted = {record["session"] for record in system.verified() if record["type"] == "COMMIT_GRANTED"}
    assert {said["sessionId"] for _, said in pages} <= granted
    await system.end(session, *(said for _, said in pages))


@pytest.mark.parametrize(
    "step_s", [pytest.param(HOUR_S, marks=pytest.mark.soak), -HOUR_S], ids=["forwards", "backwards"]
)
async def test_a_stepped_clock_ends_no_lease_and_lengthens_none(bad: Bad, step_s: int) -> None:
    system = bad.system
    session = await system.page(durationS=3 * HOUR_S)  # tokens end by the wall clock, as RFC 7519 has it
    await system.until_served(session["aist"])  # the gateway knows it: a first look-up may well wait for the journal
    async with system.load(session, pause_s=0.25) as asked:
        await asyncio.sleep(0.3)
        bad.machine.goes(clock_s=step_s)
        try:
            await asyncio.sleep(LEASE_MS / 1000 * 0.6)
            new = await system.page()
            assert (await system.until_served(new["aist"])).served
            terms = (await system.session(session))["commit"]["epoch"]
            await system.end(new)
            assert not (await system.ask(new["aist"])).served, "an ended session is served"
        finally:
            bad.machine.goes()
        await asyncio.sleep(0.5)
        back = await system.page()
        assert (await system.until_served(back["aist"])).served
        await system.end(back)
    assert [each for each in asked if not each.served] == []
    assert system.outside_leases(session, asked) == []
    after = (await system.session(session))["commit"]["epoch"]
    assert (after["term"], after["n"]) >= (terms["term"], terms["n"])
    await system.end(session)
    system.verified()


@pytest.mark.parametrize(
    "wrong",
    [{"write_errno": errno.EROFS}, {"sync_errno": errno.EIO}],
    ids=["read-only", "failed sync"],
)
@pytest.mark.soak  # what a full disk does, which is the same, is tried in every run (test_disk.py)
async def test_a_journal_that_cannot_be_written_stops_admission_and_loses_nothing(
    bad: Bad, wrong: dict[str, int]
) -> None:
    system = bad.system
    session = await system.page()
    await system.until_served(session["aist"])  # the gateway knows it: a first look-up may well wait for the journal
    async with system.load(session, pause_s=0.25) as asked:
        await asyncio.sleep(0.3)
        bad.machine.goes(**wrong)
        refused = [await attempt(system) for _ in range(3)]
        assert {(status, said["code"]) for status, said in refused} == {(503, "AI_PAGING.JOURNAL_UNAVAILABLE")}, refused
        assert (await system.session(session))["sessionId"] == session["sessionId"], "reading needs no disk"
        await asyncio.sleep(LEASE_MS / 1000 + 1.5)
        bad.machine.goes()
        late_us = max(end for span in system.spans().values() for _, end in span)
        assert [each for each in asked if each.began_us > late_us and each.served] == []
        # The kernel may have dropped what a failed sync was to write: only what the file says counts, read anew.
        system.kill(CONTROLLER)
        await system.start_controller()
        await system.until_ready()
        status, _ = await attempt(system)
        assert status == 201
    assert system.outside_leases(session, asked) == []
    records = system.verified()
    assert session["sessionId"] in {record["session"] for record in records if record["type"] == "COMMIT_GRANTED"}
