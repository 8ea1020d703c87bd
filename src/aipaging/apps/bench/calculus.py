"""`aipaging bench calculus`: how long a bound takes, and how many fit into a second.

Where `line-solver` is installed (it brings 400 MB, so nothing here requires it), and where AIPAGING_MGF_TOOLBOX names a
copy of the published MGF toolbox, their bounds of the same systems are timed in turns with ours. Goals are those of
the speed budget; a first question about a path works out more than those that follow, which are timed.
"""

import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import numpy as np

from aipaging.apps.bench import mgf_toolbox
from aipaging.apps.bench.interleaved import Goal, against
from aipaging.apps.bench.result import BenchResult
from aipaging.core.calculus import (
    Arrival,
    CompoundPoisson,
    ConstantWork,
    DelayContract,
    Discipline,
    Domain,
    ExponentiallyBounded,
    ExponentialWork,
    FluidOnOff,
    ImpairedRateLatency,
    LeakyBuckets,
    MarkovFluid,
    MarkovPoisson,
    MarkovSlots,
    OnOffService,
    RandomService,
    RatedDomain,
    RateLatency,
    RungClass,
    Service,
    SlottedOnOff,
    SlottedWork,
    Superposition,
    TailBound,
    TruncatedLogNormalWork,
    backlog_tail,
    bound_path,
    cheapest_reservation,
    epsilon_any_dependence,
    epsilons_any_dependence,
    mean_rate,
    workload_law,
)
from aipaging.core.calculus.tandem_hop import exponential_cross_bound

CANDIDATES: Final = 20_000


def run(*, quick: bool, seed: int) -> list[BenchResult]:
    """Measure every speed goal of the calculus.

    Args:
        quick: Fewer repetitions.
        seed: Of the candidates' parameters.
    """
    runs = 5 if quick else 15
    results = [_timed(name, call, goal_us=100.0, runs=runs, inner=200) for name, call in _single_hops().items()]
    cross, capacities = (1.0,) * 10, (3.0,) * 10
    results.append(
        _timed(
            "tandem_of_10",
            lambda: exponential_cross_bound(0.5, cross, capacities, delay=20, rung_class=RungClass.FAST),
            goal_us=1000.0,
            runs=runs,
            inner=20,
        )
    )
    results.append(
        _timed(
            "tandem_of_10_unequal",
            lambda: exponential_cross_bound(
                0.5, cross, tuple(3.0 + 0.1 * h for h in range(10)), delay=20, rung_class=RungClass.FAST
            ),
            goal_us=1000.0,
            runs=runs,
            inner=20,
        )
    )
    contracts = [
        DelayContract(offset_ms=0.5 * i, prefactor=0.3 + 0.2 * i, decay_per_ms=0.2 + 0.1 * i) for i in range(10)
    ]
    results.append(
        _timed("budget_of_10", lambda: epsilon_any_dependence(contracts, 150.0), goal_us=100.0, runs=runs, inner=500)
    )
    domains = [
        RatedDomain(offset=1.0, prefactor=1.0 + 0.3 * i, decay_per_rate=0.5 + 0.1 * i, price=1.0 + i) for i in range(10)
    ]
    results.append(
        _timed(
            "budget_of_10_with_rates",
            lambda: cheapest_reservation(domains, 40.0, 1e-5),
            goal_us=500.0,
            runs=runs,
            inner=50,
        )
    )
    tokens = TruncatedLogNormalWork(median=4.0, sigma=1.0, cap=40.96)
    results.append(
        _timed(
            "pollaczek_khinchine",
            lambda: workload_law(tokens, arrival_rate=0.8 / tokens.mean).tail(200.0),
            goal_us=50_000.0,
            runs=runs,
            inner=1,
        )
    )
    results.extend(_every_kind(runs))
    results.extend(_against_line(runs))
    results.extend(_against_toolbox(runs))
    results.append(_candidates(seed, runs))
    results.append(_import_time(3 if quick else 7))
    return results


def _single_hops() -> dict[str, Callable[[], TailBound]]:
    work = ExponentialWork(mean=1.0)
    arrivals: dict[str, Arrival] = {
        "mm1": CompoundPoisson(rate=0.8, work=work),
        "md1": CompoundPoisson(rate=0.8, work=ConstantWork(value=1.0)),
        "dm1": SlottedWork(works=(ExponentialWork(mean=0.8),)),
        "fluid_on_off": FluidOnOff(count=20, off_to_on=0.1, on_to_off=0.5, peak=0.225),
        "slotted_on_off": SlottedOnOff(count=10, stay_off=0.95, stay_on=0.9, peak=0.2),
    }
    return {
        f"single_hop_{name}": partial(backlog_tail, arrival, 1.0, 20.0, RungClass.FAST)
        for name, arrival in arrivals.items()
    }


