"""Why the engine grants nothing for now, and when it tries again.

An engine is ill from the moment when its journal fails, or a decision could not be carried out, until something is
durable again. What is due waits for a while after each failure, longer each time: a journal that fails at once would
otherwise be asked without end. One that is full still takes what only takes away.
"""

from typing import Final

from aipaging.core.foundation.errors import AipagingError, Who
from aipaging.core.foundation.time import BootUs, Now

RECOVER_MS: Final = 2_000
"""How often a journal that failed is tried again: each try reads it back."""

PAUSE_MS_MIN: Final = 20
"""How long what is due waits after a failed append; twice as long after the next, and at most as long as a recovery."""


class Illness:
    """What keeps one engine from granting.

    Attributes:
        reason: In a sentence; empty while it is well.
        restrictive_only: Whether the journal takes only what takes away.
        retry_us: When the journal is tried again.
    """

    def __init__(self) -> None:
        self.reason = ""
        self.restrictive_only = False
        self.retry_us = BootUs(0)
        self._pause_ms = 0
        self._pause_us = BootUs(0)
        self._bug: AipagingError | None = None

    def broken(self, error: Exception, now: Now) -> None:
        """Note that a decision could not be carried out: half of it may be applied."""
        self._bug = AipagingError(str(error), code="ENGINE_BROKEN", who=Who.BUG)
        self.reason = "a decision could not be carried out: this is a bug"
        self._pause_us = now.after(PAUSE_MS_MIN * 1000)

    def met_bug(self) -> AipagingError | None:
        """Return, once, the bug that was met and has had no consequence yet."""
        bug, self._bug = self._bug, None
        return bug

    def failed(self, error: AipagingError, now: Now) -> None:
        """Note that the journal did not take records."""
        self.reason = f"the journal cannot be written: {error.message}"
        self.restrictive_only = error.code == "JOURNAL_FULL"
        if self.retry_us <= now.boot_us:
            self.retry_us = now.after(RECOVER_MS * 1000)

    def pause(self, now: Now) -> None:
        """Let what is due wait, twice as long as after the last failure."""
        self._pause_ms = min(max(2 * self._pause_ms, PAUSE_MS_MIN), RECOVER_MS)
        self._pause_us = now.after(self._pause_ms * 1000)

    def pausing(self, now: Now) -> bool:
        """Tell whether what is due waits."""
        return self._pause_us > now.boot_us

    def durable(self, *, restrictive: bool) -> None:
        """Note that the journal took records: all kinds of them, or those that only take away."""
        self._pause_ms = 0
        if not restrictive:
            self.reason = ""

    def due_us(self, when_us: BootUs | None) -> BootUs | None:
        """Return when that is done which is due at `when_us`: while ill, not before the pause is over."""
        return when_us if when_us is None or not self.reason else max(when_us, self._pause_us)

    def looked_at_us(self, when_us: BootUs | None) -> BootUs | None:
        """Return when to look again, for what is due then or for a journal that may take records again."""
        if not self.reason:
            return when_us
        return self.retry_us if when_us is None else min(when_us, self.retry_us)

    def retrying(self, now: Now) -> bool:
        """Tell, once in each period, that it is time to try the journal with records of every kind."""
        if now.boot_us < self.retry_us:
            return False
        self.retry_us = now.after(RECOVER_MS * 1000)
        self.restrictive_only = False
        return True
