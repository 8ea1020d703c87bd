"""Kill switches and the tenants' register: what operators say about who may have anything at all.

A kill takes effect at once: the sessions it is about end, their steering is revoked, and nothing waits for the journal.
It stands in the state until it is restored, over restarts; it only takes away, so a full journal has room for it.
"""

from typing import Final

from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import AnchorId, ServiceUri, TenantId
from aipaging.core.foundation.time import Now
from aipaging.core.lease.machine import Lease
from aipaging.core.paging.commands import ForcePolicies, Kill, RegisterTenant, Restore
from aipaging.core.paging.decision import Decision
from aipaging.core.paging.ending import ended
from aipaging.core.paging.events import PoliciesLoaded
from aipaging.core.paging.relocation import drain_cut, failed
from aipaging.core.paging.relocation_machine import RelocationPhase
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.core.paging.state import Session, State
from aipaging.core.paging.tenancy_events import (
    LetGo,
    PoliciesInForce,
    RoomLetGo,
    SwitchKilled,
    SwitchKind,
    SwitchRestored,
    TenantRegistered,
)

KILLED_AT_ONCE_MAX: Final = 2048
"""Sessions that end in the step of a kill: about a tenth of a second. The others end in the wakes that follow at once;
until then no gateway can take them up."""

TENANTS_MAX: Final = 100_000
"""Registered tenants: at a kilobyte each, a hundred megabytes at the very worst."""

SWITCHES_MAX: Final = 4_096
"""Switches that are thrown at one time: more is ALL."""


def register_tenant(state: State, command: RegisterTenant, _now: Now) -> Decision:
    """Make a tenant known, or describe it anew; what it holds beyond lowered quotas it keeps.

    Raises:
        InvalidInputError: A quota is out of range, or there are too many tenants.
    """
    tenant, known = command.tenant, state.tenancy.tenants
    tenant.quotas.checked()
    if known.get(tenant.tenant) == tenant:
        return Decision()
    if tenant.tenant not in known and len(known) >= TENANTS_MAX:
        raise InvalidInputError(f"{len(known)} tenants are registered: no more are allowed", code="OUT_OF_RANGE")
    return Decision(events=[TenantRegistered(tenant=tenant)])


def kill(state: State, command: Kill, now: Now) -> Decision:
    """Stop a tenant, a service, an anchor, or everything.

    Raises:
        InvalidInputError: Too many switches are thrown.
    """
    if (command.kind, command.name) in state.tenancy.switches:
        return Decision()
    check_room(state)
    killed = SwitchKilled(
        kind=command.kind, name=command.name, reason=command.reason, boot_us=now.boot_us, wall_us=now.wall_us
    )
    decision = Decision(events=[killed, *_claims_over(state, killed)])
    count = 0
    for session in state.sessions.values():
        if count >= KILLED_AT_ONCE_MAX:
            break
        stop = stopped(state, session, now, killed) if session.available else None
        if stop is not None:
            count += 1
            decision.events += stop.events
            decision.effects += stop.effects
    return decision


def check_room(state: State) -> None:
    """Do nothing while another switch may be thrown.

    Raises:
        InvalidInputError: Too many are.
    """
    if len(state.tenancy.switches) >= SWITCHES_MAX:
        raise InvalidInputError(f"{SWITCHES_MAX} switches are thrown: kill ALL instead", code="OUT_OF_RANGE")


def _claims_over(state: State, killed: SwitchKilled) -> list[RoomLetGo]:
    """Return the end of the claims of tenants that are stopped: nobody makes room for them."""
    whole = killed.kind is SwitchKind.ALL
    return [
        RoomLetGo(tenant=claim.tenant, for_session=claim.page, cause=LetGo.KILLED)
        for claim in state.tenancy.claims.values()
        if whole or (killed.kind is SwitchKind.TENANT and claim.tenant == TenantId(killed.name))
    ]


def restore(state: State, command: Restore, _now: Now) -> Decision:
    """Let what was killed be paged again; its sessions are gone.

    Raises:
        InvalidInputError: It is not killed.
    """
    if (command.kind, command.name) not in state.tenancy.switches:
        what = f"{command.kind.value} {command.name}".strip()
        raise InvalidInputError(f"{what} is not killed", code="NOT_FOUND", field="name")
    return Decision(events=[SwitchRestored(kind=command.kind, name=command.name, reason=command.reason)])


def touches(state: State, session: Session, killed: SwitchKilled) -> bool:
    """Tell whether a switch is about a session or one of its COMMITs."""
    match killed.kind:
        case SwitchKind.ALL:
            return True
        case SwitchKind.TENANT:
            return session.tenant == TenantId(killed.name)
        case _:
            return any(_on(state, lease, killed) for lease in session.leases if lease.live)


def _on(state: State, lease: Lease, killed: SwitchKilled) -> bool:
    if killed.kind is SwitchKind.ANCHOR:
        return lease.anchor == AnchorId(killed.name)
    anchor = state.catalogue.anchors.get(lease.anchor)
    return killed.kind is SwitchKind.SERVICE and anchor is not None and anchor.aisi == ServiceUri(killed.name)


def stopped(state: State, session: Session, now: Now, killed: SwitchKilled) -> Decision | None:
    """Return what a switch does to a session: it ends, or loses what it holds at the killed anchor; None: nothing."""
    if not touches(state, session, killed):
        return None
    whole = killed.kind in {SwitchKind.ALL, SwitchKind.TENANT}
    serves = session.lease is not None and session.lease.live and _on(state, session.lease, killed)
    if not whole and not serves:
        source, target = session.source, session.target
        if source is not None and source.live and _on(state, source, killed):
            return drain_cut(state, session, now)
        deciding = session.relocation is not None and session.relocation.phase is RelocationPhase.DECIDED
        if target is not None and deciding and session.lease is not None and session.lease.live:
            return failed(state, session, "the target was killed", now)
    return ended(state, session, StatusInfo.NETWORK_TERMINATED, now, cause="KILLED")


def stopped_by_any(state: State, session: Session, now: Now) -> Decision | None:
    """Return what the switches that are thrown do to a session, or None."""
    for killed in state.tenancy.switches.values():
        stop = stopped(state, session, now, killed)
        if stop is not None:
            return stop
    return None


def killed_by(state: State, session: Session, lease: Lease) -> SwitchKilled | None:
    """Return the switch that forbids steering by a COMMIT, or None."""
    tenancy = state.tenancy
    if not tenancy.switches:
        return None
    anchor = state.catalogue.anchors.get(lease.anchor)
    aisi = anchor.aisi if anchor is not None else session.aisi
    return tenancy.killed_tenant(session.tenant) or tenancy.killed_anchor(lease.anchor, aisi)


def force_policies(state: State, command: ForcePolicies, _now: Now) -> Decision:
    """Put a set of policies into force, in one step; recorded where it is another one than before."""
    digest = command.policies.digest if command.policies is not None else ""
    decision = Decision(events=[PoliciesLoaded(policies=command.policies)])
    if digest != state.tenancy.policies_digest:
        decision.events.append(PoliciesInForce(digest=digest, policies=command.count))
    return decision
