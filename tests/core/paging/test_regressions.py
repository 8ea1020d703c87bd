"""Histories that once went wrong, each with the line that would have caught it."""

from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.foundation.names import AnchorId
from aipaging.core.lease.machine import LeaseTerms
from aipaging.core.paging import commands as c
from aipaging.core.paging.events import ReservationReleased
from aipaging.core.paging.relocation_machine import RelocationCause, RelocationPhase
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.core.paging.settings import Settings
from aipaging.testing.world import World

SETTINGS = Settings(
    lease=LeaseTerms(lease_ms=1_000, drift_ppm=1_000, grace_ms=200, drain_ms_max=700), lease_ms_max=2_000
)


def test_a_reservation_with_two_entries_on_the_agenda_is_released_once() -> None:
    """A term's start and the lease's end both ask for the release; a controller that slept finds both due at once."""
    world = World.started(SETTINGS)
    session = world.paged().session
    world.do(c.End(session=session, status_info=StatusInfo.DELETE_REQUESTED))
    world.do(c.StartTerm(settings=SETTINGS, software="test"))
    world.do(c.StartTerm(settings=SETTINGS, software="test"))
    world.sleep(10_000)
    world.advance(10)
    assert sum(isinstance(event, ReservationReleased) for event in world.events) == 1


def test_an_answer_that_comes_after_the_target_expired_fails_the_relocation() -> None:
    """A controller that slept gets the sidecar's answer when the target's COMMIT is already over."""
    world = World.started(SETTINGS)
    session = world.paged().session
    world.do(c.Relocate(session=session, cause=RelocationCause.OPERATOR))
    world.sleep(1_500)
    world.do(c.TargetPrepared(session=session, number=1))
    relocation = world.state.sessions[session].relocation
    assert relocation is not None
    assert relocation.phase is RelocationPhase.FAILED
    assert world.state.sessions[session].available


def test_a_sidecar_that_is_restarted_at_once_takes_sessions_again() -> None:
    """It said DRAINING before it stopped; the one started after it says READY before anybody missed a heartbeat."""
    world = World.started(SETTINGS)
    anchor = AnchorId("a")
    world.do(c.Heartbeat(anchor=anchor, state=AnchorState.DRAINING))
    assert world.state.catalogue.anchors[anchor].state is AnchorState.DRAINING
    world.do(c.Heartbeat(anchor=anchor, state=AnchorState.READY))
    assert world.state.catalogue.anchors[anchor].state is AnchorState.READY


def test_what_an_operator_drains_stays_drained_whatever_becomes_of_its_sidecar() -> None:
    """A sidecar that was lost and came back had forgotten the operator's order."""
    world = World.started(SETTINGS)
    anchor = AnchorId("a")

    def beat(state: AnchorState) -> AnchorState:
        world.do(c.Heartbeat(anchor=anchor, state=state))
        return world.state.catalogue.anchors[anchor].state

    beat(AnchorState.DRAINING)
    world.do(c.SetAnchorState(anchor=anchor, state=AnchorState.DRAINING, cause="OPERATOR"))
    assert beat(AnchorState.READY) is AnchorState.DRAINING
    assert beat(AnchorState.LOST) is AnchorState.LOST
    world.do(c.StartTerm(settings=SETTINGS, software="test"))
    assert beat(AnchorState.READY) is AnchorState.DRAINING
    world.do(c.SetAnchorState(anchor=anchor, state=AnchorState.READY, cause="OPERATOR"))
    assert beat(AnchorState.READY) is AnchorState.READY
