"""One queue at a constant rate: the ladder of bounds on its backlog, by kind of arrival.

`backlog_tail` bounds P(backlog > x) at an arbitrary instant; a delay d at rate C is the backlog C d, and a
rate-latency server (R, T) gives x = R (d - T). Rungs are tried from the sharpest class that was asked for;
the least bound wins.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final

from aipaging.core.calculus.arrivals import (
    CONTINUOUS,
    Arrival,
    CompoundPoisson,
    SlottedWork,
    Superposition,
    mean_rate,
    parts_of,
)
from aipaging.core.calculus.bound import RungClass, TailBound, bound_of, bound_of_log, certain, least
from aipaging.core.calculus.deterministic import TokenBucket
from aipaging.core.calculus.errors import NotAttestedError, UnstableError, never_exceeds, overloaded, require_positive
from aipaging.core.calculus.fluid_exact import fluid_exact_tail
from aipaging.core.calculus.fluid_martingales import ALLOWANCE, fluid_martingales
from aipaging.core.calculus.interval import moments_of, no_factor
from aipaging.core.calculus.modulated import MarkovFluid, MarkovPoisson, MarkovSlots
from aipaging.core.calculus.onoff import FluidOnOff, SlottedOnOff, fluid_martingale, slotted_martingale, slotted_union
from aipaging.core.calculus.onoff_lattice import backlog_lattice
from aipaging.core.calculus.pollaczek import lundberg_decay, workload_law
from aipaging.core.calculus.product import product_tail
from aipaging.core.calculus.queue_exact import (
    exponential_slots,
    poisson_constant_tail,
    poisson_exponential_tail,
    two_exponentials_per_slot,
)
from aipaging.core.calculus.regulated import (
    ExponentiallyBounded,
    LeakyBuckets,
    deterministic_delay,
    exponentially_bounded_tail,
    leaky_bucket_tail,
    unlike_buckets_tail,
)
from aipaging.core.calculus.rounding import RELATIVE_UP, largest_root
from aipaging.core.calculus.tandem import log_constant
from aipaging.core.calculus.tandem_union import Stage, UnionTandem, union_tail
from aipaging.core.calculus.work import ConstantWork, ExponentialWork

STATIONARY: Final = "stationary"
INDEPENDENT_SLOTS: Final = "independent-slots"
INDEPENDENT_FLOWS: Final = "independent-flows"
POISSON: Final = "poisson-arrivals"
INDEPENDENT_WORK: Final = "independent-work"
REGULATED: Final = "regulated"

_TWO: Final = 2


def backlog_tail(arrival: Arrival, capacity: float, backlog: float, rung_class: RungClass) -> TailBound:
    """Return the least bound on P(backlog > x) at a server that gives `capacity` to this arrival alone.

    Args:
        arrival: What arrives.
        capacity: Work per unit of time, or per slot.
        backlog: x; below 0 the answer is 1.
        rung_class: FAST uses closed forms only.

    Raises:
        UnstableError: The mean arrival rate reaches the capacity.
    """
    require_positive(capacity=capacity)
    if overloaded(mean_rate(arrival), capacity) and not isinstance(arrival, TokenBucket):
        raise UnstableError
    if backlog < 0.0:
        return certain(1.0, "trivial", ())
    sharp = rung_class is RungClass.SHARP
    match arrival:
        case CompoundPoisson():
            return _jobs(arrival, capacity, backlog, sharp=sharp)
        case FluidOnOff() | SlottedOnOff():
            return _on_off(arrival, capacity, backlog, sharp=sharp)
        case SlottedWork():
            return _slots(arrival, capacity, backlog)
        case MarkovSlots() | MarkovFluid() | MarkovPoisson() | Superposition():
            return _unlike(arrival, capacity, backlog, sharp=sharp)
        case _:
            return _regulated(arrival, capacity, backlog)


def _regulated(
    arrival: LeakyBuckets | ExponentiallyBounded | TokenBucket, capacity: float, backlog: float
) -> TailBound:
    if isinstance(arrival, LeakyBuckets):
        return _buckets(arrival, capacity, backlog)
    if isinstance(arrival, ExponentiallyBounded):
        value = exponentially_bounded_tail(arrival, capacity, backlog / capacity)
        return TailBound(probability=value, rung="ebb-union", assumptions=("exponentially-bounded-burstiness",))
    if arrival.rate > capacity:
        raise UnstableError
    return certain(0.0 if backlog >= arrival.burst else 1.0, "deterministic-cap", (REGULATED,))


def _jobs(arrival: CompoundPoisson, capacity: float, backlog: float, *, sharp: bool) -> TailBound:
    work, delay = arrival.work, backlog / capacity
    assumptions = (POISSON, INDEPENDENT_WORK, STATIONARY)
    if isinstance(work, ExponentialWork):
        exact = poisson_exponential_tail(arrival_rate=arrival.rate, mean=work.mean, capacity=capacity, delay=delay)
        theta = (1.0 / work.mean) - arrival.rate / capacity
        return TailBound(probability=exact, rung="mm1-exact", assumptions=assumptions, parameters={"theta": theta})
    theta = lundberg_decay(work, arrival_rate=arrival.rate, capacity=capacity)
    rungs = [bound_of_log(-theta * backlog, "lundberg", assumptions, theta=theta)]
    if sharp:
        crommelin = None
        if isinstance(work, ConstantWork):
            crommelin = poisson_constant_tail(
                arrival_rate=arrival.rate, size=work.value, capacity=capacity, delay=delay
            )
        if crommelin is not None:
            rungs.insert(0, TailBound(probability=crommelin, rung="md1-exact", assumptions=assumptions))
        else:
            law = workload_law(work, arrival_rate=arrival.rate, capacity=capacity)
            upper = law.tail(delay).upper
            rungs.insert(
                0,
                TailBound(
                    probability=upper,
                    rung="pollaczek-khinchine",
                    assumptions=assumptions,
                    parameters={"theta": law.decay_low / capacity, "cell": law.cell},
                    numeric_error=1e-7,
                ),
            )
    return least(rungs)


def _slots(arrival: SlottedWork, capacity: float, backlog: float) -> TailBound:
    assumptions = (INDEPENDENT_SLOTS, STATIONARY)
    means = [work.mean for work in arrival.works if isinstance(work, ExponentialWork)]
    if len(means) == len(arrival.works) and len(means) <= 2:
        ladder = (
            exponential_slots(means[0], capacity)
            if len(means) == 1
            else two_exponentials_per_slot((means[0], means[1]), capacity)
        )
        return TailBound(
            probability=ladder.tail(backlog),
            rung="ladder-exact",
            assumptions=assumptions,
            parameters={"theta": ladder.rates[0], "prefactor": ladder.weights[0]},
        )
    if never_exceeds(sum(work.largest for work in arrival.works), capacity):
        return certain(0.0, "deterministic-cap", assumptions)
    theta = _kingman_decay(arrival, capacity)
    return bound_of_log(-theta * backlog, "kingman", assumptions, theta=theta)


@lru_cache(maxsize=1024)
def _kingman_decay(arrival: SlottedWork, capacity: float) -> float:
    scale = 1.0 / capacity
    return largest_root(lambda u: arrival.log_mgf(u * scale) - u, arrival.theta_max / scale) * scale


def _on_off(arrival: FluidOnOff | SlottedOnOff, capacity: float, backlog: float, *, sharp: bool) -> TailBound:
    if isinstance(arrival, FluidOnOff):
        return _fluid(arrival, capacity, backlog, sharp=sharp)
    return _in_slots(arrival, capacity, backlog, sharp=sharp)


def _fluid(arrival: FluidOnOff, capacity: float, backlog: float, *, sharp: bool) -> TailBound:
    assumptions = (INDEPENDENT_FLOWS, STATIONARY)
    if never_exceeds(arrival.peak_rate, capacity):
        return certain(0.0, "deterministic-cap", ("peak-rate",))
    one, theta = fluid_martingale(arrival, capacity, backlog)
    together, count = fluid_martingales(arrival, capacity, backlog)
    if together < one:
        bound = bound_of_log(together, "onoff-martingale", assumptions, theta=theta, martingales=count)
        rungs = [replace(bound, numeric_error=RELATIVE_UP + ALLOWANCE)]
    else:
        rungs = [bound_of_log(one, "onoff-martingale", assumptions, theta=theta, martingales=1)]
    exact = fluid_exact_tail(arrival, capacity, backlog) if sharp else None
    if exact is not None:
        rungs.insert(
            0,
            TailBound(
                probability=exact, rung="anick-mitra-sondhi", assumptions=assumptions, parameters={"theta": theta}
            ),
        )
    return least(rungs)


def _in_slots(arrival: SlottedOnOff, capacity: float, backlog: float, *, sharp: bool) -> TailBound:
    assumptions = (INDEPENDENT_FLOWS, STATIONARY)
    if never_exceeds(arrival.peak_rate, capacity):
        return certain(0.0, "deterministic-cap", ("peak-rate",))
    log_bound, theta = slotted_martingale(arrival, capacity, backlog)
    rungs = [bound_of_log(log_bound, "onoff-martingale", assumptions, theta=theta)]
    if sharp or arrival.stay_off + arrival.stay_on < 1.0:
        log_union, union_theta = slotted_union(arrival, capacity, backlog)
        rungs.append(bound_of_log(log_union, "mgf-union", assumptions, theta=union_theta))
    lattice = backlog_lattice(arrival, capacity, backlog) if sharp else None
    if lattice is not None:
        rungs.append(
            TailBound(
                probability=lattice.tail(backlog),
                rung="onoff-lattice",
                assumptions=assumptions,
                parameters={"theta": theta, "cell": lattice.cell},
                numeric_error=1e-9,
            )
        )
    return least(rungs)


def _unlike(
    arrival: MarkovSlots | MarkovFluid | MarkovPoisson | Superposition, capacity: float, backlog: float, *, sharp: bool
) -> TailBound:
    """Bound chains and independent flows of unlike kinds: one martingale for all, or the union in slots."""
    rungs: list[TailBound] = []
    if isinstance(arrival, MarkovFluid) and len(arrival.rates) == _TWO and len(set(arrival.rates)) == _TWO:
        rungs.append(_fluid_of_two_states(arrival, capacity, backlog, sharp=sharp))
    product = product_tail([arrival], capacity, backlog)
    if product is not None:
        rungs.append(product)
    parts = parts_of([arrival])
    regulated = [part for part in parts if isinstance(part, LeakyBuckets | TokenBucket)]
    if len(regulated) == len(parts):
        rungs.append(_regulated_together(regulated, capacity, backlog))
    elif (sharp or not rungs) and not any(isinstance(part, CONTINUOUS) for part in parts):
        try:
            rungs.append(_interval_union(arrival, capacity, backlog))
        except UnstableError:
            # Loads next to 1: the range of theta is too narrow for the grid, while the martingale has its root.
            if not rungs:
                raise
    if not rungs:
        raise NotAttestedError("no rung is proven for these arrivals together")
    return least(rungs)


def _fluid_of_two_states(arrival: MarkovFluid, capacity: float, backlog: float, *, sharp: bool) -> TailBound:
    """Bound chains of two states as on/off flows: what they always send is taken off the capacity."""
    low = arrival.rates.index(min(arrival.rates))
    flows = FluidOnOff(
        count=arrival.count,
        off_to_on=arrival.generator[low][1 - low],
        on_to_off=arrival.generator[1 - low][low],
        peak=arrival.rates[1 - low] - arrival.rates[low],
    )
    return _fluid(flows, capacity - arrival.count * arrival.rates[low], backlog, sharp=sharp)


def _regulated_together(parts: Sequence[LeakyBuckets | TokenBucket], capacity: float, backlog: float) -> TailBound:
    if backlog >= math.fsum(_count(part) * part.burst for part in parts) * (1.0 - 1e-13):
        return certain(0.0, "deterministic-cap", (REGULATED,))
    buckets = [p for p in parts if isinstance(p, LeakyBuckets)]
    certain_part = [p for p in parts if isinstance(p, TokenBucket)]
    left = backlog - math.fsum(p.burst for p in certain_part)
    rate = capacity - math.fsum(p.rate for p in certain_part)
    value = unlike_buckets_tail(buckets, rate, left) if left >= 0.0 else 1.0
    return TailBound(probability=value, rung="regulated-union", assumptions=(REGULATED, INDEPENDENT_FLOWS, STATIONARY))


def _count(part: LeakyBuckets | TokenBucket) -> int:
    return part.count if isinstance(part, LeakyBuckets) else 1


def _interval_union(arrival: Arrival, capacity: float, backlog: float) -> TailBound:
    stage = Stage(
        log_service=log_constant(capacity), log_sigma=no_factor, latency=0.0, rate=capacity, theta_max=math.inf,
        memoryless=True, constant=True,
    )  # fmt: skip
    tandem = UnionTandem(arrival=moments_of([arrival]), stages=(stage,), crossings=())
    return union_tail(tandem, slots=0, backlog=backlog, assumptions=(INDEPENDENT_FLOWS, STATIONARY))


def _buckets(arrival: LeakyBuckets, capacity: float, backlog: float) -> TailBound:
    delay = backlog / capacity
    if delay >= deterministic_delay(arrival, capacity) * (1.0 - 1e-13):
        return certain(0.0, "deterministic-cap", (REGULATED,))
    value = leaky_bucket_tail(arrival, capacity, delay)
    assumptions = (REGULATED, INDEPENDENT_FLOWS, STATIONARY)
    return bound_of(value, "regulated-union", assumptions) if math.isfinite(value) else certain(1.0, "trivial", ())
