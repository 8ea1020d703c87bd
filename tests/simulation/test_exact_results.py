"""Against what is known exactly; seeds are fixed, and an estimate may be off by two half-widths of its interval.

A packet keeps its work at every hop, so a tandem is not a Jackson network; exact results are used where they hold:
the first hop, latencies, and a second hop that is at least as fast and never queues.
"""

import math
from itertools import pairwise

import pytest

from aipaging.simulation.estimates import Estimate

EXPONENTIAL = {"kind": "exponential", "mean": 1.0}
CONSTANT = {"kind": "constant", "value": 1.0}


def agrees(found: Estimate, exact: float) -> bool:
    half = 0.5 * (found.high - found.low)
    assert half < 0.2 * abs(exact), "the interval is too wide to show anything"
    return abs(found.value - exact) <= 2.0 * half


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_mm1(build, load) -> None:
    spare = 1.0 - load
    targets = [1.0 / spare, 3.0 / spare]
    found = build.ran([build.domain()], [build.tenant(rate=load, targets_ms=targets)], packets=1_000_000).tenants[0]
    assert agrees(found.mean_ms, 1.0 / spare)
    for level in (0.5, 0.9, 0.99):
        assert agrees(found.quantiles[level], -math.log(1.0 - level) / spare)
    for target in targets:
        assert agrees(found.exceedance[target], math.exp(-spare * target))


WORKS = [
    (CONSTANT, 1.0, 1.0),
    ({"kind": "uniform", "low": 0.0, "high": 2.0}, 1.0, 4.0 / 3.0),
    ({"kind": "discrete", "values": [0.5, 2.0], "probabilities": [0.8, 0.2]}, 0.8, 1.0),
    # A cap far out: moments of the plain log-normal law, exp(k*k*sigma*sigma/2).
    ({"kind": "log-normal", "median": 1.0, "sigma": 0.5, "cap": 1e6}, math.exp(0.125), math.exp(0.5)),
    ({"kind": "pareto", "minimum": 0.5, "alpha": 2.5, "cap": 20.0}, None, None),
]


@pytest.mark.parametrize(("work", "mean", "square"), WORKS, ids=lambda each: str(each)[:20])
def test_mg1_by_pollaczek_and_khinchine(build, work, mean, square) -> None:
    if mean is None:
        grid = [0.5 * math.exp(math.log(40.0) * k / 100_000) for k in range(100_001)]
        survival = [(0.5 / x) ** 2.5 for x in grid]
        steps = [b - a for a, b in pairwise(grid)]
        mean = 0.5 + sum(h * s for h, s in zip(steps, survival, strict=False))
        square = 0.25 + sum(2.0 * x * h * s for x, h, s in zip(grid, steps, survival, strict=False))
    rate = 0.7 / mean
    found = build.ran([build.domain()], [build.tenant(rate=rate, work=work)], packets=600_000).tenants[0]
    assert agrees(found.mean_ms, mean + rate * square / (2.0 * 0.3))


def test_md1_tail(build) -> None:
    """P(W > t) of M/D/1 by Erlang's formula."""
    load, waits = 0.8, 4.0
    below = (1.0 - load) * sum(
        (load * (k - waits)) ** k / math.factorial(k) * math.exp(-load * (k - waits)) for k in range(5)
    )
    tenant = build.tenant(rate=load, work=CONSTANT, targets_ms=[waits + 1.0])
    found = build.ran([build.domain()], [tenant], packets=1_000_000).tenants[0]
    assert agrees(found.exceedance[waits + 1.0], 1.0 - below)


def test_non_preemptive_priority_by_cobham(build) -> None:
    tenants = [build.tenant(name, rate=0.25, priority=rank) for rank, name in enumerate("abc")]
    found = build.ran([build.domain(discipline="priority")], tenants, packets=1_000_000).tenants
    residual, before = 0.75, 0.0
    for tenant in found:
        after = before + 0.25
        assert agrees(tenant.mean_ms, 1.0 + residual / ((1.0 - before) * (1.0 - after)))
        before = after


