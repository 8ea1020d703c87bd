"""Events: one per record, the same from memory, from the journal and after a restart; nothing lost, nothing twice."""

import asyncio
from collections.abc import Callable, Iterator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from aipaging.core.evidence.record import SealedEntry
from aipaging.core.foundation.errors import InvalidInputError, UnavailableError
from aipaging.core.foundation.names import SessionId
from aipaging.core.paging import commands as c
from aipaging.core.paging.relocation_machine import RelocationCause
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.ports.journal import StoredRecord
from aipaging.runtime.events import hub as hub_module
from aipaging.runtime.events.event import GAP, SILENT, EventId, event_id, event_of
from aipaging.runtime.events.hub import EventHub, Owner, Told, owner_in
from aipaging.testing.world import World


class Log:
    """The public part of a journal in memory."""

    def __init__(self) -> None:
        self.entries: list[SealedEntry] = []
        self.reads = 0
        self.first = 0

    def records(self, first_seq: int, end_seq: int | None = None) -> Iterator[StoredRecord]:
        self.reads += 1
        if first_seq < self.first:
            raise UnavailableError("moved away", code="JOURNAL_FILE_MISSING")
        for entry in self.entries[first_seq:end_seq]:
            yield StoredRecord(record=entry.record, leaf_hash=entry.leaf_hash, leaves=())

    def session_records(self, session: SessionId) -> list[tuple[int, bytes]]:
        if any(entry.session == session for entry in self.entries[: self.first]):
            raise UnavailableError("moved away", code="JOURNAL_FILE_MISSING")
        return [(entry.seq, entry.record) for entry in self.entries if entry.session == session]

    def first_seq(self) -> int:
        return self.first

    def hashes(self, level: int, first: int, count: int) -> list[bytes]:
        raise NotImplementedError

    def leaves(self, root: bytes) -> tuple[bytes, ...] | None:
        raise NotImplementedError

    def checkpoints(self, *, newest: bool) -> list[str]:
        raise NotImplementedError

    def verifier_keys(self) -> tuple[str, ...]:
        raise NotImplementedError


def history() -> list[SealedEntry]:
    """Return a life: two sessions, a relocation, an end, a refusal, time."""
    world = World.started()
    one, two = world.paged(), world.paged()
    world.do(c.Relocate(session=one.session, cause=RelocationCause.OPERATOR))
    world.settle()
    world.advance(3_000)
    world.page(structs.replace(two.intent, delay_ms=1.0), client="client-2")
    world.do(c.End(session=two.session, status_info=StatusInfo.DELETE_REQUESTED))
    world.advance(70_000)
    return world.entries


HISTORY = history()
EXPECTED = [event for entry in HISTORY if (event := event_of(entry.seq, entry.record, entry.leaf_hash)) is not None]


def hub_of(log: Log, owner_of: Callable[[SessionId], Owner | None] = lambda _: None) -> EventHub:
    return EventHub(lambda: log, owner_of=owner_of, wall_us=lambda: 1)


async def told_until(hub: EventHub, after: EventId | None, seq: int) -> list[Told]:
    found: list[Told] = []
    stream = hub.stream(after)
    async for item in stream:
        if isinstance(item, EventId):
            if item.seq >= seq:
                break
        else:
            found.append(item)
    await stream.aclose()
    return found


def test_a_life_is_told_in_its_order() -> None:
    names = [event.name for event in EXPECTED]
    relocated = [name for name in names if name.startswith("relocation-")]
    assert relocated == [f"relocation-{phase}" for phase in ("detected", "decided", "target-prepared", "switched")] + [
        "relocation-source-released"
    ]
    assert names.count("session-available") == 2
    assert names.index("session-available") < names.index("relocation-detected") < names.index("session-ended")
    assert "session-refused" in names
    types = {msgspec.json.decode(entry.record)["type"] for entry in HISTORY}
    assert types & SILENT
    assert not {name.upper().replace("-", "_") for name in names} & SILENT


def test_events_are_cloud_events_without_commitments() -> None:
    ended = next(event for event in EXPECTED if event.name == "session-ended")
    document = msgspec.json.decode(ended.document("https://control.example/ai-paging/v0.1"))
    assert document["specversion"] == "1.0"
    assert document["type"] == "org.aipaging.ai-paging.v0.session-ended"
    assert document["subject"] == ended.session
    assert document["id"] == str(ended.id)
    assert document["time"].endswith("Z")
    assert document["data"] == {"session": ended.session, "statusInfo": "DELETE_REQUESTED"}
    assert all("ommitment" not in key for event in EXPECTED for key in event.fields)


@settings(max_examples=60, deadline=None)
@given(
    cuts=st.lists(st.integers(1, len(HISTORY)), max_size=6),
    kept=st.integers(1, 64),
    ring=st.booleans(),
)
def test_resuming_across_restarts_loses_and_repeats_nothing(cuts: list[int], kept: int, ring: bool) -> None:
    """Whenever the reader leaves and the controller restarts, it hears each event once, in order."""
    stops = sorted({*cuts, len(HISTORY)})

    async def heard() -> list[Told]:
        log, found, after = Log(), [], EventId(seq=0)
        found_first = event_of(0, HISTORY[0].record, HISTORY[0].leaf_hash)
        assert found_first is not None
        for stop in stops:
            hub = hub_of(log)
            hub.recovered(len(log.entries))
            for first in range(len(log.entries), stop, kept):
                batch = HISTORY[first : min(first + kept, stop)]
                log.entries += batch
                if ring:
                    hub.appended(batch, 0.0)
                else:
                    hub.recovered(len(log.entries))
            fresh = await told_until(hub, after, stop - 1) if after.seq < stop - 1 else []
            found += fresh
            after = fresh[-1].event.id if fresh else after
            hub.close()
        return found

    assert [told.event.id for told in asyncio.run(heard())] == [event.id for event in EXPECTED if event.id.seq > 0]


