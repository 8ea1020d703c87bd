"""How often each caller may ask: a token bucket each, in bounded memory."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final

from aipaging.core.foundation.errors import RefusedError

CALLERS_MAX: Final = 10_000
"""Buckets that are kept; the one that was longest not used goes first, and was full again by then or soon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """What one caller may do.

    Attributes:
        per_second: Requests that it may sustain; 0: no limit.
        burst: Requests that may come at once.
    """

    per_second: float
    burst: int


class CallerRates:
    """One token bucket for every caller.

    Attributes:
        limit: What each may do.
    """

    def __init__(self, limit: RateLimit, clock: Callable[[], float] = monotonic) -> None:
        self.limit = limit
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        """Return how many callers are remembered."""
        return len(self._buckets)

    def take(self, caller: str) -> None:
        """Take note of a request.

        Raises:
            RefusedError: The caller asks too often (`TOO_MANY_REQUESTS`); the error says when it may again.
        """
        limit, now = self.limit, self._clock()
        if not limit.per_second:
            return
        left, since = self._buckets.pop(caller, (float(limit.burst), now))
        left = min(float(limit.burst), left + (now - since) * limit.per_second)
        allowed = left >= 1.0
        self._buckets[caller] = (left - 1.0 if allowed else left, now)
        if len(self._buckets) > CALLERS_MAX:
            self._buckets.popitem(last=False)
        if not allowed:
            error = RefusedError(
                f"{caller} asks more often than {limit.per_second:g} times a second (at most {limit.burst} at once)",
                code="TOO_MANY_REQUESTS",
            )
            error.retry_after_s = max(1, int((1.0 - left) / limit.per_second) + 1)
            raise error
