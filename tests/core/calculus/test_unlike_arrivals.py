"""Chains, superpositions and shared servers against closed forms and seeded simulation."""

import math

import numpy as np
import pytest

from aipaging.core import calculus as c
from aipaging.core.calculus.product import product_tail
from aipaging.core.foundation.errors import InvalidInputError

ON_OFF = c.SlottedOnOff(count=4, stay_off=0.9, stay_on=0.7, peak=1.0)
AS_CHAIN = c.MarkovSlots(
    count=4, transition=((0.9, 0.1), (0.3, 0.7)), works=(None, c.ConstantWork(value=1.0))
)  # fmt: skip
RING = c.MarkovSlots(
    count=2,
    transition=((0.8, 0.2, 0.0), (0.0, 0.6, 0.4), (0.5, 0.0, 0.5)),
    works=(None, c.ExponentialWork(mean=0.4), c.ConstantWork(value=1.5)),
)
SLOTS = c.SlottedWork(works=(c.ExponentialWork(mean=0.5),))
FLUID = c.FluidOnOff(count=3, off_to_on=0.4, on_to_off=1.0, peak=1.0)
AS_FLUID = c.MarkovFluid(count=3, generator=((-0.4, 0.4), (1.0, -1.0)), rates=(0.0, 1.0))
BURSTY = c.MarkovPoisson(
    count=1, generator=((-0.05, 0.05), (0.2, -0.2)), rates=(0.3, 1.5), work=c.ExponentialWork(mean=1.0)
)  # fmt: skip


def backlog(arrival: c.Arrival, capacity: float, x: float) -> float:
    return c.backlog_tail(arrival, capacity, x, c.RungClass.FAST).probability


