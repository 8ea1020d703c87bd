"""The controller's HTTP listeners: several uvicorn servers in one loop, whose end the controller decides."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Generator
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

from aipaging.core.foundation.errors import UnavailableError
from aipaging.runtime.http.heads import BoundedHeadsProtocol

BACKLOG: Final = 2_048
"""Connections that wait for accept: a gateway that comes back opens all of its own at once."""

SHUTDOWN_S: Final = 3
"""How long open answers may go on after the end was asked for; long polls and event streams are cut then."""

IDLE_S: Final = 75
"""An idle connection is closed after so long: longer than the 60 s for which common clients keep theirs."""

CONNECTIONS_MAX: Final = 10_000
"""Open connections of one listener; beyond it a new request is answered 503."""


class Listener:
    """One bound address and the application that answers there."""

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        port: int,
        *,
        context: ssl.SSLContext | None = None,
        protocol: type[asyncio.Protocol] | None = None,
    ) -> None:
        """Bind the address; nothing is served before `start`.

        Raises:
            UnavailableError: The address cannot be listened on.
        """
        self._socket = _bound(host, port)
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            app,
            http=protocol or BoundedHeadsProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=IDLE_S,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
        config.load()
        config.ssl = context
        self._server = _Quiet(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Serve; returns once connections are answered."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        await self._server.answering.wait()

    async def stop(self) -> None:
        """Answer what is under way, then close."""
        self._server.should_exit = True
        if self._task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._socket.close()


class _Quiet(uvicorn.Server):
    """A server that leaves signals to the controller, and says when it answers."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.answering = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        self.answering.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, Any, None]:
        """Capture none."""
        yield


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bound.bind((host, port))
        bound.listen(BACKLOG)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        raise UnavailableError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; free the port or configure another",
            code="ADDRESS_UNAVAILABLE",
        ) from error
    return bound
