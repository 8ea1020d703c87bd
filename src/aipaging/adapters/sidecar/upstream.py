"""Connections to the model server: kept, checked before use, and never shared by two requests at once."""

import asyncio
import select
import ssl
from collections.abc import Callable
from typing import Final, Protocol, cast

from aipaging.adapters.sidecar.instruments import Instruments
from aipaging.adapters.sidecar.settings import Timeouts, Upstream

_READABLE: Final = select.POLLIN | select.POLLRDHUP | select.POLLHUP | select.POLLERR


class UpstreamUser(Protocol):
    """Whose answer is expected on a connection."""

    def connected(self, connection: "UpstreamConnection") -> None:
        """Take a connection; nobody else uses it until `give_back` or `abort`."""
        ...

    def connect_failed(self) -> None:
        """There is none to be had."""
        ...

    def upstream_bytes(self, piece: bytes) -> None:
        """Take what the upstream sent."""
        ...

    def upstream_lost(self, *, clean: bool) -> None:
        """The connection is gone; `clean` where the upstream closed it in order."""
        ...

    def upstream_full(self, *, full: bool) -> None:
        """Stop (or go on) sending the request's body."""
        ...


class UpstreamConnection(asyncio.Protocol):
    """One connection to the model server."""

    __slots__ = ("_eof", "_held", "_poll", "_pool", "fresh", "idle_since_s", "transport", "user")

    def __init__(self, pool: "UpstreamPool") -> None:
        self._pool = pool
        self._eof = False
        self._held = False
        self._poll = select.poll()
        self.transport: asyncio.Transport = _NO_TRANSPORT
        self.user: UpstreamUser | None = None
        self.fresh = True
        self.idle_since_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember how to look at the socket without reading."""
        self.transport = cast("asyncio.Transport", transport)
        self._poll.register(transport.get_extra_info("socket").fileno(), _READABLE)

    @property
    def usable(self) -> bool:
        """Whether the upstream has neither closed it nor sent what nobody asked for.

        A close that the loop has not read yet is seen here, so that a request that must not be repeated is not
        written into a connection that is already dead.
        """
        return not self.transport.is_closing() and not self._poll.poll(0)

    def data_received(self, data: bytes) -> None:
        """Pass on, or drop a connection on which something arrives that nobody asked for."""
        if self.user is None:
            self.abort()
        else:
            self.user.upstream_bytes(data)

    def eof_received(self) -> bool | None:
        """Note that the upstream closed in order; the transport then closes itself."""
        self._eof = True
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._pool.forget(self)
        user, self.user = self.user, None
        if user is not None:
            user.upstream_lost(clean=self._eof and exc is None)

    def pause_writing(self) -> None:
        """The upstream does not take the request's body as fast as it comes."""
        if self.user is not None:
            self.user.upstream_full(full=True)

    def resume_writing(self) -> None:
        """It does again."""
        if self.user is not None:
            self.user.upstream_full(full=False)

    def send(self, piece: bytes) -> None:
        """Send a piece of the request."""
        if not self.transport.is_closing():
            self.transport.write(piece)

    def hold(self, *, held: bool) -> None:
        """Stop (or go on) reading the answer."""
        if held == self._held or self.transport.is_closing():
            return
        self._held = held
        if held:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def give_back(self) -> None:
        """Keep it for the next request."""
        self.hold(held=False)
        self.user = None
        self.fresh = False
        self._pool.keep(self)

    def abort(self) -> None:
        """Close it at once, unsent bytes and all: whatever the upstream computes for it is not wanted any more."""
        self.user = None
        self._pool.forget(self)
        self.transport.abort()


class UpstreamPool:
    """Kept connections, the newest first, so that the surplus ages and is closed."""

    def __init__(self, upstream: Upstream, timeouts: Timeouts, instruments: Instruments, *, kept_max: int) -> None:
        self._upstream = upstream
        self._timeouts = timeouts
        self._metrics = instruments.metrics
        self._log = instruments.log
        self._kept_max = kept_max
        self._loop = asyncio.get_running_loop()
        self._idle: list[UpstreamConnection] = []
        self._connecting: set[asyncio.Task[None]] = set()
        self._tls = ssl.create_default_context() if upstream.tls else None
        self._closed = False

    def acquire(self, user: UpstreamUser, *, fresh: bool = False) -> Callable[[], object] | None:
        """Give `user` a connection: at once where one is kept, else when it is made.

        Returns:
            What calls the connecting off, or None where the user has its connection already.
        """
        while self._idle and not fresh:
            connection = self._idle.pop()
            if connection.usable:
                connection.user = user
                user.connected(connection)
                return None
            connection.abort()
        task = self._loop.create_task(self._connect(user))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return task.cancel

    async def _connect(self, user: UpstreamUser) -> None:
        self._metrics.upstream_connects += 1
        connection = UpstreamConnection(self)
        try:
            async with asyncio.timeout(self._timeouts.connect_s):
                await self._loop.create_connection(
                    lambda: connection,
                    self._upstream.host,
                    self._upstream.port,
                    ssl=self._tls,
                    server_hostname=self._upstream.host if self._tls else None,
                )
        except (OSError, TimeoutError) as error:
            self._log.event("upstream_unreachable", why=type(error).__name__)
            user.connect_failed()
            return
        except asyncio.CancelledError:
            connection.transport.abort()  # it may have been made in the very moment in which it was called off
            raise
        connection.user = user
        user.connected(connection)

    def keep(self, connection: UpstreamConnection) -> None:
        """Keep an unused connection, unless there are enough."""
        if self._closed or len(self._idle) >= self._kept_max or connection.transport.is_closing():
            connection.abort()
            return
        connection.idle_since_s = self._loop.time()
        self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """Drop a connection that is gone from those that are kept."""
        if connection.user is None and connection in self._idle:
            self._idle.remove(connection)

    def sweep(self, now_s: float) -> None:
        """Close what has not been used for too long; the oldest come first."""
        while self._idle and now_s - self._idle[0].idle_since_s > self._timeouts.upstream_idle_s:
            self._idle[0].abort()

    def close(self) -> None:
        """Close everything that is not in use."""
        self._closed = True
        for task in self._connecting:
            task.cancel()
        for connection in list(self._idle):
            connection.abort()


class _NoTransport(asyncio.Transport):
    """Stands where no connection has been made yet."""

    def abort(self) -> None:
        """There is nothing to abort."""

    def is_closing(self) -> bool:
        """Nothing can be written."""
        return True


_NO_TRANSPORT: Final = _NoTransport()
