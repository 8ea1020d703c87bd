"""Sessions: resolve, page, read, list, extend, relocate, move, end."""

import asyncio
import secrets
import uuid
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

import msgspec

from aipaging.adapters.northbound import examples
from aipaging.adapters.northbound.credentials import Caller
from aipaging.adapters.northbound.documents.intent import candidate_document, intent_document, intent_of
from aipaging.adapters.northbound.documents.session import (
    AdmissionRefusal,
    ExtendRequest,
    IntentRequest,
    MoveRequest,
    RelocateRequest,
    Resolution,
    RetrieveSessionsRequest,
    SessionDocument,
    SessionList,
    preemption_document,
    session_document,
)
from aipaging.adapters.northbound.documents.sinks import PageRequest, sink_of
from aipaging.adapters.northbound.documents.words import ANSWER_ITEMS_MAX
from aipaging.adapters.northbound.operation import BASE, JSON_ERRORS, Operation, Reply
from aipaging.adapters.northbound.pages import pagination
from aipaging.adapters.northbound.service import Northbound
from aipaging.core.anchor.intent import Intent
from aipaging.core.foundation.errors import AipagingError, InvalidInputError, RefusedError, Who
from aipaging.core.foundation.names import AnchorId, DomainName, SessionId, session_id
from aipaging.core.foundation.time import Now
from aipaging.core.paging import commands as c
from aipaging.core.paging.claiming import would_preempt
from aipaging.core.paging.governing import KILLED, PREEMPTING, QUOTA
from aipaging.core.paging.nearest import resolved
from aipaging.core.paging.relocation_machine import RelocationCause
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.core.paging.state import Session, State
from aipaging.runtime.http.exchange import NO_CONTENT, Answer, Request, json_answer
from aipaging.runtime.http.faults import API_PREFIX
from aipaging.runtime.peer_identity import CERTIFICATE

SALT_BYTES: Final = 16
TOKEN_ID_BYTES: Final = 16
"""128 random bits each: neither is guessed."""

KEY_CHARS_MAX: Final = 255
"""A UUID has 36; nobody makes us hash a page."""

LIST_SLICE: Final = 2_000
"""Sessions looked at before others get a turn: about half a millisecond."""

_INTENT: Final = msgspec.json.Decoder(IntentRequest)
_PAGE: Final = msgspec.json.Decoder(PageRequest)
_EXTEND: Final = msgspec.json.Decoder(ExtendRequest)
_RELOCATE: Final = msgspec.json.Decoder(RelocateRequest)
_MOVE: Final = msgspec.json.Decoder(MoveRequest)
_RETRIEVE: Final = msgspec.json.Decoder(RetrieveSessionsRequest)


