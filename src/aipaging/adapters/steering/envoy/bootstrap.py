"""What an Envoy is started with: one listener, one filter, the way to its controller; anchors and route come by xDS.

Ordering rules: every header that could choose a route or change the router's behaviour is removed in the connection
manager, before the first route is chosen; the listener opens only when the route has arrived.

Secrets are files beside the configuration, watched: a renewed certificate is taken up without a restart.
"""

import json
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from aipaging.adapters.steering.envoy.access_log import access_logger
from aipaging.adapters.steering.envoy.local_replies import local_reply_config
from aipaging.adapters.steering.envoy.resources import (
    ANCHOR_HEADER,
    BUFFER_BYTES_MAX,
    LUA_FILTER,
    ROUTE_NAME,
    TYPES,
    Document,
    client_tls,
    endpoint_cluster,
    file_secret,
    http_upstream,
    is_loopback,
)
from aipaging.adapters.steering.envoy.tracing import TraceExport, collector_cluster, request_id_extension, tracing
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import GatewayId

IDLE_S: Final = 330
"""A request on which nothing moves ends after so long; there is no limit to a whole answer. Half a minute more than a
sidecar waits for a model server by default: the sidecar, which knows whom to blame, answers first unless it hangs."""

REQUEST_HEADERS_TIMEOUT: Final = "10s"
"""Slow headers are an attack, slow bodies are not."""

CONNECTION_IDLE_TIMEOUT: Final = "900s"
"""Client libraries keep connections for minutes between requests."""

CONNECTIONS_MAX: Final = 50_000
"""Client connections of one gateway; at about 20 KB each, 1 GB."""

STREAMS_PER_CONNECTION_MAX: Final = 128
"""Concurrent HTTP/2 streams (RFC 9113 advises at least 100)."""

LOOK_UPS_PENDING_MAX: Final = 1024
"""Look-ups under way or waiting: beyond it a miss answers 503 at once instead of piling up on the controller."""

XDS_RETRY: Final = {"base_interval": "0.1s", "max_interval": "2s"}
"""A restarted controller has its gateways back within seconds; Envoy's own limit is half a minute."""

HEADER_KB_MAX: Final = 32
"""An AIST has under 1 KB; nginx and most servers behind take 32 KB at most."""

CLIENT_HEADERS_REMOVED: Final = ("x-aipaging-", "x-envoy-")
"""The first are ours; the second steer Envoy's router: original destination, timeouts, retries, hedging."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Where clients connect.

    Attributes:
        host: Address to bind.
        port: TCP port.
        certificate: PEM chain, or None for plain text (loopback only: for benchmarks and tests).
        key: PEM key, with `certificate`.
        client_authority: PEM certificates; who shows one that they vouch for may use tokens that are bound to it. None:
            clients are not asked for any.
    """

    host: str
    port: int
    certificate: Path | None
    key: Path | None
    client_authority: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """One Envoy.

    Attributes:
        gateway: Its enrolled id.
        trust_domain: Of every identity it meets.
        listener: Where clients connect.
        controller_id: The id in the controller's certificate.
        controller_host: Address of the controller.
        look_up_port: Its southbound HTTPS port.
        xds_port: Its xDS port.
        identity: Directory with the gateway's `cert.pem`, `key.pem` and `ca.pem`.
        run_directory: Where configuration, secrets' references, admin socket and log go (mode 0700).
        workers: Envoy worker threads.
        idle_s: A request on which nothing moves ends after so long.
        traces: Where its spans go; None: it makes none.
    """

    gateway: GatewayId
    trust_domain: str
    listener: Listener
    controller_id: str
    controller_host: str
    look_up_port: int
    xds_port: int
    identity: Path
    run_directory: Path
    workers: int = 1
    idle_s: int = IDLE_S
    traces: TraceExport | None = None

    @property
    def secrets(self) -> Path:
        """Directory of the secrets' references."""
        return self.run_directory / "secrets"


