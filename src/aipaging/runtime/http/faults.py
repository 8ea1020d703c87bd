"""Errors as answers: `{status, code, message}` (CAMARA Commonalities), with `who` must act and the `field`.

The table below is the one place where a code becomes a status. What is not in CAMARA's common list is ours and says
so by its prefix. An error that is a bug of ours is logged, and tells the caller nothing but its correlator.
"""

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from aipaging.core.foundation.errors import (
    AipagingError,
    InvalidInputError,
    UnavailableError,
    UnverifiedError,
    Who,
)
from aipaging.runtime.http.exchange import Answer, Headers, json_answer

LOG: Final = logging.getLogger("aipaging.http")

API_PREFIX: Final = "AI_PAGING."
"""Before every code that is not in CAMARA's common list."""

STATUS_BY_CODE: Final[Mapping[str, int]] = MappingProxyType(
    {
        "INVALID_ARGUMENT": 400,
        "OUT_OF_RANGE": 400,
        "INVALID_SINK": 400,
        "UNAUTHENTICATED": 401,
        "PERMISSION_DENIED": 403,
        "NOT_FOUND": 404,
        "METHOD_NOT_ALLOWED": 405,
        "ALREADY_EXISTS": 409,
        "INCOMPATIBLE_STATE": 409,
        "ABORTED": 409,
        "UNSUPPORTED_MEDIA_TYPE": 415,
        "TOO_MANY_REQUESTS": 429,
        "QUOTA_EXCEEDED": 429,
        "INTERNAL": 500,
        "BAD_GATEWAY": 502,
        "UNAVAILABLE": 503,
    }
)
"""CAMARA's common codes."""

STATUS_BY_OWN_CODE: Final[Mapping[str, int]] = MappingProxyType(
    {
        "ADMISSION_REFUSED": 422,
        "IDEMPOTENCY_KEY_REUSED": 422,
        "INVALID_CONFIGURATION": 422,
        "INVALID_CREDENTIAL": 400,
        "KILLED": 403,
        "POLICY": 403,
        "PREEMPTING": 503,
        "PAYLOAD_TOO_LARGE": 413,
        "REQUEST_TIMEOUT": 408,
        "ENVELOPE_TOO_LARGE": 413,
        "ENVELOPE_NOT_SIGNED": 400,
        "ENVELOPE_ALGORITHM": 400,
        "ENVELOPE_MALFORMED": 400,
        "ENVELOPE_NOT_CANONICAL": 400,
        "ENVELOPE_KEY_UNKNOWN": 403,
        "ENVELOPE_KEY_FOREIGN": 403,
        "ENVELOPE_SIGNATURE": 403,
        "ENVELOPE_PLAIN": 403,
        "ENVELOPE_NOT_YET_VALID": 409,
        "ENVELOPE_EXPIRED": 409,
        "ENVELOPE_ROLLED_BACK": 409,
        "ENVELOPE_REPLAYED": 409,
        "ENVELOPE_EQUIVOCATION": 409,
        "ENVELOPE_PART_UNKNOWN": 409,
        "ENVELOPES_TOO_MANY": 409,
        "KEY_SET_INVALID": 400,
        "FENCED": 409,
        "NO_COMMIT": 403,
        "ROLE_NOT_RENEWABLE": 403,
        "CSR_MALFORMED": 400,
        "CSR_SIGNATURE": 400,
        "SESSIONS_FULL": 503,
        "STEERING_FAILED": 503,
        "OVERLOADED": 503,
        "JOURNAL_UNAVAILABLE": 503,
        "JOURNAL_BUSY": 503,
        "SNAPSHOT_FAILED": 503,
        "JOURNAL_FILE_MISSING": 503,
    }
)
"""Ours."""

RETRY_AFTER_S: Final = b"1"
"""What is unavailable now may be well after one group commit, one renewal or one failed disk write."""


class Fault(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of every error."""

    status: Annotated[int, Meta(ge=400, le=599, description="As of the answer.")]
    code: Annotated[str, Meta(max_length=96, pattern="^[A-Z0-9_.]+$", description="Stable: programs branch on it.")]
    message: Annotated[str, Meta(max_length=2048, description="What was wrong and what is allowed.")]
    who: Annotated[str, Meta(max_length=16, description="Who must act: caller, operator, partner, or bug.")]
    field: Annotated[str, Meta(max_length=256, description="What it is about, such as `intent.delayMs`.")] | None = None


def status_of(error: AipagingError) -> int:
    """Return the HTTP status of an error."""
    status = STATUS_BY_CODE.get(error.code) or STATUS_BY_OWN_CODE.get(error.code)
    if status is not None:
        return status
    if isinstance(error, UnavailableError):
        return 503
    if isinstance(error, InvalidInputError):
        return 400
    if isinstance(error, UnverifiedError):
        return 400 if error.who is Who.CALLER else 502
    return {Who.CALLER: 409, Who.PARTNER: 502, Who.OPERATOR: 503}.get(error.who, 500)


def code_of(error: AipagingError) -> str:
    """Return the code as it is sent: CAMARA's as they are, ours with the prefix."""
    return error.code if error.code in STATUS_BY_CODE else f"{API_PREFIX}{error.code}"


def fault_of(error: AipagingError) -> Fault:
    """Return the body for an error that is not a bug."""
    return Fault(
        status=status_of(error), code=code_of(error), message=error.message, who=error.who.value, field=error.field
    )


def fault_answer(error: AipagingError, correlator: str) -> Answer:
    """Return the answer for an error."""
    if error.who is Who.BUG:
        LOG.error("bug", exc_info=error, extra={"correlator": correlator, "code": error.code})
        return bug_answer(correlator)
    fault = fault_of(error)
    headers = _headers_of(fault)
    if error.retry_after_s is not None:
        headers = ((b"retry-after", b"%d" % error.retry_after_s),)
    return json_answer(fault, status=fault.status, headers=headers)


def _headers_of(fault: Fault) -> Headers:
    if fault.status == 401:
        return ((b"www-authenticate", b'Bearer realm="aipaging"'),)
    if fault.status == 403:
        return ((b"www-authenticate", b'Bearer realm="aipaging", error="insufficient_scope"'),)
    if fault.status == 503:
        return ((b"retry-after", RETRY_AFTER_S),)
    return ()


def bug_answer(correlator: str) -> Answer:
    """Return the answer for what should not have happened."""
    fault = Fault(
        status=500,
        code="INTERNAL",
        message=f"an internal error; tell the operator the correlator {correlator}",
        who=Who.BUG.value,
    )
    return json_answer(fault, status=500)
