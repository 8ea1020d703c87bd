"""What operators and anchors say: the catalogue, the state of anchors, terms, who is entitled.

Every one that changes something is a transition and leaves a record; saying again what is known leaves none.
"""

from dataclasses import replace
from typing import Final

from msgspec import structs

from aipaging.core.anchor.catalogue import Anchor, AnchorState
from aipaging.core.envelope.envelope import Envelope
from aipaging.core.envelope.trust import Accepted, TrustedEnvelopes
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import InvalidInputError, RefusedError
from aipaging.core.foundation.names import AnchorId
from aipaging.core.foundation.time import MS, SECOND, Now
from aipaging.core.paging.acting import RecordAction
from aipaging.core.paging.auditing import stated
from aipaging.core.paging.commands import (
    AcceptEnvelope,
    ClearEnvelope,
    ConfirmInstalled,
    EntitleClients,
    Heartbeat,
    RegisterAnchor,
    RegisterDomain,
    RegisterKeys,
    RegisterPath,
    RegisterService,
    RemoveAnchor,
    SetAnchorState,
    StartTerm,
    SuspectEnvelope,
)
from aipaging.core.paging.decision import Decision
from aipaging.core.paging.effects import PlaceAnchors, ReconcileSteering
from aipaging.core.paging.ending import advanced, lease_over
from aipaging.core.paging.events import (
    AnchorRegistered,
    AnchorRemoved,
    AnchorStateChanged,
    ClientsEntitled,
    CommitExpired,
    DomainRegistered,
    Event,
    HeartbeatSeen,
    LeasesRegranted,
    PathRegistered,
    Regrant,
    ServiceRegistered,
    SessionEnded,
    SteerInstalled,
    TermStarted,
)
from aipaging.core.paging.promise_events import EnvelopeAccepted, EnvelopeCleared, EnvelopeSuspected, KeysRegistered
from aipaging.core.paging.relocation_machine import OVER, RelocationPhase
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.core.paging.settings import Settings
from aipaging.core.paging.state import Session, State
from aipaging.core.paging.switching import killed_by

TERMS_BEGIN_US: Final = 1_767_225_600 * SECOND
"""2026-01-01T00:00:00Z: a term is at least the milliseconds since then, so that terms rise over restored backups."""

REGRANTS_MAX: Final = 1024
"""Grants in one batch record: its leaves stay below a megabyte."""