def write_bootstrap(gateway: Gateway) -> Path:
    """Write the configuration and the secrets' references; return the configuration's path.

    Raises:
        InvalidInputError: Plain text is asked for on an address that is not loopback.
    """
    document = bootstrap(gateway)
    gateway.run_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    gateway.run_directory.chmod(0o700)
    gateway.secrets.mkdir(mode=0o700, exist_ok=True)
    identity = gateway.identity.resolve()
    _write(gateway.secrets / "identity.json", _pair("identity", identity / "cert.pem", identity / "key.pem"))
    _write(gateway.secrets / "authority.json", _authority("authority", identity / "ca.pem"))
    if gateway.listener.certificate is not None and gateway.listener.key is not None:
        own = _pair("listener", gateway.listener.certificate.resolve(), gateway.listener.key.resolve())
        _write(gateway.secrets / "listener.json", own)
    if gateway.listener.client_authority is not None:
        _write(gateway.secrets / "clients.json", _authority("clients", gateway.listener.client_authority.resolve()))
    path = gateway.run_directory / "envoy.json"
    _write(path, document)
    return path


def bootstrap(gateway: Gateway) -> Document:
    """Return the bootstrap document of a gateway.

    Raises:
        InvalidInputError: Plain text is asked for on an address that is not loopback.
    """
    secrets = str(gateway.secrets.resolve())
    xds = _controller_cluster(gateway, "xds", gateway.xds_port, http2=True)
    look_ups = _controller_cluster(gateway, "controller", gateway.look_up_port, http2=False)
    limits = {
        "max_connections": LOOK_UPS_PENDING_MAX,
        "max_pending_requests": LOOK_UPS_PENDING_MAX,
        "max_requests": LOOK_UPS_PENDING_MAX,
    }
    look_ups["circuit_breakers"] = {"thresholds": [{"priority": "DEFAULT", **limits}]}
    clusters = [xds, look_ups]
    if gateway.traces is not None:
        clusters.append(collector_cluster(gateway.traces))
    ads: Document = {
        "api_type": "DELTA_GRPC",
        "transport_api_version": "V3",
        "set_node_on_first_message_only": True,
        "grpc_services": [{"envoy_grpc": {"cluster_name": "xds", "retry_policy": {"retry_back_off": XDS_RETRY}}}],
    }
    return {
        "node": {"id": gateway.gateway, "cluster": "aipaging", "metadata": {"secrets": secrets}},
        "admin": {"address": {"pipe": {"path": "admin.sock", "mode": 0o600}}},
        "dynamic_resources": {"ads_config": ads, "cds_config": {"ads": {}, "resource_api_version": "V3"}},
        "static_resources": {"listeners": [_listener(gateway, secrets)], "clusters": clusters},
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": TYPES + "envoy.extensions.resource_monitors.downstream_connections.v3."
                        "DownstreamConnectionsConfig",
                        "max_active_downstream_connections": CONNECTIONS_MAX,
                    },
                }
            ]
        },
    }


def _controller_cluster(gateway: Gateway, name: str, port: int, *, http2: bool) -> Document:
    cluster = endpoint_cluster(name, gateway.controller_host, port)
    cluster["typed_extension_protocol_options"] = http_upstream(http2=http2)
    uri = f"spiffe://{gateway.trust_domain}/controller/{gateway.controller_id}"
    cluster["transport_socket"] = client_tls(secrets=str(gateway.secrets.resolve()), server_uri=uri)
    return cluster


def _listener(gateway: Gateway, secrets: str) -> Document:
    listener = gateway.listener
    chain: Document = {
        "filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": _connection_manager(gateway)}
        ]
    }
    if listener.certificate is not None and listener.key is not None:
        context: Document = {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificate_sds_secret_configs": [file_secret("listener", f"{secrets}/listener.json")],
        }
        if listener.client_authority is not None:
            # Asked for, not demanded: only a token that is bound to a certificate needs one.
            context["validation_context_sds_secret_config"] = file_secret("clients", f"{secrets}/clients.json")
        chain["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": TYPES + "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": context,
                "require_client_certificate": False,
            },
        }
    elif not is_loopback(listener.host):
        raise InvalidInputError(
            f"the listener at {listener.host} is without a certificate: plain text is allowed on loopback only",
            field="listener.certificate",
        )
    return {
        "name": "user-plane",
        "address": {"socket_address": {"address": listener.host, "port_value": listener.port}},
        "per_connection_buffer_limit_bytes": BUFFER_BYTES_MAX,
        "filter_chains": [chain],
    }


