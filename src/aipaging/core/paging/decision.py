"""What a step came to, and the grants that several steps make."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.anchor.eligibility import Candidate, examine
from aipaging.core.anchor.intent import Intent
from aipaging.core.anchor.offer import Offer
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import AipagingError, Who
from aipaging.core.foundation.names import AnchorId, SessionId, TenantId
from aipaging.core.foundation.time import MS, BootUs, Now
from aipaging.core.lease.difference import Difference
from aipaging.core.lease.ledger import Reservation
from aipaging.core.lease.machine import Lease
from aipaging.core.lease.queues import EVERYBODY
from aipaging.core.paging.commands import Done, Page, Reply
from aipaging.core.paging.effects import Effect
from aipaging.core.paging.events import CommitGranted, Event, SessionRefused
from aipaging.core.paging.state import OthersReserved, Session, State
from aipaging.core.paging.tenancy_events import Claim
from aipaging.core.steering.grant import Fence


@dataclass(slots=True)
class Decision:
    """The result of one step, as it grows."""

    events: list[Event] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    reply: Reply = field(default_factory=Done)


def refusal(
    command: Page, constraint: str, candidates: int, now: Now, *, policies: tuple[str, ...] = ()
) -> SessionRefused:
    """Return the evidence of a refused page."""
    return SessionRefused(
        session=command.session,
        tenant=command.tenant,
        client=command.client,
        intent=command.intent,
        salt=command.salt,
        constraint=constraint,
        candidates=candidates,
        wall_us=now.wall_us,
        policies=policies,
    )


def lease_ms(state: State, ends_us: BootUs, now: Now) -> int:
    """Return how long a lease granted now lasts: T, or what is left of the session, in whole milliseconds."""
    return min(state.settings.lease.lease_ms, max(0, ends_us - now.boot_us) // MS)


def grant(state: State, session: Session, candidate: Candidate, now: Now, *, cause: str) -> CommitGranted:
    """Return the COMMIT of an eligible candidate, under the session's next epoch."""
    if candidate.bound is None:
        raise AipagingError("a COMMIT needs the bound that admits it", code="NO_BOUND", who=Who.BUG)
    return CommitGranted(
        session=session.session,
        anchor=candidate.anchor,
        domains=candidate.path,
        epoch=Epoch(state.term, session.n + 1),
        lease_ms=lease_ms(state, session.ends_us, now),
        rate_mrps=session.intent.rate_mrps,
        bound=candidate.bound,
        envelopes=candidate.envelopes,
        cause=cause,
        boot_us=now.boot_us,
    )


def grant_again(state: State, session: Session, lease: Lease, now: Now, *, cause: str, n: int) -> CommitGranted:
    """Return a new epoch for a COMMIT that the session holds or held: same anchor, same reservation, same bound."""
    return CommitGranted(
        session=session.session,
        anchor=lease.anchor,
        domains=lease.domains,
        epoch=Epoch(state.term, n),
        lease_ms=lease_ms(state, session.ends_us, now),
        rate_mrps=lease.rate_mrps,
        bound=lease.bound,
        envelopes=lease.envelopes,
        cause=cause,
        boot_us=now.boot_us,
    )


def offer_to(
    state: State,
    session: SessionId,
    intent: Intent,
    now: Now,
    *,
    tenant: TenantId = EVERYBODY,
    but: Claim | None = None,
) -> Offer:
    """Return what is on offer to a session; `tenant` is asked for only where the session is not known yet."""
    reserved = others_reserved(state, session, intent, tenant=tenant, but=but)
    return Offer(catalogue=state.catalogue, reserved=reserved, wall_us=now.wall_us)


def others_reserved(
    state: State, session: SessionId, intent: Intent, *, tenant: TenantId = EVERYBODY, but: Claim | None = None
) -> OthersReserved:
    """Return what others hold, and the room that is kept for others; `but` is the claim that is the asker's own."""
    known = state.sessions.get(session)
    owner = known.tenant if known is not None else tenant
    return OthersReserved(
        ledger=state.ledger,
        session=session,
        tenant=owner,
        rate_mrps=intent.rate_mrps,
        burst=intent.burst,
        difference=claimed(state, owner, but) if state.tenancy.claims else None,
        everywhere=session in state.tenancy.victims,
    )


def claimed(state: State, tenant: TenantId, but: Claim | None) -> Difference:
    """Return the room that is kept against a tenant: for pages of its own class and above."""
    difference, priority = Difference(), state.tenancy.tenant(tenant).priority
    for claim in state.tenancy.claims.values():
        if claim != but and claim.priority >= priority:
            difference.come(Reservation(claim.anchor, claim.domains, claim.rate_mrps, claim.tenant, claim.burst))
    return difference


def candidates_for(
    state: State, session: SessionId, intent: Intent, now: Now, *, only: AnchorId | None = None, as_ready: bool = False
) -> Sequence[Candidate]:
    """Return every anchor looked at for the intent, or only the named one; `as_ready`, as if it took sessions."""
    anchors = state.catalogue.anchors
    chosen = anchors.values() if only is None else [anchors[only]] if only in anchors else []
    if as_ready:
        chosen = [replace(anchor, state=AnchorState.READY) for anchor in chosen]
    return examine(offer_to(state, session, intent, now), intent, chosen)


def fence(state: State, session: SessionId, lease: Lease) -> Fence:
    """Return the fence that kills a lease's epoch and all before it."""
    keep_us = state.settings.lease.release_us(lease.granted_us, lease.deadline_us)
    return Fence(session=session, epoch=lease.epoch, keep_until_us=keep_us)
