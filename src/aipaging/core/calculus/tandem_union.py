"""Tandems of unlike domains: any arrivals, latencies, deficits, random service, cross traffic on any stretch.

The event W(t) > d implies that for some cut u_0 < t <= ... <= u_H = t + d the arrivals and the cross traffic of
their stretches exceed the service (pay bursts and multiplexing only once, [Bouillard2021]; proof: union.md).
Latencies shorten the cuts: they add up exactly, whatever stands between them, and only what they let the cross
traffic gain costs a factor. What is left is the union series of `tandem`, or the one-Doob series where nothing has
a memory.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aipaging.core.calculus.bound import TailBound, bound_of_log, certain
from aipaging.core.calculus.interval import IntervalMoments, LogMoment
from aipaging.core.calculus.tandem import (
    GRID_FRACTIONS,
    PASSES,
    SlottedTandem,
    around,
    both_series,
    log_leftover,
    stable_end,
)

Floats: TypeAlias = NDArray[np.float64]

_DOUBLINGS: Final = 200


def itself(theta: Floats) -> Floats:
    """Return theta."""
    return theta


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stage:
    """One domain in moments.

    Attributes:
        log_service: ln E exp(-theta s) of a slot of service, cross traffic not yet taken off.
        log_sigma: ln of the constant factor of its service.
        latency: In slots; its whole part shortens the cuts, the rest costs `rate` theta.
        rate: What a fraction of a slot of latency loses at most.
        theta_max: End of the domain of its moments.
        memoryless: Whether its slots are independent with no constant factor.
        deficit: (M, b) of a bounded deficit behind `log_sigma`.
        constant: Whether the rate is certain.
        shifts: Whether the latency may be taken off the cuts: not under cross traffic that leaves elsewhere.
    """

    log_service: LogMoment
    log_sigma: LogMoment
    latency: float
    rate: float
    theta_max: float
    memoryless: bool
    deficit: tuple[float, float] | None = None
    constant: bool = False
    shifts: bool = True

    @property
    def skipped(self) -> int:
        """Whole slots by which the latency shortens the cuts."""
        return math.floor(self.latency) if self.shifts else 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Crossing:
    """Cross traffic from the domain of index `first` to that of index `last`."""

    moments: IntervalMoments
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnionTandem:
    """A flow through stages with cross traffic, all independent; or the joined excess of dependent ones.

    Attributes:
        arrival: The flow.
        stages: Its domains in order.
        crossings: Cross traffic.
        exponent: What a unit of work costs in the exponent; theta itself where moments are moments.
    """

    arrival: IntervalMoments
    stages: tuple[Stage, ...]
    crossings: tuple[Crossing, ...]
    exponent: LogMoment = itself


def union_tail(
    tandem: UnionTandem,
    *,
    slots: int,
    backlog: float,
    assumptions: tuple[str, ...],
    passes: tuple[int, ...] = PASSES,
    end: float | None = None,
) -> TailBound:
    """Return a bound on P(W > slots), or with `backlog` > 0 and no slots on P(backlog > x).

    Args:
        tandem: The flow and its domains.
        slots: The delay asked for; 0 for a backlog.
        backlog: The end-to-end backlog asked for, else 0.
        assumptions: To be named in the answer.
        passes: Points of theta in every pass; any theta is valid.
        end: The largest theta for which every domain is stable, where it is known.

    Raises:
        UnstableError: Some domain is overloaded.
    """
    skipped = sum(stage.skipped for stage in tandem.stages)
    plain = _plain(tandem)
    end = stable_end(plain) if end is None else end
    if backlog == 0.0 and slots < skipped:
        return certain(1.0, "trivial", ())
    memoryless = _memoryless(tandem)
    best, best_theta, rung = 0.0, 0.0, "mgf-union"
    grid = end * GRID_FRACTIONS
    for points in (*passes[1:], 0):
        values = _log_values(tandem, plain, grid, (slots, skipped, backlog))
        if not memoryless:
            values[0] = np.inf
        series, index = np.unravel_index(int(np.argmin(values)), values.shape)
        if values[series, index] < best:
            best, best_theta = float(values[series, index]), float(grid[index])
            rung = ("one-doob", "mgf-union")[int(series)]
        grid = around(grid, int(index), points)
    return bound_of_log(best, rung, assumptions, theta=best_theta) if best < 0.0 else certain(1.0, "trivial", ())


@lru_cache(maxsize=512)
def _plain(tandem: UnionTandem) -> SlottedTandem:
    log_services = _leftovers(tandem)
    return SlottedTandem(
        log_arrival=tandem.arrival.log_growth, log_services=log_services, theta_max=_theta_max(tandem, log_services)
    )


def theta_end(tandem: UnionTandem) -> float:
    """Return the largest theta for which every domain is stable.

    Raises:
        UnstableError: There is none.
    """
    return stable_end(_plain(tandem))


def log_output_factor(tandem: UnionTandem, theta: float) -> float:
    """Return ln M of the output's envelope with decay theta: the backlog's series, the empty cut included."""
    skipped = sum(stage.skipped for stage in tandem.stages)
    values = _log_values(tandem, _plain(tandem), np.array([theta]), (0, skipped, 0.0))[:, 0]
    union = float(np.logaddexp(values[1], 0.0))
    return max(0.0, min(union, float(values[0]))) if _memoryless(tandem) else union


def _leftovers(tandem: UnionTandem) -> tuple[LogMoment, ...]:
    """Return ln E exp(-theta (service - cross)) of each stage; like stages share one function."""
    found: list[LogMoment] = []
    for h, stage in enumerate(tandem.stages):
        crossing = tuple(c.moments.log_growth for c in tandem.crossings if c.first <= h <= c.last)
        found.append(log_leftover(stage.log_service, crossing) if crossing else stage.log_service)
    return tuple(found)


def _theta_max(tandem: UnionTandem, log_services: Sequence[LogMoment]) -> float:
    """Return the end of the domain, or a theta at which the tandem is unstable where that is infinite."""
    ends = [tandem.arrival.theta_max, *(s.theta_max for s in tandem.stages)]
    ends.extend(c.moments.theta_max for c in tandem.crossings)
    end = min(ends)
    if math.isfinite(end):
        return end * (1.0 - 1e-12)
    theta = 1.0 / max(stage.rate for stage in tandem.stages)
    for _ in range(_DOUBLINGS):
        at = np.array([theta])
        growth = float(tandem.arrival.log_growth(at)[0])
        if not all(growth + float(log_service(at)[0]) < 0.0 for log_service in log_services):
            break
        if theta * max(stage.rate for stage in tandem.stages) > _EXPONENT_MAX:
            break
        theta *= 2.0
    return theta


_EXPONENT_MAX: Final = 1e4
"""Work that never exceeds the service: theta beyond this many over a slot's work gains nothing that can be told."""


