"""Snapshots: what they hold is what was, nobody waits for one, and one that fails costs only recovery's time."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterable, Iterator

import pytest
from tests.runtime.test_engine import SETTINGS, Rig, Signer, StillClock, until

from aipaging.adapters.journal.memory import MemoryJournal
from aipaging.core.evidence.record import SealedEntry
from aipaging.core.foundation.errors import UnavailableError
from aipaging.core.paging import commands as c
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.core.paging.snapshot import encode_state
from aipaging.core.paging.state import State
from aipaging.ports.journal import WrittenSnapshot
from aipaging.runtime import recording
from aipaging.runtime.engine import Engine


class Gated(MemoryJournal):
    """A journal whose snapshots are written as far as a test lets them be, and that tells where reading begins."""

    def __init__(self, other: MemoryJournal | None = None) -> None:
        super().__init__(other.disk if other is not None else None)
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()
        self.failing = False
        self.first_read = -1

    def write(self, parts: Iterable[bytes]) -> WrittenSnapshot:
        if self.failing:
            raise OSError("no such disk")

        def gated() -> Iterator[bytes]:
            for part in parts:
                self.begun.set()
                assert self.gate.wait(60)
                yield part

        return super().write(gated())

    def read(self, first_seq: int) -> Iterator[SealedEntry]:
        self.first_read = first_seq
        return super().read(first_seq)

    @property
    def snapshot_seq(self) -> int:
        return self.disk.snapshot[0] if self.disk.snapshot is not None else 0


class SnapshotRig(Rig):
    def __init__(self, journal: Gated | None = None) -> None:
        super().__init__(journal or Gated())
        self.engine = Engine(
            journal=self.journal, snapshots=self.journal, signer=Signer(), clock=self.clock, writer=("n", "boot-1")
        )
        self.effects._engine = self.engine
        self.running = True

    async def stop(self) -> None:
        if self.running:
            self.running = False
            await super().stop()


@pytest.fixture(name="rig")
async def _rig(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SnapshotRig]:
    monkeypatch.setattr(recording, "SNAPSHOT_RECORDS", 40)
    rig = SnapshotRig()
    await rig.start()
    yield rig
    rig.journal.gate.set()
    await rig.stop()


async def some_lives(rig: SnapshotRig, count: int) -> None:
    for number in range(count):
        session = await rig.page(rate_rps=0.001 * (1 + number % 3))
        if number % 3 == 1:
            await rig.engine.submit(c.End(session=session, status_info=StatusInfo.DELETE_REQUESTED))
        rig.clock.boot_us += 1_000


async def recovered(journal: Gated) -> tuple[State, int]:
    """Return what another controller finds, and from which record on it read."""
    again = Gated(journal)
    engine = Engine(journal=again, snapshots=again, signer=Signer(), clock=StillClock(), writer=("node-1", "boot-2"))
    await engine.recover()
    await engine.stop()
    return engine.state, again.first_read


async def test_a_state_from_a_snapshot_and_what_followed_is_the_live_state(rig: SnapshotRig) -> None:
    await some_lives(rig, 30)
    await until(lambda: rig.journal.snapshot_seq > 0)
    await some_lives(rig, 3)
    live = encode_state(rig.engine.state)
    await rig.stop()
    state, first = await recovered(rig.journal)
    assert first >= 40
    assert encode_state(state) == live


async def test_pages_go_on_while_a_snapshot_is_written_and_it_is_of_when_it_began(rig: SnapshotRig) -> None:
    rig.journal.gate.clear()
    await some_lives(rig, 30)
    await until(rig.journal.begun.is_set)
    await some_lives(rig, 30)  # none of these waits: the snapshot does not come on
    assert rig.journal.snapshot_seq == 0
    rig.journal.gate.set()
    await until(lambda: rig.journal.snapshot_seq > 0)
    assert rig.journal.snapshot_seq < rig.engine.head.seq - 60
    live = encode_state(rig.engine.state)
    await rig.stop()
    assert encode_state((await recovered(rig.journal))[0]) == live


async def test_a_controller_that_stops_half_way_leaves_the_older_snapshot(rig: SnapshotRig) -> None:
    await some_lives(rig, 20)
    await until(lambda: rig.journal.snapshot_seq > 0)
    older = rig.journal.disk.snapshot
    rig.journal.begun.clear()
    rig.journal.gate.clear()
    await some_lives(rig, 20)
    await until(rig.journal.begun.is_set)
    live = encode_state(rig.engine.state)
    stopping = asyncio.create_task(rig.stop())
    await until(rig.engine._recorder._unwanted.is_set)
    rig.journal.gate.set()
    await stopping
    assert rig.journal.disk.snapshot == older
    assert encode_state((await recovered(rig.journal))[0]) == live


async def test_one_that_fails_is_logged_and_the_next_is_taken_when_it_is_due(rig: SnapshotRig, caplog) -> None:
    caplog.set_level(logging.WARNING)
    rig.journal.failing = True
    await some_lives(rig, 20)
    await until(lambda: "no snapshot was taken" in caplog.text)
    assert rig.engine.healthy
    assert rig.journal.snapshot_seq == 0
    assert rig.engine.snapshots.failed == 1
    assert rig.engine.snapshots.behind_records == rig.engine.head.seq
    rig.journal.failing = False
    await some_lives(rig, 20)
    await until(lambda: rig.journal.snapshot_seq > 0)
    await until(lambda: rig.engine.snapshots.behind_records == rig.engine.head.seq - rig.journal.snapshot_seq)
    assert rig.engine.snapshots.failed == 1


async def test_who_is_restarted_again_and_again_takes_one_too(rig: SnapshotRig) -> None:
    await some_lives(rig, 6)
    first = rig.engine.head.seq
    await rig.stop()
    assert rig.journal.snapshot_seq == 0
    again = SnapshotRig(Gated(rig.journal))
    again.pages = rig.pages
    await again.engine.recover()
    await again.engine.start(again.effects, SETTINGS, software="test")
    await some_lives(again, 6)
    await until(lambda: again.journal.snapshot_seq > 0)
    await again.stop()
    assert max(first, again.engine.head.seq - first) < 40, "one run alone was long enough"
    assert again.engine.snapshots.behind_records == again.engine.head.seq - again.journal.snapshot_seq


async def test_a_start_knows_how_far_the_newest_is_behind(rig: SnapshotRig) -> None:
    await some_lives(rig, 30)
    await until(lambda: rig.journal.snapshot_seq > 0)
    await rig.stop()
    journal = Gated(rig.journal)
    engine = Engine(journal=journal, snapshots=journal, signer=Signer(), clock=StillClock(), writer=("n", "boot-2"))
    await engine.recover()
    await engine.stop()
    assert engine.snapshots.behind_records == engine.head.seq - journal.snapshot_seq < engine.head.seq


async def test_a_snapshot_of_what_never_became_durable_is_given_up(rig: SnapshotRig) -> None:
    rig.journal.gate.clear()
    await some_lives(rig, 30)
    await until(rig.journal.begun.is_set)
    rig.journal.disk.failing = True
    with pytest.raises(UnavailableError):
        await rig.page()
    rig.journal.gate.set()
    await until(lambda: rig.engine._recorder._snapshotting is None)
    assert rig.journal.snapshot_seq == 0
    await rig.stop()
    assert encode_state((await recovered(rig.journal))[0]) == encode_state(rig.engine.state)


async def test_an_altered_snapshot_is_passed_over(rig: SnapshotRig) -> None:
    await some_lives(rig, 30)
    await until(lambda: rig.journal.snapshot_seq > 0)
    live = encode_state(rig.engine.state)
    await rig.stop()
    seq, root, stored = rig.journal.disk.snapshot
    for altered in ([], stored[1:], [b"", *stored], [*stored[:-1], b"x"]):
        rig.journal.disk.snapshot = (seq, root, altered)
        state, first = await recovered(rig.journal)
        assert first == 0
        assert encode_state(state) == live
