"""`aipaging audit`: verdicts, alarms, estimates and blame, from files."""

from pathlib import Path
from typing import Any

import click

from aipaging.adapters.terminal.guard import examples, failed, json_option
from aipaging.adapters.terminal.output import say, table, write_json
from aipaging.apps.audit.recheck import recheck_audit
from aipaging.apps.audit.report import audit_report
from aipaging.apps.audit.run import run_audit
from aipaging.apps.audit.watch import event_line, watch_telemetry
from aipaging.core.audit.betting import WINDOW_REQUESTS
from aipaging.core.foundation.errors import InvalidInputError

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
        "aipaging audit report telemetry.parquet --contract contract.toml --output audit.html",
        "aipaging audit recheck audit.json telemetry.parquet --contract contract.toml",
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


@audit.command()
@telemetry_argument
@contract_option
@seed_option
@json_option
def estimate(telemetry: Path, *, contract_file: Path, seed: int, as_json: bool) -> None:
    """Estimate extreme percentiles of TELEMETRY, with intervals and what they assume."""
    found = run_audit(telemetry, contract_file, alpha=0.05, seed=seed)["estimates"]
    if as_json:
        write_json({"estimates": found})
        return
    for one in found:
        label = f"{one['domain']} p{100 * one['quantile']:g} by {one['method']}"
        say(f"{label}: {one['refused'] or _interval(one)}")


@audit.command()
@telemetry_argument
@contract_option
@seed_option
@json_option
def attribute(telemetry: Path, *, contract_file: Path, seed: int, as_json: bool) -> None:
    """Say which domain made requests of TELEMETRY late, beyond what its contract permits."""
    found = run_audit(telemetry, contract_file, alpha=0.05, seed=seed)["attributions"]
    if as_json:
        write_json({"attributions": found})
        return
    for one in found:
        _show_blame(one)


@audit.command()
@click.argument("document", type=click.Path(path_type=Path))
@telemetry_argument
@contract_option
@json_option
def recheck(document: Path, telemetry: Path, *, contract_file: Path, as_json: bool) -> None:
    """Do an audit again from the files alone, and compare with the DOCUMENT that `run --json` wrote.

    Exit status 1 if anything differs.
    """
    differences = recheck_audit(document, telemetry, contract_file)
    if as_json:
        write_json({"same": not differences, "differences": differences})
    else:
        say("\n".join(differences) if differences else "the same")
    if differences:
        failed()


@audit.command()
@telemetry_argument
@contract_option
@alpha_option
@seed_option
@click.option("--output", type=click.Path(path_type=Path), required=True, help="HTML file to write.")
@json_option
def report(telemetry: Path, *, contract_file: Path, output: Path, as_json: bool, **options: Any) -> None:
    """Write the audit of TELEMETRY as one HTML file with plots, which needs nothing else."""
    page = audit_report(telemetry, contract_file, **options)
    try:
        output.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(f"cannot write {output}: {error.strerror}", field="output") from error
    if as_json:
        write_json({"output": str(output)})
    else:
        say(f"wrote {output}")


def _interval(one: dict[str, Any]) -> str:
    ends = ("unbounded" if one[name] is None else f"{one[name]:.3f} ms" for name in ("delay_ms", "low_ms", "high_ms"))
    value, low, high = ends
    return f"{value} ({low} to {high}), assuming that {one['assumption']}"


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
