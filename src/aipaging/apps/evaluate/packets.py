"""What the experiments on Tail-Risk Envelopes ask of the packet simulator."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Final

import numpy as np

from aipaging.simulation.counts import Counted
from aipaging.simulation.estimates import Estimate, TenantResult, estimate
from aipaging.simulation.executors import opened, place_of
from aipaging.simulation.kernels.tally import CELLS
from aipaging.simulation.rare.estimate import rare_exceedance
from aipaging.simulation.reading import read_scenario
from aipaging.simulation.replication import replicate
from aipaging.simulation.run import compile_kernels, plan, simulate

REPLICATIONS: Final = 20


def simulated(
    document: Mapping[str, Any], *, packets: int, seed: int, replications: int = REPLICATIONS
) -> list[TenantResult]:
    """Return what every tenant of a scenario met, overloaded or not."""
    scenario = read_scenario(document, folder=Path(), packets=packets, replications=replications)
    with opened(place_of("auto", packets // replications)) as pool:
        return list(simulate(scenario, seed=seed, allow_overload=True, executor=pool).tenants)


def rare(
    document: Mapping[str, Any], tenant: str, target_ms: float, *, seed: int, executor: Executor | None = None
) -> dict[str, Any]:
    """Return the probability of a rare delay, with its interval, and how it was found."""
    scenario = read_scenario(document, folder=Path(), packets=2_000, replications=2)
    found = rare_exceedance(scenario, tenant, target_ms, seed=seed, executor=executor)
    return {**plain(found.probability), "method": found.method}


def plain(estimate: Estimate) -> dict[str, float]:
    """Return an estimate as plain values."""
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def late_share(
    document: Mapping[str, Any], target_ms: float, *, packets: int, seed: int, replications: int = REPLICATIONS
) -> dict[str, float]:
    """Return the share of delivered packets of all tenants that came late, with its interval.

    What a regulator at the entrance did not let in is not part of any promise, and is left out.
    """
    scenario = read_scenario(document, folder=Path(), packets=packets, replications=replications)
    orders = plan(scenario, seed=seed, allow_overload=True)
    compile_kernels(scenario, orders[0].load)
    with opened(place_of("auto", packets // replications)) as pool:
        counted = [replicate(order) for order in orders] if pool is None else list(pool.map(replicate, orders))
    rate = sum(tenant.rate_per_ms for tenant in scenario.tenants)
    memory = max(0.5 * orders[0].load.relaxation_ms * rate, 1.0)
    found = estimate("all", (target_ms,), [_together(one) for one in counted], memory)
    return plain(found.exceedance[target_ms])


def _together(tenants: Sequence[Counted]) -> Counted:
    """Return the delivered packets of all tenants of a replication as one tenant's."""
    histogram = np.zeros(CELLS, np.int64)
    for one in tenants:
        histogram[one.cells] += one.counts
    cells = np.flatnonzero(histogram)
    return Counted(
        sent=sum(one.sent - one.lost for one in tenants),
        lost=0,
        total_ms=sum(one.total_ms for one in tenants),
        smallest_ms=min(one.smallest_ms for one in tenants),
        largest_ms=max(one.largest_ms for one in tenants),
        above=(sum(one.above[0] for one in tenants),),
        cells=cells,
        counts=histogram[cells],
    )
