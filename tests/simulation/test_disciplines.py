"""Disciplines, regulators, batches, modulators, traces: laws that hold path by path, and hand-made cases."""

import math
from pathlib import Path

import numpy as np
import pytest

from aipaging.simulation.kernels.batching import batched
from aipaging.simulation.kernels.regulator import police, shape
from aipaging.simulation.scenario import Modulator
from aipaging.simulation.stations import Rows, Station

CONSTANT = {"kind": "constant", "value": 1.0}


def station(build, domain, tenants):
    from aipaging.simulation.reading import read_scenario

    scenario = read_scenario({"domain": [domain], "tenant": tenants}, folder=Path())
    return Station(scenario.domains[0], scenario.tenants, np.random.SeedSequence(0))


def through(built: Station, arrivals: list[list[tuple[float, float]]], horizons=(math.inf,)) -> list[list[float]]:
    """Put (instant, work) per tenant through a station; returns the departures."""
    for row, packets in enumerate(arrivals):
        block = np.array([[t, w, t] for t, w in packets], float).reshape(-1, 3).T
        built.rows.append(row, block, ordered=True)
    left: list[list[float]] = [[] for _ in arrivals]
    for horizon in horizons:
        built.serve(horizon)
        for row in range(len(arrivals)):
            left[row] += built.served(row)[0].tolist()
    return left


def test_priority_does_not_interrupt_and_then_prefers(build) -> None:
    built = station(
        build, build.domain(discipline="priority"), [build.tenant("low", priority=5), build.tenant("high", priority=-1)]
    )
    low, high = through(built, [[(0.0, 4.0), (1.0, 1.0)], [(3.0, 2.0), (5.5, 1.0)]])
    assert low == [4.0, 8.0]
    assert high == [6.0, 7.0]


def test_fluid_sharing_by_hand(build) -> None:
    tenants = [build.tenant(n, reserved_rate_per_ms=r) for n, r in (("a", 0.75), ("b", 0.25))]
    built = station(build, build.domain(discipline="reserved"), tenants)
    # b alone until 1; then 3:1 until a has its 3 at 5, by when b has 1 + 1; then b alone.
    first, second = through(built, [[(1.0, 3.0)], [(0.0, 3.0)]])
    assert first == pytest.approx([5.0])
    assert second == pytest.approx([6.0])


def test_round_robin_by_hand(build) -> None:
    tenants = [build.tenant(n, quantum=q) for n, q in (("a", 2.0), ("b", 1.0))]
    built = station(build, build.domain(discipline="round-robin"), tenants)
    first, second = through(built, [[(0.0, 1.0)] * 4, [(0.0, 1.0)] * 2])
    assert first == [1.0, 2.0, 4.0, 5.0]
    assert second == [3.0, 6.0]


def test_fair_queueing_shares_by_weight(build) -> None:
    tenants = [build.tenant(n, reserved_rate_per_ms=r) for n, r in (("a", 0.6), ("b", 0.2))]
    built = station(build, build.domain(discipline="fair"), tenants)
    first, second = through(built, [[(0.0, 1.0)] * 300, [(0.0, 1.0)] * 300])
    both_wait = 300
    assert sum(t <= both_wait for t in first) == pytest.approx(0.75 * both_wait, abs=2)
    assert second[-1] == 600.0


@pytest.mark.parametrize("discipline", ["fifo", "priority", "reserved", "fair", "round-robin"])
def test_work_is_conserved_and_stretches_change_nothing(build, discipline) -> None:
    rng = np.random.default_rng(7)
    tenants = [build.tenant(n, priority=k, reserved_rate_per_ms=0.3 + 0.2 * k, quantum=1.5) for k, n in enumerate("ab")]
    arrivals = [
        list(zip(np.cumsum(rng.exponential(2.4, 400)), rng.exponential(1.0, 400), strict=True)) for _ in tenants
    ]
    whole = through(station(build, build.domain(discipline=discipline), tenants), arrivals)
    pieces = through(
        station(build, build.domain(discipline=discipline), tenants), arrivals, [*np.linspace(1, 2000, 333), math.inf]
    )
    for one, other in zip(whole, pieces, strict=True):
        assert one == pytest.approx(other)
        assert one == sorted(one)
    # The last departure of a busy period does not depend on the order of service.
    free, last = 0.0, 0.0
    for instant, work in sorted(arrivals[0] + arrivals[1]):
        free = max(free, instant) + work
    last = max(max(one) for one in whole)
    assert last == pytest.approx(free)


