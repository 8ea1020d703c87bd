"""What is kept of the packets of one tenant in one replication: counts of fixed size, however many packets."""

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from aipaging.simulation.kernels.tally import CELLS, above, tally, within

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Counted:
    """The counts of one tenant in one replication.

    Attributes:
        sent: Packets sent within the window.
        lost: Those of them that were lost.
        total_ms: Sum of the delays of the others.
        smallest_ms: The smallest delay, infinity if there is none.
        largest_ms: The largest delay, 0 if there is none.
        above: For each target, the delays above it.
        cells: The cells of the histogram that hold something.
        counts: How much.
    """

    sent: int
    lost: int
    total_ms: float
    smallest_ms: float
    largest_ms: float
    above: tuple[int, ...]
    cells: Integers
    counts: Integers


class Counter:
    """Counts the packets of one tenant that were sent within a window."""

    def __init__(self, targets_ms: tuple[float, ...], first_ms: float) -> None:
        self._window = np.array([first_ms, math.inf, 0.0])
        self._sums = np.array([0.0, math.inf, 0.0])
        self._histogram = np.zeros(CELLS, np.int64)
        self._targets = np.array(targets_ms)
        self._above = np.zeros(len(targets_ms), np.int64)
        self._sent = 0
        self._arrived = 0
        self._delays = np.empty(0)

    def close(self, last_ms: float) -> None:
        """Let the window end."""
        self._window[1] = last_ms

    def send(self, sent: Floats) -> None:
        """Count packets as sent, whenever they were sent within the window."""
        self._sent += self._inside(sent)

    def lose(self, sent: Floats) -> None:
        """Count packets as lost, given when they were sent."""
        self._window[2] += self._inside(sent)

    def arrive(self, block: Floats) -> None:
        """Count packets that reached the end of their route."""
        count = block.shape[1]
        if count > len(self._delays):
            self._delays = np.empty(2 * count)
        written = within(block, count, self._window, self._delays)
        delays = self._delays[:written]
        tally(delays, delays.view(np.int64), self._histogram, self._sums)
        above(delays, self._targets, self._above)
        self._arrived += written

    @property
    def on_their_way(self) -> int:
        """How many packets of the window are neither lost nor there."""
        return self._sent - self._arrived - int(self._window[2])

    def counted(self) -> Counted:
        """Return what was counted."""
        cells = np.flatnonzero(self._histogram)
        return Counted(
            sent=self._sent,
            lost=int(self._window[2]),
            total_ms=float(self._sums[0]),
            smallest_ms=float(self._sums[1]),
            largest_ms=float(self._sums[2]),
            above=tuple(self._above.tolist()),
            cells=cells,
            counts=self._histogram[cells],
        )

    def _inside(self, sent: Floats) -> int:
        return int(np.count_nonzero((sent >= self._window[0]) & (sent <= self._window[1])))
