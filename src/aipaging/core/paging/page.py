"""The page transaction: intent, candidates, admission, COMMIT, steering.

One transaction, all or nothing: either the session, its COMMIT and its reservations begin together, or a refusal
leaves its evidence and holds nothing.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from aipaging.core.anchor.choice import best
from aipaging.core.anchor.eligibility import CHECKS, Candidate, examine, ranked
from aipaging.core.anchor.intent import Intent
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import RefusedError, UnavailableError
from aipaging.core.foundation.names import SessionId, TenantId
from aipaging.core.foundation.time import Now
from aipaging.core.lease.queues import EVERYBODY
from aipaging.core.paging.commands import Admitted, Extend, Page, Refused
from aipaging.core.paging.decision import Decision, offer_to
from aipaging.core.paging.effects import InstallSteering
from aipaging.core.paging.events import CommitGranted, SessionExtended, SessionRefused, SessionRequested
from aipaging.core.paging.state import State

_DEPTH: Final = {constraint: depth for depth, (constraint, _) in enumerate(CHECKS)}
NO_SESSION: Final = SessionId("")
"""Who asks when nobody holds anything yet: a resolution without commitment."""


def resolve(state: State, intent: Intent, now: Now, *, tenant: TenantId = EVERYBODY) -> Sequence[Candidate]:
    """Return every candidate for the intent, the eligible ones first and ranked; commits to nothing.

    Args:
        state: What is known.
        intent: What is wanted.
        now: The instant.
        tenant: For whom it would be; left out, for a tenant that has reserved nothing yet.
    """
    candidates = examine(
        offer_to(state, NO_SESSION, intent, now, tenant=tenant), intent, state.catalogue.anchors.values()
    )
    refused = [candidate for candidate in candidates if candidate.rejection is not None]
    return [*ranked(state.catalogue, intent, candidates), *refused]


def page(state: State, command: Page, now: Now) -> Decision:
    """Resolve, admit, grant and steer; or refuse with the reason of every candidate.

    Raises:
        RefusedError: The client may not hold sessions, or the key was used with another intent.
        UnavailableError: Too many sessions are live.
    """
    asked_before = state.keyed.get((command.client, command.key)) if command.key else None
    if asked_before is not None:
        return _again(state, command, asked_before)
    if command.session in state.sessions:
        raise RefusedError(f"session {command.session} exists already", code="ALREADY_EXISTS", field="sessionId")
    if state.entitled is not None and command.client not in state.entitled:
        raise RefusedError(f"client {command.client} may not hold sessions", code="PERMISSION_DENIED")
    if state.live >= state.settings.sessions_max:
        raise UnavailableError(f"{state.live} sessions are live: the most that is allowed", code="SESSIONS_FULL")
    offer, anchors = (
        offer_to(state, command.session, command.intent, now, tenant=command.tenant),
        state.catalogue.anchors,
    )
    chosen = best(offer, command.intent, anchors.values())
    if chosen is None or chosen.bound is None:
        return _refused(command, examine(offer, command.intent, anchors.values()), now)
    duration_ms = command.intent.duration_s * 1000
    epoch = Epoch(state.term, 1)
    granted = CommitGranted(
        session=command.session,
        anchor=chosen.anchor,
        domains=chosen.path,
        epoch=epoch,
        lease_ms=min(state.settings.lease.lease_ms, duration_ms),
        rate_mrps=command.intent.rate_mrps,
        bound=chosen.bound,
        envelopes=chosen.envelopes,
        cause="PAGED",
        boot_us=now.boot_us,
    )
    requested = SessionRequested(
        session=command.session,
        tenant=command.tenant,
        client=command.client,
        aisi=chosen.aisi,
        intent=command.intent,
        token_id=command.token_id,
        salt=command.salt,
        key=command.key,
        boot_us=now.boot_us,
        wall_us=now.wall_us,
    )
    return Decision(
        events=[requested, granted],
        effects=[InstallSteering(session=command.session, epoch=epoch)],
        reply=Admitted(session=command.session, candidates=(chosen,)),
    )


def _again(state: State, command: Page, session: SessionId) -> Decision:
    """Return what was answered before to the same key; the place may have changed since, for the client may move."""
    if replace(state.sessions[session].intent, place=command.intent.place) != command.intent:
        raise RefusedError(
            f"the idempotency key was used before, for session {session} with another intent: use a new key",
            code="IDEMPOTENCY_KEY_REUSED",
            field="idempotency-key",
        )
    return Decision(reply=Admitted(session=session, candidates=()))


def _refused(command: Page, candidates: Sequence[Candidate], now: Now) -> Decision:
    furthest = max(
        (candidate.rejection for candidate in candidates if candidate.rejection is not None),
        key=lambda rejection: _DEPTH.get(rejection.constraint, -1),
        default=None,
    )
    constraint = furthest.constraint if furthest else "CATALOGUE"
    message = furthest.message if furthest else "no anchor is registered"
    event = SessionRefused(
        session=command.session,
        tenant=command.tenant,
        client=command.client,
        intent=command.intent,
        salt=command.salt,
        constraint=constraint,
        candidates=len(candidates),
        wall_us=now.wall_us,
    )
    reply = Refused(session=command.session, constraint=constraint, message=message, candidates=tuple(candidates))
    return Decision(events=[event], reply=reply)


def extend(state: State, command: Extend, now: Now) -> Decision:
    """Prolong a session, capped at the most that a session may last (CAMARA: capped, no error)."""
    session = state.available(command.session)
    cap_ms = state.settings.duration_s_max * 1000
    duration_ms = max(session.duration_ms, min(session.duration_ms + command.additional_s * 1000, cap_ms))
    event = SessionExtended(session=session.session, duration_ms=duration_ms, boot_us=now.boot_us)
    return Decision(events=[event])