def lower_limit(exceeded: np.ndarray) -> float:
    batches = exceeded[: len(exceeded) // 200 * 200].reshape(200, -1).mean(axis=1)
    return float(batches.mean() - 4.0 * batches.std(ddof=1) / math.sqrt(200))


def lindley(increments: np.ndarray) -> np.ndarray:
    walk = np.cumsum(increments)
    return walk - np.minimum(np.minimum.accumulate(walk), 0.0)


def chain_path(rng: np.random.Generator, transition: np.ndarray, slots: int) -> np.ndarray:
    steps = np.cumsum(transition, axis=1)
    draws, state = rng.random(slots), 0
    states = np.empty(slots, dtype=int)
    for t in range(slots):
        state = int(np.searchsorted(steps[state], draws[t]))
        states[t] = min(state, len(transition) - 1)
    return states


def ring_slots(seed: int, slots: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    total = np.zeros(slots)
    for _ in range(2):
        states = chain_path(rng, np.array(RING.transition), slots)
        total += np.where(states == 1, rng.exponential(0.4, slots), np.where(states == 2, 1.5, 0.0))
    return total


def test_a_chain_of_two_states_is_the_on_off_flow() -> None:
    for x in (0.0, 2.0, 10.0):
        ours, known = (backlog(a, 2.2, x) for a in (AS_CHAIN, ON_OFF))
        assert ours == pytest.approx(known, rel=1e-6)
        fluid, same = (backlog(a, 1.6, x) for a in (AS_FLUID, FLUID))
        assert fluid == pytest.approx(same, rel=1e-9)
        always = c.MarkovFluid(count=3, generator=((-1.0, 1.0), (0.4, -0.4)), rates=(1.25, 0.25))
        assert backlog(always, 2.35, x) == pytest.approx(same, rel=1e-9), "the order of states does not matter"
    assert AS_CHAIN.mean_rate == pytest.approx(ON_OFF.mean_rate)
    assert AS_FLUID.mean_rate == pytest.approx(FLUID.mean_rate)


def test_a_chain_with_one_state_is_the_queue_it_describes() -> None:
    jobs = c.MarkovPoisson(count=1, generator=((0.0,),), rates=(0.8,), work=c.ExponentialWork(mean=1.0))
    # Kingman instead of the exact prefactor rho.
    assert backlog(jobs, 1.0, 20.0) == pytest.approx(math.exp(-0.2 * 20.0), rel=1e-6)
    slots = c.MarkovSlots(count=1, transition=((1.0,),), works=(c.ExponentialWork(mean=0.8),))
    assert backlog(slots, 1.0, 20.0) >= backlog(c.SlottedWork(works=(c.ExponentialWork(mean=0.8),)), 1.0, 20.0)


def test_a_chain_that_is_not_reversible_lies_above_simulation() -> None:
    seen = lindley(ring_slots(1, 200_000) - 1.9)
    for x, most in ((1.0, 15.0), (4.0, 100.0), (6.0, 150.0)):
        assert lower_limit(seen > x) <= backlog(RING, 1.9, x) <= most * float((seen > x).mean())


def test_modulated_jobs_lie_above_simulation() -> None:
    rng = np.random.default_rng(3)
    step, slots = 0.05, 400_000
    transition = np.eye(2) + step * np.array(BURSTY.generator)
    states = chain_path(rng, transition, slots)
    jobs = rng.poisson(step * np.array(BURSTY.rates)[states])
    work = np.array([rng.exponential(1.0, k).sum() if k else 0.0 for k in jobs])
    seen = lindley(work - 1.2 * step)
    for x in (2.0, 8.0):
        assert lower_limit(seen > x) <= backlog(BURSTY, 1.2, x) <= 7.0 * float((seen > x).mean())


def test_unlike_flows_together_lie_above_simulation() -> None:
    rng = np.random.default_rng(4)
    slots = 150_000
    on_off = sum(chain_path(rng, np.array(AS_CHAIN.transition), slots) for _ in range(4))
    seen = lindley(ring_slots(2, slots) + on_off + rng.exponential(0.5, slots) - 4.0)
    together = c.superpose([ON_OFF, RING, SLOTS])
    assert together is not None
    for x, most in ((2.0, 30.0), (6.0, 120.0)):
        assert lower_limit(seen > x) <= backlog(together, 4.0, x) <= most * float((seen > x).mean())


@pytest.mark.parametrize("discipline", [c.Discipline.FIFO, c.Discipline.BLIND])
def test_unlike_cross_traffic_at_one_server(discipline: c.Discipline) -> None:
    """The flow of slots is served last (the worst of blind multiplexing), or in order of arrival."""
    rng = np.random.default_rng(5)
    slots, delay, capacity = 150_000, 6, 3.0
    cross = ring_slots(3, slots)
    arrived = rng.exponential(0.5, slots)
    total = lindley(cross + arrived - capacity)
    if discipline is c.Discipline.BLIND:
        ahead = np.concatenate([[0.0], np.cumsum(cross - capacity)])
        late = np.ones(slots - delay, dtype=bool)
        for d in range(1, delay + 1):
            late &= total[: slots - delay] + ahead[1 + d : slots - delay + 1 + d] - ahead[1 : slots - delay + 1] > 0.0
        late &= total[: slots - delay] > 0.0
    else:
        late = total > capacity * delay
    domain = c.Domain(
        name="d", service=c.RateLatency(rate=capacity, latency=0.0), cross=(RING,), discipline=discipline
    )  # fmt: skip
    bound = c.bound_path(SLOTS, [domain], float(delay)).bound
    assert lower_limit(late) <= bound.probability < 1.0
    assert bound.rung in {"product-martingale", "mgf-union", "one-doob"}


def test_a_token_bucket_is_taken_off_the_rate() -> None:
    bucket = c.TokenBucket(burst=3.0, rate=0.5)
    for x in (5.0, 12.0):
        found = product_tail([SLOTS, bucket], 1.5, x)
        alone = product_tail([SLOTS], 1.0, x - 3.0)
        assert found is not None
        assert alone is not None
        assert found.probability == pytest.approx(alone.probability, rel=1e-9)
    assert product_tail([SLOTS, bucket], 1.5, 1.0).probability == 1.0  # type: ignore[union-attr]
    assert product_tail([c.LeakyBuckets(count=1, burst=1.0, rate=0.1)], 1.0, 1.0) is None


def test_unequal_leaky_buckets_are_capped_and_agree_with_equal_ones() -> None:
    small, large = c.LeakyBuckets(count=5, burst=2.0, rate=0.5), c.LeakyBuckets(count=3, burst=6.0, rate=1.0)
    together = c.superpose([small, large])
    assert together is not None
    assert backlog(together, 8.0, 28.0) == 0.0
    assert 0.0 < backlog(together, 8.0, 26.0) < 1e-3
    halves = c.Superposition(parts=(small, small))
    assert backlog(halves, 8.0, 8.0) == pytest.approx(
        backlog(c.LeakyBuckets(count=10, burst=2.0, rate=0.5), 8.0, 8.0), rel=0.05
    )
    assert backlog(c.Superposition(parts=(small, c.TokenBucket(burst=1.0, rate=0.5))), 8.0, 0.5) == 1.0
    with pytest.raises(c.UnstableError):
        backlog(halves, 5.0, 8.0)


def test_unequal_leaky_buckets_lie_above_greedy_sources() -> None:
    rng = np.random.default_rng(6)
    runs, capacity = 40_000, 8.0
    backlogs = np.zeros(runs)
    phases = [(2.0, 4, rng.integers(0, 4, (runs, 5))), (6.0, 6, rng.integers(0, 6, (runs, 3)))]
    for slot in range(36):
        work = sum(burst * (phase == slot % period).sum(axis=1) for burst, period, phase in phases)
        backlogs = np.maximum(backlogs + work - capacity, 0.0)
    together = c.superpose([c.LeakyBuckets(count=5, burst=2.0, rate=0.5), c.LeakyBuckets(count=3, burst=6.0, rate=1.0)])
    assert together is not None
    for x in (0.0, 4.0, 10.0):
        seen = float((backlogs > x).mean())
        assert backlog(together, capacity, x) >= seen - 4 * math.sqrt(seen / runs)


def test_bounded_bursts_add_with_and_without_independence() -> None:
    one, two = (c.ExponentiallyBounded(rate=r, prefactor=1.0, decay=b) for r, b in ((0.3, 2.0), (0.4, 1.0)))

    def bound(dependence: c.Dependence) -> float:
        shared = c.Domain(
            name="d", service=c.RateLatency(rate=1.0, latency=0.0), cross=(two,), discipline=c.Discipline.BLIND,
            dependence=dependence,
        )  # fmt: skip
        return c.bound_path(one, [shared], 40.0).bound.probability

    assert 0.0 < bound(c.Dependence.INDEPENDENT) < bound(c.Dependence.ANY) < 1e-3
    # Any dependence admits equal bursts: 1/b = 1/b_1 + 1/b_2 is attained by comonotone exponentials.
    assert bound(c.Dependence.ANY) >= math.exp(-2.0 / 3.0 * 0.6 * 40.0) * 1e-3


@pytest.mark.parametrize(
    "build",
    [
        lambda: c.MarkovSlots(count=1, transition=((0.5, 0.4), (0.5, 0.5)), works=(None, None)),
        lambda: c.MarkovSlots(count=1, transition=((1.0,), (1.0,)), works=(None, None)),
        lambda: c.MarkovSlots(count=1, transition=(), works=()),
        lambda: c.MarkovFluid(count=1, generator=((0.0, 1.0), (1.0, -1.0)), rates=(0.0, 1.0)),
        lambda: c.MarkovFluid(count=1, generator=((math.nan,),), rates=(1.0,)),
        lambda: c.MarkovPoisson(
            count=1, generator=((0.0,),), rates=(-1.0,), work=c.ConstantWork(value=1.0)
        ),
        lambda: c.MarkovFluid(count=1, generator=((0.0, 0.0), (0.0, 0.0)), rates=(0.0, 1.0)).mean_rate,
        lambda: c.DiscreteWork(values=(), probabilities=()),
        lambda: c.DiscreteWork(values=(1.0, -1.0), probabilities=(0.5, 0.5)),
        lambda: c.DiscreteWork(values=(1.0, 2.0), probabilities=(0.5, 0.4)),
        lambda: c.Superposition(parts=()),
        lambda: c.gps_share(c.RateLatency(rate=1.0, latency=0.0), [1.0], 1),
    ],
)  # fmt: skip
def test_nonsense_is_refused(build: object) -> None:
    with pytest.raises(InvalidInputError):
        build()  # type: ignore[operator]


def test_dice_are_bounded_like_any_work() -> None:
    dice = c.DiscreteWork(values=(1.0, 6.0), probabilities=(0.75, 0.25))
    rng = np.random.default_rng(7)
    seen = lindley(rng.choice([1.0, 6.0], 400_000, p=[0.75, 0.25]) - 3.0)
    bound = backlog(c.SlottedWork(works=(dice,)), 3.0, 10.0)
    assert lower_limit(seen > 10.0) <= bound <= 1.8 * float((seen > 10.0).mean())
    assert c.scaled_work(dice, 2.0).mean == 2.0 * dice.mean == 4.5
    law = c.workload_law(dice, arrival_rate=0.3).tail(5.0)
    assert 0.97 * law.upper <= law.lower <= law.upper


def test_a_share_of_a_fair_server_does_not_depend_on_others() -> None:
    server = c.RateLatency(rate=8.0, latency=1.0)
    assert c.gps_share(server, [1.0, 3.0], 0) == c.RateLatency(rate=2.0, latency=1.0)
