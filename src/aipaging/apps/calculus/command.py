"""`aipaging calculus`: bounds without a control plane."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from aipaging.adapters.terminal.guard import examples, json_option
from aipaging.adapters.terminal.output import say, write_json
from aipaging.apps.calculus.cases import answer_rows
from aipaging.apps.calculus.documents import json_document
from aipaging.apps.calculus.plan_commands import budget_command, fit_command, frontier_command
from aipaging.apps.calculus.plot import curve, overlay, plot_bounds
from aipaging.apps.calculus.question import answer as answer_question
from aipaging.apps.calculus.question import kinds as all_kinds
from aipaging.core.calculus.bound import RungClass
from aipaging.core.foundation.errors import InvalidInputError

class_option = click.option(
    "--class",
    "rung_class",
    type=click.Choice([member.value for member in RungClass]),
    default=RungClass.SHARP.value,
    show_default=True,
    help="fast: closed forms, for admission; sharp: up to a fraction of a second.",
)


@click.group(
    epilog=examples(
        "aipaging calculus bound question.json",
        "aipaging calculus bound - --json < question.json",
        "aipaging calculus kinds",
        "aipaging calculus cases cases.json --class fast --json",
        "aipaging calculus plot question.json --delay-max 50 --output bound.svg",
        "aipaging calculus budget budget.json --plot budget.svg",
        "aipaging calculus frontier budget.json --delay-max 60 --plot frontier.svg",
        "aipaging calculus fit trace.csv --kind exponentially-bounded --json",
    )
)
def calculus() -> None:
    """Bounds on delay, budgets and fits: case files, single questions, the kinds they may use."""


calculus.add_command(budget_command)
calculus.add_command(frontier_command)
calculus.add_command(fit_command)


@calculus.command(epilog=examples("aipaging calculus cases cases.json --class fast --json"))
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@class_option
@json_option
def cases(file: Path, *, rung_class: str, as_json: bool) -> None:
    """Answer every row of a reference-case FILE, in order.

    A row of an unknown family is an error of that row only.
    """
    rows = json_document(file).get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InvalidInputError('a case file is {"rows": [{...}, ...]}', field="rows")
    for answer in answer_rows(rows, RungClass(rung_class)):
        if as_json:
            write_json(answer)
        else:
            say(_line(answer))


@calculus.command(
    epilog=examples("aipaging calculus bound question.json", "aipaging calculus bound - --json < question.json")
)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@class_option
@json_option
def bound(file: Path, *, rung_class: str, as_json: bool) -> None:
    """Answer one question in FILE (- for standard input): a delay, or a probability."""
    document = json_document(file)
    found = answer_question(document, RungClass(rung_class))
    if as_json:
        write_json(found)
        return
    say(_sentence(found, document))
    if "assumptions" not in found:
        return
    say("assuming " + (", ".join(found["assumptions"]) or "nothing"))


@calculus.command(epilog=examples("aipaging calculus kinds --json"))
@json_option
def kinds(*, as_json: bool) -> None:
    """List the kinds of arrival, work and service that a question may use."""
    tables = all_kinds()
    if as_json:
        write_json(tables)
        return
    for part in ("arrival", "work", "service"):
        say(f"{part}:")
        for name, kind in tables[part].items():
            say(f"  {name:22s} {', '.join(kind['fields'])}: {kind['help']}")


@calculus.command(epilog=examples("aipaging calculus plot question.json --delay-max 50 --output bound.svg"))
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--delay-max", type=click.FloatRange(min=0.0, min_open=True), required=True, help="Right end of the axis."
)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="The picture: .svg or .png.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the simulation.")
@json_option
def plot(file: Path, *, delay_max: float, output: Path | None, seed: int, as_json: bool) -> None:
    """Draw the bound of the question in FILE over the delay, with every rung that applies.

    With --json its points are printed instead, or too.
    Where one hop with Poisson jobs or independent slots is asked about, what simulation says is drawn beside it.
    """
    if output is None and not as_json:
        raise InvalidInputError("--output says where the picture goes; or give --json", field="output")
    document = json_document(file)
    curves = {of: curve(document, delay_max, of) for of in RungClass}
    points = overlay(document, delay_max, seed=seed)
    if output is not None:
        plot_bounds(document, curves, points, output)
    if as_json:
        bounds = {
            of.value: [{"delay": d, "epsilon": p, "rung": r, "ladder": s} for d, p, r, s in at]
            for of, at in curves.items()
        }
        write_json(bounds | {"simulated": [asdict(point) for point in points]})
    else:
        say(f"wrote {output}")


def _sentence(found: dict[str, Any], document: dict[str, Any]) -> str:
    """Return the answer to one question in a line; which members there are depends on its query."""
    if "rung" not in found:
        rate, prefactor, decay = (found[name] for name in ("rate", "prefactor", "decay"))
        return f"P(output > {rate:.6g} t + x) <= {prefactor:.6g} exp(-{decay:.6g} x)"
    name, unit = ("backlog", "work_unit") if "backlog" in found else ("delay", "time_unit")
    value = found[name]
    amount = "any" if value is None else f"{value:.6g} {document.get(unit, '')}".strip()
    return f"P({name} > {amount}) <= {found['epsilon']:.4e}   [{found['rung']}]"


def _line(answer: dict[str, Any]) -> str:
    if "error" in answer:
        return f"{answer['case']:32s} error: {answer['error']['message']}"
    delay = "inf" if answer["delay"] is None else f"{answer['delay']:.6g}"
    return f"{answer['case']:32s} d={delay:10s} P<={answer['probability']:.4e}  {answer['rung']}"
