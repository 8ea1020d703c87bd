"""`aipaging bench audit`: how often verdicts, intervals and blame are wrong, and how fast they are.

Rates of error are compared with what alpha allows plus three standard errors of the runs; the naive test (a
fixed-sample test that is looked at again and again), Wald's probability-ratio test and pyextremes see the same data in
the same run. Rates of the window alarm under dependence have no goal: its guarantee needs an assumption there.
"""

import math
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np

from aipaging.apps.bench.interleaved import Goal, against, alone
from aipaging.apps.bench.result import BenchResult
from aipaging.core.audit import (
    ArrayTable,
    Batch,
    ContinuousAudit,
    Contract,
    Counts,
    DelaySketch,
    EstimateMethod,
    HypergeometricSequence,
    accounts,
    audit_period,
    estimates,
    fit_tail,
    judge_openings,
    log_mixture_evidence,
    session_groups,
    watched,
)
from aipaging.core.audit.estimates import order_ranks
from aipaging.testing import audit_worlds as worlds

ALPHA: Final = 0.05
SIZE: Final = 20_000
OPENED: Final = 5_000
SAMPLE_SIZES: Final = ((0.25, 9_600), (0.5, 23_000), (2.0, 10_800), (3.0, 3_700))
"""(fraction of epsilon, median records) of half a million records at epsilon 0.001, as measured in research."""

FREE: Final = Goal(text="measured")
"""Of numbers that are printed for what they are."""


def run(*, quick: bool, seed: int) -> list[BenchResult]:
    """Measure errors, sample sizes, coverage, blame and speed."""
    return [
        *_false_verdicts(200 if quick else 1_000, seed),
        *_sample_sizes(31 if quick else 101, seed),
        *_alarms(40 if quick else 300, seed),
        *_coverage(60 if quick else 400, seed),
        *_peer_intervals(2 if quick else 40, seed),
        *_blame(5 if quick else 100),
        *_speed(seed),
        *_parquet(5_000_000 if quick else 10_000_000),
    ]


def _rate_goal(runs: int) -> Goal:
    return Goal(text=f"<= {ALPHA:g} (+3 s.e.)", most=ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / runs))


def _false_verdicts(runs: int, seed: int) -> Iterator[BenchResult]:
    """Rates at the last compliant number of exceedances and at the first violated one, peeking at every opening."""
    allowed = int(worlds.EPSILON * SIZE)
    sequence = HypergeometricSequence.centred(SIZE, worlds.EPSILON)
    for process in worlds.PROCESSES:
        for side, exceeding in (("violated", allowed), ("compliant", allowed + 1)):
            late = worlds.population(process, SIZE, exceeding)
            rng = np.random.default_rng(seed)
            wrong = np.zeros((runs, 3))
            for number in range(runs):
                opened = late[rng.permutation(SIZE)[:OPENED]]
                found = judge_openings(sequence, opened, opened, allowed=allowed, missing=0, alpha=ALPHA)
                mine = (found.violated_at, found.compliant_at)
                place = 0 if side == "violated" else 1
                wald = worlds.probability_ratio(opened, worlds.EPSILON, ALPHA)
                simple = worlds.naive(opened, worlds.EPSILON, ALPHA, every=50)
                wrong[number] = mine[place] is not None, simple[place], wald[place] is not None
            mean = [float(one) for one in wrong.mean(axis=0)]
            yield _rates(f"false_{side}_{process}", (mean[0], mean[1]), "naive test", runs)
            yield _rates(f"false_{side}_{process}_against_sprt", (mean[0], mean[2]), "SPRT", runs)


def _rates(metric: str, rates: tuple[float, float], peer: str, runs: int) -> BenchResult:
    ours, theirs = rates
    goal = _rate_goal(runs)
    return BenchResult(
        metric=metric,
        unit="fraction of runs",
        ours=ours,
        peer=peer,
        theirs=theirs,
        ratio=ours / theirs if theirs else None,
        goal=goal.text,
        ok=goal.met(ours),
        runs=runs,
        spread=0.0,
    )


