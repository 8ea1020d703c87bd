"""What an operator sets of a sidecar, checked before anything starts."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from aipaging.core.anchor.fair_queue import QueueLimits
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import AnchorId, checked_name
from aipaging.core.lease.holder import HolderTerms

CONCURRENCY_DEFAULT: Final = 64
"""Requests at the model server at once; vLLM batches up to 256, a small server does best with far fewer."""

USAGE_S_DEFAULT: Final = 5.0
"""Between two batches of counts: what a sidecar that dies loses at most, and a record of the evidence each."""

QUEUE_DEFAULT: Final = 1024
"""Waiting requests in all: at 64 in service and 1 s each, a wait of 16 s, near what a client still waits for."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
PORT_MAX: Final = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """The model server.

    Attributes:
        host: Address or DNS name.
        port: TCP port.
        tls: Whether it speaks TLS.
        prefix: Path before every target, without a slash at the end.
        authorization: Value of the `authorization` field to send it, if any.
        health_path: What to ask it for, below `prefix`, to see that it answers.
    """

    host: str
    port: int
    tls: bool = False
    prefix: bytes = b""
    authorization: bytes | None = field(default=None, repr=False)
    health_path: str = "/health"

    @property
    def authority(self) -> bytes:
        """Return the value of its `host` field."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (
            host if self.port == _DEFAULT_PORTS["https" if self.tls else "http"] else f"{host}:{self.port}"
        ).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long to wait for whom, in seconds, and why.

    Attributes:
        head_s: For a complete request head from its first byte: a slow-loris has this long.
        idle_s: For the next request on a kept connection. Longer than any gateway keeps an idle connection, so that
            it is the gateway that closes and no request crosses a close on the wire.
        body_s: For the next byte of a request body.
        write_s: For a client that does not read.
        connect_s: For the upstream to take a connection.
        first_byte_s: For the upstream's answer to begin; a long prompt takes minutes.
        gap_s: For the next byte of the upstream's answer.
        upstream_idle_s: How long an unused upstream connection is kept. Below 5 s, at which uvicorn (vLLM) and Node
            close theirs.
        flush_s: How long the last event of a cut stream may take to leave.
        drain_s: How long a draining sidecar serves on while the controller moves its sessions away.
    """

    head_s: float = 10.0
    idle_s: float = 3_700.0
    body_s: float = 30.0
    write_s: float = 60.0
    connect_s: float = 5.0
    first_byte_s: float = 300.0
    gap_s: float = 120.0
    upstream_idle_s: float = 4.0
    flush_s: float = 0.02
    drain_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarSettings:
    """All that a sidecar needs to know.

    Attributes:
        anchor: Its own id; a receipt for another is refused.
        upstream: The model server.
        listen_host: Address to listen on.
        listen_port: Port to listen on; 0 takes a free one.
        plaintext: Whether to listen without TLS, which is for loopback alone.
        queue: Slots and bounds of the fair queue.
        timeouts: How long to wait for whom.
        terms: Margins of the lease holder.
        usage_s: How often the controller is told what sessions used.
        reservations: Whether guardrails are enforced and the queue is fair. Without: one line, first come, first
            served, for measuring what reservations are worth.
    """

    anchor: AnchorId
    upstream: Upstream
    listen_host: str
    listen_port: int
    plaintext: bool = False
    queue: QueueLimits = field(
        default_factory=lambda: queue_limits(concurrency=CONCURRENCY_DEFAULT, waiting_max=QUEUE_DEFAULT)
    )
    timeouts: Timeouts = field(default_factory=Timeouts)
    terms: HolderTerms = field(default_factory=HolderTerms)
    usage_s: float = USAGE_S_DEFAULT
    reservations: bool = True

    def __post_init__(self) -> None:
        if self.plaintext and not is_loopback(self.listen_host):
            raise InvalidInputError(
                f"plain text is for loopback only, and {self.listen_host} is not: listen on 127.0.0.1 or use TLS",
                code="PLAINTEXT_REFUSED",
                field="listen",
            )


def queue_limits(*, concurrency: int, waiting_max: int, slots: Sequence[str] = ()) -> QueueLimits:
    """Return the bounds: one tenant may fill half of the queue, so that there is always room for another.

    Args:
        concurrency: Requests at the model server at once.
        waiting_max: Requests that wait, of all tenants.
        slots: How many of the `concurrency` are a tenant's own, as `TENANT=COUNT`.

    Raises:
        InvalidInputError: A number is out of range, or a reservation of slots is not possible.
    """
    for name, value, low, high in (("concurrency", concurrency, 1, 10_000), ("queue", waiting_max, 0, 1_000_000)):
        if not low <= value <= high:
            raise InvalidInputError(f"{name} is {value}: {low} to {high} is allowed", field=name)
    return QueueLimits(
        slots=concurrency,
        waiting_max=waiting_max,
        waiting_per_tenant_max=-(-waiting_max // 2),
        reserved=MappingProxyType(_reserved_slots(slots, concurrency)),
    )


def _reserved_slots(texts: Sequence[str], concurrency: int) -> dict[str, int]:
    reserved: dict[str, int] = {}
    for text in texts:
        tenant, _, count = text.partition("=")
        if not (count.isascii() and count.isdigit() and int(count[:9]) > 0) or tenant in reserved:
            raise InvalidInputError(
                f"slots is {text[:80]!r}: expected TENANT=COUNT, once for each tenant, such as acme=8", field="slots"
            )
        reserved[checked_name(tenant, field="slots")] = int(count[:9])
    if (total := sum(reserved.values())) > concurrency - (1 if reserved else 0):
        raise InvalidInputError(
            f"{total} slots are reserved and concurrency is {concurrency}: at least one must be left for others",
            field="slots",
        )
    return reserved


def is_loopback(host: str) -> bool:
    """Return whether `host` is an address of this host alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_upstream(url: str, *, authorization: str | None = None, health_path: str = "/health") -> Upstream:
    """Return the model server that `url` names.

    Raises:
        InvalidInputError: It is not `http[s]://host[:port][/prefix]`, or a header value is not one.
    """
    wrong = InvalidInputError(
        f"upstream is {_without_password(url)[:200]!r}: expected http[s]://host[:port][/prefix], without a password",
        field="upstream",
    )
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
    except (ValueError, KeyError):
        raise wrong from None
    if not parts.hostname or parts.username or parts.query or parts.fragment or not url.isascii() or " " in url:
        raise wrong
    if authorization is not None and not (authorization.isascii() and authorization.isprintable() and authorization):
        raise InvalidInputError(
            "the upstream's authorization must be one line of printable ASCII, such as 'Bearer KEY'",
            field="upstream_authorization_file",
        )
    if not (health_path.startswith("/") and health_path.isascii() and health_path.isprintable()) or " " in health_path:
        raise InvalidInputError(
            f"the health path is {health_path[:80]!r}: it must begin with a slash", field="upstream_health_path"
        )
    return Upstream(
        host=parts.hostname,
        port=port,
        tls=parts.scheme == "https",
        prefix=parts.path.rstrip("/").encode(),
        authorization=authorization.encode() if authorization else None,
        health_path=health_path,
    )


def _without_password(url: str) -> str:
    before, at, after = url.rpartition("@")
    return before.split("://")[0] + "://..." + at + after if at else url


def parse_listen(text: str) -> tuple[str, int]:
    """Return host and port of `host:port`.

    Raises:
        InvalidInputError: It is something else.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdigit() or int(port) > PORT_MAX:
        raise InvalidInputError(f"listen is {text[:80]!r}: expected host:port, such as 127.0.0.1:9443", field="listen")
    return host, int(port)
