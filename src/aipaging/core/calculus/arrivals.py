"""What arrives: compound Poisson jobs, independent slots, on/off flows, regulated flows.

Only the kinds that are not defined beside their own mathematics stand here; `Arrival` is the union of all.
Two kinds of time exist and are not mixed in one question: slots (`slotted` is true) and continuous time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from aipaging.core.calculus.deterministic import TokenBucket
from aipaging.core.calculus.errors import require_positive
from aipaging.core.calculus.modulated import MarkovFluid, MarkovPoisson, MarkovSlots
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
        object.__setattr__(self, "works", tuple(self.works))
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Superposition:
    """Independent arrivals of unlike kinds together: all in slots, or all in continuous time.

    A token bucket may be part of either. A superposition of superpositions is flattened by `superpose`.
    """

    parts: tuple["SimpleArrival", ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        if not self.parts:
            raise InvalidInputError("a superposition needs at least one part", field="parts")
        if any(isinstance(part, SLOTTED) for part in self.parts) and any(isinstance(p, CONTINUOUS) for p in self.parts):
            raise InvalidInputError("slots and continuous time do not add", field="parts")

    @property
    def mean_rate(self) -> float:
        """The sum of the parts' mean, or sustained, rates."""
        return sum(mean_rate(part) for part in self.parts)


SlottedArrival: TypeAlias = SlottedWork | SlottedOnOff | MarkovSlots | LeakyBuckets | ExponentiallyBounded
ContinuousArrival: TypeAlias = CompoundPoisson | FluidOnOff | MarkovFluid | MarkovPoisson
SimpleArrival: TypeAlias = SlottedArrival | ContinuousArrival | TokenBucket
Arrival: TypeAlias = SimpleArrival | Superposition

SLOTTED = (SlottedWork, SlottedOnOff, MarkovSlots, LeakyBuckets, ExponentiallyBounded)
"""Kinds whose time is counted in slots."""

CONTINUOUS = (CompoundPoisson, FluidOnOff, MarkovFluid, MarkovPoisson)
"""Kinds that live in continuous time; a token bucket may be read either way."""


def is_slotted(arrival: Arrival) -> bool:
    """Return whether time is counted in slots."""
    parts = arrival.parts if isinstance(arrival, Superposition) else (arrival,)
    return any(isinstance(part, SLOTTED) for part in parts)


def parts_of(arrivals: Sequence[Arrival]) -> tuple[SimpleArrival, ...]:
    """Return the simple arrivals that the given ones consist of."""
    return tuple(part for a in arrivals for part in (a.parts if isinstance(a, Superposition) else (a,)))


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
    """Return independent arrivals as a single arrival; None where slots and continuous time meet.

    Parts of one kind are merged exactly, so that the sharpest rung of that kind applies; unlike ones become a
    `Superposition`.
    """
    parts = parts_of(arrivals)
    merged: list[SimpleArrival] = []
    for part in parts:
        for i, other in enumerate(merged):
            together = _merged(other, part)
            if together is not None:
                merged[i] = together
                break
        else:
            merged.append(part)
    if len(merged) == 1:
        return merged[0]
    if any(isinstance(part, SLOTTED) for part in merged) and any(isinstance(part, CONTINUOUS) for part in merged):
        return None
    return Superposition(parts=tuple(merged))


def _merged(first: SimpleArrival, second: SimpleArrival) -> SimpleArrival | None:
    """Return two independent arrivals as one of the same kind, if they are alike enough."""
    match first, second:
        case SlottedWork(), SlottedWork():
            return SlottedWork(works=first.works + second.works)
        case TokenBucket(), TokenBucket():
            return first + second
        case CompoundPoisson(), CompoundPoisson() if first.work == second.work:
            return CompoundPoisson(rate=first.rate + second.rate, work=first.work)
        case _:
            return _more_alike(first, second) if isinstance(first, Counted) and isinstance(second, Counted) else None


Counted: TypeAlias = FluidOnOff | SlottedOnOff | LeakyBuckets | MarkovSlots | MarkovFluid | MarkovPoisson


def _more_alike(first: Counted, second: Counted) -> Counted | None:
    """Return flows that are alike with their counts added."""
    alike = type(first) is type(second) and replace(first, count=second.count) == second
    return replace(first, count=first.count + second.count) if alike else None
