"""A disk that is full, a journal that is torn or altered: what was acknowledged stays, the unsound is not used."""

import asyncio
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.system.living import INTENT, LEASE_MS, Living, records_of

from aipaging.core.foundation.errors import UnavailableError
from aipaging.testing.stack import CONTROLLER

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("system-disk")]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount the small file system that is to be filled")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"this machine does not let us mount a small file system: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave not a byte."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    return filler


async def test_a_full_disk_stops_admission_and_loses_nothing(tmp_path: Path, small_disk: Path) -> None:
    async with Living.running(tmp_path / "system", data_dir=small_disk / "controller") as system:
        sessions = [await system.page() for _ in range(4)]
        short = await system.page(durationS=6)
        async with system.load(*sessions, short) as asked:
            await asyncio.sleep(0.5)
            filler = fill(small_disk)
            acknowledged: list[dict[str, Any]] = []
            refusals: list[tuple[int, dict[str, Any]]] = []
            async with asyncio.timeout(60):
                while len(refusals) < 5:  # until the space that the journal had reserved for itself is used up
                    status, said = await system.call("POST", "/sessions", {"intent": INTENT | {"ratePerSecond": 0.1}})
                    if status == 201:
                        acknowledged.append(said)
                        fill(small_disk)
                    else:
                        refusals.append((status, said))
            for status, said in refusals:
                assert (status, said["code"]) == (503, "AI_PAGING.JOURNAL_UNAVAILABLE"), said
                assert "no space" in said["message"]
            # Reading goes on; ending a session goes on; what is granted runs out where it is enforced.
            assert (await system.session(sessions[0]))["sessionId"] == sessions[0]["sessionId"]
            await system.end(sessions[3])
            await asyncio.sleep(LEASE_MS / 1000 + 1.5)
            late_us = max(end for span in system.spans().values() for _, end in span)
            assert [each for each in asked if each.began_us > late_us and each.served] == []
            filler.unlink()
            for session in sessions[:3]:
                shown = await system.session(session)
                if shown["status"] == "AVAILABLE":
                    await system.until_served(session["aist"])
            async with asyncio.timeout(60):
                while (await system.call("POST", "/sessions", {"intent": INTENT}))[0] != 201:
                    await asyncio.sleep(0.2)
        records = system.verified()
        requested = {record["session"] for record in records if record["type"] == "SESSION_REQUESTED"}
        pages = [*sessions, short, *acknowledged]
        assert {page["sessionId"] for page in pages} <= requested, "an acknowledged page is not in the journal"
        ended = {record["session"] for record in records if record["type"] == "SESSION_ENDED"}
        assert sessions[3]["sessionId"] in ended, "an acknowledged end is not in the journal"
        for session in (*sessions, short):
            assert system.outside_leases(session, asked) == []


# -- what lies on the disk


TABLES_BYTES = 200_000
"""The log begins with the empty tables, some fourteen pages of them."""

