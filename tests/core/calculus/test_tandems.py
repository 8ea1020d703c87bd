"""Tandems: one hop is a single queue, more hops cost more, and no bound lies below a simulation."""

import math

import numpy as np
import pytest

from aipaging.core.calculus.bound import RungClass
from aipaging.core.calculus.errors import UnstableError
from aipaging.core.calculus.onoff import SlottedOnOff
from aipaging.core.calculus.priority import low_priority_tail
from aipaging.core.calculus.queue_exact import exponential_slots_onoff_service
from aipaging.core.calculus.tandem import (
    SlottedTandem,
    log_constant,
    log_exponential,
    log_leftover,
    log_onoff,
    stable_end,
    tandem_log_bound,
)
from aipaging.core.calculus.tandem_hop import exponential_cross_bound, exponential_onoff_bound

SHARP, FAST = RungClass.SHARP, RungClass.FAST


def onoff_tandem(hops: int) -> SlottedTandem:
    return SlottedTandem(log_arrival=log_exponential(0.5), log_services=(log_onoff(1.0, 0.9),) * hops, theta_max=2.0)


def brute_force(tandem: SlottedTandem, theta: float, delay: int) -> tuple[float, float]:
    """Sum both series term by term with the complete homogeneous symmetric polynomials by recursion."""
    at = np.array([theta])
    q = math.exp(float(tandem.log_arrival(at)[0]))
    r = [math.exp(float(log_r(at)[0])) for log_r in tandem.log_services]

    def symmetric(rates: list[float], length: int) -> list[float]:
        h = [1.0] + [0.0] * length
        for rate in rates:
            for i in range(1, length + 1):
                h[i] += rate * h[i - 1]
        return h

    terms = 3000
    # q^k h_{k+d}(r) = q^{-d} h_{k+d}(q r), which does not overflow.
    everything, later = symmetric([q * x for x in r], terms), symmetric([q * x for x in r[1:]], terms)
    union = math.fsum(everything[k + delay] for k in range(1, terms - delay)) * q**-delay
    doob = math.fsum(later[j + delay] for j in range(terms - delay)) * q**-delay
    near = symmetric(r[1:], delay)
    doob += math.fsum(r[0] ** j * near[delay - j] for j in range(1, delay + 1))
    return doob, union


@pytest.mark.parametrize("rates", [(3.0,), (3.0, 3.0, 3.0), (3.0, 2.7, 2.4), (2.5, 4.0)])
@pytest.mark.parametrize("delay", [1, 7])
def test_the_series_equal_their_definition(rates: tuple[float, ...], delay: int) -> None:
    moments = {rate: log_leftover(log_constant(rate), (log_exponential(1.0),)) for rate in rates}
    tandem = SlottedTandem(
        log_arrival=log_exponential(0.5), log_services=tuple(moments[r] for r in rates), theta_max=1.0
    )
    from aipaging.core.calculus.tandem import both_series

    theta = 0.8 * stable_end(tandem)
    ours = np.exp(both_series(tandem, np.array([theta]), delay)[:, 0])
    assert ours == pytest.approx(brute_force(tandem, theta, delay), rel=1e-9)


def test_one_hop_is_the_single_queue() -> None:
    law = exponential_slots_onoff_service(0.5, 1.0, 0.9)
    for delay in (0, 5, 20):
        # d slots of service beyond the backlog: one factor K for each.
        exact = law.weights[0] ** (delay + 1)
        bound = exponential_onoff_bound(0.5, [(1.0, 0.9)], delay=delay, rung_class=FAST).probability
        assert exact <= bound == pytest.approx(exact, rel=1e-7)


def test_more_hops_and_less_delay_cost_more() -> None:
    table = [
        [exponential_onoff_bound(0.5, [(1.0, 0.9)] * h, delay=d, rung_class=SHARP).probability for d in (10, 20, 40)]
        for h in (1, 2, 3, 5, 10)
    ]
    for row in table:
        assert sorted(row, reverse=True) == row
    for column in zip(*table, strict=True):
        assert sorted(column) == list(column)


