"""The command `aipaging evaluate`: experiments, their figures, one report."""

import contextlib
import shlex
import sys
import time
from collections.abc import Callable, Generator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import click

from aipaging.adapters.terminal.guard import examples, failed, json_option
from aipaging.adapters.terminal.output import note, say, table, write_json
from aipaging.apps.evaluate.catalogue import HOMES, chosen, experiment
from aipaging.apps.evaluate.experiment import FULL, QUICK
from aipaging.apps.evaluate.report import CONFIRMED, FAILED, REFUTED, entry, figures, write_report
from aipaging.apps.evaluate.running import key_of, known_result, run_all, versions
from aipaging.core.foundation.errors import InvalidInputError, UnavailableError

NEEDED: Final = {"matplotlib": "plot", "numba": "simulation"}


@click.command(
    "evaluate",
    epilog=examples(
        "aipaging evaluate --quick --out results",
        "aipaging evaluate --full --out results                 narrower intervals; may be killed and goes on",
        "aipaging evaluate --out results --only TRE2,AIP3 --json",
        "aipaging evaluate list",
    ),
)
@click.argument("what", default="run", type=click.Choice(["run", "list"]))
@click.option("--quick", "full", flag_value=False, default=False, help="Within five minutes on two cores; the default.")
@click.option("--full", "full", flag_value=True, help="Ten times as much.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder of the report. [required to run]")
@click.option("--only", default="", help="Experiments, separated by commas.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of everything random.")
@json_option
def evaluate(*, what: str, full: bool, out: Path | None, only: str, seed: int, as_json: bool) -> None:
    """Measure what the papers claim: report.html, figures, results.json in the folder of --out.

    TRE1 to TRE5 simulate packets through the real admission, calculus and audit; AIP1 to AIP5 run the real stack on
    loopback, and say so where the machine lacks it. What an earlier run of the same command finished is not measured
    again; the report holds it too. Exit status 1: a claim was not confirmed, or could not be measured.
    """
    names = chosen(only)
    if what == "list":
        _list(names, as_json=as_json)
        return
    out = _ready(out)
    scale = FULL if full else QUICK
    command = shlex.join(["aipaging", "evaluate", *(a for a in sys.argv[2:] if a != "--json")])
    made = {"command": command, "seed": seed, "scale": "full" if full else "quick", "versions": versions()}
    experiments = [experiment(name) for name in names]
    began = time.perf_counter()
    with _progress(len(experiments)) as on_progress:
        results = run_all(experiments, out, scale=scale, made=made, on_progress=on_progress)
    entries = _reported(out, made, dict(zip(names, results, strict=True)), scale=scale)
    note(f"{time.perf_counter() - began:.0f} s; the report: {out / 'report.html'}")
    asked = [one for one in entries if one["experiment"] in names]
    _tell(out, made, asked, as_json=as_json)
    if any(one["verdict"] in {REFUTED, FAILED} for one in asked):
        failed()


def _reported(
    out: Path, made: dict[str, Any], results: dict[str, dict[str, Any]], *, scale: float
) -> list[dict[str, Any]]:
    """Write figures and report of these results, and of what earlier runs of the same key have left beside them."""
    entries: list[dict[str, Any]] = []
    methods: dict[str, str] = {}
    for name in HOMES:
        one = experiment(name)
        result = results.get(name) or known_result(one, out, key_of(one, scale, made))
        if result is not None:
            document, _ = entry(one, result)
            figures(out, one, result)
            entries.append(document)
            methods[name] = one.method
    write_report(out, made, entries, methods)
    return entries


def _ready(out: Path | None) -> Path:
    """Return the folder, made, having seen that figures and packets can be made too."""
    if out is None:
        raise InvalidInputError("say where the report goes: --out FOLDER", field="out")
    for module, extra in NEEDED.items():
        if find_spec(module) is None:
            raise UnavailableError(
                f"the package {module!r} is not installed: pip install 'aipaging[{extra}]' brings it",
                code="EXTRA_MISSING",
            )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInputError(f"{out} cannot be made: {error.strerror}", field="out") from error
    return out


def _tell(out: Path, made: dict[str, Any], entries: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        shown = [{key: value for key, value in one.items() if key != "measured"} for one in entries]
        write_json({"made": made, "report": str(out / "report.html"), "experiments": shown})
        return
    for one in entries:
        say(f"{one['experiment']} {one['verdict']}", style="bold" if one["verdict"] == CONFIRMED else "bold red")
        say(f"  {one['sentence']}")


def _list(names: list[str], *, as_json: bool) -> None:
    found = [(name, experiment(name)) for name in names]
    if as_json:
        write_json({"experiments": [{"name": n, "title": e.title, "claim": e.claim} for n, e in found]})
    else:
        table(("", "experiment", "claim"), [(name, one.title, one.claim) for name, one in found])


@contextlib.contextmanager
def _progress(count: int) -> Generator[Callable[[int, str], None]]:
    """Show a bar on a terminal, lines elsewhere."""
    if not sys.stderr.isatty():
        yield lambda done, name: note(f"[{done}/{count}] {name or 'done'}")
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("experiments", total=count)
        yield lambda done, name: bar.update(task, completed=done, description=name or "done")
