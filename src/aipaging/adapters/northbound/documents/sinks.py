"""Sinks and what did not reach them, on the wire; the words are CAMARA's."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from aipaging.adapters.northbound.documents.intent import IntentDocument
from aipaging.adapters.northbound.documents.words import END, Count, Instant, Pagination, wall_us_of
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.paging.sinks import Sink
from aipaging.runtime.http.documents import PRIVATE

SinkText = Annotated[
    str,
    Meta(
        max_length=2048,
        description="https URL to which CloudEvents are posted; kept private, never answered.",
        extra=PRIVATE,
    ),
]
AccessTokenText = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=4096,
        pattern="^[A-Za-z0-9._~+/=-]+" + END,
        description="Shown to the sink as bearer token (RFC 6750); kept private, never answered.",
    ),
]


class SinkCredential(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The token that notifications show to the sink."""

    credential_type: Annotated[Literal["ACCESSTOKEN"], Meta(description="The one kind that there is.")]
    access_token: AccessTokenText
    access_token_type: Annotated[Literal["bearer"], Meta(description="RFC 6750.")] = "bearer"  # noqa: S105 - RFC 6750's word, no secret
    access_token_expires_utc: Instant | None = None


class SinkRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Where a session's events go; `sink` null for nowhere."""

    sink: SinkText | None
    sink_credential: Annotated[SinkCredential, Meta(extra=PRIVATE)] | None = None


class PageRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """An intent to page, and where its events are to go."""

    intent: IntentDocument
    sink: SinkText | None = None
    sink_credential: Annotated[SinkCredential, Meta(extra=PRIVATE)] | None = None


class DeadLetterDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A notification that was given up; the event itself can be read at `/events` and in the evidence."""

    destination: Annotated[str, Meta(max_length=128, description="`session:<id>` or `sink:<name>`; never a URL.")]
    tenant: Annotated[str, Meta(max_length=64, description="Whose event it is.")]
    event_id: Annotated[str, Meta(max_length=32, description="`id` of the CloudEvent.")]
    event_type: Annotated[str, Meta(max_length=128, description="`type` of the CloudEvent.")]
    reason: Annotated[str, Meta(max_length=64, description="A word, such as HTTP_500, TIMEOUT or QUEUE_FULL.")]
    attempts: Annotated[Count, Meta(description="How often it was tried.")]
    given_up_at: Instant
    session_id: Annotated[str, Meta(max_length=36, description="The session that it is about.")] | None = None


class DeadLetterList(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One page of dead letters, the newest first."""

    dead_letters: Annotated[
        list[DeadLetterDocument], Meta(max_length=1_000, description="The dead letters of this page.")
    ]
    pagination: Pagination


def sink_of(request: SinkRequest | PageRequest) -> Sink | None:
    """Return the sink that was asked for; its URL is checked by whoever knows the rules.

    Raises:
        InvalidInputError: There is a credential and no sink.
    """
    credential = request.sink_credential
    if request.sink is None:
        if credential is not None:
            raise InvalidInputError(
                "sinkCredential is for a sink, and there is none", code="INVALID_CREDENTIAL", field="sinkCredential"
            )
        return None
    if credential is None:
        return Sink(url=request.sink)
    expires = credential.access_token_expires_utc
    return Sink(
        url=request.sink, token=credential.access_token, expires_us=0 if expires is None else wall_us_of(expires)
    )
