"""The command `aipaging bench`: finds the benchmarks of this package, runs them, prints them in one form."""

import dataclasses
import importlib
import importlib.util
import os
import pkgutil
import platform
from typing import Any

import click

import aipaging.apps.bench as package
from aipaging.adapters.terminal.guard import examples, failed, json_option
from aipaging.adapters.terminal.output import note, say, table, write_json
from aipaging.apps.bench.result import BenchResult
from aipaging.core.foundation.errors import InvalidInputError


def benchmark_names() -> list[str]:
    """Return the names of all benchmarks, without importing them."""
    modules = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(name.replace("_", "-") for name in modules if _is_benchmark(name))


def _is_benchmark(module: str) -> bool:
    # Reading is cheaper than importing: a benchmark imports what it measures, an optional extra perhaps.
    spec = importlib.util.find_spec(f"{package.__name__}.{module}")
    if spec is None or spec.loader is None:
        return False
    get_source = getattr(spec.loader, "get_source", None)
    source = get_source(spec.name) if get_source else ""
    return "\ndef run(" in (source or "")


def machine() -> dict[str, Any]:
    """Return what a number was measured on."""
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "kernel": platform.release(),
    }


def run_benchmark(name: str, *, quick: bool, seed: int) -> dict[str, Any]:
    """Run one benchmark and return its document."""
    module = importlib.import_module(f"{package.__name__}.{name.replace('-', '_')}")
    results: list[BenchResult] = module.run(quick=quick, seed=seed)
    return {
        "name": name,
        "machine": machine(),
        "seed": seed,
        "results": [dataclasses.asdict(result) for result in results],
    }


@click.command(
    "bench",
    epilog=examples(
        "aipaging bench list",
        "aipaging bench sidecar --quick",
        "aipaging bench user-plane --json | jq '.results[] | {metric, ratio, ok}'",
        "aipaging bench all --quick --json             one JSON document a line",
    ),
)
@click.argument("name")
@click.option("--quick", is_flag=True, help="End within a minute; the numbers are rougher.")
@click.option("--seed", default=0, show_default=True, help="Of whatever is random.")
@json_option
def bench(*, name: str, quick: bool, seed: int, as_json: bool) -> None:
    """Run the benchmark NAME, or `all`, or `list` what there is.

    Each measures its peer in the same run, interleaved. Exit status 1: a goal was not met.
    """
    known = benchmark_names()
    if name == "list":
        _list(known, as_json=as_json)
        return
    if name != "all" and name not in known:
        raise InvalidInputError(
            f"there is no benchmark {name!r}: there are {', '.join(known) or 'none yet'}", field="name"
        )
    met = True
    for each in known if name == "all" else [name]:
        note(f"{each}: measuring …")
        document = run_benchmark(each, quick=quick, seed=seed)
        met = met and all(result["ok"] for result in document["results"])
        if as_json:
            write_json(document)
        else:
            _show(document)
    if not met:
        failed()


def _list(known: list[str], *, as_json: bool) -> None:
    if as_json:
        write_json({"benchmarks": known})
    for each in [] if as_json else known:
        say(each)


def _show(document: dict[str, Any]) -> None:
    on = document["machine"]
    say(f"{document['name']}: {on['cpus']} cpus, Python {on['python']}, Linux {on['kernel']}", style="bold")
    table(
        ("metric", "ours", "unit", "peer", "theirs", "ratio", "goal", "met", "runs", "spread"),
        (
            (
                result["metric"],
                _number(result["ours"]),
                result["unit"],
                result["peer"],
                _number(result["theirs"]),
                _number(result["ratio"]),
                result["goal"],
                "yes" if result["ok"] else "NO",
                result["runs"],
                _number(result["spread"]),
            )
            for result in document["results"]
        ),
        right=(1, 4, 5, 8, 9),
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
