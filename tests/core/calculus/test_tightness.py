"""How far bounds are from the truth at parameters that no reference row has: the goals, with truths of their own.

The truths are closed forms worked out here in exact or long arithmetic, or simulations; never the code under test.
"""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest

from aipaging.core import calculus as c
from aipaging.core.calculus.fluid_exact import fluid_exact_tail

FAST, SHARP = c.RungClass.FAST, c.RungClass.SHARP
SLOTS = 2_000_000
BLOCKS = 40
LOADS = (0.3, 0.65, 0.93)


def hop(arrival: c.Arrival, rate: float, delay: float, rung_class: c.RungClass = SHARP) -> float:
    domain = c.Domain(name="hop", service=c.RateLatency(rate=rate, latency=0.0))
    return c.bound_path(arrival, [domain], delay, rung_class=rung_class).bound.probability


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("rung_class", [FAST, SHARP])
def test_poisson_exponential_is_exact(load: float, rung_class: c.RungClass) -> None:
    jobs = c.CompoundPoisson(rate=load / 0.7, work=c.ExponentialWork(mean=1.4))
    for delay in (0.5, 7.0, 60.0):
        truth = load * math.exp(-(1.0 - load) * 2.0 * delay / 1.4)
        assert 1.0 <= hop(jobs, 2.0, delay, rung_class) / truth <= 1.0 + 1e-9


def crommelin(load: Decimal, delay: Decimal) -> Decimal:
    """Return P(W > delay) of M/D/1 with unit work and rate, by the alternating sum in enough digits."""
    total = Decimal(0)
    for k in range(int(delay) + 1):
        early = load * (Decimal(k) - delay)
        term = (-early).exp() * (early**k if k else Decimal(1))
        total += term / math.factorial(k)
    return 1 - (1 - load) * total


@pytest.mark.parametrize("load", LOADS)
def test_poisson_constant_is_exact(load: float) -> None:
    jobs = c.CompoundPoisson(rate=load, work=c.ConstantWork(value=1.0))
    with localcontext() as context:
        context.prec = 120
        for delay in (0.5, 3.25, 11.0, 24.5):
            truth = float(crommelin(Decimal(load), Decimal(delay)))
            assert 1.0 - 1e-9 <= hop(jobs, 1.0, delay) / truth <= 1.0 + 1e-9


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("rung_class", [FAST, SHARP])
def test_exponential_slots_are_exact(load: float, rung_class: c.RungClass) -> None:
    """P(backlog > x) = s exp(-(1 - s) x / m) where s = exp(-(1 - s) C / m): the D/M/1 queue after its service."""
    root = 0.5
    for _ in range(5_000):
        root = math.exp(-(1.0 - root) / load)
    slots = c.SlottedWork(works=(c.ExponentialWork(mean=load),))
    for delay in (0, 3, 20):
        truth = root * math.exp(-(1.0 - root) / load * delay)
        assert 1.0 - 1e-9 <= hop(slots, 1.0, delay, rung_class) / truth <= 1.0 + 1e-6


@pytest.mark.parametrize("count", [2, 10, 25, 50, 80])
@pytest.mark.parametrize("load", [0.3, 0.75, 0.85, 0.97])
@pytest.mark.parametrize("on", [0.02, 1.0 / 6.0, 0.3, 0.7])
def test_the_martingales_of_fluid_flows_are_the_truth(count: int, load: float, on: float) -> None:
    """All of them together; one alone is above it by 9 for fifty flows at load 0.75, and by 1e8 at load 0.3."""
    flows = c.FluidOnOff(count=count, off_to_on=on, on_to_off=1.0 - on, peak=load / (on * count))
    if flows.peak_rate <= 1.0:
        assert hop(flows, 1.0, 0.0, FAST) == 0.0
        return
    for delay in (0.0, 0.05, 0.5, 5.0, 25.0):
        exact = fluid_exact_tail(flows, 1.0, delay)
        assert exact is not None
        if exact > 1e-250:
            assert 1.0 <= hop(flows, 1.0, delay, FAST) / exact * (1.0 + 1e-9) <= 1.0 + 1e-8
        assert hop(flows, 1.0, delay, SHARP) == exact


def fluid_simulated(flows: c.FluidOnOff, level: float, *, runs: int, jumps: int) -> tuple[float, float]:
    """Return P(Q > level) at rate 1 and its standard error over runs, each of so many jumps after as many to settle."""
    rng = np.random.default_rng(flows.count)
    on_probability = flows.off_to_on / (flows.off_to_on + flows.on_to_off)
    on, backlog = rng.binomial(flows.count, on_probability, runs), np.zeros(runs)
    above, total = np.zeros(runs), np.zeros(runs)
    for jump in range(2 * jumps):
        up, down = (flows.count - on) * flows.off_to_on, on * flows.on_to_off
        time, drift = rng.exponential(1.0 / (up + down)), on * flows.peak - 1.0
        after = np.maximum(0.0, backlog + drift * time)
        crossing = np.clip((level - backlog) / drift, 0.0, time)
        if jump >= jumps:
            above += np.where(drift > 0.0, time - crossing, np.where(backlog > level, crossing, 0.0))
            total += time
        backlog = after
        on = on + np.where(rng.random(runs) * (up + down) < up, 1, -1)
    mean = float(above.sum() / total.sum())
    return mean, float(np.std(above - mean * total, ddof=1) / total.mean() / math.sqrt(runs))


