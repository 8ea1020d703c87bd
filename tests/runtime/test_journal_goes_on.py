"""The engine over a journal of many files: what is recovered is what was, with old files away, or nothing starts."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.runtime.test_engine import Rig, Signer, StillClock, until

from aipaging.adapters.journal.sqlite.sealing import movable
from aipaging.adapters.journal.sqlite.standing import StandingFiles
from aipaging.adapters.journal.sqlite.writer import SqliteJournal
from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.foundation.errors import UnavailableError
from aipaging.core.paging import commands as c
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.core.paging.snapshot import encode_state
from aipaging.core.paging.state import State
from aipaging.runtime import recording
from aipaging.runtime.engine import Engine

FILE_RECORDS = 30


class Rolling(SqliteJournal):
    """Goes on in another file as soon as one has thirty records."""

    def append(self, entries, checkpoint, *, restrictive=False) -> None:
        super().append(entries, checkpoint, restrictive=restrictive)
        if self._size - self.first_seq >= FILE_RECORDS:
            self.go_on()


def made(path: Path) -> Rolling:
    return Rolling(path, bytes(32), ballast_bytes=0)


class RollingRig(Rig):
    def __init__(self, path: Path) -> None:
        super().__init__(made(path))
        self.path = path
        self.engine = Engine(
            journal=self.journal, snapshots=self.journal, signer=Signer(), clock=self.clock, writer=("n", "boot-1")
        )
        self.effects._engine = self.engine

    async def lives(self, count: int) -> None:
        """Page sessions, and end every third."""
        for anchor in self.engine.state.catalogue.anchors:
            await self.engine.submit(c.Heartbeat(anchor=anchor, state=AnchorState.READY))
        for number in range(count):
            session = await self.page(rate_rps=0.001)
            if number % 3 == 1:
                await self.engine.submit(c.End(session=session, status_info=StatusInfo.DELETE_REQUESTED))
            self.clock.boot_us += 10_000

    def snapshot_seq(self) -> int:
        return self.engine.head.seq - self.engine.snapshots.behind_records


@pytest.fixture
async def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RollingRig]:
    monkeypatch.setattr(recording, "SNAPSHOT_RECORDS", 120)
    rig = RollingRig(tmp_path / "journal.db")
    await rig.start()
    await rig.lives(60)
    await until(lambda: rig.snapshot_seq() > 0)
    while rig.journal.first_seq - rig.snapshot_seq() < 2 * FILE_RECORDS:
        await rig.lives(1)
    yield rig
    await rig.stop()


async def recovered(path: Path) -> State:
    journal = made(path)
    engine = Engine(journal=journal, snapshots=journal, signer=Signer(), clock=StillClock(), writer=("n", "boot-2"))
    try:
        await engine.recover()
    finally:
        await engine._recorder.close()
    return engine.state


async def test_a_controller_recovers_without_the_files_that_its_snapshot_covers(rig: RollingRig) -> None:
    live = encode_state(rig.engine.state)
    await rig.stop()
    assert encode_state(await recovered(rig.path)) == live
    standing = StandingFiles(rig.path)
    allowed, present = movable(standing), standing.present()
    standing.close()
    assert 1 < len(allowed) < len(present) - 1
    away = rig.path.parent / "away"
    away.mkdir()
    for path in allowed:
        path.rename(away / path.name)
    assert encode_state(await recovered(rig.path)) == live

    (snapshot,) = rig.path.parent.glob("journal.db.snapshot-*")
    kept = snapshot.read_bytes()
    snapshot.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    with pytest.raises(UnavailableError) as refused:
        await recovered(rig.path)
    assert refused.value.code == "JOURNAL_FILE_MISSING"
    assert "records 0 to" in refused.value.message
    assert all(path.name in refused.value.message for path in allowed)
    for path in away.iterdir():
        path.rename(rig.path.with_name(path.name))
    assert encode_state(await recovered(rig.path)) == live, "the whole journal is read instead"


async def test_a_file_that_was_moved_away_too_early_is_asked_for(rig: RollingRig) -> None:
    live = encode_state(rig.engine.state)
    await rig.stop()
    standing = StandingFiles(rig.path)
    early = next(span for span in standing.present() if (span.end or 0) > rig.snapshot_seq())
    path = standing.files.path_of(early.first)
    standing.close()
    path.rename(rig.path.parent / "away")
    with pytest.raises(UnavailableError, match=path.name) as refused:
        await recovered(rig.path)
    assert refused.value.code == "JOURNAL_FILE_MISSING"
    (rig.path.parent / "away").rename(path)
    assert encode_state(await recovered(rig.path)) == live


async def test_an_engine_whose_journal_cannot_go_on_goes_on_in_the_old_file(
    rig: RollingRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, failures = rig.journal.first_seq, rig.journal.failures

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as failing:
        failing.setattr("aipaging.adapters.journal.sqlite.succession._sync", full)
        await rig.lives(20)
        assert rig.engine.healthy
        assert rig.journal.first_seq == first
        assert rig.journal.failures > failures
    while rig.journal.first_seq == first:
        await rig.lives(1)
    live = encode_state(rig.engine.state)
    await rig.stop()
    assert encode_state(await recovered(rig.path)) == live


async def test_an_engine_whose_journal_must_be_opened_anew_opens_it(
    rig: RollingRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = rig.journal.first_seq
    connect = SqliteJournal._connect
    failed: list[int] = []

    def failing(self: SqliteJournal) -> object:
        if not failed:
            failed.append(self.first_seq)
            raise OSError(24, "Too many open files", str(self._path))
        return connect(self)

    monkeypatch.setattr(SqliteJournal, "_connect", failing)
    acknowledged = set()
    for _ in range(40):
        try:
            acknowledged.add(await rig.page(rate_rps=0.001))
        except UnavailableError:
            rig.clock.boot_us += 3_000_000
            await until(lambda: rig.engine.healthy)
            await rig.lives(0)
        rig.clock.boot_us += 10_000
    assert failed
    assert rig.journal.first_seq >= failed[0] > first
    assert acknowledged <= set(rig.engine.state.sessions)
    live = encode_state(rig.engine.state)
    await rig.stop()
    assert encode_state(await recovered(rig.path)) == live
