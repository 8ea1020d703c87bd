"""How sessions end: every COMMIT of theirs ends with them, and a relocation under way is called off."""

from aipaging.core.foundation.errors import RefusedError
from aipaging.core.foundation.time import Now
from aipaging.core.lease.machine import Lease, LeasePhase
from aipaging.core.paging.commands import End, SteeringFailed
from aipaging.core.paging.decision import Decision, fence
from aipaging.core.paging.effects import RevokeSteering
from aipaging.core.paging.events import CommitExpired, CommitRevoked, Event, RelocationAdvanced, SessionEnded
from aipaging.core.paging.governing import refund
from aipaging.core.paging.relocation_machine import OVER, RelocationPhase
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.core.paging.state import Session, State


def end(state: State, command: End, now: Now) -> Decision:
    """End a session on request."""
    session = state.session(command.session)
    if not session.available:
        raise RefusedError(f"session {session.session} has ended already", code="INCOMPATIBLE_STATE")
    return ended(state, session, command.status_info, now)


def steering_failed(state: State, command: SteeringFailed, now: Now) -> Decision:
    """Take a page back whose steering could not be installed."""
    session = state.sessions.get(command.session)
    if session is None or not session.available or session.lease is None or session.lease.epoch != command.epoch:
        return Decision()
    return ended(state, session, StatusInfo.NETWORK_TERMINATED, now)


def ended(state: State, session: Session, status_info: StatusInfo, now: Now, *, cause: str = "") -> Decision:
    """Return the end of a session: relocation, COMMITs, session; live steering is cut at once."""
    decision = Decision()
    decision.events += _relocation_over(session, now)
    live = [lease for lease in session.leases if lease.live]
    decision.events += [lease_over(session, lease, now, cause=cause or status_info.value) for lease in live]
    decision.events.append(
        SessionEnded(session=session.session, status_info=status_info, boot_us=now.boot_us, wall_us=now.wall_us)
    )
    decision.events += refund(session, now)
    cut = [lease for lease in live if lease.deadline_us > now.boot_us]
    if cut:
        highest = max(cut, key=lambda lease: lease.epoch)
        decision.effects.append(RevokeSteering(fences=(fence(state, session.session, highest),)))
    return decision


def lease_over(session: Session, lease: Lease, now: Now, *, cause: str) -> CommitExpired | CommitRevoked:
    """Return the end of one COMMIT: expired if its deadline has passed, else revoked."""
    if lease.deadline_us <= now.boot_us and lease.phase in {LeasePhase.GRANTED, LeasePhase.DRAINING}:
        return CommitExpired(session=session.session, epoch=lease.epoch, boot_us=now.boot_us)
    return CommitRevoked(session=session.session, epoch=lease.epoch, cause=cause, boot_us=now.boot_us)


def _relocation_over(session: Session, now: Now) -> list[Event]:
    relocation = session.relocation
    if relocation is None or relocation.phase in OVER:
        return []
    phase = RelocationPhase.FAILED if relocation.under_way else RelocationPhase.SOURCE_RELEASED
    return [advanced(session, phase, now, message="the session ended")]


def advanced(session: Session, phase: RelocationPhase, now: Now, *, message: str = "") -> RelocationAdvanced:
    """Return the next phase of the session's present relocation."""
    relocation = session.relocation
    if relocation is None:
        raise RefusedError(f"session {session.session} is not being relocated", code="INCOMPATIBLE_STATE")
    return RelocationAdvanced(
        session=session.session,
        number=relocation.number,
        phase=phase,
        cause=relocation.cause,
        source=relocation.source,
        target=relocation.target,
        message=message,
        boot_us=now.boot_us,
    )
