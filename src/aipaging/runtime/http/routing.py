"""A table of routes as an ASGI application.

Every answer carries `x-correlator`; every failure, of whatever kind, ends as an error document; every request ends
as one log line that holds the route and never a token.
"""

import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeAlias

from aipaging.core.foundation.errors import AipagingError, InvalidInputError, RefusedError
from aipaging.runtime.http.exchange import Answer, Receive, Request, Scope, Send
from aipaging.runtime.http.faults import bug_answer, fault_answer
from aipaging.runtime.http.streaming import send_stream
from aipaging.runtime.tracing import Tracer

LOG: Final = logging.getLogger("aipaging.http")

CORRELATOR: Final = b"x-correlator"
_CORRELATOR: Final = re.compile(rb"[a-zA-Z0-9\-_:;./<>{}]{0,256}")
"""CAMARA Commonalities."""

PATH_CHARS_MAX: Final = 1024
"""The longest real path, a leaves file of the evidence, has about 120."""

Handler: TypeAlias = Callable[[Request], Awaitable[Answer]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One operation.

    Attributes:
        method: GET, POST, PUT or DELETE; GET answers HEAD as well.
        path: With `{name}` for one part, or one `{name*}` at the end for all that follow.
        name: operationId: what logs and metrics call it.
        handler: Answers.
        quiet: Whether it is logged only when it fails: probes and scrapes.
    """

    method: str
    path: str
    name: str
    handler: Handler
    quiet: bool = False


class Observer(Protocol):
    """Counts what was answered."""

    def __call__(self, name: str, status: int, seconds: float, /) -> None:
        """Take note of one answer."""
        ...


_ByMethod: TypeAlias = dict[str, Route]


class _NotAllowedError(RefusedError):
    """The path exists, the method does not."""

    def __init__(self, method: str, routes: _ByMethod) -> None:
        self.allowed = ", ".join(sorted({*routes, *(("HEAD",) if "GET" in routes else ())}))
        super().__init__(f"{method[:16]} is not possible here: allowed is {self.allowed}", code="METHOD_NOT_ALLOWED")


def _unobserved(_name: str, _status: int, _seconds: float) -> None:
    """Count nothing."""


class HttpApp:
    """Answers by a table of routes."""

    def __init__(
        self, routes: Sequence[Route], *, observe: Observer = _unobserved, tracer: Tracer | None = None
    ) -> None:
        self._observe = observe
        self._tracer = tracer
        self._exact: dict[str, _ByMethod] = {}
        self._patterns: dict[int, list[tuple[tuple[str, ...], _ByMethod]]] = {}
        self._tails: dict[str, tuple[str, _ByMethod]] = {}
        for route in routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        if "{" not in route.path:
            self._exact.setdefault(route.path, {})[route.method] = route
            return
        head, _, tail = route.path.partition("{")
        if tail.endswith("*}") and "{" not in tail:
            self._tails.setdefault(head, (tail[:-2], {}))[1][route.method] = route
            return
        parts = tuple(route.path.split("/"))
        patterns = self._patterns.setdefault(len(parts), [])
        for known, routes in patterns:
            if known == parts:
                routes[route.method] = route
                return
        patterns.append((parts, {route.method: route}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await _other(scope, receive, send)
            return
        begun = time.perf_counter()
        headers: Mapping[bytes, bytes] = dict(scope["headers"])
        request = Request(
            method=scope["method"],
            path=scope["path"],
            headers=headers,
            query=scope["query_string"],
            parameters={},
            correlator="",
            extensions=scope.get("extensions") or {},
            address=(scope.get("client") or ("",))[0],
            receive=receive,
            unread=headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers,
        )
        route, answer = await self._traced(request)
        name = route.name if route else "unknown"
        await _send(send, request, answer)
        seconds = time.perf_counter() - begun
        self._observe(name, answer.status, seconds)
        if route is None or not route.quiet or answer.status >= 500:
            _log(request, name, answer.status, seconds)

    async def _traced(self, request: Request) -> tuple[Route | None, Answer]:
        """Answer inside a span, below the caller's where it sent one; the log line names the trace."""
        if self._tracer is None:
            return await self._answered(request)
        with self._tracer.span(f"{request.method[:16]} request", parent=request.header(b"traceparent"), server=True):
            request.notes["traceparent"] = self._tracer.traceparent()
            return await self._answered(request)

    async def _answered(self, request: Request) -> tuple[Route | None, Answer]:
        route: Route | None = None
        try:
            _correlate(request)
            route = self._route(request)
            return route, await route.handler(request)
        except AipagingError as error:
            request.notes["code"] = error.code
            answer = fault_answer(error, request.correlator)
            if isinstance(error, _NotAllowedError):
                answer = replace(answer, headers=((b"allow", error.allowed.encode()),))
            return route, answer
        except Exception:
            LOG.exception("bug", extra={"correlator": request.correlator})
            return route, bug_answer(request.correlator)

    def _route(self, request: Request) -> Route:
        routes = self._routes_at(request)
        if routes is None:
            raise InvalidInputError(f"there is nothing at {request.path[:80]!r}", code="NOT_FOUND")
        method = "GET" if request.method == "HEAD" else request.method
        route = routes.get(method)
        if route is None:
            raise _NotAllowedError(request.method, routes)
        return route

    def _routes_at(self, request: Request) -> _ByMethod | None:
        path = request.path
        routes = self._exact.get(path)
        if routes is not None or len(path) > PATH_CHARS_MAX:
            return routes
        parts = path.split("/")
        for pattern, found in self._patterns.get(len(parts), ()):
            parameters = _matched(pattern, parts)
            if parameters is not None:
                request.parameters = parameters
                return found
        for head, (name, found) in self._tails.items():
            if path.startswith(head) and len(path) > len(head):
                request.parameters = {name: path[len(head) :]}
                return found
        return None


def _matched(pattern: Sequence[str], parts: Sequence[str]) -> dict[str, str] | None:
    parameters: dict[str, str] = {}
    for expected, part in zip(pattern, parts, strict=True):
        if expected.startswith("{"):
            if not part:
                return None
            parameters[expected[1:-1]] = part
        elif expected != part:
            return None
    return parameters


def _correlate(request: Request) -> None:
    """Take the correlator over, or make one.

    Raises:
        InvalidInputError: The given one is malformed; a fresh one stands in the answer.
    """
    given = request.headers.get(CORRELATOR)
    if given is not None and given and _CORRELATOR.fullmatch(given):
        request.correlator = given.decode("ascii")
        return
    request.correlator = str(uuid.uuid4())
    if given:
        raise InvalidInputError(
            f"x-correlator is malformed: {_CORRELATOR.pattern.decode()} is expected", field="x-correlator"
        )


async def _send(send: Send, request: Request, answer: Answer) -> None:
    body = b"" if answer.status == 204 else answer.body
    headers = [(CORRELATOR, request.correlator.encode()), (b"cache-control", b"no-store"), *answer.headers]
    if request.unread:
        # Whoever is refused before its body has come may take for ever to send it: it does not keep the connection.
        headers.append((b"connection", b"close"))
    if answer.chunks is not None and request.method != "HEAD":
        headers.append((b"content-type", answer.media_type.encode()))
        if not await send_stream(
            request.receive, send, status=answer.status, headers=tuple(headers), chunks=answer.chunks
        ):
            request.notes["cut"] = "the reader went away or did not read"
        return
    if answer.status != 204:
        headers += [(b"content-type", answer.media_type.encode()), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else body})


def _log(request: Request, name: str, status: int, seconds: float) -> None:
    LOG.info(
        "answered",
        extra={
            "operation": name,
            "method": request.method[:16],
            "status": status,
            "ms": round(seconds * 1000, 3),
            "correlator": request.correlator,
            **request.notes,
        },
    )


async def _other(scope: Scope, receive: Receive, send: Send) -> None:
    """Take part in the lifespan protocol; close anything else."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1000})
        return
    while scope["type"] == "lifespan":
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
