"""What tenants used, summed from records; checked against sums that know the sessions."""

import csv
import json
from pathlib import Path

import hypothesis.strategies as st
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import settings as profile

from aipaging.apps.evidence.usage import _csv, _row  # pyright: ignore[reportPrivateUsage]
from aipaging.core.evidence.usage import Usage, UsageBook
from aipaging.core.foundation.names import AnchorId
from aipaging.core.paging import commands as c
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.testing.world import World, intent


def book_of(world: World, from_us: int = 0, to_us: int = 2**53) -> UsageBook:
    book = UsageBook(from_us=from_us, to_us=to_us)
    for entry in world.entries:
        book.feed(json.loads(entry.record), [json.loads(leaf) for leaf in entry.leaves])
    return book


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(100, 9_000)), min_size=1, max_size=6))
@profile(max_examples=30, deadline=None)
def test_periods_add_up_to_the_whole(sessions: list[tuple[int, int]]) -> None:
    world = World.started()
    expected_us = expected = 0
    begin_us = world.now.wall_us
    for rate, ms in sessions:
        session = world.paged(intent(rate_rps=float(rate), burst=1))
        since_us = world.now.wall_us
        world.advance(ms)
        world.do(c.End(session=session.session, status_info=StatusInfo.DELETE_REQUESTED))
        expected_us += world.now.wall_us - since_us
        expected += (world.now.wall_us - since_us) * rate * 1_000
    whole = book_of(world).closed()["tenant-1"]
    assert (whole.sessions, whole.lease_us, whole.reserved) == (len(sessions), expected_us, expected)
    middle_us = (begin_us + world.now.wall_us) // 2
    parts = [book_of(world, 0, middle_us).closed(), book_of(world, middle_us).closed()]
    summed = [sum(part["tenant-1"].lease_us for part in parts if "tenant-1" in part)]
    assert summed == [expected_us]


def test_counts_of_sidecars_are_the_tenants() -> None:
    world = World.started()
    session = world.paged()
    used = ((session.session, 3, 120), (session.session, 2, 30))
    world.do(c.MeterSessions(anchor=AnchorId("a"), boot="first", batch=1, used=used))
    world.do(c.MeterSessions(anchor=AnchorId("a"), boot="first", batch=2, used=((session.session, 0, 0),)))
    found = book_of(world).closed()["tenant-1"]
    assert (found.requests, found.tokens) == (5, 150)


def test_a_row_as_csv() -> None:
    text = _csv([_row("acme", Usage(sessions=2, lease_us=1_500_000, reserved=3_000_000_000))])
    row = next(csv.DictReader(text.splitlines()))
    assert (row["tenant"], row["lease_seconds"], row["reserved_requests"]) == ("acme", "1.5", "3.0")


def test_the_command_reads_a_log_and_names_wrong_instants(tmp_path: Path) -> None:
    from aipaging.apps.evidence.usage import usage

    result = CliRunner().invoke(usage, [str(tmp_path / "none.db"), "--from", "yesterday"])
    assert result.exit_code != 0


@pytest.mark.parametrize("tenant", ["tenant-1"])
def test_a_session_that_goes_on_counts_up_to_the_last_record(tenant: str) -> None:
    world = World.started()
    world.paged()
    world.advance(5_000)
    world.page(intent(delay_ms=1.0))
    assert book_of(world).closed()[tenant].lease_us == pytest.approx(5_000_000, abs=1_000)
