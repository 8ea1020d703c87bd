"""Single queues against closed forms, recursions and seeded simulation."""

import math

import numpy as np
import pytest

from aipaging.core.calculus.arrivals import CompoundPoisson, SlottedWork
from aipaging.core.calculus.bound import RungClass
from aipaging.core.calculus.errors import UnstableError
from aipaging.core.calculus.fluid_exact import fluid_exact_tail
from aipaging.core.calculus.onoff import FluidOnOff, SlottedOnOff, fluid_martingale
from aipaging.core.calculus.pollaczek import lundberg_decay, sojourn_tail, workload_law
from aipaging.core.calculus.queue_exact import (
    exponential_slots,
    exponential_slots_onoff_service,
    poisson_constant_tail,
    two_exponentials_per_slot,
)
from aipaging.core.calculus.regulated import ExponentiallyBounded, LeakyBuckets
from aipaging.core.calculus.single_hop import backlog_tail
from aipaging.core.calculus.work import (
    ConstantWork,
    ExponentialWork,
    TruncatedLogNormalWork,
    TruncatedParetoWork,
    scaled_work,
)

SLOTS = 1_500_000


def lindley(increments: np.ndarray) -> np.ndarray:
    walk = np.cumsum(increments)
    return walk - np.minimum(np.minimum.accumulate(walk), 0.0)


