"""Paths of unlike domains, shared cross traffic, backlogs, outputs, sojourns, measured delays: against simulation."""

import math

import numpy as np
import pytest

from aipaging.core import calculus as c
from aipaging.core.foundation.errors import InvalidInputError

SLOTS = 60_000
OWN = c.SlottedWork(works=(c.ExponentialWork(mean=0.5),))
CROSS = c.SlottedWork(works=(c.ExponentialWork(mean=0.7),))
BLIND = c.Discipline.BLIND


def constant(rate: float, latency: float = 0.0, cross: tuple[c.Arrival, ...] = (), **rest: object) -> c.Domain:
    discipline = BLIND if cross or rest.pop("shared", False) else c.Discipline.RESERVED
    return c.Domain(
        name="d", service=c.RateLatency(rate=rate, latency=latency), cross=cross, discipline=discipline,
        **rest,  # type: ignore[arg-type]
    )  # fmt: skip


WIRELESS = c.Domain(name="w", service=c.OnOffService(rate=1.5, availability=0.9))
SERVED = c.Domain(name="r", service=c.RandomService(work=c.ExponentialWork(mean=1.2)))


def lower_limit(exceeded: np.ndarray) -> float:
    batches = exceeded[: len(exceeded) // 100 * 100].reshape(100, -1).mean(axis=1)
    return float(batches.mean() - 4.0 * batches.std(ddof=1) / 10.0)


def through(flow: np.ndarray, service: np.ndarray, latency: int = 0) -> np.ndarray:
    """Return cumulative departures of a server that offers cumulative `service`, delayed by whole slots."""
    left = np.minimum(np.minimum.accumulate(np.concatenate([[0.0], flow - service]))[1:], 0.0) + service
    left = np.minimum(left, flow)
    return np.concatenate([np.zeros(latency), left[: len(left) - latency]]) if latency else left


def delays_of(arrived: np.ndarray, departed: np.ndarray) -> np.ndarray:
    left = np.searchsorted(departed, arrived * (1 - 1e-13), side="left")
    waited: np.ndarray = np.maximum(left - np.arange(len(arrived)), 0)[: len(arrived) - 500]
    return waited


def served_last(flow: np.ndarray, cross: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Return departures of a flow and of cross traffic that always goes first at a constant rate."""
    slots = rate * np.arange(1, len(flow) + 1)
    both, first = through(flow + cross, slots), through(cross, slots)
    return both - first, first


@pytest.mark.parametrize("delay", [12.0, 20.0])
def test_unlike_domains_with_latencies(delay: float) -> None:
    rng = np.random.default_rng(1)
    arrived = np.cumsum(rng.exponential(0.5, SLOTS))
    flow = through(arrived, np.cumsum(np.where(rng.random(SLOTS) < 0.9, 1.5, 0.0)))
    flow = through(flow, 1.1 * np.arange(1, SLOTS + 1), latency=2)
    flow = through(flow, np.cumsum(rng.exponential(1.2, SLOTS)))
    bound = c.bound_path(OWN, [WIRELESS, constant(1.1, 2.0), SERVED], delay).bound
    late = delays_of(arrived, flow) > delay
    assert lower_limit(late) <= bound.probability < 1.0
    assert bound.rung in {"one-doob", "mgf-union"}


@pytest.mark.parametrize("delay", [5.0, 10.0])
def test_cross_traffic_over_two_domains_is_paid_once(delay: float) -> None:
    rng = np.random.default_rng(2)
    arrived, crossing = np.cumsum(rng.exponential(0.5, SLOTS)), np.cumsum(rng.exponential(0.7, SLOTS))
    flow, ahead = served_last(arrived, crossing, 2.0)
    flow, _ = served_last(flow, ahead, 2.2)
    domains = [constant(2.0, shared=True), constant(2.2, shared=True)]
    shared = c.bound_path(OWN, domains, delay, crossing=[c.CrossFlow(arrival=CROSS, first=0, last=1)]).bound
    fresh = c.bound_path(OWN, [constant(2.0, cross=(CROSS,)), constant(2.2, cross=(CROSS,))], delay).bound
    assert lower_limit(delays_of(arrived, flow) > delay) <= shared.probability < 1.0
    # Memoryless slots differ from cut to cut anyway; a flow with a burst is where once matters.
    assert shared.probability >= fresh.probability * (1 - 1e-9)


def test_shared_cross_traffic_behind_latencies() -> None:
    rng = np.random.default_rng(9)
    arrived, crossing = np.cumsum(rng.exponential(0.5, SLOTS)), np.cumsum(rng.exponential(0.7, SLOTS))
    flow, ahead = served_last(arrived, crossing, 2.0)
    flow, ahead = (np.concatenate([np.zeros(2), x[:-2]]) for x in (flow, ahead))
    flow, _ = served_last(flow, ahead, 2.2)
    domains = [constant(2.0, 2.0, shared=True), constant(2.2, shared=True)]
    for delay in (12.0, 20.0):
        shared = c.bound_path(OWN, domains, delay, crossing=[c.CrossFlow(arrival=CROSS, first=0, last=1)]).bound
        assert lower_limit(delays_of(arrived, flow) > delay) <= shared.probability < 1.0
    jobs = [c.CompoundPoisson(rate=r, work=c.ExponentialWork(mean=1.0)) for r in (0.2, 0.3)]
    crossing_jobs = [c.CrossFlow(arrival=jobs[1], first=0, last=1)]
    sampled = c.bound_path(jobs[0], domains, 30.0, crossing=crossing_jobs).bound.probability
    assert 0.0 < sampled < 1e-3


def test_a_shared_burst_costs_once() -> None:
    bucket = c.TokenBucket(burst=2.0, rate=0.5)
    shared = [c.CrossFlow(arrival=bucket, first=0, last=2)]
    once = c.bound_path(OWN, [constant(2.0, shared=True)] * 3, 15.0, crossing=shared).bound.probability
    thrice = c.bound_path(OWN, [constant(2.0, cross=(bucket,))] * 3, 15.0).bound.probability
    assert once < 0.1 * thrice
    flow = c.TokenBucket(burst=1.0, rate=0.5)
    worst = c.delay_of_path(flow, [constant(2.0, 1.0, shared=True)] * 3, 1e-9, crossing=shared).delay
    fresh = c.delay_of_path(flow, [constant(2.0, 1.0, cross=(bucket,))] * 3, 1e-9).delay
    # R - r = 1.5: latencies 3, bursts (2 + 3 * 0.5 * 1) / 1.5 once, own burst 1 / 1.5.
    assert worst == pytest.approx(3.0 + 3.5 / 1.5 + 1.0 / 1.5)
    assert worst < fresh


def test_cross_traffic_and_a_latency() -> None:
    rng = np.random.default_rng(3)
    arrived, cross = np.cumsum(rng.exponential(0.5, SLOTS)), np.cumsum(rng.exponential(0.7, SLOTS))
    flow, _ = served_last(arrived, cross, 2.0)
    late = np.concatenate([np.zeros(3), flow[:-3]])
    domain = constant(2.0, 3.0, cross=(CROSS,))
    for delay in (10.0, 14.0):
        bound = c.bound_path(OWN, [domain], delay).bound.probability
        assert lower_limit(delays_of(arrived, late) > delay) <= bound < 1.0
    assert c.bound_path(OWN, [domain], 2.0).bound.probability == 1.0


def test_a_deficit_behind_a_latency_with_cross_traffic() -> None:
    impaired = c.ImpairedRateLatency(rate=2.0, latency=1.5, prefactor=1.0, decay=3.0)
    alone = c.bound_path(OWN, [c.Domain(name="i", service=impaired)], 15.0).bound.probability
    shared = c.Domain(name="i", service=impaired, cross=(CROSS,), discipline=BLIND)
    crossed = c.bound_path(OWN, [shared], 15.0).bound.probability
    assert 0.0 < alone < crossed < 1e-2


def test_dependent_domains_cost_more_than_independent_ones() -> None:
    tied = [c.Domain(name="w", service=WIRELESS.service, dependence=c.Dependence.ANY)] * 2
    free, any_way = (c.bound_path(OWN, d, 40.0).bound for d in ([WIRELESS] * 2, tied))
    assert free.probability < any_way.probability < 1e-2
    assert any_way.rung == "excess-split"
    # The same slots may be off in both domains: an admissible dependence lies below the bound.
    rng = np.random.default_rng(4)
    arrived = np.cumsum(rng.exponential(0.5, SLOTS))
    on = np.cumsum(np.where(rng.random(SLOTS) < 0.9, 1.5, 0.0))
    seen = delays_of(arrived, through(through(arrived, on), on)) > 3
    assert c.bound_path(OWN, tied, 3.0).bound.probability >= lower_limit(seen)


def test_continuous_tandems_with_cross_traffic() -> None:
    own = c.CompoundPoisson(rate=0.4, work=c.ExponentialWork(mean=1.0))
    cross = c.CompoundPoisson(rate=0.3, work=c.ConstantWork(value=1.0))
    one = c.bound_path(own, [constant(1.5, cross=(cross,))], 20.0).bound
    two = c.bound_path(own, [constant(1.5, 0.5, cross=(cross,))] * 2, 40.0).bound
    assert one.rung == "product-martingale"
    assert 0.0 < one.probability < 1e-3
    assert one.probability < c.bound_path(own, [constant(1.5, cross=(cross,))] * 2, 20.0).bound.probability
    assert 0.0 < two.probability < 1e-2
    for k in (1e-3, 1e3):
        scaled = [
            c.CompoundPoisson(rate=a.rate * k, work=a.work) for a in (own, cross)
        ]  # fmt: skip
        again = c.bound_path(scaled[0], [constant(1.5 * k, 0.5 / k, cross=(scaled[1],))] * 2, 40.0 / k).bound
        assert again.probability == pytest.approx(two.probability, rel=1e-6)


def test_continuous_priority_lies_above_simulation() -> None:
    rng = np.random.default_rng(5)
    step, n = 0.1, 400_000
    cross = rng.poisson(0.5 * step, n) * 1.0
    own = rng.poisson(0.2 * step, n) * 1.0
    flow, _ = served_last(np.cumsum(own), np.cumsum(cross), step)
    late = delays_of(np.cumsum(own) + 1e-9 * np.arange(n), flow + 1e-9 * np.arange(n)) * step > 12.0
    unit = c.ConstantWork(value=1.0)
    jobs = [c.CompoundPoisson(rate=r, work=unit) for r in (0.2, 0.5)]
    bound = c.bound_path(jobs[0], [constant(1.0, cross=(jobs[1],))], 12.0 - 2 * step).bound.probability
    assert lower_limit(late) <= bound < 1.0


def test_a_backlog_and_its_inverse() -> None:
    rng = np.random.default_rng(6)
    arrived = np.cumsum(rng.exponential(0.5, SLOTS))
    flow = through(through(arrived, np.cumsum(np.where(rng.random(SLOTS) < 0.9, 1.5, 0.0))),
                   np.cumsum(rng.exponential(1.2, SLOTS)))  # fmt: skip
    inside = arrived - flow
    for level in (6.0, 8.0):
        found = c.bound_backlog(OWN, [WIRELESS, SERVED], level).bound
        assert lower_limit(inside > level) <= found.probability < 1.0
    answer = c.backlog_of_path(OWN, [WIRELESS, SERVED], 1e-6)
    assert answer.bound.probability <= 1e-6
    assert c.bound_backlog(OWN, [WIRELESS, SERVED], answer.backlog * 0.999).bound.probability > 1e-6
    exact = c.bound_backlog(OWN, [constant(1.0)], 3.0).bound
    assert exact.rung == "ladder-exact"
    behind = c.bound_backlog(OWN, [constant(1.0, 2.0)], 6.0).bound.probability
    assert c.bound_backlog(OWN, [constant(1.0)], 6.0).bound.probability < behind < 1.0
    jobs = c.CompoundPoisson(rate=0.5, work=c.ExponentialWork(mean=1.0))
    assert c.bound_backlog(jobs, [constant(1.0)], 8.0).bound.probability == pytest.approx(0.5 * math.exp(-4.0))
    bucket = c.TokenBucket(burst=2.0, rate=0.5)
    assert c.backlog_of_path(bucket, [constant(1.0, 2.0)], 1e-9).backlog == 3.0
    assert c.bound_backlog(bucket, [constant(1.0, 2.0)], 2.9).bound.probability == 1.0
    with pytest.raises(c.NotAttestedError):
        c.bound_backlog(jobs, [constant(1.0, 2.0)], 2.0)
    contract = c.Domain(name="c", service=c.DelayContract(offset_ms=0.0, prefactor=1.0, decay_per_ms=1.0))
    with pytest.raises(c.NotAttestedError):
        c.bound_backlog(OWN, [constant(1.0), contract], 2.0)


def test_an_output_lies_below_its_envelope_and_node_by_node_is_looser() -> None:
    rng = np.random.default_rng(7)
    arrived = np.cumsum(rng.exponential(0.5, SLOTS))
    flow = through(arrived, np.cumsum(np.where(rng.random(SLOTS) < 0.9, 1.5, 0.0)))
    envelope = c.output_of_path(OWN, [WIRELESS], rate=0.9)
    assert envelope.prefactor == pytest.approx(1.0)
    for n in (1, 5, 20):
        sent = flow[n:] - flow[:-n]
        for x in (1.0, 3.0):
            seen = lower_limit(sent > envelope.rate * n + x)
            assert seen <= envelope.prefactor * math.exp(-envelope.decay * x)
    alone = c.bound_path(envelope, [constant(1.0)], 40.0).bound.probability
    assert c.bound_path(OWN, [WIRELESS, constant(1.0)], 40.0).bound.probability < alone < 1.0
    two = c.output_of_path(OWN, [WIRELESS, SERVED], rate=0.9)
    assert two.prefactor > 1.0
    shared = c.output_of_path(
        OWN, [constant(2.0, shared=True)], rate=5.0, crossing=[c.CrossFlow(arrival=CROSS, first=0, last=0)]
    )  # fmt: skip
    assert shared.rate == 5.0
    with pytest.raises(c.UnstableError):
        c.output_of_path(OWN, [WIRELESS], rate=0.4)
    with pytest.raises(c.NotAttestedError):
        c.output_of_path(c.CompoundPoisson(rate=0.5, work=c.ExponentialWork(mean=1.0)), [constant(1.0)], rate=0.9)


def test_a_sojourn_holds_the_own_work() -> None:
    jobs = c.CompoundPoisson(rate=0.5, work=c.ExponentialWork(mean=1.0))
    sojourn = {"measure": c.Measure.SOJOURN}
    found = c.bound_path(jobs, [constant(1.0, 1.0)], 11.0, **sojourn).bound  # type: ignore[arg-type]
    assert found.probability == pytest.approx(math.exp(-5.0))
    fixed = c.CompoundPoisson(rate=0.5, work=c.ConstantWork(value=2.0))
    for rung_class in c.RungClass:
        late = c.bound_path(fixed, [constant(2.0)], 6.0, measure=c.Measure.SOJOURN, rung_class=rung_class).bound
        waits = c.bound_path(fixed, [constant(2.0)], 5.0).bound
        # Its own work takes exactly 1.
        assert waits.probability * (1 - 1e-6) <= late.probability <= 3.0 * waits.probability
    cross = constant(2.0, cross=(jobs,))
    virtual, job = (c.bound_path(jobs, [cross], 20.0, measure=m).bound.probability for m in c.Measure)
    assert virtual < job < 1.0
    slots = [c.bound_path(OWN, [constant(1.0)], 9.0, measure=m).bound.probability for m in c.Measure]
    assert slots[0] == slots[1]
    fluid = c.FluidOnOff(count=2, off_to_on=1.0, on_to_off=2.0, peak=1.0)
    for domains in ([constant(1.0)], [cross], [cross] * 2):
        with pytest.raises(c.NotAttestedError):
            c.bound_path(fluid, domains, 9.0, measure=c.Measure.SOJOURN)


def test_a_batching_server_takes_a_lone_request_its_tokens_times_tau() -> None:
    server = c.BatchingServer(slots=16, base_time=0.02, time_per_request=0.001, reserved_slots=8, tokens_max=512)
    domain = c.Domain(name="llm", service=server)
    tokens = c.TruncatedLogNormalWork(median=200.0, sigma=1.0, cap=512.0)
    rare = c.CompoundPoisson(rate=1e-9, work=tokens)
    tau = server.iteration_time
    for delay in (50 * tau, 200 * tau, 511 * tau):
        alone = 1.0 - 0.5 * math.erfc(-math.log(delay / tau / 200.0) / math.sqrt(2.0))
        bound = c.bound_path(rare, [domain], delay, measure=c.Measure.SOJOURN).bound.probability
        assert bound >= alone
    assert c.bound_path(rare, [domain], 520 * tau, measure=c.Measure.SOJOURN).bound.probability < 1e-4
    busy = c.CompoundPoisson(rate=0.5 * 8 / tau / tokens.mean, work=tokens)
    # M/G/8 at load 0.5: rate b / tau with latency tau would claim far too little.
    assert c.bound_path(busy, [domain], 1000 * tau, measure=c.Measure.SOJOURN).bound.probability > 1e-12
    with pytest.raises(InvalidInputError):
        c.bound_path(c.CompoundPoisson(rate=0.1, work=c.ConstantWork(value=600.0)), [domain], 1.0)


def test_measured_delays_add_under_any_dependence_and_convolve_if_independent() -> None:
    rng = np.random.default_rng(8)
    samples = rng.exponential(1.0, (2, 2000))
    measured = [c.measured_latency(list(row), confidence=0.99) for row in samples]
    assert all(m.exceedance(2.0) >= math.exp(-2.0) for m in measured)
    assert measured[0].exceedance(-1.0) == 1.0

    def path(dependence: c.Dependence, *more: c.Domain) -> list[c.Domain]:
        return [c.Domain(name="m", service=m, dependence=dependence) for m in measured] + list(more)

    delay = 9.0
    independent = c.bound_path(None, path(c.Dependence.INDEPENDENT), delay).bound.probability
    any_way = c.bound_path(None, path(c.Dependence.ANY), delay).bound.probability
    # Comonotone delays attain exp(-d / 2); independent ones (1 + d) exp(-d).
    assert math.exp(-delay / 2) <= any_way
    assert (1.0 + delay) * math.exp(-delay) <= independent < any_way < 1.0
    contract = c.Domain(name="c", service=c.DelayContract(offset_ms=1.0, prefactor=1.0, decay_per_ms=2.0))
    assert any_way < c.bound_path(None, path(c.Dependence.ANY, contract), delay).bound.probability < 1.0
    behind = c.bound_path(OWN, [constant(1.0), *path(c.Dependence.ANY, contract)], 30.0).bound
    assert behind.probability < 1.0
    assert "+" in behind.rung
    least = c.delay_of_path(None, path(c.Dependence.ANY), 0.2)
    assert least.bound.probability <= 0.2
    assert math.isinf(c.delay_of_path(None, path(c.Dependence.ANY), 1e-6).delay)
    with pytest.raises(c.NotAttestedError):
        c.bound_path(OWN, [contract, constant(1.0)], 30.0)
    for bad in (((), ()), ((1.0, 1.0), (0.5, 0.4)), ((1.0, 2.0), (0.4, 0.5)), ((1.0,), (1.5,))):
        with pytest.raises(InvalidInputError):
            c.MeasuredLatency(delays=bad[0], exceedances=bad[1])
    for confidence, count in ((1.0, 5), (0.9, 0)):
        with pytest.raises(InvalidInputError):
            c.measured_latency([1.0] * count, confidence=confidence)


def test_what_a_crossing_needs() -> None:
    flow = [c.CrossFlow(arrival=CROSS, first=0, last=1)]
    with pytest.raises(c.NotAttestedError):
        c.bound_path(OWN, [constant(2.0)] * 2, 5.0, crossing=flow)
    with pytest.raises(InvalidInputError):
        c.bound_path(OWN, [constant(2.0, shared=True)], 5.0, crossing=flow)
    with pytest.raises(InvalidInputError):
        c.CrossFlow(arrival=CROSS, first=2, last=1)
    contract = c.Domain(name="c", service=c.DelayContract(offset_ms=0.0, prefactor=1.0, decay_per_ms=1.0))
    with pytest.raises(InvalidInputError):
        c.bound_path(None, [contract], 5.0, crossing=flow)
    with pytest.raises(c.UnstableError):
        c.bound_path(OWN, [constant(1.1, shared=True)] * 2, 5.0, crossing=flow)
