"""When the engine looks at its clocks again, and what it finds when it does: that it overslept, or the machine slept.

A loop sleeps until something is due, until it is told that something is due sooner, or for a limited time: what wakes
it may be held up, and a clock of the kernel's may stand still.
"""

import asyncio
import contextlib
from typing import Final

from aipaging.core.foundation.time import BootUs, Now
from aipaging.runtime.clock import Clock

LOOK_MS_MAX: Final = 1_000
LOOKS_OF_LOST: Final = 6
"""The loop sleeps no longer, and no longer than this part of the time after which anchors are LOST."""

PAUSE_OF_LOST: Final = 3
"""Who overslept by this part of that time has missed a heartbeat of each anchor."""

SUSPEND_MS: Final = 100
"""Boot and monotonic clock apart by more since last looked at: the machine slept (their reading is not atomic)."""


class Alarm:
    """Wakes one loop.

    Attributes:
        back_us: When the loop meant to be back at the latest.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._slept_us = clock.slept_us()
        self._changed = asyncio.Event()
        self.back_us = clock.now().boot_us

    def sooner(self, when_us: BootUs | None, now: Now) -> None:
        """Let the loop look again where it would sleep too long for what is due at `when_us`."""
        if self.back_us <= now.boot_us or (when_us is not None and when_us < self.back_us):
            self.ring()

    def ring(self) -> None:
        """Let the loop look again at once."""
        self._changed.set()

    async def rest(self, milliseconds: int) -> None:
        """Sleep for so long, whatever is due."""
        self.back_us = self._clock.now().after(milliseconds * 1000)
        await asyncio.sleep(milliseconds / 1000)

    async def sleep(self, when_us: BootUs | None, lost_ms: int) -> None:
        """Sleep until something is due, and no longer than it is safe not to look.

        Args:
            when_us: When it is due, if anything is.
            lost_ms: After how long without a heartbeat anchors are LOST.
        """
        now = self._clock.now()
        wait_s = min(LOOK_MS_MAX, lost_ms / LOOKS_OF_LOST) / 1000
        if when_us is not None:
            # Whole milliseconds, as loops count: who sleeps less wakes too early, again and again.
            wait_s = min(wait_s, -(-(when_us - now.boot_us) // 1_000) / 1_000)
        self.back_us = now.after(int(wait_s * 1_000_000))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):  # `wait_for` of 3.11 may lose the end of this task
                await self._changed.wait()

    def looking(self) -> None:
        """Note that the loop looks now: what rang before has been heard."""
        self._changed.clear()

    def overslept_ms(self, now: Now, lost_ms: int) -> int:
        """Return by how much the loop overslept, once, if by so much that heartbeats were missed; else 0."""
        late_us = now.boot_us - self.back_us
        if late_us * PAUSE_OF_LOST < lost_ms * 1000:
            return 0
        self.back_us = now.boot_us
        return late_us // 1000

    def suspended(self) -> bool:
        """Tell, once, that the machine was suspended since this was last asked."""
        slept_us = self._clock.slept_us()
        if slept_us - self._slept_us <= SUSPEND_MS * 1000:
            return False
        self._slept_us = slept_us
        return True
