"""What audits are tried on: delays under dependence, faults of single domains, and the tests of others."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aipaging.core.audit import (
    END_TO_END,
    ArrayTable,
    Attribution,
    Batch,
    Contract,
    EnvelopeTail,
    accounts,
    audit_period,
)
from aipaging.core.audit.continuous import Counts
from aipaging.core.audit.live import LivePlan, Watch, finding_fields
from aipaging.core.audit.telemetry import Integers

Floats: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]
Rng: TypeAlias = np.random.Generator

LOAD: Final = 0.8
"""Of the queue."""


def independent(rng: Rng, count: int) -> Floats:
    """Return independent exponential delays."""
    return np.asarray(rng.exponential(1.0, count), dtype=np.float64)


def queue(rng: Rng, count: int) -> Floats:
    """Return sojourn times of an M/M/1 queue at 80 % load, by Lindley's recursion as a reflected walk."""
    work = rng.exponential(LOAD, count)
    walk = np.cumsum(work - rng.exponential(1.0, count))
    return np.asarray(walk - np.minimum(np.minimum.accumulate(walk), 0.0) + work, dtype=np.float64)


def bursts(rng: Rng, count: int) -> Floats:
    """Return exponential delays with bursts of 200 slow requests, one twentieth of the time."""
    burst = np.repeat(rng.random(-(-count // 200)) < 0.05, 200)[:count]
    return np.asarray(rng.exponential(1.0, count) + 20.0 * burst * rng.random(count), dtype=np.float64)


def sessions(rng: Rng, number: int) -> tuple[Floats, Integers]:
    """Return delays and sessions of requests that come in any order: each session is slow or fast in its own way.

    A session's factor is lognormal, and its requests, fifty in the mean, take exponential times of that mean.

    Args:
        rng: Dice.
        number: Sessions.
    """
    sizes = rng.geometric(1 / 50, number)
    session = rng.permutation(np.repeat(np.arange(number), sizes))
    factor = rng.lognormal(0.0, SESSION_SIGMA, number)
    return np.asarray(factor[session] * rng.exponential(1.0, len(session)), dtype=np.float64), session


SESSION_SIGMA: Final = 0.7
"""Of the logarithm of a session's factor: a session in twenty is three times as slow as the median."""


PROCESSES: Final[Mapping[str, Callable[[Rng, int], Floats]]] = {
    "independent": independent,
    "mm1": queue,
    "on_off": bursts,
}


def population(process: str, count: int, exceeding: int) -> Mask:
    """Return who exceeds in a period of a process: exactly so many, the latest."""
    delays = PROCESSES[process](np.random.default_rng(5), count)
    late = np.zeros(count, dtype=np.bool_)
    late[np.argsort(delays)[count - exceeding :]] = True
    return late


def naive(late: Mask, epsilon: float, alpha: float, *, every: int) -> tuple[bool, bool]:
    """Return whether a fixed-sample binomial test, looked at again and again, ever said violated, or compliant."""
    from scipy import stats  # noqa: PLC0415 - slow to import

    count = np.arange(every, len(late) + 1, every)
    seen = np.cumsum(late)[count - 1]
    return (
        bool((stats.binom.sf(seen - 1, count, epsilon) < alpha).any()),
        bool((stats.binom.cdf(seen, count, epsilon) < alpha).any()),
    )


def probability_ratio(late: Mask, epsilon: float, alpha: float) -> tuple[int | None, int | None]:
    """Return when Wald's test of twice epsilon against epsilon said violated, and that of half of it compliant."""
    count, seen = np.arange(1, len(late) + 1), np.cumsum(late)
    found: list[int | None] = []
    for other in (2 * epsilon, epsilon / 2):
        ratio = seen * math.log(other / epsilon) + (count - seen) * math.log((1 - other) / (1 - epsilon))
        found.append(_first(ratio >= math.log(1 / alpha)))
    return found[0], found[1]


def _first(reached: Mask) -> int | None:
    places = np.flatnonzero(reached)
    return int(places[0]) + 1 if places.size else None


DOMAINS: Final = ("radio", "transport", "compute")
EPSILON: Final = 0.01
END_TO_END_MS: Final = 110.0
POINTS_MS: Final = {"radio": 45.0, "transport": 48.0, "compute": 65.0}
TAILS: Final = {
    "radio": EnvelopeTail(offset_ms=2.0, prefactor=3.0, decay_per_ms=0.15),
    "transport": EnvelopeTail(offset_ms=40.0, prefactor=2.0, decay_per_ms=0.8),
    "compute": EnvelopeTail(offset_ms=5.0, prefactor=3.0, decay_per_ms=0.1),
}


def healthy(rng: Rng, count: int) -> dict[str, Floats]:
    """Return delays (us) of three domains that share a load, all inside their contracts."""
    load = np.repeat(rng.gamma(20, 1 / 20, -(-count // 50)), 50)[:count]
    return {
        "radio": 2_000 + 4_000 * load * rng.exponential(1.0, count),
        "transport": 40_000 + 1_000 * rng.exponential(1.0, count),
        "compute": 5_000 + 6_000 * load * rng.exponential(1.0, count),
    }


def _outage(rng: Rng, delay: Floats) -> Floats:
    begin = rng.integers(len(delay))
    return np.asarray(delay + 500_000 * (np.abs(np.arange(len(delay)) - begin) < 0.02 * len(delay)), dtype=np.float64)


def _bursts(rng: Rng, delay: Floats) -> Floats:
    blocks = -(-len(delay) // 50)
    chosen = np.isin(np.arange(blocks), rng.permutation(blocks)[: blocks // 10])
    return np.asarray(delay + 100_000 * np.repeat(chosen, 50)[: len(delay)], dtype=np.float64)


def _share(rng: Rng, delay: Floats, share: float) -> Mask:
    return np.asarray(rng.random(len(delay)) < share, dtype=np.bool_)


FAULTS: Final[Mapping[str, Callable[[Rng, Floats], Any]]] = {
    "shift": lambda _, d: d + 70_000 * (np.arange(len(d)) > 0.9 * len(d)),
    "jitter": lambda rng, d: d + 60_000 * rng.exponential(1.0, len(d)) * _share(rng, d, 0.2),
    "outage": _outage,
    "drift": lambda _, d: d + np.linspace(0, 90_000, len(d)),
    "heavy_tail": lambda rng, d: d + 20_000 * rng.pareto(1.2, len(d)) * _share(rng, d, 0.15),
    "bursts": _bursts,
}
"""Six kinds of fault of one domain."""


def faulty(fault: str, guilty: str, seed: int, count: int) -> dict[str, Floats]:
    """Return the delays of three domains, one of which has a fault."""
    rng = np.random.default_rng(seed)
    delays = healthy(rng, count)
    delays[guilty] = np.asarray(FAULTS[fault](rng, delays[guilty]), dtype=np.float64)
    return delays


def period_of(delays: Mapping[str, Floats]) -> ArrayTable:
    """Return the telemetry of a path, a hundred requests a second."""
    domains = {name: column.astype(np.int64) for name, column in delays.items()}
    count = len(next(iter(domains.values())))
    whole = np.sum(list(domains.values()), axis=0)
    status = np.zeros(count, dtype=np.uint8)
    return ArrayTable(Batch(start_us=np.arange(count) * 10_000, status=status, end_to_end_us=whole, domains=domains))


def contracts() -> list[Contract]:
    """Return the contract of the path and of each domain."""
    whole = Contract(domain=END_TO_END, delay_ms=END_TO_END_MS, epsilon=EPSILON)
    parts = [Contract(domain=name, delay_ms=POINTS_MS[name], epsilon=EPSILON, tail=TAILS[name]) for name in DOMAINS]
    return [whole, *parts]


def blamed(delays: Mapping[str, Floats]) -> Attribution:
    """Return the account of a path."""
    table = period_of(delays)
    return accounts(table, audit_period(table, contracts(), alpha=0.05), np.random.default_rng(0))[0]


def finding_record(domain: str, tenant: str, verdict: str) -> dict[str, str | int]:
    """Return the fields of a finding with the verdict, as the live audit writes them."""
    plan = LivePlan(allowed=1)
    contract = Contract(domain=domain, delay_ms=20.0, epsilon=0.01, tenant=tenant)
    late = {"violated": 50, "compliant": 0, "insufficient_evidence": 1}[verdict]
    watch, _ = Watch.begun(contract, plan, number=1, now_us=1_700_000_000_000_000, missing=0).fed(
        Counts(requests=90, certain=late, possible=late)
    )
    return finding_fields(watch.verdict(1_700_000_001_000_000, 0), watch, software="aipaging 0")
