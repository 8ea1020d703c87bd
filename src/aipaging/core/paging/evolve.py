"""What each event makes of the state: the only place that changes it.

Nothing here decides, refuses or asks the time; replaying the same events gives the same state. An event that does
not fit raises `IllegalTransitionError` before anything is changed.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from msgspec.structs import replace

from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import IllegalTransitionError
from aipaging.core.foundation.names import SessionId
from aipaging.core.foundation.time import MS, BootUs, Now, stretched_us
from aipaging.core.lease import machine as lease_machine
from aipaging.core.lease.expiry import Due, ExpiryQueue
from aipaging.core.lease.ledger import Reservation
from aipaging.core.lease.machine import Lease, LeasePhase, LeaseVerb
from aipaging.core.paging import acting, auditing, session_machine, settings, shared, sinks, standing
from aipaging.core.paging import events as e
from aipaging.core.paging import evolve_catalogue as catalogue
from aipaging.core.paging import evolve_contract as contract
from aipaging.core.paging import promise_events as p
from aipaging.core.paging.evolve_contract import held, with_lease
from aipaging.core.paging.evolve_tenancy import EVOLVERS as TENANCY
from aipaging.core.paging.evolve_tenancy import claims_outlive, rearm_claims
from aipaging.core.paging.promises import Contract, ContractState
from aipaging.core.paging.protection import protect
from aipaging.core.paging.relocation_machine import RelocationPhase
from aipaging.core.paging.session_machine import SessionPhase, SessionVerb
from aipaging.core.paging.settings_steps import settings_changed
from aipaging.core.paging.sink_steps import sink_set
from aipaging.core.paging.state import Relocation, Session, State


def _term_started(state: State, event: e.TermStarted) -> None:
    lease = event.settings.lease
    believed_ms = max(event.settings.lease_ms_max, lease.drain_ms_max)
    held_us = BootUs(event.boot_us + stretched_us(believed_ms * MS, lease.drift_ppm) + lease.grace_ms * MS)
    state.term = event.term
    state.settings = event.settings
    # Instants of an earlier boot mean nothing now: what was granted is void for steering until granted again, and
    # held for capacity as long as the longest lease could still be believed in somewhere.
    state.ledger.hold_all(held_us)
    for session in list(state.sessions.values()):
        elapsed_us = max(0, event.wall_us - session.requested_wall_us)
        state.sessions[session.session] = replace(
            session,
            ends_us=BootUs(event.boot_us + max(0, session.duration_ms * MS - elapsed_us)),
            lease=_void(session.lease, event.boot_us),
            target=_void(session.target, event.boot_us),
            source=_void(session.source, event.boot_us),
        )
    claims_outlive(state, held_us)
    state.heard_us = dict.fromkeys(state.catalogue.anchors, event.boot_us)
    rearm(state, Now(boot_us=event.boot_us, wall_us=event.wall_us))


def rearm(state: State, now: Now) -> None:
    """Make the agenda anew from the state: after a recovery, and when a term begins."""
    state.queue = ExpiryQueue()
    for holder, reservation in state.ledger.reservations():
        state.queue.add(reservation.hold_us, Due.RELEASE, holder, epoch=reservation.epoch)
    catalogue_now = state.catalogue
    believed = {known.digest for known in catalogue_now.envelopes.values()} - catalogue_now.suspect.keys()
    for session in state.sessions.values():
        _rearm_session(state, session, now)
        if session.lease is not None and not believed.issuperset(session.lease.envelopes):
            # An envelope changed, and the controller stopped before the session was looked at.
            state.queue.add(now.boot_us, Due.RELOCATION, session.session)
    rearm_claims(state, now)
    for envelope in state.catalogue.envelopes.values():
        catalogue.until_over(state, envelope, now.boot_us, now.wall_us)
    for anchor in state.catalogue.anchors:
        heard_us = state.heard_us.get(anchor, now.boot_us)
        state.queue.add(BootUs(heard_us + state.settings.anchor_lost_ms * MS), Due.ANCHOR, anchor)


def _rearm_session(state: State, session: Session, now: Now) -> None:
    if not session.available:
        state.queue.add(now.after(state.settings.kept_ms * MS), Due.FORGET, session.session)
        return
    state.queue.add(session.ends_us, Due.SESSION_END, session.session)
    for lease in session.leases:
        if lease.live and lease.deadline_us > now.boot_us:
            _arm(state, session.session, lease)
    serving = session.lease
    unsettled = session.relocation is not None and session.relocation.phase is not RelocationPhase.SOURCE_RELEASED
    # The client moved, or the anchor changed its state, and the controller stopped before the session was looked at.
    moves = serving is not None and (
        serving.domains[0] != session.intent.place
        or state.catalogue.anchors[serving.anchor].state is not AnchorState.READY
    )
    if session.degraded or unsettled or moves:
        state.queue.add(now.boot_us, Due.RELOCATION, session.session)


def _void(lease: Lease | None, boot_us: BootUs) -> Lease | None:
    return replace(lease, granted_us=boot_us, deadline_us=boot_us) if lease else None


def _session_requested(state: State, event: e.SessionRequested) -> None:
    duration_ms = shared.same_duration(event.intent.duration_s * 1000)
    ends_us = BootUs(event.boot_us + duration_ms * MS)
    state.sessions[event.session] = Session(
        session=event.session,
        tenant=shared.same_name(event.tenant),
        client=shared.same_name(event.client),
        aisi=shared.same_name(event.aisi),
        intent=shared.same_intent(event.intent),
        token_id=event.token_id,
        salt=event.salt,
        phase=SessionPhase.REQUESTED,
        key=event.key,
        certificate=event.certificate,
        requested_wall_us=event.wall_us,
        duration_ms=duration_ms,
        ends_us=ends_us,
    )
    if event.key:
        state.keyed[event.client, event.key] = event.session
    state.queue.add(ends_us, Due.SESSION_END, event.session)


def _nothing(state: State, event: e.SessionRefused | e.SteerInstalled) -> None:
    """Leave evidence only: a refused session holds nothing; who holds an epoch is known from its deadline."""


def _commit_granted(state: State, event: e.CommitGranted) -> None:
    session = state.sessions[event.session]
    lease = Lease(
        anchor=shared.same_name(event.anchor),
        domains=shared.same_names(event.domains),
        epoch=shared.same_epoch(event.epoch),
        phase=LeasePhase.GRANTED,
        rate_mrps=event.rate_mrps,
        granted_us=event.boot_us,
        deadline_us=BootUs(event.boot_us + event.lease_ms * MS),
        bound=shared.same_bound(event.bound),
        envelopes=shared.same_names(event.envelopes),
    )
    if session.relocation and session.relocation.under_way and event.cause == "RELOCATION":
        session = replace(session, target=lease, n=event.epoch.n)
    else:
        phase = session.phase
        if phase is SessionPhase.REQUESTED:
            phase = session_machine.advance(phase, SessionVerb.ADMIT)
            state.live += 1
            state.tenancy.joined(session.session, session.tenant, session.intent.rate_mrps)
        kept = session.contract or Contract(state=ContractState.HELD, since_us=session.requested_wall_us)
        # One copy and not three: copying a session is a tenth of what a page costs.
        session = replace(session, phase=phase, lease=lease, n=event.epoch.n, contract=kept)
        _serve_from(state, session)
    reservation = Reservation(
        lease.anchor, lease.domains, event.rate_mrps, session.tenant, session.intent.burst, lease.epoch
    )
    state.ledger.reserve(session.session, reservation)
    state.sessions[event.session] = session
    protect(state, event.session)
    _arm(state, session.session, lease)
    if event.cause in {"RECOVERY", "RELOCATION_FAILED"}:
        # The bound is that of the COMMIT before: look whether it still holds.
        state.queue.add(event.boot_us, Due.RELOCATION, event.session)


def _serve_from(state: State, session: Session) -> None:
    """Index the session under the anchor that serves it."""
    before = state.sessions[session.session].lease
    if before is not None:
        state.on_anchor.get(before.anchor, {}).pop(session.session, None)
    if session.lease is not None and session.available:
        state.on_anchor.setdefault(session.lease.anchor, {})[session.session] = None


def _arm(state: State, session: SessionId, lease: Lease) -> None:
    state.queue.add(lease.deadline_us, Due.EXPIRE, session, epoch=lease.epoch)
    arm_renewal(state, session, lease)


def arm_renewal(state: State, session: SessionId, lease: Lease) -> None:
    """Put the lease's next renewal on the agenda."""
    state.queue.add(lease.renews_us(session), Due.RENEW, session, epoch=lease.epoch)


