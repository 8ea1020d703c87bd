from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from aipaging.core.lease.machine import LeaseTerms
from aipaging.core.paging import commands as c
from aipaging.core.paging.events import CommitExpired, CommitGranted, LeasesRenewed, ReservationReleased, SessionEnded
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.core.paging.settings import Settings
from aipaging.testing.world import World, intent

TERMS = LeaseTerms(lease_ms=2_000, drift_ppm=500, grace_ms=300, drain_ms_max=1_000)
SETTINGS = Settings(lease=TERMS, lease_ms_max=5_000)


def of_kind(world: World, kind: type) -> list[object]:
    return [event for event in world.events if isinstance(event, kind)]


def test_renewals_fall_between_a_third_and_a_half() -> None:
    world = World.started(SETTINGS)
    session = world.paged()
    world.advance(20_000)
    renewed = [event.boot_us for event in world.events if isinstance(event, LeasesRenewed)]
    granted = next(event.boot_us for event in world.events if isinstance(event, CommitGranted))
    gaps = [after - before for before, after in zip([granted, *renewed], renewed, strict=False)]
    assert len(gaps) > 10
    assert all(2_000_000 / 3 <= gap <= 1_000_000 for gap in gaps)
    assert world.state.sessions[session.session].available


def test_those_who_began_together_are_renewed_apart() -> None:
    world = World.started(Settings(lease=replace(TERMS, lease_ms=60_000), lease_ms_max=60_000))
    for _ in range(200):
        world.paged(intent(rate_rps=0.1, duration_s=600))
    world.advance(30_000)
    together = [len(event.renewals) for event in world.events if isinstance(event, LeasesRenewed)]
    assert sum(together) == 200
    assert max(together) <= 8, "5 s hold 500 renewals that are 10 ms apart"


def test_extensions_add_no_renewals() -> None:
    world = World.started(SETTINGS)
    session = world.paged()
    for _ in range(10):
        world.advance(300)
        world.do(c.Extend(session=session.session, additional_s=1))
    world.events.clear()
    world.advance(10_000)
    assert 10 <= len(of_kind(world, LeasesRenewed)) <= 15


def test_the_last_lease_ends_with_the_session_and_the_rate_is_held_longer() -> None:
    world = World.started(SETTINGS)
    session = world.paged(intent(duration_s=7))
    start_us = world.now.boot_us
    world.advance(8_500)
    ended = next(event for event in world.events if isinstance(event, SessionEnded))
    assert ended.status_info is StatusInfo.DURATION_EXPIRED
    assert ended.boot_us - start_us == 7_000_000
    released = next(event for event in world.events if isinstance(event, ReservationReleased))
    assert released.boot_us > ended.boot_us + TERMS.grace_ms * 1000
    assert not world.state.ledger.held
    assert world.state.ledger.anchor_mrps(session.lease.anchor if session.lease else "") == 0  # type: ignore[arg-type]


def test_ending_a_session_cuts_it_but_holds_its_rate_until_the_holder_let_go() -> None:
    world = World.started(SETTINGS)
    session = world.paged(intent(rate_rps=50.0))
    world.do(c.End(session=session.session, status_info=StatusInfo.DELETE_REQUESTED))
    assert [type(effect).__name__ for effect in world.effects] == ["RevokeSteering"]
    reply = world.page(intent(rate_rps=50.0)).reply
    assert isinstance(reply, c.Admitted)
    second = world.state.sessions[reply.session].lease
    assert second is not None
    assert second.anchor == "b", "the rate at a is still held by whoever believes in the old lease"
    world.advance(2_000 * 1.0005 + 300 + 1)
    third = world.paged(intent(rate_rps=50.0)).lease
    assert third is not None
    assert third.anchor == "a"


def test_extend_is_capped_and_renews_a_lease_that_was_cut_short() -> None:
    world = World.started(Settings(lease=TERMS, lease_ms_max=5_000, duration_s_max=12))
    session = world.paged(intent(duration_s=3))
    world.advance(2_500)
    world.do(c.Extend(session=session.session, additional_s=100))
    assert world.state.sessions[session.session].duration_ms == 12_000
    world.advance(9_000)
    assert world.state.sessions[session.session].available
    world.advance(1_000)
    assert world.state.sessions[session.session].status_info is StatusInfo.DURATION_EXPIRED


def test_a_controller_that_slept_grants_anew_under_a_higher_epoch() -> None:
    world = World.started(SETTINGS)
    session = world.paged()
    world.sleep(2_500)
    world.beat("a", "b", "t")
    world.advance(10)
    assert of_kind(world, CommitExpired)
    after = world.state.sessions[session.session]
    assert after.available
    assert after.lease is not None
    assert session.lease is not None
    assert after.lease.epoch > session.lease.epoch


def test_an_ended_session_is_kept_for_pollers_then_forgotten() -> None:
    world = World.started(SETTINGS)
    session = world.paged(intent(duration_s=1))
    world.advance(300_000)
    assert session.session in world.state.sessions
    world.advance(100_000)
    assert session.session not in world.state.sessions


@given(
    lease_ms=st.integers(1, 10**7),
    drift_ppm=st.integers(0, 10_000),
    grace_ms=st.integers(0, 10_000),
    granted_us=st.integers(0, 10**12),
)
def test_a_reservation_outlives_every_holder_within_the_drift(
    lease_ms: int, drift_ppm: int, grace_ms: int, granted_us: int
) -> None:
    terms = LeaseTerms(lease_ms=lease_ms, drift_ppm=drift_ppm, grace_ms=grace_ms, drain_ms_max=0)
    deadline_us = granted_us + lease_ms * 1000
    release_us = terms.release_us(granted_us, deadline_us)  # type: ignore[arg-type]
    slowest_holder_us = granted_us + lease_ms * 1000 * (1_000_000 + drift_ppm) / 1_000_000
    assert release_us >= slowest_holder_us
