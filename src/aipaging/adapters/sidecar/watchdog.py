"""What tells the service manager that a sidecar moves on, so that it ends one that stands still (`sd_notify(3)`).

A gateway does not end a request that it has sent to a sidecar which stands still: the kernel of its host goes on to
acknowledge. Only the end of the process closes its connections, and then everybody who waits is told at once. The word
comes from the loop that serves, so a loop that hangs is silent as well.
"""

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

WORDS_IN_PERIOD: Final = 3
"""One that is late, and another, end nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceManager:
    """Who started this process and wants to hear of it.

    Attributes:
        address: Of its socket; an abstract one begins with a zero byte.
        silence_s: After so long without a word it ends the process; 0: it does not.
    """

    address: str
    silence_s: float = 0.0

    @classmethod
    def of(cls, environment: Mapping[str, str], pid: int) -> Self | None:
        """Return the one that the environment names, or None: one of another process is none of ours."""
        address = environment.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return None
        ours = environment.get("WATCHDOG_PID", str(pid)) == str(pid)
        period = environment.get("WATCHDOG_USEC", "")
        silence_us = int(period) if ours and period.isdecimal() else 0
        return cls(address=address.replace("@", "\0", 1) if address[0] == "@" else address, silence_s=silence_us / 1e6)

    def say(self, state: str) -> None:
        """Say one thing, such as `READY=1`; who is not there hears nothing, and the sidecar goes on."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as said:
            said.setblocking(False)
            said.sendto(state.encode(), self.address)

    async def tell(self) -> None:
        """Say that the sidecar serves, and for ever after that it moves on, if somebody wants to hear that."""
        self.say("READY=1")
        while self.silence_s:
            self.say("WATCHDOG=1")
            await asyncio.sleep(self.silence_s / WORDS_IN_PERIOD)
