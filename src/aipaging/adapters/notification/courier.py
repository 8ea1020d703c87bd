"""Brings events to sinks: in order for each destination, at least once, without anybody waiting for anybody.

One reader follows the log (`runtime.events`) and hands each event to the queues of the destinations that it concerns.
A destination with something in its queue has a task of its own; tasks share slots per host and per tenant, so a sink
that hangs holds up nobody but its neighbours of the same tenant. Nothing here is awaited by the engine.

Promised: an event that became durable while this or an earlier controller ran with a ledger is posted until the sink
acknowledges it, `RETRY_S_MAX` has passed, or the sink refuses for good; in the last two cases it is a dead letter. What
was posted, and not yet noted in the ledger when the controller died, is posted again with the same id.
"""

import asyncio
import contextlib
import logging
import random
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import urlsplit

from aipaging.core.foundation.errors import AipagingError
from aipaging.core.foundation.names import SessionId
from aipaging.ports.notification import DeadLetter, DeliveryLedger, Destination, Notifier
from aipaging.runtime.events.event import TYPE_PREFIX, EventId
from aipaging.runtime.events.hub import EventHub, Told

LOG: Final = logging.getLogger("aipaging.notification")

QUEUE_EVENTS_MAX: Final = 256
"""Events that wait for one destination; a session makes a dozen in its life. Beyond it: dead letters."""

WAITING_EVENTS_MAX: Final = 50_000
"""Events that wait in all: about 50 MB."""

BACKOFF_S_FIRST: Final = 0.5
BACKOFF_S_MAX: Final = 60.0
"""Full jitter below a doubling ceiling: sinks that come back are not met by all at once."""

RETRY_S_MAX: Final = 300.0
"""After so long an event is given up: less than the 360 s for which an ended session, and so its sink, is kept."""

PER_HOST_MAX: Final = 8
PER_TENANT_MAX: Final = 32
"""Attempts at a time: a hung sink holds each for ten seconds."""

SAVE_S: Final = 0.5
"""How often the ledger is written: what a crash can make arrive twice."""

AHEAD_MAX: Final = 100_000
"""Destinations whose place is remembered while an older event is still out; beyond it a restart repeats more."""


