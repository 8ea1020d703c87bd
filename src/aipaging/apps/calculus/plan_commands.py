"""`aipaging calculus budget|frontier|fit`: split a promise, see what can be promised, learn arrivals from a trace."""

from pathlib import Path
from typing import Any

import click

from aipaging.adapters.terminal.guard import examples, json_option
from aipaging.adapters.terminal.output import note, say, table, write_json
from aipaging.apps.calculus.budget import FIELDS, answered, asked, document_of, frontier
from aipaging.apps.calculus.budget_plot import plot_budget, plot_frontier
from aipaging.apps.calculus.documents import json_document
from aipaging.apps.calculus.fit import KINDS, FitOptions, arrival_of, plot_curve
from aipaging.apps.calculus.fit import document_of as fit_document
from aipaging.apps.calculus.trace import Columns, read_trace
from aipaging.core.foundation.errors import InvalidInputError

_file = click.Path(path_type=Path, allow_dash=True)
_positive = click.FloatRange(min=0.0, min_open=True)
plot_option = click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw it too (.svg or .png)."
)


@click.command(
    "budget",
    epilog=examples(
        "aipaging calculus budget budget.json",
        "aipaging calculus budget - --json < budget.json",
        "aipaging calculus budget budget.json --plot budget.svg",
        "aipaging calculus budget --fields",
    ),
)
@click.argument("file", type=_file, required=False)
@click.option("--fields", is_flag=True, help="List what FILE may hold.")
@plot_option
@json_option
def budget_command(file: Path | None, *, fields: bool, plot: Path | None, as_json: bool) -> None:
    """Split the promise in FILE (- for standard input) over its domains, for least risk, delay or cost.

    The answer holds the parts, the shadow prices of delay and risk, the limits that bind, and a certificate: how far it
    is from the optimum at most. Exit status 3: no split keeps all limits; the message says which, and what would do.
    """
    if fields or file is None:
        _say_fields(as_json=as_json, missing=not fields)
        return
    budget = answered(asked(json_document(file)))
    document = document_of(budget)
    if plot is not None:
        plot_budget(budget, plot)
    if as_json:
        write_json(document)
        return
    cost = f" at cost {document['cost']:.6g}" if "cost" in document else ""
    say(f"P(delay > {document['delay_ms']:.6g} ms) <= {document['epsilon']:.4e}{cost}")
    members = [name for name in ("delay_ms", "epsilon", "rate") if document["parts"][0].get(name) is not None]
    table(
        ("domain", *members),
        ((part["name"], *(f"{part[name]:.6g}" for name in members)) for part in document["parts"]),
        right=range(1, len(members) + 1),
    )
    for name, price in document["prices"].items():
        say(f"{name:22s} {price:.6g}")
    for limit in document["binding"]:
        say(f"binding: {limit['limit']} of {limit['domain']}, worth {limit['price']:.6g}")
    certificate = document["certificate"]
    gap = "unknown (not convex)" if certificate["duality_gap"] is None else f"at most {certificate['duality_gap']:.1e}"
    say(f"off the optimum: {gap}; stationarity to {certificate['kkt_residual']:.1e}")


@click.command(
    "frontier",
    epilog=examples(
        "aipaging calculus frontier budget.json --delay-max 60 --plot frontier.svg",
        "aipaging calculus frontier budget.json --delay-max 60 --rate-factor 1 --rate-factor 2 --json",
    ),
)
@click.argument("file", type=_file)
@click.option("--delay-max", type=_positive, required=True, help="Largest end-to-end delay, ms.")
@click.option(
    "--rate-factor", "rate_factors", type=_positive, multiple=True, help="Multiple of the reserved rates; repeatable."
)
@plot_option
@json_option
def frontier_command(
    file: Path, *, delay_max: float, rate_factors: tuple[float, ...], plot: Path | None, as_json: bool
) -> None:
    """Show what the domains of a budget FILE can promise at all: the least risk at every delay."""
    question = asked(json_document(file))
    curves = frontier(question, delay_max, rate_factors or (1.0,))
    if plot is not None:
        known = question.delay_ms is not None and question.epsilon is not None
        plot_frontier(curves, plot, asked=(question.delay_ms or 0.0, question.epsilon or 0.0) if known else None)
    if as_json:
        write_json({"curves": curves})
        return
    shown = range(7, len(curves[0]["points"]), 8)
    heads = [f"{curve['dependence']}, {curve['rate_factor']:g}x" for curve in curves]
    table(
        ("delay_ms", *heads),
        (
            (f"{curves[0]['points'][k]['delay_ms']:.4g}", *(f"{curve['points'][k]['epsilon']:.3e}" for curve in curves))
            for k in shown
        ),
        right=range(len(heads) + 1),
    )


