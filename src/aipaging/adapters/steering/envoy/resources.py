"""Envoy documents: clusters, the one route, TLS contexts; as JSON, so that the bootstrap and xDS share them.

Left out: who receives them (`ads`) and the listener (`bootstrap`).
"""

import ipaddress
from typing import Any, Final, TypeAlias

from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import AnchorId
from aipaging.core.steering.grant import AnchorEndpoint

Document: TypeAlias = dict[str, Any]
"""A protobuf message in its JSON form."""

TYPES: Final = "type.googleapis.com/"
ROUTE_NAME: Final = "steering"
LUA_FILTER: Final = "aipaging.lease"
ANCHOR_HEADER: Final = "x-aipaging-anchor"
REVOKED_KEY: Final = "revoked"
SIDECAR_PREFIX: Final = "/aipaging/"
"""What sidecars keep for the controller: nothing of it is reachable through the gateway."""

REPEAT_STATUS: Final = 308
"""By which a sidecar tells the gateway to look the session up again and to repeat the request. Envoy repeats a request
through its filters for redirects alone; a model server's own 308 passes a sidecar as 307, and is not taken for it."""

REFUSED_HEADER: Final = "x-aipaging-refused"
"""With it: the epoch that was refused. Envoy copies it into the repeated request; clients' are removed before."""

REPEATED_BYTES_MAX: Final = 128 * 1024
"""What is kept of a request's body so that it can be repeated; a sidecar asks for that only up to half of it."""

CONNECT_TIMEOUT: Final = "1s"
"""An anchor that does not accept within a second is no place for a request with a tail to keep."""

UPSTREAM_IDLE_TIMEOUT: Final = "30s"
"""Below the keep-alive timeout of common servers (uvicorn 5 s is raised by the sidecar to 75 s): the side that sends
requests must be the one that closes, or a request meets a closing connection."""

KEEPALIVE_TIME_S: Final = 5
KEEPALIVE_INTERVAL_S: Final = 3
KEEPALIVE_PROBES: Final = 3
"""A connection on which nothing moves is probed: one to a host that is gone ends after 14 s, and with it the request
that waits on it. The kernel answers, so a model that thinks long costs nothing, and a process that stands still is not
found."""

BUFFER_BYTES_MAX: Final = 1024 * 1024
"""Per connection and direction, before back-pressure: bodies stream through, they are not collected."""


def cluster_name(anchor: AnchorId) -> str:
    """Return the name by which the filter picks an anchor's cluster."""
    return f"anchor:{anchor}"


def is_loopback(host: str) -> bool:
    """Whether the host is this machine: the only place where plain text is allowed."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_address(host: str) -> bool:
    """Whether the host is an IP address (otherwise a name that Envoy has to resolve)."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def file_secret(name: str, path: str) -> Document:
    """Return a reference to a secret that Envoy reads from a file and watches."""
    directory = path.rpartition("/")[0]
    source: Document = {"path": path, "watched_directory": {"path": directory}}
    return {"name": name, "sds_config": {"path_config_source": source, "resource_api_version": "V3"}}


def client_tls(*, secrets: str, server_uri: str) -> Document:
    """Return an upstream TLS context: the gateway's own certificate, and exactly one identity at the other end."""
    expected = {"san_type": "URI", "matcher": {"exact": server_uri}}
    context: Document = {
        "@type": TYPES + "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificate_sds_secret_configs": [file_secret("identity", f"{secrets}/identity.json")],
            "combined_validation_context": {
                "default_validation_context": {"match_typed_subject_alt_names": [expected]},
                "validation_context_sds_secret_config": file_secret("authority", f"{secrets}/authority.json"),
            },
        },
    }
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def http_upstream(*, http2: bool) -> Document:
    """Return the protocol options of a cluster."""
    explicit: Document = (
        {"http2_protocol_options": {"connection_keepalive": {"interval": "5s", "timeout": "3s"}}}
        if http2
        else {"http_protocol_options": {}}
    )
    options: Document = {
        "@type": TYPES + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": explicit,
    }
    if not http2:
        options["common_http_protocol_options"] = {"idle_timeout": UPSTREAM_IDLE_TIMEOUT}
    return {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}


