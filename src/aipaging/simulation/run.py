"""Runs a scenario: replications one after another or side by side, and the estimates from them."""

import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass

from aipaging.simulation.counts import Counted
from aipaging.simulation.estimates import TenantResult, estimate
from aipaging.simulation.load import Load, offered_load, require_stable
from aipaging.simulation.replication import Order, replicate
from aipaging.simulation.scenario import Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run found.

    Attributes:
        seed: The seed.
        packets: Packets that were counted.
        replications: Independent runs that they were divided into.
        seconds: How long it took, compilation left out.
        compile_seconds: How long the first packets took, which load or compile the kernels.
        load: What the domains were offered, and the warm-up.
        tenants: The estimates, in the order of the scenario.
        warnings: What the reader should know.
    """

    seed: int
    packets: int
    replications: int
    seconds: float
    compile_seconds: float
    load: Load
    tenants: tuple[TenantResult, ...]
    warnings: tuple[str, ...]


def simulate(
    scenario: Scenario,
    *,
    seed: int = 0,
    allow_overload: bool = False,
    executor: Executor | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Simulate a scenario.

    Args:
        scenario: What to simulate.
        seed: The result is a function of the scenario and the seed alone.
        allow_overload: Run an unstable scenario too; its delays grow with the length of the run.
        executor: Where replications run; in this process, one after another, if it is None.
        on_progress: Called with the replications that are done, and their number.

    Raises:
        InvalidInputError: The scenario is unstable.
    """
    begun = time.perf_counter()
    shares = _shares(scenario)
    load = offered_load(scenario, shares[0])
    if not allow_overload:
        require_stable(load)
    orders = [
        Order(scenario=scenario, load=load, seed=seed, number=number, packets=packets)
        for number, packets in enumerate(shares)
    ]
    _compile(scenario, load)
    compiled = time.perf_counter()
    results = _run(orders, executor, on_progress or _silent)
    seconds = time.perf_counter() - compiled
    tenants = tuple(
        estimate(
            tenant.name,
            tenant.targets_ms,
            [result[index] for result in results],
            # Half of it: what a queue forgets in one relaxation time is a factor e of the difference.
            memory_packets=max(0.5 * load.relaxation_ms * tenant.rate_per_ms, 1.0),
        )
        for index, tenant in enumerate(scenario.tenants)
    )
    return Outcome(
        seed=seed,
        packets=sum(tenant.sent for tenant in tenants),
        replications=len(orders),
        seconds=seconds,
        compile_seconds=compiled - begun,
        load=load,
        tenants=tenants,
        warnings=tuple(_warnings(load, tenants)),
    )


def _shares(scenario: Scenario) -> list[int]:
    """Divide the packets over the replications, the larger parts first."""
    each, more = divmod(scenario.packets, scenario.replications)
    return [each + 1] * more + [each] * (scenario.replications - more)


def _compile(scenario: Scenario, load: Load) -> None:
    """Send a few packets through, so that every kernel is there before the clock starts."""
    short = dataclasses.replace(load, warm_up_ms=0.0)
    replicate(Order(scenario=scenario, load=short, seed=0, number=0, packets=1))


def _run(
    orders: list[Order], executor: Executor | None, on_progress: Callable[[int, int], None]
) -> list[list[Counted]]:
    results: dict[int, list[Counted]] = {}
    if executor is None:
        for order in orders:
            results[order.number] = replicate(order)
            on_progress(len(results), len(orders))
    else:
        # Largest load of results: the histograms of one replication, a few hundred kilobytes per tenant.
        waiting = {executor.submit(replicate, order): order.number for order in orders}
        for future in as_completed(waiting):
            results[waiting[future]] = future.result()
            on_progress(len(results), len(orders))
    return [results[order.number] for order in orders]


def _silent(_done: int, _all: int) -> None:
    """Tell nobody."""


def _warnings(load: Load, tenants: tuple[TenantResult, ...]) -> list[str]:
    found = [
        f"{queue.name} is overloaded (utilisation {queue.utilisation:.3g}): delays grow with the length of the run"
        for queue in load.overloaded
    ]
    if load.warm_up_short and not load.overloaded:
        found.append(
            "the replications are short against the memory of the queues: part of the start may be left in the "
            "estimates; ask for more packets"
        )
    for tenant in tenants:
        if tenant.too_few:
            levels = ", ".join(map(str, tenant.too_few))
            found.append(
                f"tenant {tenant.name!r}: too few packets for the quantile {levels}: its upper end is extrapolated"
            )
    return found
