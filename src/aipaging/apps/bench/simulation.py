"""`aipaging bench simulation`: packets per second, against SimPy (and Ciw) on the same networks in the same run.

Both count packets through the whole route, random numbers included; ours also keeps the counts for every quantile,
which the peers do not. Compilation is left out there: it happens once per machine. What a user waits for, the first
result of a small scenario from the command line, is measured apart, with compiled kernels at hand and without.

Whether two workers are nearly twice as fast depends on what else the machine does; so a loop of plain arithmetic is run
in one and in two processes beside it, and reported as what the machine had to give.
"""

import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
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
WARM_SECONDS: Final = 1.0
COLD_SECONDS: Final = 5.0

SIDE_BY_SIDE: Final = 60
"""Replications where workers are compared: one that is done earlier waits for a 60th of the run at most, not a 20th."""

SPINS: Final = 3_000_000
"""A fraction of a second of plain arithmetic."""

SMALL: Final = """packets = 20_000
[[domain]]
name = "link"
discipline = "fifo"
rate_per_ms = 1.0
[[tenant]]
name = "a"
route = ["link"]
arrivals = { kind = "poisson", rate_per_ms = 0.8 }
work = { kind = "exponential", mean = 1.0 }
"""

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
    # Long enough that handing out the replications is a small part, and so many that no worker waits long for the last.
    results += _two_cores(_scenario(HOPS, 2, (6 if quick else 5) * packets, SIDE_BY_SIDE), seed, runs)
    results += _first_results(runs)
    return results


def _speed(metric: str, pairs: list[tuple[float, float | None]], goal: Goal) -> BenchResult:
    both = [(ours, theirs) for ours, theirs in pairs if theirs is not None]
    if both:
        return against(metric, "packets/s", both, peer="SimPy", goal=goal)
    return alone(metric, "packets/s", [ours for ours, _ in pairs], goal)


def _two_cores(scenario: Scenario, seed: int, runs: int) -> list[BenchResult]:
    """Measure two threads and two processes against one thread, and what two cores are worth just now."""
    threads, processes, machine = [], [], []
    spawn = multiprocessing.get_context("spawn")
    with ThreadPoolExecutor(2) as pool, ProcessPoolExecutor(2, mp_context=spawn) as others:
        _ours(_scenario(HOPS, 2, 20), seed, others)
        for k in range(runs):
            alone = _ours(scenario, seed + k)
            threads.append((_ours(scenario, seed + k, pool), alone))
            processes.append((_ours(scenario, seed + k, others), alone))
            machine.append((_spun(others, 2), _spun(others, 1)))
    goal = Goal(text=f">= {TWO_CORES_RATIO:g} x one worker", least=TWO_CORES_RATIO, of_ratio=True)
    told = Goal(text="what the machine has to give meanwhile")
    return [
        against("three_domains_two_threads", "packets/s", threads, peer="one worker", goal=goal),
        against("three_domains_two_processes", "packets/s", processes, peer="one worker", goal=goal),
        against("machine_two_processes", "additions/s", machine, peer="one process", goal=told),
    ]


def _spun(pool: Executor, workers: int) -> float:
    """Return the additions per second of plain loops side by side."""
    started = time.perf_counter()
    for each in [pool.submit(_spin, SPINS) for _ in range(workers)]:
        each.result()
    return workers * SPINS / (time.perf_counter() - started)


def _spin(count: int) -> int:
    total = 0
    for k in range(count):
        total += k
    return total


def _first_results(runs: int) -> list[BenchResult]:
    """Measure the command line, from its start to its end, with compiled kernels at hand and without any."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "small.toml"
        file.write_text(SMALL)
        cold = [_command(file, Path(folder) / f"cache-{k}") for k in range(runs // 2)]
        warm = [_command(file, Path(folder) / "cache-0") for _ in range(runs)]
    return [
        alone("first_result_cold", "s", cold, Goal(text=f"<= {COLD_SECONDS:g} s", most=COLD_SECONDS)),
        alone("first_result_warm", "s", warm, Goal(text=f"<= {WARM_SECONDS:g} s", most=WARM_SECONDS)),
    ]


def _command(file: Path, cache: Path) -> float:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    # Bytecode belongs to a warm start as much as compiled kernels do; a variable that forbids it would be measured.
    for each in ("NUMBA_CACHE_DIR", "PYTHONDONTWRITEBYTECODE"):
        environment.pop(each, None)
    command = [sys.executable, "-m", "aipaging.apps.cli", "simulate", str(file), "--json"]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return time.perf_counter() - started


def _scenario(hops: int, tenants: int, packets: int, replications: int = 20) -> Scenario:
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
    return read_scenario(document, folder=Path(), replications=replications)


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
