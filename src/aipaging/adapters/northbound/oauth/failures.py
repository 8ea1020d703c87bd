"""Failed authentications, counted: who fails too often is told to wait, and nobody else is.

What is proved by a right secret or key always passes: secrets here cannot be guessed, so the limit is against load and
noise, and must not become a way to lock others out.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from aipaging.core.foundation.errors import RefusedError
from aipaging.core.foundation.time import SECOND, WallUs

FAILURES_MAX: Final = 20
"""In one window, from one address or for one client from one address: more than any mistake repeats itself."""

WINDOW_S: Final = 60

WATCHED_MAX: Final = 4096
"""Who is watched at most, about 0.5 MB; the one seen first is forgotten first."""


class TooManyFailuresError(RefusedError):
    """Refused because of earlier failures.

    Attributes:
        retry_after_s: When to try again.
    """

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(
            f"authentication failed more than {FAILURES_MAX} times within {WINDOW_S} s: wait {retry_after_s} s",
            code="TOO_MANY_REQUESTS",
        )
        self.retry_after_s = retry_after_s


class Failures:
    """Counts failures in fixed windows."""

    def __init__(self, clock: Callable[[], WallUs]) -> None:
        self._clock = clock
        self._seen: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()

    def note(self, address: str, client: str = "") -> None:
        """Take note of one failure.

        Raises:
            TooManyFailuresError: It was one too many, for this client or from this address.
        """
        waits = [self._noted(key) for key in dict.fromkeys(((address, ""), (address, client[:64])))]
        if max(waits) > 0:
            raise TooManyFailuresError(max(waits))

    def _noted(self, key: tuple[str, str]) -> int:
        now_us = self._clock()
        began_us, count = self._seen.pop(key, (now_us, 0))
        if not 0 <= now_us - began_us < WINDOW_S * SECOND:
            began_us, count = now_us, 0
        self._seen[key] = (began_us, count + 1)
        while len(self._seen) > WATCHED_MAX:
            self._seen.popitem(last=False)
        return 0 if count < FAILURES_MAX else max(1, -(-(began_us + WINDOW_S * SECOND - now_us) // SECOND))
