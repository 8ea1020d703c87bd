"""The evidence of what happens to tenants, and under switches and policies; part of `core.paging.records`."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from aipaging.core.evidence.record import Fields, commitment
from aipaging.core.paging import tenancy_events as t
from aipaging.core.paging.events import SessionRefused
from aipaging.core.paging.state import State

_JSON: Final = msgspec.json.Encoder(order="sorted").encode

POLICIES_LISTED_MAX: Final = 32
"""Ids of policies in one record; a decision that rests on more is named by the first."""


def ascii_text(text: str) -> str:
    """Return what an operator wrote as records can hold it."""
    return text.encode("ascii", "replace").decode()


def _tenant_registered(event: t.TenantRegistered, _state: State) -> Fields:
    tenant = event.tenant
    return {
        "tenant": tenant.tenant,
        "sessions_max": tenant.quotas.sessions_max,
        "requests_mrps_max": tenant.quotas.requests_mrps_max,
        "reserved_mrps_max": tenant.quotas.reserved_mrps_max,
        "spend_max": tenant.quotas.spend_max,
        "period_s": tenant.quotas.period_s,
        "priority": tenant.priority.name,
        "preempts": int(tenant.preempts),
    }


def _switch(event: t.SwitchKilled | t.SwitchRestored, _state: State) -> Fields:
    return {"kind": event.kind.value, "name": event.name, "reason": ascii_text(event.reason)}


def _charged(event: t.SpendCharged, _state: State) -> Fields:
    return {
        "tenant": event.tenant,
        "for_session": event.for_session,
        "period": event.period,
        "amount": event.amount,
        "price": event.price,
    }


def _refunded(event: t.SpendRefunded, _state: State) -> Fields:
    return {
        "tenant": event.tenant,
        "for_session": event.for_session,
        "period": event.period,
        "amount": event.amount,
    }


def _policies_in_force(event: t.PoliciesInForce, _state: State) -> Fields:
    return {"digest": event.digest, "policies": event.policies}


def refused(event: SessionRefused, _state: State) -> Fields:
    """Return the public fields of a refusal; where policies are why, with their ids."""
    return {
        "session": event.session,
        "tenant": event.tenant,
        "client": event.client,
        "constraint": event.constraint,
        "candidates": event.candidates,
        "policies": _ids(event.policies),
        "intent_commitment": commitment(event.salt, _JSON(event.intent)),
    }


def _ids(policies: tuple[str, ...]) -> str:
    return ascii_text(",".join(policies[:POLICIES_LISTED_MAX]))


def _policy_applied(event: t.PolicyApplied, _state: State) -> Fields:
    return {
        "session": event.session,
        "action": event.action,
        "anchor": event.anchor,
        "policies": _ids(event.policies),
        "digest": event.digest,
    }


def _claimed(event: t.RoomClaimed, _state: State) -> Fields:
    claim = event.claim
    return {
        "tenant": claim.tenant,
        "for_session": claim.page,
        "priority": claim.priority.value,
        "anchor": claim.anchor,
        "domains": ",".join(claim.domains),
        "rate_mrps": claim.rate_mrps,
        "burst": claim.burst,
        "until_us": claim.until_us,
    }


def _let_go(event: t.RoomLetGo, _state: State) -> Fields:
    return {"tenant": event.tenant, "for_session": event.for_session, "cause": event.cause.value}


def _preempted(event: t.SessionPreempted, _state: State) -> Fields:
    return {
        "session": event.session,
        "priority": event.priority.value,
        "by_session": event.by_session,
        "by_priority": event.by_priority.value,
    }


def _metered(_event: t.SessionsMetered, _state: State) -> Fields:
    return {}


def metered_leaves(event: t.SessionsMetered) -> tuple[Fields, ...]:
    """Return the leaves of a batch of counts."""
    return tuple(
        {
            "session": each.session,
            "tenant": each.tenant,
            "anchor": each.anchor,
            "requests": each.requests,
            "tokens": each.tokens,
        }
        for each in event.metered
    )


FIELDS: Final[Mapping[type, tuple[str, Callable[[Any, State], Fields]]]] = MappingProxyType(
    {
        t.TenantRegistered: ("TENANT_REGISTERED", _tenant_registered),
        t.SwitchKilled: ("SWITCH_KILLED", _switch),
        t.SwitchRestored: ("SWITCH_RESTORED", _switch),
        t.SpendCharged: ("SPEND_CHARGED", _charged),
        t.SpendRefunded: ("SPEND_REFUNDED", _refunded),
        t.PoliciesInForce: ("POLICIES_IN_FORCE", _policies_in_force),
        t.PolicyApplied: ("POLICY_APPLIED", _policy_applied),
        t.RoomClaimed: ("ROOM_CLAIMED", _claimed),
        t.RoomLetGo: ("ROOM_LET_GO", _let_go),
        t.SessionPreempted: ("SESSION_PREEMPTED", _preempted),
        t.SessionsMetered: ("SESSIONS_METERED", _metered),
    }
)
