"""First in, first out: one server, several servers, finite buffers."""

import math

import numpy as np

from aipaging.simulation.kernels.again import failed
from aipaging.simulation.kernels.compiled import compiled
from aipaging.simulation.kernels.streams import Floats, Integers, Words


@compiled
def fifo_alone(cells: Floats, count: int, server: Floats, horizon: float) -> int:
    """Serve one row by Lindley's recursion; returns how many packets were decided.

    Args:
        cells: The row: instants, work, sent.
        count: How many packets are in it.
        server: The instant from which the server is free, milliseconds per unit of work, latency.
        horizon: Arrivals after it stay.
    """
    times, works = cells[0], cells[1]
    free, slowness, latency = server[0], server[1], server[2]
    done = 0
    for j in range(count):
        arrival = times[j]
        if arrival > horizon:
            break
        free = max(free, arrival) + works[j] * slowness
        times[j] = free + latency
        done += 1
    server[0] = free
    return done


@compiled
def head(cells: Floats, counts: Integers, done: Integers, row: int) -> float:
    """Return the instant of the next packet of a row, infinity where there is none."""
    j = done[row]
    return cells[row, 0, j] if j < counts[row] else math.inf


@compiled
def heads(cells: Floats, counts: Integers, done: Integers) -> Floats:
    """Return the instants of the next packets of all rows."""
    upcoming = np.empty(counts.shape[0])
    for row in range(counts.shape[0]):
        upcoming[row] = head(cells, counts, done, row)
    return upcoming


@compiled
def earliest(upcoming: Floats) -> int:
    """Return the row of the earliest packet, the lowest row of several."""
    best = 0
    for row in range(1, upcoming.shape[0]):
        if upcoming[row] < upcoming[best]:
            best = row
    return best


@compiled
def fifo_merged(cells: Floats, counts: Integers, done: Integers, server: Floats, horizon: float) -> None:
    """Serve several rows in the order of their arrivals; `server` as in `fifo_alone`."""
    upcoming = heads(cells, counts, done)
    free, slowness, latency = server[0], server[1], server[2]
    while True:
        row = earliest(upcoming)
        arrival = upcoming[row]
        if arrival > horizon or arrival == math.inf:
            break
        j = done[row]
        free = max(free, arrival) + cells[row, 1, j] * slowness
        cells[row, 0, j] = free + latency
        done[row] = j + 1
        upcoming[row] = cells[row, 0, j + 1] if j + 1 < counts[row] else math.inf
    server[0] = free


@compiled
def fifo_several(
    rows: tuple[Floats, Integers, Integers], server: Floats, room: Floats, terms: Floats, dice: Words, horizon: float
) -> None:
    """Serve rows by several servers, with or without a limit on how many packets may wait, and with errors.

    Packets start in the order of their arrivals. A packet that finds every server busy and `room.shape[0] - 1`
    packets waiting is lost; work that finds more than `server[3]` in front of it (itself included) as well.

    Args:
        rows: Cells, counts, and how many of each row are decided; with errors a row per attempt and tenant.
        server: Unused, milliseconds per unit of work, latency, most work in the system, then the instants from which
            each server is free.
        room: Position in the ring of starts, then the starts of the last packets; empty where waiting is unlimited.
        terms: See `again.failed`.
        dice: The random stream of the errors.
        horizon: Arrivals after it stay.
    """
    cells, counts, done = rows
    upcoming = heads(cells, counts, done)
    free = server[4:]
    while True:
        row = earliest(upcoming)
        arrival = upcoming[row]
        if arrival > horizon or arrival == math.inf:
            break
        j = done[row]
        work = cells[row, 1, j]
        first = earliest(free)
        if _fits(arrival, work, server, first, room):
            start = max(free[first], arrival)
            free[first] = start + work * server[1]
            moved = failed(rows, (row, j), free[first], terms, dice)
            if moved == -1:
                cells[row, 0, j] = free[first] + server[2]
            elif moved >= 0:
                upcoming[moved] = head(cells, counts, done, moved)
            _remember(room, start)
        else:
            cells[row, 0, j] = math.nan
        done[row] = j + 1
        upcoming[row] = head(cells, counts, done, row)


@compiled
def _fits(arrival: float, work: float, server: Floats, first: int, room: Floats) -> bool:
    free = server[4:]
    if server[3] < math.inf:
        ahead = 0.0
        for each in range(free.shape[0]):
            ahead += max(free[each] - arrival, 0.0)
        if ahead / server[1] + work > server[3]:
            return False
    if room.shape[0] == 0 or free[first] <= arrival:
        return True
    # Starts are in order: if the one `waiting` packets ago has happened, fewer than that many still wait.
    return room.shape[0] > 1 and bool(room[int(room[0])] <= arrival)


@compiled
def _remember(room: Floats, start: float) -> None:
    if room.shape[0] > 1:
        position = int(room[0])
        room[position] = start
        room[0] = position + 1 if position + 1 < room.shape[0] else 1
