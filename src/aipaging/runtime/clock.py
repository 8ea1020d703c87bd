"""The one place that reads clocks."""

import time
from typing import Protocol

from aipaging.core.foundation.time import BootUs, Now, WallUs


class Clock(Protocol):
    """Says what time it is."""

    def now(self) -> Now:
        """Return the instant on the boot clock and on the wall clock."""
        ...

    def slept_us(self) -> int:
        """Return for how long this machine has been suspended since it booted."""
        ...


class SystemClock:
    """The kernel's clocks: CLOCK_BOOTTIME counts suspend, CLOCK_MONOTONIC does not."""

    def now(self) -> Now:
        """Return the instant on the boot clock and on the wall clock."""
        boot_us = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
        return Now(boot_us=BootUs(boot_us), wall_us=WallUs(time.time_ns() // 1000))

    def slept_us(self) -> int:
        """Return for how long this machine has been suspended since it booted."""
        return (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)) // 1000
