"""One uvicorn server on one socket: says where it listens once it does, and ends quietly when told to."""

import asyncio
import contextlib
import ipaddress
import signal
import socket
import sys
from collections.abc import Callable, Generator, Mapping
from typing import Any, Final, NamedTuple

import msgspec
import uvicorn
import uvloop
from starlette.types import ASGIApp

from aipaging.core.foundation.errors import InvalidInputError, UnavailableError

BACKLOG: Final = 2_048
"""Connections that wait for accept; the benchmarks open a thousand at once."""

SHUTDOWN_S: Final = 3
"""How long open answers may go on after SIGTERM; a sidecar has cut them long before, or nobody is there."""

PORT_MAX: Final = 65_535


class Address(NamedTuple):
    """Where to listen; port 0 takes a free one."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The base URL of a server that listens there."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def parsed_address(text: str) -> Address:
    """Return the address of `host:port` or `[v6]:port`.

    Raises:
        InvalidInputError: It has another form.
    """
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = _v6(host[1:-1])
    elif ":" in host:
        host = ""
    if not host or not port.isascii() or not port.isdigit() or int(port) > PORT_MAX:
        raise InvalidInputError(
            f"{text[:80]!r} is not an address to listen on: expected host:port, such as 127.0.0.1:8101 or [::1]:8101 "
            "(port 0 takes a free one)",
            field="listen",
        )
    return Address(host, int(port))


def run_server(
    app: ASGIApp,
    address: Address,
    *,
    announcement: Mapping[str, Any],
    as_json: bool,
    protocol: type[asyncio.Protocol] | None = None,
) -> None:
    """Serve `app` until SIGINT or SIGTERM.

    Args:
        app: What answers.
        address: Where to listen.
        announcement: Said when ready, after `listening`: as one JSON line on stdout, or as a line for people on stderr.
        as_json: Which of the two.
        protocol: Another HTTP protocol class than uvicorn's own.

    Raises:
        UnavailableError: The address cannot be listened on.
    """
    with contextlib.closing(_bound(address)) as listener:
        bound = Address(address.host, listener.getsockname()[1])
        config = uvicorn.Config(
            app,
            http=protocol or "httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
        said = {"listening": bound.url, **announcement}
        server = _Server(config, ready=lambda: _say(said, as_json=as_json))
        uvloop.run(server.serve(sockets=[listener]))


class _Server(uvicorn.Server):
    """A server that says when it is ready, and to which SIGTERM is the end of a normal day.

    uvicorn's own would raise the signal once more after its shutdown, and die of it.
    """

    def __init__(self, config: uvicorn.Config, *, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._end)
        yield

    def _end(self) -> None:
        self.should_exit = True


def _say(said: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.buffer.write(msgspec.json.encode(said) + b"\n")
        sys.stdout.buffer.flush()
        return
    details = ", ".join(f"{name} {value}" for name, value in said.items() if name != "listening")
    sys.stderr.write(f"listening on {said['listening']} ({details}); Ctrl-C ends it\n")
    sys.stderr.flush()


def _bound(address: Address) -> socket.socket:
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
            listener.listen(BACKLOG)
            listener.setblocking(False)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise UnavailableError(
            f"cannot listen on {address.host}:{address.port}: {error.strerror}; choose another with --listen",
            code="ADDRESS_UNAVAILABLE",
        ) from error
    return listener


def _v6(text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        return ""
