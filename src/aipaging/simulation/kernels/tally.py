"""Counting delays: an exact count at every target, and a histogram of fixed size for the quantiles.

A cell of the histogram is a power of two divided into 1,024: its width is at most 0.1 % of its value, whatever the
scale. The cell is read off the bits of the floating-point number, which costs a shift.
"""

import math
from typing import Final

from aipaging.simulation.kernels.compiled import compiled
from aipaging.simulation.kernels.streams import Floats, Integers

MANTISSA_BITS: Final = 10
SHIFT: Final = 52 - MANTISSA_BITS
EXPONENT_LOW: Final = -24
EXPONENT_HIGH: Final = 36
LOWEST: Final = (1023 + EXPONENT_LOW) << MANTISSA_BITS
CELLS: Final = (EXPONENT_HIGH - EXPONENT_LOW) << MANTISSA_BITS
"""From 0.06 ns to two years, in milliseconds; what lies outside is counted in the first or last cell."""


@compiled
def tally(delays: Floats, bits: Integers, histogram: Integers, sums: Floats) -> None:
    """Count delays.

    Args:
        delays: The delays.
        bits: The same memory as integers.
        histogram: Counts per cell.
        sums: Sum, smallest, largest.
    """
    total, smallest, largest = 0.0, sums[1], sums[2]
    last = histogram.shape[0] - 1
    for j in range(delays.shape[0]):
        delay = delays[j]
        total += delay
        smallest = min(smallest, delay)
        largest = max(largest, delay)
        cell = (bits[j] >> SHIFT) - LOWEST
        histogram[min(max(cell, 0), last)] += 1
    sums[0] += total
    sums[1] = smallest
    sums[2] = largest


@compiled
def within(cells: Floats, count: int, window: Floats, delays: Floats) -> int:
    """Write the delays of the packets that were sent within the window and arrived; returns how many.

    Args:
        cells: The row: instant of arrival (NaN: lost), work, sent.
        count: How many packets are in it.
        window: First and last instant, then the number of lost packets that were sent within it, added to.
        delays: Room for them.
    """
    written = 0
    lost = 0
    first, last = window[0], window[1]
    for j in range(count):
        sent = cells[2, j]
        if sent < first or sent > last:
            continue
        if math.isnan(cells[0, j]):
            lost += 1
        else:
            delays[written] = cells[0, j] - sent
            written += 1
    window[2] += lost
    return written


@compiled
def above(delays: Floats, targets: Floats, counts: Integers) -> None:
    """Count, for each target, the delays above it."""
    for k in range(targets.shape[0]):
        target = targets[k]
        more = 0
        for j in range(delays.shape[0]):
            more += delays[j] > target
        counts[k] += more
