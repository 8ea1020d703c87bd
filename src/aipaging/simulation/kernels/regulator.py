"""A leaky bucket at the entrance of a tenant: it drops what does not conform, or holds it until it does."""

import math
from typing import Final

from aipaging.simulation.kernels.compiled import compiled
from aipaging.simulation.kernels.streams import Floats

TOKENS: Final = 0
INSTANT: Final = 1
RATE: Final = 2
BURST: Final = 3


@compiled
def police(cells: Floats, first: int, last: int, bucket: Floats) -> None:
    """Lose the packets for which there are not enough tokens; `bucket` holds tokens, instant, rate, burst."""
    for j in range(first, last):
        arrival = cells[0, j]
        tokens = min(bucket[TOKENS] + (arrival - bucket[INSTANT]) * bucket[RATE], bucket[BURST])
        bucket[INSTANT] = arrival
        if cells[1, j] <= tokens:
            tokens -= cells[1, j]
        else:
            cells[0, j] = math.nan
        bucket[TOKENS] = tokens


@compiled
def shape(cells: Floats, first: int, last: int, bucket: Floats) -> None:
    """Hold packets until there are enough tokens; one that is larger than the burst waits for a full bucket."""
    for j in range(first, last):
        arrival = max(cells[0, j], bucket[INSTANT])
        tokens = min(bucket[TOKENS] + (arrival - bucket[INSTANT]) * bucket[RATE], bucket[BURST])
        missing = max(min(cells[1, j], bucket[BURST]) - tokens, 0.0)
        release = arrival + missing / bucket[RATE]
        bucket[TOKENS] = tokens + missing - cells[1, j]
        bucket[INSTANT] = release
        cells[0, j] = release