class SessionRoutes:
    """The operations on sessions."""

    def __init__(self, service: Northbound) -> None:
        self._service = service
        self._control = service.control

    async def resolve(self, request: Request, caller: Caller) -> Answer:
        """Answer what an intent would find now; commits to nothing."""
        intent = intent_of((await request.document(_INTENT)).intent)
        return json_answer(await self._control.view(lambda state, now: _resolution(state, intent, now, caller)))

    async def page(self, request: Request, caller: Caller) -> Answer:
        """Page an intent."""
        asked = await request.document(_PAGE)
        intent, sink = intent_of(asked.intent), sink_of(asked)
        if sink is not None:
            self._service.notifications.check(sink.url)
        session = SessionId(str(uuid.uuid4()))
        key = _key_of(request)
        reply = await self._control.submit(
            c.Page(
                session=session,
                tenant=caller.tenant,
                client=caller.client,
                token_id=secrets.token_urlsafe(TOKEN_ID_BYTES),
                salt=secrets.token_bytes(SALT_BYTES),
                intent=intent,
                key=key,
                certificate=request.extensions.get(CERTIFICATE, ""),
                sink=sink,
            )
        )
        if isinstance(reply, c.Refused):
            request.notes["session"] = session
            _turned_away(reply)
            return _refusal(reply, intent)
        session = reply.session if isinstance(reply, c.Admitted) else session
        request.notes["session"] = session
        document = await self._document(session, caller, aist=True, receipt=True)
        location = f"{BASE}/sessions/{session}".encode()
        return json_answer(document, status=201, headers=((b"location", location),))

    async def read(self, request: Request, caller: Caller) -> Answer:
        """Answer one session."""
        return json_answer(await self._document(_session_of(request), caller, receipt=True))

    async def retrieve(self, request: Request, caller: Caller) -> Answer:
        """List sessions."""
        wanted = await request.document(_RETRIEVE, optional=True)
        matches = _matcher(wanted, caller)
        everything, now = await self._control.view(lambda state, now: (list(state.sessions.values()), now))
        found: list[Session] = []
        for first in range(0, len(everything), LIST_SLICE):
            if first:
                await asyncio.sleep(0)
            found += [session for session in everything[first : first + LIST_SLICE] if matches(session)]
        begin = (wanted.page - 1) * wanted.per_page
        url = self._service.gateway_url
        return json_answer(
            SessionList(
                sessions=[
                    session_document(session, now, gateway_url=url)
                    for session in found[begin : begin + wanted.per_page]
                ],
                pagination=pagination(wanted.page, wanted.per_page, len(found)),
            )
        )

    async def end(self, request: Request, caller: Caller) -> Answer:
        """End a session; one that has ended already is no error."""
        session = _session_of(request)
        found, _ = await self._seen(session, caller)
        if found.available:
            try:
                await self._control.submit(c.End(session=session, status_info=StatusInfo.DELETE_REQUESTED))
            except RefusedError as error:
                if error.code != "INCOMPATIBLE_STATE":  # it ended in the meantime
                    raise
        return NO_CONTENT

    async def extend(self, request: Request, caller: Caller) -> Answer:
        """Prolong a session."""
        session = _session_of(request)
        additional_s = (await request.document(_EXTEND)).additional_duration_s
        await self._seen(session, caller)
        await self._control.submit(c.Extend(session=session, additional_s=additional_s))
        return json_answer(await self._document(session, caller, aist=True, receipt=True))

    async def relocate(self, request: Request, caller: Caller) -> Answer:
        """Begin a relocation."""
        session = _session_of(request)
        target = (await request.document(_RELOCATE, optional=True)).target_anchor_id
        if target is not None and not caller.operator:
            raise RefusedError(
                "only an operator names the target; leave targetAnchorId out", code="PERMISSION_DENIED",
                field="targetAnchorId",
            )  # fmt: skip
        await self._seen(session, caller)
        cause = RelocationCause.OPERATOR if caller.operator else RelocationCause.CLIENT
        await self._control.submit(
            c.Relocate(session=session, cause=cause, target=AnchorId(target) if target is not None else None)
        )
        return json_answer(await self._document(session, caller, receipt=True), status=202)

    async def move(self, request: Request, caller: Caller) -> Answer:
        """Note that the client is in another access domain."""
        session = _session_of(request)
        place = (await request.document(_MOVE)).place
        await self._seen(session, caller)
        await self._control.submit(c.MoveClient(session=session, place=DomainName(place)))
        return json_answer(await self._document(session, caller, receipt=True), status=202)

    async def erase(self, request: Request, _caller: Caller) -> Answer:
        """Delete what is private of a session."""
        session = _session_of(request)
        if not await self._control.erase(session):
            raise InvalidInputError(f"there never was a session {session}", code="NOT_FOUND", field="sessionId")
        return NO_CONTENT

    async def _seen(self, session: SessionId, caller: Caller) -> tuple[Session, Now]:
        return await self._control.view(lambda state, now: (visible(state, session, caller), now), session)

    async def _document(
        self, session: SessionId, caller: Caller, *, aist: bool = False, receipt: bool = False
    ) -> SessionDocument:
        found, now = await self._seen(session, caller)
        tokens = self._service.tokens
        lease = found.lease
        return session_document(
            found,
            now,
            gateway_url=self._service.gateway_url,
            aist=tokens.aist(found) if aist else None,
            receipt=tokens.receipt(found, lease) if receipt and lease is not None and lease.live else None,
        )

    def operations(self) -> Sequence[Operation]:
        """Return the table of these operations."""
        # tidy: long because it is a table
        session_replies = "The session."
        on_session = ("NOT_FOUND", "INVALID_ARGUMENT")
        changing = (*on_session, "INCOMPATIBLE_STATE", "UNSUPPORTED_MEDIA_TYPE", "AI_PAGING.PAYLOAD_TOO_LARGE")
        return [
            Operation(
                method="POST",
                path=f"{BASE}/intents/resolve",
                name="resolveIntent",
                summary="Say what an intent would find, without commitment",
                description="Every anchor is listed: the eligible ones ranked, the others with the constraint that "
                "failed. Nothing is reserved, so a page a moment later may come out otherwise. Of a tenant that "
                "preempts, `preemption` says how many sessions of a lower class would give way where nothing has room.",
                tag="Intents",
                handler=self.resolve,
                scope="ai-paging:intents:resolve",
                request=IntentRequest,
                request_example=examples.INTENT_REQUEST,
                replies={200: Reply(meaning="The candidates.", document=Resolution, example=examples.RESOLUTION)},
                errors=JSON_ERRORS,
            ),
            Operation(
                method="POST",
                path=f"{BASE}/sessions",
                name="createSession",
                summary="Page: turn an intent into a session under an admission lease",
                description="When this returns 201, the COMMIT is durable, the rate is reserved on the whole path, "
                "and steering is in force: the first request with the AIST reaches the anchor. The bound is a theorem "
                "under its assumptions. A refusal is an answer (422), extended by the reason of every candidate. With "
                "an `Idempotency-Key` header, the same request again gives the same session and its token. Of a tenant "
                "that preempts, a page that finds no room makes some: it is a 503 AI_PAGING.PREEMPTING, and the same "
                "request (same key, same intent) has the room when `Retry-After` is over.",
                tag="Sessions",
                handler=self.page,
                scope="ai-paging:sessions:create",
                request=PageRequest,
                request_example=examples.PAGE_REQUEST,
                headers={"Idempotency-Key": f"Up to {KEY_CHARS_MAX} printable characters, new for every session."},
                replies={
                    201: Reply(
                        meaning="The session, with its token.",
                        document=SessionDocument,
                        example=examples.CREATED,
                    ),
                    422: Reply(
                        meaning="No candidate was admitted (AI_PAGING.ADMISSION_REFUSED).",
                        document=AdmissionRefusal,
                        example=examples.REFUSAL,
                    ),
                },
                errors=(
                    *JSON_ERRORS,
                    "AI_PAGING.SESSIONS_FULL",
                    "AI_PAGING.STEERING_FAILED",
                    "AI_PAGING.IDEMPOTENCY_KEY_REUSED",
                    "QUOTA_EXCEEDED",
                    "INVALID_SINK",
                    "AI_PAGING.INVALID_CREDENTIAL",
                    "AI_PAGING.KILLED",
                    "AI_PAGING.PREEMPTING",
                ),
            ),
            Operation(
                method="GET",
                path=f"{BASE}/sessions/{{sessionId}}",
                name="getSession",
                summary="Read a session",
                description="An ended session stays readable for 360 s, UNAVAILABLE, with `statusInfo`.",
                tag="Sessions",
                handler=self.read,
                scope="ai-paging:sessions:read",
                replies={200: Reply(meaning=session_replies, document=SessionDocument, example=examples.SESSION)},
                errors=on_session,
            ),
            Operation(
                method="POST",
                path=f"{BASE}/retrieve-sessions",
                name="retrieveSessions",
                summary="List sessions",
                description="A client sees its own, an operator all; the oldest first. A page beyond the end is empty.",
                tag="Sessions",
                handler=self.retrieve,
                scope="ai-paging:sessions:read",
                request=RetrieveSessionsRequest,
                request_optional=True,
                request_example=examples.RETRIEVE,
                replies={200: Reply(meaning="A page.", document=SessionList, example=examples.SESSION_LIST)},
                errors=JSON_ERRORS,
            ),
            Operation(
                method="DELETE",
                path=f"{BASE}/sessions/{{sessionId}}",
                name="deleteSession",
                summary="End a session",
                description="Steering stops at once. A session that has ended already is answered likewise.",
                tag="Sessions",
                handler=self.end,
                scope="ai-paging:sessions:delete",
                replies={204: Reply(meaning="It has ended.")},
                errors=on_session,
            ),
            Operation(
                method="POST",
                path=f"{BASE}/sessions/{{sessionId}}/extend",
                name="extendSession",
                summary="Prolong a session",
                description="Capped at the most that a session may last, without error; the answer says until when, "
                "and carries a token that lasts as long.",
                tag="Sessions",
                handler=self.extend,
                scope="ai-paging:sessions:update",
                request=ExtendRequest,
                request_example=examples.EXTEND,
                replies={200: Reply(meaning=session_replies, document=SessionDocument, example=examples.CREATED)},
                errors=(*changing, "OUT_OF_RANGE"),
            ),
            Operation(
                method="POST",
                path=f"{BASE}/sessions/{{sessionId}}/relocate",
                name="relocateSession",
                summary="Move a session to another anchor, make-before-break",
                description="Accepted means that the relocation is recorded, not that it succeeded: read "
                "`relocation.phase` until it is SOURCE_RELEASED or FAILED. A failed one leaves the source serving.",
                tag="Sessions",
                handler=self.relocate,
                scope="ai-paging:sessions:update",
                request=RelocateRequest,
                request_optional=True,
                request_example=examples.RELOCATE,
                replies={202: Reply(meaning=session_replies, document=SessionDocument, example=examples.SESSION)},
                errors=changing,
            ),
            Operation(
                method="POST",
                path=f"{BASE}/sessions/{{sessionId}}/move",
                name="moveClient",
                summary="Say that a session's client is in another access domain",
                description="A mobility event: the session is looked at next, and relocated.",
                tag="Sessions",
                handler=self.move,
                scope="ai-paging:sessions:move",
                request=MoveRequest,
                request_example=examples.MOVE,
                replies={202: Reply(meaning=session_replies, document=SessionDocument, example=examples.SESSION)},
                errors=changing,
            ),
            Operation(
                method="POST",
                path=f"{BASE}/sessions/{{sessionId}}/erase",
                name="eraseSession",
                summary="Erase what is private of a session that is over",
                description="Deletes, from the disk, the key of what is stored of the session (intent, place, sink) "
                "and the salt of its commitments. Its records stay, and verify as before. A session that was erased "
                "already is answered likewise. Takes as long as storing a snapshot of the controller's state.",
                tag="Sessions",
                handler=self.erase,
                scope="ai-paging:sessions:erase",
                replies={204: Reply(meaning="Nobody can read it any more.")},
                errors=(*changing, "AI_PAGING.SNAPSHOT_FAILED", "AI_PAGING.JOURNAL_BUSY"),
            ),
        ]


