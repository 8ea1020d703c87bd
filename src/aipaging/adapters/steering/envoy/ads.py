"""The xDS server: every gateway has every anchor and the present revocation list, and has said so.

Delta ADS over gRPC with mutual TLS. A *revision* is one state of one resource type; a gateway that acknowledges a
response has that response's revision in force on its main thread, and on its workers a moment later (the driver
waits for that moment).

Ordering rules: nothing is served before the first `publish`-ed state is declared complete (`open`), so that a gateway
never sees an empty revocation list after a recovery; a gateway counts as connected from its authentication to the end
of its stream.
"""

import asyncio
import hashlib
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from aipaging.adapters.steering.envoy.access_log import LOG_STREAMS_MAX, log_handler
from aipaging.adapters.steering.envoy.resources import (
    ROUTE_NAME,
    TYPES,
    Document,
    anchor_cluster,
    cluster_name,
    route_configuration,
)
from aipaging.core.foundation.errors import UnavailableError, UnverifiedError
from aipaging.core.foundation.names import GatewayId
from aipaging.core.steering.grant import AnchorEndpoint
from aipaging.runtime.peer_identity import gateway_of_uris

try:
    import grpc
    import grpc.aio
    from envoy.config.cluster.v3 import cluster_pb2
    from envoy.config.route.v3 import route_pb2
    from envoy.extensions.filters.http.lua.v3 import lua_pb2
    from envoy.extensions.transport_sockets.tls.v3 import tls_pb2
    from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
    from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
    from google.protobuf.json_format import ParseDict
except ModuleNotFoundError as error:
    raise UnavailableError(
        f"{error.name} is not installed: `pip install 'aipaging[envoy]'` brings Envoy and what it is steered with",
        code="ENVOY_NOT_INSTALLED",
    ) from error

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # we start Envoy; gRPC's fork handlers only warn about it

CLUSTER: Final = TYPES + "envoy.config.cluster.v3.Cluster"
ROUTE: Final = TYPES + "envoy.config.route.v3.RouteConfiguration"
EXTENSIONS: Final = (lua_pb2, tls_pb2, http_protocol_options_pb2)
"""Imported so that `ParseDict` finds the types inside `Any`."""

GATEWAYS_MAX: Final = 64
"""Streams of one controller; a gateway that reconnects may have two for a moment."""

REQUEST_BYTES_MAX: Final = 1024 * 1024
"""A gateway that reconnects lists the versions of every resource: about 100 bytes for each of 10,000 anchors."""

KEEPALIVE_MS: Final = 5_000
"""A gateway that has vanished without a word is disconnected within two of these."""

# Generated code without types.
_aio: Any = grpc.aio
_discovery: Any = discovery_pb2
_messages: dict[str, Callable[[], Any]] = {
    CLUSTER: cast("Any", cluster_pb2).Cluster,
    ROUTE: cast("Any", route_pb2).RouteConfiguration,
}

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class XdsListener:
    """Where gateways connect for xDS.

    Attributes:
        host: Address to bind.
        port: TCP port; 0 lets the system choose.
        identity: Directory with the controller's `cert.pem`, `key.pem` and `ca.pem`.
        trust_domain: Of the identities that are let in.
        health_check: Whether gateways probe the anchors actively.
        access_log: Takes the messages of the gateways' access logs without waiting; None: nobody listens.
    """

    host: str
    port: int
    identity: Path
    trust_domain: str
    health_check: bool = False
    access_log: Callable[[bytes], None] | None = None


class _Stream:
    """One gateway's connection: what it was sent and what it has confirmed."""

    def __init__(self, gateway: GatewayId) -> None:
        self.gateway = gateway
        self.secrets = ""
        self.wake = asyncio.Event()
        self.subscribed: set[str] = set()
        self.known: dict[str, dict[str, str]] = {CLUSTER: {}, ROUTE: {}}
        self.sent = {CLUSTER: 0, ROUTE: 0}
        self.confirmed = {CLUSTER: 0, ROUTE: 0}
        self.refused: dict[str, tuple[int, str]] = {}
        self.pending: dict[str, tuple[str, int]] = {}
        self.nonces = itertools.count(1)


