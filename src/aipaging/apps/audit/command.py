"""`aipaging audit`: verdicts, alarms, estimates and blame, from files."""

from pathlib import Path
from typing import Any

import click

from aipaging.adapters.terminal.guard import examples, failed, json_option
from aipaging.adapters.terminal.output import say, table, write_json
from aipaging.apps.audit.run import run_audit
from aipaging.apps.audit.watch import event_line, watch_telemetry
from aipaging.core.audit.betting import WINDOW_REQUESTS

telemetry_argument = click.argument("telemetry", type=click.Path(path_type=Path))
contract_option = click.option(
    "--contract", "contract_file", type=click.Path(path_type=Path), required=True, help="Contract file (TOML)."
)
alpha_option = click.option(
    "--alpha",
    type=click.FloatRange(0.0, 1.0, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="Error probability of all verdicts together, on each side.",
)
seed_option = click.option("--seed", type=int, default=0, show_default=True, help="Decides every random choice.")


@click.group(
    epilog=examples(
        "aipaging audit run telemetry.parquet --contract contract.toml --alpha 0.05",
        "aipaging audit run telemetry.csv --contract contract.toml --sample 20000 --seed 7 --json",
        "aipaging audit watch telemetry.jsonl --contract contract.toml --window 5000",
    )
)
def audit() -> None:
    """Verdicts about tail delays: complete or sampled, with blame and estimates."""


@audit.command()
@telemetry_argument
@contract_option
@alpha_option
@seed_option
@click.option("--sample", type=click.IntRange(min=1), help="Open so many records at random instead of counting all.")
@click.option("--root", help="What the provider committed to (hex); it decides with the seed what is opened.")
@json_option
def run(telemetry: Path, *, contract_file: Path, as_json: bool, **options: Any) -> None:
    """Judge TELEMETRY against every contract of a file.

    Exit status 1 if a contract is violated.
    """
    document = run_audit(telemetry, contract_file, **options)
    if as_json:
        write_json(document)
    else:
        _show(document)
    if any(verdict["verdict"] == "violated" for verdict in document["verdicts"]):
        failed()


@audit.command()
@telemetry_argument
@contract_option
@alpha_option
@click.option(
    "--window",
    type=click.IntRange(min=1),
    default=WINDOW_REQUESTS,
    show_default=True,
    help="Requests per window: long against the dependence.",
)
@json_option
def watch(telemetry: Path, *, contract_file: Path, alpha: float, window: int, as_json: bool) -> None:
    """Raise an alarm as soon as TELEMETRY, in its order, gives evidence of a violation.

    With --json, a line per alarm and a last one per contract. Exit status 1 if there was an alarm.
    """
    alarms = 0
    for event in watch_telemetry(telemetry, contract_file, alpha=alpha, window=window):
        alarms += event["event"] == "alarm"
        if as_json:
            write_json(event)
        else:
            say(event_line(event))
    if alarms:
        failed()


def _show(document: dict[str, Any]) -> None:
    rows = [
        (
            verdict["domain"],
            verdict["tenant"],
            verdict["verdict"],
            verdict["requests"],
            f"{verdict['exceedances_low']}..{verdict['exceedances_high']}",
            verdict["exceedances_allowed"],
            verdict["method"],
        )
        for verdict in document["verdicts"]
    ]
    headings = ("domain", "tenant", "verdict", "requests", "exceedances", "allowed", "method")
    table(headings, rows, right=(3, 4, 5))
    say()
    say(document["multiplicity"]["statement"])
    if document["attribution"] is not None:
        _show_blame(document["attribution"])
    for name, flaw in document["data_quality"]["flaws"].items():
        say(f"{name}: {flaw['count']}; {flaw['effect']}")


def _show_blame(attribution: dict[str, Any]) -> None:
    say()
    rows = [("permitted by the contracts", f"{attribution['permitted']:.3e}", "", "")]
    rows += [
        (f"blame of {name}", f"{one['blame']:.3e}", f"{one['low']:.3e}", f"{one['high']:.3e}")
        for name, one in attribution["domains"].items()
    ]
    rows += [
        ("unattributed", f"{attribution['unattributed']:.3e}", "", ""),
        ("observed", f"{attribution['observed']:.3e}", "", ""),
    ]
    table(("end to end", "fraction late", "low", "high"), rows, right=(1, 2, 3))