@click.command(
    "fit",
    epilog=examples(
        "aipaging calculus fit trace.csv --kind exponentially-bounded --work-column tokens --json",
        "aipaging calculus fit trace.csv.gz --kind token-bucket --time-column TIMESTAMP --plot bursts.svg",
        "aipaging calculus fit trace.jsonl --kind poisson --work-column tokens --work-max 4096",
    ),
)
@click.argument("trace", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--kind", type=click.Choice(list(KINDS)), required=True, help="Of the envelope.")
@click.option("--time-column", default="time", show_default=True, help="Numbers, or ISO 8601 instants (in seconds).")
@click.option("--work-column", help="Work of an arrival; default: 1 each.")
@click.option("--rate", type=_positive, help="Sustained rate; default: 1.5 times the mean.")
@click.option("--window", type=_positive, help="Length of a window; default: a 200th of the trace.")
@click.option("--slot", type=_positive, default=1.0, show_default=True, help="Length of a slot.")
@click.option("--work-max", type=_positive, help="Guardrail on the work of an arrival, or of a slot.")
@click.option("--gap-max", type=_positive, help="A longer silence is a hole in the record, and an error.")
@click.option("--sort", is_flag=True, help="Sort the rows by time first.")
@click.option(
    "--confidence", type=click.FloatRange(min=0.5, max=0.9999999), default=0.95, show_default=True, help="Of the fit."
)
@plot_option
@json_option
def fit_command(trace: Path, *, kind: str, plot: Path | None, as_json: bool, **options: Any) -> None:
    """Fit the least envelope of a kind to the arrivals in TRACE (.csv, .jsonl, gzipped or not).

    It holds with the confidence under the assumption that it states, down to the probability epsilon_floor. Exit status
    3: the trace contradicts the assumption. The `arrival` that is printed goes into a question of `calculus bound`.
    """
    columns = Columns(
        time=options.pop("time_column"),
        work=options.pop("work_column"),
        gap_max=options.pop("gap_max"),
        sort=options.pop("sort"),
    )
    arrivals, chosen = read_trace(trace, columns), FitOptions(**options)
    fitted = KINDS[kind](arrivals, chosen)
    if plot is not None:
        plot_curve(arrivals, chosen, plot)
    if as_json:
        write_json(fit_document(kind, fitted, arrivals, chosen))
        return
    found = arrival_of(fitted.arrival)
    for name, value in found.items():
        if isinstance(value, dict) and "values" in value:
            say(f"{name:12s} {value['kind']}, {len(value['values'])} values up to {max(value['values']):.6g}")
        else:
            say(f"{name:12s} {value}" if isinstance(value, str | dict) else f"{name:12s} {value:.6g}")
    said = "at every probability" if not fitted.epsilon_floor else f"down to P = {fitted.epsilon_floor:.3g}"
    seen = f"{fitted.samples} samples; mean {fitted.mean_rate:.6g}"
    note(f"holds with confidence {fitted.confidence:g} {said}, from {seen}")
    note(f"assuming {fitted.assumption}" + ("" if fitted.p_value is None else f", p = {fitted.p_value:.3g}"))


def _say_fields(*, as_json: bool, missing: bool) -> None:
    if missing:
        raise InvalidInputError("which FILE? --fields lists what it may hold", field="file")
    if as_json:
        write_json(dict(FIELDS))
        return
    for name, meaning in FIELDS.items():
        say(f"{name:40s} {meaning}")
