"""Records of Envoy's access-log service as telemetry: an `HTTPAccessLogEntry` in JSON becomes a row.

The gateway sees the whole path behind it: end to end is from the first byte received to the last byte sent downstream.
`upstream` is from the first byte sent upstream to the last received from there; the anchor's sidecar says in
`server-timing` how much of that was `queue` and `inference`. What is left of the upstream is `network`, what is left of
the whole is `gateway`. Differences of one clock cannot be negative; where they are, they stay so and are named.

A row has one value for a delay, so the time in which a client was still sending its body is taken off the whole and
off `inference`, and of an answer that a slow reader may have held up the whole and the `network` are unknown.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aipaging.adapters.telemetry.causes import Ending
from aipaging.adapters.telemetry.server_timing import is_excused, server_timing_us, sidecar_timing_us
from aipaging.core.audit.telemetry import STATUS_WORDS, Status

MARKS: Final = ('"commonProperties"', '"common_properties"')
"""Either is in every entry, depending on how the protobuf was written."""

CLIENT_ENDED: Final = "client"
"""Status of a request that its client may have ended itself: to the format it is unknown, and named so."""

STATUS_NAMES: Final[Mapping[Status, str]] = {
    **{status: word for word, status in STATUS_WORDS.items()},
    Status.UNKNOWN: CLIENT_ENDED,
}

TENANT_HEADER: Final = "x-ai-paging-tenant"
"""Request header that the gateway may log: whose the request is."""

SESSION_HEADER: Final = "x-aipaging-session"
"""Request header that the gateway's own filter sets: whose session it is of."""

_TRACE: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32}-[0-9a-f]{16})-[0-9a-f]{2}")
_SNAKE: Final = re.compile(r"_([a-z])")
_CAMEL: Final = re.compile(r"[A-Z]")
_DURATION: Final = re.compile(r"(-?\d+)(?:\.(\d{1,9}))?s")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def row_of_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of an access-log entry; an entry that says nothing is a request of which nothing is known."""
    common, request, response = (_fields(entry, name) for name in ("commonProperties", "request", "response"))
    said = _header(response, "responseHeaders", "server-timing")
    timing = sidecar_timing_us(said)
    ending = _ending(common, request, response, said)
    shown = timing or server_timing_us(said)
    row: dict[str, Any] = {
        "request_id": _request_id(request, str(common.get("startTime", ""))),
        "start_us": _instant_us(common.get("startTime")),
        "tenant": _header(request, "requestHeaders", TENANT_HEADER) or None,
        "status": STATUS_NAMES[ending.status()],
        "end_to_end_us": None,
    }
    session = _header(request, "requestHeaders", SESSION_HEADER)
    row |= {"session": session} if session else {}
    if "inference" in shown:
        shown["inference"] = ending.least_anchor_us(shown["inference"])
    row |= {f"domain_{name}_us": value for name, value in shown.items()}
    if not ending.is_read_slowly and ending.ended_us >= 0:
        row["end_to_end_us"] = ending.ended_us - max(0, ending.whole_us)
    _divide(row, ending, sum(shown.values()))
    return row


def _divide(row: dict[str, Any], ending: Ending, anchor_us: int) -> None:
    """Add what is left of the upstream and of the whole."""
    if min(ending.sent_us, ending.answered_us) < 0 or ending.is_read_slowly:
        return
    # The anchor has the request when it was sent, and when it had come.
    upstream_us = ending.answered_us - max(ending.sent_us, ending.whole_us)
    row["domain_network_us"] = upstream_us - anchor_us
    if row["end_to_end_us"] is not None:
        row["domain_gateway_us"] = row["end_to_end_us"] - upstream_us


def _ending(common: Mapping[str, Any], request: Mapping[str, Any], response: Mapping[str, Any], said: str) -> Ending:
    flags = common.get("responseFlags")
    raised = {_snake(name) for name, value in flags.items() if value} if isinstance(flags, Mapping) else set[str]()
    marks = {
        name: _duration_us(common.get(key))
        for name, key in (
            ("whole_us", "timeToLastRxByte"),
            ("sent_us", "timeToFirstUpstreamTxByte"),
            ("begun_us", "timeToFirstUpstreamRxByte"),
            ("answered_us", "timeToLastUpstreamRxByte"),
            ("ended_us", "timeToLastDownstreamTxByte"),
        )
    }
    return Ending(
        flags=raised,
        code=_count(response.get("responseCode")),
        request_bytes=_count(request.get("requestBodyBytes")),
        answer_bytes=_count(response.get("responseBodyBytes")),
        timed=bool(sidecar_timing_us(said)),
        excused=is_excused(said),
        **marks,
    )


def _snake(name: object) -> str:
    return _CAMEL.sub(lambda letter: "_" + letter[0].lower(), str(name))


def _count(written: object) -> int:
    """Return a number as the JSON of protobuf has it: 64 bits come as text."""
    text = str(written) if isinstance(written, str | int) and not isinstance(written, bool) else ""
    return int(text) if text.isdecimal() and len(text) < 20 else 0


def _fields(entry: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = _camel(entry).get(name)
    return _camel(found) if isinstance(found, Mapping) else {}


def _camel(fields: Mapping[Any, Any]) -> dict[str, Any]:
    return {_SNAKE.sub(lambda letter: letter[1].upper(), str(name)): value for name, value in fields.items()}


def _header(fields: Mapping[str, Any], group: str, name: str) -> str:
    headers = fields.get(group)
    found = headers.get(name, "") if isinstance(headers, Mapping) else ""
    return found if isinstance(found, str) else ""


def _request_id(request: Mapping[str, Any], start: str) -> str | None:
    """Return the id: a client may send one trace context with many requests, so it is told from others by its start."""
    trace = _TRACE.fullmatch(_header(request, "requestHeaders", "traceparent"))
    if trace is not None:
        return f"{trace[1]}@{start}"
    found = request.get("requestId")
    return found if isinstance(found, str) and found else None


def _duration_us(written: object) -> int:
    found = _DURATION.fullmatch(written) if isinstance(written, str) else None
    if found is None:
        return -1
    nanoseconds = int((found[2] or "").ljust(9, "0"))
    return int(found[1]) * 1_000_000 + -(-nanoseconds // 1000)


def _instant_us(written: object) -> int | None:
    try:
        instant = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", str(written)))
    except ValueError:
        return None
    return (instant - _EPOCH) // timedelta(microseconds=1) if instant.tzinfo is not None else None
