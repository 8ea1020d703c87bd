"""Runs a scenario: replications one after another or side by side, and the estimates from them."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass
from typing import Final

from aipaging.core.foundation.errors import InvalidInputError
from aipaging.simulation.counts import Counted
from aipaging.simulation.estimates import LEVELS, Estimate, TenantResult, estimate
from aipaging.simulation.load import Load, offered_load, require_stable
from aipaging.simulation.replication import Order, replicate
from aipaging.simulation.scenario import Scenario, Trace

REPLICATIONS_MAX: Final = 2_000
"""Where a precision is asked for: a hundred times the usual number, and a few hundred megabytes of counts."""

PRECISE_AT: Final = ("mean", *(f"p{100 * level:g}" for level in LEVELS), "targets")


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """When a run is precise enough.

    Attributes:
        relative: Half-width of the 95 % interval over the estimate, at most, for every tenant.
        at: One of `PRECISE_AT`: the mean, a quantile, or all targets.
        replications_max: Where the run ends without it.
    """

    relative: float
    at: str = "p99"
    replications_max: int = REPLICATIONS_MAX

    def __post_init__(self) -> None:
        if not 0.0 < self.relative < 1.0:
            raise InvalidInputError(f"must be above 0 and below 1, not {self.relative:g}", field="precision")
        if self.at not in PRECISE_AT:
            raise InvalidInputError(f"must be one of {', '.join(PRECISE_AT)}, not {self.at!r}", field="precise_at")

    def reached(self, tenants: Sequence[TenantResult]) -> bool:
        """Whether the estimates of all tenants are precise enough."""
        wanted: list[Estimate] = []
        for tenant in tenants:
            if self.at == "mean":
                wanted.append(tenant.mean_ms)
            elif self.at == "targets":
                wanted += tenant.exceedance.values()
            else:
                wanted += [each for level, each in tenant.quantiles.items() if f"p{100 * level:g}" == self.at]
        return all(0.5 * (each.high - each.low) <= self.relative * each.value for each in wanted)


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
    precision: Precision | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Simulate a scenario.

    Args:
        scenario: What to simulate.
        seed: The result is a function of the scenario, the precision and the seed alone.
        allow_overload: Run an unstable scenario too; its delays grow with the length of the run.
        executor: Where replications run; in this thread, one after another, if it is None.
        precision: Go on until it is reached; without it the packets of the scenario are all.
        on_progress: Called with the replications that are done, and their number so far.

    Raises:
        InvalidInputError: The scenario is unstable.
    """
    begun = time.perf_counter()
    orders = plan(scenario, seed=seed, allow_overload=allow_overload)
    compile_kernels(scenario, orders[0].load)
    compiled = time.perf_counter()
    results: list[list[Counted]] = []
    while True:
        results += _run(orders[len(results) :], executor, on_progress or _silent, len(results))
        outcome = conclude(orders, results)
        missed = precision is not None and not precision.reached(outcome.tenants)
        if precision is None or not missed or len(orders) >= precision.replications_max:
            break
        # Twice as many each time: the last round is at most half of the work, and looking often would bias the end.
        more = min(len(orders), precision.replications_max - len(orders))
        orders += [
            dataclasses.replace(orders[0], number=len(orders) + k, packets=orders[-1].packets) for k in range(more)
        ]
    warnings = outcome.warnings
    if missed and precision is not None:
        warnings += (
            f"the precision {precision.relative:g} at {precision.at} was not reached: more packets are needed",
        )
    return dataclasses.replace(
        outcome, seconds=time.perf_counter() - compiled, compile_seconds=compiled - begun, warnings=warnings
    )


def plan(scenario: Scenario, *, seed: int = 0, allow_overload: bool = False) -> list[Order]:
    """Return the replications of a scenario; each may run anywhere, with `replication.replicate`.

    Raises:
        InvalidInputError: The scenario is unstable.
    """
    shares = _shares(scenario)
    load = offered_load(scenario, shares[0])
    if not allow_overload:
        require_stable(load)
    return [
        Order(scenario=scenario, load=load, seed=seed, number=number, packets=packets)
        for number, packets in enumerate(shares)
    ]


def conclude(orders: Sequence[Order], results: Sequence[Sequence[Counted]]) -> Outcome:
    """Return the estimates from the counts of all replications, in the order of the orders."""
    scenario, load = orders[0].scenario, orders[0].load
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
        seed=orders[0].seed,
        packets=sum(tenant.sent for tenant in tenants),
        replications=len(results),
        seconds=0.0,
        compile_seconds=0.0,
        load=load,
        tenants=tenants,
        warnings=(*_warnings(load, tenants), *_replayed(scenario, tenants)),
    )


def _shares(scenario: Scenario) -> list[int]:
    """Divide the packets over the replications, the larger parts first."""
    each, more = divmod(scenario.packets, scenario.replications)
    return [each + 1] * more + [each] * (scenario.replications - more)


def compile_kernels(scenario: Scenario, load: Load) -> None:
    """Send a few packets through, so that every kernel is there before the clock starts."""
    short = dataclasses.replace(load, warm_up_ms=0.0)
    replicate(Order(scenario=scenario, load=short, seed=0, number=0, packets=1))


def _run(
    orders: Sequence[Order], executor: Executor | None, on_progress: Callable[[int, int], None], before: int
) -> list[list[Counted]]:
    results: dict[int, list[Counted]] = {}
    if executor is None:
        for order in orders:
            results[order.number] = replicate(order)
            on_progress(before + len(results), before + len(orders))
    else:
        # Largest load of results: the histograms of one replication, a few hundred kilobytes per tenant.
        waiting = {executor.submit(replicate, order): order.number for order in orders}
        for future in as_completed(waiting):
            results[waiting[future]] = future.result()
            on_progress(before + len(results), before + len(orders))
    return [results[order.number] for order in orders]


def _silent(_done: int, _all: int) -> None:
    """Tell nobody."""


def _replayed(scenario: Scenario, tenants: tuple[TenantResult, ...]) -> Iterator[str]:
    """Tell whose record was used more than once: replications of the same packets are not independent."""
    for tenant, found in zip(scenario.tenants, tenants, strict=True):
        if isinstance(tenant.arrivals, Trace) and found.sent > len(tenant.arrivals.instants_ms):
            times = found.sent / len(tenant.arrivals.instants_ms)
            yield (
                f"tenant {tenant.name!r}: its {len(tenant.arrivals.instants_ms):,} recorded packets were replayed "
                f"{times:.3g} times: the intervals are about this record, not about the traffic that it is a sample of"
            )


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
    if load.idle:
        found.append(
            f"nothing ever waits: the highest utilisation is {max(q.utilisation for q in load.queues):.2g}; if that is "
            "not meant, a rate is per second where one per ms is wanted"
        )
    for tenant in tenants:
        if tenant.too_few:
            levels = ", ".join(map(str, tenant.too_few))
            found.append(
                f"tenant {tenant.name!r}: too few packets for the quantile {levels}: its upper end is extrapolated"
            )
    return found
