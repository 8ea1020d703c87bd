"""Disciplines that choose whom to serve next and never interrupt: priority, self-clocked fair queueing, round robin."""

import math
from typing import Final

import numpy as np

from aipaging.simulation.kernels.compiled import compiled
from aipaging.simulation.kernels.fifo import earliest, head, heads
from aipaging.simulation.kernels.streams import Floats, Integers, Words, exponential, uniform

# What `server` holds: the instant from which the server is free, milliseconds per unit of work, latency, then the
# impairment (the end of the present state, whether it is bad, mean lengths good and bad, slowness when bad, loss when
# good and bad). Without an impairment the first state lasts for ever.
FREE: Final = 0
SLOWNESS: Final = 1
LATENCY: Final = 2
STATE_END: Final = 3
STATE_BAD: Final = 4
MEAN: Final = 5
SLOWNESS_BAD: Final = 7
LOSS: Final = 8
SERVER_FIELDS: Final = 10


@compiled
def priority(cells: Floats, counts: Integers, done: Integers, ranks: Integers, server: Floats, horizon: float) -> None:
    """Serve the waiting packet of the lowest rank, among equals the earliest; never interrupt one."""
    upcoming = heads(cells, counts, done)
    while True:
        start = max(server[FREE], upcoming[earliest(upcoming)])
        if start > horizon or start == math.inf:
            break
        row = -1
        for other in range(counts.shape[0]):
            if upcoming[other] <= start and (
                row < 0 or ranks[other] < ranks[row] or (ranks[other] == ranks[row] and upcoming[other] < upcoming[row])
            ):
                row = other
        j = done[row]
        server[FREE] = start + cells[row, 1, j] * server[SLOWNESS]
        cells[row, 0, j] = server[FREE] + server[LATENCY]
        done[row] = j + 1
        upcoming[row] = head(cells, counts, done, row)


@compiled
def impaired(cells: Floats, counts: Integers, done: Integers, server: Floats, dice: Words, horizon: float) -> None:
    """Serve rows in the order of their arrivals over a link that is now good, now bad, for exponential times."""
    upcoming = heads(cells, counts, done)
    while True:
        row = earliest(upcoming)
        start = max(server[FREE], upcoming[row])
        if start > horizon or start == math.inf:
            break
        j = done[row]
        server[FREE] = _through(start, cells[row, 1, j], server, dice)
        loss = server[LOSS + int(server[STATE_BAD])]
        lost = loss > 0.0 and uniform(dice) < loss
        cells[row, 0, j] = math.nan if lost else server[FREE] + server[LATENCY]
        done[row] = j + 1
        upcoming[row] = head(cells, counts, done, row)


@compiled
def _through(instant: float, work: float, server: Floats, dice: Words) -> float:
    """Return the instant at which work that starts at `instant` is through, whatever the link does meanwhile."""
    while True:
        bad = int(server[STATE_BAD])
        slowness = server[SLOWNESS_BAD] if bad else server[SLOWNESS]
        end = server[STATE_END]
        if end > instant:
            finished: float = instant + work * slowness
            if finished <= end:
                return finished
            if slowness < math.inf:
                work -= (end - instant) / slowness
            instant = end
        server[STATE_BAD] = 1 - bad
        server[STATE_END] = end + exponential(dice) * server[MEAN + 1 - bad]


