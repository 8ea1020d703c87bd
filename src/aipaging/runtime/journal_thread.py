"""One thread that does one call after the other for a loop: where the journal is written.

An executor would do, at thirty microseconds a call: as much as writing a page's records takes.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class JournalThread:
    """Does calls in the order in which they came; the thread begins with the first."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, call: Callable[[], T]) -> T:
        """Return what a call returns, or raise what it raises."""
        return await self.begin(call)

    def begin(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Begin a call; it is done also if nobody waits for it any more."""
        if self._thread is None:
            # A daemon: a controller that ends without closing its journal ends like one that was killed.
            self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
            self._thread.start()
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._calls.put((call, answer))
        return answer

    def close(self) -> None:
        """End the thread when all its calls are done."""
        if self._thread is not None:
            self._calls.put(None)
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        while (asked := self._calls.get()) is not None:
            call, answer = asked
            result: Any = None
            raised: BaseException | None = None
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - whoever waits raises it
                raised = error
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                answer.get_loop().call_soon_threadsafe(_settle, answer, result, raised)
            del asked, call, answer, result, raised  # a batch is not kept until the next comes


def _settle(answer: "asyncio.Future[Any]", result: object, raised: BaseException | None) -> None:
    if answer.done():
        return
    if raised is None:
        answer.set_result(result)
    else:
        answer.set_exception(raised)
