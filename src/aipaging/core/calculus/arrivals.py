"""What arrives: compound Poisson jobs, independent slots, on/off flows, regulated flows.

Only the kinds that are not defined beside their own mathematics stand here; `Arrival` is the union of all.
Two kinds of time exist and are not mixed in one question: slots (`slotted` is true) and continuous time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from aipaging.core.calculus.deterministic import TokenBucket
from aipaging.core.calculus.errors import require_positive
from aipaging.core.calculus.onoff import FluidOnOff, SlottedOnOff
from aipaging.core.calculus.regulated import ExponentiallyBounded, LeakyBuckets
from aipaging.core.calculus.work import Work
from aipaging.core.foundation.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class CompoundPoisson:
    """Jobs arrive at `rate` per unit of time (Poisson), each bringing independent `work`."""

    rate: float
    work: Work

    def __post_init__(self) -> None:
        require_positive(rate=self.rate)

    @property
    def mean_rate(self) -> float:
        """Mean work per unit of time."""
        return self.rate * self.work.mean


@dataclass(frozen=True, slots=True, kw_only=True)
class SlottedWork:
    """Every slot brings `works` together, all independent and from slot to slot; one or several summands."""

    works: tuple[Work, ...]

    def __post_init__(self) -> None:
        if not self.works:
            raise InvalidInputError("a slot needs at least one kind of work", field="works")

    @property
    def mean_rate(self) -> float:
        """Mean work per slot."""
        return sum(work.mean for work in self.works)

    @property
    def theta_max(self) -> float:
        """End of the domain of the moment generating function."""
        return min(work.theta_max for work in self.works)

    def log_mgf(self, theta: float) -> float:
        """Return ln E exp(theta a) of one slot."""
        return sum(work.log_mgf(theta) for work in self.works)


Arrival: TypeAlias = (
    CompoundPoisson | SlottedWork | FluidOnOff | SlottedOnOff | LeakyBuckets | ExponentiallyBounded | TokenBucket
)

SLOTTED = (SlottedWork, SlottedOnOff, LeakyBuckets, ExponentiallyBounded)
"""Kinds whose time is counted in slots; the others live in continuous time."""


def mean_rate(arrival: Arrival) -> float:
    """Return the mean, or the sustained, work per unit of time."""
    match arrival:
        case LeakyBuckets():
            return arrival.count * arrival.rate
        case ExponentiallyBounded() | TokenBucket():
            return arrival.rate
        case _:
            return arrival.mean_rate


def superpose(arrivals: Sequence[Arrival]) -> Arrival | None:
    """Return independent arrivals of one kind as a single arrival, or None where no such kind exists."""
    first = arrivals[0]
    if len(arrivals) == 1:
        return first
    slots = [a for a in arrivals if isinstance(a, SlottedWork)]
    if len(slots) == len(arrivals):
        return SlottedWork(works=tuple(work for a in slots for work in a.works))
    buckets = [a for a in arrivals if isinstance(a, TokenBucket)]
    if len(buckets) == len(arrivals):
        return sum(buckets[1:], buckets[0])
    if isinstance(first, FluidOnOff | SlottedOnOff | LeakyBuckets):
        return _more_of(arrivals)
    if isinstance(first, CompoundPoisson):
        jobs = [a for a in arrivals if isinstance(a, CompoundPoisson) and a.work == first.work]
        if len(jobs) == len(arrivals):
            return CompoundPoisson(rate=sum(a.rate for a in jobs), work=first.work)
    return None


def _more_of(arrivals: Sequence[Arrival]) -> Arrival | None:
    """Add the counts of flows that are alike."""
    counts = [a.count for a in arrivals if isinstance(a, FluidOnOff | SlottedOnOff | LeakyBuckets)]
    total = sum(counts)
    alike: list[Arrival] = []
    for a in arrivals:
        match a:
            case FluidOnOff(off_to_on=up, on_to_off=down, peak=peak):
                alike.append(FluidOnOff(count=total, off_to_on=up, on_to_off=down, peak=peak))
            case SlottedOnOff(stay_off=off, stay_on=on, peak=peak):
                alike.append(SlottedOnOff(count=total, stay_off=off, stay_on=on, peak=peak))
            case LeakyBuckets(burst=burst, rate=rate):
                alike.append(LeakyBuckets(count=total, burst=burst, rate=rate))
            case _:
                return None
    return alike[0] if all(a == alike[0] for a in alike) else None