@pytest.mark.parametrize("hops", [1, 2, 4])
@pytest.mark.parametrize("delay", [3, 12, 30])
def test_sharp_is_never_above_fast(hops: int, delay: int) -> None:
    for bound in (
        lambda c: exponential_onoff_bound(0.4, [(1.0, 0.8)] * hops, delay=delay, rung_class=c),
        lambda c: exponential_cross_bound(0.5, (0.7,) * hops, (2.0,) * hops, delay=delay, rung_class=c),
    ):
        assert bound(SHARP).probability <= bound(FAST).probability


def simulated_onoff(hops: int, slots: int) -> np.ndarray:
    """Return the end-to-end virtual delay, in slots, of Exp(1/2) work through on/off domains (p = 0.9)."""
    rng = np.random.default_rng(hops)
    arrived = np.cumsum(rng.exponential(0.5, slots))
    flow = arrived
    for _ in range(hops):
        served = np.cumsum((rng.random(slots) < 0.9).astype(float))
        # D(t) = min over s <= t of A(s) + S(s, t), the empty start included: cut-through, same slot.
        flow = np.minimum(np.minimum.accumulate(np.concatenate([[0.0], (flow - served)]))[1:], 0.0) + served
    left = np.searchsorted(flow, arrived * (1 - 1e-15), side="left")
    return np.maximum(left - np.arange(slots), 0)[: slots - 400]


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_impaired_domains_lie_above_simulation(hops: int) -> None:
    delays = simulated_onoff(hops, 1_000_000)
    for delay in (2, 5):
        seen = (delays > delay).mean()
        bound = exponential_onoff_bound(0.5, [(1.0, 0.9)] * hops, delay=delay, rung_class=SHARP).probability
        assert bound >= 0.95 * seen
        assert bound <= {1: 1.05, 2: 5.5, 3: 27.0}[hops] * seen


@pytest.mark.parametrize(("own", "cross"), [(5, 5), (3, 7)])
def test_the_low_class_is_exact_on_the_lattice(own: int, cross: int) -> None:
    rng = np.random.default_rng(own)
    slots, runs = 1_000, 400
    on = rng.random((runs, own + cross)) < 1.0 / 3.0
    total, high = np.zeros((slots, runs)), np.zeros((slots, runs))
    for t in range(slots):
        draw = rng.random(on.shape)
        on = np.where(on, draw < 0.9, draw >= 0.95)
        total[t], high[t] = on.sum(axis=1), on[:, own:].sum(axis=1)
    backlog, delay = np.zeros(runs), 5
    backlogs = np.empty((slots, runs))
    for t in range(slots):
        backlog = np.maximum(backlog + total[t] - 5.0, 0.0)
        backlogs[t] = backlog
    late = []
    for t in range(200, slots - delay):
        left = backlogs[t].copy()
        alive = left > 0.0
        for u in range(t + 1, t + delay + 1):
            left += high[u] - 5.0
            alive &= left > 0.0
        late.append(alive)
    per_run = np.array(late).mean(axis=0)
    seen, error = per_run.mean(), per_run.std(ddof=1) / math.sqrt(runs)
    flows = [SlottedOnOff(count=n, stay_off=0.95, stay_on=0.9, peak=1.0) for n in (own, cross)]
    sharp = low_priority_tail(flows[0], flows[1], capacity=5.0, delay=delay, rung_class=SHARP).probability
    fast = low_priority_tail(flows[0], flows[1], capacity=5.0, delay=delay, rung_class=FAST).probability
    assert seen - 4 * error <= sharp <= min(fast, seen + 4 * error)


def test_overload_and_nonsense_are_refused() -> None:
    with pytest.raises(UnstableError):
        exponential_onoff_bound(0.9, [(1.0, 0.9)] * 2, delay=5, rung_class=SHARP)
    with pytest.raises(UnstableError):
        exponential_cross_bound(1.0, (2.0, 1.0), (3.0, 3.0), delay=5, rung_class=SHARP)


def test_scaling_with_the_number_of_hops_is_linear_if_independent() -> None:
    # O(H) with independent services ([Fidler2006]); Theta(H log H) only without.
    quantiles = []
    for hops in (4, 8, 16):
        delay = 1
        while tandem_log_bound(onoff_tandem(hops), delay)[0] > math.log(1e-9):
            delay += 1
        quantiles.append(delay)
    assert quantiles[2] - quantiles[1] <= 1.15 * 2 * (quantiles[1] - quantiles[0])
