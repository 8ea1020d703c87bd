"""What the events about tenants, switches and policies make of the state; called by `core.paging.evolve` only."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from msgspec import structs

from aipaging.core.foundation.time import BootUs, Now
from aipaging.core.lease.expiry import Due
from aipaging.core.paging import tenancy_events as t
from aipaging.core.paging.events import PoliciesLoaded
from aipaging.core.paging.governing import charged
from aipaging.core.paging.metering import remember
from aipaging.core.paging.state import State
from aipaging.core.paging.switching import touches
from aipaging.core.paging.tenancy_events import KEPT_US


def _tenant_registered(state: State, event: t.TenantRegistered) -> None:
    before = state.tenancy.tenants.get(event.tenant.tenant)
    if before is not None and before.quotas.period_s != event.tenant.quotas.period_s:
        account = state.tenancy.account(event.tenant.tenant)  # periods are counted anew
        account.period, account.spent = 0, 0
    state.tenancy.tenants[event.tenant.tenant] = event.tenant


def _killed(state: State, event: t.SwitchKilled) -> None:
    state.tenancy.switches[event.kind, event.name] = event
    for session in state.sessions.values():
        if session.available and touches(state, session, event):
            # Most end in the same step; whoever is left is looked at in the next wake.
            state.queue.add(event.boot_us, Due.RELOCATION, session.session)


def _restored(state: State, event: t.SwitchRestored) -> None:
    del state.tenancy.switches[event.kind, event.name]


def _spend_charged(state: State, event: t.SpendCharged) -> None:
    state.tenancy.account(event.tenant).charge(event.period, event.amount)
    session = state.sessions.get(event.for_session)
    if session is not None:
        state.sessions[event.for_session] = charged(session, event)


def _spend_refunded(state: State, event: t.SpendRefunded) -> None:
    state.tenancy.account(event.tenant).charge(event.period, -event.amount)


def _policies_in_force(state: State, event: t.PoliciesInForce) -> None:
    state.tenancy.policies_digest = event.digest


def _policies_loaded(state: State, event: PoliciesLoaded) -> None:
    tenancy = state.tenancy
    tenancy.policies, tenancy.policies_before = event.policies, tenancy.policies


def _policy_applied(state: State, event: t.PolicyApplied) -> None:
    session = state.sessions[event.session]
    state.sessions[event.session] = structs.replace(session, policies=event.policies)


def _room_claimed(state: State, event: t.RoomClaimed) -> None:
    claim = event.claim
    state.tenancy.claims[claim.page] = claim
    state.queue.add(claim.until_us, Due.CLAIM, claim.page)


def _room_let_go(state: State, event: t.RoomLetGo) -> None:
    tenancy = state.tenancy
    del tenancy.claims[event.for_session]
    for session in [victim for victim, page in tenancy.victims.items() if page == event.for_session]:
        del tenancy.victims[session]


def _preempted(state: State, event: t.SessionPreempted) -> None:
    state.tenancy.victims[event.session] = event.by_session
    state.queue.add(event.boot_us, Due.RELOCATION, event.session)


def claims_outlive(state: State, held_us: BootUs) -> None:
    """Keep claimed room beyond a term that begins: everything that leaves is held anew until `held_us`."""
    for page, claim in state.tenancy.claims.items():
        state.tenancy.claims[page] = replace(claim, until_us=BootUs(held_us + KEPT_US))


def rearm_claims(state: State, now: Now) -> None:
    """Put the ends of claims, and those who have to make room, on a new agenda."""
    for page, claim in state.tenancy.claims.items():
        state.queue.add(claim.until_us, Due.CLAIM, page)
    for session in state.tenancy.victims:
        state.queue.add(now.boot_us, Due.RELOCATION, session)


def _metered(state: State, event: t.SessionsMetered) -> None:
    for each in event.metered:
        session = state.sessions.get(each.session)
        if session is not None and each.requests:
            state.sessions[each.session] = structs.replace(session, metered=session.metered + each.requests)
    if event.boot:  # earlier software wrote none
        remember(state.tenancy.meters.setdefault(event.metered[0].anchor, {}), event.boot, event.batch)


EVOLVERS: Final[Mapping[type, Callable[[State, Any], None]]] = MappingProxyType(
    {
        t.TenantRegistered: _tenant_registered,
        t.SwitchKilled: _killed,
        t.SwitchRestored: _restored,
        t.SpendCharged: _spend_charged,
        t.SpendRefunded: _spend_refunded,
        t.PoliciesInForce: _policies_in_force,
        PoliciesLoaded: _policies_loaded,
        t.PolicyApplied: _policy_applied,
        t.RoomClaimed: _room_claimed,
        t.RoomLetGo: _room_let_go,
        t.SessionPreempted: _preempted,
        t.SessionsMetered: _metered,
    }
)
