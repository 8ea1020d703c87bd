"""uvicorn's HTTP/1.1 protocol with bounds on what comes before an application is asked.

uvicorn waits for ever for the end of a head, and keeps all of it: a client that sends a byte a minute holds a
connection for good, and one that sends a header without end holds as much memory as it likes. Here a head has a time
and a size; a connection that says nothing at all is closed like one that is idle between requests.

It also sends the head of an answer by itself. Here it goes along with the first of its body where that follows at once:
one packet and one system call, where the client would wake up twice.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEAD_S_MAX: Final = 10.0
"""From the first byte of a head to its end; a phone on a bad link needs two round trips."""

HEAD_BYTES_MAX: Final = 65_536
"""Our own heads have two kilobytes, a token of 4 kB included."""


class _OneAnswer:
    """The transport as one answer sees it: its first bytes wait for the next, until the loop's next turn."""

    __slots__ = ("_begun", "_held", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._begun = False
        self._held = b""

    def write(self, data: bytes) -> None:
        """Send bytes, or hold them back if they are the first."""
        if not self._begun:
            self._begun, self._held = True, data
            asyncio.get_running_loop().call_soon(self._send_held)
            return
        held, self._held = self._held, b""
        self._transport.write(held + data if held else data)

    def close(self) -> None:
        """Send what is held back, then close."""
        self._send_held()
        self._transport.close()

    def is_closing(self) -> bool:
        """Tell whether the connection is being closed."""
        return self._transport.is_closing()

    def _send_held(self) -> None:
        held, self._held = self._held, b""
        if held and not self._transport.is_closing():
            self._transport.write(held)


class BoundedHeadsProtocol(HttpToolsProtocol):
    """Lets go of a connection whose next head takes too long or is too large."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head_bytes = -1  # not in a head
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request as long as for any further one."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._head_over()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to an unfinished head."""
        super().data_received(data)
        if self._head_bytes >= 0:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self._let_go()
            elif self._head_timer is None:  # most heads come whole, and never need one
                self._head_timer = self.loop.call_later(HEAD_S_MAX, self._let_go)

    def on_message_begin(self) -> None:
        """Begin to count."""
        super().on_message_begin()
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """Stop counting: the body has limits of its own."""
        self._head_over()
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.transport = _OneAnswer(self.transport)  # type: ignore[assignment]
        super()._start_asgi_task(cycle, app)

    def _head_over(self) -> None:
        self._head_bytes = -1
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _let_go(self) -> None:
        self._head_over()
        # Nothing is answered: who trickles does not read, and what was sent before has been answered already.
        self.transport.abort()
