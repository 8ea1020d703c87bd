"""Answers of the sidecar's own: refusals, the last event of a cut stream, and what operators ask for."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import msgspec

CLOSE: Final = b"connection: close\r\n"

MARKED: Final = b"server-timing: %b\r\n"
"""In place of the delays that every answer of the model server has last: the audit tells refusals apart by it."""

REPEAT_STATUS: Final = HTTPStatus.PERMANENT_REDIRECT
"""By which a gateway is told to look the session up again and to repeat the request; never seen by a client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request is not served, or a response not finished.

    Attributes:
        status: HTTP status, where there is still one to send.
        code: SCREAMING_SNAKE_CASE; programs branch on it.
        message: What happened and who must act.
        retry_after_s: When to try again, where that can help.
        mark: Why it may be the client's doing and is no failure of the anchor's, in `server-timing`; or "".
    """

    status: int
    code: str
    message: str
    retry_after_s: int | None = None
    mark: str = ""


NO_COMMIT: Final = Refusal(status=403, code="NO_COMMIT", message="no valid COMMIT receipt for this anchor")
FENCED: Final = Refusal(
    status=409, code="FENCED", message="a higher epoch of this session was seen; look the session up again"
)
LEASE_ENDED: Final = Refusal(status=403, code="LEASE_ENDED", message="the lease of this session is over")
LEASE_ENDED_MEANWHILE: Final = Refusal(
    status=503,
    code="LEASE_ENDED",
    message="the lease ended before the answer began; if the session was moved, it is served elsewhere: try again",
    retry_after_s=1,
    mark="lease",  # a client that ends its session under its own requests must not make anybody late
)
CONTROLLER_SILENT: Final = Refusal(
    status=503,
    code="CONTROLLER_UNREACHABLE",
    message="the controller did not say how long this lease lasts; the operator must act",
    retry_after_s=1,
)
SESSIONS_FULL: Final = Refusal(
    status=503, code="SESSIONS_FULL", message="this anchor cannot take another session", retry_after_s=1
)
CLOSING: Final = Refusal(status=503, code="CLOSING", message="this anchor is shutting down")
UPSTREAM_UNREACHABLE: Final = Refusal(
    status=502, code="UPSTREAM_UNREACHABLE", message="the model server behind this anchor does not take connections"
)
UPSTREAM_BROKEN: Final = Refusal(
    status=502, code="UPSTREAM_BROKEN", message="the model server's answer broke off or was malformed"
)
UPSTREAM_SILENT: Final = Refusal(status=504, code="UPSTREAM_BROKEN", message="the model server did not answer in time")
ROLE_REFUSED: Final = Refusal(
    status=403, code="ROLE_REFUSED", message="the identity of this connection may not do this here"
)


def queue_full(retry_after_s: int) -> Refusal:
    """Return the refusal of a request for which the queue has no place."""
    return Refusal(
        status=429, code="QUEUE_FULL", message="the queue of this anchor is full", retry_after_s=retry_after_s
    )


def over_contract(rate_mrps: int, burst: int, early_us: int) -> Refusal:
    """Return the refusal of a request beyond what its session was admitted with, over all gateways together."""
    return Refusal(
        status=429,
        code="GUARDRAIL_EXCEEDED",
        message=f"guardrail rate: this session was admitted with {rate_mrps / 1000:.12g} requests per second in bursts "
        f"of {burst}, over all gateways; the next request may come in {-(-early_us // 1_000)} ms",
        retry_after_s=-(-early_us // 1_000_000),
        mark="guardrail",
    )


def error_document(refusal: Refusal) -> bytes:
    """Return the JSON that says why."""
    return msgspec.json.encode({"error": {"code": refusal.code, "message": refusal.message}})


def refusal_answer(refusal: Refusal, *, close: bool, with_body: bool = True) -> bytes:
    """Return a refusal as an HTTP response."""
    extra = b"" if refusal.retry_after_s is None else b"retry-after: %d\r\n" % refusal.retry_after_s
    extra += (MARKED % refusal.mark.encode() if refusal.mark else b"") + (CLOSE if close else b"")
    return answer(refusal.status, error_document(refusal), extra=extra, with_body=with_body)


def repeat_answer(refusal: Refusal, location: bytes, epoch: str, *, close: bool) -> bytes:
    """Return what has the gateway repeat a request, once it has looked up who was refused with `epoch`."""
    extra = b"location: %b\r\nx-aipaging-refused: %b\r\n" % (location, epoch.encode())
    return answer(REPEAT_STATUS, error_document(refusal), extra=extra + (CLOSE if close else b""))


def answer(
    status: int,
    body: bytes,
    *,
    media_type: bytes = b"application/json",
    extra: bytes = b"",
    with_body: bool = True,
) -> bytes:
    """Return a whole HTTP response; `with_body=False` is for answers to HEAD."""
    reason = HTTPStatus(status).phrase.encode()
    if status == HTTPStatus.NO_CONTENT:
        return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, reason, extra)
    return b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n%b\r\n%b" % (
        status,
        reason,
        media_type,
        len(body),
        extra,
        body if with_body else b"",
    )


def error_event(refusal: Refusal) -> bytes:
    """Return the last event of a stream that is not finished."""
    return b"event: error\ndata: %b\n\n" % error_document(refusal)
