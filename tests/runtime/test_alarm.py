"""When the loop looks at its clocks again, on a clock that stands still until it is moved."""

import asyncio

import pytest
import pytest_asyncio

from aipaging.core.foundation.time import MS, BootUs, Now, WallUs
from aipaging.runtime.alarm import LOOK_MS_MAX, LOOKS_OF_LOST, PAUSE_OF_LOST, SUSPEND_MS, Alarm

START_US = 1_000_000
LOST_MS = 3_000
LATER_US = BootUs(START_US + 400 * MS)


class StillClock:
    def __init__(self) -> None:
        self.boot_us = START_US
        self.suspended_us = 0

    def now(self) -> Now:
        return Now(boot_us=BootUs(self.boot_us), wall_us=WallUs(self.boot_us))

    def slept_us(self) -> int:
        return self.suspended_us


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest_asyncio.fixture(autouse=True)
async def timers(monkeypatch: pytest.MonkeyPatch) -> StillClock:
    """Let the timers of the loop stand still as well: a busy machine wakes nobody."""
    its_own = StillClock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: its_own.boot_us / 1e6)
    return its_own


async def asleep(alarm: Alarm, when_us: BootUs | None, lost_ms: int = LOST_MS) -> "asyncio.Task[None]":
    """Return who sleeps by this alarm, once it does."""
    sleeping = asyncio.create_task(alarm.sleep(when_us, lost_ms))
    for _ in range(3):
        await asyncio.sleep(0)
    return sleeping


async def woken(sleeping: "asyncio.Task[None]") -> bool:
    """Tell whether it goes on at once; it is sent home otherwise."""
    for _ in range(3):
        await asyncio.sleep(0)
    if sleeping.done():
        return True
    sleeping.cancel()
    await asyncio.gather(sleeping, return_exceptions=True)
    return False


@pytest.mark.parametrize(
    ("due_in_us", "lost_ms", "sleeps_ms"),
    [
        (400 * MS, LOST_MS, 400),
        (399 * MS + 1, LOST_MS, 400),  # whole milliseconds, not too few
        (3_600_000 * MS, LOST_MS, 500),
        (3_600_000 * MS, 60_000, LOOK_MS_MAX),
        (None, 600, 600 // LOOKS_OF_LOST),
        (None, 60_000, LOOK_MS_MAX),
    ],
)
async def test_it_sleeps_until_something_is_due_and_no_longer_than_is_safe(
    clock: StillClock, timers: StillClock, due_in_us: int | None, lost_ms: int, sleeps_ms: int
) -> None:
    alarm = Alarm(clock)
    when_us = None if due_in_us is None else BootUs(START_US + due_in_us)
    sleeping = await asleep(alarm, when_us, lost_ms)
    assert alarm.back_us == START_US + sleeps_ms * MS
    timers.boot_us += sleeps_ms * MS - MS // 2
    await asyncio.sleep(0)
    assert not sleeping.done()
    timers.boot_us += MS // 2
    await sleeping


@pytest.mark.parametrize("late_us", [0, 1, 999, 1_000, 10_000_000])
async def test_what_is_due_already_lets_nobody_sleep(clock: StillClock, late_us: int) -> None:
    assert await woken(await asleep(Alarm(clock), BootUs(START_US - late_us)))


@pytest.mark.parametrize(
    ("when_us", "wakes"),
    [
        (LATER_US, False),
        (BootUs(LATER_US + 1), False),
        (BootUs(LATER_US - 1), True),
        (BootUs(0), True),
        (None, False),
    ],
)
async def test_only_what_is_due_sooner_wakes(clock: StillClock, when_us: BootUs | None, wakes: bool) -> None:
    alarm = Alarm(clock)
    sleeping = await asleep(alarm, LATER_US)
    alarm.sooner(when_us, clock.now())
    assert await woken(sleeping) is wakes


async def test_who_should_be_back_already_is_woken_by_anybody(clock: StillClock) -> None:
    """Its timer may be held up: a loop that is late is woken by what comes from outside."""
    alarm = Alarm(clock)
    sleeping = await asleep(alarm, LATER_US)
    clock.boot_us = LATER_US
    alarm.sooner(None, clock.now())
    assert await woken(sleeping)


async def test_what_rang_before_it_slept_is_not_lost(clock: StillClock) -> None:
    alarm = Alarm(clock)
    alarm.looking()
    alarm.sooner(BootUs(START_US - 1), clock.now())  # between its look at the agenda and its sleep
    assert await woken(await asleep(alarm, LATER_US))


async def test_what_rang_before_it_looked_is_heard_once(clock: StillClock) -> None:
    alarm = Alarm(clock)
    alarm.ring()
    alarm.looking()
    assert not await woken(await asleep(alarm, LATER_US))


async def test_what_rings_while_it_rests_is_not_lost(clock: StillClock, timers: StillClock) -> None:
    alarm = Alarm(clock)
    resting = asyncio.create_task(alarm.rest(2))
    await asyncio.sleep(0)
    assert alarm.back_us == START_US + 2 * MS
    alarm.sooner(BootUs(START_US), clock.now())
    await asyncio.sleep(0)
    assert not resting.done()
    timers.boot_us += 2 * MS
    await resting
    assert await woken(await asleep(alarm, LATER_US))


async def test_a_sleeper_ends_when_it_is_told_to_although_it_rings(clock: StillClock) -> None:
    alarm = Alarm(clock)
    sleeping = await asleep(alarm, LATER_US)
    alarm.ring()
    sleeping.cancel()
    await asyncio.gather(sleeping, return_exceptions=True)
    assert sleeping.cancelled()


@pytest.mark.parametrize("late_us", [0, LOST_MS * MS // PAUSE_OF_LOST - 1])
async def test_who_is_late_by_little_has_missed_nothing(clock: StillClock, late_us: int) -> None:
    alarm = Alarm(clock)
    assert not await woken(await asleep(alarm, LATER_US))
    clock.boot_us = LATER_US + late_us
    assert alarm.overslept_ms(clock.now(), LOST_MS) == 0


async def test_who_overslept_hears_of_it_once(clock: StillClock) -> None:
    alarm = Alarm(clock)
    assert not await woken(await asleep(alarm, LATER_US))
    clock.boot_us = LATER_US + LOST_MS * MS // PAUSE_OF_LOST
    assert alarm.overslept_ms(clock.now(), LOST_MS) == LOST_MS // PAUSE_OF_LOST
    assert alarm.overslept_ms(clock.now(), LOST_MS) == 0


async def test_a_suspend_is_told_once_and_small_ones_add_up(clock: StillClock) -> None:
    clock.suspended_us = 3_600_000_000  # before it was made: nobody's business
    alarm = Alarm(clock)
    told: list[bool] = []
    for _ in range(5):
        clock.suspended_us += SUSPEND_MS * MS // 2
        told += [alarm.suspended()]
    assert told == [False, False, True, False, False]
