"""What the events about contracts make of the state; called by `core.paging.evolve` only."""

from msgspec.structs import replace

from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import IllegalTransitionError
from aipaging.core.lease.machine import Lease
from aipaging.core.paging import session_machine
from aipaging.core.paging.promise_events import CommitRebound, SessionDegraded, SessionRestored
from aipaging.core.paging.promises import Contract, ContractState
from aipaging.core.paging.protection import protect
from aipaging.core.paging.session_machine import SessionVerb
from aipaging.core.paging.state import Session, State


def with_lease(session: Session, lease: Lease) -> Session:
    """Return the session with the lease of that epoch replaced."""
    if session.lease is not None and session.lease.epoch == lease.epoch:
        return replace(session, lease=lease)
    if session.target is not None and session.target.epoch == lease.epoch:
        return replace(session, target=lease)
    return replace(session, source=lease)


def held(session: Session, epoch: Epoch) -> Lease:
    """Return the COMMIT of an epoch that the session holds.

    Raises:
        IllegalTransitionError: It holds none.
    """
    lease = session.lease_of(epoch)
    if lease is None:
        raise IllegalTransitionError(machine="lease", phase="NONE", event=f"epoch {epoch}")
    return lease


def commit_rebound(state: State, event: CommitRebound) -> None:
    """A COMMIT rests on other envelopes."""
    session = state.sessions[event.session]
    lease = replace(held(session, event.epoch), bound=event.bound, envelopes=event.envelopes)
    state.sessions[event.session] = with_lease(session, lease)
    protect(state, event.session)


def session_degraded(state: State, event: SessionDegraded) -> None:
    """A contract is not provable: it is degraded since the first constraint that failed."""
    session = state.sessions[event.session]
    since_us = session.contract.since_us if session.degraded and session.contract is not None else event.wall_us
    contract = Contract(
        state=ContractState.DEGRADED,
        since_us=since_us,
        constraint=event.constraint,
        message=event.message,
        nearest=event.nearest,
    )
    state.sessions[event.session] = replace(
        session, phase=session_machine.advance(session.phase, SessionVerb.DEGRADE), contract=contract
    )


def session_restored(state: State, event: SessionRestored) -> None:
    """A contract is provable again."""
    session = state.sessions[event.session]
    state.sessions[event.session] = replace(
        session,
        phase=session_machine.advance(session.phase, SessionVerb.RESTORE),
        contract=Contract(state=ContractState.HELD, since_us=event.wall_us),
    )
