"""The probability of a rare delay, by the method that fits, until it is precise enough."""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from aipaging.core.foundation.errors import InvalidInputError
from aipaging.simulation.estimates import CONFIDENCE, Estimate
from aipaging.simulation.load import WARM_UP_PACKETS_MIN, offered_load, require_stable
from aipaging.simulation.rare import splitting, twisting
from aipaging.simulation.rare.part import line_of
from aipaging.simulation.scenario import Scenario

METHODS: Final = ("auto", "twisting", "splitting")
BATCH: Final = 20
"""Replications at a time: the least from which a spread says something."""

WALKS: Final = 2_000
"""Walks per replication of importance sampling; 20 replications are some 0.2 s."""

REPLICATIONS_MAX: Final = 2_000
"""Where a precision that was asked for cannot be reached this ends the run, and the result says how far it came."""

PRECISION_DEFAULT: Final = 0.3
"""What is aimed at where nothing was asked for: the order of magnitude, and the first digit nearly."""

REPLICATIONS_DEFAULT_MAX: Final = 200
"""Then this ends the run: about a minute of splitting. Twenty replications of a tandem are often 40 % wide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How a rare delay is estimated, and for how long.

    Attributes:
        method: `auto`, `twisting` (importance sampling) or `splitting`.
        precision: Half-width of the interval, relative to the estimate, at which it is precise enough; without it
            0.3, or as near to that as 200 replications come.
        on_progress: Called with the replications that are done, and the most that there will be.
    """

    method: str = "auto"
    precision: float | None = None
    on_progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InvalidInputError(
                f"there is no method {self.method!r}: allowed are {', '.join(METHODS)}", field="method"
            )
        if self.precision is not None and not 0.0 < self.precision < 1.0:
            raise InvalidInputError(f"must be above 0 and below 1, not {self.precision!r}", field="precision")

    @property
    def wanted(self) -> tuple[float, int]:
        """Return the precision that is aimed at, and the most replications."""
        if self.precision is None:
            return PRECISION_DEFAULT, REPLICATIONS_DEFAULT_MAX
        return self.precision, REPLICATIONS_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class RareResult:
    """The probability of a rare delay.

    Attributes:
        tenant: Whose delay.
        target_ms: The delay.
        probability: Of a delay above it, with its 95 % interval.
        method: `twisting` (importance sampling) or `splitting`.
        decay_per_ms: theta* of the twist, None for splitting.
        levels_ms: Levels of splitting, empty for twisting.
        precision: Half-width of the interval over the estimate, of its wider side; infinite where nothing was seen.
        precise: Whether that is what was asked for.
        replications: Independent runs.
        events: Packets or arrivals simulated.
        seconds: How long it took.
    """

    tenant: str
    target_ms: float
    probability: Estimate
    method: str
    decay_per_ms: float | None
    levels_ms: tuple[float, ...]
    precision: float
    precise: bool
    replications: int
    events: int
    seconds: float


def rare_exceedance(
    scenario: Scenario,
    tenant: str,
    target_ms: float,
    *,
    seed: int = 0,
    effort: "Effort | None" = None,
    executor: Executor | None = None,
) -> RareResult:
    """Return the probability that a tenant's delay over its route is above a target, however rare.

    Args:
        scenario: What is simulated; must be stable.
        tenant: Whose delay.
        target_ms: The delay.
        seed: The result is a function of the scenario, the target and the seed alone.
        effort: The method and the precision; `auto` and 0.3 if it is None.
        executor: Where replications run; in this thread if it is None.

    Raises:
        InvalidInputError: The scenario is unstable, or the method does not apply to it.
        UnavailableError: The target is out of reach.
    """
    effort = effort or Effort()
    if not (math.isfinite(target_ms) and target_ms > 0.0):
        raise InvalidInputError(f"must be a number above 0, not {target_ms!r}", field="target_ms")
    begun = time.perf_counter()
    root = np.random.SeedSequence(entropy=seed, spawn_key=(0x52415245,))  # streams of its own, apart from a plain run
    method, run, decay, levels = _ready(scenario, (tenant, target_ms), effort.method, root)
    pool = map if executor is None else executor.map
    batches = (list(pool(run, root.spawn(BATCH))) for _ in itertools.count())
    found, events = _until_precise(batches, effort)
    probability = _interval(found)
    return RareResult(
        tenant=tenant,
        target_ms=target_ms,
        probability=probability,
        method=method,
        decay_per_ms=decay,
        levels_ms=levels,
        precision=_width(probability),
        precise=_width(probability) <= effort.wanted[0],
        replications=len(found),
        events=events,
        seconds=time.perf_counter() - begun,
    )