def _leases_renewed(state: State, event: e.LeasesRenewed) -> None:
    deadlines_us: dict[int, BootUs] = {}  # of many leases one instant each, and most last as long
    for renewal in event.renewals:
        session = state.sessions[renewal.session]
        lease = held(session, renewal.epoch)
        deadline_us = deadlines_us.setdefault(renewal.lease_ms, BootUs(event.boot_us + renewal.lease_ms * MS))
        renewed = replace(
            lease,
            phase=lease_machine.advance(lease.phase, LeaseVerb.RENEW),
            granted_us=event.boot_us,
            deadline_us=deadline_us,
            renewal=renewal.renewal,
        )
        state.sessions[renewal.session] = with_lease(session, renewed)
        arm_renewal(state, session.session, renewed)


def _leases_regranted(state: State, event: e.LeasesRegranted) -> None:
    for regrant in event.regrants:
        session = state.sessions[regrant.session]
        before = session.lease
        if before is None:
            raise IllegalTransitionError(machine="lease", phase="NONE", event="REGRANT")
        lease = replace(
            before,
            epoch=shared.same_epoch(regrant.epoch),
            phase=LeasePhase.GRANTED,
            granted_us=event.boot_us,
            deadline_us=BootUs(event.boot_us + regrant.lease_ms * MS),
            renewal=0,
        )
        state.ledger.move(regrant.session, before.epoch, lease.epoch)
        state.sessions[regrant.session] = replace(session, lease=lease, n=lease.epoch.n)
        _arm(state, session.session, lease)