def _log_values(tandem: UnionTandem, plain: SlottedTandem, theta: Floats, question: tuple[int, int, float]) -> Floats:
    slots, skipped, backlog = question
    left = max(0, slots - skipped)
    with np.errstate(invalid="ignore", over="ignore"):
        values = both_series(plain, theta, left)
        waiting = skipped - slots
        if waiting > 0:
            # A backlog behind latencies: cuts shorter than they are covered by one of their length.
            values[1] = np.logaddexp(values[1], 0.0)
            values = values + waiting * tandem.arrival.log_growth(theta)
        exponent = tandem.exponent(theta)
        factor = tandem.arrival.log_sigma(theta) - exponent * backlog
        for h, stage in enumerate(tandem.stages):
            factor = factor + stage.log_sigma(theta)
            if stage.latency > stage.skipped:
                factor = factor + exponent * stage.rate * (stage.latency - stage.skipped)
            if stage.skipped:
                for crossing in tandem.crossings:
                    if crossing.first <= h <= crossing.last:
                        factor = factor + stage.skipped * crossing.moments.log_growth(theta)
        for crossing_flow in tandem.crossings:
            factor = factor + crossing_flow.moments.log_sigma(theta)
        values = values + factor
    return np.where(np.isnan(values), np.inf, values)


def _memoryless(tandem: UnionTandem) -> bool:
    """Return whether the one-Doob series is proven: no memory anywhere, no cross traffic behind a latency."""
    flows = (tandem.arrival, *(c.moments for c in tandem.crossings))
    crossed = {h for c in tandem.crossings for h in range(c.first, c.last + 1)}
    return all(moments.memoryless for moments in flows) and all(
        stage.memoryless and (stage.latency == 0.0 or h not in crossed) for h, stage in enumerate(tandem.stages)
    )
