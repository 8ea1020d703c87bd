"""`aipaging calculus`: bounds without a control plane."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from aipaging.adapters.terminal.guard import examples, json_option
from aipaging.adapters.terminal.output import say, write_json
from aipaging.apps.calculus.cases import answer_rows
from aipaging.apps.calculus.plot import curve, draw
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
    )
)
def calculus() -> None:
    """Bounds on delay: case files, single questions, the kinds they may use."""


@calculus.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@class_option
@json_option
def cases(file: Path, *, rung_class: str, as_json: bool) -> None:
    """Answer every row of a reference-case FILE, in order.

    A row of an unknown family is an error of that row only.
    """
    rows = _document(file).get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InvalidInputError('a case file is {"rows": [{...}, ...]}', field="rows")
    for answer in answer_rows(rows, RungClass(rung_class)):
        if as_json:
            write_json(answer)
        else:
            say(_line(answer))


@calculus.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@class_option
@json_option
def bound(file: Path, *, rung_class: str, as_json: bool) -> None:
    """Answer one question in FILE (- for standard input): a delay, or a probability."""
    document = _document(file)
    found = answer_question(document, RungClass(rung_class))
    if as_json:
        write_json(found)
        return
    delay = "any" if found["delay"] is None else f"{found['delay']:.6g} {document.get('time_unit', '')}".strip()
    say(f"P(delay > {delay}) <= {found['epsilon']:.4e}   [{found['rung']}]")
    say("assuming " + (", ".join(found["assumptions"]) or "nothing"))


@calculus.command()
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


@calculus.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--delay-max", type=click.FloatRange(min=0.0, min_open=True), required=True, help="Right end of the axis."
)
@click.option("--output", type=click.Path(path_type=Path), help="SVG file; standard output where left out.")
@json_option
def plot(file: Path, *, delay_max: float, output: Path | None, as_json: bool) -> None:
    """Draw the bound of the question in FILE over the delay, as SVG; with --json its points instead."""
    document = _document(file)
    if as_json:
        points = {of.value: curve(document, delay_max, of) for of in RungClass}
        write_json({of: [{"delay": d, "epsilon": p, "rung": r} for d, p, r in at] for of, at in points.items()})
        return
    picture = draw(document, delay_max)
    if output is None:
        click.echo(picture, nl=False)
        return
    try:
        output.write_text(picture)
    except OSError as error:
        raise InvalidInputError(f"cannot write {output}: {error}", field="output") from error
    say(f"wrote {output}")


def _document(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file, or on standard input.

    Raises:
        InvalidInputError: There is none.
    """
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
        document: Any = json.loads(text)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{file} holds no JSON document: {error}", field="file") from error
    if not isinstance(document, dict):
        raise InvalidInputError(f"{file} does not hold a JSON object", field="file")
    return document


def _line(answer: dict[str, Any]) -> str:
    if "error" in answer:
        return f"{answer['case']:32s} error: {answer['error']['message']}"
    delay = "inf" if answer["delay"] is None else f"{answer['delay']:.6g}"
    return f"{answer['case']:32s} d={delay:10s} P<={answer['probability']:.4e}  {answer['rung']}"