def _finish(state: State, session_id: SessionId, epoch: Epoch, verb: LeaseVerb) -> None:
    """End a lease and keep its reservation until the last holder has let go."""
    session = state.sessions[session_id]
    lease = held(session, epoch)
    ended = replace(lease, phase=lease_machine.advance(lease.phase, verb))
    release_us = state.settings.lease.release_us(lease.granted_us, lease.deadline_us)
    kept_us = state.ledger.hold(session_id, epoch, release_us)
    state.queue.add(kept_us, Due.RELEASE, session_id, epoch=epoch)
    session = with_lease(session, ended)
    if session.target is not None and session.target.epoch == epoch:
        session = replace(session, target=None)
    if session.source is not None and session.source.epoch == epoch:
        session = replace(session, source=None)
    state.sessions[session_id] = session


def _commit_revoked(state: State, event: e.CommitRevoked) -> None:
    _finish(state, event.session, event.epoch, LeaseVerb.REVOKE)


def _commit_expired(state: State, event: e.CommitExpired) -> None:
    _finish(state, event.session, event.epoch, LeaseVerb.EXPIRE)


def _commit_draining(state: State, event: e.CommitDraining) -> None:
    session = state.sessions[event.session]
    lease = held(session, event.epoch)
    drained_us = BootUs(event.boot_us + event.drain_ms * MS)
    draining = replace(
        lease,
        phase=lease_machine.advance(lease.phase, LeaseVerb.DRAIN),
        # Holders may still believe in the deadline that they were told; draining never ends before it.
        deadline_us=max(lease.deadline_us, drained_us),
    )
    state.sessions[event.session] = with_lease(session, draining)
    state.ledger.leave(event.session, event.epoch)
    state.queue.add(draining.deadline_us, Due.EXPIRE, event.session, epoch=event.epoch)


def _reservation_released(state: State, event: e.ReservationReleased) -> None:
    state.ledger.release(event.session, event.epoch)


def _relocation_advanced(state: State, event: e.RelocationAdvanced) -> None:
    session = state.sessions[event.session]
    before = session.relocation.failures if session.relocation else 0
    relocation = Relocation(
        number=event.number,
        phase=event.phase,
        cause=event.cause,
        source=event.source,
        target=event.target,
        message=event.message,
        since_us=event.boot_us,
        failures=_failures(event.phase, before),
    )
    session = replace(session, relocation=relocation)
    if event.phase is RelocationPhase.SWITCHED:
        drains = session.lease is not None and session.lease.live  # a lost source's COMMIT may have run out meanwhile
        source = session.lease if drains else None
        session = replace(session, lease=session.target, source=source, target=None)
        _serve_from(state, session)
        state.tenancy.victims.pop(event.session, None)  # it has made room
    state.sessions[event.session] = session
    _look_again(state, relocation, event)


def _failures(phase: RelocationPhase, before: int) -> int:
    if phase is RelocationPhase.FAILED:
        return before + 1
    return 0 if phase is RelocationPhase.SWITCHED else before


