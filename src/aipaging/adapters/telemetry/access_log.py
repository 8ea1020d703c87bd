"""Messages of Envoy's access-log service (gRPC, protobuf) as requests: the live form of `adapters.telemetry.envoy`.

One message holds a batch of entries; decoding costs about twenty microseconds an entry and is done off the loop.
A repeated request (an internal redirect) is logged twice by Envoy; only its end counts.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from aipaging.adapters.telemetry.causes import Ending
from aipaging.adapters.telemetry.server_timing import is_excused, sidecar_timing_us
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

_TRACE: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
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
    said = response.response_headers.get("server-timing", "")
    timing = sidecar_timing_us(said)
    anchor_us = sum(timing.values()) if timing else -1
    ending = _ending(entry, timed=bool(timing), excused=is_excused(said))
    cluster = common.upstream_cluster
    return SeenRequest(
        session=headers.get(SESSION_HEADER, ""),
        anchor=cluster.removeprefix(CLUSTER_PREFIX) if cluster.startswith(CLUSTER_PREFIX) else "",
        trace=trace[1] if trace else "",
        parent=trace[2] if trace else "",
        start_us=common.start_time.seconds * 1_000_000 + common.start_time.nanos // 1000,
        status=ending.status(),
        total_us=ending.ended_us,
        first_us=_us(common, "time_to_first_downstream_tx_byte", "duration"),
        anchor_us=ending.most_anchor_us(anchor_us),
        body_us=max(0, ending.answered_us - ending.begun_us),
        sent_us=ending.sent_us,
        least_total_us=ending.least_total_us(),
        least_first_us=ending.least_first_us(),
        least_anchor_us=ending.least_anchor_us(anchor_us),
    )


def _ending(entry: Any, *, timed: bool, excused: bool) -> Ending:
    common = entry.common_properties
    return Ending(
        flags=frozenset(field.name for field, _ in common.response_flags.ListFields()),
        code=entry.response.response_code.value,
        request_bytes=entry.request.request_body_bytes,
        answer_bytes=entry.response.response_body_bytes,
        whole_us=_us(common, "time_to_last_rx_byte"),
        sent_us=_us(common, "time_to_first_upstream_tx_byte"),
        begun_us=_us(common, "time_to_first_upstream_rx_byte"),
        answered_us=_us(common, "time_to_last_upstream_rx_byte"),
        ended_us=_us(common, "time_to_last_downstream_tx_byte", "duration"),
        timed=timed,
        excused=excused,
    )


def _us(common: Any, *names: str) -> int:
    """Return the first duration that is there, rounded up; -1 where none is."""
    for name in names:
        if common.HasField(name):
            value = getattr(common, name)
            return int(value.seconds * 1_000_000 - (-value.nanos // 1000))
    return -1