async def test_the_ring_and_the_journal_tell_the_same_with_the_same_owners() -> None:
    log, world = Log(), World.started()
    session = world.paged().session
    hub = hub_of(log, lambda wanted: owner_in(world.state, wanted))
    log.entries = list(world.entries)
    hub.appended(world.entries, 0.0)
    live = await told_until(hub, EventId(seq=0), len(log.entries) - 1)
    assert log.reads == 0
    replayed = hub_of(log)
    replayed.recovered(len(log.entries))
    stored = await told_until(replayed, EventId(seq=0), len(log.entries) - 1)
    assert log.reads > 0
    assert live == stored
    assert {told.owner for told in live if told.event.session == session} == {
        Owner(client="client-1", tenant="tenant-1")
    }


async def test_a_session_that_the_engine_forgot_still_has_its_owner() -> None:
    log = Log()
    log.entries = list(HISTORY)
    hub = hub_of(log)
    hub.appended(HISTORY, 0.0)
    told = await told_until(hub, EventId(seq=len(HISTORY) // 2), len(HISTORY) - 1)
    assert all(one.owner is not None and one.owner.client for one in told if one.event.session)


async def test_what_is_too_old_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "REPLAY_RECORDS_MAX", 10)
    log = Log()
    log.entries = list(HISTORY)
    hub = hub_of(log)
    hub.recovered(len(HISTORY))
    told = await told_until(hub, EventId(seq=3), len(HISTORY) - 1)
    gap = told[0].event
    assert (gap.name, dict(gap.fields)) == (
        GAP, {"first_seq": 4, "last_seq": len(HISTORY) - 11, "reason": "TOO_OLD"},
    )  # fmt: skip
    assert [one.event.id for one in told[1:]] == [e.id for e in EXPECTED if e.id.seq > gap.id.seq]


@pytest.mark.parametrize("behind", [1, 5])
async def test_what_was_moved_away_is_said_to_be_too_old(behind: int) -> None:
    log = Log()
    log.entries, log.first = list(HISTORY), len(HISTORY) // 2
    hub = EventHub(lambda: log, owner_of=lambda _: None, wall_us=lambda: 7)
    hub.recovered(len(HISTORY))
    after = EventId(seq=log.first - behind, mark="00000000")
    told = await told_until(hub, after, len(HISTORY) - 1)
    if behind > 1:
        gap = told.pop(0).event
        assert (gap.name, dict(gap.fields)) == (
            GAP, {"first_seq": after.seq + 1, "last_seq": log.first - 1, "reason": "TOO_OLD"},
        )  # fmt: skip
    assert [one.event.id for one in told] == [e.id for e in EXPECTED if e.id.seq >= log.first]
    begun = {entry.session for entry in HISTORY[: log.first]}
    for one in told:  # whose it was stands where it began: nobody but operators is told
        assert one.owner is None or one.owner.client or one.event.session in begun


@pytest.mark.parametrize("after", [EventId(seq=5, mark="00000000"), EventId(seq=10_000)])
async def test_another_history_is_said(after: EventId) -> None:
    log = Log()
    log.entries = list(HISTORY)
    hub = hub_of(log)
    hub.recovered(len(HISTORY))
    stream = hub.stream(after)
    told = await anext(stream)
    assert isinstance(told, Told)
    assert (told.event.name, told.event.fields["reason"]) == (GAP, "HISTORY_CHANGED")
    assert told.event.id.seq == len(HISTORY) - 1
    await stream.aclose()


async def test_only_what_is_durable_is_told_and_closing_ends_readers() -> None:
    log = Log()
    hub = hub_of(log)
    reader = asyncio.ensure_future(told_until(hub, None, 10_000))
    await asyncio.sleep(0)
    assert not reader.done()
    log.entries = HISTORY[:40]
    hub.appended(HISTORY[:40], 0.0)
    for _ in range(5):
        await asyncio.sleep(0)
    hub.close()
    assert [told.event.id for told in await reader] == [event.id for event in EXPECTED if event.id.seq < 40]


async def test_what_nobody_listens_to_is_left_out_and_the_place_goes_on() -> None:
    sessions = [event.session for event in EXPECTED if event.session]
    only = sessions[0]
    assert set(sessions) != {only}
    hub = hub_of(Log(), lambda _: Owner(client="client-1", tenant="tenant"))
    stream = hub.stream(None, lambda session: session == only)
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    hub.appended(HISTORY, 0.0)
    found: list[Told] = []
    item = await first
    while not (isinstance(item, EventId) and item.seq == len(HISTORY) - 1):
        if isinstance(item, Told):
            found.append(item)
        item = await anext(stream)
    await stream.aclose()
    assert [told.event.id for told in found] == [event.id for event in EXPECTED if event.session == only]


@pytest.mark.parametrize("text", ["", "-1", "1-", "1-xyz", "1-0011223", "9" * 30, "1 2"])
def test_an_id_is_checked(text: str) -> None:
    with pytest.raises(InvalidInputError):
        event_id(text)


def test_an_id_goes_through_text() -> None:
    for event in EXPECTED:
        assert event_id(str(event.id)) == event.id
    assert event_id("12") == EventId(seq=12)
