"""Time that passes only when a test says so."""

from aipaging.core.foundation.time import MS, BootUs, Now, WallUs


class VirtualClock:
    """A boot clock and a wall clock that move together, or apart when a test steps the wall clock.

    An instance is called to read it: `clock() -> Now`.
    """

    def __init__(self, *, boot_us: int = 1_000_000, wall_us: int = 1_790_000_000_000_000) -> None:
        self.boot_us = boot_us
        self.wall_us = wall_us

    def __call__(self) -> Now:
        """Return the present instant."""
        return Now(boot_us=BootUs(self.boot_us), wall_us=WallUs(self.wall_us))

    def advance_ms(self, duration_ms: float) -> None:
        """Let time pass on both clocks."""
        self.boot_us += int(duration_ms * MS)
        self.wall_us += int(duration_ms * MS)

    def step_wall_ms(self, duration_ms: float) -> None:
        """Step the wall clock alone, as a correction of NTP or an operator would."""
        self.wall_us += int(duration_ms * MS)
