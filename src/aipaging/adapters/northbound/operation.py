"""One operation of the interface: what answers it, who may ask, and what its description says.

The routes and the OpenAPI document are made of the same table, so neither can say what the other does not do.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from aipaging.adapters.northbound.credentials import Authenticator, Caller
from aipaging.adapters.northbound.rate_limits import Limits, Use
from aipaging.core.foundation.errors import AipagingError, RefusedError
from aipaging.core.paging.acting import OperatorActed, RecordAction
from aipaging.ports.control import ControlPlane
from aipaging.runtime.http.exchange import JSON, Answer, Headers, Request
from aipaging.runtime.http.faults import fault_answer, status_of
from aipaging.runtime.http.routing import Route

BASE: Final = "/ai-paging/v0.1"
"""CAMARA: the name of the interface, then `v0.y` until it is stable."""

READING: Final = frozenset({"read", "resolve", "introspect"})
"""What a scope ends in whose operations change nothing."""

JSON_ERRORS: Final = ("INVALID_ARGUMENT", "OUT_OF_RANGE", "UNSUPPORTED_MEDIA_TYPE", "AI_PAGING.PAYLOAD_TOO_LARGE")
"""How a JSON body may fail to be one."""

Guarded: TypeAlias = Callable[[Request, Caller], Awaitable[Answer]]
Public: TypeAlias = Callable[[Request], Awaitable[Answer]]
Admission: TypeAlias = Callable[[Request], Awaitable[Caller]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One way in which an operation succeeds, or refuses as its business.

    Attributes:
        meaning: When.
        document: Type of the body, or None for none or for bytes.
        media_type: Of the body.
        media_types_also: Others that it may be of.
        example: Of the body.
    """

    meaning: str
    document: type | None = None
    media_type: str = JSON
    media_types_also: tuple[str, ...] = ()
    example: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation.

    Attributes:
        method: HTTP method.
        path: With `{name}`; at the end `{name*}` for all that follows.
        name: operationId.
        summary: A line.
        description: What it promises.
        tag: What it is about.
        handler: Answers it; for a public operation without a caller.
        scope: What a caller needs; None for public operations.
        request: Type of the body, or None.
        request_optional: Whether the body may be left out.
        request_example: Of the body.
        request_media: Media type of the body.
        query: Its query parameters and what they mean.
        headers: The headers that it heeds, beside those of every operation, and what they mean.
        replies: By status.
        errors: Codes with which it may fail, beside those of every operation.
        quiet: Whether it is logged only when it fails.
        protects: Whether it only takes away, to protect somebody: nothing else of the same operator holds it up.
    """

    method: str
    path: str
    name: str
    summary: str
    description: str = ""
    tag: str
    handler: Guarded | Public
    scope: str | None
    request: Any = None
    request_optional: bool = False
    request_example: object = None
    request_media: str = JSON
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    replies: Mapping[int, Reply]
    errors: tuple[str, ...] = ()
    quiet: bool = False
    protects: bool = False


def route_of(operation: Operation, authenticator: Authenticator, limits: Limits, control: ControlPlane) -> Route:
    """Return the route of an operation; one with a scope asks who calls before it does anything else.

    Whatever an operator does, or tries to, is put on record, also where its scopes forbid it: what changes something
    before it is answered; what reads without waiting, so that a journal that is ill can be looked into. Only what is
    quiet, a scrape every few seconds, leaves no record where it succeeds; what comes too often leaves one a minute.
    """
    handler: Any = operation.handler
    if operation.scope is not None:
        if not operation.quiet:
            handler = _recorded(handler, operation, control)
        handler = _guarded(handler, operation, _admission(operation, authenticator, limits, control), control)
    return Route(
        method=operation.method,
        path=operation.path,
        name=operation.name,
        handler=handler,
        quiet=operation.quiet,
    )


def _changes(operation: Operation) -> bool:
    return operation.scope is not None and operation.scope.rpartition(":")[2] not in READING


def _use(operation: Operation) -> Use:
    if _changes(operation):
        return Use.PROTECT if operation.protects else Use.CHANGE
    return Use.UNRECORDED if operation.quiet else Use.READ


def _admission(operation: Operation, authenticator: Authenticator, limits: Limits, control: ControlPlane) -> Admission:
    use = _use(operation)

    async def admitted(request: Request) -> Caller:
        caller = await authenticator.caller(request.header(b"authorization"), request.address)
        # What a scope forbids leaves a record and changes nothing: it counts as a read, whatever it would have done.
        taken = use if operation.scope in caller.scopes else Use.READ
        take(limits, control, caller, request, name=operation.name, use=taken)
        return caller

    return admitted


def take(limits: Limits, control: ControlPlane, caller: Caller, request: Request, *, name: str, use: Use) -> None:
    """Take note of a request of a caller's; that an operator asks too often is on record, once a minute.

    Raises:
        RefusedError: The caller asks too often (`TOO_MANY_REQUESTS`).
    """
    try:
        limits.take(caller, use)
    except RefusedError as error:
        if limits.notable(caller):
            control.note(action_of(caller, name, request, status=status_of(error)))
        raise


def _guarded(handler: Guarded, operation: Operation, admitted: Admission, control: ControlPlane) -> Public:
    scope = operation.scope or ""

    async def answered(request: Request) -> Answer:
        try:
            caller = await admitted(request)
        except RefusedError as error:
            return _challenged(error, request, 'error="invalid_token"' if request.header(b"authorization") else "")
        request.notes["client"] = caller.client
        if scope not in caller.scopes:
            if caller.operator:
                await _record(control, caller, operation, request, status=403)
            lacking = RefusedError(
                f"the credential of client {caller.client} lacks the scope {scope}: fetch a token with it, or ask the "
                "operator for it",
                code="PERMISSION_DENIED",
            )
            return _challenged(lacking, request, f'error="insufficient_scope", scope="{scope}"')
        return await handler(request, caller)

    return answered


def _recorded(handler: Guarded, operation: Operation, control: ControlPlane) -> Guarded:
    async def answered(request: Request, caller: Caller) -> Answer:
        if not caller.operator:
            return await handler(request, caller)
        status = 500
        try:
            answer = await handler(request, caller)
            status = answer.status
        except AipagingError as error:
            status = status_of(error)
            raise
        finally:
            await _record(control, caller, operation, request, status=status)
        return answer

    return answered


async def _record(
    control: ControlPlane, caller: Caller, operation: Operation, request: Request, *, status: int
) -> None:
    action = action_of(caller, operation.name, request, status=status)
    if _changes(operation):
        await control.submit(action)
    else:
        control.note(action)


def action_of(caller: Caller, operation: str, request: Request, *, status: int) -> RecordAction:
    """Return what puts on record that an operator did something, and how it was answered."""
    return RecordAction(
        acted=OperatorActed(
            client=caller.client,
            tenant=caller.tenant,
            operation=operation,
            status=status,
            correlator=request.correlator,
        )
    )


def _challenged(error: RefusedError, request: Request, why: str) -> Answer:
    """Return a refusal with the challenge of RFC 6750, section 3; who fails too often is told when to come back."""
    request.notes["code"] = error.code
    wait_s = error.retry_after_s
    headers: Headers = (
        ((b"retry-after", str(wait_s).encode()),)
        if wait_s is not None
        else ((b"www-authenticate", ", ".join(filter(None, ('Bearer realm="aipaging"', why))).encode()),)
    )
    return replace(fault_answer(error, request.correlator), headers=headers)
