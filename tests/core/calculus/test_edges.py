"""The edges: overload in every module by name, answers that are 0 or 1 by a theorem, limits of effort."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from aipaging.core import calculus as c
from aipaging.core.calculus.bound import delay_for
from aipaging.core.calculus.chain_states import log_ahead, log_least_rising
from aipaging.core.calculus.deficit import deficit_bound
from aipaging.core.calculus.fluid_exact import FLOWS_MAX, fluid_exact_tail
from aipaging.core.calculus.hypoexponential import hypoexponential_tail
from aipaging.core.calculus.interval import moments_of
from aipaging.core.calculus.onoff import fluid_decay, fluid_martingale, slotted_decay, slotted_martingale
from aipaging.core.calculus.onoff_lattice import backlog_lattice
from aipaging.core.calculus.pollaczek import lundberg_decay, sojourn_tail
from aipaging.core.calculus.priority import low_priority_tail
from aipaging.core.calculus.product import blind_tail, chain_of, product_tail
from aipaging.core.calculus.queue_exact import (
    exponential_slots,
    exponential_slots_onoff_service,
    poisson_constant_tail,
    poisson_exponential_tail,
    two_exponentials_per_slot,
)
from aipaging.core.calculus.rate_split import rate_split_tail
from aipaging.core.calculus.regulated import exponentially_bounded_tail, leaky_bucket_tail, unlike_buckets_tail
from aipaging.core.calculus.rounding import largest_root, whole_slots
from aipaging.core.calculus.tandem import SlottedTandem, log_constant, log_exponential, stable_end, tandem_log_bound
from aipaging.core.foundation.errors import InvalidInputError

FAST, SHARP = c.RungClass.FAST, c.RungClass.SHARP
FLUID = c.FluidOnOff(count=4, off_to_on=1.0, on_to_off=1.0, peak=0.5)
SLOTTED = c.SlottedOnOff(count=4, stay_off=0.9, stay_on=0.9, peak=0.5)
SLOTS = c.SlottedWork(works=(c.ExponentialWork(mean=1.0),))
ONE = c.ConstantWork(value=1.0)
BUCKETS = c.LeakyBuckets(count=2, burst=1.0, rate=0.5)
CONTRACT = c.DelayContract(offset_ms=1.0, prefactor=1.0, decay_per_ms=1.0)
BOUNDED = c.ExponentiallyBounded(rate=1.0, prefactor=1.0, decay=1.0)

OVERLOADED: list[Callable[[], object]] = [
    lambda: fluid_decay(FLUID, 1.0),
    lambda: slotted_decay(SLOTTED, 1.0),
    lambda: fluid_exact_tail(FLUID, 1.0, 1.0),
    lambda: exponential_slots(1.0, 1.0),
    lambda: exponential_slots_onoff_service(1.0, 2.0, 0.5),
    lambda: two_exponentials_per_slot((0.5, 0.5), 1.0),
    lambda: poisson_exponential_tail(arrival_rate=1.0, mean=1.0, capacity=1.0, delay=1.0),
    lambda: poisson_constant_tail(arrival_rate=1.0, size=1.0, capacity=1.0, delay=1.0),
    lambda: lundberg_decay(ONE, arrival_rate=1.0),
    lambda: c.workload_law(ONE, arrival_rate=1.0),
    lambda: leaky_bucket_tail(BUCKETS, 1.0, 1.0),
    lambda: unlike_buckets_tail([BUCKETS], 1.0, 1.0),
    lambda: exponentially_bounded_tail(BOUNDED, 1.0, 1.0),
    lambda: low_priority_tail(SLOTTED, SLOTTED, capacity=2.0, delay=1, rung_class=FAST),
    lambda: product_tail([SLOTTED], 1.0, 1.0),
    lambda: deficit_bound(SLOTS, [c.ImpairedRateLatency(rate=1.0, latency=0.0, prefactor=1.0, decay=1.0)], 5),
    lambda: rate_split_tail(
        partial(exponential_slots, 0.5), partial(exponential_slots, 0.5), means=(0.5, 0.5), capacity=1.0, delay=1
    ),
    lambda: c.backlog_tail(c.TokenBucket(burst=1.0, rate=2.0), 1.0, 1.0, FAST),
    lambda: stable_end(
        SlottedTandem(log_arrival=log_exponential(1.0), log_services=(log_constant(1.0),), theta_max=1.0)
    ),
    lambda: c.delay_of_path(
        c.TokenBucket(burst=1.0, rate=0.5),
        [c.Domain(name="d", service=c.RateLatency(rate=1.0, latency=0.0), discipline=c.Discipline.BLIND)],
        0.5,
        crossing=[c.CrossFlow(arrival=c.TokenBucket(burst=1.0, rate=1.0), first=0, last=0)],
    ),
]  # fmt: skip


@pytest.mark.parametrize("ask", OVERLOADED, ids=range(len(OVERLOADED)))
def test_overload_is_named_everywhere(ask: Callable[[], object]) -> None:
    with pytest.raises(c.UnstableError):
        ask()


def test_theorems_are_zero_or_one() -> None:
    assert fluid_exact_tail(FLUID, 2.0, 0.0) == 0.0
    assert fluid_martingale(FLUID, 2.0, 0.0)[0] == slotted_martingale(SLOTTED, 2.0, 0.0)[0] == -math.inf
    assert low_priority_tail(SLOTTED, SLOTTED, capacity=4.0, delay=0, rung_class=FAST).probability == 0.0
    assert exponential_slots(1.0, 2.0).tail(-1.0) == 1.0
    assert leaky_bucket_tail(BUCKETS, 2.0, 1.0) == unlike_buckets_tail([BUCKETS], 2.0, 2.0) == 0.0
    for arrival in (SLOTS, FLUID):
        assert c.backlog_tail(arrival, 3.0, -1.0, FAST).probability == 1.0
    assert c.backlog_tail(c.TokenBucket(burst=1.0, rate=2.0), 2.0, 1.0, FAST).probability == 0.0
    assert hypoexponential_tail([1.0], -1.0) == 1.0
    assert hypoexponential_tail([1.0], 0.0, present=[0.0]) == 0.0
    empty = product_tail([c.TokenBucket(burst=1.0, rate=0.5)], 1.0, 2.0)
    assert empty is not None
    assert empty.probability == 0.0
    early = blind_tail([SLOTTED], [c.TokenBucket(burst=50.0, rate=0.1)], capacity=1.5, delay=1.0)
    assert early is not None
    assert early.probability == 1.0
    assert c.BatchingServer(
        slots=4, base_time=1.0, time_per_request=0.5, reserved_slots=1, tokens_max=9
    ).slot_service_curve() == c.RateLatency(rate=1.0 / 3.0, latency=3.0)


def test_effort_is_limited_and_what_is_left_is_valid() -> None:
    many = replace(FLUID, count=FLOWS_MAX + 1)
    assert fluid_exact_tail(many, 150.0, 1.0) is None
    assert c.backlog_tail(many, 150.0, 1.0, SHARP).rung == "onoff-martingale"
    assert poisson_constant_tail(arrival_rate=0.9, size=1.0, capacity=1.0, delay=1e4) is None
    assert poisson_constant_tail(arrival_rate=1e-4, size=1.0, capacity=1.0, delay=399.0) is None
    assert leaky_bucket_tail(c.LeakyBuckets(count=9, burst=1e9, rate=1.0), 9.0001, 0.0) == 1.0
    assert unlike_buckets_tail([c.LeakyBuckets(count=9, burst=1e9, rate=1.0)], 9.0001, 0.0) == 1.0
    assert backlog_lattice(SLOTTED, 1.1, 1e6) is None
    assert math.isinf(delay_for(lambda _: 1.0, 0.5, scale=1.0, slotted=False))


def test_the_dual_of_the_least_weight_is_never_above_it() -> None:
    few = chain_of(c.MarkovFluid(count=3, generator=((-1.0, 1.0), (2.0, -2.0)), rates=(0.1, 1.0)))
    many = chain_of(c.FluidOnOff(count=5000, off_to_on=1.0, on_to_off=2.0, peak=1.0))
    assert few is not None
    assert many is not None
    vector = np.array([0.0, 0.7])
    assert log_least_rising([(few, vector)], 2.2) == pytest.approx(3 * 0.7)
    # 5000 chains: the dual, 0.7 for every unit of work beyond the rate.
    assert log_least_rising([(many, vector)], 2000.0) == pytest.approx(1400.0)


def test_work_ahead_agrees_with_the_chain() -> None:
    slots = chain_of(c.SlottedOnOff(count=1, stay_off=0.8, stay_on=0.6, peak=1.0))
    fluid = chain_of(c.FluidOnOff(count=1, off_to_on=0.5, on_to_off=1.0, peak=1.0))
    assert slots is not None
    assert fluid is not None
    kernel = slots.kernel @ np.diag([1.0, math.exp(0.7)])
    assert np.exp(log_ahead(slots, 0.7, 5.0)) == pytest.approx(np.linalg.matrix_power(kernel, 5).sum(axis=1))
    values, vectors = np.linalg.eig(fluid.kernel + np.diag([0.0, 0.7]))
    exact = (vectors @ np.diag(np.exp(values * 3.0)) @ np.linalg.inv(vectors)).sum(axis=1)
    assert np.exp(log_ahead(fluid, 0.7, 3.0)) == pytest.approx(exact, rel=1e-9)
    jobs = chain_of(c.CompoundPoisson(rate=1.0, work=c.ExponentialWork(mean=1.0)))
    assert jobs is not None
    assert np.isinf(log_ahead(jobs, 2.0, 1.0)).all()


def test_fluid_cross_traffic_of_a_fluid_flow() -> None:
    own, cross = (c.FluidOnOff(count=n, off_to_on=0.2, on_to_off=0.5, peak=1.0) for n in (2, 3))
    shared = c.Domain(
        name="d", service=c.RateLatency(rate=2.4, latency=0.0), cross=(cross,), discipline=c.Discipline.BLIND
    )  # fmt: skip
    fifo = replace(shared, discipline=c.Discipline.FIFO)
    blind, ordered = (c.bound_path(own, [d], 20.0, rung_class=FAST).bound.probability for d in (shared, fifo))
    assert 0.0 < ordered <= blind < 1e-2


@pytest.mark.parametrize(
    ("arrival", "domains"),
    [
        (c.Superposition(parts=(FLUID, c.CompoundPoisson(rate=0.1, work=ONE))), [c.ExponentialServer(rate=9.0)]),
        (SLOTS, [c.ExponentialServer(rate=9.0)]),
        (SLOTS, [CONTRACT, c.RateLatency(rate=2.0, latency=0.0)]),
        (c.CompoundPoisson(rate=0.1, work=ONE), [c.OnOffService(rate=1.0, availability=0.9)]),
    ],
)  # fmt: skip
def test_what_no_rung_is_proven_for(arrival: c.Arrival, domains: list[c.Service]) -> None:
    with pytest.raises(c.NotAttestedError):
        c.bound_path(arrival, [c.Domain(name="d", service=s) for s in domains], 5.0)


def test_continuous_flows_of_any_dependence_are_refused() -> None:
    jobs = c.CompoundPoisson(rate=0.2, work=ONE)
    shared = c.Domain(
        name="d", service=c.RateLatency(rate=1.0, latency=0.0), cross=(jobs,), discipline=c.Discipline.BLIND,
        dependence=c.Dependence.ANY,
    )  # fmt: skip
    with pytest.raises(c.NotAttestedError):
        c.bound_path(jobs, [shared], 5.0)
    late = replace(shared, service=c.RateLatency(rate=1.0, latency=9.0), dependence=c.Dependence.INDEPENDENT)
    assert c.bound_path(jobs, [late], 5.0).bound.probability == 1.0
    assert c.bound_path(jobs, [late] * 2, 15.0).bound.probability == 1.0


def test_contracts_and_their_inverse() -> None:
    path = [c.Domain(name=n, service=CONTRACT, dependence=c.Dependence.ANY) for n in "abc"]
    sharp, fast = (c.bound_path(None, path, 24.0, rung_class=r).bound for r in (SHARP, FAST))
    assert sharp.probability < fast.probability
    found = c.delay_of_path(None, path, 1e-6)
    assert found.bound.probability <= 1e-6
    for wrong in (0.0, 1.0):
        with pytest.raises(InvalidInputError):
            c.backlog_of_path(SLOTS, [c.Domain(name="d", service=c.RateLatency(rate=2.0, latency=0.0))], wrong)


def test_numbers_at_the_ends_of_their_ranges() -> None:
    assert whole_slots(2.5) == 2
    assert largest_root(lambda u: 1.0 if u > 0.0 else 0.0, math.inf) == 0.0
    assert largest_root(lambda _: -1.0, math.inf) > 1e11
    assert hypoexponential_tail([1.0, 1.0], 2000.0) > 0.0
    with pytest.raises(InvalidInputError):
        c.SlottedOnOff(count=1, stay_off=1.0, stay_on=0.5, peak=1.0)
    with pytest.raises(InvalidInputError):
        tandem_log_bound(
            SlottedTandem(log_arrival=log_exponential(0.5), log_services=(log_constant(1.0),), theta_max=2.0), -1
        )
    with pytest.raises(InvalidInputError):
        low_priority_tail(SLOTTED, replace(SLOTTED, peak=0.4), capacity=9.0, delay=1, rung_class=FAST)
    with pytest.raises(InvalidInputError):
        c.BatchingServer(slots=2, base_time=1.0, time_per_request=0.0, reserved_slots=3, tokens_max=1)
    assert moments_of([FLUID]).log_growth(np.array([0.5]))[0] == pytest.approx(0.5 * FLUID.rho(0.5))
    assert SLOTTED.rho(0.5) >= SLOTTED.mean_rate
    assert sojourn_tail(ONE, arrival_rate=0.5, delay=0.5) == 1.0


def test_light_and_drifting_works_keep_their_moments() -> None:
    for work in (
        c.TruncatedLogNormalWork(median=1.0, sigma=1.0, cap=4.0),
        c.TruncatedParetoWork(minimum=1.0, alpha=1.0, cap=4.0),
        c.DiscreteWork(values=(0.0, 2.0), probabilities=(0.5, 0.5)),
    ):
        # Jensen from below, the largest value from above; for -theta the moment of a service.
        assert 0.3 * work.mean <= work.log_mgf(0.3) <= 0.3 * work.largest
        assert -0.3 * work.mean <= work.log_mgf(-0.3) <= 0.0
        assert work.log_mgf(-50.0) <= 0.0
    with pytest.raises(InvalidInputError):
        c.TruncatedParetoWork(minimum=2.0, alpha=1.0, cap=1.0)
    assert c.scaled_work(ONE, 3.0) == c.ConstantWork(value=3.0)


@pytest.mark.parametrize("rung_class", [FAST, SHARP])
def test_a_load_next_to_one_is_answered(rung_class: c.RungClass) -> None:
    chain = c.MarkovSlots(count=2, transition=((0.9, 0.1), (0.2, 0.8)), works=(None, c.ExponentialWork(mean=0.6)))
    found = c.backlog_tail(chain, chain.mean_rate / 0.999999, 1e5, rung_class)
    assert 0.5 < found.probability <= 1.0