def _sample_sizes(runs: int, seed: int) -> Iterator[BenchResult]:
    """Openings until the right verdict, beside Wald's test on the same openings."""
    size, epsilon = 500_000, 1e-3
    allowed = int(epsilon * size)
    sequence = HypergeometricSequence.centred(size, epsilon)
    for factor, records in SAMPLE_SIZES:
        late = np.zeros(size, dtype=np.bool_)
        late[: int(factor * allowed)] = True
        rng = np.random.default_rng(seed + 1)
        pairs: list[tuple[float, float]] = []
        for _ in range(runs):
            opened = late[rng.choice(size, 3 * records, replace=False, shuffle=True)]
            found = judge_openings(sequence, opened, opened, allowed=allowed, missing=0, alpha=ALPHA)
            wald = worlds.probability_ratio(opened, epsilon, ALPHA)
            mine = found.violated_at if factor > 1 else found.compliant_at
            pairs.append((mine or math.inf, wald[0 if factor > 1 else 1] or 3 * records))
        goal = Goal(text=f"<= {1.2 * records:,.0f}", most=1.2 * records)
        yield against(f"records_until_verdict_at_{factor:g}_epsilon", "records", pairs, peer="SPRT", goal=goal)


def _alarms(runs: int, seed: int) -> Iterator[BenchResult]:
    """False alarms at epsilon: guaranteed for independent requests, measured under dependence."""
    count, window = 100_000, 500
    for process, draw in worlds.PROCESSES.items():
        edge = np.quantile(draw(np.random.default_rng(99), 2_000_000), 1 - worlds.EPSILON)
        rng = np.random.default_rng(seed + 2)
        wrong = np.zeros((runs, 2))
        for number in range(runs):
            late = draw(rng, count) > edge
            by_window = late.reshape(-1, window).sum(axis=1)
            state = watched([(int(one), window) for one in by_window], epsilon=worlds.EPSILON, alpha=ALPHA)
            seen = np.cumsum(by_window).astype(np.float64)
            requests = (window * np.arange(1, len(by_window) + 1)).astype(np.float64)
            mixture = log_mixture_evidence(seen, requests, worlds.EPSILON, violated=True)
            wrong[number] = state.raised_at is not None, bool((mixture >= math.log(1 / ALPHA)).any())
        mean = [float(one) for one in wrong.mean(axis=0)]
        guaranteed = process == "independent"
        result = _rates(f"false_alarms_{process}", (mean[0], mean[1]), "i.i.d. mixture", runs)
        yield result if guaranteed else _measured(result)


def _measured(result: BenchResult) -> BenchResult:
    return BenchResult(
        metric=result.metric,
        unit=result.unit,
        ours=result.ours,
        peer=result.peer,
        theirs=result.theirs,
        ratio=result.ratio,
        goal=FREE.text,
        ok=True,
        runs=result.runs,
        spread=result.spread,
    )


def _coverage(runs: int, seed: int) -> Iterator[BenchResult]:
    """How often nominal 95 % intervals of p99.9 hold the truth."""
    from scipy import stats  # noqa: PLC0415 - slow to import

    laws: dict[str, Any] = {
        "exponential": stats.expon(),
        "lognormal": stats.lognorm(0.8),
        "weibull": stats.weibull_min(0.6),
        "lomax": stats.lomax(3.3),
    }
    rng = np.random.default_rng(seed + 3)
    low, high = order_ranks(10_000, 0.999)
    order, pareto = 0, 0
    for law in laws.values():
        truth = float(law.ppf(0.999))
        for _ in range(runs):
            ordered = np.sort(law.rvs(10_000, random_state=rng))
            order += bool(ordered[low - 1] <= truth <= ordered[high - 1])
            threshold = float(ordered[-501])
            ends = fit_tail(ordered[-500:] - threshold).interval_at(0.02)
            pareto += threshold + ends[0] <= truth <= threshold + ends[1]
    total = len(laws) * runs
    error = 3 * math.sqrt(ALPHA * (1 - ALPHA) / total)
    yield alone(
        "coverage_order_statistics", "fraction", [order / total], Goal(text=">= 0.95 (-3 s.e.)", least=0.95 - error)
    )
    goal = Goal(text="0.93 to 0.97 (3 s.e.)", least=0.93 - error, most=0.97 + error)
    yield alone("coverage_gpd_profile_top_5_percent", "fraction", [pareto / total], goal)
    yield _bootstrap_coverage(runs, seed)
    yield from _session_coverage(runs, seed)


def _bootstrap_coverage(runs: int, seed: int) -> BenchResult:
    truth_ms = float(np.quantile(worlds.queue(np.random.default_rng(98), 8_000_000), 0.99))
    rng = np.random.default_rng(seed + 4)
    covered = 0
    for number in range(runs):
        delay_us = (worlds.queue(rng, 100_000) * 1_000).astype(np.int64)
        found = _estimates(delay_us, number)[EstimateMethod.BLOCK_BOOTSTRAP]
        covered += bool(found.low_ms <= truth_ms <= found.high_ms)
    return alone("coverage_block_bootstrap_p99_mm1", "fraction", [covered / runs], FREE)