class Sinks(Protocol):
    """Says where an event goes, now."""

    def __call__(self, told: Told, /) -> Sequence[Destination]:
        """Return the destinations of an event."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CourierWork:
    """What a courier works with, beside the log.

    Attributes:
        notifier: Posts.
        ledger: Remembers.
        sinks: Where events go.
        heard: Whether anything of a session goes anywhere, or of what is no session's (None).
        source: `source` of every event.
        wall_us: Wall clock.
        clock_s: Monotonic.
        sleep: Waits; a test's passes at once.
    """

    notifier: Notifier
    ledger: DeliveryLedger
    sinks: Sinks
    heard: Callable[[SessionId | None], bool]
    source: str
    wall_us: Callable[[], int]
    clock_s: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(slots=True)
class _Letter:
    told: Told
    destination: Destination
    attempts: int = 0


class Courier:
    """One controller's notifications.

    Attributes:
        delivered: Notifications that a sink acknowledged.
        failures: Attempts that failed, by reason.
        given_up: Dead letters, by reason.
    """

    def __init__(self, hub: EventHub, work: CourierWork) -> None:
        self._hub = hub
        self._work = work
        self._dice = random.Random()  # noqa: S311 - jitter
        self._queues: dict[str, deque[_Letter]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._out: Counter[int] = Counter()
        self._ahead: OrderedDict[str, int] = OrderedDict()
        self._read_to = -1
        self._saved = -1
        self._dead: list[DeadLetter] = []
        self._gone: set[tuple[str, str]] = set()
        self._hosts: dict[str, asyncio.Semaphore] = {}
        self._tenants: dict[str, asyncio.Semaphore] = {}
        self._attempts: Counter[str] = Counter()
        self._main: list[asyncio.Task[None]] = []
        self.delivered = 0
        self.failures: Counter[str] = Counter()
        self.given_up: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        """Notifications that are not settled."""
        return self._out.total()

    @property
    def destinations(self) -> int:
        """Destinations with something that is not settled."""
        return len(self._queues)

    async def start(self) -> None:
        """Go on where the ledger says; on first use, begin with what happens from now on."""
        settled, ahead = await asyncio.to_thread(self._work.ledger.progress)
        self._ahead = OrderedDict(ahead)
        self._read_to = self._hub.end - 1 if settled is None else settled
        self._main = [asyncio.create_task(self._read()), asyncio.create_task(self._keep())]

    async def stop(self) -> None:
        """Note how far it came; what is not settled is sent after a restart."""
        for task in [*self._main, *self._tasks.values()]:
            task.cancel()
        await asyncio.gather(*self._main, *self._tasks.values(), return_exceptions=True)
        with contextlib.suppress(AipagingError):
            await self.save()

    @property
    def read_to(self) -> int:
        """The last record that was looked at."""
        return self._read_to

    # -- reading

    async def _read(self) -> None:
        while not self._hub.closed:
            try:
                await self._follow()
            except AipagingError as error:
                LOG.warning("events cannot be read", extra={"code": error.code, "reason": error.message})
                await self._work.sleep(BACKOFF_S_MAX)

    async def _follow(self) -> None:
        stream = self._hub.stream(EventId(seq=self._read_to), self._work.heard)
        async with contextlib.aclosing(stream):
            async for item in stream:
                if isinstance(item, EventId):
                    self._read_to = item.seq
                    continue
                if item.event.fields.get("reason") == "HISTORY_CHANGED":
                    self._ahead.clear()  # places of another history: a backup was restored
                for destination in self._work.sinks(item):
                    self._hand_over(_Letter(told=item, destination=destination))
                self._read_to = item.event.id.seq

    def _hand_over(self, letter: _Letter) -> None:
        key, seq = letter.destination.key, letter.told.event.id.seq
        if seq <= self._ahead.get(key, -1):
            return  # delivered before the restart
        queue = self._queues.setdefault(key, deque())
        if len(queue) >= QUEUE_EVENTS_MAX or self._out.total() >= WAITING_EVENTS_MAX:
            self._give_up(letter, "QUEUE_FULL")
            return
        queue.append(letter)
        self._out[seq] += 1
        if key not in self._tasks:
            self._tasks[key] = asyncio.get_running_loop().create_task(self._deliver(key, queue))

    # -- delivering

    async def _deliver(self, key: str, queue: deque[_Letter]) -> None:
        try:
            while queue:
                await self._settle(queue[0])
                letter = queue.popleft()
                seq = letter.told.event.id.seq
                self._note(key, seq)
                self._out[seq] -= 1
                if not self._out[seq]:
                    del self._out[seq]
        finally:
            if not queue:
                self._queues.pop(key, None)
            self._tasks.pop(key, None)

    def _note(self, key: str, seq: int) -> None:
        self._ahead[key] = seq
        self._ahead.move_to_end(key)
        while len(self._ahead) > AHEAD_MAX:
            self._ahead.popitem(last=False)

    async def _settle(self, letter: _Letter) -> None:
        """Post until it is taken or given up."""
        until_s = self._work.clock_s() + RETRY_S_MAX
        body = letter.told.event.document(self._work.source)
        ceiling_s = BACKOFF_S_FIRST
        while True:
            destination = letter.destination = self._present(letter)
            if (destination.key, destination.url) in self._gone:
                return self._give_up(letter, "SINK_GONE")
            if destination.expires_us and self._work.wall_us() >= destination.expires_us:
                return self._give_up(letter, "CREDENTIAL_EXPIRED")
            letter.attempts += 1
            async with self._slot(destination):
                taken = await self._work.notifier.post(destination, body)
            if 200 <= taken.status < 300:
                self.delivered += 1
                return None
            reason = taken.reason or f"HTTP_{taken.status}"
            self.failures[reason] += 1
            if taken.status == 410:
                self._gone.add((destination.key, destination.url))
            wait_s = max(self._dice.uniform(0.0, ceiling_s), taken.retry_after_s)
            if taken.final or self._work.clock_s() + wait_s > until_s:
                return self._give_up(letter, reason)
            await self._work.sleep(wait_s)
            ceiling_s = min(2 * ceiling_s, BACKOFF_S_MAX)

    def _present(self, letter: _Letter) -> Destination:
        """Return the destination as it is now: who corrects an address or a token wants what waits to go there."""
        key = letter.destination.key
        return next((each for each in self._work.sinks(letter.told) if each.key == key), letter.destination)

    @contextlib.asynccontextmanager
    async def _slot(self, destination: Destination) -> AsyncGenerator[None, None]:
        host = f"{destination.tenant}@{urlsplit(destination.url).netloc}"
        self._attempts[host] += 1
        hosts = self._hosts.setdefault(host, asyncio.Semaphore(PER_HOST_MAX))
        tenants = self._tenants.setdefault(destination.tenant, asyncio.Semaphore(PER_TENANT_MAX))
        try:
            async with hosts, tenants:
                yield
        finally:
            self._attempts[host] -= 1
            if not self._attempts[host]:  # there may be as many hosts as sessions
                del self._attempts[host], self._hosts[host]

    def _give_up(self, letter: _Letter, reason: str) -> None:
        event, destination = letter.told.event, letter.destination
        self.given_up[reason] += 1
        self._dead.append(
            DeadLetter(
                destination=destination.key,
                tenant=destination.tenant,
                event_id=str(event.id),
                event_type=TYPE_PREFIX + event.name,
                session=event.session,
                reason=reason,
                attempts=letter.attempts,
                wall_us=self._work.wall_us(),
            )
        )
        LOG.warning(
            "a notification was given up",
            extra={"destination": destination.key, "event": str(event.id), "session": event.session, "reason": reason},
        )

    # -- remembering

    async def _keep(self) -> None:
        while True:
            await self._work.sleep(SAVE_S)
            try:
                await self.save()
            except AipagingError as error:
                LOG.warning("the ledger cannot be written", extra={"code": error.code, "reason": error.message})
                await self._work.sleep(BACKOFF_S_MAX)

    async def save(self) -> None:
        """Write to the ledger how far it came.

        Raises:
            UnavailableError: It cannot be written; nothing is lost but time.
        """
        settled = min(self._out, default=self._read_to + 1) - 1
        if settled == self._saved and not self._dead and not self._out:
            return
        dead, self._dead = self._dead, []
        for key in [key for key, seq in self._ahead.items() if seq <= settled]:
            del self._ahead[key]
        try:
            await asyncio.to_thread(self._work.ledger.save, settled, dict(self._ahead), dead)
        except AipagingError:
            self._dead = [*dead, *self._dead]
            raise
        self._saved = settled
