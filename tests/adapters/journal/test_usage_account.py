"""The running sums beside the journal against the sums that the whole log gives, over histories and accidents."""

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis import settings as profile

from aipaging.adapters.journal.sqlite import usage as account_module
from aipaging.adapters.journal.sqlite.reader import SqliteEvidenceReader
from aipaging.adapters.journal.sqlite.usage import QUARTER_US, SqliteUsageAccount
from aipaging.adapters.journal.sqlite.writer import SqliteJournal
from aipaging.core.evidence.record import SealedEntry
from aipaging.core.evidence.usage import Usage, UsageBook
from aipaging.core.foundation.errors import UnavailableError
from aipaging.core.foundation.names import AnchorId
from aipaging.core.foundation.time import MS, WallUs
from aipaging.core.paging import commands as c
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.core.paging.settings import Settings
from aipaging.testing.world import World, intent

FAR = WallUs(2**53 - 1)
HOUR_MS = 3_600_000


class Stored:
    """A world's evidence in a journal file, and the sums beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = World.started(Settings(duration_s_max=30 * 86_400))
        self.journal = SqliteJournal(folder / "journal.db", bytes(32), ballast_bytes=0)
        self.journal.open()
        self.stored = 0
        self.account = self.opened()

    def opened(self) -> SqliteUsageAccount:
        return SqliteUsageAccount(self.folder / "usage.db", lambda: SqliteEvidenceReader(self.folder / "journal.db"))

    def store(self) -> None:
        new: list[SealedEntry] = self.world.entries[self.stored :]
        if new:
            self.journal.append(new, None)
        self.stored += len(new)

    def caught_up(self) -> None:
        self.store()
        while self.account.take():
            pass

    def sums(self, from_us: int = 0, to_us: int = FAR, tenant: str | None = None) -> dict[str, Usage]:
        self.caught_up()
        found = self.account.between(WallUs(from_us), WallUs(to_us), tenant)
        assert found.accounted_us == self.book(0, FAR).last_us
        return dict(found.tenants)

    def book(self, from_us: int, to_us: int) -> UsageBook:
        book = UsageBook(from_us=from_us, to_us=to_us)
        for entry in self.world.entries:
            book.feed(json.loads(entry.record), [json.loads(leaf) for leaf in entry.leaves])
        return book

    def close(self) -> None:
        self.account.close()
        self.journal.close()


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Stored]:
    made = Stored(tmp_path)
    yield made
    made.close()


def paged(world: World, rate: int, duration_s: int = 86_400) -> None:
    world.page(intent(rate_rps=float(rate), burst=1, duration_s=duration_s))
    world.settle()


STEPS = st.one_of(
    st.tuples(st.just("page"), st.integers(1, 30)),
    st.tuples(st.just("end"), st.integers(0, 5)),
    st.tuples(st.just("meter"), st.integers(1, 500)),
    st.tuples(st.just("wait"), st.integers(1, 3 * HOUR_MS)),
    st.tuples(st.just("clock"), st.integers(-2 * HOUR_MS, 2 * HOUR_MS)),
    st.tuples(st.just("take"), st.just(0)),
    st.tuples(st.just("restart"), st.just(0)),
)


@given(st.lists(STEPS, min_size=4, max_size=20), st.integers(0, 12), st.integers(1, 12))
@profile(max_examples=40, deadline=None)
def test_sums_of_quarters_are_those_of_the_log(steps: list[tuple[str, int]], first: int, quarters: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(account_module, "SLICE_RECORDS", 3)
        stored = Stored(Path(folder))
        world = stored.world
        start_us = world.now.wall_us
        batch = 0
        for what, number in steps:
            live = [session for session in world.state.sessions.values() if session.available]
            match what:
                case "page":
                    paged(world, number)
                case "end" if live:
                    world.do(c.End(session=live[number % len(live)].session, status_info=StatusInfo.DELETE_REQUESTED))
                case "meter" if live:
                    batch += 1
                    used = ((live[0].session, number, 3 * number),)
                    world.do(c.MeterSessions(anchor=AnchorId("a"), boot="b", batch=batch, used=used))
                case "wait":
                    world.sleep(number)
                    world.do(c.StartTerm(settings=world.state.settings, software="test"))
                    world.beat("a", "b", "t")
                case "clock":
                    moved_us = max(start_us, world.now.wall_us + number * MS)
                    world.now = type(world.now)(boot_us=world.now.boot_us, wall_us=WallUs(moved_us))
                case "take":
                    stored.store()
                    stored.account.take()
                case "restart":
                    stored.account.close()
                    stored.account = stored.opened()
                case _:
                    pass
        from_us = (start_us // QUARTER_US + first) * QUARTER_US
        to_us = from_us + quarters * QUARTER_US
        for begin_us, end_us in ((0, FAR), (from_us, to_us), (0, to_us), (from_us, FAR)):
            assert stored.sums(begin_us, end_us) == stored.book(begin_us, end_us).closed()
        stored.close()


def test_one_tenant_is_what_it_is_among_all(stored: Stored) -> None:
    paged(stored.world, 5)
    stored.world.sleep(HOUR_MS)
    paged(stored.world, 1)
    everybody = stored.sums()
    assert stored.sums(tenant="tenant-1") == everybody != {}
    assert stored.sums(tenant="tenant-2") == {}


def test_what_is_summed_is_not_summed_again_and_a_crash_between_loses_nothing(stored: Stored) -> None:
    paged(stored.world, 5)
    before = stored.sums()
    assert stored.sums() == before
    stored.account.close()
    stored.account = stored.opened()
    assert stored.sums() == before

    class BrokenError(Exception):
        pass

    def broken(_batch: object) -> None:
        raise BrokenError

    paged(stored.world, 7)
    stored.store()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(account_module._Batch, "write", broken)
        with pytest.raises(BrokenError):
            stored.account.take()
    assert stored.sums() == stored.book(0, FAR).closed()


def test_a_year_of_the_heaviest_use_fits(stored: Stored) -> None:
    stored.caught_up()
    with sqlite3.connect(stored.folder / "usage.db") as connection:
        whole, nano = divmod(10**12 * QUARTER_US, account_module.NANO)
        connection.executemany(
            "INSERT INTO quarters VALUES (?, 'acme', 9000000, ?, ?, ?, 1, 1, 1, 1)",
            [(quarter, 100_000 * QUARTER_US, whole, nano) for quarter in range(35_040)],
        )
    connection.close()
    found = stored.sums()["acme"]
    assert found.reserved == 35_040 * 10**12 * QUARTER_US
    assert found.lease_us == 35_040 * 100_000 * QUARTER_US


@pytest.mark.parametrize("damage", ["other history", "not a database", "other version"])
def test_sums_that_do_not_fit_the_journal_are_made_anew(stored: Stored, damage: str) -> None:
    paged(stored.world, 5)
    expected = stored.sums()
    stored.account.close()
    path = stored.folder / "usage.db"
    if damage == "not a database":
        path.write_bytes(b"nothing that a database would say" * 100)
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE quarters SET sessions = 99")
            connection.execute(
                "PRAGMA user_version = 7" if "version" in damage else "UPDATE account SET last_hash = x'00'"
            )
        connection.close()
    stored.account = stored.opened()
    assert stored.sums() == expected


def test_a_journal_that_is_shorter_than_the_sums_begins_them_anew(stored: Stored, tmp_path: Path) -> None:
    paged(stored.world, 5)
    stored.sums()
    stored.account.close()
    (tmp_path / "other").mkdir()
    other = Stored(tmp_path / "other")
    other.store()
    account = SqliteUsageAccount(stored.folder / "usage.db", lambda: SqliteEvidenceReader(other.folder / "journal.db"))
    while account.take():
        pass
    assert account.between(WallUs(0), FAR, None).tenants == {}
    account.close()
    other.close()


def test_a_disk_that_does_not_take_them_is_an_error_and_none_of_the_journal(stored: Stored) -> None:
    paged(stored.world, 5)
    stored.store()
    nowhere = SqliteUsageAccount(
        stored.folder / "missing" / "usage.db", lambda: SqliteEvidenceReader(stored.folder / "journal.db")
    )
    with pytest.raises(UnavailableError, match="the sums of usage"):
        nowhere.take()
    assert stored.sums() != {}
