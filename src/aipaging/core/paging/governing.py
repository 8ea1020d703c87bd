"""What may be, beside what can be: kill switches, quotas, policies.

All of it is decided inside `step`, on the state that every earlier command has already changed: no two commands can
race past a quota together. What is not known to be allowed is refused.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from msgspec import structs

from aipaging.core.anchor.catalogue import Anchor
from aipaging.core.anchor.choice import best
from aipaging.core.anchor.eligibility import Candidate, Rejection, examine
from aipaging.core.anchor.offer import Offer
from aipaging.core.foundation.errors import RefusedError
from aipaging.core.foundation.names import AnchorId, SessionId, TenantId
from aipaging.core.foundation.time import MS, SECOND, Now
from aipaging.core.identity.tenant import cost_of
from aipaging.core.paging.state import Charge, Session, State
from aipaging.core.paging.tenancy import Account, Question, Ruling
from aipaging.core.paging.tenancy_events import PolicyApplied, SpendCharged, SpendRefunded, SwitchKilled

OLDEST_LOOKED_AT: Final = 64
"""Sessions looked at for when one of a tenant ends: an estimate for Retry-After must not cost a search."""

QUOTA: Final = "QUOTA"
KILLED: Final = "KILLED"
POLICY: Final = "POLICY"
PREEMPTING: Final = "PREEMPTING"
"""The constraints of refusals that are not about candidates' abilities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """Why nothing is admitted, whatever the candidates.

    Attributes:
        constraint: QUOTA or KILLED.
        message: The sentence that says how.
        retry_after_s: When it may be otherwise, where time helps.
    """

    constraint: str
    message: str
    retry_after_s: int | None = None


def barred(
    state: State, tenant: TenantId, rate_mrps: int, now: Now, *, claimed: tuple[int, int] = (0, 0)
) -> Bar | None:
    """Return why a tenant may not have another session of this rate, or None.

    Args:
        state: What is known.
        tenant: For whom.
        rate_mrps: Of the session.
        now: The instant.
        claimed: Sessions, and the sum of their rates, that are to be counted as if the tenant had them.
    """
    killed = state.tenancy.killed_tenant(tenant)
    if killed is not None:
        return Bar(constraint=KILLED, message=stopped_text(killed))
    known = state.tenancy.tenants.get(tenant)
    if known is None:
        return None
    quotas, account = known.quotas, _account(state, tenant)
    reserved_mrps = state.ledger.tenant_mrps(tenant) + claimed[1]
    for name, most, used, more, unit in (
        ("sessions", quotas.sessions_max, len(account.sessions) + claimed[0], 1, 1),
        ("requests/s", quotas.requests_mrps_max, account.requests_mrps + claimed[1], rate_mrps, 1000),
        ("reserved requests/s", quotas.reserved_mrps_max, reserved_mrps, rate_mrps, 1000),
    ):
        if most and used + more > most:
            left = max(0, most - used)
            message = (
                f"tenant {tenant} may have {most / unit:g} {name}: {used / unit:g} are used, {left / unit:g} are left, "
                f"{more / unit:g} are asked for"
            )
            return Bar(constraint=QUOTA, message=message, retry_after_s=_soonest_end_s(state, account, now))
    return None


def _account(state: State, tenant: TenantId) -> Account:
    return state.tenancy.accounts.get(tenant) or Account()


def _soonest_end_s(state: State, account: Account, now: Now) -> int | None:
    ends = [state.sessions[session].ends_us for session in islice(account.sessions, OLDEST_LOOKED_AT)]
    return max(1, -(-(min(ends) - now.boot_us) // SECOND)) if ends else None


def stopped_text(killed: SwitchKilled) -> str:
    """Return the sentence about a kill switch."""
    what = f"{killed.kind.value.lower()} {killed.name}".strip() if killed.name else "everything"
    return f"{what} is stopped by the operator: {killed.reason}"


def charge(
    state: State, session: SessionId, tenant: TenantId, now: Now, *, cost: tuple[int, int, int]
) -> SpendCharged | Bar | None:
    """Return what a tenant pays for a rate over a time, or why it may not; None where nothing is counted.

    Args:
        state: What is known.
        session: What for.
        tenant: Who pays.
        now: The instant.
        cost: The rate in thousandths of a request per second, the time in ms, the price per 1,000 requests.
    """
    known = state.tenancy.tenants.get(tenant)
    amount = cost_of(*cost)
    if known is None or not known.quotas.spend_max or not amount:
        return None
    quotas, account = known.quotas, _account(state, tenant)
    period_us = quotas.period_s * SECOND
    period = max(now.wall_us // period_us, account.period)  # a clock that goes back begins no period anew
    spent = account.spent if account.period == period else 0
    if spent + amount > quotas.spend_max:
        left = max(0, quotas.spend_max - spent)
        message = (
            f"tenant {tenant} may spend {quotas.spend_max} in {quotas.period_s} s: {spent} are spent or promised, "
            f"{left} are left, the session costs {amount} (millionths of the catalogue's currency)"
        )
        wait_us = (period + 1) * period_us - now.wall_us
        return Bar(constraint=QUOTA, message=message, retry_after_s=-(-wait_us // SECOND))
    return SpendCharged(tenant=tenant, for_session=session, period=period, amount=amount, price=cost[2])


def refund(session: Session, now: Now) -> list[SpendRefunded]:
    """Return what a session that ends now gives back of what was paid last: the time that it was not there."""
    paid = session.charge
    if paid is None or session.lease is None:
        return []
    unused_ms = (session.requested_wall_us + session.duration_ms * MS - now.wall_us) // MS
    amount = min(paid.amount, cost_of(session.intent.rate_mrps, max(0, unused_ms), paid.price))
    if not amount:
        return []
    return [SpendRefunded(tenant=session.tenant, for_session=session.session, period=paid.period, amount=amount)]


def charge_extension(state: State, session: Session, more_ms: int, now: Now) -> list[SpendCharged]:
    """Return what an extension costs.

    Raises:
        RefusedError: The tenant may not spend so much (`QUOTA_EXCEEDED`), or it or all is stopped (`KILLED`).
    """
    killed = state.tenancy.killed_tenant(session.tenant)
    if killed is not None:
        raise RefusedError(stopped_text(killed), code=KILLED)
    service = state.catalogue.services.get(session.aisi)
    price = service.price if service is not None else 0
    rate_mrps = session.intent.rate_mrps
    charged = charge(state, session.session, session.tenant, now, cost=(rate_mrps, more_ms, price))
    if isinstance(charged, Bar):
        error = RefusedError(charged.message, code="QUOTA_EXCEEDED")
        error.retry_after_s = charged.retry_after_s
        raise error
    return [charged] if charged is not None else []


def charged(session: Session, event: SpendCharged) -> Session:
    """Return the session with its latest charge."""
    return structs.replace(session, charge=Charge(period=event.period, amount=event.amount, price=event.price))


def judged(state: State, question: Question, anchors: Sequence[Anchor]) -> Sequence[Ruling]:
    """Return what the policies in force say about anchors; policies that are in force and not at hand refuse."""
    policies = state.tenancy.policies
    if policies is not None:
        return policies.judge(question, anchors)
    if state.tenancy.policies_digest:
        return [Ruling(allowed=False, policies=(), message="the policies in force are not loaded")] * len(anchors)
    return [Ruling(allowed=True, policies=())] * len(anchors)


def governs(state: State) -> bool:
    """Tell whether there is any policy."""
    return state.tenancy.policies is not None or bool(state.tenancy.policies_digest)


def applied(state: State, session: SessionId, ruling: Ruling, *, action: str, anchor: AnchorId) -> PolicyApplied:
    """Return the evidence that policies permitted something."""
    return PolicyApplied(
        session=session, action=action, anchor=anchor, policies=ruling.policies, digest=state.tenancy.policies_digest
    )


def choose(state: State, offer: Offer, question: Question) -> tuple[Candidate | None, Ruling | None]:
    """Return the best candidate that switches and policies leave, and the ruling on it where there are policies."""
    anchors: Iterable[Anchor] = state.catalogue.anchors.values()
    if state.tenancy.switches:
        anchors = list(state.tenancy.open_anchors(state.catalogue.anchors))
    chosen = best(offer, question.intent, anchors)
    if chosen is None or not governs(state):
        return chosen, None
    ruling = judged(state, question, [state.catalogue.anchors[chosen.anchor]])[0]
    if ruling.allowed:
        return chosen, ruling
    everyone = list(anchors)
    rulings = judged(state, question, everyone)
    allowed = {each.anchor: said for each, said in zip(everyone, rulings, strict=True) if said.allowed}
    chosen = best(offer, question.intent, [each for each in everyone if each.anchor in allowed])
    return chosen, allowed[chosen.anchor] if chosen is not None else None


def explained(state: State, offer: Offer, question: Question) -> list[Candidate]:
    """Return every candidate with the first constraint that it fails, switches and policies among them."""
    return governed(state, question, examine(offer, question.intent, state.catalogue.anchors.values()))


def governed(state: State, question: Question, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates, those that a switch stops or a policy forbids rejected."""
    looked = [_unless_killed(state, candidate) for candidate in candidates]
    if not governs(state):
        return looked
    asked = [i for i, candidate in enumerate(looked) if candidate.rejection is None]
    rulings = judged(state, question, [state.catalogue.anchors[looked[i].anchor] for i in asked])
    for i, ruling in zip(asked, rulings, strict=True):
        if not ruling.allowed:
            looked[i] = replace(
                looked[i], rejection=Rejection(constraint=POLICY, message=ruling.message, policies=ruling.policies)
            )
    return looked


def _unless_killed(state: State, candidate: Candidate) -> Candidate:
    killed = state.tenancy.killed_anchor(candidate.anchor, candidate.aisi)
    if killed is None:
        return candidate
    return replace(candidate, rejection=Rejection(constraint=KILLED, message=stopped_text(killed)))


def question_of(state: State, session: Session, action: str) -> Question:
    """Return what policies are asked about a session that exists."""
    return Question(
        action=action, tenant=session.tenant, client=session.client, intent=session.intent, catalogue=state.catalogue
    )
