"""What is done when its time has come: renewals, expiries, releases, lost anchors, retries.

`take_due` pops the agenda; every entry popped is either acted on, outlived, or put back for later. A session that
an earlier entry of the same wake has changed is put back, so that every decision sees the state as it is.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.envelope.envelope import Envelope
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import AnchorId, DomainName, SessionId
from aipaging.core.foundation.time import MS, SECOND, BootUs, Now
from aipaging.core.identity.tenant import PriorityClass
from aipaging.core.lease.expiry import NO_EPOCH, Due
from aipaging.core.lease.machine import RENEW_AT_DENOMINATOR, RENEW_AT_NUMERATOR, Lease, LeasePhase
from aipaging.core.paging.claiming import claim_over, displaced
from aipaging.core.paging.contract import Finding, again_us, found, told
from aipaging.core.paging.decision import Decision, grant_again, lease_ms
from aipaging.core.paging.effects import InstallSteering, RenewSteering
from aipaging.core.paging.ending import ended, lease_over
from aipaging.core.paging.events import (
    AnchorStateChanged,
    CommitGranted,
    LeasesRenewed,
    Renewal,
    ReservationReleased,
    SessionForgotten,
)
from aipaging.core.paging.evolve_catalogue import EVERYWHERE, until_over
from aipaging.core.paging.promise_events import CommitRebound, SessionRestored
from aipaging.core.paging.relocation import begun, drain_cut, failed, must_leave
from aipaging.core.paging.relocation_machine import RelocationCause, RelocationPhase
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.core.paging.state import Session, State
from aipaging.core.paging.switching import stopped_by_any
from aipaging.core.paging.waking import RESTRICTED_RETRY_US, Waking
from aipaging.core.steering.grant import SteeringRenewal

ENTRIES_MAX: Final = 1024
"""Entries of one wake: bounds a step to some milliseconds; what is left is due at once again."""

RENEWALS_MAX: Final = 32
"""Renewals in one wake and in one record: less than a millisecond, for which whoever pages meanwhile waits."""

CLOCKS_APART_US: Final = 3_600_000_000
"""An envelope whose end was due and is less than this away by the wall clock is looked at once more."""

TURNS_MAX: Final = 16
"""Sessions looked at in one turn: those that find no target cost as much as those that do."""

BEHIND_US_MAX: Final = 100_000
"""How far turns may lie behind their pace and still be caught up."""

RETRY_DOUBLINGS_MAX: Final = 5
"""A relocation that finds no target is tried at most 32 times slower than the first time."""


def wake(state: State, now: Now, *, restrictive: bool = False) -> Decision:
    """Do what is due; with `restrictive`, only what takes away."""
    work = Waking(state, now, restrictive=restrictive)
    for _ in range(ENTRIES_MAX):
        entry = state.queue.pop_due(now.boot_us)
        if entry is None:
            break
        when_us, due, subject, epoch = entry
        if subject in work.touched and due is not Due.RELEASE:
            work.later(now.boot_us + MS, due, subject, epoch)
            continue
        work.when_us = when_us
        _look(work, due, subject, epoch)
        if len(work.renewals) >= RENEWALS_MAX:
            break
    if work.turn_us is not None:
        work.later(work.turn_us, Due.TURN, EVERYWHERE, NO_EPOCH)
    return _renewed(work)


def _look(work: Waking, due: Due, subject: str, epoch: Epoch) -> None:
    if due is Due.TURN:
        _turn(work)
    elif due is Due.ANCHOR:
        _anchor(work, AnchorId(subject))
    elif due is Due.ENVELOPE:
        _envelope(work, DomainName(subject))
    elif due is Due.CLAIM:
        work.add(subject, Decision(events=claim_over(work.state, SessionId(subject), work.now)))
    elif due is Due.RELEASE:
        _release(work, SessionId(subject), epoch)
    else:
        session = work.state.sessions.get(SessionId(subject))
        if session is not None:
            _HANDLERS[due](work, session, epoch)


def _renewed(work: Waking) -> Decision:
    if work.renewals:
        renewed = LeasesRenewed(renewals=tuple(work.renewals), boot_us=work.now.boot_us)
        # First, so that a session that a later entry ends was renewed before it ended, not after.
        work.decision.events.insert(0, renewed)
        work.decision.effects.insert(0, RenewSteering(renewals=tuple(work.steering)))
    return work.decision


def _release(work: Waking, session_id: SessionId, epoch: Epoch) -> None:
    session = work.state.sessions.get(session_id)
    lease = session.lease_of(epoch) if session is not None else None
    if lease is not None and lease.live:
        return  # a term began and granted the reservation anew: its end puts the entry back
    reservation = work.state.ledger.of(session_id, epoch)
    once = f"{session_id} {epoch}"
    if reservation is None or once in work.touched:
        return  # two entries for one reservation may be due together: the end of its lease, and the start of a term
    if reservation.hold_us > work.now.boot_us:
        work.later(reservation.hold_us, Due.RELEASE, session_id, epoch)
        return
    event = ReservationReleased(session=session_id, anchor=reservation.anchor, epoch=epoch, boot_us=work.now.boot_us)
    work.touched.add(once)
    work.decision.events.append(event)


def _renew(work: Waking, session: Session, epoch: Epoch) -> None:
    lease = session.lease_of(epoch)
    if lease is None or lease.phase is not LeasePhase.GRANTED or not session.available:
        return
    state, now = work.state, work.now
    if lease.deadline_us <= now.boot_us or _renewed_since(work, lease):
        return  # too late to renew, the expiry decides; or another entry is on the agenda
    if state.entitled is not None and session.client not in state.entitled:
        work.add(session.session, ended(state, session, StatusInfo.NETWORK_TERMINATED, now))
        return
    anchor = state.catalogue.anchors.get(lease.anchor)
    if work.restrictive or anchor is None or anchor.state in {AnchorState.LOST, AnchorState.UNKNOWN}:
        work.later(now.boot_us + state.settings.lease.lease_ms * MS // 12, Due.RENEW, session.session, epoch)
        return
    granted_ms = lease_ms(state, session.ends_us, now)
    deadline_us = now.after(granted_ms * MS)
    if deadline_us <= lease.deadline_us:
        if granted_ms == state.settings.lease.lease_ms:
            # Leases have become shorter since: this one is renewed when as much is left of it as of a shorter one then.
            left_us = granted_ms * MS * (RENEW_AT_DENOMINATOR - RENEW_AT_NUMERATOR) // RENEW_AT_DENOMINATOR
            work.later(lease.deadline_us - left_us, Due.RENEW, session.session, epoch)
        return  # or it lasts to the end of the session already
    work.renewals.append(Renewal(session=session.session, epoch=epoch, renewal=lease.renewal + 1, lease_ms=granted_ms))
    work.touched.add(session.session)
    if lease is not session.target:
        work.steering.append(SteeringRenewal(session=session.session, epoch=epoch, deadline_us=deadline_us))


def _renewed_since(work: Waking, lease: Lease) -> bool:
    """Tell whether a lease is too young to be renewed, unless the end of the session cut it short."""
    lease_us = lease.deadline_us - lease.granted_us
    return work.now.boot_us - lease.granted_us < lease_us // 3 and lease_us >= work.state.settings.lease.lease_ms * MS


def _expire(work: Waking, session: Session, epoch: Epoch) -> None:
    lease = session.lease_of(epoch)
    if lease is None or not lease.live:
        return
    if lease.deadline_us > work.now.boot_us:
        work.later(lease.deadline_us, Due.EXPIRE, session.session, epoch)
        return
    if lease is session.source:
        work.add(session.session, drain_cut(work.state, session, work.now))
    elif lease is session.target:
        work.add(session.session, failed(work.state, session, "the target's COMMIT expired", work.now))
    else:
        work.add(session.session, _served_out(work, session, lease))


def _served_out(work: Waking, session: Session, lease: Lease) -> Decision:
    """Return what becomes of a session whose serving COMMIT has expired."""
    state, now = work.state, work.now
    if session.ends_us <= now.boot_us:
        return ended(state, session, StatusInfo.DURATION_EXPIRED, now)
    anchor = state.catalogue.anchors.get(lease.anchor)
    lost = anchor is None or anchor.state is AnchorState.LOST
    if session.relocation is not None and session.relocation.under_way:
        if lost:  # the target takes over, or its failure ends the session
            return Decision(events=[lease_over(session, lease, now, cause="")])
        # A new epoch of the source would overtake the target's. Call the relocation off first, then look again.
        work.later(now.boot_us + MS, Due.EXPIRE, session.session, lease.epoch)
        return failed(state, session, "the source's COMMIT expired", now)
    if lost or work.restrictive:
        status_info = StatusInfo.ANCHOR_LOST if lost else StatusInfo.NETWORK_TERMINATED
        return ended(state, session, status_info, now)
    return _granted_again(work, session, lease)


def _granted_again(work: Waking, session: Session, lease: Lease) -> Decision:
    """Return a new COMMIT: the controller slept through the renewal, and the reservation is still held."""
    again = grant_again(work.state, session, lease, work.now, cause="RECOVERY", n=session.n + 1)
    if again.lease_ms < 1:
        work.later(session.ends_us, Due.EXPIRE, session.session, lease.epoch)
        return Decision()
    over = lease_over(session, lease, work.now, cause="")
    return Decision(events=[over, again], effects=[InstallSteering(session=session.session, epoch=again.epoch)])


def _session_end(work: Waking, session: Session, epoch: Epoch) -> None:
    if not session.available:
        return
    if session.ends_us > work.now.boot_us:
        work.later(session.ends_us, Due.SESSION_END, session.session, epoch)
        return
    work.add(session.session, ended(work.state, session, StatusInfo.DURATION_EXPIRED, work.now))


def _relocation(work: Waking, session: Session, epoch: Epoch) -> None:
    """Look at a session: whether its contract holds, whether it must leave, how its relocation goes."""
    if not session.available or session.session in work.looked:
        return
    if not _moving(session) and _leaves_anyway(work, session):
        _wait(work, session)
        return
    if work.state.tenancy.switches:
        stop = stopped_by_any(work.state, session, work.now)
        if stop is not None:
            work.add(session.session, stop)
            return
    work.looked.add(session.session)
    if session.session in work.state.tenancy.victims and not _moving(session):
        work.add(session.session, _make_room(work, session))
        return
    finding = found(work.state, session, work.now)
    decision = Decision(events=told(session, finding, work.now))
    if work.restrictive and any(isinstance(event, CommitRebound | SessionRestored) for event in decision.events):
        decision = Decision()
        work.later(work.now.boot_us + RESTRICTED_RETRY_US, Due.RELOCATION, session.session, NO_EPOCH)
    then = _under_way(work, session, epoch) if _moving(session) else _leaving(work, session, finding)
    decision.events += then.events
    decision.effects += then.effects
    work.add(session.session, decision)


def _leaves_anyway(work: Waking, session: Session) -> bool:
    """Tell without much looking whether a session must leave, and it is not its turn."""
    if work.turn == session.session:
        return False
    if session.degraded:
        return work.granted  # it was told already
    anchor = work.state.catalogue.anchors.get(session.lease.anchor) if session.lease is not None else None
    settled = session.relocation is None or session.relocation.phase is not RelocationPhase.FAILED
    return settled and anchor is not None and anchor.state in {AnchorState.LOST, AnchorState.DRAINING}


def _wait(work: Waking, session: Session) -> None:
    """Let a session that must leave wait for its turn: by the class of its tenant, then by age."""
    queue = work.state.queue
    if not queue.line:
        queue.add(BootUs(work.now.boot_us + 1), Due.TURN, EVERYWHERE)
    rank = PriorityClass.EMERGENCY - work.state.tenancy.tenant(session.tenant).priority
    queue.join_line(session.session, rank=rank, age_us=session.requested_wall_us)


def _turn(work: Waking) -> None:
    """Look at those whose turn it is until one relocation is granted; the next turn comes at its pace."""
    if work.granted:
        # A second turn of a wake that comes late: whoever is first could not be granted anything, and keeps its place.
        work.turn_us = work.when_us
    else:
        _take_turns(work)


def _take_turns(work: Waking) -> None:
    # The pace counts from when this turn was due: who wakes late catches up, within limits.
    queue, now = work.state.queue, work.now
    for _ in range(TURNS_MAX):
        subject = queue.next_in_line()
        if subject is None:
            return
        session = work.state.sessions.get(SessionId(subject))
        if session is None or subject in work.touched or subject in work.looked:
            # Whoever was looked at in this wake already, before it joined the line, has its turn in the next.
            if session is not None:
                work.later(now.boot_us + MS, Due.RELOCATION, subject, NO_EPOCH)
            continue
        work.turn = session.session
        _relocation(work, session, NO_EPOCH)
        if work.granted:
            break
    if queue.line:
        pace_us = SECOND // work.state.settings.relocations_per_s
        next_us = max(work.when_us + pace_us, now.boot_us - BEHIND_US_MAX)
        queue.add(BootUs(next_us), Due.TURN, EVERYWHERE)


def _moving(session: Session) -> bool:
    return session.relocation is not None and session.relocation.under_way


def _under_way(work: Waking, session: Session, epoch: Epoch) -> Decision:
    state, now, relocation = work.state, work.now, session.relocation
    if relocation is None:
        return Decision()
    due_us = relocation.since_us + state.settings.prepare_ms_max * MS
    if now.boot_us < due_us:
        work.later(due_us, Due.RELOCATION, session.session, epoch)
        return Decision()
    message = f"{relocation.phase.value} for longer than {state.settings.prepare_ms_max} ms"
    return failed(state, session, message, now)


def _make_room(work: Waking, session: Session) -> Decision:
    """Let a session that is displaced begin to move, or end; the second grant of a wake waits for the next."""
    expired = session.lease is not None and session.lease.deadline_us <= work.now.boot_us
    if expired or work.granted or work.restrictive:
        wait_us = RESTRICTED_RETRY_US if work.restrictive else 1
        work.later(work.now.boot_us + wait_us, Due.RELOCATION, session.session, NO_EPOCH)
        return Decision()
    decision = displaced(work.state, session, work.now)
    work.granted = any(isinstance(event, CommitGranted) for event in decision.events)
    return decision


def _leaving(work: Waking, session: Session, finding: Finding) -> Decision:
    cause = must_leave(work.state, session, finding)
    if cause is not None and (session.source is None or cause is RelocationCause.ANCHOR_LOST):
        return _leave(work, session, cause)
    if finding.rejection is not None and session.source is None:
        work.later(again_us(work.state, session, work.now), Due.RELOCATION, session.session, NO_EPOCH)
    return Decision()


def _leave(work: Waking, session: Session, cause: RelocationCause) -> Decision:
    """Begin a relocation that must happen; the second grant of a wake waits for the first to be counted."""
    state, now = work.state, work.now
    expired = session.lease is not None and session.lease.deadline_us <= now.boot_us
    if work.granted:
        _wait(work, session)
        return Decision()
    if expired and cause is not RelocationCause.ANCHOR_LOST:
        # What has expired is granted anew or ended first: nothing is made before it breaks that is broken already.
        work.later(now.boot_us + 1, Due.RELOCATION, session.session, NO_EPOCH)
        return Decision()
    if work.restrictive:
        work.later(now.boot_us + RESTRICTED_RETRY_US, Due.RELOCATION, session.session, NO_EPOCH)
        return Decision()
    decision = begun(state, session, cause, now)
    work.granted = any(isinstance(event, CommitGranted) for event in decision.events)
    relocation = session.relocation
    if not work.granted and relocation is not None and relocation.cause is cause and relocation.failures:
        # It failed before for want of a target, and still does: nothing has happened, so nothing is recorded.
        wait_ms = state.settings.retry_ms << min(relocation.failures, RETRY_DOUBLINGS_MAX)
        again = again_us(state, session, now) if session.degraded else BootUs(now.boot_us + wait_ms * MS)
        work.later(again, Due.RELOCATION, session.session, NO_EPOCH)
        return Decision()
    return decision


def _anchor(work: Waking, anchor_id: AnchorId) -> None:
    state, now = work.state, work.now
    anchor = state.catalogue.anchors.get(anchor_id)
    if anchor is None or anchor.state in {AnchorState.LOST, AnchorState.UNKNOWN}:
        return
    lost_us = state.heard_us.get(anchor_id, BootUs(0)) + state.settings.anchor_lost_ms * MS
    if lost_us > now.boot_us:
        work.later(lost_us, Due.ANCHOR, anchor_id, NO_EPOCH)
        return
    event = AnchorStateChanged(anchor=anchor_id, state=AnchorState.LOST, cause="HEARTBEATS_MISSED", boot_us=now.boot_us)
    work.add(anchor_id, Decision(events=[event]))


def _envelope(work: Waking, domain: DomainName) -> None:
    """Look at every session whose path crosses a domain whose envelope is new, not believed, or over."""
    state, now = work.state, work.now
    everywhere = domain == EVERYWHERE
    for session in state.sessions.values():
        if session.available and session.lease is not None and (everywhere or domain in session.lease.domains):
            work.later(now.boot_us, Due.RELOCATION, session.session, NO_EPOCH)
    for envelope in () if everywhere else _of_domain(state, domain):
        if 0 < envelope.valid_until_us - now.wall_us <= CLOCKS_APART_US:
            # The wall clock went back a little: its end is still to come.
            until_over(state, envelope, now.boot_us, now.wall_us)


def _of_domain(state: State, domain: DomainName) -> list[Envelope]:
    return [envelope for (name, _), envelope in state.catalogue.envelopes.items() if name == domain]


def _forget(work: Waking, session: Session, epoch: Epoch) -> None:
    if session.available:
        return
    if any(work.state.ledger.of(session.session, lease.epoch) is not None for lease in session.leases):
        work.later(work.now.boot_us + work.state.settings.kept_ms * MS, Due.FORGET, session.session, epoch)
        return
    work.add(session.session, Decision(events=[SessionForgotten(session=session.session)]))


_HANDLERS: Final[Mapping[Due, Callable[[Waking, Session, Epoch], None]]] = MappingProxyType(
    {
        Due.EXPIRE: _expire,
        Due.SESSION_END: _session_end,
        Due.RELOCATION: _relocation,
        Due.RENEW: _renew,
        Due.FORGET: _forget,
    }
)
