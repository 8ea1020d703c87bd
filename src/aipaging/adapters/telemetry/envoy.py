"""Records of Envoy's access-log service as telemetry: an `HTTPAccessLogEntry` in JSON becomes a row.

The gateway sees the whole path behind it: end to end is from the first byte received to the last byte sent downstream.
`upstream` is from the first byte sent upstream to the last received from there; the anchor's sidecar says in
`server-timing` how much of that was `queue` and `inference`. What is left of the upstream is `network`, what is left of
the whole is `gateway`. Differences of one clock cannot be negative; where they are, they stay so and are named.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aipaging.adapters.telemetry.server_timing import server_timing_us, sidecar_timing_us

MARKS: Final = ('"commonProperties"', '"common_properties"')
"""Either is in every entry, depending on how the protobuf was written."""

TIMEOUT_FLAGS: Final = frozenset(
    {"upstreamRequestTimeout", "streamIdleTimeout", "durationTimeout", "upstreamMaxStreamDurationReached"}
)
"""Response flags of a request that ran out of time."""

TENANT_HEADER: Final = "x-ai-paging-tenant"
"""Request header that the gateway may log: whose the request is."""

_TRACE: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_SNAKE: Final = re.compile(r"_([a-z])")
_DURATION: Final = re.compile(r"(-?\d+)(?:\.(\d{1,9}))?s")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def row_of_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of an access-log entry; an entry that says nothing is a request of which nothing is known."""
    common, request, response = (_fields(entry, name) for name in ("commonProperties", "request", "response"))
    end_to_end_us = _duration_us(common.get("timeToLastDownstreamTxByte"))
    row: dict[str, Any] = {
        "request_id": _request_id(request),
        "start_us": _instant_us(common.get("startTime")),
        "tenant": _header(request, "requestHeaders", TENANT_HEADER) or None,
        "status": _status(common, response),
        "end_to_end_us": end_to_end_us,
    }
    sent, received = (
        _duration_us(common.get(name)) for name in ("timeToFirstUpstreamTxByte", "timeToLastUpstreamRxByte")
    )
    said = _header(response, "responseHeaders", "server-timing")
    timing = sidecar_timing_us(said) or server_timing_us(said)
    row |= {f"domain_{name}_us": value for name, value in timing.items()}
    if sent is not None and received is not None:
        upstream_us = received - sent
        row["domain_network_us"] = upstream_us - sum(timing.values())
        if end_to_end_us is not None:
            row["domain_gateway_us"] = end_to_end_us - upstream_us
    return row


def _fields(entry: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = _camel(entry).get(name)
    return _camel(found) if isinstance(found, Mapping) else {}


def _camel(fields: Mapping[Any, Any]) -> dict[str, Any]:
    return {_SNAKE.sub(lambda letter: letter[1].upper(), str(name)): value for name, value in fields.items()}


def _header(fields: Mapping[str, Any], group: str, name: str) -> str:
    headers = fields.get(group)
    found = headers.get(name, "") if isinstance(headers, Mapping) else ""
    return found if isinstance(found, str) else ""


def _request_id(request: Mapping[str, Any]) -> str | None:
    trace = _TRACE.fullmatch(_header(request, "requestHeaders", "traceparent"))
    if trace is not None:
        return trace[1]
    found = request.get("requestId")
    return found if isinstance(found, str) and found else None


def _status(common: Mapping[str, Any], response: Mapping[str, Any]) -> str:
    flags = common.get("responseFlags")
    raised = {name for name, value in _camel(flags).items() if value} if isinstance(flags, Mapping) else set[str]()
    if raised & TIMEOUT_FLAGS:
        return "timeout"
    code = response.get("responseCode", 0)
    if not isinstance(code, int) or code == 0:
        return "lost"  # nothing was sent downstream
    # What the client did wrong (4xx) was answered; what was refused for want of capacity was not.
    return "error" if raised or code >= 500 or code == 429 else "ok"


def _duration_us(written: object) -> int | None:
    found = _DURATION.fullmatch(written) if isinstance(written, str) else None
    if found is None:
        return None
    nanoseconds = int((found[2] or "").ljust(9, "0"))
    return int(found[1]) * 1_000_000 + -(-nanoseconds // 1000)


def _instant_us(written: object) -> int | None:
    try:
        instant = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", str(written)))
    except ValueError:
        return None
    return (instant - _EPOCH) // timedelta(microseconds=1) if instant.tzinfo is not None else None
