"""Many seeds, in this process or in several: the same outcomes however many work on them."""

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

from aipaging.simulation.system.mutants import mutant_of
from aipaging.simulation.system.parts import Parts
from aipaging.simulation.system.run import Outcome, run
from aipaging.simulation.system.schedule import STEPS_DEFAULT, Schedule, schedule
from aipaging.simulation.system.shrink import Shrunk, shrink

SEEDS_PER_PIECE: Final = 10
"""Seeds of one piece of work: about a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """What is run.

    Attributes:
        parts: Makes the parts of a run; a function of a module, for other processes call it too.
        steps: Acts of clients and operators in one run.
        families: The fault families, or None for the usual.
        mutant: The planted bug, or "".
    """

    parts: Callable[[], Parts]
    steps: int = STEPS_DEFAULT
    families: Collection[str] | None = None
    mutant: str = ""

    def plan(self, seed: int) -> Schedule:
        """Return the schedule of a seed."""
        families = self.families
        if families is None and self.mutant:
            families = mutant_of(self.mutant).faults
        return schedule(seed, steps=self.steps, families=families)

    def ran(self, plan: Schedule) -> Outcome:
        """Run one schedule."""
        if not self.mutant:
            return run(plan, self.parts())
        mutant = mutant_of(self.mutant)
        with mutant.in_force():
            return run(plan, mutant.parts(self.parts()))

    def shrunk(self, failing: Outcome) -> Shrunk:
        """Return the least schedule that fails as a seed of this campaign did."""
        return shrink(self.plan(failing.seed), failing, self.ran)


def outcomes(campaign: Campaign, seeds: range, executor: Executor | None = None) -> Iterator[Outcome]:
    """Yield the outcome of every seed, in order."""
    if executor is None:
        for seed in seeds:
            yield campaign.ran(campaign.plan(seed))
        return
    pieces = [seeds[first : first + SEEDS_PER_PIECE] for first in range(0, len(seeds), SEEDS_PER_PIECE)]
    for piece in executor.map(_piece, [campaign] * len(pieces), pieces):
        yield from piece


def _piece(campaign: Campaign, seeds: range) -> list[Outcome]:
    return [campaign.ran(campaign.plan(seed)) for seed in seeds]
