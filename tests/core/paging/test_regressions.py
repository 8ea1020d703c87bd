"""Histories that once went wrong, each with the line that would have caught it."""

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