def _session_coverage(runs: int, seed: int) -> Iterator[BenchResult]:
    """Sessions that are slow or fast in their own way, their requests in any order: by sessions, and by blocks."""
    truth_ms = float(np.quantile(worlds.sessions(np.random.default_rng(97), 400_000)[0], 0.99))
    rng = np.random.default_rng(seed + 6)
    covered, effects = np.zeros(2), list[float]()
    methods = (EstimateMethod.SESSION_BOOTSTRAP, EstimateMethod.BLOCK_BOOTSTRAP)
    for number in range(runs):
        delay_ms, session = worlds.sessions(rng, 2_000)
        groups = session_groups([str(one) for one in range(2_000)])[session]
        found = _estimates((delay_ms * 1_000).astype(np.int64), number, sessions=groups)
        covered += [bool(found[one].low_ms <= truth_ms <= found[one].high_ms) for one in methods]
        effects.append(float(found[methods[0]].design_effect))
    share = [float(one) for one in covered / runs]
    yield _measured(_rates("coverage_session_bootstrap_p99", (share[0], share[1]), "block bootstrap", runs))
    yield alone("design_effect_of_sessions_p99", "times", effects, FREE)


def _estimates(delay_us: Any, seed: int, *, sessions: Any = None) -> dict[EstimateMethod, Any]:
    count = len(delay_us)
    status = np.zeros(count, dtype=np.uint8)
    starts = np.arange(count) * 100
    batch = Batch(start_us=starts, status=status, end_to_end_us=delay_us, domains={}, sessions=sessions)
    table = ArrayTable(batch)
    contract = Contract(domain="end-to-end", delay_ms=1.0, epsilon=0.01)
    tally = audit_period(table, [contract], alpha=ALPHA).scan.tallies[0]
    found = estimates(tally, np.random.default_rng(seed), quantiles=(0.99,))
    return {one.method: one for one in found}


def _peer_intervals(runs: int, seed: int) -> Iterator[BenchResult]:
    """The 95 % interval of p99.9 of lognormal delays, beside pyextremes' bootstrap; seconds, and how often it holds."""
    if find_spec("pyextremes") is None:
        return
    from scipy import stats  # noqa: PLC0415 - slow to import

    law: Any = stats.lognorm(0.8)
    truth = float(law.ppf(0.999))
    rng = np.random.default_rng(seed + 5)
    pairs: list[tuple[float, float]] = []
    held = np.zeros((runs, 2))
    for number in range(runs):
        values = law.rvs(10_000, random_state=rng)
        ours, mine = _timed(partial(_profile, values))
        theirs, other = _timed(partial(_pyextremes, values, number))
        pairs.append((ours, theirs))
        held[number] = mine[0] <= truth <= mine[1], other[0] <= truth <= other[1]
    yield against("interval_of_p999", "s", pairs, peer="pyextremes", goal=Goal(text="<= 0.1", most=0.1, of_ratio=True))
    mean = [float(one) for one in held.mean(axis=0)]
    yield _measured(_rates("interval_of_p999_holds", (mean[0], mean[1]), "pyextremes", runs))


def _profile(values: Any) -> tuple[float, float]:
    ordered = np.sort(values)
    threshold = float(ordered[-501])
    low, high = fit_tail(ordered[-500:] - threshold).interval_at(0.02)
    return threshold + low, threshold + high


def _pyextremes(values: Any, seed: int) -> tuple[float, float]:
    """Return the peer's interval: a thousandth of the requests of a second is exceeded once in its return period."""
    pandas, peer = import_module("pandas"), import_module("pyextremes")
    series = pandas.Series(values, index=pandas.date_range("2026-01-01", periods=len(values), freq="s"))
    threshold = float(np.sort(values)[-501])
    np.random.seed(seed)  # noqa: NPY002 - the peer draws from the global generator
    model = peer.EVA(series)
    model.get_extremes("POT", threshold=threshold, r="0s")
    model.fit_model("MLE", distribution="genpareto")
    summary = model.get_summary(return_period=[1_000], return_period_size="1s", alpha=0.95, n_samples=100)
    return float(summary["lower ci"].iloc[0]), float(summary["upper ci"].iloc[0])


def _blame(seeds: int) -> Iterator[BenchResult]:
    """The least share of blame on the faulty domain, and the most on one inside its contract."""
    for fault in worlds.FAULTS:
        shares: list[float] = []
        innocent = 0.0
        for number in range(seeds):
            guilty = worlds.DOMAINS[number % 3]
            found = worlds.blamed(worlds.faulty(fault, guilty, number, 4_000))
            total = sum(one.blame for one in found.domains.values()) + found.unattributed
            shares.append(found.domains[guilty].blame / total if total else 0.0)
            others = [one.blame for name, one in found.domains.items() if name != guilty]
            innocent = max(innocent, *others)
        goal = Goal(text=">= 0.95, nothing on others", least=0.95)
        yield alone(f"least_blame_on_the_faulty_{fault}", "share", [0.0 if innocent else min(shares)], goal)


