"""Streams of placeholder tokens over HTTP: slots, instants, ends, and the faults that were asked for.

Instants are absolute: a token that comes late does not delay the next, so gaps keep their distribution over a whole
stream. Timers of the event loop have a resolution of one millisecond. A client that leaves frees its slot at once.
"""

import asyncio
import socket
import struct
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from aipaging.adapters.upstream.openai import (
    JSON_HEADERS,
    ClientGoneError,
    RefusedRequestError,
    answer,
    read_object,
    unknown_route,
    until_gone,
)
from aipaging.apps.token_server.completion import (
    LABEL_HEADER,
    MODELS,
    ChatRequest,
    Completion,
    error_event,
    parsed_request,
)
from aipaging.apps.token_server.fault import (
    FAULT_HEADER,
    LATE_S,
    RAW_KINDS,
    STATUS_KINDS,
    UNANSWERED_KINDS,
    Fault,
    parsed_fault,
)
from aipaging.apps.token_server.timing import Batched, Plan, Timing
from aipaging.core.foundation.errors import InvalidInputError

SLOTS: Final = 64
"""Streams at a time by default: a usual batch limit of one accelerator."""

QUEUE_MAX: Final = 1_024
"""Requests that may wait for a slot by default."""

RETRY_AFTER_S: Final = 1
"""Slots turn over in seconds."""

_GARBAGE: Final = b"\x00\xff\xfe this is no event \x00\n\ndata: {not json\n\n"
_MALFORMED: Final = b'data: {"id":"chatcmpl-load-generator","choices":[{"delta":{"content":"kil\n\n'
_GO_ON: Final = frozenset({"late", "malformed", "no-done", "trailing"})
_ROUTES: Final = {"/v1/chat/completions": "POST", "/v1/models": "GET", "/healthz": "GET"}
_EXTENSION: Final = "aipaging.transport"
_STREAM_HEADERS: Final = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"), LABEL_HEADER)


class TransportProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which also shows the application its transport: some faults lie below HTTP."""

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        scope: Any = self.scope
        scope["extensions"] = {_EXTENSION: {"transport": self.transport}}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Exchange:
    """One request while it is answered."""

    request: ChatRequest
    completion: Completion
    plan: Plan
    fault: Fault | None
    transport: asyncio.Transport | None
    send: Send


class TokenService:
    """The ASGI application."""

    def __init__(
        self,
        timing: Timing,
        *,
        slots: int = SLOTS,
        queue_max: int = QUEUE_MAX,
        fault: Fault | None = None,
        fault_every: int = 1,
    ) -> None:
        """Serve tokens.

        Args:
            timing: When they come.
            slots: Requests that get tokens at the same time.
            queue_max: Requests that may wait for a slot.
            fault: What happens to every `fault_every`-th answer.
            fault_every: 1 means to every answer.
        """
        self._timing = timing
        self._slots = asyncio.Semaphore(slots)
        self._queue_max = queue_max
        self._fault = fault
        self._fault_every = fault_every
        self._arrived = 0
        self._waiting = 0
        self._active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            await self._routed(scope, receive, send)
        except RefusedRequestError as error:
            await answer(send, error.status, error.body(), headers=[*error.headers(), LABEL_HEADER])
        except ClientGoneError:
            return

    async def _routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if _ROUTES.get(path) != method:
            raise unknown_route(method, path, _ROUTES)
        if path == "/healthz":
            health = {"status": "ok", "active": self._active, "waiting": self._waiting, "arrived": self._arrived}
            await answer(send, 200, msgspec.json.encode(health), headers=[*JSON_HEADERS, LABEL_HEADER])
        elif path == "/v1/models":
            await answer(send, 200, MODELS, headers=[*JSON_HEADERS, LABEL_HEADER])
        else:
            await self._chat(scope, receive, send)

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = parsed_request(await read_object(receive))
        index, self._arrived = self._arrived, self._arrived + 1
        plan = self._timing.plan(index, request_seed=request.seed)
        exchange = _Exchange(
            request=request,
            completion=Completion(request, number=index, created=int(time.time()), planned=plan.tokens),
            plan=plan,
            fault=self._fault_of(scope, index),
            transport=scope.get("extensions", {}).get(_EXTENSION, {}).get("transport"),
            send=send,
        )
        answering = asyncio.ensure_future(self._answered(exchange))
        leaving = asyncio.ensure_future(until_gone(receive))
        try:
            either: set[asyncio.Future[None]] = {answering, leaving}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
        finally:
            leaving.cancel()
            answering.cancel()

    def _fault_of(self, scope: Scope, index: int) -> Fault | None:
        for name, value in scope["headers"]:
            if name == FAULT_HEADER:
                try:
                    return parsed_fault(value.decode("latin-1"), field=FAULT_HEADER.decode())
                except InvalidInputError as error:
                    raise RefusedRequestError(error.message, param=FAULT_HEADER.decode()) from None
        return self._fault if index % self._fault_every == self._fault_every - 1 else None

    async def _answered(self, exchange: _Exchange) -> None:
        fault = exchange.fault
        if fault and fault.kind in UNANSWERED_KINDS:
            await _broken(exchange, fault)
        if fault and fault.kind in STATUS_KINDS and (fault.after_tokens == 0 or not exchange.request.stream):
            raise _injected(fault)
        asked = time.monotonic()
        async with self._slot():
            waited = b"queue;dur=%.3f" % ((time.monotonic() - asked) * 1000)
            headers = [*_STREAM_HEADERS, (b"server-timing", waited)]
            if fault and fault.kind in RAW_KINDS:
                await _wrong_length(exchange, fault)
            elif exchange.request.stream:
                await exchange.send({"type": "http.response.start", "status": 200, "headers": headers})
                await self._streamed(exchange)
            else:
                await self._whole(exchange, (b"server-timing", waited))

    @asynccontextmanager
    async def _slot(self) -> AsyncGenerator[None, None]:
        if self._slots.locked() and self._waiting >= self._queue_max:
            raise RefusedRequestError(
                f"all slots are busy and {self._queue_max} requests are waiting",
                status=429,
                code="queue_full",
                retry_after_s=RETRY_AFTER_S,
            )
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        self._active += 1
        try:
            yield
        finally:
            self._active -= 1
            self._slots.release()

    async def _streamed(self, exchange: _Exchange) -> None:
        completion, fault = exchange.completion, exchange.fault
        if fault and fault.kind == "empty":
            await _sent(exchange.send, b"", more=False)
            return
        opening = completion.first()
        async for number in self._instants(exchange.plan, completion.tokens):
            if fault and number == fault.after_tokens and not await _goes_on_after(exchange, fault):
                await _broken(exchange, fault)
                return
            await _sent(exchange.send, opening + completion.token(number))
            opening = b""
        if fault and fault.kind not in _GO_ON:
            await _broken(exchange, fault)
            return
        await _sent(exchange.send, completion.last(done=fault is None or fault.kind != "no-done"), more=False)
        if fault and fault.kind == "trailing" and exchange.transport is not None:
            exchange.transport.write(_GARBAGE)

    async def _whole(self, exchange: _Exchange, timing: tuple[bytes, bytes]) -> None:
        fault = exchange.fault
        async for number in self._instants(exchange.plan, exchange.completion.tokens):
            if fault and number == fault.after_tokens:
                break
        body = exchange.completion.whole()
        headers = [*JSON_HEADERS, LABEL_HEADER, timing]
        if fault is None or fault.kind in _GO_ON | {"empty"}:
            await answer(exchange.send, 200, body, headers=headers)
            return
        if fault.kind == "garbage":
            await answer(exchange.send, 200, _GARBAGE, headers=headers)
            return
        if fault.kind == "truncate":
            length = (b"content-length", b"%d" % len(body))
            await exchange.send({"type": "http.response.start", "status": 200, "headers": [*headers, length]})
            await _sent(exchange.send, body[: len(body) // 2])
        await _broken(exchange, fault)

    async def _instants(self, plan: Plan, tokens: int) -> AsyncIterator[int]:
        """Yield the number of each token when it is due."""
        due = time.monotonic() + plan.first_token_ms / 1000
        gaps_ms = plan.gaps_ms
        for number in range(tokens):
            if number:
                due += (self._step_ms(gaps_ms) if isinstance(gaps_ms, Batched) else next(gaps_ms)) / 1000
            delay_s = due - time.monotonic()
            # Even a token that is due already lets other streams have their turn.
            await asyncio.sleep(max(delay_s, 0.0))
            yield number

    def _step_ms(self, batched: Batched) -> float:
        return batched.fixed_ms + batched.per_stream_ms * self._active


async def _goes_on_after(exchange: _Exchange, fault: Fault) -> bool:
    """Do what goes wrong within a stream that goes on, and return whether it does."""
    if fault.kind == "late":
        await asyncio.sleep(LATE_S)
    elif fault.kind == "malformed":
        await _sent(exchange.send, _MALFORMED)
    return fault.kind in _GO_ON


async def _wrong_length(exchange: _Exchange, fault: Fault) -> None:
    """Answer with a content length that is not the body's, and close."""
    body, media_type = exchange.completion.whole(), b"application/json"
    if exchange.request.stream:
        completion = exchange.completion
        tokens = b"".join(completion.token(number) for number in range(completion.tokens))
        body, media_type = completion.first() + tokens + completion.last(), b"text/event-stream"
    promised = len(body) + (100 if fault.kind == "too-short" else -100)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n" % (media_type, promised)
    transport = _transport_of(exchange)
    transport.write(head + body)
    await _closed(transport)


async def _broken(exchange: _Exchange, fault: Fault) -> None:
    """End an answer the wrong way."""
    match fault.kind:
        case "stall" | "silent":
            await asyncio.Event().wait()
        case "garbage":
            await _sent(exchange.send, _GARBAGE, more=False)
            return
        case "429" | "500" | "400" | "503":
            await _sent(exchange.send, error_event(_injected(fault)))
        case _:
            pass
    transport = _transport_of(exchange)
    if fault.kind in {"reset", "refuse"}:
        # No lingering: closing sends RST and throws away what was not sent.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    await _closed(transport)


def _transport_of(exchange: _Exchange) -> asyncio.Transport:
    if exchange.transport is None:
        raise RuntimeError("this fault needs TransportProtocol")
    return exchange.transport


async def _closed(transport: asyncio.Transport) -> None:
    """Close, and wait until the transport has told the protocol, so that uvicorn sees a client that left."""
    transport.close()
    await asyncio.Event().wait()


async def _sent(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


def _injected(fault: Fault) -> RefusedRequestError:
    status = int(fault.kind)
    return RefusedRequestError(
        "a fault that was asked for",
        status=status,
        code="injected_fault",
        retry_after_s=RETRY_AFTER_S if status == 429 else None,
    )
