"""The routes for sidecars and gateways, and who may use which.

Who asks is known from the peer's certificate alone (`runtime.peer_identity`); nothing in a request says it. An anchor
speaks of itself only: the anchor of a lease question is the asker, and a heartbeat is for the asker's own id.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from aipaging.adapters.southbound.leases import LeaseWord, remaining
from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import InvalidInputError, RefusedError, UnavailableError
from aipaging.core.foundation.names import AnchorId, SessionId
from aipaging.core.foundation.time import Now
from aipaging.core.paging.commands import Heartbeat, MeterSessions, UsageTaken
from aipaging.core.paging.state import State
from aipaging.ports.control import ControlPlane
from aipaging.ports.revocation import RevocationFeed
from aipaging.runtime.http.documents import decoded
from aipaging.runtime.http.exchange import (
    Answer,
    AsgiApp,
    Receive,
    Request,
    Scope,
    Send,
    integer_of,
    json_answer,
)
from aipaging.runtime.http.routing import HttpApp, Observer, Route
from aipaging.runtime.peer_identity import IDENTITY
from aipaging.runtime.tracing import Tracer, sampled_parent

LOOK_UP_PATH: Final = "/steering/v1/look-up"

QUESTIONS_MAX: Final = 1_024
"""Leases in one question; a sidecar asks about at most 512 at once."""

QUESTIONS_BYTES_MAX: Final = 262_144
"""1,024 questions of about 100 bytes, twice over."""

WAIT_MS_MAX: Final = 30_000
"""How long a long poll is held: below the idle time-outs of common middleboxes (60 s)."""

USED_MAX: Final = 512
"""Sessions counted in one batch; what is left comes with the next."""

USED_BYTES_MAX: Final = 131_072
"""512 counts of about 100 bytes, twice over."""

HEARTBEAT_MS: Final = 1_000
"""Three in the default time after which an anchor is LOST."""

CSR_BYTES_MAX: Final = 16_384
"""A P-256 request has about 500 bytes."""

_LOG = logging.getLogger(__name__)

_AFTER_DIGITS_MAX: Final = 19
_INTEGER_MAX: Final = 2**53 - 1

EnrolledRole: TypeAlias = Literal["anchor", "gateway"]
"""Who may renew its identity over the wire; a controller never does."""

_Place = Annotated[int, Meta(ge=0, le=_INTEGER_MAX)]


class LeaseQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long may this epoch go on here?"""

    session: Annotated[str, Meta(max_length=36, pattern="^[0-9a-f-]{36}$(?!\\n)")]
    term: _Place
    n: _Place