def test_a_reservation_holds_path_by_path_whatever_the_others_send(build) -> None:
    rng = np.random.default_rng(3)
    packets = list(zip(np.cumsum(rng.exponential(3.0, 500)), rng.exponential(1.0, 500), strict=True))
    flood = [(0.1 * k, 1.0) for k in range(20_000)]
    tenants = [build.tenant(n, reserved_rate_per_ms=0.5) for n in ("victim", "flood")]
    victim, _ = through(station(build, build.domain(discipline="reserved"), tenants), [packets, flood])
    alone = [build.tenant("victim", reserved_rate_per_ms=0.5)]
    own = build.domain(discipline="reserved", work_conserving=False)
    (dedicated,) = through(station(build, own, alone), [packets])
    assert all(a <= b + 1e-6 for a, b in zip(victim, dedicated, strict=True))


def test_a_policer_and_a_shaper_by_hand() -> None:
    cells = np.array([[0.0, 0.0, 1.0, 4.0], [2.0, 2.0, 2.0, 2.0], [0.0] * 4])
    policed = cells.copy()
    police(policed, 0, 4, np.array([3.0, 0.0, 1.0, 3.0]))
    assert np.isnan(policed[0]).tolist() == [False, True, False, False]
    shape(cells, 0, 4, np.array([3.0, 0.0, 1.0, 3.0]))
    assert cells[0].tolist() == [0.0, 1.0, 3.0, 5.0]


def test_policed_and_shaped_tenants_in_a_run(build) -> None:
    regulator = {"rate_per_ms": 0.5, "burst": 3.0}
    policed = build.tenant(rate=0.8, work=CONSTANT, regulator={"kind": "policer", **regulator})
    found = build.ran([build.domain(rate=10.0)], [policed], packets=100_000).tenants[0]
    assert 0.3 < found.lost / found.sent < 0.5
    shaped = build.tenant(rate=0.4, work=CONSTANT, regulator={"kind": "shaper", **regulator})
    held = build.ran([build.domain(rate=10.0)], [shaped], packets=100_000).tenants[0]
    assert held.lost == 0
    assert held.mean_ms.value > 0.5


def test_a_lone_request_takes_one_iteration_per_token(build) -> None:
    model = {"name": "link", "discipline": "batching", "slots": 4, "iteration_ms": 2.0, "per_slot_ms": 0.5}
    built = station(build, {**model, "prefill_ms": 10.0}, [build.tenant()])
    (left,) = through(built, [[(3.0, 100.0)]])
    assert left == pytest.approx([3.0 + 10.0 + 100 * 2.5])


def test_batches_against_a_plain_walk_through_every_iteration(build) -> None:
    rng = np.random.default_rng(11)
    model = {"name": "link", "discipline": "batching", "slots": 3, "iteration_ms": 1.0, "per_slot_ms": 0.2}
    rows = [
        list(zip(np.cumsum(rng.exponential(25.0, 200)), np.ceil(rng.exponential(12.0, 200)), strict=True))
        for _ in range(2)
    ]
    plain: list[float] = []
    waiting, active, now = sorted(rows[0] + rows[1]), [], 0.0
    while waiting or active:
        if not active:
            now = max(now, waiting[0][0])
        admitted = 0
        while waiting and waiting[0][0] <= now and len(active) < 3:
            active.append(waiting.pop(0)[1])
            admitted += 1
        now += 1.0 + 0.2 * len(active) + 0.7 * admitted
        plain += [now for left in active if left == 1]
        active = [left - 1 for left in active if left > 1]
    for horizons in ([math.inf], [*np.linspace(0, 6000, 611), math.inf]):
        tenants = [build.tenant(n) for n in "ab"]
        left = through(station(build, {**model, "prefill_ms": 0.7}, tenants), rows, horizons)
        assert sorted(left[0] + left[1]) == pytest.approx(plain)


def test_batches_in_a_run_feed_the_next_domain(build) -> None:
    model = {"name": "model", "discipline": "batching", "slots": 8, "iteration_ms": 1.0, "latency_ms": 1.0}
    work = {"kind": "log-normal", "median": 20.0, "sigma": 1.0, "cap": 400.0}
    tenant = build.tenant(route=("model", "link"), rate=0.1, work=work)
    found = build.ran([build.domain(rate=1000.0), model], [tenant], packets=40_000).tenants[0]
    assert found.sent == 40_000
    assert found.mean_ms.value > 33.0, "a request takes at least its own tokens"