PAGES = 30
"""Paged and ended before the crash: what is torn and altered is among their records."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def crashed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Living]:
    """A controller that was killed under load, its write-ahead log full of what is not in the file yet."""
    async with Living.running(tmp_path_factory.mktemp("crashed")) as system:
        sessions = [await system.page(ratePerSecond=1) for _ in range(6)]
        async with system.load(*sessions):
            for _ in range(PAGES):
                await system.end(await system.page(ratePerSecond=0.1))
            system.kill(CONTROLLER)
        system.processes.end_gateway()
        yield system


def copied(crashed: Living, folder: Path) -> Path:
    """Return a copy of the data directory, without its gateway."""
    shutil.copytree(crashed.data_dir, folder, ignore=shutil.ignore_patterns("gateway", "*-shm"))
    return folder


async def started_on(crashed: Living, data_dir: Path) -> str:
    """Start a controller without a gateway on a data directory; return "" if it came up, or what it said."""
    config = data_dir.parent / "aipaging.toml"
    text = crashed.config.read_text().replace(str(crashed.data_dir), str(data_dir))
    config.write_text(text.replace("gateway = { ", 'gateway = { driver = "memory", '))
    name = f"on-{data_dir.parent.name}"
    try:
        await crashed.processes.start(name, "serve", str(config), "--json")
    except UnavailableError as error:
        return error.message
    else:
        return ""
    finally:
        if name in crashed.processes.children:
            crashed.processes.children[name].stop()


async def test_a_torn_write_ahead_log_recovers_to_the_last_whole_batch(crashed: Living, tmp_path: Path) -> None:
    wal = crashed.journal.with_name("journal.db-wal")
    size = wal.stat().st_size
    assert size > 500_000, "there is nothing to tear"
    whole = list(records_of(copied(crashed, tmp_path / "whole") / "journal.db"))
    dice = random.Random(2)
    # Behind the tables, which are synced before anything is: no crash leaves the one without the other.
    cuts = [size - 1, size - 4_096, *(dice.randrange(TABLES_BYTES, size) for _ in range(4))]
    places = []
    for number, cut in enumerate(cuts):
        torn = copied(crashed, tmp_path / f"torn-{number}" / "controller")
        os.truncate(torn / "journal.db-wal", cut)
        kept = list(records_of(copied_journal(torn, tmp_path / f"read-{number}")))
        assert kept == whole[: len(kept)], f"cut at {cut}: what is left is not a beginning"
        if number in {0, 3}:
            assert await started_on(crashed, torn) == "", f"cut at {cut}"
            after = list(records_of(torn / "journal.db"))
            assert after[: len(kept)] == kept
            assert len(after) > len(kept), "the new term is in the journal"
        places.append(torn / "journal.db")
    for cut, (status, verdict) in zip(cuts, await verdicts(crashed, places), strict=True):
        # What follows the cut is gone; a checkpoint that was torn off with it is missed by nobody but a witness.
        assert (status, verdict["first_bad"]) == (0, None), (cut, verdict)


async def verdicts(crashed: Living, journals: list[Path]) -> list[tuple[int, dict[str, Any]]]:
    """Return what the command says of each journal, asked beside one another."""
    return await asyncio.gather(*(asyncio.to_thread(crashed.verdict, journal) for journal in journals))


def copied_journal(data_dir: Path, folder: Path) -> Path:
    folder.mkdir()
    for path in data_dir.glob("journal.db*"):
        if not path.name.endswith(("-shm", ".lock", ".ballast")):
            shutil.copy(path, folder)
    return folder / "journal.db"


async def test_flipped_bytes_are_refused_or_named_and_never_passed_over(crashed: Living, tmp_path: Path) -> None:
    base = copied(crashed, tmp_path / "base")
    with sqlite3.connect(base / "journal.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        places = connection.execute("SELECT seq, record FROM entries ORDER BY seq").fetchall()
    connection.close()
    raw = (base / "journal.db").read_bytes()
    dice = random.Random(3)
    chosen, journals = dice.sample(places, 6), []
    for seq, record in chosen:
        at = raw.find(record)
        assert at > 0
        flipped = bytearray(raw)
        place = at + dice.randrange(len(record))
        flipped[place] ^= 1 << dice.randrange(7)
        altered = tmp_path / f"flipped-{seq}"
        altered.mkdir()
        journals.append(altered / "journal.db")
        journals[-1].write_bytes(flipped)
    for (seq, _), (status, verdict) in zip(chosen, await verdicts(crashed, journals), strict=True):
        assert status == 1, (seq, verdict)
        assert verdict["first_bad"] is not None, seq
        assert verdict["first_bad"].get("seq") == seq, verdict


async def test_a_controller_does_not_start_on_an_altered_journal(crashed: Living, tmp_path: Path) -> None:
    for number, what in enumerate(("record", "head", "cut")):
        data_dir = copied(crashed, tmp_path / f"altered-{number}" / "controller")
        with sqlite3.connect(data_dir / "journal.db") as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            (newest,) = connection.execute("SELECT max(seq) FROM entries").fetchone()
            if what == "record":
                (record,) = connection.execute("SELECT record FROM entries WHERE seq = ?", (newest - 2,)).fetchone()
                connection.execute(
                    "UPDATE entries SET record = ? WHERE seq = ?", (record.replace(b'"v":1', b'"v":2'), newest - 2)
                )
            elif what == "cut":
                # Below the newest checkpoint: what nobody has signed yet can be cut off and is missed by nobody.
                (signed,) = connection.execute("SELECT max(size) FROM checkpoints").fetchone()
                connection.execute("DELETE FROM entries WHERE seq > ?", (signed - 5,))
        connection.close()
        if what == "head":
            with (data_dir / "journal.db").open("r+b") as file:
                file.write(b"not a database, not any more")
        said = await started_on(crashed, data_dir)
        assert str(data_dir / "journal.db") in said, (what, said)
        status, verdict = crashed.verdict(data_dir / "journal.db")
        assert status != 0, (what, verdict)


async def test_verifying_says_no_about_files_that_are_no_journals(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a journal")
    (tmp_path / "empty").touch()
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE other (x)").connection.close()
    for name in ("text", "empty", "other.db", "absent"):
        command = [sys.executable, "-m", "aipaging.apps.cli", "evidence", "verify", str(tmp_path / name), "--json"]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
        assert done.returncode in {1, 2, 4}, (name, done.stdout)
        assert "Traceback" not in done.stderr
