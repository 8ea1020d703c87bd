"""Envoy's part of a trace: OpenTelemetry's tracer, and the way to the collector.

A request that carries a trace context (W3C `traceparent`) follows it: sampled where its client sampled it. Of the
others a share is sampled, by the number of the trace. A span holds no address of a client, no user agent and no URL,
which Envoy would write: a path or a query is the client's business.

Left out: the spans of a look-up, which the controller writes (Envoy tells it the context), and the sidecar's.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from aipaging.adapters.steering.envoy.resources import TYPES, Document, endpoint_cluster
from aipaging.core.foundation.errors import InvalidInputError

CLUSTER: Final = "otlp"
SERVICE: Final = "aipaging-gateway"

EXPORT_TIMEOUT: Final = "5s"
"""A collector that needs longer loses this batch."""

SPANS_WAITING_MAX: Final = 2_048
"""Of one worker, until the collector takes them; what comes beyond them is dropped."""

_PRIVATE_TAGS: Final = ("http.url", "peer.address", "user_agent")
"""What Envoy says of a client in every span; there is no way to have it left out, but what is set last counts."""

_SAMPLERS: Final = "envoy.tracers.opentelemetry.samplers."
_SAMPLER_TYPES: Final = TYPES + "envoy.extensions.tracers.opentelemetry.samplers.v3."


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceExport:
    """Where traces go.

    Attributes:
        endpoint: OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces.
        requests_percent: How many of the requests without a trace context are sampled, in percent.
    """

    endpoint: str
    requests_percent: float


def tracing(export: TraceExport) -> Document:
    """Return what a connection manager traces by."""
    ratio: Document = {
        "@type": _SAMPLER_TYPES + "TraceIdRatioBasedSamplerConfig",
        "sampling_percentage": {"numerator": round(export.requests_percent * 10_000), "denominator": "MILLION"},
    }
    follow: Document = {
        "@type": _SAMPLER_TYPES + "ParentBasedSamplerConfig",
        "wrapped_sampler": {"name": _SAMPLERS + "trace_id_ratio_based", "typed_config": ratio},
    }
    provider: Document = {
        "@type": TYPES + "envoy.config.trace.v3.OpenTelemetryConfig",
        "http_service": {"http_uri": {"uri": export.endpoint, "cluster": CLUSTER, "timeout": EXPORT_TIMEOUT}},
        "service_name": SERVICE,
        "sampler": {"name": _SAMPLERS + "parent_based", "typed_config": follow},
        "max_cache_size": SPANS_WAITING_MAX,
    }
    return {
        "provider": {"name": "envoy.tracers.opentelemetry", "typed_config": provider},
        "operation": "gateway request",
        "custom_tags": [{"tag": tag, "literal": {"value": "-"}} for tag in _PRIVATE_TAGS],
    }


def request_id_extension() -> Document:
    """Return how requests are chosen for tracing: not by an id of theirs, which they do not have here."""
    kind = TYPES + "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig"
    return {"typed_config": {"@type": kind, "pack_trace_reason": False, "use_request_id_for_trace_sampling": False}}


def collector_cluster(export: TraceExport) -> Document:
    """Return the way to the collector.

    Raises:
        InvalidInputError: It is reached by TLS, and this machine has no certificates of authorities.
    """
    parts = urlsplit(export.endpoint)
    secured, host = parts.scheme == "https", parts.hostname or ""
    cluster = endpoint_cluster(CLUSTER, host, parts.port or (443 if secured else 80))
    if secured:
        context: Document = {
            "@type": TYPES + "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": host,
            "common_tls_context": {
                "validation_context": {
                    "trusted_ca": {"filename": _authorities()},
                    "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": host}}],
                }
            },
        }
        cluster["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": context}
    return cluster


def _authorities() -> str:
    paths = ssl.get_default_verify_paths()
    for path in (paths.cafile, paths.openssl_cafile, "/etc/ssl/certs/ca-certificates.crt"):
        if path and Path(path).is_file():
            return path
    raise InvalidInputError(
        "the collector is reached by https, and this machine has no certificates of authorities: install "
        "ca-certificates, or use a collector on this machine",
        field="tracing.otlp_endpoint",
    )