def _connection_manager(gateway: Gateway) -> Document:
    traced: Document = {}
    if gateway.traces is not None:
        traced = {"tracing": tracing(gateway.traces), "request_id_extension": request_id_extension()}
    removed = [{"remove_on_match": {"key_matcher": {"prefix": prefix}}} for prefix in CLIENT_HEADERS_REMOVED]
    early: Document = {
        "@type": TYPES + "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
        "mutations": removed,
    }
    lua: Document = {
        "@type": TYPES + "envoy.extensions.filters.http.lua.v3.Lua",
        "default_source_code": {"inline_string": filter_source()},
        # The filter clears the cached route itself, once, when it has named the cluster.
        "clear_route_cache": False,
    }
    router = {
        "@type": TYPES + "envoy.extensions.filters.http.router.v3.Router",
        "suppress_envoy_headers": True,
    }
    return {
        "@type": TYPES + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "user_plane",
        "codec_type": "AUTO" if gateway.listener.certificate else "HTTP1",
        "rds": {
            "route_config_name": ROUTE_NAME,
            # No route, no service: wait for as long as it takes rather than open without one.
            "config_source": {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"},
        },
        "use_remote_address": True,
        "generate_request_id": False,
        "access_log": [access_logger()],
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "server_header_transformation": "PASS_THROUGH",
        "max_request_headers_kb": HEADER_KB_MAX,
        "stream_idle_timeout": f"{gateway.idle_s}s",
        "local_reply_config": local_reply_config(),
        "request_headers_timeout": REQUEST_HEADERS_TIMEOUT,
        "common_http_protocol_options": {
            "idle_timeout": CONNECTION_IDLE_TIMEOUT,
            # An upstream that reads `x_aipaging_commit` as `x-aipaging-commit` must not get the client's.
            "headers_with_underscores_action": "REJECT_REQUEST",
        },
        "http2_protocol_options": {
            "max_concurrent_streams": STREAMS_PER_CONNECTION_MAX,
            "initial_stream_window_size": 65_536,
            "initial_connection_window_size": 1_048_576,
        },
        "early_header_mutation_extensions": [{"name": "steering-headers-of-clients", "typed_config": early}],
        "http_filters": [
            {"name": LUA_FILTER, "typed_config": lua},
            {"name": "envoy.filters.http.router", "typed_config": router},
        ],
        **traced,
    }


def filter_source() -> str:
    """Return the Lua source of the lease cache."""
    source = files("aipaging.adapters.steering.envoy").joinpath("filter.lua").read_text(encoding="utf-8")
    assert ANCHOR_HEADER in source  # noqa: S101  # the filter and the route must name the same header
    return source


def _pair(name: str, certificate: Path, key: Path) -> Document:
    pair: Document = {
        "certificate_chain": {"filename": str(certificate)},
        "private_key": {"filename": str(key)},
        "watched_directory": {"path": str(certificate.parent)},
    }
    return _secret(name, {"tls_certificate": pair})


def _authority(name: str, authority: Path) -> Document:
    trusted: Document = {
        "trusted_ca": {"filename": str(authority)},
        "watched_directory": {"path": str(authority.parent)},
    }
    return _secret(name, {"validation_context": trusted})


def _secret(name: str, body: Document) -> Document:
    kind = TYPES + "envoy.extensions.transport_sockets.tls.v3.Secret"
    return {"resources": [{"@type": kind, "name": name, **body}]}


def _write(path: Path, document: Document) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(json.dumps(document, indent=1), encoding="utf-8")
    fresh.chmod(0o600)
    os.replace(fresh, path)  # noqa: PTH105  # a watcher must never see half a file
