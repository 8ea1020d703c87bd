"""Rare delays against what is known exactly, down to 1e-9 and below; and the two methods against each other."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aipaging.core.foundation.errors import InvalidInputError, UnavailableError
from aipaging.simulation.rare import estimate, splitting
from aipaging.simulation.rare.estimate import Effort, RareResult, rare_exceedance
from aipaging.simulation.reading import read_scenario

TWISTING, SPLITTING = Effort(method="twisting"), Effort(method="splitting")
MMPP = {"kind": "mmpp", "rates_per_ms": [0.3, 1.2], "jumps_per_ms": [[0.0, 0.1], [0.15, 0.0]]}


@pytest.fixture(autouse=True)
def _less_work(monkeypatch) -> None:
    monkeypatch.setattr(estimate, "WALKS", 400)
    monkeypatch.setattr(splitting, "RUNS", 400)
    monkeypatch.setattr(splitting, "PACKETS", 40_000)


def scenario(domains, tenants, **more):
    return read_scenario({"domain": domains, "tenant": tenants, **more}, folder=Path())


def agrees(found: RareResult, exact: float, width: float) -> bool:
    """Whether an estimate is within two half-widths of the truth, and the interval narrow enough to show it."""
    low, value, high = found.probability.low, found.probability.value, found.probability.high
    return high - low < 2.0 * width * exact and abs(value - exact) <= high - low


@pytest.mark.parametrize("target", [20.0, 100.0, 200.0])
def test_mm1_by_twisting_at_any_depth(build, target) -> None:
    two = scenario([build.domain(latency_ms=2.0)], [build.tenant("a", rate=0.5), build.tenant("b", rate=0.3)])
    found = rare_exceedance(two, "b", target + 2.0)
    assert found.method == "twisting"
    assert found.decay_per_ms == pytest.approx(0.2)
    assert agrees(found, math.exp(-0.2 * target), width=0.02)


def test_mm1_by_splitting_at_1e_9(build) -> None:
    found = rare_exceedance(scenario([build.domain()], [build.tenant(rate=0.5)]), "a", 42.0, effort=SPLITTING)
    assert found.probability.value < 1e-9
    assert agrees(found, math.exp(-0.5 * 42.0), width=0.4)


def test_a_jackson_tandem_by_splitting_at_1e_9(build, monkeypatch) -> None:
    """Work drawn anew at each hop: by Burke and Reich delays of an M/M/1 tandem are independent exponentials."""
    monkeypatch.setattr(splitting, "RUNS", 1_000)
    monkeypatch.setattr(splitting, "PACKETS", 100_000)
    names, serve = ("x", "y"), (1.0, 1.4)
    fresh = {"y": {"kind": "exponential", "mean": 1.0 / serve[1]}}
    tandem = scenario([build.domain(n) for n in names], [build.tenant("a", names, 0.5, work_at=fresh)])
    found = rare_exceedance(tandem, "a", 44.0)
    p, q = serve[0] - 0.5, serve[1] - 0.5
    exact = (q * math.exp(-p * 44.0) - p * math.exp(-q * 44.0)) / (q - p)
    assert found.method == "splitting"
    assert exact < 1e-9
    assert agrees(found, exact, width=0.5)


WORKS = [
    {"kind": "constant", "value": 1.0},
    {"kind": "uniform", "low": 0.5, "high": 1.5},
    {"kind": "discrete", "values": [0.5, 3.0], "probabilities": [0.8, 0.2]},
]


@pytest.mark.parametrize("work", WORKS, ids=lambda each: each["kind"])
def test_both_methods_agree_on_other_work_under_modulated_arrivals(build, work) -> None:
    tenants = [
        build.tenant("a", rate=0.3, work=work),
        build.tenant("b", arrivals={**MMPP, "rates_per_ms": [0.1, 0.5]}),
    ]
    both = scenario([build.domain()], tenants)
    twisted = rare_exceedance(both, "b", 40.0, effort=TWISTING)
    split = rare_exceedance(both, "b", 40.0, effort=SPLITTING)
    assert twisted.probability.value < 1e-3
    assert agrees(split, twisted.probability.value, width=0.5)


def test_a_shared_modulator_is_one_chain_for_both_methods(build) -> None:
    chain = [{"name": "storm", "jumps_per_ms": MMPP["jumps_per_ms"]}]
    each = {"kind": "modulated", "modulator": "storm", "rates_per_ms": [0.1, 0.6]}
    tenants = [build.tenant(name, arrivals=each) for name in "ab"]
    together = scenario([build.domain()], tenants, modulator=chain)
    twisted = rare_exceedance(together, "a", 50.0)
    assert agrees(rare_exceedance(together, "a", 50.0, effort=SPLITTING), twisted.probability.value, width=0.5)
    apart = scenario([build.domain()], [build.tenant(n, arrivals={**MMPP, "rates_per_ms": [0.1, 0.6]}) for n in "ab"])
    assert rare_exceedance(apart, "a", 50.0).probability.high < twisted.probability.low


def test_cross_traffic_that_joins_and_leaves_against_a_plain_run(build) -> None:
    names = ("x", "y", "z")
    domains = [build.domain(n, latency_ms=0.5) for n in names]
    tenants = [
        build.tenant("a", names, 0.3, targets_ms=[25.0]),
        build.tenant("b", ("y", "z"), 0.3),
        build.tenant("c", ("x",), 0.3, work={"kind": "pareto", "minimum": 0.4, "alpha": 2.0, "cap": 10.0}),
        build.tenant("d", ("z",), arrivals={"kind": "periodic", "interval_ms": 6.0}),
    ]
    plain = build.ran(domains, tenants, packets=1_500_000).tenants[0].exceedance[25.0]
    found = rare_exceedance(scenario(domains, tenants), "a", 25.0).probability
    assert abs(found.value - plain.value) < (found.high - found.low) + (plain.high - plain.low)
    assert found.high - found.low < 0.8 * found.value


def test_it_goes_on_until_it_is_precise_and_workers_change_nothing(build) -> None:
    one = scenario([build.domain()], [build.tenant(rate=0.8)])
    seen: list[tuple[int, int]] = []
    effort = Effort(precision=0.004, on_progress=lambda *each: seen.append(each))
    alone = rare_exceedance(one, "a", 100.0, effort=effort)
    assert alone.replications > 20
    assert seen == [(done, 2_000) for done in range(20, alone.replications + 1, 20)]
    assert alone.probability.high - alone.probability.value <= 0.004 * alone.probability.value
    with ThreadPoolExecutor(2) as pool:
        assert rare_exceedance(one, "a", 100.0, effort=effort, executor=pool).probability == alone.probability


def test_without_a_wish_it_is_30_percent_or_says_that_it_is_not(build, monkeypatch) -> None:
    monkeypatch.setattr(splitting, "RUNS", 20)
    monkeypatch.setattr(splitting, "PACKETS", 2_000)
    tandem = scenario([build.domain("x"), build.domain("y")], [build.tenant("a", ("x", "y"), 0.7)])
    found = rare_exceedance(tandem, "a", 40.0)
    assert found.replications > 20
    assert found.precise
    assert found.probability.high - found.probability.low <= 2 * 0.3 * found.probability.value
    monkeypatch.setattr(estimate, "REPLICATIONS_DEFAULT_MAX", 20)
    short = rare_exceedance(tandem, "a", 40.0)
    assert short.replications == 20
    assert not short.precise
    assert short.precision > 0.3


def refused(build, *, domain=None, tenant=None, question=("a", 50.0), effort=None, others=()):
    one = scenario([build.domain(**(domain or {})), build.domain("far")], [build.tenant(**(tenant or {})), *others])
    with pytest.raises((InvalidInputError, UnavailableError)) as caught:
        rare_exceedance(one, *question, effort=effort)
    return caught.value


def test_what_does_not_fit_is_refused_by_name(build) -> None:
    assert refused(build, domain={"discipline": "priority"}).field == "domain.link"
    assert refused(build, domain={"servers": 2}).code == "NOT_RARE_READY"
    assert refused(build, tenant={"rate": 1.2}).code == "UNSTABLE"
    assert "there are: a" in refused(build, question=("z", 50.0)).message
    assert refused(build, question=("a", 0.0)).field == "target_ms"
    assert "latencies" in refused(build, domain={"latency_ms": 60.0}).message
    heavy = {"work": {"kind": "log-normal", "median": 0.5, "sigma": 0.5, "cap": 5.0}}
    assert "heavy-tailed" in refused(build, tenant=heavy, effort=TWISTING).message
    back = [build.tenant("b", ("far", "link"), 0.1)]
    assert refused(build, others=back).field == "tenant.b.route"
    shaped = {"regulator": {"kind": "shaper", "rate_per_ms": 1.0, "burst": 3.0}}
    assert refused(build, tenant=shaped).field == "tenant.a.regulator"
    quiet = {"arrivals": {"kind": "periodic", "interval_ms": 2.0}, "work": WORKS[0]}
    assert refused(build, tenant=quiet).code == "TARGET_OUT_OF_REACH"
    for wrong in ({"method": "luck"}, {"precision": 2.0}):
        with pytest.raises(InvalidInputError):
            Effort(**wrong)
