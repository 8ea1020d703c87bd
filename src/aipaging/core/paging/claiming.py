"""Room is made for a page of a higher class, and kept for it until it is asked again.

A displaced session's rate is free only when the last holder of its COMMIT has let go, seconds later. So the page is
answered PREEMPTING, with the time to ask again, and the room is *claimed*: against pages and relocations of its own
class and below it counts as reserved, on the whole path, for as long as it may take and `KEPT_US` more. A claim is
admission's matter alone: the ledger holds what is held, and the page that asks again is examined like any other.

Those who have to make room are first looked at for another anchor: with one they are relocated, make-before-break, and
their source drains no longer than its COMMIT lasts anyway; without one, or if that fails, they end as PREEMPTED.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

import msgspec

from aipaging.core.anchor.eligibility import Candidate
from aipaging.core.anchor.intent import Intent
from aipaging.core.foundation.names import ClientId, SessionId, TenantId
from aipaging.core.foundation.time import MS, SECOND, BootUs, Now
from aipaging.core.paging.commands import Page, Refused
from aipaging.core.paging.decision import Decision, offer_to, refusal
from aipaging.core.paging.ending import ended
from aipaging.core.paging.events import CommitGranted, Event
from aipaging.core.paging.governing import PREEMPTING, Bar, barred, charge, explained
from aipaging.core.paging.preemption import NOBODY, Plan, Wanted, planned
from aipaging.core.paging.relocation import begun
from aipaging.core.paging.relocation_machine import RelocationCause
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.core.paging.state import Session, State
from aipaging.core.paging.tenancy import Question
from aipaging.core.paging.tenancy_events import KEPT_US, Claim, LetGo, RoomClaimed, RoomLetGo, SessionPreempted

CLAIMS_MAX: Final = 256
"""Claims at one time: every admission counts all of them, a microsecond each. Pages beyond it displace nobody."""

_JSON: Final = msgspec.json.Encoder(order="sorted").encode


def asked_digest(intent: Intent, key: str = "") -> str:
    """Return what tells a request that is asked again from another one: its idempotency key and its intent."""
    return sha256(_JSON([key, intent])).hexdigest()


def own_claim(state: State, tenant: TenantId, client: ClientId, intent: Intent, *, key: str = "") -> Claim | None:
    """Return the room that is kept for a request, or None."""
    claims = state.tenancy.claims
    if not claims:
        return None
    asked = (tenant, client, asked_digest(intent, key))
    return next((claim for claim in claims.values() if (claim.tenant, claim.client, claim.asked) == asked), None)


def let_go(claim: Claim, cause: LetGo) -> RoomLetGo:
    """Return the end of a claim."""
    return RoomLetGo(tenant=claim.tenant, for_session=claim.page, cause=cause)


def would_preempt(state: State, intent: Intent, now: Now, *, tenant: TenantId, client: ClientId) -> Plan | None:
    """Return how room would be made for a page that would find none; None where it would, or nobody could make any."""
    own = own_claim(state, tenant, client, intent)
    question = Question(action="page", tenant=tenant, client=client, intent=intent, catalogue=state.catalogue)
    candidates = explained(state, offer_to(state, NOBODY, intent, now, tenant=tenant, but=own), question)
    if any(candidate.rejection is None for candidate in candidates):
        return None
    wanted = Wanted(question=question, priority=state.tenancy.tenant(tenant).priority, own=own)
    plan = planned(state, wanted, candidates, now)
    return plan if plan is not None and _bar(state, wanted, plan, now) is None else None


def make_room(
    state: State, command: Page, candidates: Sequence[Candidate], now: Now, *, own: Claim | None
) -> Decision | Bar | None:
    """Return how room is made for a page that was refused for want of it; None: it is refused.

    Args:
        state: What is known.
        command: The page.
        candidates: Every candidate with what keeps it out.
        now: The instant.
        own: The room that is kept for it already, or None.
    """
    question = Question(
        action="page",
        tenant=command.tenant,
        client=command.client,
        intent=command.intent,
        catalogue=state.catalogue,
    )
    wanted = Wanted(question=question, priority=state.tenancy.tenant(command.tenant).priority, own=own)
    if own is None and len(state.tenancy.claims) >= CLAIMS_MAX:
        return None
    plan = planned(state, wanted, candidates, now)
    if plan is None:
        return None
    bar = _bar(state, wanted, plan, now)
    if bar is not None:
        return bar
    page = own.page if own is not None else command.session
    events: list[Event] = [refusal(command, PREEMPTING, len(candidates), now)]
    if own is None or plan.victims or own.anchor != plan.candidate.anchor or own.until_us <= plan.ready_us:
        events.append(RoomClaimed(claim=_claim(state, command, plan, now, page=page)))
    events += [
        SessionPreempted(
            session=victim.session,
            priority=state.tenancy.tenant(victim.tenant).priority,
            by_session=page,
            by_priority=wanted.priority,
            boot_us=now.boot_us,
        )
        for victim in plan.victims
    ]
    wait_s = retry_after_s(plan, now)
    reply = Refused(
        session=command.session, constraint=PREEMPTING, message=_told(state, plan, wait_s), retry_after_s=wait_s
    )
    return Decision(events=events, reply=reply)


def retry_after_s(plan: Plan, now: Now) -> int:
    """Return when to ask again, in whole seconds."""
    return max(1, -(-(plan.ready_us - now.boot_us) // SECOND))


def _told(state: State, plan: Plan, wait_s: int) -> str:
    anchor, victims = plan.candidate.anchor, plan.victims
    if not victims:
        return f"room at {anchor} is about to be free, and kept for this request: ask again in {wait_s} s"
    highest = max(state.tenancy.tenant(victim.tenant).priority for victim in victims)
    return (
        f"room is being made at {anchor}, and kept for this request: {len(victims)} sessions up to class "
        f"{highest.name} give way; ask again in {wait_s} s"
    )


def _claim(state: State, command: Page, plan: Plan, now: Now, *, page: SessionId) -> Claim:
    settings = state.settings
    # Whoever is moved may be granted time once more until the switch.
    moved_us = BootUs(now.boot_us + settings.prepare_ms_max * MS)
    latest_us = settings.lease.release_us(moved_us, BootUs(moved_us + settings.lease.lease_ms * MS))
    return Claim(
        page=page,
        tenant=command.tenant,
        client=command.client,
        asked=asked_digest(command.intent, command.key),
        priority=state.tenancy.tenant(command.tenant).priority,
        anchor=plan.candidate.anchor,
        domains=plan.candidate.path,
        rate_mrps=command.intent.rate_mrps,
        burst=command.intent.burst,
        until_us=BootUs(max(plan.ready_us, latest_us) + KEPT_US),
    )


def _bar(state: State, wanted: Wanted, plan: Plan, now: Now) -> Bar | None:
    """Return which quota keeps a tenant from the session that room would be made for; its other claims are counted."""
    question, intent = wanted.question, wanted.question.intent
    others = [
        claim for claim in state.tenancy.claims.values() if claim.tenant == question.tenant and claim != wanted.own
    ]
    claimed = (len(others), sum(claim.rate_mrps for claim in others))
    bar = barred(state, question.tenant, intent.rate_mrps, now, claimed=claimed)
    if bar is not None:
        return bar
    cost = (intent.rate_mrps, intent.duration_s * 1000, state.catalogue.services[plan.candidate.aisi].price)
    paid = charge(state, NOBODY, question.tenant, now, cost=cost)
    return paid if isinstance(paid, Bar) else None


def displaced(state: State, session: Session, now: Now) -> Decision:
    """Return how a session makes room: it begins to move to where it is admitted, or it ends."""
    moves = begun(state, session, RelocationCause.PREEMPTED, now)
    if any(isinstance(event, CommitGranted) for event in moves.events):
        return moves
    return ended(state, session, StatusInfo.PREEMPTED, now)


def claim_over(state: State, page: SessionId, now: Now) -> list[Event]:
    """Return the end of a claim whose time is over; nothing if it is not, or there is none."""
    claim = state.tenancy.claims.get(page)
    if claim is None or claim.until_us > now.boot_us:
        return []  # a claim that was renewed has another entry on the agenda
    return [let_go(claim, LetGo.EXPIRED)]
