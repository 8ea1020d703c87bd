"""`aipaging calculus`: bounds without a control plane."""

import json
import sys
from pathlib import Path
from typing import Any, Final

import click

from aipaging.apps.calculus.cases import answer_rows
from aipaging.core.calculus.bound import RungClass

EXIT_INVALID: Final = 2
EXIT_REFUSED: Final = 3


def fail(message: str, *, code: str = "INVALID_ARGUMENT", status: int = EXIT_INVALID, **where: str) -> None:
    """Print a typed error as JSON and leave with its exit status."""
    click.echo(json.dumps({"error": {"code": code, "message": message, "who": "caller", **where}}))
    sys.exit(status)


@click.group()
def calculus() -> None:
    """Bounds on delay: case files, single questions, the kinds they may use."""


@calculus.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON line per row.")
@click.option("--class", "rung_class", type=click.Choice(["fast", "sharp"]), default="sharp", show_default=True)
def cases(file: Path, *, as_json: bool, rung_class: str) -> None:
    """Answer every row of a reference-case FILE, in order."""
    try:
        document: Any = json.loads(file.read_text())
        rows = document["rows"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        fail(f"not a case file: {error}", file=str(file))
        return
    for answer in answer_rows(rows, RungClass(rung_class)):
        if as_json:
            click.echo(json.dumps(answer, allow_nan=False))
        else:
            click.echo(_line(answer))


def _line(answer: dict[str, Any]) -> str:
    if "error" in answer:
        return f"{answer['case']:32s} error: {answer['error']['message']}"
    delay = "inf" if answer["delay"] is None else f"{answer['delay']:.6g}"
    return f"{answer['case']:32s} d={delay:10s} P<={answer['probability']:.4e}  {answer['rung']}"
