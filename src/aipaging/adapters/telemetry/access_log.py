"""Messages of Envoy's access-log service (gRPC, protobuf) as requests: the live form of `adapters.telemetry.envoy`.

One message holds a batch of entries; decoding costs about twenty microseconds an entry and is done off the loop.
A repeated request (an internal redirect) is logged twice by Envoy; only its end counts.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from aipaging.adapters.telemetry.server_timing import sidecar_timing_us
from aipaging.core.audit.telemetry import Status
from aipaging.core.foundation.errors import UnavailableError
from aipaging.ports.telemetry import SeenRequest

try:
    from envoy.service.accesslog.v3 import als_pb2
except ModuleNotFoundError as error:
    raise UnavailableError(
        f"{error.name} is not installed: `pip install 'aipaging[envoy]'` brings what reads Envoy's access log",
        code="ENVOY_NOT_INSTALLED",
    ) from error

SESSION_HEADER: Final = "x-aipaging-session"
CLUSTER_PREFIX: Final = "anchor:"
REPEATED: Final = "internal_redirect"
"""`response_code_details` of an attempt that Envoy repeats by itself."""

TIMEOUTS: Final = frozenset(
    {"upstream_request_timeout", "stream_idle_timeout", "duration_timeout", "upstream_max_stream_duration_reached"}
)
CLIENT_LEFT: Final = frozenset({"downstream_connection_termination", "downstream_remote_reset"})
"""Flags of a request that its client gave up: late if it was late by then, else nothing is known."""

_TRACE: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_als: Any = als_pb2


def seen_requests(message: bytes) -> Sequence[SeenRequest]:
    """Return the requests of one message; empty where it is none.

    Raises:
        ValueError: The bytes are no message of the service.
    """
    try:
        entries = _als.StreamAccessLogsMessage.FromString(message).http_logs.log_entry
    except Exception as error:  # protobuf's DecodeError is not typed
        raise ValueError("no message of the access-log service") from error
    return [_seen(entry) for entry in entries if entry.response.response_code_details != REPEATED]


def _seen(entry: Any) -> SeenRequest:
    common, response = entry.common_properties, entry.response
    headers = entry.request.request_headers
    trace = _TRACE.fullmatch(headers.get("traceparent", ""))
    timing = sidecar_timing_us(response.response_headers.get("server-timing", ""))
    body_us = _us(common, "time_to_last_upstream_rx_byte") - _us(common, "time_to_first_upstream_rx_byte")
    cluster = common.upstream_cluster
    return SeenRequest(
        session=headers.get(SESSION_HEADER, ""),
        anchor=cluster.removeprefix(CLUSTER_PREFIX) if cluster.startswith(CLUSTER_PREFIX) else "",
        trace=trace[1] if trace else "",
        start_us=common.start_time.seconds * 1_000_000 + common.start_time.nanos // 1000,
        status=_status(common.response_flags, response.response_code.value),
        total_us=_us(common, "time_to_last_downstream_tx_byte", "duration"),
        first_us=_us(common, "time_to_first_downstream_tx_byte", "duration"),
        anchor_us=sum(timing.values()) if timing else -1,
        body_us=max(0, body_us),
    )


def _us(common: Any, *names: str) -> int:
    """Return the first duration that is there, rounded up; -1 where none is."""
    for name in names:
        if common.HasField(name):
            value = getattr(common, name)
            return int(value.seconds * 1_000_000 - (-value.nanos // 1000))
    return -1


def _status(flags: Any, code: int) -> int:
    raised = {field.name for field, _ in flags.ListFields()}
    if raised & TIMEOUTS:
        return Status.TIMEOUT
    if raised & CLIENT_LEFT:
        return Status.UNKNOWN
    if code == 0:
        return Status.LOST
    return Status.ERROR if raised or code >= 500 or code == 429 else Status.OK
