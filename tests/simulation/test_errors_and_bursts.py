"""Service that fails and is asked for again, bursts that depend by a copula, work drawn anew, precision, memory."""

import heapq
import math
import tracemalloc
from pathlib import Path

import ciw
import numpy as np
import pytest

from aipaging.core.foundation.errors import InvalidInputError
from aipaging.simulation.reading import ScenarioError, read_scenario
from aipaging.simulation.run import Precision
from aipaging.simulation.scenario import Copula
from aipaging.simulation.sources import Slots

CONSTANT = {"kind": "constant", "value": 1.0}


def test_errors_cost_attempts_and_backoff(build) -> None:
    retry = {"error_probability": 0.3, "backoff_ms": 2.0, "attempts_max": 3}
    found = build.ran([build.domain(servers=200, retry=retry)], [build.tenant(rate=1.0, work=CONSTANT)]).tenants[0]
    assert found.lost / found.sent == pytest.approx(0.3**3, rel=0.05)
    shares = np.array([0.7, 0.21, 0.063])
    attempts = float(shares @ np.array([1, 2, 3])) / shares.sum()
    assert found.mean_ms.value == pytest.approx(attempts + 2.0 * (attempts - 1.0), rel=0.01)


def test_inference_errors_hold_a_slot_again(build) -> None:
    retry = {"error_probability": 0.2, "backoff_ms": 5.0, "attempts_max": 2}
    model = {"name": "model", "discipline": "batching", "slots": 64, "iteration_ms": 1.0, "retry": retry}
    tenant = build.tenant(route=("model",), rate=0.05, work={"kind": "constant", "value": 10.0})
    found = build.ran([model], [tenant], packets=60_000).tenants[0]
    assert found.lost / found.sent == pytest.approx(0.04, rel=0.1)
    # A request that comes while another is served waits for the end of the iteration: up to 1 ms more per attempt.
    again = 0.16 / 0.96
    least = 10.0 * (1.0 + again) + 5.0 * again
    assert least < found.mean_ms.value < least + 1.0 + again


def test_retries_queue_again_against_a_plain_walk(build) -> None:
    retry = {"error_probability": 0.3, "backoff_ms": 4.0, "attempts_max": 4}
    link, tenants = build.domain(retry=retry), [build.tenant("a", rate=0.3), build.tenant("b", rate=0.25)]
    found = build.ran([link], tenants, packets=1_000_000).tenants
    rng = np.random.default_rng(3)
    waiting = [(t, k, w, t, 1) for k, (t, w) in enumerate(
        zip(np.cumsum(rng.exponential(1.0 / 0.55, 200_000)), rng.exponential(1.0, 200_000), strict=True))]  # fmt: skip
    free = total = 0.0
    arrived = 0
    while waiting:
        instant, number, work, sent, attempt = heapq.heappop(waiting)
        free = max(free, instant) + work
        if rng.random() >= 0.3:
            total += free - sent
            arrived += 1
        elif attempt < 4:
            heapq.heappush(waiting, (free + 4.0, number, work, sent, attempt + 1))
    for tenant in found:
        assert tenant.mean_ms.value == pytest.approx(total / arrived, rel=0.06)
        assert tenant.lost / tenant.sent == pytest.approx(0.3**4, rel=0.1)


def test_retries_that_overload_are_refused(build) -> None:
    retry = {"error_probability": 0.5, "attempts_max": 3}
    with pytest.raises(InvalidInputError, match=r"utilisation 1\.05"):
        build.ran([build.domain(retry=retry)], [build.tenant(rate=0.6)])


def together(copula: Copula, below: float) -> float:
    """Return how often both of two tenants are below a level in a slot."""
    slots = Slots(copula, ["a", "b"], np.random.SeedSequence(5))
    slots.extend(200_000.0)
    cumulated = np.array([below, 1.0])
    low = [slots.segments(name, cumulated)[1] == 0.0 for name in "ab"]
    return float((low[0] & low[1]).mean())