def _resolution(state: State, intent: Intent, now: Now, caller: Caller) -> Resolution:
    candidates = resolved(state, intent, now, tenant=caller.tenant, client=caller.client)
    plan = None
    if not any(candidate.rejection is None for candidate in candidates[:1]):
        plan = would_preempt(state, intent, now, tenant=caller.tenant, client=caller.client)
    return Resolution(
        intent=intent_document(intent),
        candidates=[candidate_document(found, intent.epsilon) for found in candidates[:ANSWER_ITEMS_MAX]],
        preemption=preemption_document(state, plan, now) if plan is not None else None,
    )


def visible(state: State, session: SessionId, caller: Caller) -> Session:
    """Return a session that the caller may see; somebody else's does not exist for it.

    Raises:
        InvalidInputError: There is none (`NOT_FOUND`).
    """
    found = state.sessions.get(session)
    if found is None or not (caller.operator or (found.client, found.tenant) == (caller.client, caller.tenant)):
        raise InvalidInputError(f"there is no session {session}", code="NOT_FOUND", field="sessionId")
    return found


def _key_of(request: Request) -> str:
    """Return the digest of the request's idempotency key, or "" if it has none.

    Raises:
        InvalidInputError: It is too long, or not printable ASCII.
    """
    key = request.header(b"idempotency-key")
    if len(key) > KEY_CHARS_MAX or not (key.isascii() and key.isprintable()):
        raise InvalidInputError(
            f"idempotency-key has {len(key)} characters: up to {KEY_CHARS_MAX} printable ASCII ones are allowed",
            field="idempotency-key",
        )
    return sha256(key.encode()).hexdigest() if key else ""


