"""What sessions used, as sidecars count it: each batch once, and only what can be true.

A sidecar sends what it has counted in numbered batches, and sends a batch again until it is answered. The last number
of each boot is part of the state, so a batch that was recorded before its answer was lost is not recorded twice, even
where the controller restarted in between. Its word is recorded as its word: every count names the anchor.

A session counts where it is or lately was. Over all anchors together it cannot have sent more requests than twice its
contract for its whole duration; twice, since a sidecar that restarts gives a burst anew.
"""

from typing import Final

from aipaging.core.foundation.names import AnchorId, SessionId
from aipaging.core.foundation.time import Now
from aipaging.core.paging import commands as c
from aipaging.core.paging.decision import Decision
from aipaging.core.paging.state import Session, State
from aipaging.core.paging.tenancy_events import Metered, SessionsMetered

BOOTS_MAX: Final = 4
"""Boots of a sidecar whose last batch is remembered: a straggler of the one before is known as such."""

TOKENS_PER_REQUEST_MAX: Final = 1 << 24
"""Sixteen million: above the longest contexts on offer (ten million)."""

SLACK: Final = 2
"""How many times its contract a session may be counted for."""


def meter(state: State, command: c.MeterSessions, _now: Now) -> Decision:
    """Record what sessions used at an anchor; a session that is not known any more has nobody to be counted for."""
    if command.batch <= state.tenancy.meters.get(command.anchor, {}).get(command.boot, 0):
        return Decision(reply=c.UsageTaken())
    counted: dict[SessionId, int] = {}
    metered: list[Metered] = []
    refused: list[tuple[SessionId, str, str]] = []
    for session_id, requests, tokens in command.used:
        session = state.sessions.get(session_id)
        if session is None or not (requests or tokens):
            continue
        count = Metered(
            session=session_id, tenant=session.tenant, anchor=command.anchor, requests=requests, tokens=tokens
        )
        total = counted.get(session_id, session.metered) + requests
        if fault := _fault(session, count, total):
            refused.append((session_id, *fault))
            continue
        counted[session_id] = total
        metered.append(count)
    decision = Decision(reply=c.UsageTaken(refused=tuple(refused)))
    if metered:
        decision.events.append(SessionsMetered(metered=tuple(metered), boot=command.boot, batch=command.batch))
    return decision


def _fault(session: Session, count: Metered, total: int) -> tuple[str, str] | None:
    """Return why a count that makes the session's `total` cannot be true, as a code and a sentence, or None."""
    if not _was_at(session, count.anchor):
        return "USAGE_NOT_HERE", f"the session neither is nor lately was at {count.anchor}"
    most = requests_max(session)
    if total > most:
        return "USAGE_IMPLAUSIBLE", f"{total} requests in all, and its contract holds no more than {most}"
    if count.tokens > count.requests * TOKENS_PER_REQUEST_MAX:
        return "USAGE_IMPLAUSIBLE", f"{count.tokens} tokens in {count.requests} requests"
    return None


def _was_at(session: Session, anchor: AnchorId) -> bool:
    moved = session.relocation
    return any(lease.anchor == anchor for lease in session.leases) or (
        moved is not None and anchor in {moved.source, moved.target}
    )


def requests_max(session: Session) -> int:
    """Return how many requests may be counted for a session, over all anchors and its whole duration."""
    bursts = session.intent.burst * max(1, session.n)
    return SLACK * (session.intent.rate_mrps * session.duration_ms // 1_000_000 + bursts)


def remember(boots: dict[str, int], boot: str, batch: int) -> None:
    """Note the last batch of a boot, as the latest of the boots."""
    boots[boot] = max(batch, boots.pop(boot, 0))
    while len(boots) > BOOTS_MAX:
        del boots[next(iter(boots))]
