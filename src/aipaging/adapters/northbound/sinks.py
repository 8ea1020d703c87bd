"""Where sessions' events are pushed, and what did not arrive there."""

from collections.abc import Sequence
from typing import Final

import msgspec

from aipaging.adapters.northbound import examples
from aipaging.adapters.northbound.credentials import Caller
from aipaging.adapters.northbound.documents.sinks import DeadLetterDocument, DeadLetterList, SinkRequest, sink_of
from aipaging.adapters.northbound.documents.words import instant
from aipaging.adapters.northbound.operation import BASE, Operation, Reply
from aipaging.adapters.northbound.pages import AskedPage, page_query
from aipaging.adapters.northbound.service import Northbound
from aipaging.adapters.northbound.sessions import visible
from aipaging.core.foundation.names import session_id
from aipaging.core.paging.sinks import SetSink, Sink
from aipaging.ports.notification import DeadLetter, Notifications
from aipaging.runtime.http.exchange import NO_CONTENT, Answer, Request, json_answer

_SINK: Final = msgspec.json.Decoder(SinkRequest)
_EXAMPLE: Final = {
    "sink": "https://events.client.example/ai-paging",
    "sinkCredential": {"credentialType": "ACCESSTOKEN", "accessToken": "SlAV32hkKG", "accessTokenType": "bearer"},
}
_LETTER_EXAMPLE: Final = {
    "deadLetters": [
        {
            "destination": "session:3f1c2a54-7f0e-4c5e-9b1d-0a4f6d2b8e11",
            "tenant": "tenant-one",
            "eventId": "1204-5ad1c9e0",
            "eventType": "org.aipaging.ai-paging.v0.session-degraded",
            "reason": "HTTP_500",
            "attempts": 11,
            "givenUpAt": "2026-03-01T12:00:00Z",
            "sessionId": "3f1c2a54-7f0e-4c5e-9b1d-0a4f6d2b8e11",
        }
    ],
    "pagination": examples.LONG_PAGE,
}


class SinkRoutes:
    """The operations on sinks."""

    def __init__(self, service: Northbound) -> None:
        self._control = service.control
        self._notifications = service.notifications

    async def set(self, request: Request, caller: Caller) -> Answer:
        """Set a session's sink."""
        session = session_id(request.parameters["sessionId"])
        request.notes["session"] = session
        asked = await request.document(_SINK)
        sink = checked_sink(sink_of(asked), self._notifications)
        await self._control.view(lambda state, _: visible(state, session, caller))
        await self._control.submit(SetSink(session=session, sink=sink))
        return NO_CONTENT

    async def dead_letters(self, request: Request, _caller: Caller) -> Answer:
        """List what was given up."""
        query = request.parameters_of_query("page", "perPage")
        page = AskedPage.of(query)
        total, found = await self._notifications.dead_letters(page.first, page.per_page)
        return json_answer(
            DeadLetterList(
                dead_letters=[_document(letter) for letter in found],
                pagination=page.of_total(total),
            )
        )

    def operations(self) -> Sequence[Operation]:
        """Return the table of these operations."""
        return [
            Operation(
                method="PUT",
                path=f"{BASE}/sessions/{{sessionId}}/sink",
                name="setSessionSink",
                summary="Say where a session's events are posted",
                description="CloudEvents 1.0.2, signed (RFC 9421), at least once, from now on. Also how a token that "
                "ends is replaced. `sink` null ends it.",
                tag="Events",
                handler=self.set,
                scope="ai-paging:sessions:update",
                request=SinkRequest,
                request_example=_EXAMPLE,
                replies={204: Reply(meaning="It is set.")},
                errors=(
                    "NOT_FOUND", "INVALID_ARGUMENT", "INCOMPATIBLE_STATE", "INVALID_SINK",
                    "AI_PAGING.INVALID_CREDENTIAL", "UNSUPPORTED_MEDIA_TYPE", "AI_PAGING.PAYLOAD_TOO_LARGE",
                ),
            ),
            Operation(
                method="GET",
                path=f"{BASE}/dead-letters",
                name="getDeadLetters",
                summary="List the notifications that were given up",
                tag="Events",
                handler=self.dead_letters,
                scope="ai-paging:dead-letters:read",
                query=page_query("Dead letters"),
                replies={200: Reply(meaning="A page.", document=DeadLetterList, example=_LETTER_EXAMPLE)},
                errors=("INVALID_ARGUMENT", "OUT_OF_RANGE"),
            ),
        ]  # fmt: skip


def checked_sink(sink: Sink | None, notifications: Notifications) -> Sink | None:
    """Return a sink that may be used.

    Raises:
        InvalidInputError: It may not (`INVALID_SINK`).
    """
    if sink is not None:
        notifications.check(sink.url)
    return sink


def _document(letter: DeadLetter) -> DeadLetterDocument:
    return DeadLetterDocument(
        destination=letter.destination,
        tenant=letter.tenant,
        event_id=letter.event_id,
        event_type=letter.event_type,
        reason=letter.reason,
        attempts=letter.attempts,
        given_up_at=instant(letter.wall_us),
        session_id=letter.session or None,
    )
