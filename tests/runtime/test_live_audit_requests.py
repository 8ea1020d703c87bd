"""Requests of a real session, as gateways report them: what counts against whom, what is kept, and who has room."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.adapters.northbound.conftest import INTENT, Rig

from aipaging.core.audit import Status
from aipaging.core.audit.contract import END_TO_END
from aipaging.core.audit.live import LivePlan
from aipaging.core.foundation.names import SessionId
from aipaging.ports.telemetry import LateRequest, SeenRequest
from aipaging.runtime.audit.contracts import reading
from aipaging.runtime.audit.live import TRACES_OF_TENANT_MAX, WATCHED_PER_TENANT_MAX, LiveAudit

SECOND = 1_000_000
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Kept:
    def __init__(self) -> None:
        self.requests: list[LateRequest] = []

    def keep(self, requests: Sequence[LateRequest]) -> None:
        self.requests += requests


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path)
    await rig.start()
    yield rig
    await rig.stop()


async def paged(rig: Rig, **changes: Any) -> SessionId:
    async with rig.client() as client:
        answer = await client.post("sessions", json={"intent": INTENT | changes})
    assert answer.status_code == 201, answer.text
    return SessionId(answer.json()["sessionId"])


def seen(session: SessionId, **changes: Any) -> SeenRequest:
    """Return a request that was in time: 20 ms, of which 10 at the anchor."""
    usual = SeenRequest(
        session, "", TRACE, 1, Status.OK, 20_000, 19_000, 10_000, parent=PARENT, sent_us=1_000,
        least_total_us=19_000, least_first_us=18_000, least_anchor_us=10_000,
    )  # fmt: skip
    return replace(usual, **changes)


def audit(rig: Rig, requests: Sequence[SeenRequest]) -> tuple[LiveAudit, Kept]:
    live = LiveAudit(rig.engine, LivePlan(), decode=lambda _: requests, new_id=lambda: "1", software="test")
    kept = live.late_requests = Kept()
    live.offer(b"some")
    return live, kept


@pytest.mark.parametrize(
    ("changes", "against", "possible"),
    [
        ({}, set(), set()),
        # Late by the service's own time: the path and the anchor's domain.
        ({"anchor_us": SECOND, "least_anchor_us": SECOND, "total_us": SECOND + 9, "least_total_us": SECOND},
         {END_TO_END, "compute"}, {END_TO_END, "compute"}),
        # A body that trickled in for a second.
        ({"total_us": SECOND, "anchor_us": 10_000, "least_anchor_us": 10_000}, set(), {END_TO_END}),
        ({"total_us": SECOND, "anchor_us": SECOND, "least_anchor_us": 10_000}, set(), {END_TO_END, "compute"}),
        # An answer that was not read for a second.
        ({"total_us": SECOND, "body_us": SECOND}, set(), {END_TO_END, "compute"}),
        # A client that left at once, one that left after a second in vain, and a failure.
        ({"status": Status.UNKNOWN, "anchor_us": -1, "least_anchor_us": -1}, set(), {END_TO_END, "compute"}),
        ({"status": Status.UNKNOWN, "anchor_us": -1, "total_us": SECOND, "least_total_us": SECOND},
         {END_TO_END}, {END_TO_END, "compute"}),
        ({"status": Status.ERROR, "anchor_us": -1, "least_anchor_us": -1}, {END_TO_END}, {END_TO_END, "compute"}),
        # A trace context that many requests share says nothing.
        ({"trace": "f" * 32}, set(), set()),
    ],
)  # fmt: skip
async def test_what_a_client_does_is_held_against_nobody(
    rig: Rig, changes: dict[str, Any], against: set[str], possible: set[str]
) -> None:
    session = await paged(rig)
    read = reading(rig.engine.state, seen(session, **changes))
    assert read is not None
    transport = {one.watched.domain for one in read.said if one.watched.envelope} - {read.row.domain}
    named = {END_TO_END: END_TO_END, read.row.domain: "compute"}
    certain = {named.get(one.watched.domain, "transport") for one in read.said if one.certain}
    assert certain == against
    assert {named[one.watched.domain] for one in read.said if one.possible and one.watched.domain in named} == possible
    assert transport, "the path has a transport domain, which cannot be late for certain"
    assert (read.late is not None) == bool(against)


async def test_delays_and_late_requests_are_kept(rig: Rig) -> None:
    session = await paged(rig)
    late = {"anchor_us": SECOND, "least_anchor_us": SECOND, "total_us": SECOND + 9_000, "least_total_us": SECOND}
    requests = [seen(session), seen(session, **late), seen(session, status=Status.TIMEOUT, anchor_us=-1)]
    live, kept = audit(rig, requests)
    await live.tick()
    found = {(series.domain, series.error): histogram for series, histogram in live.delays.histograms()}
    domain = kept.requests[0].domain
    assert {key: (one.count, one.total) for key, one in found.items()} == {
        (END_TO_END, ""): (2, 19_000 + SECOND),
        (END_TO_END, "timeout"): (1, 19_000),
        (domain, ""): (2, 10_000 + SECOND),
        ("remainder", ""): (2, 9_000 + 0),
    }
    assert [one.exceeded for one in kept.requests] == [(domain, END_TO_END), (END_TO_END,)]
    assert (kept.requests[0].task, kept.requests[0].seen.trace) == ("embeddings", TRACE)
    assert (live.counts.traces, live.counts.traces_left_out) == (2, 0)


async def test_a_flood_of_late_requests_keeps_a_few_traces(rig: Rig) -> None:
    session = await paged(rig)
    live, kept = audit(rig, [seen(session, status=Status.ERROR)] * 50)
    await live.tick()
    assert len(kept.requests) == TRACES_OF_TENANT_MAX == live.counts.traces
    assert live.counts.traces_left_out == 50 - TRACES_OF_TENANT_MAX
    live.offer(b"more")
    await live.tick()
    assert len(kept.requests) == 2 * TRACES_OF_TENANT_MAX


async def test_a_tenant_cannot_use_up_what_watches_over_others(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert WATCHED_PER_TENANT_MAX <= 256
    monkeypatch.setattr("aipaging.runtime.audit.live.WATCHED_PER_TENANT_MAX", 4)
    sessions = [await paged(rig, delayMs=250 + number, ratePerSecond=1, burst=1) for number in range(4)]
    live, _ = audit(rig, [seen(session) for session in sessions])
    await live.tick()
    assert live.counts.unwatched > 0
    assert sum(watch.audit.total.requests for watch in live._watches.values()) + live.counts.unwatched == sum(
        len(found.said) for session in sessions if (found := reading(rig.engine.state, seen(session))) is not None
    )