def _every_kind(runs: int) -> list[BenchResult]:
    """Time admission's question of every other kind of arrival, and of tandems of every kind of domain."""
    results = [
        _timed(f"hop_of_{name}", partial(_asked, arrival, [_domain("hop", _load(arrival))]), goal_us=100.0, runs=runs,
               inner=50)
        for name, arrival in _kinds().items()
    ]  # fmt: skip
    for name, (arrival, domains, delay) in _tandems().items():
        ask = partial(bound_path, arrival, domains, delay, rung_class=RungClass.FAST)
        results.append(_timed(f"tandem_of_10_{name}", ask, goal_us=1000.0, runs=runs, inner=10))
    return results


def _asked(arrival: Arrival, domains: list[Domain]) -> object:
    return bound_path(arrival, domains, 20.0, rung_class=RungClass.FAST)


def _load(arrival: Arrival) -> RateLatency:
    return RateLatency(rate=mean_rate(arrival) / 0.75, latency=0.0)


def _domain(name: str, service: Service, *cross: Arrival) -> Domain:
    return Domain(name=name, service=service, cross=cross, discipline=Discipline.BLIND)


def _kinds() -> dict[str, Arrival]:
    tokens = TruncatedLogNormalWork(median=4.0, sigma=1.0, cap=40.96)
    jobs = CompoundPoisson(rate=0.8, work=ExponentialWork(mean=1.0))
    fluid = MarkovFluid(
        count=5, generator=((-0.1, 0.1, 0.0), (0.3, -0.5, 0.2), (0.0, 0.4, -0.4)), rates=(0.0, 0.1, 0.4)
    )
    return {
        "capped_tokens": CompoundPoisson(rate=0.08, work=tokens),
        "slots_of_tokens": SlottedWork(works=(tokens,)),
        "markov_slots": _chain(),
        "markov_fluid": fluid,
        "markov_poisson": MarkovPoisson(
            count=1, generator=((-0.1, 0.1), (0.5, -0.5)), rates=(0.3, 2.0), work=ExponentialWork(mean=1.0)
        ),
        "superposition": Superposition(parts=(jobs, fluid)),
        "leaky_buckets": LeakyBuckets(count=20, burst=2.0, rate=0.04),
        "bounded_burstiness": ExponentiallyBounded(rate=0.7, prefactor=2.0, decay=1.0),
    }


def _chain() -> MarkovSlots:
    return MarkovSlots(count=2, transition=((0.9, 0.1), (0.2, 0.8)), works=(None, ExponentialWork(mean=0.6)))


def _tandems() -> dict[str, tuple[Arrival, list[Domain], float]]:
    slots, chain = SlottedWork(works=(ExponentialWork(mean=0.5),)), _chain()
    jobs = CompoundPoisson(rate=0.8, work=ExponentialWork(mean=1.0))
    mixed: list[Service] = [
        RateLatency(rate=2.2, latency=1.0),
        OnOffService(rate=3.0, availability=0.8),
        ImpairedRateLatency(rate=2.0, latency=1.0, prefactor=0.5, decay=2.0),
    ]
    crossed = [_domain(f"d{h}", RateLatency(rate=2.2, latency=1.0), *([jobs] if h % 2 else [])) for h in range(10)]
    return {
        "mixed": (chain, [_domain(f"d{h}", mixed[h % 3], *([chain] if h % 2 else [])) for h in range(10)], 80.0),
        "random_service": (
            slots, [_domain(f"d{h}", RandomService(work=ExponentialWork(mean=2.0 + 0.1 * h))) for h in range(10)], 60.0,
        ),
        "continuous": (jobs, crossed, 150.0),
    }  # fmt: skip


def _against_toolbox(runs: int) -> list[BenchResult]:
    """Time and compare the bounds of the published toolbox, where the user named a copy."""
    path = mgf_toolbox.source()
    if path is None:
        return []
    ours = _single_hops()
    results: list[BenchResult] = []
    for metric, theirs in mgf_toolbox.bounds(path).items():
        mine = ours[metric]
        bound = mine()
        times = [(_microseconds(mine), _microseconds(theirs)) for _ in range(runs)]
        goal = Goal(text="<= 0.5 of the peer", most=0.5, of_ratio=True)
        results.append(against(f"{metric}_against_toolbox", "us", times, peer=mgf_toolbox.NAME, goal=goal))
        values = [(bound.probability, theirs())]
        goal = Goal(text="<= 1 of the peer", most=1.0, of_ratio=True)
        results.append(against(f"{metric}_bound", "probability", values, peer=mgf_toolbox.NAME, goal=goal))
    return results


