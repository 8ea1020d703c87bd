"""The page transaction: intent, candidates, admission, COMMIT, steering.

One transaction, all or nothing: either the session, its COMMIT and its reservations begin together, or a refusal
leaves its evidence and holds nothing.
"""

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from aipaging.core.anchor.eligibility import CHECKS, Candidate, ranked
from aipaging.core.anchor.intent import Intent
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import AipagingError, RefusedError, UnavailableError, Who
from aipaging.core.foundation.names import ClientId, SessionId, TenantId
from aipaging.core.foundation.time import Now
from aipaging.core.lease.queues import EVERYBODY
from aipaging.core.paging.claiming import let_go, make_room, own_claim
from aipaging.core.paging.commands import Admitted, Extend, Page, Refused
from aipaging.core.paging.decision import Decision, offer_to, refusal
from aipaging.core.paging.effects import InstallSteering
from aipaging.core.paging.events import CommitGranted, Event, SessionExtended, SessionRequested
from aipaging.core.paging.governing import (
    KILLED,
    POLICY,
    Bar,
    applied,
    barred,
    charge,
    charge_extension,
    choose,
    explained,
    governs,
    judged,
    question_of,
)
from aipaging.core.paging.sinks import SinkSet
from aipaging.core.paging.state import Session, State
from aipaging.core.paging.tenancy import Question, Ruling
from aipaging.core.paging.tenancy_events import Claim, LetGo

_DEPTH: Final = {constraint: depth for depth, (constraint, _) in enumerate(CHECKS)} | {
    POLICY: len(CHECKS),
    KILLED: len(CHECKS) + 1,
}
NOBODY: Final = ClientId("")
"""Who asks when it is not said."""
NO_SESSION: Final = SessionId("")
"""Who asks when nobody holds anything yet: a resolution without commitment."""


def resolve(
    state: State, intent: Intent, now: Now, *, tenant: TenantId = EVERYBODY, client: ClientId = NOBODY
) -> Sequence[Candidate]:
    """Return every candidate for the intent, the eligible ones first and ranked; commits to nothing.

    Args:
        state: What is known.
        intent: What is wanted.
        now: The instant.
        tenant: For whom it would be; left out, for a tenant that has reserved nothing yet.
        client: Who would ask.
    """
    own = own_claim(state, tenant, client, intent)
    offer = offer_to(state, NO_SESSION, intent, now, tenant=tenant, but=own)
    question = Question(action="page", tenant=tenant, client=client, intent=intent, catalogue=state.catalogue)
    candidates = explained(state, offer, question)
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
    bar = barred(state, command.tenant, command.intent.rate_mrps, now)
    if bar is not None:
        return _turned_away(command, bar, now)
    own = own_claim(state, command.tenant, command.client, command.intent, key=command.key)
    offer = offer_to(state, command.session, command.intent, now, tenant=command.tenant, but=own)
    question = Question(
        action="page",
        tenant=command.tenant,
        client=command.client,
        intent=command.intent,
        catalogue=state.catalogue,
    )
    chosen, ruling = choose(state, offer, question)
    if chosen is None:
        return _without_room(state, command, explained(state, offer, question), now, own=own)
    admitted = _admitted(state, command, now, chosen=chosen, ruling=ruling)
    if own is not None and isinstance(admitted.reply, Admitted):
        admitted.events.insert(0, let_go(own, LetGo.TAKEN))
    return admitted


def _without_room(
    state: State, command: Page, candidates: Sequence[Candidate], now: Now, *, own: Claim | None
) -> Decision:
    """Return what becomes of a page that no candidate takes: room is made for it, or it is refused."""
    making = make_room(state, command, candidates, now, own=own)
    if isinstance(making, Bar):
        return _turned_away(command, making, now)
    return making or _refused(command, candidates, now)


