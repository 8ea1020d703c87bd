"""Reserved rates as fluid processor sharing (GPS), exactly: whoever waits has at least its reserved rate.

Capacity that no one waits for is shared in proportion to the reservations. Since the fluid is simulated, not a packet
approximation of it, a tenant never leaves later than from a server of its reserved rate alone, path by path.
Referred to as GPS in Parekh and Gallager, "A generalized processor sharing approach to flow control" (1993).
"""

import math
from typing import Final

from aipaging.simulation.kernels.compiled import compiled
from aipaging.simulation.kernels.streams import Floats, Integers

# What `clock` holds.
INSTANT: Final = 0
VIRTUAL: Final = 1
RATE: Final = 2
LATENCY: Final = 3


@compiled
def shared(cells: Floats, counts: Integers, done: Integers, flows: Floats, clock: Floats, horizon: float) -> None:
    """Serve the heads of all rows at once, each at its weight's share of the rate.

    Args:
        cells: The rows.
        counts: How many packets each row has.
        done: How many of them are through.
        flows: Per row the weight, and the virtual instant at which its head is through (infinity: nothing waits).
        clock: Instant so far, virtual time, rate, latency.
        horizon: How far to go.
    """
    while True:
        busy, arriving, leaving = _next(cells, counts, done, flows)
        arrival, departure = math.inf, math.inf
        if arriving >= 0:
            arrival = max(cells[arriving, 0, done[arriving]], clock[INSTANT])
        if leaving >= 0:
            departure = clock[INSTANT] + max(flows[1, leaving] - clock[VIRTUAL], 0.0) * busy / clock[RATE]
        instant = min(arrival, departure)
        if instant > horizon or instant == math.inf:
            break
        if departure <= arrival:
            clock[VIRTUAL] = flows[1, leaving]
            clock[INSTANT] = departure
            _leave(cells, counts, done, flows, clock, leaving)
        else:
            _advance(clock, arrival, busy)
            flows[1, arriving] = clock[VIRTUAL] + cells[arriving, 1, done[arriving]] / flows[0, arriving]
    if horizon < math.inf:
        _advance(clock, horizon, busy)


@compiled
def _next(cells: Floats, counts: Integers, done: Integers, flows: Floats) -> tuple[float, int, int]:
    """Return the weight of those who wait, the row that the next packet wakes, and the row that it leaves next."""
    busy = 0.0
    arriving, leaving = -1, -1
    first = math.inf
    for row in range(counts.shape[0]):
        if flows[1, row] < math.inf:
            busy += flows[0, row]
            if leaving < 0 or flows[1, row] < flows[1, leaving]:
                leaving = row
        elif done[row] < counts[row] and cells[row, 0, done[row]] < first:
            first = cells[row, 0, done[row]]
            arriving = row
    return busy, arriving, leaving


@compiled
def _advance(clock: Floats, instant: float, busy: float) -> None:
    if busy > 0.0:
        clock[VIRTUAL] += (instant - clock[INSTANT]) * clock[RATE] / busy
    else:
        clock[VIRTUAL] = 0.0  # nothing waits: no tag refers to it, and a small number loses no digits
    clock[INSTANT] = instant


@compiled
def _leave(cells: Floats, counts: Integers, done: Integers, flows: Floats, clock: Floats, row: int) -> None:
    j = done[row]
    cells[row, 0, j] = clock[INSTANT] + clock[LATENCY]
    done[row] = j + 1
    following = j + 1
    if following < counts[row] and cells[row, 0, following] <= clock[INSTANT]:
        flows[1, row] += cells[row, 1, following] / flows[0, row]
    else:
        flows[1, row] = math.inf
