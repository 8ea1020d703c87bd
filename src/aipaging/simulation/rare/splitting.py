"""Multilevel splitting: excursions of the delay above a floor, taken up level by level.

P(delay > target) is the rate at which excursions above a floor begin, times the probabilities of reaching each next
level from the one before, times the mean number of packets above the target in an excursion that has reached it. Each
factor is common enough to be seen; states on a level are copied, their futures are drawn anew. No factor assumes
anything of the network, only that the state of `kernels.line` is the whole state; levels decide the effort, not the
answer. Referred to as fixed-effort splitting in Garvels, "The splitting method in rare event simulation" (2000).
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aipaging.core.foundation.errors import UnavailableError
from aipaging.simulation.kernels import line as kernel
from aipaging.simulation.kernels.streams import stream
from aipaging.simulation.rare.part import Line, law_at

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

FLOOR_LEVEL: Final = 0.8
"""Excursions begin above this quantile: often enough to be counted, seldom enough to end."""

CLIMB: Final = 0.2
"""Share of the excursions that should reach the next level: near the least variance per effort, which is flat."""

PILOT_RUNS: Final = 500
RUNS: Final = 1000
"""Excursions per level and replication."""

PACKETS: Final = 100_000
"""Packets of the plain run that each replication takes its first excursions from."""

LEVELS_MAX: Final = 200
"""1e-140 at the share above; a target that needs more levels is out of reach."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """A line made ready, with its levels.

    Attributes:
        sources: See `kernels.line.step`.
        net: See there.
        shape: Of a state.
        target_ms: The delay in question.
        levels_ms: The floor, and the levels up to the target.
        warm_up: Packets before the first that counts.
        stationary: Law of the first mode of each source.
    """

    sources: tuple[Floats, Floats, Floats]
    net: tuple[Integers, Floats, Floats]
    shape: tuple[int, int]
    target_ms: float
    levels_ms: tuple[float, ...]
    warm_up: int
    stationary: tuple[Floats, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicate:
    """What one replication found.

    Attributes:
        probability: Its estimate.
        packets: What it took.
    """

    probability: float
    packets: int


def prepared(line: Line, target_ms: float, warm_up: int, seed: np.random.SeedSequence) -> Split:
    """Return a line with levels found by a pilot run.

    Raises:
        UnavailableError: The target is out of reach.
    """
    split = _flat(line, target_ms, warm_up)
    dice = stream(seed)
    state = _begun(split, dice, seed)
    delays = np.array([kernel.step(state, dice, split.sources, split.net) for _ in range(2 * PILOT_RUNS)])
    floor = min(float(np.quantile(delays, FLOOR_LEVEL)), 0.5 * target_ms)
    levels = [floor]
    entries = np.empty((PILOT_RUNS, *split.shape))
    begun = kernel.excursions(dice, split.sources, split.net, state, entries, np.array([floor, PACKETS]))
    entries = entries[: min(begun, PILOT_RUNS)]
    while levels[-1] < target_ms and len(entries):
        found = np.zeros((2, PILOT_RUNS))
        kernel.peaks(dice, split.sources, split.net, entries, found, np.array([floor, target_ms, 0.0]))
        level = min(float(np.quantile(found[0], 1.0 - CLIMB)), target_ms)
        if level <= levels[-1] or len(levels) > LEVELS_MAX:
            break
        levels.append(level)
        reached = np.empty((PILOT_RUNS, *split.shape))
        count = kernel.climbs(dice, split.sources, split.net, entries, reached, np.array([floor, level, 0.0]))
        entries = reached[:count]
    if levels[-1] < target_ms:
        raise UnavailableError(
            f"delays hardly rise above {levels[-1]:.4g} ms: {target_ms:g} ms is out of the reach of splitting, or "
            "never happens",
            code="TARGET_OUT_OF_REACH",
        )
    return Split(
        sources=split.sources,
        net=split.net,
        shape=split.shape,
        target_ms=target_ms,
        levels_ms=tuple(levels),
        warm_up=warm_up,
        stationary=split.stationary,
    )


def replicate(split: Split, seed: np.random.SeedSequence) -> Replicate:
    """Run one replication, from an empty start through all levels."""
    dice = stream(seed)
    state = _begun(split, dice, seed)
    floor = split.levels_ms[0]
    entries = np.empty((RUNS, *split.shape))
    begun = kernel.excursions(dice, split.sources, split.net, state, entries, np.array([floor, PACKETS]))
    entries = entries[: min(begun, RUNS)]
    probability = begun / PACKETS
    taken = float(PACKETS + split.warm_up)
    for level in split.levels_ms[1:]:
        if not len(entries):
            return Replicate(probability=0.0, packets=int(taken))
        reached = np.empty((RUNS, *split.shape))
        plan = np.array([floor, level, 0.0])
        count = kernel.climbs(dice, split.sources, split.net, entries, reached, plan)
        probability *= count / RUNS
        entries = reached[:count]
        taken += plan[2]
    if not len(entries):
        return Replicate(probability=0.0, packets=int(taken))
    found, plan = np.zeros((2, RUNS)), np.array([floor, split.target_ms, 0.0])
    kernel.peaks(dice, split.sources, split.net, entries, found, plan)
    return Replicate(probability=probability * float(found[1].mean()), packets=int(taken + plan[2]))


def _flat(line: Line, target_ms: float, warm_up: int) -> Split:
    """Return a line as arrays."""
    hops, tenants = len(line.domains), len(line.tenants)
    modes = max(len(source.jumps) for source in line.sources)
    jumps = np.zeros((len(line.sources), modes, modes))
    rates = np.zeros((len(line.sources), modes, tenants))
    about = np.zeros((len(line.sources), 2))
    for place, source in enumerate(line.sources):
        size = len(source.jumps)
        jumps[place, :size, :size] = source.jumps
        rates[place, :size] = source.rates
        about[place] = source.joins, source.period_ms
    domains = np.zeros((hops, 3))
    domains[:, 0] = line.slowness
    domains[:, 1] = [domain.latency_ms for domain in line.domains]
    joins = [line.domains.index(next(d for d in line.domains if d.name == t.route[0])) for t in line.tenants]
    for hop in range(1, hops):
        domains[hop, 2] = any(a < hop <= z for a, z in zip(joins, line.last, strict=True))
    found = [[law_at(tenant, domain.name) for domain in line.domains] for tenant in line.tenants]
    widest = max(len(law.parameters) for row in found for law in row if law is not None)
    laws = np.zeros((tenants, hops, 2 + widest))
    laws[:, :, 0] = -1.0
    for place, row in enumerate(found):
        for hop, law in enumerate(row):
            if law is not None:
                laws[place, hop, :2] = law.law, len(law.parameters)
                laws[place, hop, 2 : 2 + len(law.parameters)] = law.parameters
    return Split(
        sources=(jumps, rates, about),
        net=(np.array(line.last), domains, laws),
        shape=(kernel.STATE_ROWS, max(len(line.sources), hops)),
        target_ms=target_ms,
        levels_ms=(),
        warm_up=warm_up,
        stationary=tuple(source.stationary for source in line.sources),
    )


def _begun(split: Split, dice: NDArray[np.uint64], seed: np.random.SeedSequence) -> Floats:
    """Return a state that has run through the warm-up."""
    first = np.random.default_rng(seed.spawn(1)[0])
    state = np.zeros(split.shape)
    state[kernel.OUT_TENANT] = -1.0
    about = split.sources[2]
    for place, shares in enumerate(split.stationary):
        state[kernel.MODE, place] = first.choice(len(shares), p=shares / shares.sum())
        if about[place, 1] > 0.0:
            state[kernel.NEXT, place] = first.random() * about[place, 1]
            state[kernel.OF_TENANT, place] = int(np.argmax(split.sources[1][place, 0]))
        else:
            kernel.advance(state, dice, split.sources, place)
    state[kernel.DELAY] = math.inf
    kernel.excursions(
        dice, split.sources, split.net, state, np.empty((1, *split.shape)), np.array([math.inf, split.warm_up])
    )
    return state