def test_copulas_by_the_probability_of_a_quadrant() -> None:
    """Elliptical laws: P(both below the median) = 1/4 + asin(correlation) / (2 pi)."""
    gaussian = Copula(name="c", slot_ms=1.0, correlation=0.6)
    student = Copula(name="c", slot_ms=1.0, correlation=0.6, degrees=2.0)
    for each in (gaussian, student):
        assert together(each, 0.5) == pytest.approx(0.25 + math.asin(0.6) / (2.0 * math.pi), abs=0.005)
    assert together(student, 0.01) > 1.5 * together(gaussian, 0.01), "extremes come together"
    assert together(Copula(name="c", slot_ms=1.0, correlation=0.0), 0.1) == pytest.approx(0.01, abs=0.001)


def test_slots_do_not_depend_on_how_far_they_are_drawn_at_once() -> None:
    copula = Copula(name="c", slot_ms=2.0, correlation=0.5, degrees=3.0)
    whole, pieces = (Slots(copula, ["a", "b"], np.random.SeedSequence(1)) for _ in range(2))
    whole.extend(100.0)
    cumulated = np.array([0.3, 0.8, 1.0])
    seen: dict[float, float] = {}
    for horizon in np.linspace(1.0, 100.0, 40):
        pieces.extend(float(horizon))
        seen |= dict(pieces.segments("b", cumulated).T.tolist())
        assert max(seen) > horizon
    assert seen == dict(whole.segments("b", cumulated).T.tolist())


def test_bursts_that_depend_hurt_more(build) -> None:
    def late(correlation: float) -> float:
        copula = [{"name": "c", "kind": "gaussian", "slot_ms": 20.0, "correlation": correlation}]
        arrivals = {"kind": "correlated", "copula": "c", "rates_per_ms": [0.05, 0.8], "probabilities": [0.8, 0.2]}
        tenants = [build.tenant(n, arrivals=arrivals, targets_ms=[40.0]) for n in "abc"]
        found = build.ran([build.domain()], tenants, packets=300_000, copula=copula)
        assert sum(t.sent for t in found.tenants) == 300_000
        return found.tenants[0].exceedance[40.0].value

    assert late(0.9) > 1.5 * late(0.0)


COPULA = {"kind": "gaussian", "name": "c", "slot_ms": 1.0, "correlation": 0.5}
GOOD = {"kind": "correlated", "copula": "c", "rates_per_ms": [0.1, 0.2], "probabilities": [0.5, 0.5]}
MISTAKES = [
    ({"copula": "d"}, {}, "arrivals.copula", "there are: c"),
    ({"probabilities": [0.5, 0.4]}, {}, "arrivals.probabilities", "not to 1"),
    ({"probabilities": [1.0]}, {}, "arrivals.probabilities", "1 of them for 2"),
    ({"rates_per_ms": [0.0, 0.0]}, {}, "arrivals.rates_per_ms", "above 0"),
    ({}, {"work_at": {"link": CONSTANT}}, "work_at.link", "after the first"),
    ({}, {"work_at": {"far": 3}}, "work_at.far", "must be a table"),
    ({}, {"work_at": {"far": {"kind": "constant", "value": -1}}}, "work_at.far.value", "above 0"),
]


@pytest.mark.parametrize(("arrivals", "more", "field", "message"), MISTAKES)
def test_mistakes_are_named(build, arrivals, more, field, message) -> None:
    tenant = build.tenant(route=("link", "far"), arrivals={**GOOD, **arrivals}, **more)
    document = {"domain": [build.domain(), build.domain("far")], "tenant": [tenant], "copula": [COPULA]}
    with pytest.raises(ScenarioError, match=message) as caught:
        read_scenario(document, folder=Path())
    assert caught.value.field == f"tenant[0].{field}"


def test_a_rate_per_second_is_suspected(build) -> None:
    with pytest.raises(InvalidInputError, match=r"rate per second.*`rate_per_ms`"):
        build.ran([build.domain()], [build.tenant(rate=800.0)])


def test_a_rate_per_second_of_a_domain_is_suspected(build) -> None:
    found = build.ran([build.domain(rate=1000.0)], [build.tenant(rate=0.8)], packets=1_000)
    assert any("nothing ever waits: the highest utilisation is 0.0008" in warning for warning in found.warnings)


