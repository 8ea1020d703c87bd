"""What the sidecar answers itself: prepare, health, metrics. Nothing below this path reaches the upstream."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import httpx
import msgspec

from aipaging.adapters.sidecar.answers import CLOSE, ROLE_REFUSED, Refusal, answer, refusal_answer
from aipaging.adapters.sidecar.exchange import NEVER_S
from aipaging.adapters.sidecar.gateway_side import OPERATIONS_PREFIX, GatewaySide, Role
from aipaging.adapters.sidecar.heads import RequestHead
from aipaging.adapters.sidecar.settings import Upstream
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import session_id

BODY_BYTES_MAX: Final = 4_096
"""A request to prepare is about 100 bytes."""

HEALTH_CACHE_S: Final = 1.0
"""As long as a heartbeat interval at least: a crowd of probes is one probe."""

HEALTH_S_MAX: Final = 2.0
"""A model server that takes longer to say that it is well is not."""

_NOT_FOUND: Final = Refusal(status=404, code="NOT_FOUND", message="the sidecar has prepare, health and metrics here")
_WRONG_METHOD: Final = Refusal(status=405, code="METHOD_NOT_ALLOWED", message="this path does not have that method")
_TOO_LONG: Final = Refusal(status=413, code="BODY_TOO_LONG", message=f"at most {BODY_BYTES_MAX} bytes are read here")
_LENGTH_REQUIRED: Final = Refusal(status=411, code="LENGTH_REQUIRED", message="a body here must have a Content-Length")
_NOT_READY: Final = Refusal(
    status=503, code="NOT_READY", message="the anchor is draining or its model server does not answer", retry_after_s=1
)


class UpstreamProbe:
    """Asks the model server whether it is well: really, but at most once in a while."""

    def __init__(self, upstream: Upstream, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._path = upstream.prefix.decode() + upstream.health_path
        self._headers = {} if upstream.authorization is None else {"authorization": upstream.authorization.decode()}
        self._client = httpx.AsyncClient(
            base_url=f"{'https' if upstream.tls else 'http'}://{upstream.authority.decode()}",
            timeout=HEALTH_S_MAX,
            limits=httpx.Limits(max_keepalive_connections=0),  # that it takes connections is part of the question
            trust_env=False,
            transport=transport,
        )
        self._asked_s = float("-inf")
        self._healthy = False
        self._under_way: asyncio.Task[bool] | None = None

    async def healthy(self) -> bool:
        """Return whether the upstream answers; any answer below 500 is one, for not every server has the path."""
        if time.monotonic() - self._asked_s < HEALTH_CACHE_S:
            return self._healthy
        if self._under_way is None:
            self._under_way = asyncio.create_task(self._ask())
        return await asyncio.shield(self._under_way)

    async def healthy_now(self) -> bool:
        """Return whether the upstream answers a question that is put after this call; who asks meanwhile shares it.

        Sessions are about to be sent here: what was true a second ago is not good enough.
        """
        if self._under_way is not None:
            await asyncio.shield(self._under_way)
        if self._under_way is None:
            self._under_way = asyncio.create_task(self._ask())
        return await asyncio.shield(self._under_way)

    async def _ask(self) -> bool:
        try:
            async with asyncio.timeout(HEALTH_S_MAX):
                response = await self._client.get(self._path, headers=self._headers)
                self._healthy = response.status_code < 500
        except (httpx.HTTPError, TimeoutError, OSError):
            self._healthy = False
        self._asked_s = time.monotonic()
        self._under_way = None
        return self._healthy

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """What operations are made of.

    Attributes:
        healthy: Whether this anchor can take sessions, as of lately.
        healthy_now: The same, asked anew.
        metrics: The Prometheus text.
        tasks: Keeps the tasks that answer.
    """

    healthy: Callable[[], Awaitable[bool]]
    healthy_now: Callable[[], Awaitable[bool]]
    metrics: Callable[[], bytes]
    tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    def begin(self, side: GatewaySide, head: RequestHead) -> "Operation":
        """Return the work of one request."""
        return Operation(self, side, head)


class _Prepare(msgspec.Struct):
    session: str
    term: int
    n: int


_ROLES: Final[dict[bytes, tuple[bytes, frozenset[Role]]]] = {
    b"prepare": (b"POST", frozenset[Role]({"loopback", "controller"})),
    b"health": (b"GET", frozenset[Role]({"loopback", "controller", "gateway"})),
    b"metrics": (b"GET", frozenset[Role]({"loopback", "controller", "gateway"})),
}


class Operation:
    """One request to the sidecar itself."""

    __slots__ = ("_answered", "_body", "_head", "_name", "_operations", "_side", "_task", "_whole", "deadline_s")

    def __init__(self, operations: Operations, side: GatewaySide, head: RequestHead) -> None:
        self._operations = operations
        self._side = side
        self._head = head
        self._body = b""
        self._name = b""
        self._whole = False
        self._answered = False
        self._task: asyncio.Task[None] | None = None
        self.deadline_s = NEVER_S

    @property
    def unanswered(self) -> bool:
        """Whether nothing has been sent yet."""
        return not self._answered

    def start(self) -> None:
        """Judge path, method and role; the answer waits for the body."""
        name = self._head.target[len(OPERATIONS_PREFIX) :].partition(b"?")[0]
        if name not in _ROLES:
            self._refuse(_NOT_FOUND)
            return
        method, roles = _ROLES[name]
        if self._head.method != method:
            self._refuse(_WRONG_METHOD)
        elif self._side.role not in roles:
            self._refuse(ROLE_REFUSED)
        elif self._head.chunked:
            self._refuse(_LENGTH_REQUIRED)
        else:
            self._name = name
            self._go_on()

    def _go_on(self) -> None:
        if self._answered or not (self._name and self._whole):
            return
        if self._name == b"metrics":
            self._answer(answer(200, self._operations.metrics(), media_type=_PROMETHEUS, extra=self._close_field()))
            return
        wrong = self._wrong_prepare() if self._name == b"prepare" else None
        if wrong is not None:
            self._refuse(wrong)
            return
        self._task = asyncio.create_task(self._check_health())
        self._operations.tasks.add(self._task)
        self._task.add_done_callback(self._operations.tasks.discard)

    async def _check_health(self) -> None:
        preparing = self._name == b"prepare"
        if not await (self._operations.healthy_now if preparing else self._operations.healthy)():
            self._refuse(_NOT_READY)
        elif preparing:
            self._answer(answer(204, b"", extra=self._close_field()))
        else:
            self._answer(answer(200, b'{"status":"READY"}', extra=self._close_field()))

    def _wrong_prepare(self) -> Refusal | None:
        try:
            asked = msgspec.json.decode(self._body, type=_Prepare)
            session_id(asked.session, field="session")
        except (msgspec.MsgspecError, InvalidInputError):
            return Refusal(status=400, code="INVALID_ARGUMENT", message="expected session, term and n")
        return None

    def body(self, piece: bytes) -> None:
        """Keep the body, which is small."""
        self._body += piece
        if len(self._body) > BODY_BYTES_MAX and not self._answered:
            self._refuse(_TOO_LONG)

    def body_done(self) -> None:
        """Let the answer go out."""
        self._whole = True
        self._go_on()

    def gateway_full(self, *, full: bool) -> None:
        """An answer is one piece: there is nothing to hold back."""

    def gateway_left(self) -> None:
        """Forget about it."""
        self._answered = True
        if self._task is not None:
            self._task.cancel()

    def overdue(self) -> None:
        """It has no deadline of its own."""

    def _close_field(self) -> bytes:
        return CLOSE if self._head.close else b""

    def _refuse(self, refusal: Refusal) -> None:
        self._answer(refusal_answer(refusal, close=self._head.close, with_body=self._head.method != b"HEAD"))

    def _answer(self, whole: bytes) -> None:
        self._answered = True
        self._side.write(whole)
        self._side.request_over(keep=not self._head.close)


_PROMETHEUS: Final = b"text/plain; version=0.0.4"
