"""`aipaging simulate system`: the whole system from seeds, judged from outside."""

import contextlib
import itertools
import multiprocessing
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Any, Final

import click

from aipaging.adapters.terminal.guard import examples, failed, json_option
from aipaging.adapters.terminal.output import note, say, table, write_json
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.simulation.system.campaign import Campaign, outcomes
from aipaging.simulation.system.mutants import MUTANTS, mutant_of
from aipaging.simulation.system.run import Outcome
from aipaging.simulation.system.schedule import STEPS_DEFAULT, STEPS_MAX, families_of
from aipaging.testing.system_parts import real_parts

SEEDS_MAX: Final = 10_000_000
TOLD_EVERY: Final = 100
"""Where there is no bar, a line is written after at least so many seeds, and at most ten in all."""


@click.command(
    "system",
    epilog=examples(
        "aipaging simulate system --seeds 0:1000",
        "aipaging simulate system --seeds 0:200 --faults network,crash --json",
        "aipaging simulate system --seeds 0:60 --mutant lease-from-the-answer --shrink",
        "aipaging simulate system --list-mutants",
    ),
)
@click.option("--seeds", default="0:100", show_default=True, help="FIRST:END, or one seed; END is not run.")
@click.option("--faults", help="Families, comma-separated; none, all; by default a few of the usual for every seed.")
@click.option(
    "--steps",
    type=click.IntRange(1, STEPS_MAX),
    default=STEPS_DEFAULT,
    show_default=True,
    help="Acts of clients and operators in one run.",
)
@click.option("--mutant", default="", help="Plant a bug; see --list-mutants. A checker should find it.")
@click.option("--shrink", is_flag=True, help="Of the first seed that fails, show the least schedule that still does.")
@click.option("--executor", default="processes", show_default=True, help="serial, or processes[:N].")
@click.option("--list-mutants", is_flag=True, help="List the planted bugs, and run nothing.")
@json_option
def system(*, seeds: str, faults: str | None, list_mutants: bool, as_json: bool, **options: Any) -> None:
    """Run the real core, gateways, sidecars and clients under faults: one seed, one run.

    Checkers watch what is forwarded, admitted, answered and stored, in true time. With --json: a line for every
    failing seed, and a summary: how often which fault met something, how many records there were of each type. Exit
    status 1: a checker found something.
    """
    if list_mutants:
        _list(as_json=as_json)
        return
    if options["mutant"]:
        mutant_of(options["mutant"])
    families = families_of(faults) if faults is not None else None
    campaign = Campaign(parts=real_parts, steps=options["steps"], families=families, mutant=options["mutant"])
    wanted = _seeds(seeds)
    started = time.perf_counter()
    found: list[Outcome] = []
    reached: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    pages = requests = 0
    with _executor(options["executor"], len(wanted)) as pool, _progress(len(wanted)) as advance:
        for outcome in outcomes(campaign, wanted, pool):
            pages, requests = pages + outcome.pages, requests + outcome.requests
            reached.update(outcome.reached)
            kinds.update(outcome.kinds)
            if outcome.found is not None:
                found.append(outcome)
                _show_failure(outcome, as_json=as_json)
            advance()
    if found and options["shrink"]:
        _show_least(campaign, found[0], as_json=as_json)
    summary = {
        "seeds": len(wanted),
        "failed": [outcome.seed for outcome in found],
        "pages": pages,
        "requests": requests,
        "seconds": round(time.perf_counter() - started, 3),
        "mutant": options["mutant"] or None,
        "reached": dict(sorted(reached.items())),
        "records": dict(sorted(kinds.items())),
    }
    if as_json:
        write_json({"summary": summary})
    else:
        say("what was reached: " + ", ".join(f"{what} {count}" for what, count in sorted(reached.items())))
        say(f"{len(wanted)} seeds, {pages} pages, {requests} requests in {summary['seconds']} s: {len(found)} failed")
    if found:
        failed()


def _list(*, as_json: bool) -> None:
    if as_json:
        write_json({"mutants": [{"name": m.name, "what": m.what, "seedsEnd": m.seeds_end} for m in MUTANTS.values()]})
    else:
        table(
            ("mutant", "what it does", "found among seeds"),
            ((m.name, m.what, f"0:{m.seeds_end}") for m in MUTANTS.values()),
        )


def _show_failure(outcome: Outcome, *, as_json: bool) -> None:
    found = outcome.found
    if found is None:
        return
    if as_json:
        document = {"checker": found.checker, "us": found.us, "what": found.what}
        write_json({"seed": outcome.seed, "digest": outcome.digest, "found": document})
    else:
        say(f"seed {outcome.seed}: {found}")


def _show_least(campaign: Campaign, outcome: Outcome, *, as_json: bool) -> None:
    least = campaign.shrunk(outcome)
    acts = [str(act) for act in least.plan.acts]
    if as_json:
        write_json({"seed": outcome.seed, "least": acts, "found": str(least.outcome.found), "runs": least.runs})
        return
    say(f"the least schedule of seed {outcome.seed} that still fails ({least.runs} runs):")
    for act in acts:
        say(f"  {act}")
    say(f"  {least.outcome.found}")


def _seeds(text: str) -> range:
    """Return the seeds that are asked for.

    Raises:
        InvalidInputError: That is no range of seeds.
    """
    found = re.fullmatch(r"(\d{1,12})(?::(\d{1,12}))?", text)
    first = int(found[1]) if found else 0
    end = int(found[2]) if found and found[2] else first + 1
    if found is None or not first < end <= first + SEEDS_MAX:
        raise InvalidInputError(f"seeds are {text!r}: FIRST:END with FIRST < END is expected", field="seeds")
    return range(first, end)


@contextlib.contextmanager
def _executor(executor: str, seeds: int) -> Generator[Executor | None]:
    found = re.fullmatch(r"serial|processes(?::([1-9]\d{0,3}))?", executor)
    if found is None:
        raise InvalidInputError(
            f"there is no executor {executor!r}: allowed are serial, processes, processes:N", field="executor"
        )
    workers = int(found[1]) if found[1] else len(os.sched_getaffinity(0))
    if executor == "serial" or workers == 1 or seeds <= workers:
        yield None
        return
    # Spawned, not forked: a fork copies locks that a thread of ours may hold.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextlib.contextmanager
def _progress(seeds: int) -> Generator[Callable[[], None]]:
    if not sys.stderr.isatty():
        done = itertools.count(1)
        step = max(TOLD_EVERY, -(-seeds // 10))

        def told() -> None:
            count = next(done)
            if count % step == 0 and count < seeds:
                note(f"{count} of {seeds} seeds")

        yield told
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("seeds", total=seeds)
        yield lambda: bar.advance(task)