def _session_of(request: Request) -> SessionId:
    session = session_id(request.parameters["sessionId"])
    request.notes["session"] = session
    return session


def _matcher(wanted: RetrieveSessionsRequest, caller: Caller) -> Callable[[Session], bool]:
    asked = wanted.filter
    if asked.client_id is not None and not caller.operator and asked.client_id != caller.client:
        raise RefusedError(
            "only an operator lists the sessions of other clients", code="PERMISSION_DENIED", field="filter.clientId"
        )

    def matches(session: Session) -> bool:
        mine = caller.operator or (session.client, session.tenant) == (caller.client, caller.tenant)
        return (
            mine
            and (asked.status is None or asked.status is session.phase)
            and (asked.aisi is None or asked.aisi == session.aisi)
            and (asked.client_id is None or asked.client_id == session.client)
            and (asked.anchor_id is None or (session.lease is not None and asked.anchor_id == session.lease.anchor))
        )

    return matches


def _turned_away(reply: c.Refused) -> None:
    """Answer what no candidate could change.

    Raises:
        RefusedError: A quota is used up (`QUOTA_EXCEEDED`), the operator stopped the tenant or all (`KILLED`), or room
            is being made for this very request (`PREEMPTING`).
    """
    code = {QUOTA: "QUOTA_EXCEEDED", KILLED: KILLED, PREEMPTING: PREEMPTING}.get(reply.constraint)
    if code is not None and not reply.candidates:
        error = RefusedError(reply.message, code=code)
        error.retry_after_s = reply.retry_after_s
        raise error


def _refusal(reply: c.Refused, intent: Intent) -> Answer:
    error = AipagingError(reply.message, code="ADMISSION_REFUSED", who=Who.CALLER)
    return json_answer(
        AdmissionRefusal(
            status=422,
            code=f"{API_PREFIX}{error.code}",
            message=f"no candidate was admitted; the one that came furthest failed {reply.constraint}: {reply.message}",
            who=error.who.value,
            session_id=reply.session,
            constraint=reply.constraint,
            candidates=[candidate_document(found, intent.epsilon) for found in reply.candidates[:ANSWER_ITEMS_MAX]],
        ),
        status=422,
    )