def _look_again(state: State, relocation: Relocation, event: e.RelocationAdvanced) -> None:
    """Put the relocation's time limit, or its retry, on the agenda."""
    wait_ms = {
        RelocationPhase.SWITCHED: 0,
        RelocationPhase.SOURCE_RELEASED: 0,
        RelocationPhase.FAILED: state.settings.retry_ms,
    }.get(relocation.phase, state.settings.prepare_ms_max)
    state.queue.add(BootUs(event.boot_us + wait_ms * MS), Due.RELOCATION, event.session)


def _session_extended(state: State, event: e.SessionExtended) -> None:
    session = state.sessions[event.session]
    longer_us = (event.duration_ms - session.duration_ms) * MS
    session = replace(
        session,
        phase=session_machine.advance(session.phase, SessionVerb.EXTEND),
        duration_ms=event.duration_ms,
        ends_us=BootUs(session.ends_us + longer_us),
    )
    state.sessions[event.session] = session
    state.queue.add(session.ends_us, Due.SESSION_END, event.session)
    if session.lease is not None:
        # A lease that was cut short at the old end wants renewing now, before all else: whoever is told is to have it.
        state.queue.add(BootUs(0), Due.RENEW, event.session, epoch=session.lease.epoch)


def _session_ended(state: State, event: e.SessionEnded) -> None:
    session = state.sessions[event.session]
    ended = replace(
        session,
        phase=session_machine.advance(session.phase, SessionVerb.END),
        status_info=event.status_info,
        ended_wall_us=event.wall_us,
    )
    _serve_from(state, ended)
    state.sessions[event.session] = ended
    state.live -= 1
    state.tenancy.victims.pop(event.session, None)
    state.tenancy.left(event.session, session.tenant, session.intent.rate_mrps)
    state.queue.add(BootUs(event.boot_us + state.settings.kept_ms * MS), Due.FORGET, event.session)


def _client_moved(state: State, event: e.ClientMoved) -> None:
    session = state.sessions[event.session]
    state.sessions[event.session] = replace(session, intent=replace(session.intent, place=event.place))
    state.queue.add(event.boot_us, Due.RELOCATION, event.session)


def _session_forgotten(state: State, event: e.SessionForgotten) -> None:
    session = state.sessions.pop(event.session)
    state.keyed.pop((session.client, session.key), None)


_EVOLVERS: Final[Mapping[type[e.Event], Callable[[State, Any], None]]] = MappingProxyType(
    {
        e.TermStarted: _term_started,
        settings.SettingsChanged: settings_changed,
        e.ServiceRegistered: catalogue.service_registered,
        e.DomainRegistered: catalogue.domain_registered,
        e.PathRegistered: catalogue.path_registered,
        p.EnvelopeAccepted: catalogue.envelope_accepted,
        p.EnvelopeSuspected: catalogue.envelope_suspected,
        p.EnvelopeCleared: catalogue.envelope_cleared,
        standing.AuditFound: auditing.audit_found,
        standing.TrustChanged: catalogue.trust_changed,
        p.KeysRegistered: catalogue.keys_registered,
        e.AnchorRegistered: catalogue.anchor_registered,
        e.AnchorStateChanged: catalogue.anchor_state_changed,
        e.AnchorRemoved: catalogue.anchor_removed,
        e.SessionRequested: _session_requested,
        e.SessionRefused: _nothing,
        e.CommitGranted: _commit_granted,
        p.CommitRebound: contract.commit_rebound,
        p.SessionDegraded: contract.session_degraded,
        p.SessionRestored: contract.session_restored,
        e.LeasesRenewed: _leases_renewed,
        e.LeasesRegranted: _leases_regranted,
        e.CommitRevoked: _commit_revoked,
        e.CommitExpired: _commit_expired,
        e.CommitDraining: _commit_draining,
        e.SteerInstalled: _nothing,
        e.ReservationReleased: _reservation_released,
        e.RelocationAdvanced: _relocation_advanced,
        e.SessionExtended: _session_extended,
        e.SessionEnded: _session_ended,
        e.ClientMoved: _client_moved,
        sinks.SinkSet: sink_set,
        e.SessionForgotten: _session_forgotten,
        e.HeartbeatSeen: catalogue.heard,
        e.ClientsEntitled: catalogue.clients_entitled,
        **dict.fromkeys((acting.OperatorActed, acting.SessionErased), _nothing),
        **TENANCY,
    }
)


def evolve(state: State, event: e.Event) -> State:
    """Apply one event; returns the same state, changed.

    Raises:
        IllegalTransitionError: The event does not fit; the state is unchanged.
    """
    _EVOLVERS[type(event)](state, event)
    return state