def start_term(state: State, command: StartTerm, now: Now) -> Decision:
    """Begin a leadership: everything that was granted before is granted anew or ended, under higher epochs."""
    # A restored backup does not know the terms that were used after it was made; the clock does.
    term = max(state.term + 1, (now.wall_us - TERMS_BEGIN_US) // MS)
    decision = Decision(
        events=[
            TermStarted(
                term=term,
                previous_term=state.term,
                settings=_remembering(command.settings, state),
                boot_us=now.boot_us,
                wall_us=now.wall_us,
                software=command.software,
            )
        ],
        effects=[PlaceAnchors(), ReconcileSteering(term=term)],
    )
    regrants: list[Regrant] = []
    for session in state.sessions.values():
        if session.available:
            decision.events += _called_off(session, now)
            left_ms = _left_ms(session, now)
            if session.lease is not None and killed_by(state, session, session.lease) is not None:
                decision.events += _outlived(session, now, StatusInfo.NETWORK_TERMINATED)
            elif left_ms < 1 or session.lease is None:
                decision.events += _outlived(session, now, StatusInfo.DURATION_EXPIRED)
            elif not session.lease.live:
                # A lost anchor's COMMIT ran out while the target was prepared: there is nothing left to grant anew.
                decision.events += _outlived(session, now, StatusInfo.ANCHOR_LOST)
            else:
                lease_ms = min(command.settings.lease.lease_ms, left_ms)
                epoch = Epoch(term, session.n + 1)
                regrants.append(
                    Regrant(session=session.session, anchor=session.lease.anchor, epoch=epoch, lease_ms=lease_ms)
                )
    for first in range(0, len(regrants), REGRANTS_MAX):
        batch = tuple(regrants[first : first + REGRANTS_MAX])
        decision.events.append(LeasesRegranted(regrants=batch, boot_us=now.boot_us))
    return decision


def _remembering(settings: Settings, state: State) -> Settings:
    """Return the settings with a longest lease that is not shorter than what earlier terms may have promised.

    Holders of before still count on it, whatever the configuration says now: capacity must be held as long.
    """
    if not state.term:
        return settings
    before = state.settings
    longest_ms = max(settings.lease_ms_max, before.lease_ms_max, before.lease.drain_ms_max)
    return replace(settings, lease_ms_max=longest_ms)


def _left_ms(session: Session, now: Now) -> int:
    return session.duration_ms - max(0, now.wall_us - session.requested_wall_us) // MS


def _called_off(session: Session, now: Now) -> list[Event]:
    """Return the end of a relocation that the last term left open."""
    relocation = session.relocation
    if relocation is None or relocation.phase in OVER:
        return []
    phase = RelocationPhase.FAILED if relocation.under_way else RelocationPhase.SOURCE_RELEASED
    void = [lease for lease in (session.target, session.source) if lease is not None and lease.live]
    return [
        advanced(session, phase, now, message="the controller restarted"),
        *(CommitExpired(session=session.session, epoch=lease.epoch, boot_us=now.boot_us) for lease in void),
    ]


def _outlived(session: Session, now: Now, status_info: StatusInfo) -> list[Event]:
    """Return the end of a session whose duration, or whose last COMMIT, ran out before this term."""
    events: list[Event] = []
    if session.lease is not None and session.lease.live:
        void = structs.replace(session.lease, deadline_us=now.boot_us)
        events.append(lease_over(session, void, now, cause=""))
    events.append(
        SessionEnded(
            session=session.session,
            status_info=status_info,
            boot_us=now.boot_us,
            wall_us=now.wall_us,
        )
    )
    return events


def register_service(state: State, command: RegisterService, _now: Now) -> Decision:
    """Put a service variant into the catalogue."""
    known = state.catalogue.services.get(command.service.aisi)
    return Decision() if known == command.service else Decision(events=[ServiceRegistered(service=command.service)])


def register_domain(state: State, command: RegisterDomain, _now: Now) -> Decision:
    """Make a domain known."""
    known = state.catalogue.domains.get(command.domain.name)
    known = known and stated(state, known)
    return Decision() if known == command.domain else Decision(events=[DomainRegistered(domain=command.domain)])


def register_path(state: State, command: RegisterPath, _now: Now) -> Decision:
    """Make the transport between two domains known."""
    known = state.catalogue.path_to(command.path.access, command.path.compute)
    return Decision() if known == command.path else Decision(events=[PathRegistered(path=command.path)])


def accept_envelope(state: State, command: AcceptEnvelope, now: Now) -> Decision:
    """Put an envelope into force; the sessions that cross its domain are looked at next.

    It was verified before, against the state of then: what may have changed since is judged again.

    Raises:
        InvalidInputError: Its domain is not registered.
        EnvelopeRefusedError: It is a replay, a rollback or an equivocation; it is not valid now; the domain has too
            many.
    """
    verified = command.verified
    envelope = verified.envelope
    if envelope.domain not in state.catalogue.domains:
        raise InvalidInputError(f"domain {envelope.domain} is not registered", code="NOT_FOUND", field="domain")
    trusted_by(state).require(verified, now.wall_us)
    return Decision(
        events=[
            EnvelopeAccepted(
                envelope=envelope,
                boot_us=now.boot_us,
                wall_us=now.wall_us,
                signed=command.signed.raw.decode("ascii"),
                key_id=verified.key_id,
            )
        ]
    )


def trusted_by(state: State) -> TrustedEnvelopes:
    """Return what was accepted so far, as the set against which the next envelope is held."""
    return TrustedEnvelopes(
        accepted={
            key: Accepted(sequence=envelope.sequence, digest=envelope.digest)
            for key, envelope in state.catalogue.envelopes.items()
        }
    )


def suspect_envelope(state: State, command: SuspectEnvelope, now: Now) -> Decision:
    """Stop to believe an envelope; the sessions that rest on it are looked at next.

    Raises:
        InvalidInputError: No envelope in force has the digest.
    """
    envelope = _in_force(state, command.digest)
    if state.catalogue.suspect.get(command.digest) == command.reason:
        return Decision()
    return Decision(
        events=[
            EnvelopeSuspected(
                domain=envelope.domain,
                segment=envelope.segment,
                digest=envelope.digest,
                reason=command.reason,
                boot_us=now.boot_us,
            )
        ]
    )


def clear_envelope(state: State, command: ClearEnvelope, now: Now) -> Decision:
    """Believe an envelope again.

    Raises:
        InvalidInputError: No envelope in force has the digest.
    """
    envelope = _in_force(state, command.digest)
    if command.digest not in state.catalogue.suspect:
        return Decision()
    return Decision(
        events=[
            EnvelopeCleared(
                domain=envelope.domain, segment=envelope.segment, digest=envelope.digest, boot_us=now.boot_us
            )
        ]
    )


def _in_force(state: State, digest: str) -> Envelope:
    for envelope in state.catalogue.envelopes.values():
        if envelope.digest == digest:
            return envelope
    raise InvalidInputError(f"no envelope in force has the digest {digest}", code="NOT_FOUND", field="digest")


def register_keys(state: State, command: RegisterKeys, _now: Now) -> Decision:
    """Trust a key set for a domain's envelopes; what is in force stays in force.

    Raises:
        InvalidInputError: The domain is not registered.
    """
    if command.domain not in state.catalogue.domains:
        raise InvalidInputError(f"domain {command.domain} is not registered", code="NOT_FOUND", field="domain")
    if state.promises.key_sets.get(command.domain) == command.key_set:
        return Decision()
    return Decision(events=[KeysRegistered(domain=command.domain, key_set=command.key_set)])


def register_anchor(state: State, command: RegisterAnchor, _now: Now) -> Decision:
    """Make an anchor known.

    Raises:
        InvalidInputError: Its domain or its service is not known.
    """
    anchor = command.anchor
    if anchor.domain not in state.catalogue.domains:
        raise InvalidInputError(f"domain {anchor.domain} is not registered", code="NOT_FOUND", field="domain")
    if anchor.aisi not in state.catalogue.services:
        raise InvalidInputError(f"service {anchor.aisi} is not registered", code="NOT_FOUND", field="aisi")
    known = state.catalogue.anchors.get(anchor.anchor)
    if known is not None and replace(known, state=anchor.state, held_back=anchor.held_back) == anchor:
        return Decision()
    return Decision(events=[AnchorRegistered(anchor=anchor)], effects=[PlaceAnchors()])


def remove_anchor(state: State, command: RemoveAnchor, _now: Now) -> Decision:
    """Take an anchor out of the catalogue.

    Raises:
        RefusedError: Sessions are on it, or its capacity is still held.
    """
    _known(state, command.anchor)
    if state.on_anchor.get(command.anchor) or state.ledger.anchor_mrps(command.anchor):
        raise RefusedError(
            f"anchor {command.anchor} still holds sessions or reservations: drain it and wait",
            code="INCOMPATIBLE_STATE",
        )
    return Decision(events=[AnchorRemoved(anchor=command.anchor)], effects=[PlaceAnchors()])


def set_anchor_state(state: State, command: SetAnchorState, now: Now) -> Decision:
    """Drain an anchor, or let it take sessions again.

    Raises:
        RefusedError: It cannot be set READY while it is not heard of.
    """
    anchor = _known(state, command.anchor)
    if command.state not in {AnchorState.READY, AnchorState.DRAINING}:
        raise RefusedError("an operator sets READY or DRAINING; the rest is observed", code="INVALID_ARGUMENT")
    if command.state is AnchorState.READY and anchor.state is not AnchorState.DRAINING:
        raise RefusedError(f"anchor {anchor.anchor} is {anchor.state.value}, not DRAINING", code="INCOMPATIBLE_STATE")
    if anchor.state is command.state and anchor.held_back:
        return Decision()
    # An anchor that drains by itself changes no state when an operator drains it, but who may end it.
    return _state_changed(anchor, command.state, command.cause, now)


def heartbeat(state: State, command: Heartbeat, now: Now) -> Decision:
    """Take note of an anchor, and of what it says of itself.

    An operator's DRAINING stays until the operator ends it; a sidecar cannot talk itself out of it, nor be restarted
    out of it. Its own DRAINING, before it stops, ends with the READY of the sidecar that is started after it.
    """
    anchor = _known(state, command.anchor)
    decision = Decision(events=[HeartbeatSeen(anchor=anchor.anchor, boot_us=now.boot_us)])
    said = AnchorState.DRAINING if anchor.held_back and command.state is AnchorState.READY else command.state
    if said is anchor.state:
        return decision
    cause = "UPSTREAM_UNHEALTHY" if said is AnchorState.LOST else "HEARTBEAT"
    changed = _state_changed(anchor, said, cause, now)
    decision.events += changed.events
    decision.effects += changed.effects
    return decision


def _state_changed(anchor: Anchor, to: AnchorState, cause: str, now: Now) -> Decision:
    """Return the change; the sessions on the anchor are moved one after the other when they are looked at next."""
    return Decision(events=[AnchorStateChanged(anchor=anchor.anchor, state=to, cause=cause, boot_us=now.boot_us)])


def _known(state: State, anchor: AnchorId) -> Anchor:
    known = state.catalogue.anchors.get(anchor)
    if known is None:
        raise InvalidInputError(f"there is no anchor {anchor}", code="NOT_FOUND", field="anchorId")
    return known


def confirm_installed(state: State, command: ConfirmInstalled, now: Now) -> Decision:
    """Record that a gateway takes up an epoch.

    Raises:
        RefusedError: The epoch is not live, so nothing may be steered by it (`NO_COMMIT`).
    """
    session = state.sessions.get(command.session)
    lease = session.lease_of(command.epoch) if session is not None else None
    if lease is None or not lease.live or lease.anchor != command.anchor or lease.deadline_us <= now.boot_us:
        raise RefusedError(f"epoch {command.epoch} of {command.session} is not live", code="NO_COMMIT")
    if session is not None and killed_by(state, session, lease) is not None:
        raise RefusedError(f"session {command.session} is stopped by the operator", code="NO_COMMIT")
    return Decision(
        events=[
            SteerInstalled(session=command.session, anchor=command.anchor, epoch=command.epoch, gateway=command.gateway)
        ]
    )


def entitle_clients(_state: State, command: EntitleClients, _now: Now) -> Decision:
    """Say who may hold sessions."""
    return Decision(events=[ClientsEntitled(clients=command.clients)])


def record_action(_state: State, command: RecordAction, _now: Now) -> Decision:
    """Put an operator's action on record; nothing else changes."""
    return Decision(events=[command.acted])