def _speed(seed: int) -> Iterator[BenchResult]:
    """Inserts of the sketch, updates of a running audit, attribution."""
    delay_us = (np.random.default_rng(seed).lognormal(9, 1, 1_000_000)).astype(np.int64)
    sketch = DelaySketch((50_000,))
    sketch.insert(delay_us)
    speeds = [len(delay_us) / _cpu(lambda: sketch.insert(delay_us)) for _ in range(9)]
    yield alone("sketch_inserts_per_second_and_core", "1/s", speeds, Goal(text=">= 50 million", least=50e6))
    state = ContinuousAudit.begun(Contract(domain="a", delay_ms=1.0, epsilon=0.01), alpha=ALPHA)
    batch = Counts(requests=5_000, certain=40, possible=41)

    def updates(before: ContinuousAudit) -> ContinuousAudit:
        for _ in range(2_000):
            before = before.fed(batch)[0]
        return before

    early, late = [_cpu(lambda: updates(state)) for _ in range(5)], list[float]()
    for _ in range(10):
        state = updates(state)
    late = [_cpu(lambda: updates(state)) for _ in range(5)]
    pairs = [(after / 2e-3, before / 2e-3) for after, before in zip(late, early, strict=True)]
    goal = Goal(text="<= 1.3 x the first", most=1.3, of_ratio=True)
    yield against("update_after_20000_batches", "us", pairs, peer="the first 2,000", goal=goal)
    rng = np.random.default_rng(seed)
    delays = worlds.healthy(rng, 300_000)
    delays["compute"] = np.asarray(worlds.FAULTS["jitter"](rng, delays["compute"]), dtype=np.float64)
    table = worlds.period_of(delays)
    audit = audit_period(table, worlds.contracts(), alpha=ALPHA)
    seconds = [_timed(lambda: accounts(table, audit, np.random.default_rng(seed)))[0] for _ in range(3)]
    yield alone("attribution_of_300000_requests", "s", seconds, Goal(text="<= 0.5", most=0.5))


def _parquet(rows: int) -> Iterator[BenchResult]:
    """An audit of a Parquet file in a process of its own: seconds per ten million records, and the most memory."""
    if find_spec("pyarrow") is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "telemetry.parquet"
        _write(path, rows)
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            seconds, megabytes = pool.apply(_audited, (path,))
    yield alone("parquet_10_million_records", "s", [seconds * 1e7 / rows], Goal(text="<= 10", most=10.0))
    yield alone("parquet_most_memory", "MB", [megabytes], Goal(text="<= 800", most=800.0))


def _audited(path: Path) -> tuple[float, float]:
    from aipaging.adapters.telemetry.source import open_telemetry  # noqa: PLC0415 - in the process that is measured

    def whole() -> None:
        table = open_telemetry(path)
        audit = audit_period(table, worlds.contracts(), alpha=ALPHA)
        accounts(table, audit, np.random.default_rng(0))

    worlds.blamed(worlds.faulty("jitter", "radio", 0, 4_000))  # whatever is imported late, and made once
    seconds, _ = _timed(whole)
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _write(path: Path, rows: int) -> None:
    arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    rng = np.random.default_rng(7)
    step, writer = 500_000, None
    for begin in range(0, rows, step):
        delays = {name: column.astype(np.int64) for name, column in worlds.healthy(rng, step).items()}
        table = arrow.table(
            {
                "request_id": [f"{row:032x}" for row in range(begin, begin + step)],
                "start_us": np.arange(begin, begin + step) * 100,
                "tenant": arrow.array(["t"] * step).dictionary_encode(),
                "status": arrow.array(np.where(rng.random(step) < 1e-4, "lost", "ok")).dictionary_encode(),
                "end_to_end_us": np.sum(list(delays.values()), axis=0),
                **{f"domain_{name}_us": column for name, column in delays.items()},
            }
        )
        writer = parquet.ParquetWriter(path, table.schema) if writer is None else writer
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


def _cpu(work: Callable[[], Any]) -> float:
    """Return the CPU seconds of some work: what others do on the machine counts less."""
    best: list[float] = []
    for _ in range(2):
        started = time.process_time()
        work()
        best.append(time.process_time() - started)
    return statistics.fmean(best)
