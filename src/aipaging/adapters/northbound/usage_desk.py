"""Usage, asked over HTTP: running sums that follow the log in a thread of their own.

Between questions the sums are kept near the end of the log, at half of that thread's time at most, so that a question
seldom has much to catch up on. Whoever asks is answered when everything that the journal held at that moment is in the
sums, and not before: an invoice must not be short of an hour because nobody asked for a while.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from aipaging.core.foundation.errors import AipagingError, UnavailableError
from aipaging.core.foundation.time import WallUs
from aipaging.ports.usage import UsageAccount, UsageSums

LOG: Final = logging.getLogger("aipaging.usage")

T = TypeVar("T")

FOLLOW_S: Final = 10.0
"""How often the sums are brought up to the end of the log: at 1,500 pages a second that is half a second's reading."""

CATCH_UP_S: Final = 5.0
"""How long a question waits for the sums to be brought up to date; beyond it the caller is asked to come back."""

QUESTIONS_MAX: Final = 16
"""Questions that wait for the one thread."""

RETRY_AFTER_S: Final = 10


class UsageDesk:
    """Answers what tenants used."""

    def __init__(self, account: UsageAccount) -> None:
        """Take the sums; nothing is opened yet."""
        self._account = account
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="usage")
        self._waiting = 0

    def close(self) -> None:
        """End the thread."""
        self._thread.submit(self._account.close)
        self._thread.shutdown(wait=False)

    async def between(self, from_us: WallUs, to_us: WallUs, tenant: str | None) -> UsageSums:
        """Return what was used in a period of whole quarters of an hour, by one tenant or by all.

        Raises:
            UnavailableError: The sums are too far behind the log, or cannot be read.
        """
        if self._waiting >= QUESTIONS_MAX:
            raise UnavailableError("too many questions about usage are waiting", code="OVERLOADED")
        self._waiting += 1
        try:
            async with asyncio.timeout(CATCH_UP_S):
                while await self._in_thread(self._account.take):
                    pass
                return await self._in_thread(partial(self._account.between, from_us, to_us, tenant))
        except TimeoutError:
            behind = UnavailableError("the sums of usage are being brought up to date with the evidence: ask again")
            behind.retry_after_s = RETRY_AFTER_S
            raise behind from None
        finally:
            self._waiting -= 1

    async def keep_current(self) -> None:
        """Follow the log, for as long as this runs."""
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            more = False
            try:
                more = await self._in_thread(self._account.take)
            except AipagingError as error:
                LOG.warning("usage cannot be summed", extra={"code": error.code, "reason": error.message})
            await asyncio.sleep(loop.time() - began_s if more else FOLLOW_S)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
