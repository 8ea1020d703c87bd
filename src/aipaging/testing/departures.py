"""When requests left a gateway, by Envoy's own access log: a witness beside the lease filter and the anchors.

An anchor notes a request when its process comes to read it, which on a busy machine is milliseconds after the gateway
sent it. Envoy notes the instant at which it wrote the first byte to the anchor.
"""

import time
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from aipaging.adapters.steering.envoy.access_log import SESSION_HEADER
from aipaging.core.foundation.time import SECOND

NANOS: Final = 1_000


class Departure(NamedTuple):
    """One request that a gateway sent on.

    Attributes:
        session: Whose, by its steering.
        at_us: When its first byte was written to the anchor, on the boot clock.
    """

    session: str
    at_us: int


def departures(messages: Iterable[bytes]) -> list[Departure]:
    """Return what the messages of an access log say was sent to an anchor; what was answered at the gateway is not.

    The log is by the wall clock; that this clock is not set between the requests and this call is assumed.
    """
    from envoy.service.accesslog.v3 import als_pb2  # noqa: PLC0415 - an extra

    als: Any = als_pb2
    boot_ahead_us = (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.time_ns()) // NANOS
    found: list[Departure] = []
    for message in messages:
        for entry in als.StreamAccessLogsMessage.FromString(message).http_logs.log_entry:
            common = entry.common_properties
            if common.HasField("time_to_first_upstream_tx_byte"):
                at_us = _us(common.start_time) + _us(common.time_to_first_upstream_tx_byte) + boot_ahead_us
                found.append(Departure(entry.request.request_headers.get(SESSION_HEADER, ""), at_us))
    return found


def _us(value: Any) -> int:
    return int(value.seconds) * SECOND + int(value.nanos) // NANOS