class AdsServer:
    """Serves the anchors and the route to every gateway that connects."""

    def __init__(self, listener: XdsListener) -> None:
        self.listener = listener
        self.port = listener.port
        self._anchors: dict[str, AnchorEndpoint] = {}
        self._revoked = ""
        self._revision = {CLUSTER: 1, ROUTE: 1}
        self._opened = asyncio.Event()
        self._streams: set[_Stream] = set()
        self._progress = asyncio.Event()
        self._server: Any = None

    async def start(self) -> None:
        """Bind the listener.

        Raises:
            UnavailableError: The address cannot be bound.
        """
        options = [
            ("grpc.max_receive_message_length", REQUEST_BYTES_MAX),
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_MS),
            ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
            ("grpc.so_reuseport", 0),
        ]
        self._server = grpc.aio.server(options=options, maximum_concurrent_rpcs=GATEWAYS_MAX + LOG_STREAMS_MAX)
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(_Service(self), self._server)
        if self.listener.access_log is not None:
            sink, trust_domain = self.listener.access_log, self.listener.trust_domain
            handler = log_handler(grpc, trust_domain=trust_domain, sink=sink)
            self._server.add_generic_rpc_handlers((handler,))
        try:
            self.port = self._server.add_secure_port(
                f"{self.listener.host}:{self.listener.port}", _credentials(self.listener.identity)
            )
        except RuntimeError:
            raise UnavailableError(
                f"xDS cannot listen on {self.listener.host}:{self.listener.port}: the port is taken or not allowed"
            ) from None
        await self._server.start()

    async def stop(self) -> None:
        """End every stream and close the listener; gateways keep what they have until it expires."""
        if self._server is not None:
            await self._server.stop(grace=0.1)
            self._server = None

    @property
    def gateways(self) -> frozenset[GatewayId]:
        """Gateways that are connected."""
        return frozenset(stream.gateway for stream in self._streams)

    def publish_anchors(self, anchors: Iterable[AnchorEndpoint]) -> int:
        """Make exactly these anchors the clusters; return the revision to wait for."""
        fresh = {cluster_name(anchor.anchor): anchor for anchor in anchors}
        if fresh != self._anchors:
            for anchor in fresh.values():  # refuses what no gateway may be told
                self._cluster(anchor, secrets="/")
            self._anchors = fresh
            self._advance(CLUSTER)
        return self._revision[CLUSTER]

    def publish_revoked(self, revoked: str) -> int:
        """Make this the revocation list; return the revision to wait for."""
        if revoked != self._revoked:
            self._revoked = revoked
            self._advance(ROUTE)
        return self._revision[ROUTE]

    def revision(self, kind: str) -> int:
        """Return the present revision of a type."""
        return self._revision[kind]

    def open(self) -> None:
        """Declare the published state complete: gateways are answered from now on."""
        self._opened.set()

    async def confirmed(self, kind: str, revision: int, *, timeout_s: float) -> None:
        """Return when every connected gateway has acknowledged at least `revision` of `kind`.

        Raises:
            UnavailableError: A gateway refused it, or did not answer in time.
        """
        if not self._opened.is_set():
            return
        try:
            async with asyncio.timeout(timeout_s):
                while waiting := [stream for stream in self._streams if stream.confirmed[kind] < revision]:
                    for stream in waiting:
                        refused_revision, reason = stream.refused.get(kind, (0, ""))
                        if refused_revision >= revision:
                            raise UnavailableError(f"gateway {stream.gateway} refused its configuration: {reason}")
                    await self._progress.wait()
        except TimeoutError:
            late = sorted({stream.gateway for stream in self._streams if stream.confirmed[kind] < revision})
            raise UnavailableError(
                f"gateways {', '.join(late)} did not confirm within {timeout_s:g} s; they steer by what they have "
                "until it expires",
                code="GATEWAY_SILENT",
            ) from None

    def _advance(self, kind: str) -> None:
        self._revision[kind] += 1
        for stream in self._streams:
            stream.wake.set()

    def _cluster(self, anchor: AnchorEndpoint, *, secrets: str) -> Document:
        return anchor_cluster(
            anchor,
            trust_domain=self.listener.trust_domain,
            secrets=secrets,
            health_check=self.listener.health_check,
        )

    async def serve(self, read: Callable[[], Any], write: Callable[[Any], Any], gateway: GatewayId) -> None:
        """Carry one gateway's stream until it ends.

        Raises:
            UnverifiedError: There are as many streams as one controller serves, or the gateway says another name.
        """
        if len(self._streams) >= GATEWAYS_MAX:
            raise UnverifiedError(f"{GATEWAYS_MAX} gateways are connected already", code="GATEWAYS_TOO_MANY")
        stream = _Stream(gateway)
        self._streams.add(stream)
        _LOG.info("gateway %s connected", gateway)
        reader = asyncio.create_task(self._read(stream, read))
        try:
            await self._opened.wait()
            while not reader.done():
                stream.wake.clear()
                for kind in (CLUSTER, ROUTE):
                    if kind in stream.subscribed and stream.sent[kind] < self._revision[kind]:
                        await write(self._difference(stream, kind))
                await stream.wake.wait()
            reader.result()
        finally:
            reader.cancel()
            self._streams.discard(stream)
            self._report_progress()
            _LOG.info("gateway %s disconnected", gateway)

    async def _read(self, stream: _Stream, read: Callable[[], Any]) -> None:
        try:
            while (request := await read()) is not _aio.EOF:
                self._take(stream, request)
                stream.wake.set()
        finally:
            stream.wake.set()

    def _take(self, stream: _Stream, request: Any) -> None:
        """Note what a gateway says: a subscription, an acknowledgement or a refusal."""
        kind = request.type_url
        if request.HasField("node"):
            if request.node.id != stream.gateway:
                raise UnverifiedError(f"node {request.node.id!r} is not gateway {stream.gateway}", code="WRONG_NODE")
            stream.secrets = request.node.metadata.fields["secrets"].string_value
        if kind not in stream.known:
            return
        if kind not in stream.subscribed:
            stream.subscribed.add(kind)
            stream.known[kind] = dict(request.initial_resource_versions)
        answered = stream.pending.pop(request.response_nonce, None)
        if answered is None:
            return
        _, revision = answered
        if request.HasField("error_detail"):
            reason = request.error_detail.message[:500]
            _LOG.error("gateway %s refused revision %d of %s: %s", stream.gateway, revision, kind, reason)
            stream.refused[kind] = (revision, reason)
            stream.known[kind] = {}  # send everything with the next revision
        else:
            stream.confirmed[kind] = max(stream.confirmed[kind], revision)
        self._report_progress()

    def _report_progress(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()

    def _difference(self, stream: _Stream, kind: str) -> Any:
        """Return what the gateway lacks, and note it as sent."""
        revision = self._revision[kind]
        nonce = str(next(stream.nonces))
        response = _discovery.DeltaDiscoveryResponse(system_version_info=str(revision), type_url=kind, nonce=nonce)
        documents = self._documents(stream, kind)
        known = stream.known[kind]
        versions = {name: _version(document) for name, document in documents.items()}
        for name, version in versions.items():
            if known.get(name) != version:
                response.resources.append(_resource(kind, name, version, documents[name]))
        response.removed_resources.extend(name for name in known if name not in versions)
        stream.known[kind] = versions
        stream.sent[kind] = revision
        stream.pending[nonce] = (kind, revision)
        return response

    def _documents(self, stream: _Stream, kind: str) -> dict[str, Document]:
        if kind == ROUTE:
            return {ROUTE_NAME: route_configuration(self._revoked)}
        return {name: self._cluster(anchor, secrets=stream.secrets) for name, anchor in self._anchors.items()}


class _Service(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):  # type: ignore[misc]
    """Authenticates a stream by its certificate and hands it over."""

    def __init__(self, server: AdsServer) -> None:
        self.server = server

    async def DeltaAggregatedResources(self, request_iterator: Any, context: Any) -> None:  # noqa: ARG002, N802  # gRPC's names
        """Serve one gateway."""
        names = context.auth_context().get("x509_subject_alternative_name", ())
        uris = [name.decode("utf-8", "replace") for name in names]
        gateway = gateway_of_uris(uris, trust_domain=self.server.listener.trust_domain)
        if gateway is None:
            _LOG.warning("xDS refused to a peer without a gateway's certificate: %s", context.peer())
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "a gateway's certificate is needed")
            return
        try:
            await self.server.serve(context.read, context.write, GatewayId(gateway))
        except UnverifiedError as error:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, error.message)


def _resource(kind: str, name: str, version: str, document: Document) -> Any:
    message = ParseDict(document, _messages[kind]())
    resource = _discovery.Resource(name=name, version=version)
    resource.resource.Pack(message)
    return resource


def _version(document: Document) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def _credentials(identity: Path) -> Any:
    """Return server credentials that follow the files: a renewed certificate counts for the next handshake."""
    seen: list[tuple[bytes, bytes, bytes]] = [_material(identity)]

    def renewed() -> Any:
        try:
            material = _material(identity)
        except OSError:
            return None
        if material == seen[0]:
            return None
        seen[0] = material
        return _configuration(material)

    return grpc.dynamic_ssl_server_credentials(_configuration(seen[0]), renewed, require_client_authentication=True)


def _material(identity: Path) -> tuple[bytes, bytes, bytes]:
    return tuple((identity / name).read_bytes() for name in ("key.pem", "cert.pem", "ca.pem"))  # type: ignore[return-value]


def _configuration(material: tuple[bytes, bytes, bytes]) -> Any:
    key, chain, authority = material
    return grpc.ssl_server_certificate_configuration([(key, chain)], root_certificates=authority)