@pytest.mark.parametrize(("count", "on", "level"), [(10, 0.3, 0.4), (50, 0.3, 0.1), (50, 0.7, 0.004)])
def test_the_martingales_of_fluid_flows_agree_with_a_simulation(count: int, on: float, level: float) -> None:
    flows = c.FluidOnOff(count=count, off_to_on=on, on_to_off=1.0 - on, peak=0.8 / (on * count))
    truth, error = fluid_simulated(flows, level, runs=2_000, jumps=3_000)
    bound = hop(flows, 1.0, level, FAST)
    assert truth - 4.0 * error <= bound
    assert bound <= truth + 4.0 * error + 1e-3 * truth
    assert error <= 0.1 * truth, "otherwise nothing was tested"


WORKS = [
    c.TruncatedLogNormalWork(median=3.0, sigma=1.3, cap=80.0),
    c.TruncatedLogNormalWork(median=10.0, sigma=0.5, cap=40.0),
    c.TruncatedParetoWork(minimum=1.0, alpha=1.2, cap=60.0),
    c.TruncatedParetoWork(minimum=2.0, alpha=2.5, cap=30.0),
]


@pytest.mark.parametrize("work", WORKS, ids=repr)
@pytest.mark.parametrize("load", LOADS)
def test_enclosures_of_capped_work_are_three_percent_wide(work: c.TruncatedLogNormalWork, load: float) -> None:
    law = c.workload_law(work, arrival_rate=load / work.mean)
    for delay in (0.3, 1.0, 4.0, 12.0):
        enclosure = law.tail(delay * work.cap)
        assert enclosure.lower <= enclosure.upper <= 1.03 * enclosure.lower


def departures(work: np.ndarray, service: np.ndarray) -> np.ndarray:
    walk = np.cumsum(work - service)
    backlog = walk - np.minimum(np.minimum.accumulate(walk), 0.0)
    return work - np.diff(backlog, prepend=0.0)


def late(work: np.ndarray, leaving: np.ndarray, delay: int) -> tuple[float, float]:
    """Return P(W > delay) and the standard error of its blocks: what came by t has not left by t + delay."""
    missing = np.cumsum(work)[: SLOTS - delay] - np.cumsum(leaving)[delay:]
    means = (missing > 1e-6)[: (SLOTS - delay) // BLOCKS * BLOCKS].reshape(BLOCKS, -1).mean(axis=1)
    return float(means.mean()), float(means.std(ddof=1)) / math.sqrt(BLOCKS)


@pytest.mark.parametrize(("hops", "factor", "delays"), [(2, 4.2, (4, 7)), (3, 14.0, (6, 9))])
@pytest.mark.parametrize(("rate", "availability"), [(1.0, 0.85), (1.4, 0.7)])
def test_impaired_domains_are_near_their_simulation(
    hops: int, factor: float, delays: tuple[int, int], rate: float, availability: float
) -> None:
    rng = np.random.default_rng(hops)
    mean = 0.5 * rate * availability
    work = rng.exponential(mean, SLOTS)
    leaving = work
    for _ in range(hops):
        leaving = departures(leaving, np.where(rng.random(SLOTS) < availability, rate, 0.0))
    arrival = c.SlottedWork(works=(c.ExponentialWork(mean=mean),))
    domains = [
        c.Domain(name=f"d{h}", service=c.OnOffService(rate=rate, availability=availability)) for h in range(hops)
    ]
    for delay in delays:
        truth, error = late(work, leaving, delay)
        bound = c.bound_path(arrival, domains, float(delay)).bound.probability
        assert truth - 3.0 * error <= bound
        assert bound <= factor * truth


def on_off(rng: np.random.Generator, flows: c.SlottedOnOff) -> np.ndarray:
    total = np.zeros(SLOTS)
    for _ in range(flows.count):
        stays = np.where(np.arange(SLOTS // 2) % 2 == 0, 1.0 - flows.stay_off, 1.0 - flows.stay_on)
        lengths = rng.geometric(stays)
        on = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)[:SLOTS]
        total += flows.peak * on
    return total


@pytest.mark.parametrize("count", [2, 4])
def test_the_low_of_two_priorities_is_near_its_simulation(count: int) -> None:
    flows = c.SlottedOnOff(count=count, stay_off=0.95, stay_on=0.85, peak=1.0 / count)
    capacity = 2.0 * flows.mean_rate / 0.7
    rng = np.random.default_rng(count)
    cross, own = on_off(rng, flows), on_off(rng, flows)
    left = capacity - departures(cross, np.full(SLOTS, capacity))
    leaving = departures(own, left)
    domain = c.Domain(
        name="link", service=c.RateLatency(rate=capacity, latency=0.0), cross=(flows,), discipline=c.Discipline.PRIORITY
    )
    for delay in (3, 8):
        truth, error = late(own, leaving, delay)
        bound = c.bound_path(flows, [domain], float(delay)).bound.probability
        assert truth - 3.0 * error <= bound <= 1.15 * truth