def _timed(metric: str, call: Callable[[], object], *, goal_us: float, runs: int, inner: int) -> BenchResult:
    call()
    times: list[float] = []
    for _ in range(runs):
        started = time.perf_counter()
        for _ in range(inner):
            call()
        times.append((time.perf_counter() - started) / inner * 1e6)
    ours = statistics.median(times)
    return _result(metric, "us", ours, goal=f"<= {goal_us:g}", ok=ours <= goal_us, times=times)


def _against_line(runs: int) -> list[BenchResult]:
    """Time one hop and a tandem of 10 in turns with `line-solver`, where it is installed."""
    if find_spec("line_solver") is None:
        return []
    peer: Any = import_module("line_solver.api.snc")
    work = ExponentialWork(mean=1.0)

    def flow(theta: float) -> tuple[float, float]:
        return 0.0, -math.log1p(-min(0.5 * theta, 1.0 - 1e-12)) / theta

    def leftover(theta: float) -> tuple[float, float]:
        return 0.0, 3.0 + math.log1p(-min(theta, 1.0 - 1e-12)) / theta

    def tandem(theta: float) -> tuple[float, float]:
        sigma, rho = leftover(theta)
        for _ in range(9):
            sigma, rho = peer.snc_conv(sigma, rho, *leftover(theta), theta)
        return sigma, rho

    arrival = CompoundPoisson(rate=0.8, work=work)
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "single_hop_mm1_against_peer": (
            lambda: backlog_tail(arrival, 1.0, 20.0, RungClass.FAST),
            lambda: peer.snc_bound_delay(partial(peer.snc_env_poisson, 0.8), partial(peer.snc_srv_exp, 1.0), 20.0),
        ),
        "tandem_of_10_against_peer": (
            lambda: exponential_cross_bound(0.5, (1.0,) * 10, (3.0,) * 10, delay=20, rung_class=RungClass.FAST),
            lambda: peer.snc_bound_delay(flow, tandem, 20.0, 1.0),
        ),
    }
    results: list[BenchResult] = []
    for metric, (ours, theirs) in pairs.items():
        ours()
        theirs()
        times = [(_microseconds(ours), _microseconds(theirs)) for _ in range(runs)]
        goal = Goal(text="<= 0.5 of the peer", most=0.5, of_ratio=True)
        results.append(against(metric, "us", times, peer="line-solver", goal=goal))
    return results


def _microseconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1e6


def _candidates(seed: int, runs: int) -> BenchResult:
    rng = np.random.default_rng(seed)
    shape = (CANDIDATES, 3)
    offsets, prefactors = rng.uniform(0.0, 5.0, shape), rng.uniform(0.1, 3.0, shape)
    decays, delays = rng.uniform(0.1, 2.0, shape), rng.uniform(10.0, 100.0, CANDIDATES)
    epsilons_any_dependence(offsets, prefactors, decays, delays)
    rates: list[float] = []
    for _ in range(runs):
        started = time.perf_counter()
        epsilons_any_dependence(offsets, prefactors, decays, delays)
        rates.append(CANDIDATES / (time.perf_counter() - started))
    ours = statistics.median(rates)
    return _result("bounds_per_second", "1/s", ours, goal=">= 100000", ok=ours >= 1e5, times=rates)


def _import_time(runs: int) -> BenchResult:
    """Import the library in a fresh interpreter, less what an empty interpreter takes."""
    loaded: list[float] = []
    for _ in range(runs):
        times: list[float] = []
        for code in ("pass", "import aipaging.core.calculus"):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            times.append(time.perf_counter() - started)
        loaded.append(times[1] - times[0])
    ours = statistics.median(loaded)
    return _result("import", "s", ours, goal="<= 0.3", ok=ours <= 0.3, times=loaded)


def _result(metric: str, unit: str, ours: float, *, goal: str, ok: bool, times: list[float]) -> BenchResult:
    return BenchResult(
        metric=metric, unit=unit, ours=ours, peer=None, theirs=None, ratio=None, goal=goal, ok=ok,
        runs=len(times), spread=(max(times) - min(times)) / ours,
    )  # fmt: skip
