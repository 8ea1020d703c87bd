"""Instants and durations, as integers of microseconds with distinct types.

Leases travel as durations. Inside a node every deadline is on the boot clock (it counts suspend); the wall
clock is for people, for tokens' `exp`, and for the remaining duration of a session over a restart.
"""

from typing import Final, NewType

import msgspec

BootUs = NewType("BootUs", int)
"""An instant on this boot's clock, in microseconds; comparable only within one term of one node."""

WallUs = NewType("WallUs", int)
"""An instant on the wall clock, in microseconds since the Unix epoch."""

DurationUs = NewType("DurationUs", int)
"""A length of time in microseconds."""

MS: Final = 1_000
"""Microseconds in a millisecond."""

SECOND: Final = 1_000_000
"""Microseconds in a second."""

PPM: Final = 1_000_000
"""Parts per million: the unit of clock drift (rho in Gray and Cheriton 1989)."""


class Now(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The one instant that an operation sees."""

    boot_us: BootUs
    wall_us: WallUs

    def after(self, duration_us: int) -> BootUs:
        """Return the boot-clock instant `duration_us` from now."""
        return BootUs(self.boot_us + duration_us)


def stretched_us(duration_us: int, drift_ppm: int) -> DurationUs:
    """Return `duration_us * (1 + rho)`, rounded up: what the issuer waits for."""
    return DurationUs(duration_us + -(-duration_us * drift_ppm // PPM))


def shrunk_us(duration_us: int, drift_ppm: int) -> DurationUs:
    """Return `duration_us * (1 - rho)`, rounded down: what the holder relies on."""
    return DurationUs(duration_us - -(-duration_us * drift_ppm // PPM))