def test_a_jackson_tandem(build) -> None:
    """Work drawn anew at every hop: delays are sums of independent exponentials (Burke, Reich)."""
    names, serve = ("x", "y", "z"), (1.0, 1.25, 0.9)
    laws = {n: {"kind": "exponential", "mean": 1.0 / mu} for n, mu in zip(names, serve, strict=True)}
    tenant = build.tenant("a", names, 0.5, work=laws.pop("x"), work_at=laws, targets_ms=[15.0])
    found = build.ran([build.domain(n) for n in names], [tenant], packets=1_000_000).tenants[0]
    spare = [mu - 0.5 for mu in serve]
    assert found.mean_ms.low < sum(1.0 / r for r in spare) < found.mean_ms.high
    exact = sum(math.exp(-15.0 * r) * math.prod(q / (q - r) for q in spare if q != r) for r in spare)
    assert abs(found.exceedance[15.0].value - exact) < found.exceedance[15.0].high - found.exceedance[15.0].low


def test_against_ciw(build) -> None:
    """Two servers, then one, with work drawn anew: the same network in Ciw."""
    fresh = {"two": {"kind": "exponential", "mean": 0.6}}
    tenant = build.tenant("a", ("one", "two"), 1.2, work_at=fresh, targets_ms=[6.0])
    ours = build.ran([build.domain("one", servers=2), build.domain("two")], [tenant], packets=1_000_000).tenants[0]
    means, late = [], []
    for seed in range(5):
        ciw.seed(seed)
        law = ciw.dists.Exponential
        network = ciw.create_network(
            arrival_distributions=[law(1.2), None],
            service_distributions=[law(1.0), law(1.0 / 0.6)],
            number_of_servers=[2, 1],
            routing=[[0.0, 1.0], [0.0, 0.0]],
        )
        simulation = ciw.Simulation(network)
        simulation.simulate_until_max_time(6_000.0)
        whole: dict[int, list[float]] = {}
        for record in simulation.get_all_records():
            whole.setdefault(record.id_number, []).extend([record.arrival_date, record.exit_date])
        delays = np.array([max(v) - min(v) for v in whole.values() if len(v) == 4 and min(v) > 500.0])
        means.append(float(delays.mean()))
        late.append(float((delays > 6.0).mean()))
    for found, values in ((ours.mean_ms, means), (ours.exceedance[6.0], late)):
        spread = float(np.std(values, ddof=1)) / len(values) ** 0.5
        assert abs(np.mean(values) - found.value) < 4.0 * spread + (found.high - found.low)


def test_a_run_goes_on_until_it_is_precise(build) -> None:
    domains, tenants = [build.domain()], [build.tenant(targets_ms=[10.0])]
    first = build.ran(domains, tenants, packets=50_000)
    for at in ("mean", "p99", "targets"):
        found = build.ran(domains, tenants, packets=50_000, precision=Precision(relative=0.05, at=at))
        assert found.packets > first.packets
        (tenant,) = found.tenants
        each = {"mean": tenant.mean_ms, "p99": tenant.quantiles[0.99], "targets": tenant.exceedance[10.0]}[at]
        assert 0.5 * (each.high - each.low) <= 0.05 * each.value
        assert not found.warnings


def test_a_precision_out_of_reach_ends_with_a_warning(build) -> None:
    hard = Precision(relative=1e-6, at="mean", replications_max=40)
    found = build.ran([build.domain()], [build.tenant(rate=0.3)], packets=4_000, precision=hard)
    assert found.replications == 40
    assert "was not reached" in found.warnings[-1]
    for wrong in ({"relative": 0.0}, {"relative": 0.1, "at": "p12"}):
        with pytest.raises(InvalidInputError):
            Precision(**wrong)


def test_memory_does_not_grow_with_the_packets(build) -> None:
    def peak(packets: int) -> int:
        tracemalloc.start()
        build.ran([build.domain("x"), build.domain("y")], [build.tenant(route=("x", "y"))], packets=packets)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(10_000)  # loads the kernels
    small, large = peak(1_000_000), peak(10_000_000)
    assert large < 1.5 * small
    assert large < 40e6


def test_a_copula_has_one_name(build) -> None:
    document = {"domain": [build.domain()], "tenant": [build.tenant(arrivals=GOOD)], "copula": [COPULA, COPULA]}
    with pytest.raises(ScenarioError, match="names are unique") as caught:
        read_scenario(document, folder=Path())
    assert caught.value.field == "copula[1].name"