def test_common_bursts_hurt_more_than_independent_ones(build) -> None:
    jumps, rates = [[0.0, 0.01], [0.04, 0.0]], [0.0, 0.9]
    own = {"kind": "mmpp", "rates_per_ms": rates, "jumps_per_ms": jumps}
    shared = {"kind": "modulated", "modulator": "storm", "rates_per_ms": rates}
    names = ("a", "b", "c")
    apart = build.ran([build.domain()], [build.tenant(n, arrivals=own) for n in names], packets=200_000)
    together = build.ran(
        [build.domain()],
        [build.tenant(n, arrivals=shared) for n in names],
        packets=200_000,
        modulator=[{"name": "storm", "jumps_per_ms": jumps}],
    )
    assert together.tenants[0].quantiles[0.99].low > apart.tenants[0].quantiles[0.99].high


def test_moments_of_a_modulator() -> None:
    chain = Modulator(name="", jumps_per_ms=((0.0, 0.1), (0.4, 0.0)))
    assert chain.stationary() == pytest.approx([0.8, 0.2])
    assert chain.memory_ms() == pytest.approx(2.0)
    assert chain.dispersion((0.0, 3.0)) == pytest.approx(2.0 * 0.8 * 0.2 * 9.0 / 0.5)


def test_a_trace_is_replayed_in_a_circle(build, tmp_path) -> None:
    (tmp_path / "t.csv").write_text("arrival_ms,tokens\n5,2\n6,1\n9,4\n11,1\n")
    arrivals = {"kind": "trace", "file": "t.csv", "work_column": "tokens"}
    tenant = {"name": "a", "route": ["link"], "arrivals": arrivals, "targets_ms": [2.5]}
    found = build.ran([build.domain(rate=4.0)], [tenant], packets=4_000, folder=tmp_path).tenants[0]
    # Gaps 1, 3, 2 and 2 at the seam; alone each takes work / 4, and none waits.
    assert found.mean_ms.value == pytest.approx((2 + 1 + 4 + 1) / 16)
    assert found.quantiles[0.999].value == pytest.approx(1.0, rel=1e-3)


def test_an_empty_batch_waits(build) -> None:
    rows = Rows(1)
    engine = np.array([0.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    nobody = np.zeros(3), np.zeros(4, np.uint64)
    batched((rows.cells, rows.counts, rows.done), np.zeros((3, 2)), engine, *nobody, math.inf)
    assert engine[0] == 0.0


def test_periodic_packets_that_never_meet_have_one_delay(build) -> None:
    tenant = build.tenant(arrivals={"kind": "periodic", "interval_ms": 1.25}, work=CONSTANT, targets_ms=[0.9, 1.1])
    found = build.ran([build.domain(latency_ms=0.25)], [tenant], packets=2_000).tenants[0]
    assert found.quantiles[0.999].value == pytest.approx(1.25)
    assert [each.value for each in found.exceedance.values()] == [1.0, 1.0]
    assert found.sent == 2_000


def test_what_is_lost_on_the_way_does_not_reach_the_next_domain(build) -> None:
    coin = {"kind": "on-off", "mean_good_ms": 1.0, "mean_bad_ms": 1.0, "bad_rate_per_ms": 4.0}
    impairment = {**coin, "loss_good": 0.5, "loss_bad": 0.5}
    domains = [build.domain("first", rate=4.0, impairment=impairment), build.domain("second")]
    found = build.ran(domains, [build.tenant(route=("first", "second"), rate=0.9)], packets=400_000).tenants[0]
    assert found.lost / found.sent == pytest.approx(0.5, rel=0.02)
    # The same by a plain walk over other random numbers; packets keep their work, so no closed form is at hand.
    rng = np.random.default_rng(2)
    instant = first = second = total = 0.0
    arrived = 0
    for gap, work, lost in zip(
        rng.exponential(1.0 / 0.9, 200_000), rng.exponential(1.0, 200_000), rng.random(200_000) < 0.5, strict=True
    ):
        instant += gap
        first = max(first, instant) + work / 4.0
        if not lost:
            second = max(second, first) + work
            total += second - instant
            arrived += 1
    assert found.mean_ms.value == pytest.approx(total / arrived, rel=0.05)


def test_a_tenant_that_sends_nothing_has_no_delay(build) -> None:
    found = build.ran([build.domain()], [build.tenant(), build.tenant("rare", rate=1e-9, targets_ms=[1.0])]).tenants[1]
    assert found.sent == 0
    assert math.isnan(found.mean_ms.value)
    assert (found.exceedance[1.0].low, found.exceedance[1.0].high) == (0.0, 1.0)


def test_nothing_seen_is_not_a_probability_of_zero(build) -> None:
    found = build.ran([build.domain()], [build.tenant(rate=0.5, targets_ms=[200.0])], packets=50_000).tenants[0]
    (rare,) = found.exceedance.values()
    assert rare.value == rare.low == 0.0
    assert 3.7 / 50_000 < rare.high < 0.1
