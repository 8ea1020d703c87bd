"""Settings that change within a term: what was granted keeps its own times, and nothing is sold twice."""

import contextlib
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis import settings as profile
from msgspec import structs

from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.evidence.verify import Verifier
from aipaging.core.foundation.errors import RefusedError
from aipaging.core.foundation.names import AnchorId
from aipaging.core.foundation.time import MS, stretched_us
from aipaging.core.paging import commands as c
from aipaging.core.paging.records import event_of
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.core.paging.settings import ChangeSettings, Settings
from aipaging.core.paging.state import State
from aipaging.core.paging.step import evolve
from aipaging.testing.world import World, intent

TERM = Settings(lease_ms_max=20_000)


def with_lease(settings: Settings, lease_ms: int) -> Settings:
    return replace(settings, lease=replace(settings.lease, lease_ms=lease_ms))


def verdict_of(world: World) -> str:
    verifier = Verifier()
    for entry in world.entries:
        verifier.feed(entry.record, stored_hash=entry.leaf_hash, leaves=entry.leaves)
    bad = verifier.verdict().first_bad
    return "" if bad is None else bad.what


def replayed(world: World) -> Settings:
    rebuilt = State()
    for entry in world.entries:
        event = event_of(entry, rebuilt.sessions.__contains__)
        if event is not None:
            evolve(rebuilt, event)
    return rebuilt.settings


def test_limits_and_the_length_of_leases_change_and_the_rest_waits_for_a_term() -> None:
    world = World.started(TERM)
    lease = replace(TERM.lease, lease_ms=5_000, drift_ppm=1, grace_ms=1, drain_ms_max=1)
    wanted = Settings(
        lease=lease, lease_ms_max=5_000, anchor_lost_ms=9_000, prepare_ms_max=70, retry_ms=80, kept_ms=90,
        duration_s_max=100, sessions_max=1, relocations_per_s=3,
    )  # fmt: skip
    world.do(ChangeSettings(settings=wanted))
    held = world.state.settings
    assert held == replace(wanted, lease=replace(TERM.lease, lease_ms=5_000), lease_ms_max=20_000)
    assert world.do(ChangeSettings(settings=wanted)).events == [], "the same again leaves no record"
    assert replayed(world) == held
    world.paged()
    with pytest.raises(Exception, match="sessions are live"):
        world.page()
    world.do(ChangeSettings(settings=with_lease(wanted, 20_001)))
    assert world.state.settings.lease.lease_ms == 5_000, "longer than capacity would be held after a recovery"
    short = World.started(replace(TERM, lease=replace(TERM.lease, lease_ms=4_000, drain_ms_max=6_000)))
    for lease_ms, taken_ms in ((5_000, 5_000), (6_001, 5_000), (6_000, 6_000)):
        short.do(ChangeSettings(settings=with_lease(short.state.settings, lease_ms)))
        assert short.state.settings.lease.lease_ms == taken_ms, "a source drains no shorter than a gateway may use it"
    world.do(c.StartTerm(settings=wanted, software="test"))
    assert world.state.settings == replace(wanted, lease_ms_max=TERM.lease.drain_ms_max), "what was promised counts"
    assert verdict_of(world) == ""


@pytest.mark.parametrize("lease_ms", [1_000, 20_000])
def test_a_lease_keeps_the_length_that_it_was_granted_for_and_is_renewed_by_the_new_one(lease_ms: int) -> None:
    world = World.started(TERM)
    session = world.paged(structs.replace(intent(), duration_s=600))
    granted = session.lease
    assert granted is not None
    world.do(ChangeSettings(settings=with_lease(TERM, lease_ms)))
    assert world.state.sessions[session.session].lease == granted
    world.advance((granted.deadline_us - world.now.boot_us) / MS - 1)
    renewed = world.state.sessions[session.session].lease
    assert renewed is not None
    assert renewed.renewal > 0, "in good time"
    assert renewed.deadline_us - renewed.granted_us == lease_ms * MS
    world.advance(3 * lease_ms)
    later = world.state.sessions[session.session]
    assert later.available
    assert later.lease is not None
    assert later.lease.epoch == granted.epoch, "nothing was granted anew: every renewal came in time"
    assert verdict_of(world) == ""


