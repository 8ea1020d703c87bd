"""`aipaging bench simulation`: packets per second, against SimPy (and Ciw) on the same networks in the same run.

Both count packets through the whole route, random numbers included; ours also keeps the counts for every quantile,
which the peers do not. Compilation is left out: it happens once per machine.
"""

import multiprocessing
import random
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from aipaging.apps.bench.interleaved import Goal, against, alone
from aipaging.apps.bench.result import BenchResult
from aipaging.simulation.reading import read_scenario
from aipaging.simulation.run import simulate
from aipaging.simulation.scenario import Scenario

MM1_PER_SECOND: Final = 25e6
NETWORK_PER_SECOND: Final = 5e6
SIMPY_RATIO: Final = 150.0
CIW_RATIO: Final = 500.0
TWO_CORES_RATIO: Final = 1.9

LOAD: Final = 0.8
HOPS: Final = 3


def run(*, quick: bool, seed: int) -> list[BenchResult]:
    """Measure one domain, three domains with two tenants, and two processes against one."""
    runs, packets, theirs = (3, 4_000_000, 6_000) if quick else (5, 20_000_000, 30_000)
    single, network = _scenario(1, 1, packets), _scenario(HOPS, 2, packets)
    for warm_up in (_scenario(1, 1, 20), _scenario(HOPS, 2, 20)):
        _ours(warm_up, seed)
    one = [(_ours(single, seed + k), _simpy(1, 1, theirs, seed + k)) for k in range(runs)]
    three = [(_ours(network, seed + k), _simpy(HOPS, 2, theirs, seed + k)) for k in range(runs)]
    goal = Goal(text=">= 25 million", least=MM1_PER_SECOND)
    results = [_speed("mm1_packets_per_second", one, goal)]
    goal = Goal(text=">= 5 million", least=NETWORK_PER_SECOND)
    results.append(_speed("three_domains_packets_per_second", three, goal))
    if all(their for _, their in three):
        peers = [(ours, their) for ours, their in three if their]
        goal = Goal(text=f">= {SIMPY_RATIO:g} x SimPy", least=SIMPY_RATIO, of_ratio=True)
        results.append(against("three_domains_against_simpy", "packets/s", peers, peer="SimPy", goal=goal))
    if find_spec("ciw") is not None:
        pairs = [(_ours(network, seed + k), _ciw(theirs, seed + k)) for k in range(runs)]
        goal = Goal(text=f">= {CIW_RATIO:g} x Ciw", least=CIW_RATIO, of_ratio=True)
        results.append(against("three_domains_against_ciw", "packets/s", pairs, peer="Ciw", goal=goal))
    # Long enough that handing out the replications is a small part.
    results.append(_two_cores(_scenario(HOPS, 2, 5 * packets), seed, runs))
    return results


def _speed(metric: str, pairs: list[tuple[float, float | None]], goal: Goal) -> BenchResult:
    both = [(ours, theirs) for ours, theirs in pairs if theirs is not None]
    if both:
        return against(metric, "packets/s", both, peer="SimPy", goal=goal)
    return alone(metric, "packets/s", [ours for ours, _ in pairs], goal)


def _two_cores(scenario: Scenario, seed: int, runs: int) -> BenchResult:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        _ours(_scenario(HOPS, 2, 20), seed, pool)
        pairs = [(_ours(scenario, seed + k, pool), _ours(scenario, seed + k)) for k in range(runs)]
    goal = Goal(text=f">= {TWO_CORES_RATIO:g} x one process", least=TWO_CORES_RATIO, of_ratio=True)
    return against("three_domains_two_processes", "packets/s", pairs, peer="one process", goal=goal)


def _scenario(hops: int, tenants: int, packets: int) -> Scenario:
    names = [f"domain-{k}" for k in range(hops)]
    document = {
        "packets": packets,
        "domain": [{"name": name, "discipline": "fifo", "rate_per_ms": 1.0} for name in names],
        "tenant": [
            {
                "name": f"tenant-{k}",
                "route": names,
                "arrivals": {"kind": "poisson", "rate_per_ms": LOAD / tenants},
                "work": {"kind": "exponential", "mean": 1.0},
                "targets_ms": [20.0],
            }
            for k in range(tenants)
        ],
    }
    return read_scenario(document, folder=Path())


def _ours(scenario: Scenario, seed: int, executor: Executor | None = None) -> float:
    outcome = simulate(scenario, seed=seed, executor=executor)
    return outcome.packets / outcome.seconds


def _simpy(hops: int, tenants: int, packets: int, seed: int) -> float | None:
    """Return the packets per second of SimPy, a Resource per domain and a process per packet; None without SimPy."""
    if find_spec("simpy") is None:
        return None
    peer: Any = import_module("simpy")
    draw: Callable[[float], float] = random.Random(seed).expovariate  # noqa: S311 - no secret
    env: Any = peer.Environment()
    domains = [peer.Resource(env) for _ in range(hops)]
    total = [0.0]

    def packet(work: float) -> Any:
        sent = env.now
        for domain in domains:
            with domain.request() as turn:
                yield turn
                yield env.timeout(work)
        total[0] += env.now - sent

    def source() -> Any:
        for _ in range(packets // tenants):
            yield env.timeout(draw(LOAD / tenants))
            env.process(packet(draw(1.0)))

    for _ in range(tenants):
        env.process(source())
    started = time.perf_counter()
    env.run()
    return packets / (time.perf_counter() - started)


def _ciw(packets: int, seed: int) -> float:
    """Return the packets per second of Ciw; each hop draws new work, which is less to remember than ours."""
    peer: Any = import_module("ciw")
    peer.seed(seed)
    law: Any = peer.dists.Exponential
    network = peer.create_network(
        arrival_distributions=[law(LOAD), *[None] * (HOPS - 1)],
        service_distributions=[law(1.0)] * HOPS,
        number_of_servers=[1] * HOPS,
        routing=[[1.0 if after == before + 1 else 0.0 for after in range(HOPS)] for before in range(HOPS)],
    )
    simulation = peer.Simulation(network)
    started = time.perf_counter()
    simulation.simulate_until_max_customers(packets, method="Finish")
    return packets / (time.perf_counter() - started)
