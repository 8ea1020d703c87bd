"""A machine whose disk is slow, fails or is read-only, and whose wall clock is stepped, under a running system.

A small library, compiled here and loaded before the C library, stands between the processes and the machine; see
`bad_machine.c`. It is told by a file what goes wrong, so that it goes wrong while they run, and heals.
"""

import asyncio
import errno
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
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


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """The machine of every process that is started while this is there."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler to build what stands between a process and its machine")
    folder = tmp_path_factory.mktemp("machine")
    source, library = Path(__file__).with_name("bad_machine.c"), folder / "bad_machine.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    machine = Machine(folder / "told")
    machine.told.write_bytes(bytes(16))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LD_PRELOAD", str(library))
        environment.setenv("BAD_MACHINE", str(machine.told))
        yield machine


@pytest.fixture(scope="module")
def changes(machine: Machine) -> dict[str, Any]:
    del machine  # it must be there before the processes
    return {"lease_ms": LEASE_MS, "drain_ms_max": LEASE_MS}


@pytest.fixture(autouse=True)
def well_again(mortal: Living, machine: Machine) -> Iterator[None]:
    del mortal  # it heals after the machine
    yield
    machine.goes()


async def attempt(system: Living) -> tuple[int, dict[str, Any]]:
    return await system.call("POST", "/sessions", {"intent": INTENT | {"ratePerSecond": 0.1}})


async def test_a_journal_that_takes_a_second_to_sync_delays_and_loses_nothing(mortal: Living, machine: Machine) -> None:
    session = await mortal.page()
    await mortal.until_served(session["aist"])  # the gateway knows it: a first look-up may well wait for the journal
    async with mortal.load(session, pause_s=0.25) as asked:
        machine.goes(sync_ms=1_000)
        try:
            began_s = time.monotonic()
            pages = await asyncio.gather(*(attempt(mortal) for _ in range(4)))
            assert time.monotonic() - began_s > 1, "the disk was to be slow"
            await asyncio.sleep(LEASE_MS / 1000)
        finally:
            machine.goes()
    assert [status for status, _ in pages] == [201] * 4
    assert [each for each in asked if not each.served] == [], "the user plane waited for the journal"
    granted = {record["session"] for record in mortal.verified() if record["type"] == "COMMIT_GRANTED"}
    assert {said["sessionId"] for _, said in pages} <= granted
    await mortal.end(session, *(said for _, said in pages))


async def connect_often(system: Living, session: dict[str, Any]) -> None:
    """Leave more connections open between gateway and anchor than will be needed at once.

    An hour ago no certificate was valid yet: while the clock is stepped back, nobody shakes hands anew.
    """
    async with system.user() as client:
        streams = [
            client.get("/stream?events=5&gap_ms=100", headers={"authorization": f"Bearer {session['aist']}"})
            for _ in range(6)
        ]
        assert {answer.status_code for answer in await asyncio.gather(*streams)} == {200}


@pytest.mark.parametrize(
    "step_s", [pytest.param(HOUR_S, marks=pytest.mark.soak), -HOUR_S], ids=["forwards", "backwards"]
)
async def test_a_stepped_clock_ends_no_lease_and_lengthens_none(mortal: Living, machine: Machine, step_s: int) -> None:
    session = await mortal.page(durationS=3 * HOUR_S)  # tokens end by the wall clock, as RFC 7519 has it
    await mortal.until_served(session["aist"])  # the gateway knows it: a first look-up may well wait for the journal
    await connect_often(mortal, session)
    async with mortal.load(session, pause_s=0.25) as asked:
        await asyncio.sleep(0.3)
        machine.goes(clock_s=step_s)
        try:
            await asyncio.sleep(LEASE_MS / 1000 * 0.6)
            new = await mortal.page()
            assert (await mortal.until_served(new["aist"])).served
            terms = (await mortal.session(session))["commit"]["epoch"]
            await mortal.end(new)
            assert not (await mortal.ask(new["aist"])).served, "an ended session is served"
        finally:
            machine.goes()
        await asyncio.sleep(0.5)
        back = await mortal.page()
        assert (await mortal.until_served(back["aist"])).served
        await mortal.end(back)
    assert [each for each in asked if not each.served] == []
    assert mortal.outside_leases(session, asked) == []
    after = (await mortal.session(session))["commit"]["epoch"]
    assert (after["term"], after["n"]) >= (terms["term"], terms["n"])
    await mortal.end(session)
    mortal.verified()


@pytest.mark.parametrize(
    "wrong",
    [{"write_errno": errno.EROFS}, {"sync_errno": errno.EIO}],
    ids=["read-only", "failed sync"],
)
@pytest.mark.soak  # what a full disk does, which is the same, is tried in every run (test_disk.py)
async def test_a_journal_that_cannot_be_written_stops_admission_and_loses_nothing(
    mortal: Living, machine: Machine, wrong: dict[str, int]
) -> None:
    session = await mortal.page()
    await mortal.until_served(session["aist"])  # the gateway knows it: a first look-up may well wait for the journal
    async with mortal.load(session, pause_s=0.25) as asked:
        await asyncio.sleep(0.3)
        machine.goes(**wrong)
        refused = [await attempt(mortal) for _ in range(3)]
        assert {(status, said["code"]) for status, said in refused} == {(503, "AI_PAGING.JOURNAL_UNAVAILABLE")}, refused
        assert (await mortal.session(session))["sessionId"] == session["sessionId"], "reading needs no disk"
        await asyncio.sleep(LEASE_MS / 1000 + 1.5)
        machine.goes()
        late_us = max(end for span in mortal.spans().values() for _, end in span)
        assert [each for each in asked if each.began_us > late_us and each.served] == []
        # The kernel may have dropped what a failed sync was to write: only what the file says counts, read anew.
        mortal.kill(CONTROLLER)
        await mortal.start_controller()
        await mortal.until_ready()
        status, _ = await attempt(mortal)
        assert status == 201
    assert mortal.outside_leases(session, asked) == []
    records = mortal.verified()
    assert session["sessionId"] in {record["session"] for record in records if record["type"] == "COMMIT_GRANTED"}
