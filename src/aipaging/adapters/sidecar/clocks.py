"""The clocks of this host."""

import time
from typing import Protocol

from aipaging.core.foundation.time import BootUs, WallUs


class Clocks(Protocol):
    """What the sidecar reads time from; tests bring their own."""

    def boot_us(self) -> BootUs:
        """Return the boot clock, which counts suspend."""
        ...

    def monotonic_us(self) -> int:
        """Return the monotonic clock, which does not."""
        ...

    def wall_us(self) -> WallUs:
        """Return the wall clock: for certificates and log lines only."""
        ...


class HostClocks:
    """The kernel's clocks."""

    def boot_us(self) -> BootUs:
        """Return CLOCK_BOOTTIME."""
        return BootUs(time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000)

    def monotonic_us(self) -> int:
        """Return CLOCK_MONOTONIC."""
        return time.monotonic_ns() // 1000

    def wall_us(self) -> WallUs:
        """Return CLOCK_REALTIME."""
        return WallUs(time.time_ns() // 1000)
