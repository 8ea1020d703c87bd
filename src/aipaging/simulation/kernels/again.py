"""Service that ends in an error: the packet asks again, in the row of its next attempt."""

import math
from typing import Final

from aipaging.simulation.kernels.compiled import compiled
from aipaging.simulation.kernels.streams import Floats, Integers, Words, uniform

# What `terms` holds: probability of an error, wait before the next attempt, tenants (rows of one attempt).
ERROR: Final = 0
BACKOFF: Final = 1
TENANTS: Final = 2


@compiled
def failed(
    rows: tuple[Floats, Integers, Integers], at: tuple[int, int], instant: float, terms: Floats, dice: Words
) -> int:
    """Decide whether the service of a packet that ends at an instant fails.

    A packet that asks again moves to the row of its next attempt and leaves a departure of minus infinity behind; one
    that has no attempt left is lost (NaN).

    Args:
        rows: Cells, counts, and how many of each row are decided; rows of the first attempt of all tenants come first.
        at: Row and place of the packet; its work must be what it brought.
        instant: The end of the service.
        terms: Probability of an error, backoff, tenants.
        dice: The random stream.

    Returns:
        The row it moved to, -1 if it did not fail, -2 if it is lost.
    """
    cells, counts, done = rows
    row, j = at
    if terms[ERROR] <= 0.0 or uniform(dice) >= terms[ERROR]:
        return -1
    target = row + int(terms[TENANTS])
    if target >= cells.shape[0]:
        cells[row, 0, j] = math.nan
        return -2
    again = instant + terms[BACKOFF]
    place = counts[target]
    while place > done[target] and cells[target, 0, place - 1] > again:
        cells[target, :, place] = cells[target, :, place - 1]
        place -= 1
    cells[target, :, place] = cells[row, :, j]
    cells[target, 0, place] = again
    counts[target] += 1
    cells[row, 0, j] = -math.inf
    return target