def _admitted(state: State, command: Page, now: Now, *, chosen: Candidate, ruling: Ruling | None) -> Decision:
    """Return the session with its COMMIT, what it costs, and which policies permitted it."""
    bound, duration_ms = chosen.bound, command.intent.duration_s * 1000
    if bound is None:
        raise AipagingError("a COMMIT needs the bound that admits it", code="NO_BOUND", who=Who.BUG)
    epoch = Epoch(state.term, 1)
    cost = (command.intent.rate_mrps, duration_ms, state.catalogue.services[chosen.aisi].price)
    paid = charge(state, command.session, command.tenant, now, cost=cost)
    if isinstance(paid, Bar):
        return _turned_away(command, paid, now)
    requested = SessionRequested(
        session=command.session,
        tenant=command.tenant,
        client=command.client,
        aisi=chosen.aisi,
        intent=command.intent,
        token_id=command.token_id,
        salt=command.salt,
        key=command.key,
        certificate=command.certificate,
        boot_us=now.boot_us,
        wall_us=now.wall_us,
    )
    granted = CommitGranted(
        session=command.session,
        anchor=chosen.anchor,
        domains=chosen.path,
        epoch=epoch,
        lease_ms=min(state.settings.lease.lease_ms, duration_ms),
        rate_mrps=command.intent.rate_mrps,
        bound=bound,
        envelopes=chosen.envelopes,
        cause="PAGED",
        boot_us=now.boot_us,
    )
    events: list[Event] = [requested]
    if paid is not None:
        events.append(paid)
    if ruling is not None:
        events.append(applied(state, command.session, ruling, action="page", anchor=chosen.anchor))
    return Decision(
        events=[*events, granted, *_sink(command)],
        effects=[InstallSteering(session=command.session, epoch=epoch)],
        reply=Admitted(session=command.session, candidates=(chosen,)),
    )


def _sink(command: Page) -> tuple[SinkSet, ...]:
    return () if command.sink is None else (SinkSet(session=command.session, sink=command.sink),)


def _again(state: State, command: Page, session: SessionId) -> Decision:
    """Return what was answered before to the same key; the place may have changed since, for the client may move."""
    if replace(state.sessions[session].intent, place=command.intent.place) != command.intent:
        raise RefusedError(
            f"the idempotency key was used before, for session {session} with another intent: use a new key",
            code="IDEMPOTENCY_KEY_REUSED",
            field="idempotency-key",
        )
    return Decision(reply=Admitted(session=session, candidates=()))


def _turned_away(command: Page, bar: Bar, now: Now) -> Decision:
    """Return a refusal that no candidate could change."""
    reply = Refused(
        session=command.session, constraint=bar.constraint, message=bar.message, retry_after_s=bar.retry_after_s
    )
    return Decision(events=[refusal(command, bar.constraint, 0, now)], reply=reply)


def _refused(command: Page, candidates: Sequence[Candidate], now: Now) -> Decision:
    furthest = max(
        (candidate.rejection for candidate in candidates if candidate.rejection is not None),
        key=lambda rejection: _DEPTH.get(rejection.constraint, -1),
        default=None,
    )
    constraint = furthest.constraint if furthest else "CATALOGUE"
    message = furthest.message if furthest else "no anchor is registered"
    policies = furthest.policies if furthest else ()
    event = refusal(command, constraint, len(candidates), now, policies=policies)
    reply = Refused(session=command.session, constraint=constraint, message=message, candidates=tuple(candidates))
    return Decision(events=[event], reply=reply)


def extend(state: State, command: Extend, now: Now) -> Decision:
    """Prolong a session, capped at the most that a session may last (CAMARA: capped, no error)."""
    session = state.available(command.session)
    cap_ms = state.settings.duration_s_max * 1000
    duration_ms = max(session.duration_ms, min(session.duration_ms + command.additional_s * 1000, cap_ms))
    charged = charge_extension(state, session, duration_ms - session.duration_ms, now)
    event = SessionExtended(session=session.session, duration_ms=duration_ms, boot_us=now.boot_us)
    return Decision(events=[*charged, *_permitted(state, session), event])


def _permitted(state: State, session: Session) -> list[Event]:
    """Return which policies permit an extension, where there are any.

    Raises:
        RefusedError: They do not (`POLICY`).
    """
    if not governs(state) or session.lease is None:
        return []
    anchor = state.catalogue.anchors.get(session.lease.anchor)
    if anchor is None:
        raise RefusedError("no policy permits an anchor that is gone", code=POLICY)
    ruling = judged(state, question_of(state, session, "extend"), [anchor])[0]
    if not ruling.allowed:
        raise RefusedError(ruling.message, code=POLICY)
    return [applied(state, session.session, ruling, action="extend", anchor=anchor.anchor)]
