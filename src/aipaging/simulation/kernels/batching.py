"""A server of a language model with continuous batching: slots, iterations, prefill.

Work is the number of tokens to generate. At the end of every iteration waiting requests take free slots in the order of
their arrivals; every request that holds a slot gets one token per iteration. An iteration takes
`iteration_ms + per_slot_ms * (slots in use) + prefill_ms * (requests just admitted) + prefill_ms_per_token * (tokens of
their prompts)`.
"""

import math
from typing import Final

from aipaging.simulation.kernels.again import failed
from aipaging.simulation.kernels.compiled import compiled
from aipaging.simulation.kernels.fifo import earliest, head, heads
from aipaging.simulation.kernels.streams import Floats, Integers, Words

# What `engine` holds.
INSTANT: Final = 0
ITERATION: Final = 1
PER_SLOT: Final = 2
PREFILL: Final = 3
LATENCY: Final = 4
PER_PROMPT_TOKEN: Final = 5

# What a slot holds, per row of `slots`: tokens left (0: free), row and place of its packet.
LEFT: Final = 0
ROW: Final = 1
PLACE: Final = 2


@compiled
def batched(
    rows: tuple[Floats, Integers, Integers], slots: Floats, engine: Floats, terms: Floats, dice: Words, horizon: float
) -> None:
    """Run iterations whose start is not after the horizon; stretches without a change are taken in one step.

    Args:
        rows: Cells (a packet whose departure is not known yet keeps its arrival and a negative amount of work), counts,
            and how many of each row have been given a slot; with errors a row per attempt and tenant.
        slots: Tokens left, row and place of each slot's packet.
        engine: Instant so far, iteration time, time per slot, time per prefill, latency, time per token of a prompt.
        terms: See `again.failed`.
        dice: The random stream of the errors.
        horizon: How far to go.
    """
    cells, counts, taken = rows
    upcoming = heads(cells, counts, taken)
    while True:
        used = _used(slots)
        first = upcoming[earliest(upcoming)]
        begin = max(engine[INSTANT], first) if used == 0 else engine[INSTANT]
        if begin > horizon or begin == math.inf:
            break
        engine[INSTANT] = begin
        prefill = _admit(rows, slots, upcoming, engine)
        engine[INSTANT] += engine[ITERATION] + engine[PER_SLOT] * _used(slots) + prefill
        if _generate(rows, slots, engine, 1.0, terms, dice):
            upcoming = heads(cells, counts, taken)
        step = engine[ITERATION] + engine[PER_SLOT] * _used(slots)
        more = _unchanged(slots, upcoming[earliest(upcoming)], engine[INSTANT], step, horizon)
        if more > 0.0:
            engine[INSTANT] += more * step
            _generate(rows, slots, engine, more, terms, dice)


@compiled
def _used(slots: Floats) -> int:
    used = 0
    for slot in range(slots.shape[1]):
        used += slots[LEFT, slot] > 0.0
    return used


@compiled
def _admit(rows: tuple[Floats, Integers, Integers], slots: Floats, upcoming: Floats, engine: Floats) -> float:
    """Give free slots to waiting requests; returns the time that their prompts take."""
    cells, counts, taken = rows
    prefill = 0.0
    for slot in range(slots.shape[1]):
        if slots[LEFT, slot] > 0.0:
            continue
        row = earliest(upcoming)
        if upcoming[row] > engine[INSTANT]:
            break
        j = taken[row]
        prefill += engine[PREFILL]
        if engine[PER_PROMPT_TOKEN] > 0.0:
            prefill += engine[PER_PROMPT_TOKEN] * cells[row, 3, j]
        slots[LEFT, slot] = max(math.ceil(cells[row, 1, j]), 1.0)
        slots[ROW, slot] = row
        slots[PLACE, slot] = j
        cells[row, 1, j] = -cells[row, 1, j] - 1.0
        taken[row] = j + 1
        upcoming[row] = head(cells, counts, taken, row)
    return prefill


@compiled
def _generate(
    rows: tuple[Floats, Integers, Integers], slots: Floats, engine: Floats, tokens: float, terms: Floats, dice: Words
) -> bool:
    """Give tokens to every slot in use; returns whether a request asks again."""
    cells = rows[0]
    again = False
    for slot in range(slots.shape[1]):
        if slots[LEFT, slot] > 0.0:
            slots[LEFT, slot] -= tokens
            if slots[LEFT, slot] <= 0.0:
                row, j = int(slots[ROW, slot]), int(slots[PLACE, slot])
                cells[row, 1, j] = -cells[row, 1, j] - 1.0
                moved = failed(rows, (row, j), engine[INSTANT], terms, dice)
                again = again or moved >= 0
                if moved == -1:
                    cells[row, 0, j] = engine[INSTANT] + engine[LATENCY]
    return again


@compiled
def _unchanged(slots: Floats, upcoming: float, instant: float, step: float, horizon: float) -> float:
    """Return how many iterations more are sure to begin and end with the same requests in the slots.

    None of them ends a request, none of them begins after an arrival that would get a slot, or after the horizon.
    """
    fewest = math.inf
    full = True
    for slot in range(slots.shape[1]):
        if slots[LEFT, slot] > 0.0:
            fewest = min(fewest, slots[LEFT, slot])
        else:
            full = False
    if fewest == math.inf:
        return 0.0
    until = horizon if full else min(horizon, upcoming)
    return max(min(fewest - 1.0, math.ceil((until - instant) / step)), 0.0) if until > instant else 0.0
