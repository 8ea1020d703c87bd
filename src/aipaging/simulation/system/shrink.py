"""The least schedule that still fails: acts are dropped, in ever smaller pieces, as long as the same checker complains.

Delta debugging (Zeller and Hildebrandt 2002): every act is tried alone in the end, so what is left is needed. The dice
of a run come from its seed and not from its acts, yet dropping one shifts later throws; that only means that some
droppable act may stay.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from aipaging.simulation.system.run import Outcome
from aipaging.simulation.system.schedule import Act, Schedule

RUNS_MAX: Final = 400
"""Runs of one shrinking: some ten seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrunk:
    """The least schedule that was found.

    Attributes:
        plan: It.
        outcome: What came of it.
        runs: How many runs it took.
    """

    plan: Schedule
    outcome: Outcome
    runs: int


def shrink(plan: Schedule, failing: Outcome, ran: Callable[[Schedule], Outcome]) -> Shrunk:
    """Return a least schedule that fails like `failing`, an outcome of `plan`.

    Args:
        plan: The schedule that failed.
        failing: What came of it; it has a finding.
        ran: Runs a schedule, planted bugs included.
    """
    checker = failing.found.checker if failing.found is not None else ""
    best, outcome, runs = plan, failing, 0
    acts = _before(plan.acts, failing)
    size = max(1, len(acts) // 2)
    while runs < RUNS_MAX:
        smaller = False
        for first in range(0, len(acts), size):
            fewer = [*acts[:first], *acts[first + size :]]
            tried = replace(plan, acts=tuple(fewer))
            runs += 1
            found = ran(tried)
            if found.found is not None and found.found.checker == checker:
                acts, best, outcome, smaller = _before(fewer, found), tried, found, True
                break
            if runs >= RUNS_MAX:
                break
        if not smaller:
            if size == 1:
                break
            size = max(1, size // 2)
    return Shrunk(plan=replace(best, acts=tuple(acts)), outcome=outcome, runs=runs)


def _before(acts: Sequence[Act], outcome: Outcome) -> list[Act]:
    """Return the acts that had happened when the checker complained."""
    until_us = outcome.found.us if outcome.found is not None else outcome.simulated_us
    return [act for act in acts if act.us <= until_us]
