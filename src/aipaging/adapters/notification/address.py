"""Where a notification may go: https, and no address of a private network unless the operator allows it.

A sink is a URL that a client makes this controller call. Without these rules a client could reach what only the
controller can (cloud metadata, the journal's host, an admin port). So the name is resolved here, every address that it
resolves to is checked, and the connection is made to the very address that was checked: a name that changes between
check and use (DNS rebinding) gains nothing. Redirects are never followed.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from aipaging.core.foundation.errors import InvalidInputError

URL_CHARS_MAX: Final = 2_048
RESOLVE_S_MAX: Final = 3.0
"""A resolver that needs longer is hung; the notification is tried again later."""

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


class SinkForbiddenError(InvalidInputError):
    """The sink is at an address that this controller does not call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkUrl:
    """A sink's URL, taken apart and checked as far as it can be without the network."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """The `Host` header."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == (443 if self.scheme == "https" else 80) else f"{name}:{self.port}"


def sink_url(url: str, allowed: Sequence[Network] = ()) -> SinkUrl:
    """Return a sink's URL, checked; names are checked when they are resolved.

    Args:
        url: As it was given.
        allowed: Private networks that the operator allows.

    Raises:
        InvalidInputError: It is no https URL (`INVALID_SINK`); plain http is for allowed loopback addresses only.
    """
    if len(url) > URL_CHARS_MAX or not url.isascii() or not url.isprintable() or " " in url:
        raise _invalid(f"it has {len(url)} characters: up to {URL_CHARS_MAX} printable ASCII ones are allowed")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _invalid("it is not a URL") from None
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        raise _invalid("https://<host>/<path> is expected")
    if "@" in parts.netloc or parts.fragment:
        raise _invalid("it carries credentials or a fragment: give a token as sinkCredential")
    address = _literal(parts.hostname)
    if parts.scheme == "http" and (address is None or not address.is_loopback or not _reachable(address, allowed)):
        raise _invalid("plain http is for allowed loopback addresses only: use https")
    if address is not None and not _reachable(address, allowed):
        raise _forbidden(parts.hostname)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    default = 443 if parts.scheme == "https" else 80
    return SinkUrl(scheme=parts.scheme, host=parts.hostname, port=port or default, target=target)


async def resolved(sink: SinkUrl, allowed: Sequence[Network] = ()) -> Address:
    """Return the address to connect to.

    Raises:
        SinkForbiddenError: The name leads to an address that is not called; one such address is enough.
        OSError: The name cannot be resolved.
        TimeoutError: In time.
    """
    literal = _literal(sink.host)
    if literal is not None:
        addresses: list[Address] = [literal]
    else:
        async with asyncio.timeout(RESOLVE_S_MAX):
            found = await asyncio.get_running_loop().getaddrinfo(sink.host, sink.port, type=socket.SOCK_STREAM)
        addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    if not addresses or not all(_reachable(address, allowed) for address in addresses):
        raise _forbidden(sink.host)
    return addresses[0]


def _reachable(address: Address, allowed: Sequence[Network]) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return _reachable(address.ipv4_mapped, allowed)
        if address in _NAT64 or address.sixtofour is not None or address.teredo is not None:
            return False  # an address inside an address: what it leads to is decided by somebody else
    if any(address.version == network.version and address in network for network in allowed):
        return True
    return address.is_global and not address.is_multicast


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _invalid(what: str) -> InvalidInputError:
    return InvalidInputError(f"sink cannot be used: {what}", code="INVALID_SINK", field="sink")


def _forbidden(host: str) -> SinkForbiddenError:
    return SinkForbiddenError(
        f"sink cannot be used: {host[:64]} is, or leads to, a private address; the operator may allow its network",
        code="INVALID_SINK",
        field="sink",
    )
