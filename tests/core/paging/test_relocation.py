from dataclasses import replace

import pytest

from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.foundation.errors import RefusedError
from aipaging.core.foundation.names import AnchorId
from aipaging.core.lease.machine import LeasePhase, LeaseTerms
from aipaging.core.paging import commands as c
from aipaging.core.paging import effects as x
from aipaging.core.paging.events import RelocationAdvanced
from aipaging.core.paging.relocation_machine import RelocationCause, RelocationPhase
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.core.paging.settings import Settings
from aipaging.testing.world import ACCESS_TWO, World, accept, envelope, intent

SETTINGS = Settings(lease=LeaseTerms(lease_ms=2_000, drift_ppm=500, grace_ms=300, drain_ms_max=1_000))


def phases(world: World) -> list[RelocationPhase]:
    return [event.phase for event in world.events if isinstance(event, RelocationAdvanced)]


def serving(world: World, session: str) -> str:
    lease = world.state.sessions[session].lease  # type: ignore[index]
    assert lease is not None
    return lease.anchor


def move(world: World, session: str, *, target: str | None = None) -> None:
    world.do(
        c.Relocate(
            session=session,  # type: ignore[arg-type]
            cause=RelocationCause.OPERATOR,
            target=AnchorId(target) if target else None,
        )
    )


def test_the_source_serves_until_the_switch_then_drains_then_is_released() -> None:
    world = World.started(SETTINGS)
    session = world.paged().session
    move(world, session)
    assert serving(world, session) == "a"
    world.carry_out(world.effects.pop(0))  # the target is ready
    assert serving(world, session) == "a"
    world.carry_out(world.effects.pop(0))  # the gateways switched
    assert serving(world, session) == "b"
    source = world.state.sessions[session].source
    assert source is not None
    assert source.phase is LeasePhase.DRAINING
    world.advance(2_100)
    assert world.state.sessions[session].source is None
    assert phases(world) == [
        RelocationPhase.DETECTED,
        RelocationPhase.DECIDED,
        RelocationPhase.TARGET_PREPARED,
        RelocationPhase.SWITCHED,
        RelocationPhase.SOURCE_RELEASED,
    ]
    world.advance(3_000)
    assert world.state.ledger.anchor_mrps(AnchorId("a")) == 0


def test_a_target_that_is_not_ready_leaves_the_source_as_it_was() -> None:
    world = World.started(SETTINGS)
    session = world.paged().session
    before = world.state.sessions[session].lease
    move(world, session)
    world.effects.clear()
    world.do(c.RelocationBroken(session=session, number=1, message="refused"))
    after = world.state.sessions[session]
    assert after.lease == before
    assert after.target is None
    assert phases(world)[-1] is RelocationPhase.FAILED
    assert not [effect for effect in world.effects if isinstance(effect, x.RevokeSteering)]


def test_a_switch_that_failed_fences_the_target_by_a_higher_epoch_of_the_source() -> None:
    world = World.started(SETTINGS)
    session = world.paged().session
    move(world, session)
    world.carry_out(world.effects.pop(0))
    tried = world.effects.pop(0)
    assert isinstance(tried, x.SwitchSteering)
    world.do(c.RelocationBroken(session=session, number=1, message="a gateway did not answer"))
    after = world.state.sessions[session]
    assert after.lease is not None
    assert after.lease.anchor == "a"
    assert after.lease.epoch > tried.epoch
    assert [type(effect) for effect in world.effects] == [x.InstallSteering]


def test_a_silent_target_fails_the_relocation_in_time() -> None:
    world = World.started(SETTINGS)
    session = world.paged().session
    move(world, session)
    world.effects.clear()
    world.advance(SETTINGS.prepare_ms_max + 10, settle=False)
    assert phases(world)[-1] is RelocationPhase.FAILED
    assert serving(world, session) == "a"
    assert world.state.sessions[session].available


def test_a_late_answer_of_a_failed_relocation_is_nothing() -> None:
    world = World.started(SETTINGS)
    session = world.paged().session
    move(world, session)
    world.effects.clear()
    world.do(c.RelocationBroken(session=session, number=1, message="x"))
    before = len(world.entries)
    world.do(c.TargetPrepared(session=session, number=1))
    world.do(c.SwitchConfirmed(session=session, number=1))
    assert len(world.entries) == before