class LeaseQuestions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /steering/v1/remaining`."""

    leases: Annotated[list[LeaseQuestion], Meta(max_length=QUESTIONS_MAX)]


class LeaseReply(msgspec.Struct, frozen=True):
    """What remains, counted from the asker's sending."""

    session: str
    term: int
    n: int
    remaining_ms: int
    state: LeaseWord
    current_term: int
    current_n: int


class SessionUsed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one session used at the anchor since the batch before."""

    session: Annotated[str, Meta(min_length=36, max_length=36)]
    requests: _Place
    tokens: _Place = 0


class AnchorBeat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a heartbeat."""

    state: Literal["READY", "DRAINING", "UNHEALTHY"]
    boot: Annotated[str, Meta(min_length=1, max_length=64)]
    sequence: _Place
    in_flight: _Place = 0
    queued: _Place = 0


class AnchorUsage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a batch of counts."""

    boot: Annotated[str, Meta(min_length=1, max_length=64)]
    batch: Annotated[int, Meta(ge=1, le=_INTEGER_MAX)]
    used: Annotated[list[SessionUsed], Meta(max_length=USED_MAX)]


_QUESTIONS: Final = msgspec.json.Decoder(LeaseQuestions)
_BEAT: Final = msgspec.json.Decoder(AnchorBeat)
_USAGE: Final = msgspec.json.Decoder(AnchorUsage)
_SAID: Final = {
    "READY": AnchorState.READY,
    "DRAINING": AnchorState.DRAINING,
    # What cannot serve is as good as gone; only the cause of the record tells the two apart.
    "UNHEALTHY": AnchorState.LOST,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Southbound:
    """What the routes need.

    Attributes:
        control: The engine.
        feed: What has been revoked.
        renew: `(csr_pem, role, name)` -> PEM chain for the identity that the peer was authenticated with.
        jwks: The public keys of receipts.
        look_up: Answers `GET /steering/v1/look-up`.
        heartbeat_ms: How often sidecars are to be heard of.
    """

    control: ControlPlane
    feed: RevocationFeed
    renew: Callable[[bytes, EnrolledRole, str], bytes]
    jwks: Callable[[], Mapping[str, object]]
    look_up: AsgiApp
    heartbeat_ms: Callable[[], int] = lambda: HEARTBEAT_MS


class SouthboundRoutes:
    """Answers sidecars and gateways."""

    def __init__(self, service: Southbound) -> None:
        self._service = service
        self._control = service.control
        self._beats: dict[AnchorId, tuple[str, int]] = {}

    async def remaining(self, request: Request) -> Answer:
        """Answer how long leases may go on at the asking anchor."""
        anchor = AnchorId(_peer(request, "anchor"))
        asked = decoded(_QUESTIONS, await request.body(bytes_max=QUESTIONS_BYTES_MAX)).leases
        self._require_health()

        def read(state: State, now: Now) -> list[LeaseReply]:
            return [_replied(state, anchor, question, now) for question in asked]

        replies = await self._control.view(read)
        self._require_health()  # while we waited for the journal it may have failed
        return json_answer({"leases": replies})

    def _require_health(self) -> None:
        """Grant no time that a leader with a writable journal would not stand by.

        Raises:
            UnavailableError: It is not one.
        """
        if not self._control.healthy:
            raise UnavailableError(self._control.ill or "the engine is not healthy")

    async def revocations(self, request: Request) -> Answer:
        """Answer what was revoked since a place, as soon as there is something."""
        _peer(request, "anchor")
        query = request.parameters_of_query("after", "wait_ms")
        term, sequence = _place_of(query.get("after", ""))
        wait_ms = integer_of(query.get("wait_ms"), field="wait_ms", low=0, high=WAIT_MS_MAX, default=0)
        said = await self._service.feed.since(term, sequence, wait_s=wait_ms / 1000)
        entries = [{"session": e.session, "term": e.epoch.term, "n": e.epoch.n} for e in said.entries]
        return json_answer({"term": said.term, "sequence": said.sequence, "entries": entries, "reset": said.reset})

    async def heartbeat(self, request: Request) -> Answer:
        """Take note of an anchor."""
        anchor = _itself(request)
        beat = decoded(_BEAT, await request.body())
        boot, sequence = self._beats.get(anchor, ("", -1))
        # A beat that was overtaken says nothing any more: READY must not follow the DRAINING that was said after it.
        if boot != beat.boot or beat.sequence > sequence:
            await self._control.submit(Heartbeat(anchor=anchor, state=_SAID[beat.state]))
            self._beats[anchor] = (beat.boot, beat.sequence)
        answer = {"interval_ms": self._service.heartbeat_ms()}
        if beat.state == "DRAINING":
            # It cannot know of sessions that were paged and have sent nothing yet, and must not close before they left.
            answer["sessions"] = await self._control.view(lambda state, _: len(state.on_anchor.get(anchor, {})))
        return json_answer(answer)

    async def usage(self, request: Request) -> Answer:
        """Record what sessions used at an anchor, and name the counts that cannot be true."""
        anchor = _itself(request)
        said = decoded(_USAGE, await request.body(bytes_max=USED_BYTES_MAX))
        used = tuple((SessionId(each.session), each.requests, each.tokens) for each in said.used)
        taken = await self._control.submit(MeterSessions(anchor=anchor, boot=said.boot, batch=said.batch, used=used))
        refused = taken.refused if isinstance(taken, UsageTaken) else ()
        if refused:
            _LOG.warning("%d counts of anchor %s cannot be true; session %s: %s, %s", len(refused), anchor, *refused[0])
        return json_answer(
            {"refused": [{"session": session, "code": code, "message": why} for session, code, why in refused]}
        )

    async def renew(self, request: Request) -> Answer:
        """Renew the identity that the peer was authenticated with."""
        role, name = _identity(request, "anchor", "gateway")
        csr = await request.body(bytes_max=CSR_BYTES_MAX)
        chain = self._service.renew(csr, "anchor" if role == "anchor" else "gateway", name)
        return Answer(body=chain, media_type="application/x-pem-file")

    async def keys(self, request: Request) -> Answer:
        """Answer the public keys of receipts."""
        _identity(request, "anchor", "gateway")
        return json_answer(self._service.jwks())

    def routes(self) -> list[Route]:
        """Return the table of these routes; all are logged only when they fail, for all are frequent."""
        return [
            Route(
                method="POST",
                path="/steering/v1/remaining",
                name="remaining",
                handler=self.remaining,
                quiet=True,
            ),
            Route(
                method="GET",
                path="/steering/v1/revocations",
                name="revocations",
                handler=self.revocations,
                quiet=True,
            ),
            Route(
                method="PUT",
                path="/anchors/{anchorId}/heartbeat",
                name="heartbeat",
                handler=self.heartbeat,
                quiet=True,
            ),
            Route(method="PUT", path="/anchors/{anchorId}/usage", name="usage", handler=self.usage, quiet=True),
            Route(method="POST", path="/identity/v1/renew", name="renewIdentity", handler=self.renew),
            Route(method="GET", path="/identity/v1/keys", name="keys", handler=self.keys, quiet=True),
        ]


def southbound_app(service: Southbound, *, observe: Observer | None = None, tracer: Tracer | None = None) -> AsgiApp:
    """Return the southbound interface as an ASGI application; a look-up is a span where its request is sampled."""
    routes = SouthboundRoutes(service).routes()
    rest = HttpApp(routes) if observe is None else HttpApp(routes, observe=observe)
    look_up = service.look_up

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        # The look-up is the hot path: thousands a second, and it has its own form of answer.
        if scope["type"] == "http" and scope["path"] == LOOK_UP_PATH:
            parent = "" if tracer is None else sampled_parent(scope["headers"])
            if tracer is None or not parent:
                await look_up(scope, receive, send)
                return
            with tracer.span("look-up", parent=parent, server=True):
                await look_up(scope, receive, send)
        else:
            await rest(scope, receive, send)

    return answered


def _replied(state: State, anchor: AnchorId, question: LeaseQuestion, now: Now) -> LeaseReply:
    asked = Epoch(question.term, question.n)
    found = remaining(state, anchor, SessionId(question.session), asked=asked, now=now)
    return LeaseReply(
        session=question.session,
        term=question.term,
        n=question.n,
        remaining_ms=found.remaining_ms,
        state=found.state,
        current_term=found.current.term,
        current_n=found.current.n,
    )


def _place_of(text: str) -> tuple[int, int]:
    term, dot, sequence = text.partition(".")
    numbers = [part for part in (term, sequence) if part.isascii() and part.isdecimal()]
    if not dot or len(numbers) != 2 or max(map(len, numbers)) > _AFTER_DIGITS_MAX:
        raise InvalidInputError(f"after is {text[:40]!r}: <term>.<sequence> is expected", field="after")
    return int(term), int(sequence)


def _identity(request: Request, *roles: str) -> tuple[str, str]:
    """Return the peer's role and name.

    Raises:
        RefusedError: It has none of the roles.
    """
    role, name = request.extensions.get(IDENTITY, ("", ""))
    if role not in roles:
        raise RefusedError(
            f"only an enrolled {' or '.join(roles)} may ask this; enrol the node and use its certificate",
            code="PERMISSION_DENIED",
        )
    request.notes["peer"] = f"{role}/{name}"
    return role, name


def _peer(request: Request, role: str) -> str:
    return _identity(request, role)[1]


def _itself(request: Request) -> AnchorId:
    """Return the asking anchor.

    Raises:
        RefusedError: It speaks of another, or is none.
    """
    anchor = AnchorId(_peer(request, "anchor"))
    if request.parameters["anchorId"] != anchor:
        raise RefusedError(f"{anchor} may speak of itself only", code="PERMISSION_DENIED", field="anchorId")
    return anchor
