"""A line of first-come-first-served domains as a Markov chain of a few numbers, which can be copied: for splitting.

A packet's delay is settled when it enters, given what entered before it; so a domain is no more than the instant from
which it is free and the packet that it hands on next. Each domain draws what it serves next from the domain before it
and from the sources that join there; domains further on run ahead of sources that they do not need.
"""

import math
from typing import Final, TypeAlias

import numpy as np

from aipaging.simulation.kernels.arrivals import pick
from aipaging.simulation.kernels.compiled import compiled
from aipaging.simulation.kernels.streams import Floats, Integers, Words, exponential, uniform
from aipaging.simulation.kernels.work import one_work

# Rows of a state: what it holds per source, then per domain (the packet handed on next), then the last delay.
NEXT: Final = 0
MODE: Final = 1
OF_TENANT: Final = 2
FREE: Final = 3
OUT: Final = 4
OUT_WORK: Final = 5
OUT_TENANT: Final = 6
OUT_SENT: Final = 7
DELAY: Final = 8
STATE_ROWS: Final = 9

Sources: TypeAlias = tuple[Floats, Floats, Floats]
"""Jump rates [source, mode, mode], arrival rates [source, mode, tenant], and per source the domain it joins and its
period (0: Poisson)."""

Net: TypeAlias = tuple[Integers, Floats, Floats]
"""Per tenant its last domain [tenant]; per domain ms per unit of work, latency and whether it is fed by the one before
[domain, 3]; laws of work [tenant, domain, parameter]: law (negative: the packet keeps its work), number of parameters,
parameters."""


@compiled
def step(state: Floats, dice: Words, sources: Sources, net: Net) -> float:
    """Go on until the next packet of the first tenant is through; returns its delay.

    `state` is [STATE_ROWS, most of sources and domains].
    """
    last, domains, laws = net
    here = domains.shape[0] - 1
    while True:
        while domains[here, 2] > 0.0 and state[OUT_TENANT, here - 1] < 0.0:
            here -= 1
        source = _joining(state, sources[2], here, domains[here, 2] > 0.0)
        if source >= 0:
            instant = state[NEXT, source]
            tenant, sent = int(state[OF_TENANT, source]), instant
            work = one_work(dice, laws[tenant, here])
            advance(state, dice, sources, source)
        else:
            instant, sent = state[OUT, here - 1], state[OUT_SENT, here - 1]
            tenant = int(state[OUT_TENANT, here - 1])
            state[OUT_TENANT, here - 1] = -1.0
            work = one_work(dice, laws[tenant, here]) if laws[tenant, here, 0] >= 0.0 else state[OUT_WORK, here - 1]
        state[FREE, here] = max(state[FREE, here], instant) + work * domains[here, 0]
        out = state[FREE, here] + domains[here, 1]
        if last[tenant] > here:
            state[OUT, here] = out
            state[OUT_WORK, here] = work
            state[OUT_TENANT, here] = tenant
            state[OUT_SENT, here] = sent
            here += 1
        elif tenant == 0:
            state[DELAY, 0] = out - sent
            return float(out - sent)


@compiled
def _joining(state: Floats, about: Floats, here: int, fed: bool) -> int:
    """Return the source whose packet a domain serves next, -1 where that comes from the domain before it."""
    instant, source = math.inf, -1
    if fed:
        instant = state[OUT, here - 1]
    for each in range(about.shape[0]):
        if about[each, 0] == here and state[NEXT, each] < instant:
            instant, source = state[NEXT, each], each
    return source


@compiled
def advance(state: Floats, dice: Words, sources: tuple[Floats, Floats, Floats], source: int) -> None:
    """Draw the next packet of a source."""
    jumps, rates, about = sources
    instant = state[NEXT, source]
    if about[source, 1] > 0.0:
        state[NEXT, source] = instant + about[source, 1]
        return
    mode = int(state[MODE, source])
    while True:
        leaving = jumps[source, mode].sum()
        arriving = rates[source, mode].sum()
        instant += exponential(dice) / (leaving + arriving)
        if leaving == 0.0 or uniform(dice) * (leaving + arriving) >= leaving:
            break
        mode = pick(uniform(dice), jumps[source, mode])
    state[NEXT, source] = instant
    state[MODE, source] = mode
    state[OF_TENANT, source] = pick(uniform(dice), rates[source, mode])


@compiled
def start(state: Floats, dice: Words, entries: Floats) -> None:
    """Begin in one of the states, drawn at random."""
    state[:] = entries[int(uniform(dice) * entries.shape[0])]


@compiled
def excursions(dice: Words, sources: Sources, net: Net, state: Floats, entries: Floats, plan: Floats) -> int:
    """Run for a while and keep the states in which an excursion above the floor begins; returns how many began.

    Where there are more than `entries` has room for, each is kept with the same probability; `plan`: floor, packets.
    """
    begun = 0
    below = state[DELAY, 0] <= plan[0]
    for _ in range(int(plan[1])):
        delay = step(state, dice, sources, net)
        if below and delay > plan[0]:
            place = begun if begun < entries.shape[0] else int(uniform(dice) * (begun + 1))
            if place < entries.shape[0]:
                entries[place] = state
            begun += 1
        below = delay <= plan[0]
    return begun


@compiled
def climbs(dice: Words, sources: Sources, net: Net, entries: Floats, reached: Floats, plan: Floats) -> int:
    """Start from `entries` until the next level or the floor is met; returns how many met the level, kept in `reached`.

    There are as many runs as `reached` has room for; `plan`: floor, next level, packets taken (added to).
    """
    found = 0
    state = np.empty_like(entries[0])
    for _ in range(reached.shape[0]):
        start(state, dice, entries)
        while plan[0] < state[DELAY, 0] <= plan[1]:
            step(state, dice, sources, net)
            plan[2] += 1.0
        if state[DELAY, 0] > plan[1]:
            reached[found] = state
            found += 1
    return found


@compiled
def peaks(dice: Words, sources: Sources, net: Net, entries: Floats, found: Floats, plan: Floats) -> None:
    """Run whole excursions from `entries`: write the largest delay of each and how many were above the target.

    `found` is [2, runs]; `plan`: floor, target, packets taken (added to).
    """
    state = np.empty_like(entries[0])
    for run in range(found.shape[1]):
        start(state, dice, entries)
        found[0, run], found[1, run] = 0.0, 0.0
        while state[DELAY, 0] > plan[0]:
            found[0, run] = max(found[0, run], state[DELAY, 0])
            found[1, run] += state[DELAY, 0] > plan[1]
            step(state, dice, sources, net)
            plan[2] += 1.0
