"""Envoy's access-log service: gateways stream what became of every request, and nobody is ever slowed by it.

It shares the listener of discovery: the same mutual TLS, the same identities. A message is handed on as bytes, and
whoever takes it may not wait. Envoy buffers on its side and drops what it cannot send; the gateway's own counter
(`access_logs.grpc_access_log.logs_dropped`) says how many, so that what was lost is missing and not forgotten.
"""

import logging
from collections.abc import Callable
from typing import Any, Final

from aipaging.adapters.steering.envoy.resources import TYPES, Document
from aipaging.runtime.peer_identity import gateway_of_uris

LOG_NAME: Final = "aipaging"

DROPPED_COUNTER: Final = "access_logs.grpc_access_log.logs_dropped"
"""Of Envoy's own statistics."""

LOG_STREAMS_MAX: Final = 4_096
"""One stream for each worker of each gateway."""

FLUSH_INTERVAL: Final = "0.2s"
"""How long a request may wait in Envoy before it is told: an alarm cannot be faster."""

FLUSH_BYTES: Final = 16_384
"""A message: about fifty requests."""

SESSION_HEADER: Final = "x-aipaging-session"
METHOD: Final = "StreamAccessLogs"
SERVICE: Final = "envoy.service.accesslog.v3.AccessLogService"

_LOG = logging.getLogger(__name__)


def access_logger() -> Document:
    """Return the access log of the connection manager."""
    return {
        "name": "envoy.access_loggers.http_grpc",
        # What the gateway refused itself belongs to no session: strangers, and tenants beyond their guardrail, cannot
        # fill the buffers in which what was served is reported.
        "filter": {"header_filter": {"header": {"name": SESSION_HEADER, "present_match": True}}},
        "typed_config": {
            "@type": TYPES + "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
            "common_config": {
                "log_name": LOG_NAME,
                "grpc_service": {"envoy_grpc": {"cluster_name": "xds"}},
                "transport_api_version": "V3",
                "buffer_flush_interval": FLUSH_INTERVAL,
                "buffer_size_bytes": FLUSH_BYTES,
            },
            "additional_request_headers_to_log": [SESSION_HEADER, "traceparent"],
            "additional_response_headers_to_log": ["server-timing"],
        },
    }


def log_handler(grpc: Any, *, trust_domain: str, sink: Callable[[bytes], None]) -> Any:
    """Return the generic handler that a gRPC server adds.

    Args:
        grpc: The module `grpc`, where it is installed.
        trust_domain: Of the identities that are let in.
        sink: Takes a message; does not wait.
    """

    async def stream(_requests: Any, context: Any) -> bytes:
        names = context.auth_context().get("x509_subject_alternative_name", ())
        uris = [name.decode("utf-8", "replace") for name in names]
        if gateway_of_uris(uris, trust_domain=trust_domain) is None:
            _LOG.warning("an access log was refused from a peer without a gateway's certificate: %s", context.peer())
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "a gateway's certificate is needed")
        while (message := await context.read()) is not grpc.aio.EOF:
            sink(message)
        return b""

    return grpc.method_handlers_generic_handler(SERVICE, {METHOD: grpc.stream_unary_rpc_method_handler(stream)})
