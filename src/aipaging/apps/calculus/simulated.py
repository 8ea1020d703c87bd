"""The delay that a bound is about, simulated: what the virtual delay on one hop really does.

Only for what has a recursion of one line: Poisson jobs or independent slots on one constant-rate hop without cross
traffic (Lindley). A bound on the virtual delay is not one on the sojourn time of packets, which `aipaging simulate`
measures; the two must not be drawn into one picture.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

SAMPLES: Final = 1_000_000
"""Half a second; exceedances down to 1e-4 or so can be told."""

BLOCKS: Final = 40
"""Their means are almost independent, delays within them are not."""

EVENTS_MIN: Final = 20
"""With fewer exceedances a point says nothing and is left out."""

_T_95: Final = 2.02
"""The quantile of Student's t with 39 degrees of freedom."""

Draw: TypeAlias = Callable[[np.random.Generator, Mapping[str, Any]], NDArray[Any]]

WORKS: Final[Mapping[str, Draw]] = {
    "constant": lambda _, work: np.full(SAMPLES, float(work["value"])),
    "exponential": lambda rng, work: rng.exponential(work["mean"], SAMPLES),
    "log-normal": lambda rng, work: np.minimum(
        work["median"] * rng.lognormal(0.0, work["sigma"], SAMPLES), work["cap"]
    ),
    "pareto": lambda rng, work: np.minimum(work["minimum"] * (1.0 + rng.pareto(work["alpha"], SAMPLES)), work["cap"]),
    "discrete": lambda rng, work: rng.choice(work["values"], SAMPLES, p=work["probabilities"]),
}
"""How each kind of work is drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """P(delay exceeded) with a 95 % interval."""

    delay: float
    probability: float
    low: float
    high: float


def simulated(question: Mapping[str, Any], delays: Sequence[float], *, seed: int = 0) -> list[Point]:
    """Return the simulated tail of a question at some delays; nothing where there is no recursion for it.

    Args:
        question: One that `aipaging calculus bound` has answered.
        delays: In its unit of time.
        seed: Of the draws.
    """
    if not _is_one_hop(question):
        return []
    arrival, service = question["arrival"], question["domains"][0]["service"]
    work = arrival["work"]
    rng = np.random.default_rng(seed)
    brought = np.asarray(WORKS[work["kind"]](rng, work), dtype=np.float64)
    rate = float(service["rate"])
    if arrival["kind"] == "poisson":
        # Seen by arrivals, and so at any time: Poisson arrivals see time averages [Wolff1982].
        steps = brought / rate - rng.exponential(1.0 / arrival["rate"], SAMPLES)
        late = _backlog(steps) + float(service.get("latency", 0.0))
    else:
        late = _backlog(brought - rate) / rate + float(service.get("latency", 0.0))
        delays = [float(np.floor(delay + 1e-9)) for delay in delays]
    return [point for delay in delays if (point := _point(late, delay)) is not None]


def _is_one_hop(question: Mapping[str, Any]) -> bool:
    """Return whether the recursion is that of the question."""
    arrival, domains = question.get("arrival") or {}, question["domains"]
    first = domains[0]
    return (
        arrival.get("kind") in {"poisson", "slotted"}
        and arrival.get("work", {}).get("kind") in WORKS
        and question.get("measure", "virtual") == "virtual"
        and len(domains) == 1
        and not first.get("cross")
        and not question.get("crossing")
        and first["service"]["kind"] in {"constant-rate", "rate-latency"}
    )


def _backlog(steps: Floats) -> Floats:
    walk = np.cumsum(steps)
    return walk - np.minimum(np.minimum.accumulate(walk), 0.0)


def _point(late: Floats, delay: float) -> Point | None:
    exceeded = late > delay * (1.0 + 1e-12)
    if int(exceeded.sum()) < EVENTS_MIN:
        return None
    means = exceeded.reshape(BLOCKS, -1).mean(axis=1)
    mean, half = float(means.mean()), _T_95 * float(means.std(ddof=1)) / BLOCKS**0.5
    return Point(delay=delay, probability=mean, low=max(mean - half, mean / 100.0), high=min(1.0, mean + half))