def test_mmk_by_erlang_c(build) -> None:
    servers, offered = 3, 2.4
    terms = [offered**k / math.factorial(k) for k in range(servers)]
    last = offered**servers / math.factorial(servers) / (1.0 - offered / servers)
    waits = last / (sum(terms) + last)
    found = build.ran([build.domain(servers=servers)], [build.tenant(rate=offered)], packets=1_000_000).tenants[0]
    assert agrees(found.mean_ms, 1.0 + waits / (servers - offered))


def _loss_share(found) -> tuple[float, float]:
    share = found.lost / found.sent
    return share, math.sqrt(share * (1.0 - share) / found.sent)


@pytest.mark.parametrize("work", [EXPONENTIAL, CONSTANT])
def test_erlang_loss_whatever_the_work(build, work) -> None:
    offered, servers = 3.0, 4
    terms = [offered**k / math.factorial(k) for k in range(servers + 1)]
    domain = build.domain(servers=servers, buffer_packets=servers)
    found = build.ran([domain], [build.tenant(rate=offered, work=work, targets_ms=[100.0])]).tenants[0]
    share, deviation = _loss_share(found)
    assert abs(share - terms[-1] / sum(terms)) < 8.0 * deviation
    assert found.exceedance[100.0].value == pytest.approx(share), "a lost packet is later than every target"


def test_mm1k_loses_at_overload_and_is_not_refused(build) -> None:
    load, room = 1.5, 5
    exact = (1.0 - load) * load**room / (1.0 - load ** (room + 1))
    found = build.ran([build.domain(buffer_packets=room)], [build.tenant(rate=load)]).tenants[0]
    assert found.loss.value == pytest.approx(found.lost / found.sent)
    assert agrees(found.loss, exact)


def test_a_reserved_rate_without_sharing_is_a_queue_of_its_own(build) -> None:
    tenants = [build.tenant(n, rate=r, reserved_rate_per_ms=0.5) for n, r in (("a", 0.3), ("b", 0.4))]
    found = build.ran([build.domain(discipline="reserved", work_conserving=False)], tenants, packets=800_000).tenants
    assert agrees(found[0].mean_ms, 1.0 / 0.2)
    assert agrees(found[1].mean_ms, 1.0 / 0.1)


@pytest.mark.parametrize("discipline", ["reserved", "fair"])
def test_a_tenant_alone_has_the_whole_rate(build, discipline) -> None:
    tenant = build.tenant(rate=0.7, reserved_rate_per_ms=0.2)
    found = build.ran([build.domain(discipline=discipline)], [tenant], packets=800_000).tenants[0]
    assert agrees(found.mean_ms, 1.0 / 0.3)


def test_equal_shares_are_processor_sharing_of_two_queues(build) -> None:
    """Fluid sharing conserves work: with exponential work the mean number, so the mean delay, is that of FIFO."""
    tenants = [build.tenant(name, rate=0.4, reserved_rate_per_ms=0.5) for name in "ab"]
    found = build.ran([build.domain(discipline="reserved")], tenants, packets=1_000_000).tenants
    for tenant in found:
        assert agrees(tenant.mean_ms, 5.0)


def test_latencies_add_and_a_faster_constant_hop_never_queues(build) -> None:
    domains = [build.domain("one", latency_ms=3.0), build.domain("two", rate=2.0, latency_ms=4.0)]
    tenant = build.tenant(route=("one", "two"), rate=0.7, work=CONSTANT)
    found = build.ran(domains, [tenant], packets=600_000).tenants[0]
    assert agrees(found.mean_ms, 3.0 + 4.0 + 0.5 + 1.0 + 0.7 / (2.0 * 0.3))


def test_a_link_that_stops_by_white_and_christie(build) -> None:
    """M/M/1 with exponential breakdowns while idle too: mean number by White and Christie (1958)."""
    arrive, serve, fail, repair = 0.3, 1.0, 0.1, 0.2
    impairment = {"kind": "on-off", "mean_good_ms": 1.0 / fail, "mean_bad_ms": 1.0 / repair}
    found = build.ran([build.domain(impairment=impairment)], [build.tenant(rate=arrive)], packets=1_500_000).tenants[0]
    up = repair / (repair + fail)
    number = (arrive / (serve * up - arrive)) * (1.0 + serve * fail / (fail + repair) ** 2)
    assert agrees(found.mean_ms, number / arrive)