def endpoint_cluster(name: str, host: str, port: int) -> Document:
    """Return a cluster of one endpoint, without TLS."""
    address = {"socket_address": {"address": host, "port_value": port}}
    return {
        "name": name,
        "type": "STATIC" if is_address(host) else "STRICT_DNS",
        "connect_timeout": CONNECT_TIMEOUT,
        "per_connection_buffer_limit_bytes": BUFFER_BYTES_MAX,
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


def anchor_cluster(endpoint: AnchorEndpoint, *, trust_domain: str, secrets: str, health_check: bool) -> Document:
    """Return the cluster of one anchor: its own identity, limits and, on request, active health checks.

    Raises:
        InvalidInputError: Plain text to somewhere that is not this machine.
    """
    if not endpoint.tls and not is_loopback(endpoint.host):
        raise InvalidInputError(
            f"anchor {endpoint.anchor} at {endpoint.host} is without TLS: plain text is allowed on loopback only",
            field="tls",
        )
    name = cluster_name(endpoint.anchor)
    cluster = endpoint_cluster(name, endpoint.host, endpoint.port)
    limits = {
        "max_connections": endpoint.in_flight_max,
        "max_pending_requests": endpoint.in_flight_max,
        "max_requests": endpoint.in_flight_max,
    }
    cluster["circuit_breakers"] = {"thresholds": [{"priority": "DEFAULT", **limits}]}
    cluster["typed_extension_protocol_options"] = http_upstream(http2=False)
    cluster["upstream_connection_options"] = {
        "tcp_keepalive": {
            "keepalive_time": KEEPALIVE_TIME_S,
            "keepalive_interval": KEEPALIVE_INTERVAL_S,
            "keepalive_probes": KEEPALIVE_PROBES,
        }
    }
    if endpoint.tls:
        uri = f"spiffe://{trust_domain}/anchor/{endpoint.anchor}"
        cluster["transport_socket"] = client_tls(secrets=secrets, server_uri=uri)
    if health_check:
        probe = {"path": f"{SIDECAR_PREFIX}v1/health"}
        cluster["health_checks"] = [
            {
                "timeout": "1s",
                "interval": "5s",
                "unhealthy_threshold": 3,
                "healthy_threshold": 1,
                "http_health_check": probe,
            }
        ]
    return cluster


def route_configuration(revoked: str) -> Document:
    """Return the one route: the filter names the cluster, the revocation list travels as the filter's context."""
    blocked: Document = {
        "match": {"prefix": SIDECAR_PREFIX},
        "direct_response": {
            "status": 404,
            "body": {"inline_string": '{"status":404,"code":"NOT_FOUND","message":"No such resource."}'},
        },
        "response_headers_to_add": [{"header": {"key": "content-type", "value": "application/json"}}],
        "typed_per_filter_config": {
            LUA_FILTER: {"@type": TYPES + "envoy.extensions.filters.http.lua.v3.LuaPerRoute", "disabled": True}
        },
    }
    steered: Document = {
        "match": {"prefix": "/"},
        "route": {
            "cluster_header": ANCHOR_HEADER,
            "timeout": "0s",
            "internal_redirect_policy": {
                "max_internal_redirects": 1,
                "redirect_response_codes": [REPEAT_STATUS],
                "response_headers_to_copy": [REFUSED_HEADER],
            },
        },
        "per_request_buffer_limit_bytes": REPEATED_BYTES_MAX,
        "request_headers_to_remove": [ANCHOR_HEADER],
        "typed_per_filter_config": {
            LUA_FILTER: {
                "@type": TYPES + "envoy.extensions.filters.http.lua.v3.LuaPerRoute",
                "filter_context": {REVOKED_KEY: revoked},
            }
        },
    }
    return {
        "name": ROUTE_NAME,
        "virtual_hosts": [{"name": "every-host", "domains": ["*"], "routes": [blocked, steered]}],
    }
