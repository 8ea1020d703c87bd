"""Markov chains that modulate arrivals, from the rates of their jumps."""

from collections.abc import Sequence

from aipaging.simulation.kinds import MODES_MAX
from aipaging.simulation.scenario import Modulator


def why_no_chain(jumps: Sequence[Sequence[float]]) -> str | None:
    """Return why rates of jumps are not those of a chain with a stationary law, None where they are."""
    if len(jumps) > MODES_MAX:
        return f"{len(jumps)} modes; at most {MODES_MAX} are allowed"
    if any(row[mode] for mode, row in enumerate(jumps)):
        return "the diagonal must be 0: a mode does not jump to itself"
    if any(len(_reach(jumps, mode)) < len(jumps) for mode in range(len(jumps))):
        return "every mode must be reachable from every other one: a chain that gets stuck has no mean"
    return None


def chain_of(name: str, jumps: Sequence[Sequence[float]]) -> Modulator:
    """Return the chain with these rates of jumps."""
    return Modulator(name=name, jumps_per_ms=tuple(tuple(map(float, row)) for row in jumps))


def _reach(jumps: Sequence[Sequence[float]], start: int) -> set[int]:
    """Return the modes that can be reached from a mode."""
    reached, open_ends = {start}, [start]
    while open_ends:
        for mode, rate in enumerate(jumps[open_ends.pop()]):
            if rate and mode not in reached:
                reached.add(mode)
                open_ends.append(mode)
    return reached
