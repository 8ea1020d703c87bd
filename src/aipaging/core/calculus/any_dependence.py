"""Paths whose parts may depend on each other in any way: the excess is split, no independence is used.

Every part i, an arrival, cross traffic or the shortfall of a service, exceeds a rate over an interval by more than x
with probability at most M_i exp(-b_i x), M_i >= 1. For any dependence, a sum exceeds x with probability at most

    M exp(-b x),   1/b = sum 1/b_i,   ln M = ln(1/b) + b sum ln(M_i b_i) / b_i,

the least over all splits of x ([YaronSidi1993], [Jiang2008]). Written as moments of exponent b this is one more
tandem for the union series. Proof: union.md.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from aipaging.core.calculus.arrivals import Arrival, parts_of
from aipaging.core.calculus.interval import IntervalMoments, LogMoment, moments_of, no_factor
from aipaging.core.calculus.regulated import ExponentiallyBounded
from aipaging.core.calculus.tandem_union import Crossing, Stage, UnionTandem
from aipaging.core.foundation.errors import InvalidInputError

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Excess:
    """P(part - rate n > x) <= exp(log_prefactor) exp(-decay x), all as functions of a free theta."""

    decay: LogMoment
    log_prefactor: LogMoment
    rate: LogMoment


def excess_of(arrivals: Sequence[Arrival]) -> list[Excess]:
    """Return the excesses of the simple parts of arrivals, whose dependence on each other is not used."""
    return [_excess(part) for part in parts_of(arrivals)]


def _excess(part: Arrival) -> Excess:
    if isinstance(part, ExponentiallyBounded):
        bounded = part
        return _fixed(bounded.prefactor, bounded.decay, bounded.rate)
    moments = moments_of([part])
    return Excess(
        decay=lambda theta: theta,
        log_prefactor=lambda theta: np.maximum(moments.log_sigma(theta), 0.0),
        rate=lambda theta: moments.log_growth(theta) / theta,
    )


def _fixed(prefactor: float, decay: float, rate: float) -> Excess:
    return Excess(
        decay=lambda theta: np.full_like(theta, decay),
        log_prefactor=lambda theta: np.full_like(theta, math.log(max(prefactor, 1.0))),
        rate=lambda theta: np.full_like(theta, rate),
    )


def shortfall_of(stage: Stage) -> Excess | None:
    """Return the shortfall of a service against its rate; None of a deterministic one.

    A stage with a deficit has it in `deficit`; random slots are bounded by Chernoff.
    """
    if stage.deficit is not None:
        return _fixed(stage.deficit[0], stage.deficit[1], -stage.rate) if stage.deficit[0] > 0.0 else None
    if stage.constant:
        return None
    return Excess(
        decay=lambda theta: theta, log_prefactor=no_factor, rate=lambda theta: stage.log_service(theta) / theta
    )


def join(parts: Sequence[Excess]) -> tuple[LogMoment, LogMoment]:
    """Return (b, ln M) of the sum of parts."""

    def decay(theta: Floats) -> Floats:
        inverse = np.zeros_like(theta)
        for part in parts:
            inverse = inverse + 1.0 / part.decay(theta)
        return 1.0 / inverse

    def log_prefactor(theta: Floats) -> Floats:
        b = decay(theta)
        total = -np.log(b)
        for part in parts:
            own = part.decay(theta)
            total = total + b / own * (part.log_prefactor(theta) + np.log(own))
        return total

    return decay, log_prefactor


def any_dependence_tandem(
    own: Arrival, stages: Sequence[Stage], crossings: Sequence[tuple[Arrival, int, int]]
) -> UnionTandem:
    """Return the tandem whose moments are those of the joined excess.

    Args:
        own: The flow.
        stages: Its domains.
        crossings: Cross traffic with the first and the last domain that it crosses.
    """
    arriving = excess_of([own])
    crossing = [(excess_of([flow]), first, last) for flow, first, last in crossings]
    short = [shortfall_of(stage) for stage in stages]
    everything = [*arriving, *(e for flows, _, _ in crossing for e in flows), *(s for s in short if s is not None)]
    if not everything:
        raise InvalidInputError("nothing here is random", field="arrival")
    decay, log_prefactor = join(everything)

    def at_rate(parts: Sequence[Excess]) -> LogMoment:
        def growth(theta: Floats) -> Floats:
            total = np.zeros_like(theta)
            for part in parts:
                total = total + part.rate(theta)
            found: Floats = decay(theta) * total
            return found

        return growth

    theta_max = min(
        [moments_of([own]).theta_max if not isinstance(own, ExponentiallyBounded) else math.inf]
        + [moments_of([flow]).theta_max for flow, _, _ in crossings if not isinstance(flow, ExponentiallyBounded)]
    )

    def moments(parts: Sequence[Excess], log_sigma: Callable[[Floats], Floats]) -> IntervalMoments:
        return IntervalMoments(log_sigma=log_sigma, log_growth=at_rate(parts), theta_max=theta_max, memoryless=False)

    return UnionTandem(
        arrival=moments(arriving, log_prefactor),
        stages=tuple(
            replace(
                stage, log_service=_served(stage, shortfall, decay), log_sigma=no_factor, theta_max=math.inf,
                memoryless=False,
            )
            for stage, shortfall in zip(stages, short, strict=True)
        ),
        crossings=tuple(Crossing(moments=moments(e, no_factor), first=f, last=last) for e, f, last in crossing),
        exponent=decay,
    )  # fmt: skip


def _served(stage: Stage, shortfall: Excess | None, decay: LogMoment) -> LogMoment:
    if shortfall is None or stage.deficit is not None:
        return lambda theta: -decay(theta) * stage.rate
    return lambda theta: decay(theta) * shortfall.rate(theta)
