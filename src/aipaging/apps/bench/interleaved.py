"""Numbers of two systems measured in turns, and what is reported of them."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from aipaging.apps.bench.result import BenchResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a metric should reach.

    Attributes:
        text: In words, such as ">= 0.85".
        least: The least that is good, or None.
        most: The most that is good, or None.
        of_ratio: Whether it is about the ratio to the peer, not about our own number.
    """

    text: str
    least: float | None = None
    most: float | None = None
    of_ratio: bool = False

    def met(self, value: float) -> bool:
        """Whether `value` reaches it."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


def alone(metric: str, unit: str, ours: Sequence[float], goal: Goal) -> BenchResult:
    """Return the result of a metric without a peer."""
    middle = statistics.median(ours)
    return BenchResult(
        metric=metric,
        unit=unit,
        ours=middle,
        peer=None,
        theirs=None,
        ratio=None,
        goal=goal.text,
        ok=goal.met(middle),
        runs=len(ours),
        spread=_spread(ours),
    )


def against(metric: str, unit: str, runs: Sequence[tuple[float, float]], *, peer: str, goal: Goal) -> BenchResult:
    """Return the result of `(ours, theirs)` runs; the ratio is the median of the runs' ratios.

    Both numbers of a run were measured next to each other, so a disturbance of the machine falls on both.
    """
    ours, theirs = [run[0] for run in runs], [run[1] for run in runs]
    ratio = statistics.median(mine / other for mine, other in runs)
    return BenchResult(
        metric=metric,
        unit=unit,
        ours=statistics.median(ours),
        peer=peer,
        theirs=statistics.median(theirs),
        ratio=ratio,
        goal=goal.text,
        ok=goal.met(ratio if goal.of_ratio else statistics.median(ours)),
        runs=len(runs),
        spread=_spread(ours),
    )


def _spread(values: Sequence[float]) -> float:
    middle = statistics.median(values)
    return (max(values) - min(values)) / middle if middle else 0.0
