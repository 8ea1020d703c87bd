"""Relocation, make-before-break.

    DETECTED, DECIDED   a target is chosen, its rate reserved, its COMMIT granted; nothing is steered to it
    TARGET_PREPARED     the target's sidecar answered that it and its upstream are ready
    SWITCHED            every connected gateway steers by the target's COMMIT; the source drains
    SOURCE_RELEASED     the drain is over; the source's rate is free once its last holder has let go

A failure before SWITCHED revokes the target's COMMIT and leaves the source as it was. If the switch had been tried,
some gateway may have learned the target's epoch and would refuse the source's lower one: the source is then granted
a higher epoch.
"""

from dataclasses import replace
from typing import Final

from aipaging.core.anchor.catalogue import AnchorState, DomainKind
from aipaging.core.anchor.eligibility import Candidate, ranked
from aipaging.core.foundation.errors import InvalidInputError, RefusedError
from aipaging.core.foundation.names import AnchorId, SessionId
from aipaging.core.foundation.time import Now
from aipaging.core.paging import relocation_machine
from aipaging.core.paging.commands import MoveClient, Relocate, RelocationBroken, SwitchConfirmed, TargetPrepared
from aipaging.core.paging.contract import Finding
from aipaging.core.paging.decision import Decision, candidates_for, fence, grant, grant_again
from aipaging.core.paging.effects import InstallSteering, PrepareTarget, RevokeSteering, SwitchSteering
from aipaging.core.paging.ending import advanced, ended, lease_over
from aipaging.core.paging.events import ClientMoved, CommitDraining, Event, RelocationAdvanced
from aipaging.core.paging.governing import applied, governed, governs, judged, question_of
from aipaging.core.paging.relocation_machine import OVER, RelocationCause, RelocationPhase, RelocationVerb
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.core.paging.state import Session, State
from aipaging.core.paging.tenancy import Question

NO_ANCHOR: Final = AnchorId("")
"""The target of a relocation that has none yet."""

UNPROVABLE: Final = frozenset({"ENVELOPE", "GUARDRAIL", "DELAY"})
"""The constraints whose failure means that a session's contract is no longer provable where it is."""


def relocate(state: State, command: Relocate, now: Now) -> Decision:
    """Begin a relocation, or refuse with the reason; a refused wish leaves a FAILED relocation as evidence.

    Raises:
        RefusedError: The session is not AVAILABLE, or it is being relocated already.
    """
    session = state.available(command.session)
    if session.relocation is not None and session.relocation.phase not in OVER:
        raise RefusedError(
            f"session {session.session} is being relocated already ({session.relocation.phase.value})",
            code="INCOMPATIBLE_STATE",
        )
    if session.lease is not None and session.lease.deadline_us <= now.boot_us:
        raise RefusedError(f"the COMMIT of session {session.session} has just expired: try again", code="ABORTED")
    return begun(state, session, command.cause, now, target=command.target)


def begun(
    state: State, session: Session, cause: RelocationCause, now: Now, *, target: AnchorId | None = None
) -> Decision:
    """Return DETECTED and DECIDED with the target's COMMIT, or DETECTED and FAILED."""
    if session.lease is None:
        raise RefusedError(f"session {session.session} holds no COMMIT", code="INCOMPATIBLE_STATE")
    source = session.lease.anchor
    before = drain_cut(state, session, now) if session.source is not None else Decision()
    detected = RelocationAdvanced(
        session=session.session,
        number=(session.relocation.number if session.relocation else 0) + 1,
        phase=RelocationPhase.DETECTED,
        cause=cause,
        source=source,
        target=NO_ANCHOR,
        message="",
        boot_us=now.boot_us,
    )
    question = question_of(state, session, "relocate")
    candidates = governed(state, question, candidates_for(state, session.session, session.intent, now, only=target))
    # Only mobility may end where it began: the anchor stays, the path to it is another.
    usable = [c for c in candidates if c.anchor != source or cause is RelocationCause.MOBILITY]
    best = ranked(state.catalogue, session.intent, usable)[:1]
    if not best:
        failed = replace(detected, phase=RelocationPhase.FAILED, message=_why_not(usable, target))
        return Decision(events=[*before.events, detected, failed], effects=before.effects)
    chosen = best[0]
    decided = replace(detected, phase=RelocationPhase.DECIDED, target=chosen.anchor)
    granted = grant(state, session, chosen, now, cause="RELOCATION")
    prepare = PrepareTarget(session=session.session, number=detected.number, target=chosen.anchor, epoch=granted.epoch)
    events = [*before.events, detected, decided, *_permitted(state, session, question, chosen), granted]
    return Decision(events=events, effects=[*before.effects, prepare])


def _permitted(state: State, session: Session, question: Question, chosen: Candidate) -> list[Event]:
    """Return which policies permit the target, where there are any."""
    if not governs(state):
        return []
    ruling = judged(state, question, [state.catalogue.anchors[chosen.anchor]])[0]
    return [applied(state, session.session, ruling, action=question.action, anchor=chosen.anchor)]


def drain_cut(state: State, session: Session, now: Now) -> Decision:
    """End the drain of the source: its COMMIT is over, its epoch fenced, the relocation SOURCE_RELEASED."""
    source = session.source
    if source is None:
        return Decision()
    return Decision(
        events=[
            lease_over(session, source, now, cause="RELOCATED"),
            advanced(session, RelocationPhase.SOURCE_RELEASED, now),
        ],
        effects=[RevokeSteering(fences=(fence(state, session.session, source),))],
    )