@compiled
def fair(cells: Floats, counts: Integers, done: Integers, tags: Floats, server: Floats, horizon: float) -> None:
    """Serve the head packet of the smallest finishing tag (self-clocked fair queueing).

    Referred to as SCFQ in Golestani, "A self-clocked fair queueing scheme" (INFOCOM 1994): the virtual time is the tag
    of the packet in service.

    Args:
        cells: The rows.
        counts: How many packets each row has.
        done: How many of them are decided.
        tags: Per row the weight, the tag of the last packet served, the tag of the head (infinity: not yet computed).
        server: As in `priority`, and the virtual time in place of the end of the state.
        horizon: Decisions after it wait.
    """
    upcoming = heads(cells, counts, done)
    while True:
        first = upcoming[earliest(upcoming)]
        start = max(server[FREE], first)
        if start > horizon or start == math.inf:
            break
        row = -1
        for other in range(counts.shape[0]):
            if upcoming[other] > start:
                continue
            if tags[2, other] == math.inf:
                work = cells[other, 1, done[other]]
                tags[2, other] = max(tags[1, other], server[STATE_END]) + work / tags[0, other]
            if row < 0 or tags[2, other] < tags[2, row]:
                row = other
        j = done[row]
        server[STATE_END] = tags[2, row]
        tags[1, row] = tags[2, row]
        tags[2, row] = math.inf
        server[FREE] = start + cells[row, 1, j] * server[SLOWNESS]
        cells[row, 0, j] = server[FREE] + server[LATENCY]
        done[row] = j + 1
        upcoming[row] = head(cells, counts, done, row)


@compiled
def deficit_round_robin(
    cells: Floats, counts: Integers, done: Integers, turns: Floats, server: Floats, horizon: float
) -> None:
    """Serve rows in turn, each as long as its deficit lasts; a row that begins to wait goes to the end of the line.

    Referred to as DRR in Shreedhar and Varghese, "Efficient fair queueing using deficit round robin" (1995), whose
    list of active queues is the line here: a place is when the row took it and, of those that took theirs again at one
    instant, in which order.

    Args:
        cells: The rows.
        counts: How many packets each row has.
        done: How many of them are decided.
        turns: Per row the quantum, the deficit, when it took its place (infinity: it has none), and a number that
            orders those of one instant.
        server: As in `priority`; in place of the end of the state the row whose turn it is (-1: none), and then the
            last number that was given.
        horizon: Decisions after it wait.
    """
    upcoming = heads(cells, counts, done)
    row = int(server[STATE_END])
    while True:
        start = max(server[FREE], upcoming[earliest(upcoming)])
        if start > horizon or start == math.inf:
            break
        waits = row >= 0 and upcoming[row] <= server[FREE]
        if waits and cells[row, 1, done[row]] <= turns[1, row]:
            j = done[row]
            turns[1, row] -= cells[row, 1, j]
            server[FREE] += cells[row, 1, j] * server[SLOWNESS]
            cells[row, 0, j] = server[FREE] + server[LATENCY]
            done[row] = j + 1
            upcoming[row] = head(cells, counts, done, row)
            continue
        if row >= 0:
            _end_turn(turns, row, waits, server)
        server[FREE] = start
        row = _first_in_line(turns, upcoming, start)
        turns[1, row] += turns[0, row]
    server[STATE_END] = row


@compiled
def _end_turn(turns: Floats, row: int, waits: bool, server: Floats) -> None:
    """Send a row that still waits to the end of the line; one that does not loses its place and its deficit."""
    server[STATE_BAD] += 1.0
    turns[2, row] = server[FREE] if waits else math.inf
    turns[3, row] = server[STATE_BAD] if waits else 0.0
    if not waits:
        turns[1, row] = 0.0


@compiled
def _first_in_line(turns: Floats, upcoming: Floats, start: float) -> int:
    """Return the row whose turn is next; a row that began to wait took its place when its first packet came."""
    best = -1
    for row in range(upcoming.shape[0]):
        if upcoming[row] > start:
            continue
        if turns[2, row] == math.inf:
            turns[2, row] = upcoming[row]
        if best < 0 or (turns[2, row], turns[3, row]) < (turns[2, best], turns[3, best]):
            best = row
    return best


def new_server(slowness: float, latency_ms: float) -> Floats:
    """Return an idle server without an impairment."""
    server = np.zeros(SERVER_FIELDS)
    server[SLOWNESS] = slowness
    server[LATENCY] = latency_ms
    return server
