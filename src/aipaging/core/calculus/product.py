"""One queue shared by independent flows of any kinds: the product martingale.

For independent stationary flows with Perron vectors g_i of their time-reversed chains, prod g_i exp(theta (A - C u))
is a supermartingale wherever the growths sum to at most theta C, so with Doob's inequality

    P(backlog > x) <= prod E g_i / min prod g_i * exp(-theta x),

the minimum over the states from which the backlog can rise ([Ciucu2015], [Poloczek2014]; proofs: markov.md). Under
blind multiplexing the cross traffic of the next d units of time comes on top, conditioned on its state.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aipaging.core.calculus.arrivals import Arrival, CompoundPoisson, SlottedWork, mean_rate, parts_of
from aipaging.core.calculus.bound import RungClass, TailBound, bound_of_log, certain
from aipaging.core.calculus.chain_states import log_ahead, log_least_rising
from aipaging.core.calculus.deterministic import TokenBucket
from aipaging.core.calculus.errors import UnstableError, never_exceeds, overloaded
from aipaging.core.calculus.modulated import (
    MarkovFluid,
    MarkovPoisson,
    MarkovSlots,
    Modulation,
    exp_minus_one,
    modulation_of,
)
from aipaging.core.calculus.onoff import FluidOnOff, SlottedOnOff
from aipaging.core.calculus.rounding import largest_root

Floats: TypeAlias = NDArray[np.float64]

_ASSUMPTIONS: Final = ("independent-flows", "stationary")
_FRACTIONS: Final = (1.0, 0.97, 0.9, 0.8, 0.65, 0.5, 0.35, 0.2, 0.1, 0.05)
"""Of theta*; any theta below it is valid, and small delays are better served by a smaller one."""

_ALONE: Final = (0.5, 1.0, 1.5, 2.0, 3.0, 5.0)
_ALONE_FAST: Final = (1.0, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SharedQueue:
    """One server's flows: chains, and token buckets as a burst and a rate that is taken off the capacity.

    Attributes:
        own: Chains of the flow of interest.
        cross: Chains of the cross traffic.
        past_rate: What is left for the chains before the instant asked for.
        future_rate: What is left for the cross chains after it.
        burst: Work that the token buckets may have brought at once.
    """

    own: tuple[Modulation, ...]
    cross: tuple[Modulation, ...]
    past_rate: float
    future_rate: float
    burst: float

    @property
    def chains(self) -> tuple[Modulation, ...]:
        """All chains."""
        return self.own + self.cross


@lru_cache(maxsize=512)
def chain_of(arrival: Arrival) -> Modulation | None:
    """Return the chain behind an arrival, None for the regulated kinds."""
    match arrival:
        case MarkovSlots() | MarkovFluid() | MarkovPoisson():
            return modulation_of(arrival)
        case SlottedWork():
            largest = sum(work.largest for work in arrival.works)
            return _one_state(arrival.log_mgf, largest, arrival.theta_max, slotted=True)
        case CompoundPoisson(rate=rate, work=work):
            return _one_state(
                lambda theta: rate * exp_minus_one(work.log_mgf(theta)), math.inf, work.theta_max, slotted=False
            )
        case SlottedOnOff(count=count, stay_off=off, stay_on=on, peak=peak):
            kernel = np.array([[off, 1.0 - off], [1.0 - on, on]])
            return _two_states(count, kernel, arrival.on_probability, peak, slotted=True)
        case FluidOnOff(count=count, off_to_on=up, on_to_off=down, peak=peak):
            kernel = np.array([[-up, up], [down, -down]])
            return _two_states(count, kernel, up / (up + down), peak, slotted=False)
        case _:
            return None


def _one_state(log_moment: Callable[[float], float], largest: float, theta_max: float, *, slotted: bool) -> Modulation:
    return Modulation(
        count=1, slotted=slotted, kernel=np.array([[1.0 if slotted else 0.0]]), law=np.ones(1),
        log_moments=lambda theta: np.array([log_moment(theta)]), largest=np.array([largest]), theta_max=theta_max,
    )  # fmt: skip


def _two_states(count: int, kernel: Floats, on: float, peak: float, *, slotted: bool) -> Modulation:
    work = np.array([0.0, peak])
    return Modulation(
        count=count, slotted=slotted, kernel=kernel, law=np.array([1.0 - on, on]),
        log_moments=lambda theta: theta * work, largest=work, theta_max=math.inf,
    )  # fmt: skip


@lru_cache(maxsize=512)
def shared_queue(own: tuple[Arrival, ...], cross: tuple[Arrival, ...], capacity: float) -> SharedQueue | None:
    """Return the flows of one server as chains and bursts; None where one is neither.

    Raises:
        UnstableError: The mean rates reach the capacity.
    """
    if overloaded(sum(mean_rate(a) for a in (*own, *cross)), capacity):
        raise UnstableError
    sides: list[tuple[Modulation, ...]] = []
    buckets: list[list[TokenBucket]] = []
    for flows in (own, cross):
        parts = parts_of(flows)
        buckets.append([part for part in parts if isinstance(part, TokenBucket)])
        chains = [chain_of(part) for part in parts if not isinstance(part, TokenBucket)]
        known = tuple(chain for chain in chains if chain is not None)
        if len(known) < len(chains):
            return None
        sides.append(known)
    crossing = math.fsum(b.rate for b in buckets[1])
    return SharedQueue(
        own=sides[0], cross=sides[1],
        past_rate=capacity - crossing - math.fsum(b.rate for b in buckets[0]), future_rate=capacity - crossing,
        burst=math.fsum(b.burst for side in buckets for b in side),
    )  # fmt: skip


def decay_of(chains: Sequence[Modulation], rate: float) -> float:
    """Return theta*: the growths of all chains together equal theta times the rate; rounded down."""
    scale = _scale(chains, rate)

    def exponent(u: float) -> float:
        theta = u * scale
        total = math.fsum(c.count * c.growth(theta, backwards=True)[0] for c in chains)
        return (total - theta * rate) / (rate * scale)

    end = min((c.theta_max for c in chains), default=math.inf)
    return largest_root(exponent, end / scale) * scale


def _scale(chains: Sequence[Modulation], rate: float) -> float:
    """Return a theta of the right order: one over the work of a slot, or of a stay in a state, or of a job."""
    ends = [c.theta_max for c in chains if math.isfinite(c.theta_max)]
    if ends:
        return min(ends)
    if chains[0].slotted:
        return 1.0 / rate
    speed = max(float(np.abs(np.diag(c.kernel)).max()) for c in chains)
    return speed / rate if speed > 0.0 else 1.0 / rate


def product_tail(arrivals: Sequence[Arrival], capacity: float, backlog: float) -> TailBound | None:
    """Return the martingale bound on P(backlog > x) of independent flows at a constant rate.

    None where some flow is known by a regulator of random effect only (leaky buckets, EBB).

    Raises:
        UnstableError: The mean rates reach the capacity.
    """
    queue = shared_queue(tuple(arrivals), (), capacity)
    if queue is None:
        return None
    return blind_tail_of(queue, 0.0, backlog)


def blind_tail(
    own: Sequence[Arrival],
    cross: Sequence[Arrival],
    *,
    capacity: float,
    delay: float,
    job_moment: "JobMoment | None" = None,
    rung_class: RungClass = RungClass.SHARP,
) -> TailBound | None:
    """Return a bound on P(W > delay) of `own`, whatever the order in which it and `cross` are served.

    Args:
        own: Independent flows of interest.
        cross: Independent cross traffic, independent of `own`.
        capacity: Constant rate of the server.
        delay: d, in slots where the flows are slotted.
        job_moment: ln E exp(theta S) of a job that arrives at the instant asked for (its sojourn is bounded).
        rung_class: FAST bounds the cross traffic of the delay by its growth instead of a power of its kernel.

    Raises:
        UnstableError: The mean rates reach the capacity.
    """
    queue = shared_queue(tuple(own), tuple(cross), capacity)
    exactly = rung_class is RungClass.SHARP
    return None if queue is None else blind_tail_of(queue, delay, 0.0, job_moment, exactly=exactly)


JobMoment: TypeAlias = Callable[[float], float]


def blind_tail_of(
    queue: SharedQueue, delay: float, backlog: float, job_moment: JobMoment | None = None, *, exactly: bool = True
) -> TailBound:
    """Return the least of the martingale bounds over a few theta <= theta*."""
    level = backlog + queue.future_rate * delay - queue.burst
    ahead = sum(c.peak_rate for c in queue.cross) * delay if delay > 0.0 else 0.0
    # Work that cannot exceed the level after the instant leaves the passage to the past, which must then overload.
    falling = ahead <= level
    if job_moment is None and never_exceeds(sum(c.peak_rate for c in queue.chains), queue.past_rate):
        return certain(0.0, "deterministic-cap", ("peak-rate",)) if falling else certain(1.0, "trivial", ())
    if level < 0.0:
        return certain(1.0, "trivial", ())
    best, best_theta = math.inf, 0.0
    for start in _starts(queue)[:: 1 if exactly else 2]:
        stem = start.log_start + _log_cross_ahead(start, delay, exactly=exactly) - start.theta * level
        bound = stem - start.everywhere
        if job_moment is not None:
            bound += job_moment(start.theta)
        elif falling:
            bound = min(bound, stem - start.rising)
        else:
            for alone in _alone(queue, start.theta, delay, level, exactly=exactly):
                bound = min(bound, float(np.logaddexp(stem - start.rising, alone)))
        if bound < best:
            best, best_theta = bound, start.theta
    return bound_of_log(best, "product-martingale", _ASSUMPTIONS, theta=best_theta)


@dataclass(frozen=True, slots=True, eq=False)
class _Start:
    """What the martingale at one theta knows before a question is asked.

    Attributes:
        theta: Of the martingale.
        log_start: ln E of its first value, of the chains that stop at the instant asked for.
        crossing: Per cross chain, ln of law, vector and first slot together; its last factor depends on the delay.
        everywhere: The least of ln prod g.
        rising: The same over the states from which the backlog can rise.
    """

    theta: float
    log_start: float
    crossing: tuple[tuple[Modulation, Floats], ...]
    everywhere: float
    rising: float


@lru_cache(maxsize=512)
def _starts(queue: SharedQueue) -> tuple[_Start, ...]:
    """Return the martingales of a queue, which no question changes."""
    end = decay_of(queue.chains, queue.past_rate)
    return tuple(_start(queue, end * fraction) for fraction in _FRACTIONS)


def _start(queue: SharedQueue, theta: float) -> _Start:
    log_start = -theta * queue.past_rate if queue.chains[0].slotted else 0.0
    weights: list[tuple[Modulation, Floats]] = []
    crossing: list[tuple[Modulation, Floats]] = []
    for i, chain in enumerate(queue.chains):
        _, log_vector = chain.growth(theta, backwards=True)
        weights.append((chain, log_vector))
        terms = np.log(chain.law) + log_vector
        if chain.slotted:
            terms = terms + chain.log_moments(theta)
        if i < len(queue.own):
            log_start += chain.count * float(np.logaddexp.reduce(terms))
        else:
            crossing.append((chain, terms))
    return _Start(
        theta, log_start, tuple(crossing), math.fsum(c.count * float(v.min()) for c, v in weights),
        log_least_rising(weights, queue.past_rate),
    )  # fmt: skip


def _log_cross_ahead(start: _Start, delay: float, *, exactly: bool) -> float:
    """Return ln E of the first value of the cross chains with their work of the delay on top."""
    total = 0.0
    for chain, terms in start.crossing:
        ahead = _ahead(chain, start.theta, delay, exactly=exactly) if delay > 0.0 else 0.0
        total += chain.count * float(np.logaddexp.reduce(terms + ahead))
    return total


def _ahead(chain: Modulation, theta: float, delay: float, *, exactly: bool) -> Floats:
    """Return ln E exp(theta A(t, t + delay)) given each state at t, or in closed form a bound on it."""
    if exactly:
        return log_ahead(chain, theta, delay)
    growth, log_vector = _forward(chain, theta)
    # K 1 <= K g / min g, and K g <= growth g: the power is at most growth^delay g / min g.
    return log_vector - float(log_vector.min()) + delay * growth


@lru_cache(maxsize=8192)
def _forward(chain: Modulation, theta: float) -> tuple[float, Floats]:
    return chain.growth(theta, backwards=False)


def _alone(queue: SharedQueue, theta: float, delay: float, level: float, *, exactly: bool) -> list[float]:
    """Return Chernoff bounds on the probability that the cross traffic of the delay exceeds the level by itself."""
    end = min(c.theta_max for c in queue.cross)
    found: list[float] = []
    for factor in _ALONE if exactly else _ALONE_FAST:
        at = theta * factor
        if at >= end:
            continue
        total = 0.0
        for chain in queue.cross:
            ahead = np.log(chain.law) + _ahead(chain, at, delay, exactly=exactly)
            total += chain.count * float(np.logaddexp.reduce(ahead))
        found.append(total - at * level)
    return found
