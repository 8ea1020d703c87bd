"""Instants at which packets are sent: each kernel fills `times` up to a horizon and says how many it wrote.

A full array ends a call early; `progress` holds where to go on.
"""

from aipaging.simulation.kernels.compiled import compiled
from aipaging.simulation.kernels.streams import Floats, Words, exponential, uniform


@compiled
def poisson(state: Words, gap: float, progress: Floats, horizon: float, times: Floats) -> int:
    """Write Poisson arrivals; `progress[0]` is the next instant."""
    instant = progress[0]
    count = 0
    room = times.shape[0]
    while instant <= horizon and count < room:
        times[count] = instant
        count += 1
        instant += gap * exponential(state)
    progress[0] = instant
    return count


@compiled
def periodic(gap: float, progress: Floats, horizon: float, times: Floats) -> int:
    """Write arrivals `gap` apart; `progress[0]` is the phase, `progress[1]` the number of the next packet."""
    number = progress[1]
    count = 0
    instant = progress[0] + number * gap
    while instant <= horizon and count < times.shape[0]:
        times[count] = instant
        count += 1
        number += 1.0
        instant = progress[0] + number * gap
    progress[1] = number
    return count


@compiled
def modulator_path(state: Words, jumps: Floats, progress: Floats, horizon: float, path: Floats) -> int:
    """Write the segments of a Markov chain as (end, mode); the last one ends at or after the horizon.

    Args:
        state: The random stream.
        jumps: Rates `jumps[i, j]` of jumps from mode i to mode j.
        progress: The end of the segment that is under way, and its mode.
        horizon: How far to go.
        path: Room for `path[0]` (ends) and `path[1]` (modes).
    """
    end, mode = progress[0], int(progress[1])
    path[0, 0] = end
    path[1, 0] = mode
    count = 1
    while end <= horizon and count < path.shape[1]:
        mode = pick(uniform(state), jumps[mode])
        end += exponential(state) / jumps[mode].sum()
        path[0, count] = end
        path[1, count] = mode
        count += 1
    progress[0] = end
    progress[1] = mode
    return count


@compiled
def pick(draw: float, rates: Floats) -> int:
    """Return a place with a probability in proportion to its rate, given a number of [0, 1)."""
    left = draw * rates.sum()
    other = 0
    while other + 1 < rates.shape[0] and left >= rates[other]:
        left -= rates[other]
        other += 1
    return other


@compiled
def modulated(state: Words, path: Floats, rates: Floats, progress: Floats, times: Floats) -> int:
    """Write Poisson arrivals whose rate follows a path.

    Args:
        state: The random stream.
        path: Ends and modes of the segments, from the one that is under way.
        rates: Arrivals per millisecond in each mode.
        progress: Instant so far, exponential mass left until the next arrival, horizon, segment to go on with.
        times: Room for the instants.
    """
    instant, left, horizon = progress[0], progress[1], progress[2]
    segment = int(progress[3])
    count = 0
    while segment < path.shape[1] and count < times.shape[0]:
        rate = rates[int(path[1, segment])]
        end = min(path[0, segment], horizon)
        if rate * (end - instant) >= left:
            instant += left / rate
            left = exponential(state)
            times[count] = instant
            count += 1
        else:
            left -= rate * (end - instant)
            instant = end
            if path[0, segment] >= horizon:
                break
            segment += 1
    progress[0] = instant
    progress[1] = left
    progress[3] = segment
    return count
