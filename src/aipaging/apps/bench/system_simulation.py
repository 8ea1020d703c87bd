"""`aipaging bench system-simulation`: simulated page transactions per second, every checker on.

Two loads. *Storm*: pages alone, hundreds a second, on anchors that fill and empty; admission, COMMIT, journal, evidence
and its verification are all real work. *Campaign*: seeds as `aipaging simulate system` runs them, with faults, traffic,
heartbeats and a long quiet end, where a page is a small part of what happens. Both use every processor.
"""

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Final

from aipaging.apps.bench.interleaved import Goal, alone
from aipaging.apps.bench.result import BenchResult
from aipaging.core.foundation.errors import AipagingError, Who
from aipaging.core.foundation.time import MS
from aipaging.simulation.system.campaign import Campaign
from aipaging.simulation.system.catalogue import ACCESS
from aipaging.simulation.system.run import Outcome, Workload
from aipaging.simulation.system.run import run as simulated
from aipaging.simulation.system.schedule import Act, Schedule
from aipaging.testing.system_parts import real_parts

PAGES_PER_SECOND: Final = 5_000.0
STORM_SPACING_US: Final = 2 * MS
STORM: Final = Workload(duration_s=(1, 2), requests=1, after_s=8)
CAMPAIGN_SEEDS: Final = 20


def _storm(seed: int, pages: int) -> Outcome:
    """Run one storm."""
    acts = tuple(
        Act(us=500 * MS + k * STORM_SPACING_US, kind="page", number=k, who=ACCESS[k % 2], amount=10.0)
        for k in range(pages)
    )
    plan = Schedule(seed=seed, lease_ms=4_000, acts=acts, ends_us=500 * MS + pages * STORM_SPACING_US)
    return simulated(plan, real_parts(), STORM)


def _campaign(seed: int) -> Outcome:
    campaign = Campaign(parts=real_parts)
    return campaign.ran(campaign.plan(seed))


def _pages_per_second(pool: ProcessPoolExecutor, seeds: range, pages: int) -> float:
    """Return pages per second of all processors over storms (`pages` each), or over campaign seeds (0)."""
    started = time.perf_counter()
    outcomes = list(pool.map(_storm, seeds, [pages] * len(seeds)) if pages else pool.map(_campaign, seeds))
    seconds = time.perf_counter() - started
    for outcome in outcomes:
        if outcome.found is not None:
            raise AipagingError(f"seed {outcome.seed}: {outcome.found}", code="CHECK_FAILED", who=Who.BUG)
    return sum(outcome.pages for outcome in outcomes) / seconds


def run(*, quick: bool, seed: int) -> list[BenchResult]:
    """Measure storms and campaigns in turns."""
    processes = len(os.sched_getaffinity(0))
    runs, pages = (3, 4_000) if quick else (5, 15_000)
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        _pages_per_second(pool, range(seed, seed + processes), 50)
        storms: list[float] = []
        campaigns: list[float] = []
        for turn in range(runs):
            first = seed + turn * CAMPAIGN_SEEDS
            storms.append(_pages_per_second(pool, range(first, first + processes), pages))
            campaigns.append(_pages_per_second(pool, range(first, first + CAMPAIGN_SEEDS), 0))
    goal = Goal(text=">= 5000", least=PAGES_PER_SECOND)
    return [
        alone("pages_per_second_storm", "pages/s", storms, goal),
        alone("pages_per_second_campaign", "pages/s", campaigns, Goal(text="reported")),
    ]