def lower_limit(exceeded: np.ndarray) -> float:
    """Mean minus 4 standard errors from batch means: exceedances cluster."""
    batches = exceeded[: len(exceeded) // 200 * 200].reshape(200, -1).mean(axis=1)
    return float(batches.mean() - 4.0 * batches.std(ddof=1) / math.sqrt(200))


def upper_limit(exceeded: np.ndarray) -> float:
    batches = exceeded[: len(exceeded) // 200 * 200].reshape(200, -1).mean(axis=1)
    return float(batches.mean() + 4.0 * batches.std(ddof=1) / math.sqrt(200))


@pytest.mark.parametrize("capacity", [1.25, 2.0])
def test_exponential_slots_are_exact(capacity: float) -> None:
    rng = np.random.default_rng(1)
    backlog = lindley(rng.exponential(1.0, SLOTS) - capacity)
    law = exponential_slots(1.0, capacity)
    for x in (0.0, 2.0, 4.0):
        assert lower_limit(backlog > x) <= law.tail(x) <= upper_limit(backlog > x)


def test_two_exponentials_are_exact() -> None:
    rng = np.random.default_rng(2)
    backlog = lindley(rng.exponential(0.5, SLOTS) + rng.exponential(1.0, SLOTS) - 2.0)
    law = two_exponentials_per_slot((0.5, 1.0), 2.0)
    for x in (0.0, 2.0, 6.0):
        assert lower_limit(backlog > x) <= law.tail(x) <= upper_limit(backlog > x)


def test_two_exponentials_far_out_are_one_sided() -> None:
    law = two_exponentials_per_slot((0.5, 1.0), 3.0)
    assert law.tail(100.0) == pytest.approx(law.weights[0] * math.exp(-100.0 * law.rates[0]), rel=1e-6)


def test_random_service_is_exact() -> None:
    rng = np.random.default_rng(3)
    backlog = lindley(rng.exponential(0.5, SLOTS) - (rng.random(SLOTS) < 0.7))
    law = exponential_slots_onoff_service(0.5, 1.0, 0.7)
    for x in (0.0, 1.0, 3.0):
        assert lower_limit(backlog > x) <= law.tail(x) <= upper_limit(backlog > x)


def test_light_load_keeps_its_digits() -> None:
    # 1 - theta* cancels completely here; exp(-theta* C) does not.
    law = exponential_slots(1.0, 60.0)
    assert law.tail(0.0) == pytest.approx(math.exp(-60.0), rel=1e-6)


def test_md1_equals_its_integral_equation() -> None:
    # P(W > 0) = rho, and P(W <= D) = (1 - rho) exp(lambda D) within the first service time.
    for x in (0.0, 0.3, 0.999):
        tail = poisson_constant_tail(arrival_rate=0.7, size=1.0, capacity=1.0, delay=x)
        assert tail == pytest.approx(1.0 - 0.3 * math.exp(0.7 * x), rel=1e-9)


@pytest.mark.parametrize("load", [0.05, 0.5, 0.8, 0.97])
def test_the_lattice_encloses_md1(load: float) -> None:
    law = workload_law(ConstantWork(value=2.0), arrival_rate=load / 2.0)
    for services in (0.0, 0.4, 3.3, 9.7, 30.0):
        exact = poisson_constant_tail(arrival_rate=load, size=1.0, capacity=1.0, delay=services)
        enclosure = law.tail(2.0 * services)
        assert exact is not None
        assert enclosure.lower <= exact <= enclosure.upper
        if enclosure.lower > 1e-12:
            assert enclosure.upper <= 1.03 * enclosure.lower


@pytest.mark.parametrize(
    "work",
    [
        TruncatedLogNormalWork(median=200.0, sigma=1.0, cap=2048.0),
        TruncatedParetoWork(minimum=100.0, alpha=1.5, cap=4096.0),
    ],
)
@pytest.mark.parametrize("load", [0.5, 0.8])
def test_token_work_is_enclosed_within_three_percent(work: TruncatedLogNormalWork, load: float) -> None:
    seconds = scaled_work(work, 0.02)
    rate = load / seconds.mean
    law = workload_law(seconds, arrival_rate=rate)  # type: ignore[arg-type]
    decay = lundberg_decay(seconds, arrival_rate=rate)
    for delay in (0.0, 10.0, 100.0, 1000.0):
        enclosure = law.tail(delay)
        assert enclosure.lower <= enclosure.upper <= min(1.03 * enclosure.lower, math.exp(-decay * delay) * 1.0001)


def test_token_work_agrees_with_simulation() -> None:
    rng = np.random.default_rng(5)
    n = 1_000_000
    work = TruncatedParetoWork(minimum=100.0, alpha=1.5, cap=4096.0)
    service = np.minimum(100.0 * rng.random(n) ** (-1.0 / 1.5), 4096.0)
    gaps = rng.exponential(work.mean / 0.6, n)
    waiting = lindley(service[:-1] - gaps[1:])
    law = workload_law(work, arrival_rate=0.6 / work.mean)
    for delay in (500.0, 3000.0):
        assert lower_limit(waiting > delay) <= law.tail(delay).upper
        assert upper_limit(waiting > delay) >= law.tail(delay).lower


@pytest.mark.parametrize("count", [1, 2, 7, 20])
def test_fluid_flows_agree_with_their_generator(count: int) -> None:
    """Solve the same linear system by another way: the eigenvalues of D^{-1} M from NumPy."""
    flows = FluidOnOff(count=count, off_to_on=0.4, on_to_off=1.0, peak=1.0)
    capacity = count * 0.4 / 1.4 / 0.7 + 0.013
    n, k = count, np.arange(count + 1)
    generator = np.zeros((n + 1, n + 1))
    generator[k[:-1], k[1:]] = 0.4 * (n - k[:-1])
    generator[k[1:], k[:-1]] = k[1:]
    np.fill_diagonal(generator, -generator.sum(axis=1))
    drift = k - capacity
    values, vectors = np.linalg.eig((generator / drift).T)
    stable = values.real < -1e-9
    pi = np.array([math.comb(n, i) * 0.4**i for i in k]) / 1.4**n
    over = drift > 0.0
    # F_i(0) = 0 in overload: pi + sum a_j phi_j = 0 on those states.
    left = vectors[:, stable].real
    scale = np.linalg.lstsq(left[over], -pi[over], rcond=None)[0]
    for x in (0.0, 0.5, 2.0):
        exact = -float((left * np.exp(values[stable].real * x) * scale).sum())
        ours = fluid_exact_tail(flows, capacity, x)
        assert ours == pytest.approx(exact, rel=1e-5)
        assert math.exp(fluid_martingale(flows, capacity, x)[0]) >= ours * (1 - 1e-9)


def test_fluid_capacity_on_a_state_is_no_special_case() -> None:
    flows = FluidOnOff(count=10, off_to_on=0.1, on_to_off=0.5, peak=1.0)
    below, at, above = (fluid_exact_tail(flows, c, 5.0) for c in (1.999999, 2.0, 2.000001))
    assert (below or 0.0) >= (at or 0.0) >= (above or 1.0) >= 0.9999 * (below or 1.0)


OVERLOADS = [
    CompoundPoisson(rate=1.0, work=ExponentialWork(mean=1.0)),
    CompoundPoisson(rate=1.0, work=ConstantWork(value=1.0)),
    CompoundPoisson(rate=2.0, work=TruncatedParetoWork(minimum=0.5, alpha=2.0, cap=9.0)),
    SlottedWork(works=(ExponentialWork(mean=1.0),)),
    SlottedWork(works=(ConstantWork(value=1.0), ExponentialWork(mean=0.5))),
    FluidOnOff(count=4, off_to_on=1.0, on_to_off=1.0, peak=0.5),
    SlottedOnOff(count=4, stay_off=0.9, stay_on=0.9, peak=0.5),
    LeakyBuckets(count=5, burst=1.0, rate=0.2),
    ExponentiallyBounded(rate=1.0, prefactor=1.0, decay=1.0),
]


@pytest.mark.parametrize("arrival", OVERLOADS, ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("rung_class", list(RungClass))
def test_overload_is_refused_by_name(arrival: object, rung_class: RungClass) -> None:
    with pytest.raises(UnstableError):
        backlog_tail(arrival, 1.0, 10.0, rung_class)  # type: ignore[arg-type]


@pytest.mark.parametrize("arrival", [a for a in OVERLOADS if not isinstance(a, ExponentiallyBounded)], ids=repr)
def test_more_capacity_and_more_backlog_cost_nothing(arrival: object) -> None:
    before = 1.0
    for capacity in (2.5, 3.0, 4.0):
        at = [backlog_tail(arrival, capacity, x, RungClass.SHARP).probability for x in (0.0, 1.0, 3.0, 9.0)]  # type: ignore[arg-type]
        assert sorted(at, reverse=True) == at
        assert at[1] <= before * (1 + 1e-9)
        before = at[1]


def test_leaky_buckets_are_capped_exactly() -> None:
    flows = LeakyBuckets(count=10, burst=5.0, rate=1.0)
    assert backlog_tail(flows, 12.5, 50.0, RungClass.FAST).probability == 0.0
    assert 0.0 < backlog_tail(flows, 12.5, 25.0, RungClass.FAST).probability <= 0.8298


def test_greedy_periodic_sources_stay_below_the_regulated_bound() -> None:
    # Each source sends its whole burst every burst/rate slots, with a random phase.
    rng = np.random.default_rng(11)
    n, period, capacity = 10, 5, 12.5
    phases = rng.integers(0, period, (60_000, n))
    backlog = np.zeros(60_000)
    for slot in range(4 * period):
        backlog = np.maximum(backlog + 5.0 * (phases == slot % period).sum(axis=1) - capacity, 0.0)
    flows = LeakyBuckets(count=n, burst=5.0, rate=1.0)
    for delay in (0.0, 1.0, 2.0):
        seen = float((backlog > capacity * delay).mean())
        bound = backlog_tail(flows, capacity, capacity * delay, RungClass.FAST).probability
        assert bound >= seen - 4 * math.sqrt(seen / 60_000)


def test_a_sojourn_is_the_convolution_of_waiting_and_service() -> None:
    constant = ConstantWork(value=1.0)
    for delay in (1.5, 4.0, 12.0):
        exact = poisson_constant_tail(arrival_rate=0.8, size=1.0, capacity=1.0, delay=delay - 1.0)
        assert exact is not None
        assert exact <= sojourn_tail(constant, arrival_rate=0.8, delay=delay) <= 1.01 * exact
    assert sojourn_tail(constant, arrival_rate=0.8, delay=0.9) == 1.0


def test_negative_association_is_bounded_in_both_classes() -> None:
    flows = SlottedOnOff(count=12, stay_off=0.05, stay_on=0.05, peak=1.0)
    fast = backlog_tail(flows, 7.0, 4.0, RungClass.FAST)
    sharp = backlog_tail(flows, 7.0, 4.0, RungClass.SHARP)
    assert 2.4e-4 <= sharp.probability * 1.03 <= fast.probability <= 0.2
