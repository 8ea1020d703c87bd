"""True time, and nodes whose clocks differ from it.

Everything that happens is an entry of one agenda, in the order of true time and then of arrival: one seed, one run.
A node is a process on a machine. Its boot clock runs at a rate of its own; its wall clock also jumps; its monotonic
clock stands still while the machine is suspended. What falls due at a node that is stopped waits until it goes on;
what falls due at a process that has died is forgotten.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from aipaging.core.foundation.time import PPM, SECOND, BootUs, Now, WallUs

WALL_START_US: Final = 1_800_000_000 * SECOND
"""When simulated runs begin on the wall clock: 2027, after the epoch that terms are counted from."""

AGENDA_MAX: Final = 20_000_000
"""Entries of one run: more means that something asks itself for ever."""

Action = Callable[..., None]


class Agenda:
    """What happens next, in true microseconds.

    Attributes:
        us: The present instant, in true time.
        dice: Everything random of the run.
        reached: How often what kind of fault really met something.
    """

    __slots__ = ("_count", "_entries", "dice", "reached", "us")

    def __init__(self, seed: int) -> None:
        self.us = 0
        self.dice = random.Random(seed)  # noqa: S311 - runs are to be repeated, they hold no secrets
        self.reached: Counter[str] = Counter()
        self._entries: list[tuple[int, int, Action, tuple[Any, ...]]] = []
        self._count = 0

    def at(self, us: int, action: Action, *arguments: Any) -> None:
        """Have something happen at an instant, not before now."""
        self._count += 1
        heapq.heappush(self._entries, (max(us, self.us), self._count, action, arguments))

    def run(self, until_us: int) -> None:
        """Let everything happen up to an instant."""
        entries = self._entries
        while entries and entries[0][0] <= until_us:
            self.us, _, action, arguments = heapq.heappop(entries)
            action(*arguments)
            if self._count > AGENDA_MAX:
                raise AssertionError(f"more than {AGENDA_MAX} entries in one run: something asks itself for ever")
        self.us = until_us

    @property
    def entries(self) -> int:
        """How many entries there have been."""
        return self._count


class NodeClock:
    """The clocks of one machine, as functions of true time.

    Attributes:
        ppm: How much faster than true time it runs; negative is slower.
        slept_us: For how long it has been suspended since it booted.
    """

    __slots__ = ("_base_boot_us", "_base_us", "_wall_offset_us", "ppm", "slept_us")

    def __init__(self, ppm: int, boot_us: int) -> None:
        self.ppm = ppm
        self.slept_us = 0
        self._base_us = 0
        self._base_boot_us = boot_us
        self._wall_offset_us = WALL_START_US - boot_us

    def boot_us(self, us: int) -> BootUs:
        """Return the boot clock at a true instant."""
        passed_us = us - self._base_us
        return BootUs(self._base_boot_us + passed_us + passed_us * self.ppm // PPM)

    def wall_us(self, us: int) -> WallUs:
        """Return the wall clock at a true instant."""
        return WallUs(self.boot_us(us) + self._wall_offset_us)

    def true_us(self, boot_us: int) -> int:
        """Return the first true instant at which the boot clock shows at least `boot_us`."""
        ahead_us = boot_us - self._base_boot_us
        return self._base_us + -(-ahead_us * PPM // (PPM + self.ppm))

    def jump(self, by_us: int) -> None:
        """Step the wall clock."""
        self._wall_offset_us += by_us

    def reboot(self, us: int, boot_us: int) -> None:
        """Begin a new boot; the wall clock goes on."""
        wall_us = self.wall_us(us)
        self._base_us, self._base_boot_us = us, boot_us
        self._wall_offset_us = wall_us - boot_us
        self.slept_us = 0


class Node:
    """A process on a machine of its own.

    Attributes:
        name: What it is called.
        agenda: The one agenda.
        clock: Its machine's clocks.
        up: Whether the process runs.
        life: Rises with every start: what was meant for an earlier life is forgotten.
        stopped_us: When it last stopped.
        stopped_until_us: Until when the machine is suspended or the process paused.
    """

    def __init__(self, name: str, agenda: Agenda, clock: NodeClock) -> None:
        self.name = name
        self.agenda = agenda
        self.clock = clock
        self.up = True
        self.life = 1
        self.stopped_us = 0
        self.stopped_until_us = 0

    @property
    def boot_us(self) -> BootUs:
        """The boot clock now."""
        return self.clock.boot_us(self.agenda.us)

    def now(self) -> Now:
        """Return the present instant on this machine's clocks."""
        us = self.agenda.us
        return Now(boot_us=self.clock.boot_us(us), wall_us=self.clock.wall_us(us))

    def after(self, wait_us: int, action: Action, *arguments: Any) -> None:
        """Do something in this life after a while of true time."""
        self.agenda.at(self.agenda.us + wait_us, self.fire, self.life, action, arguments)

    def when(self, boot_us: int, action: Action, *arguments: Any) -> None:
        """Do something in this life when the boot clock shows an instant."""
        self.agenda.at(self.clock.true_us(boot_us), self.fire, self.life, action, arguments)

    def fire(self, life: int, action: Action, arguments: tuple[Any, ...]) -> None:
        """Do what is due, unless this life is over; later, if the node is stopped."""
        if life != self.life or not self.up:
            return
        if self.stopped_until_us > self.agenda.us:
            self.agenda.at(self.stopped_until_us, self.fire, life, action, arguments)
            return
        action(*arguments)

    def stop(self, for_us: int, *, suspended: bool) -> None:
        """Stop for a while; a suspended machine's monotonic clock stands still meanwhile."""
        if not self.up or self.stopped_until_us > self.agenda.us:
            return
        self.agenda.reached["suspended" if suspended else "paused"] += 1
        self.stopped_us, self.stopped_until_us = self.agenda.us, self.agenda.us + for_us
        if suspended:
            before_us = self.boot_us
            self.clock.slept_us += self.clock.boot_us(self.stopped_until_us) - before_us
        # Scheduled now, so that it comes before all that has been waiting.
        self.agenda.at(self.stopped_until_us, self.fire, self.life, self.resumed, ())

    def resumed(self) -> None:
        """Go on after a stop."""

    def die(self) -> None:
        """End this life."""
        self.up = False
        self.life += 1
        self.stopped_until_us = 0
