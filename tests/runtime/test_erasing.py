"""Erasing a session: only what is over, only with a snapshot that does not hold it, and never halfway."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.runtime.test_engine import Rig, Signer, StillClock, until
from tests.runtime.test_journal_goes_on import made
from tests.runtime.test_snapshots import Gated

from aipaging.adapters.journal.sqlite.reader import SqliteEvidenceReader
from aipaging.adapters.journal.sqlite.sealing import movable
from aipaging.adapters.journal.sqlite.standing import StandingFiles
from aipaging.adapters.journal.sqlite.writer import SqliteJournal
from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.foundation.errors import RefusedError, UnavailableError
from aipaging.core.foundation.names import AnchorId, SessionId
from aipaging.core.paging import commands as c
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.core.paging.state import State
from aipaging.runtime.engine import Engine

STRANGER = SessionId("00000000-0000-4000-8000-ffffffffffff")
KEPT_US = 600_000_000
"""More than ended sessions are kept."""


class ErasingRig(Rig):
    def __init__(self, journal: Gated | SqliteJournal) -> None:
        super().__init__(journal)  # type: ignore[arg-type]
        self.engine = engine_on(journal, self.clock)
        self.effects._engine = self.engine

    async def forgotten(self) -> SessionId:
        """Return a session that has come and gone."""
        session = await self.page()
        await self.engine.submit(c.End(session=session, status_info=StatusInfo.DELETE_REQUESTED))
        for _ in range(60):
            self.clock.boot_us += KEPT_US // 60
            for anchor in ("a", "b"):
                await self.engine.submit(c.Heartbeat(anchor=AnchorId(anchor), state=AnchorState.READY))
        await until(lambda: session not in self.engine.state.sessions)
        return session


def engine_on(journal: Gated | SqliteJournal, clock: StillClock, boot: str = "boot-1") -> Engine:
    return Engine(journal=journal, snapshots=journal, signer=Signer(), clock=clock, writer=("n", boot), eraser=journal)


async def recovered(journal: Gated | SqliteJournal) -> State:
    engine = engine_on(journal, StillClock(), "boot-2")
    await engine.recover()
    await engine.stop()
    return engine.state


@pytest.fixture
def gated() -> Gated:
    return Gated()


@pytest.fixture
async def rig(gated: Gated) -> AsyncIterator[ErasingRig]:
    rig = ErasingRig(gated)
    await rig.start()
    yield rig
    gated.gate.set()
    await rig.stop()


async def test_who_lives_or_has_just_ended_is_not_erased(rig: ErasingRig, gated: Gated) -> None:
    session = await rig.page()
    before = rig.engine.head.seq
    with pytest.raises(RefusedError, match="is live: end it first"):
        await rig.engine.erase(session)
    await rig.engine.submit(c.End(session=session, status_info=StatusInfo.DELETE_REQUESTED))
    with pytest.raises(RefusedError, match="ended a short while ago"):
        await rig.engine.erase(session)
    assert b"SESSION_ERASED" not in b"".join(entry.record for entry in gated.read(before))
    assert not gated.disk.erased


async def test_a_session_that_never_was_leaves_no_record(rig: ErasingRig) -> None:
    before = rig.engine.head.seq
    assert not await rig.engine.erase(STRANGER)
    assert rig.engine.head.seq == before


async def test_an_erased_session_stays_away_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    rig = ErasingRig(SqliteJournal(path, bytes(32), ballast_bytes=65_536))
    await rig.start()
    other = await rig.page(duration_s=3_600)
    gone = await rig.forgotten()
    assert await rig.engine.erase(gone)
    assert await rig.engine.erase(gone), "again is no error"
    await rig.stop()
    with_snapshot = await recovered(SqliteJournal(path, bytes(32), ballast_bytes=65_536))
    assert gone not in with_snapshot.sessions
    assert with_snapshot.sessions[other].available
    journal = SqliteJournal(path, bytes(32), ballast_bytes=65_536)
    journal.open()
    first = journal.newest()
    assert first is not None
    assert all(entry.payload is None and entry.salt is None for entry in journal.read(0) if entry.session == gone)
    journal.discard()
    journal.close()
    without = await recovered(SqliteJournal(path, bytes(32), ballast_bytes=65_536))
    assert without.sessions.keys() == with_snapshot.sessions.keys()
    reader = SqliteEvidenceReader(path)
    records = [stored.record for stored in reader.records(0)]
    assert sum(b'"SESSION_ERASED"' in record and gone.encode() in record for record in records) == 2
    assert any(b'"COMMIT_GRANTED"' in record for _, record in reader.session_records(gone))
    reader.close()


async def test_nothing_is_erased_while_the_state_cannot_be_stored_without_it(rig: ErasingRig, gated: Gated) -> None:
    gone = await rig.forgotten()
    before = rig.engine.head.seq
    gated.failing = True
    with pytest.raises(UnavailableError) as refused:
        await rig.engine.erase(gone)
    gated.failing = False
    assert refused.value.code == "SNAPSHOT_FAILED"
    assert not gated.disk.erased
    assert rig.engine.head.seq == before
    assert await rig.engine.erase(gone)
    assert gated.disk.erased == {gone}


async def test_an_erasure_waits_for_a_snapshot_that_began_before(rig: ErasingRig, gated: Gated) -> None:
    gone, another = await rig.forgotten(), await rig.forgotten()
    gated.gate.clear()
    first = asyncio.create_task(rig.engine.erase(gone))
    second = asyncio.create_task(rig.engine.erase(another))
    await until(gated.begun.is_set)
    session = await rig.page()  # nobody else waits
    assert not first.done()
    gated.gate.set()
    assert await first
    assert await second
    assert gated.disk.erased == {gone, another}
    assert gated.snapshot_seq <= rig.engine.head.seq
    await rig.stop()
    assert (await recovered(gated)).sessions.keys() >= {session}


async def test_after_an_erasure_a_start_needs_no_file_that_may_be_moved_away(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    rig = ErasingRig(made(path))
    await rig.start()
    gone = await rig.forgotten()
    others = [await rig.page(duration_s=3_600, rate_rps=0.001) for _ in range(20)]
    assert await rig.engine.erase(gone)
    await rig.stop()
    standing = StandingFiles(path)
    allowed = movable(standing)
    standing.close()
    assert allowed
    away = tmp_path / "away"
    away.mkdir()
    for each in allowed:
        each.rename(away / each.name)
    found = await recovered(made(path))
    assert gone not in found.sessions
    assert found.sessions.keys() >= set(others)
    for each in allowed:
        (away / each.name).rename(each)
    journal = made(path)
    journal.open()
    assert {entry.payload for entry in journal.read(0) if entry.session == gone} == {None}
    journal.discard()
    journal.close()
    assert (await recovered(made(path))).sessions.keys() == found.sessions.keys()
