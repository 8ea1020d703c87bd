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
from aipaging.core.lease.machine import Lease
from aipaging.core.lease.queues import EVERYBODY
from aipaging.core.paging.commands import Done, Reply
from aipaging.core.paging.effects import Effect
from aipaging.core.paging.events import CommitGranted, Event
from aipaging.core.paging.state import OthersReserved, Session, State
from aipaging.core.steering.grant import Fence


@dataclass(slots=True)
class Decision:
    """The result of one step, as it grows."""

    events: list[Event] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    reply: Reply = field(default_factory=Done)


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


def offer_to(state: State, session: SessionId, intent: Intent, now: Now, *, tenant: TenantId = EVERYBODY) -> Offer:
    """Return what is on offer to a session; `tenant` is asked for only where the session is not known yet."""
    known = state.sessions.get(session)
    reserved = OthersReserved(
        ledger=state.ledger,
        session=session,
        tenant=known.tenant if known is not None else tenant,
        rate_mrps=intent.rate_mrps,
        burst=intent.burst,
    )
    return Offer(catalogue=state.catalogue, reserved=reserved, wall_us=now.wall_us)


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