Run = Callable[[np.random.SeedSequence], tuple[float, int]]


def _ready(
    scenario: Scenario, question: tuple[str, float], method: str, root: np.random.SeedSequence
) -> tuple[str, Run, float | None, tuple[float, ...]]:
    """Return the method, one replication of it, theta* of a twist, and the levels of splitting."""
    tenant, target_ms = question
    load = offered_load(scenario, scenario.packets)
    require_stable(load)
    line = line_of(scenario, tenant)
    beyond = target_ms - line.latency_ms
    if beyond <= 0.0:
        raise InvalidInputError(
            f"must be above the latencies of the route ({line.latency_ms:g} ms), which every packet takes",
            field="target_ms",
        )
    if method == "twisting" or (method == "auto" and twisting.why_not(line) is None):
        twist = twisting.twisted(line)
        return "twisting", partial(_walked, twist, beyond), twist.decay_per_ms, ()
    wanted = math.ceil(load.warm_up_ms * line.tenants[0].rate_per_ms)
    split = splitting.prepared(line, target_ms, max(wanted, WARM_UP_PACKETS_MIN), root.spawn(1)[0])
    return "splitting", partial(_split, split), None, split.levels_ms


def _walked(twist: twisting.Twist, target_ms: float, seed: np.random.SeedSequence) -> tuple[float, int]:
    sums = twisting.sample(twist, target_ms, WALKS, seed)
    return float(sums[0]) / WALKS, int(sums[2])


def _split(split: splitting.Split, seed: np.random.SeedSequence) -> tuple[float, int]:
    found = splitting.replicate(split, seed)
    return found.probability, found.packets


def _until_precise(batches: Iterator[list[tuple[float, int]]], effort: Effort) -> tuple[NDArray[np.float64], int]:
    """Run whole batches until the interval is narrow enough; the number of workers does not change how many."""
    precision, most = effort.wanted
    values: list[float] = []
    events = 0
    while len(values) < most and (not values or _width(_interval(np.array(values))) > precision):
        batch = next(batches)
        values += [value for value, _ in batch]
        events += sum(each for _, each in batch)
        if effort.on_progress is not None:
            effort.on_progress(len(values), most)
    return np.array(values), events


def _width(estimate: Estimate) -> float:
    """Return the half-width of the interval's wider side, over the estimate."""
    side = max(estimate.high - estimate.value, estimate.value - estimate.low)
    return side / estimate.value if estimate.value > 0.0 else math.inf


def _interval(values: NDArray[np.float64]) -> Estimate:
    """Return the mean of independent replications with Student's interval, its skewed side moved (Johnson)."""
    count, mean = len(values), float(values.mean())
    spread = float(values.std(ddof=1))
    half = float(stdtrit(count - 1, 0.5 + CONFIDENCE / 2.0)) * spread / math.sqrt(count)
    third = float(((values - mean) ** 3).mean())
    shift = third / (6.0 * spread**2 * count) if spread > 0.0 else 0.0
    return Estimate(value=mean, low=max(mean - half + min(shift, 0.0), 0.0), high=mean + half + max(shift, 0.0))