def test_capacity_is_held_for_the_lease_that_was_granted_whatever_holds_now() -> None:
    world = World.started(TERM)
    session = world.paged(intent(rate_rps=50.0, burst=1))
    lease = session.lease
    assert lease is not None
    world.do(ChangeSettings(settings=with_lease(TERM, 100)))
    world.do(c.End(session=session.session, status_info=StatusInfo.DELETE_REQUESTED))
    held_us = lease.granted_us + stretched_us(lease.deadline_us - lease.granted_us, 500) + 500 * MS
    world.advance((held_us - world.now.boot_us) / MS - 1)
    assert world.state.ledger.anchor_mrps(lease.anchor) == 50_000
    world.advance(2)
    assert world.state.ledger.anchor_mrps(lease.anchor) == 0


def test_a_shorter_time_to_lose_an_anchor_spares_those_that_cannot_know_of_it_yet() -> None:
    world = World.started(replace(TERM, anchor_lost_ms=30_000))
    world.advance(9_000, beating=())
    world.do(ChangeSettings(settings=replace(TERM, anchor_lost_ms=3_000)))
    told_us = world.now.boot_us
    world.advance(29_000, beating=())
    assert world.state.catalogue.anchors[AnchorId("a")].state is AnchorState.READY
    world.beat("a")
    world.advance(2_500, beating=())
    states = {name: anchor.state for name, anchor in world.state.catalogue.anchors.items()}
    assert states == {"a": AnchorState.READY, "b": AnchorState.LOST, "t": AnchorState.LOST}
    assert world.now.boot_us - told_us < 33_000 * MS
    world.advance(1_000, beating=())
    assert world.state.catalogue.anchors[AnchorId("a")].state is AnchorState.LOST, "it has heard of the shorter time"


STEPS = st.one_of(
    st.tuples(st.just("change"), st.integers(1_000, 25_000)),
    st.tuples(st.just("page"), st.integers(1, 30)),
    st.tuples(st.just("end"), st.integers(0, 5)),
    st.tuples(st.just("drain"), st.integers(0, 3)),
    st.tuples(st.just("advance"), st.integers(1, 12_000)),
    st.tuples(st.just("sleep"), st.integers(1, 30_000)),
    st.tuples(st.just("term"), st.integers(1_000, 25_000)),
)


@given(st.lists(STEPS, min_size=3, max_size=16))
@profile(max_examples=40, deadline=None)
def test_whatever_changes_when_the_auditor_finds_nothing(steps: list[tuple[str, int]]) -> None:
    world = World.started(TERM)
    for what, number in steps:
        live = [session for session in world.state.sessions.values() if session.available]
        match what:
            case "change":
                limits = replace(TERM, retry_ms=50 + number, prepare_ms_max=50 + number, kept_ms=number)
                world.do(ChangeSettings(settings=with_lease(limits, number)))
            case "page":
                world.page(intent(rate_rps=float(number), burst=1))
            case "end" if live:
                chosen = live[number % len(live)]
                world.do(c.End(session=chosen.session, status_info=StatusInfo.DELETE_REQUESTED))
            case "drain":
                anchor = AnchorState.DRAINING if number % 2 else AnchorState.READY
                with contextlib.suppress(RefusedError):  # it is so already
                    world.do(c.SetAnchorState(anchor=AnchorId("ab"[number % 4 // 2]), state=anchor, cause="OPERATOR"))
            case "term":
                world.do(c.StartTerm(settings=with_lease(TERM, min(number, 20_000)), software="test"))
            case "sleep":
                world.sleep(number)
            case _:
                world.advance(number)
        assert world.state.settings.lease.lease_ms <= world.state.settings.lease_ms_max
    world.advance(30_000)
    assert verdict_of(world) == ""
    assert replayed(world) == world.state.settings
