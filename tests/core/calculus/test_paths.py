"""Paths: what is reduced exactly, what is bounded, and what is refused by name."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipaging.core import calculus as c
from aipaging.core.calculus.candidates import epsilons_any_dependence, poisson_exponential_tails
from aipaging.core.foundation.errors import InvalidInputError

EXP = c.ExponentialWork(mean=1.0)
VIDEO = c.CompoundPoisson(rate=0.5, work=EXP)
SLOTS = c.SlottedWork(works=(EXP,))
FLOWS = c.SlottedOnOff(count=3, stay_off=0.95, stay_on=0.9, peak=1.0)


def rate(r: float, latency: float = 0.0, **rest: object) -> c.Domain:
    return c.Domain(name="d", service=c.RateLatency(rate=r, latency=latency), **rest)  # type: ignore[arg-type]


def probability(arrival: c.Arrival | None, domains: list[c.Domain], delay: float) -> float:
    return c.bound_path(arrival, domains, delay).bound.probability


SERVERS = st.builds(c.RateLatency, rate=st.floats(0.1, 10), latency=st.floats(0, 10))


@given(SERVERS, SERVERS, SERVERS)
def test_convolution_is_a_commutative_semigroup(a: c.RateLatency, b: c.RateLatency, d: c.RateLatency) -> None:
    assert c.convolve([a, b]) == c.convolve([b, a])
    left, right = c.convolve([c.convolve([a, b]), d]), c.convolve([a, c.convolve([b, d])])
    assert left.rate == right.rate
    assert left.latency == pytest.approx(right.latency)


@given(st.floats(0, 10), st.floats(0, 1), SERVERS, SERVERS)
def test_bursts_are_paid_only_once(burst: float, share: float, a: c.RateLatency, b: c.RateLatency) -> None:
    flow = c.TokenBucket(burst=burst, rate=0.99 * share * min(a.rate, b.rate))
    together = c.horizontal_deviation(flow, c.convolve([a, b]))
    one_by_one = c.horizontal_deviation(flow, a) + c.horizontal_deviation(c.deconvolve(flow, a), b)
    assert together <= one_by_one * (1 + 1e-9)
    assert c.vertical_deviation(flow, a) == pytest.approx(burst + flow.rate * a.latency)


def test_a_packetiser_waits_for_one_packet() -> None:
    assert c.RateLatency(rate=2.0, latency=1.0).packetised(3.0).latency == 2.5


@pytest.mark.parametrize("act", [c.horizontal_deviation, c.vertical_deviation, c.deconvolve])
def test_a_bucket_above_the_rate_is_unstable(act: object) -> None:
    with pytest.raises(c.UnstableError):
        act(c.TokenBucket(burst=1.0, rate=3.0), c.RateLatency(rate=2.0, latency=0.0))  # type: ignore[operator]
    with pytest.raises(c.UnstableError):
        c.RateLatency(rate=2.0, latency=0.0).leftover(c.TokenBucket(burst=0.0, rate=2.0))
    with pytest.raises(InvalidInputError):
        c.convolve([])


def test_latency_shifts_the_tail_exactly() -> None:
    assert probability(VIDEO, [rate(1.0, 2.0), rate(3.0, 1.0)], 13.0) == pytest.approx(0.5 * math.exp(-5.0))
    assert probability(VIDEO, [rate(1.0, 20.0)], 13.0) == 1.0
    with pytest.raises(c.UnstableError):
        probability(VIDEO, [rate(0.4, 20.0)], 13.0)


def test_deterministic_paths_have_a_worst_case() -> None:
    flow, cross = c.TokenBucket(burst=10.0, rate=20.0), c.TokenBucket(burst=10.0, rate=30.0)
    shared = [rate(100.0, 1.0, cross=(cross,), discipline=c.Discipline.BLIND)] * 3
    found = c.delay_of_path(flow, shared, 1e-9)
    assert found.delay == pytest.approx(4.857142857142857)
    assert found.bound.probability == 0.0
    assert probability(flow, shared, 4.0) == 1.0
    assert 0.0 < probability(flow, [rate(100.0, cross=(SLOTS,), discipline=c.Discipline.BLIND)], 1.0) < 1e-20


def test_fifo_is_better_than_blind() -> None:
    own, cross = FLOWS, (c.SlottedOnOff(count=4, stay_off=0.95, stay_on=0.9, peak=1.0),)
    fifo = probability(own, [rate(4.0, cross=cross, discipline=c.Discipline.FIFO)], 10.0)
    blind = probability(own, [rate(4.0, cross=cross, discipline=c.Discipline.BLIND)], 10.0)
    assert fifo < blind < 1.0


def test_any_dependence_costs_more_than_independence() -> None:
    def domain(dependence: c.Dependence) -> c.Domain:
        return rate(4.0, cross=(SLOTS,), discipline=c.Discipline.BLIND, dependence=dependence)

    independent = c.bound_path(SLOTS, [domain(c.Dependence.INDEPENDENT)], 20.0).bound
    anyhow = c.bound_path(SLOTS, [domain(c.Dependence.ANY)], 20.0).bound
    assert independent.probability < anyhow.probability < 1.0
    assert anyhow.rung == "rate-split"


def test_impaired_paths_need_independence() -> None:
    wireless = c.Domain(name="w", service=c.OnOffService(rate=2.0, availability=0.9))
    assert probability(SLOTS, [wireless] * 2, 20.0) < 1e-3
    tied = c.Domain(name="w", service=wireless.service, dependence=c.Dependence.ANY)
    assert probability(SLOTS, [wireless] * 2, 40.0) < probability(SLOTS, [wireless, tied], 40.0) < 1.0
    deficit = c.Domain(name="e", service=c.ImpairedRateLatency(rate=2.0, latency=1.0, prefactor=1.0, decay=1.0))
    assert 0.0 < probability(SLOTS, [deficit] * 2, 40.0) < 1e-3
    assert probability(SLOTS, [deficit] * 2, 1.0) == 1.0


def test_exponential_servers_answer_sojourns() -> None:
    server = c.Domain(name="s", service=c.ExponentialServer(rate=1.0))
    assert probability(VIDEO, [server], 10.0) == pytest.approx(math.exp(-5.0))
    with pytest.raises(c.NotAttestedError):
        probability(VIDEO, [replace(server, cross=(VIDEO,), discipline=c.Discipline.BLIND)], 10.0)


def test_what_has_no_proof_is_refused() -> None:
    with pytest.raises(c.NotAttestedError):
        probability(VIDEO, [rate(2.0, cross=(SLOTS,), discipline=c.Discipline.BLIND)], 10.0)
    with pytest.raises(InvalidInputError):
        probability(None, [rate(2.0)], 10.0)
    with pytest.raises(InvalidInputError):
        probability(VIDEO, [], 10.0)
    with pytest.raises(InvalidInputError):
        c.OnOffService(rate=1.0, availability=1.5)


@pytest.mark.parametrize("epsilon", [0.5, 1e-3, 1e-12, 1e-40])
def test_the_delay_is_the_least_that_proves_epsilon(epsilon: float) -> None:
    for arrival, domains in ((VIDEO, [rate(1.0, 2.0)]), (SLOTS, [rate(1.5)]), (FLOWS, [rate(2.0)])):
        found = c.delay_of_path(arrival, domains, epsilon, rung_class=c.RungClass.FAST)
        assert found.bound.probability <= epsilon
        less = found.delay - 1.0 if arrival is not VIDEO else found.delay * (1 - 1e-6)
        if less > 2.0:
            assert c.bound_path(arrival, domains, less, rung_class=c.RungClass.FAST).bound.probability > epsilon


def test_arrivals_superpose_where_a_kind_exists() -> None:
    assert c.superpose([VIDEO, VIDEO]) == c.CompoundPoisson(rate=1.0, work=EXP)
    assert c.superpose([FLOWS, FLOWS]) == c.SlottedOnOff(count=6, stay_off=0.95, stay_on=0.9, peak=1.0)
    fluid = c.FluidOnOff(count=2, off_to_on=1.0, on_to_off=2.0, peak=3.0)
    assert c.superpose([fluid]) == fluid
    other = c.FluidOnOff(count=2, off_to_on=1.0, on_to_off=2.0, peak=4.0)
    assert c.superpose([fluid, other]) == c.Superposition(parts=(fluid, other))
    assert c.superpose([c.Superposition(parts=(fluid, other)), fluid]) == c.superpose([fluid, fluid, other])
    buckets = c.LeakyBuckets(count=2, burst=1.0, rate=1.0)
    assert c.superpose([buckets, buckets]) == c.LeakyBuckets(count=4, burst=1.0, rate=1.0)
    flow = c.TokenBucket(burst=1.0, rate=2.0)
    assert c.superpose([flow, flow]) == c.TokenBucket(burst=2.0, rate=4.0)
    assert c.superpose([SLOTS, SLOTS]) == c.SlottedWork(works=(EXP, EXP))
    mixed = c.superpose([VIDEO, c.CompoundPoisson(rate=1.0, work=c.ConstantWork(value=1.0))])
    assert isinstance(mixed, c.Superposition)
    assert mixed.mean_rate == 1.5
    assert c.superpose([FLOWS, VIDEO]) is None
    assert c.superpose([c.ExponentiallyBounded(rate=1.0, prefactor=1.0, decay=1.0), SLOTS]) is not None
    with pytest.raises(InvalidInputError):
        c.Superposition(parts=(FLOWS, VIDEO))
    with pytest.raises(InvalidInputError):
        c.SlottedWork(works=())


@pytest.mark.parametrize("arrival", [VIDEO, SLOTS, FLOWS, c.LeakyBuckets(count=2, burst=1.0, rate=0.25)])
def test_repr_rebuilds_the_value(arrival: c.Arrival) -> None:
    assert eval(repr(arrival), vars(c)) == arrival
    assert c.mean_rate(arrival) > 0.0


def test_candidates_equal_the_scalar_budget() -> None:
    rng = np.random.default_rng(0)
    n = 300
    offsets, decays = rng.uniform(0, 5, (n, 4)), rng.uniform(0.1, 2, (n, 4))
    prefactors, delays = np.exp(rng.uniform(-6, 2, (n, 4))), rng.uniform(0, 80, n)
    ours = epsilons_any_dependence(offsets, prefactors, decays, delays)
    for row in range(n):
        contracts = [
            c.DelayContract(offset_ms=t, prefactor=m, decay_per_ms=e)
            for t, m, e in zip(offsets[row], prefactors[row], decays[row], strict=True)
        ]
        assert ours[row] == pytest.approx(c.epsilon_any_dependence(contracts, delays[row]).epsilon, rel=1e-9)
    with pytest.raises(InvalidInputError):
        epsilons_any_dependence(offsets, prefactors, decays, delays[:-1])
    with pytest.raises(InvalidInputError):
        epsilons_any_dependence(offsets, 0.0 * prefactors, decays, delays)


def test_candidate_queues_equal_the_scalar_one() -> None:
    at = poisson_exponential_tails(np.array([0.5, 1.0]), np.ones(2), np.ones(2), np.array([10.0, 10.0]))
    assert at == pytest.approx([0.5 * math.exp(-5.0), 1.0])