def test_a_link_that_remembers_long_is_warmed_up_longer(build) -> None:
    """The rest of the law of White and Christie, at times a hundred times as long: variance and memory of the link."""
    arrive, fail, repair = 0.4, 1.0 / 300.0, 1.0 / 100.0
    impairment = {"kind": "on-off", "mean_good_ms": 300.0, "mean_bad_ms": 100.0}
    found = build.ran([build.domain(impairment=impairment)], [build.tenant(rate=arrive)], packets=4_000_000)
    number = (arrive / (0.75 - arrive)) * (1.0 + fail / (fail + repair) ** 2)
    assert agrees(found.tenants[0].mean_ms, number / arrive)
    assert found.load.warm_up_ms > 10.0 * 75.0, "the link forgets its state in 75 ms"


def test_a_lossy_link_of_gilbert_and_elliott(build) -> None:
    """Packets meet the bad state as often as it lasts, and service does not depend on it: M/D/1 and the two losses."""
    link = {"kind": "gilbert-elliott", "mean_good_ms": 90.0, "mean_bad_ms": 10.0, "loss_good": 0.001, "loss_bad": 0.3}
    tenant = build.tenant(rate=0.5, work=CONSTANT)
    found = build.ran([build.domain(impairment=link)], [tenant], packets=1_000_000).tenants[0]
    assert agrees(found.loss, 0.9 * 0.001 + 0.1 * 0.3)
    assert agrees(found.mean_ms, 1.5)


def test_lossy_link_loses_what_it_says(build) -> None:
    impairment = {"kind": "on-off", "mean_good_ms": 5.0, "mean_bad_ms": 5.0, "bad_rate_per_ms": 1.0, "loss_bad": 0.5}
    found = build.ran([build.domain(impairment=impairment)], [build.tenant(rate=0.5)]).tenants[0]
    assert found.lost / found.sent == pytest.approx(0.25, rel=0.03)


def test_modulated_arrivals_by_the_mean_of_the_exact_chain(build) -> None:
    """MMPP(2)/M/1: the stationary law of the truncated chain, solved."""
    import numpy as np

    rates, jumps, size = (0.3, 1.2), ((0.0, 0.1), (0.15, 0.0)), 400
    generator = np.zeros((2 * size, 2 * size))
    for n in range(size):
        for mode in range(2):
            here = 2 * n + mode
            if n + 1 < size:
                generator[here, here + 2] = rates[mode]
            if n:
                generator[here, here - 2] = 1.0
            generator[here, 2 * n + 1 - mode] = jumps[mode][1 - mode]
    generator -= np.diag(generator.sum(axis=1))
    system = generator.T.copy()
    system[-1] = 1.0
    law = np.linalg.solve(system, np.eye(2 * size)[-1])
    number = float(law @ (np.arange(2 * size) // 2))
    arrivals = {"kind": "mmpp", "rates_per_ms": list(rates), "jumps_per_ms": [list(row) for row in jumps]}
    found = build.ran([build.domain()], [build.tenant(arrivals=arrivals)], packets=1_500_000).tenants[0]
    mean_rate = (0.15 * 0.3 + 0.1 * 1.2) / 0.25
    assert agrees(found.mean_ms, number / mean_rate)


def test_intervals_cover_as_often_as_they_say(build) -> None:
    hits = {"mean": 0, "median": 0, "p99": 0, "target": 0}
    for seed in range(60):
        found = build.ran([build.domain()], [build.tenant(targets_ms=[10.0])], packets=100_000, seed=seed).tenants[0]
        for name, estimate, exact in (
            ("mean", found.mean_ms, 5.0),
            ("median", found.quantiles[0.5], 5.0 * math.log(2.0)),
            ("p99", found.quantiles[0.99], 5.0 * math.log(100.0)),
            ("target", found.exceedance[10.0], math.exp(-2.0)),
        ):
            hits[name] += estimate.low <= exact <= estimate.high
    # 57 of 60 are expected; 50 or fewer would happen to honest intervals once in a few hundred times.
    assert min(hits.values()) > 50, hits
