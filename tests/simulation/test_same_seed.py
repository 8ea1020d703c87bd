"""One seed, one result: in one worker or several, in one stretch or many; and against another simulator."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import simpy

from aipaging.core.foundation.errors import InvalidInputError
from aipaging.simulation import replication

THREE = ("x", "y", "z")


def three_domains(build, **more):
    domains = [build.domain(name, latency_ms=0.5) for name in THREE]
    tenants = [build.tenant("a", THREE, 0.4, targets_ms=[10.0]), build.tenant("b", ("y", "z"), 0.3)]
    return build.ran(domains, tenants, **more)


def without_times(outcome):
    return dataclasses.replace(outcome, seconds=0.0, compile_seconds=0.0)


def test_the_same_for_any_number_of_workers(build) -> None:
    alone = without_times(three_domains(build, packets=50_000, seed=5))
    with ThreadPoolExecutor(3) as pool:
        assert without_times(three_domains(build, packets=50_000, seed=5, executor=pool)) == alone
    assert three_domains(build, packets=50_000, seed=6).tenants != alone.tenants


def test_the_same_for_any_length_of_a_stretch(build, monkeypatch) -> None:
    whole = three_domains(build, packets=50_000)
    monkeypatch.setattr(replication, "STRETCH_PACKETS", 100)
    pieces = three_domains(build, packets=50_000)
    for one, other in zip(whole.tenants, pieces.tenants, strict=True):
        assert (one.sent, one.lost) == (other.sent, other.lost)
        assert one.mean_ms.value == pytest.approx(other.mean_ms.value, rel=1e-9)


def test_exactly_the_packets_that_were_asked_for(build) -> None:
    outcome = three_domains(build, packets=12_345)
    assert sum(tenant.sent for tenant in outcome.tenants) == outcome.packets == 12_345


def test_an_overload_is_refused_by_name_and_runs_on_demand(build) -> None:
    domains, tenants = [build.domain("narrow")], [build.tenant(route=("narrow",), rate=1.3)]
    with pytest.raises(InvalidInputError, match=r"'narrow' \(utilisation 1.3\).*--allow-overload"):
        build.ran(domains, tenants)
    outcome = build.ran(domains, tenants, packets=20_000, allow_overload=True)
    assert "overloaded" in outcome.warnings[0]
    assert outcome.tenants[0].sent == 20_000


def test_progress_is_told(build) -> None:
    seen: list[tuple[int, int]] = []
    build.ran([build.domain()], [build.tenant()], packets=1_000, on_progress=lambda *each: seen.append(each))
    assert seen[-1] == (20, 20)
    assert len(seen) == 20


def simpy_delays(seed: int, packets: int) -> list[float]:
    """Two tenants through two domains in SimPy: the first with priorities, the second in order."""
    rng = np.random.default_rng(seed)
    env = simpy.Environment()
    first, second = simpy.PriorityResource(env), simpy.Resource(env)
    delays: list[float] = []

    def packet(rank: int, work: float):
        sent = env.now
        with first.request(priority=rank) as turn:
            yield turn
            yield env.timeout(work)
        with second.request() as turn:
            yield turn
            yield env.timeout(work / 1.5)
        if rank:
            delays.append(env.now - sent)

    def source(rank: int):
        for _ in range(packets):
            yield env.timeout(rng.exponential(1.0 / 0.35))
            env.process(packet(rank, rng.exponential()))

    env.process(source(0))
    env.process(source(1))
    env.run()
    return delays[packets // 10 :]


def test_against_simpy(build) -> None:
    """The same network, written twice; the packets keep their work, so no closed form is at hand."""
    domains = [build.domain("one", discipline="priority"), build.domain("two", rate=1.5)]
    tenants = [build.tenant(n, ("one", "two"), 0.35, priority=k, targets_ms=[8.0]) for k, n in enumerate("ab")]
    ours = build.ran(domains, tenants, packets=2_000_000).tenants[1]
    theirs = [simpy_delays(seed, 8_000) for seed in range(6)]
    means = [float(np.mean(each)) for each in theirs]
    late = [float(np.mean(np.array(each) > 8.0)) for each in theirs]
    for found, values in ((ours.mean_ms, means), (ours.exceedance[8.0], late)):
        spread = float(np.std(values, ddof=1)) / len(values) ** 0.5
        assert abs(np.mean(values) - found.value) < 4.0 * spread + (found.high - found.low)
        assert spread < 0.1 * found.value