def test_a_lost_anchor_moves_its_sessions_and_never_beyond_capacity() -> None:
    world = World.started(SETTINGS)
    sessions = [world.paged(intent(rate_rps=20.0, regions=("eu",))).session for _ in range(2)]
    anywhere = [world.paged(intent(rate_rps=20.0)).session for _ in range(2)]
    assert [serving(world, one) for one in anywhere] == ["b", "b"]
    world.advance(SETTINGS.anchor_lost_ms + 1_500, beating=("a", "t"))
    assert world.state.catalogue.anchors[AnchorId("b")].state is AnchorState.LOST
    assert world.state.ledger.anchor_mrps(AnchorId("a")) <= 50_000
    assert [serving(world, one) for one in sessions] == ["a", "a"]


def test_a_lost_anchor_without_an_alternative_ends_the_session_when_its_lease_does() -> None:
    world = World.started(SETTINGS)
    session = world.paged(intent(regions=("eu",))).session
    world.advance(SETTINGS.anchor_lost_ms + SETTINGS.lease.lease_ms + 1_000, beating=("b",))
    assert world.state.sessions[session].status_info is StatusInfo.ANCHOR_LOST


def test_draining_an_anchor_moves_its_sessions_and_keeps_those_that_cannot_move() -> None:
    world = World.started(SETTINGS)
    anywhere, bound = world.paged().session, world.paged(intent(regions=("eu",))).session
    world.do(c.SetAnchorState(anchor=AnchorId("a"), state=AnchorState.DRAINING, cause="OPERATOR"))
    world.advance(100)
    assert serving(world, anywhere) == "b"
    assert serving(world, bound) == "a"
    assert world.state.sessions[bound].available
    recorded = len(world.entries)
    world.advance(3_000)
    detected = [entry for entry in world.entries[recorded:] if b"RELOCATION_DETECTED" in entry.record]
    assert not detected, "a retry that finds nothing leaves no record"


def test_mobility_gives_the_session_the_path_from_its_new_place() -> None:
    world = World.started(SETTINGS)
    session = world.paged().session
    world.do(c.MoveClient(session=session, place=ACCESS_TWO))
    world.advance(10)
    lease = world.state.sessions[session].lease
    assert lease is not None
    assert lease.domains[0] == ACCESS_TWO
    world.advance(5_000)
    assert world.state.ledger.domain_mrps(intent().place) == 0


def test_a_worse_envelope_moves_the_sessions_that_it_no_longer_carries() -> None:
    world = World.started(SETTINGS)
    session = world.paged().session
    world.do(accept(envelope("edge-one", offset_ms=240.0, sequence=2)))
    world.advance(10)
    assert serving(world, session) == "b"
    relocation = world.state.sessions[session].relocation
    assert relocation is not None
    assert relocation.cause is RelocationCause.CONTRACT_UNPROVABLE


def test_a_second_relocation_waits_for_the_first() -> None:
    world = World.started(SETTINGS)
    session = world.paged().session
    move(world, session)
    with pytest.raises(RefusedError) as refused:
        move(world, session)
    assert refused.value.code == "INCOMPATIBLE_STATE"


def test_the_target_lost_while_the_source_drains_cuts_the_drain_and_goes_on() -> None:
    world = World.started(Settings(lease=LeaseTerms(lease_ms=2_000, drift_ppm=500, grace_ms=300, drain_ms_max=60_000)))
    session = world.paged(intent(duration_s=600)).session
    move(world, session)
    world.settle()
    assert serving(world, session) == "b"
    world.advance(SETTINGS.anchor_lost_ms + 1_500, beating=("a", "t"))
    assert serving(world, session) == "a"


def test_a_source_that_ran_out_before_the_switch_does_not_drain_and_the_session_moves_again() -> None:
    world = World.started(replace(SETTINGS, anchor_lost_ms=1_000, prepare_ms_max=10_000))
    session = world.paged(intent(duration_s=600)).session
    move(world, session, target="b")
    world.settle()
    world.advance(4_000)
    world.advance(1_200, beating=("a", "t"), settle=False)
    relocation = world.state.sessions[session].relocation
    assert relocation is not None
    assert relocation.phase is RelocationPhase.DECIDED
    lease = world.state.sessions[session].lease
    assert lease is not None
    world.advance((lease.deadline_us - world.now.boot_us) / 1000 + 1, beating=("a", "t"), settle=False)
    world.settle()
    assert serving(world, session) == "a"
    assert world.state.sessions[session].source is None, "there is nothing left to drain"
    world.advance(2_000)
    move(world, session, target="b")
    world.settle()
    assert serving(world, session) == "b"


def test_a_named_target_that_is_not_eligible_fails_with_its_constraint() -> None:
    world = World.started(SETTINGS)
    session = world.paged(intent(regions=("eu",))).session
    move(world, session, target="b")
    relocation = world.state.sessions[session].relocation
    assert relocation is not None
    assert relocation.phase is RelocationPhase.FAILED
    assert "PLACE" in relocation.message
