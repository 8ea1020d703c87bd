"""What tenants used, summed from records; checked against sums that know the sessions."""

import csv
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import hypothesis.strategies as st
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import settings as profile

from aipaging.apps.evidence.usage import _csv, _row, usage  # pyright: ignore[reportPrivateUsage]
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
    result = CliRunner().invoke(usage, [str(tmp_path / "none.db"), "--from", "yesterday"])
    assert result.exit_code != 0


@pytest.mark.parametrize("tenant", ["tenant-1"])
def test_a_session_that_goes_on_counts_up_to_the_last_record(tenant: str) -> None:
    world = World.started()
    world.paged()
    world.advance(5_000)
    world.page(intent(delay_ms=1.0))
    assert book_of(world).closed()[tenant].lease_us == pytest.approx(5_000_000, abs=1_000)


class Told:
    """A controller that tells usage page by page, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: list[tuple[int, object]] = []
        told = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                told.asked.append(f"{self.path} {self.headers['authorization']}")
                status, document = told.answers.pop(0)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(document).encode())

            def log_message(self, *_arguments: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/ai-paging/v0.1/usage"
        Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def told() -> Iterator[Told]:
    made = Told()
    yield made
    made.server.shutdown()
    made.server.server_close()


def page_of(tenant: str, page: int, pages: int) -> dict[str, object]:
    used = {"tenant": tenant, "sessions": 1, "leaseSeconds": 1.5, "reservedRequests": 3.0, "requests": 4, "tokens": 5}
    return {
        "usage": [{**used, "charged": 6, "refunded": 7}],
        "accountedTo": "2026-11-02T00:00:00.5Z",
        "pagination": {"page": page, "perPage": 1000, "totalCount": pages, "totalPages": pages},
    }


def test_a_controller_is_asked_for_its_sums(told: Told, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    told.answers = [(200, page_of("acme", 1, 2)), (200, page_of("other", 2, 2))]
    options = ["--from", "2026-11-01", "--to", "2026-12-01", "--tenant", "a", "--token-file", str(token), "--json"]
    done = CliRunner().invoke(usage, [told.url, *options])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert [list(row.values()) for row in document["tenants"]] == [
        ["acme", 1, 1.5, 3.0, 4, 5, 6, 7],
        ["other", 1, 1.5, 3.0, 4, 5, 6, 7],
    ]
    assert document["to_us"] == 1_793_577_600_500_000
    assert told.asked[1].endswith("&page=2 Bearer secret")
    assert "periodStart=2026-11-01T00%3A00%3A00Z&periodEnd=2026-12-01T00%3A00%3A00Z" in told.asked[0]


@pytest.mark.parametrize(
    ("status", "document", "says"),
    [
        (400, {"message": "periodStart is wrong"}, "periodStart is wrong"),
        (401, {}, "refused with 401"),
        (503, {}, "answered 503"),
        (200, {"usage": [{}]}, "tells no usage"),
        (404, {}, "no document"),
    ],
)
def test_what_a_controller_does_not_answer_is_said(told: Told, status: int, document: object, says: str) -> None:
    told.answers = [(status, document)]
    done = CliRunner().invoke(usage, [told.url])
    assert done.exit_code != 0
    assert says in str(done.exception)