def _why_not(candidates: list[Candidate], target: AnchorId | None) -> str:
    if not candidates:
        return f"{target} is not an anchor that the session could move to" if target else "there is no other anchor"
    reasons = [f"{c.anchor}: {c.rejection.constraint}" for c in candidates if c.rejection is not None]
    return "; ".join(reasons[:8])


def _current(state: State, session_id: SessionId, number: int, phase: RelocationPhase) -> Session | None:
    """Return the session if this answer is about its present relocation in this phase; late answers are nothing."""
    session = state.sessions.get(session_id)
    if session is None or session.relocation is None:
        return None
    relocation = session.relocation
    return session if (relocation.number, relocation.phase) == (number, phase) else None


def target_prepared(state: State, command: TargetPrepared, now: Now) -> Decision:
    """The target is ready: switch."""
    session = _current(state, command.session, command.number, RelocationPhase.DECIDED)
    if session is None or session.relocation is None or session.target is None:
        return Decision()
    if session.target.deadline_us <= now.boot_us:
        return failed(state, session, "the target's COMMIT expired before it was ready", now)
    relocation_machine.advance(session.relocation.phase, RelocationVerb.PREPARE)
    switch = SwitchSteering(session=session.session, number=command.number, epoch=session.target.epoch)
    return Decision(events=[advanced(session, RelocationPhase.TARGET_PREPARED, now)], effects=[switch])


def switch_confirmed(state: State, command: SwitchConfirmed, now: Now) -> Decision:
    """Gateways steer to the target: drain the source."""
    session = _current(state, command.session, command.number, RelocationPhase.TARGET_PREPARED)
    if session is None or session.relocation is None or session.target is None or session.lease is None:
        return Decision()
    if session.target.deadline_us <= now.boot_us:
        return failed(state, session, "the target's COMMIT expired before the switch was confirmed", now)
    relocation_machine.advance(session.relocation.phase, RelocationVerb.SWITCH)
    decision = Decision(events=[advanced(session, RelocationPhase.SWITCHED, now)])
    source = session.lease
    if source.live:
        # Somebody waits for a preempted session's room: work in flight has what is left of its COMMIT, and no more.
        preempted = session.relocation.cause is RelocationCause.PREEMPTED
        drain_ms = 0 if preempted else state.settings.lease.drain_ms_max
        decision.events.append(
            CommitDraining(session=session.session, epoch=source.epoch, drain_ms=drain_ms, boot_us=now.boot_us)
        )
    else:
        decision.events.append(advanced(session, RelocationPhase.SOURCE_RELEASED, now))
    return decision


def broken(state: State, command: RelocationBroken, now: Now) -> Decision:
    """Preparing or switching failed: the source goes on serving."""
    session = state.sessions.get(command.session)
    if session is None or session.relocation is None or session.relocation.number != command.number:
        return Decision()
    return failed(state, session, command.message, now) if session.relocation.under_way else Decision()


def failed(state: State, session: Session, message: str, now: Now) -> Decision:
    """Return the failure of a relocation under way."""
    if session.relocation is None or session.lease is None:
        return Decision()
    relocation_machine.advance(session.relocation.phase, RelocationVerb.FAIL)
    if not session.lease.live:
        # A lost anchor's COMMIT ran out while the target was prepared: there is nothing left to stay on.
        return ended(state, session, StatusInfo.ANCHOR_LOST, now)
    if session.relocation.cause is RelocationCause.PREEMPTED and session.session in state.tenancy.victims:
        return ended(state, session, StatusInfo.PREEMPTED, now)
    tried = session.relocation.phase is RelocationPhase.TARGET_PREPARED
    decision = Decision(events=[advanced(session, RelocationPhase.FAILED, now, message=message)])
    target = session.target
    if target is not None and target.live:
        decision.events.append(lease_over(session, target, now, cause="RELOCATION_FAILED"))
    if tried and target is not None:
        source = session.lease
        again = grant_again(state, session, source, now, cause="RELOCATION_FAILED", n=session.n + 1)
        if source.live and again.lease_ms > 0:
            # Some gateway may have seen the target's epoch. Installing a higher one replaces it without a gap.
            decision.events += [lease_over(session, source, now, cause="RELOCATION_FAILED"), again]
            decision.effects.append(InstallSteering(session=session.session, epoch=again.epoch))
        else:
            decision.effects.append(RevokeSteering(fences=(fence(state, session.session, target),)))
    return decision


def move_client(state: State, command: MoveClient, now: Now) -> Decision:
    """Note that the client is in another access domain; the session is looked at next and moved.

    Raises:
        InvalidInputError: The domain is not registered as an access domain.
    """
    session = state.available(command.session)
    domain = state.catalogue.domains.get(command.place)
    if domain is None or domain.kind is not DomainKind.ACCESS:
        raise InvalidInputError(f"{command.place} is not an access domain", code="NOT_FOUND", field="place")
    if session.intent.place == command.place:
        return Decision()
    return Decision(events=[ClientMoved(session=session.session, place=command.place, boot_us=now.boot_us)])


def must_leave(state: State, session: Session, finding: Finding) -> RelocationCause | None:
    """Return why a session cannot stay where it is, or None; its contract was found to stand as `finding` says."""
    if session.lease is None:
        return None
    anchor = state.catalogue.anchors.get(session.lease.anchor)
    if anchor is None or anchor.state is AnchorState.LOST:
        return RelocationCause.ANCHOR_LOST
    if anchor.state is AnchorState.DRAINING:
        return RelocationCause.ANCHOR_DRAINING
    if session.lease.domains[0] != session.intent.place:
        return RelocationCause.MOBILITY
    if finding.rejection is not None and finding.rejection.constraint in UNPROVABLE:
        return RelocationCause.CONTRACT_UNPROVABLE
    return None
