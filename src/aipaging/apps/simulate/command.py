"""`aipaging simulate`: run a scenario, or list the kinds that one may use."""

import math
from pathlib import Path
from typing import Any, Final

import click

from aipaging.adapters.terminal.guard import examples, json_option
from aipaging.adapters.terminal.output import note, say, table, write_json
from aipaging.apps.simulate.files import EXECUTOR_HELP, located, progress, read, require_numba, write, write_parquet
from aipaging.simulation import kinds as tables

SYSTEM: Final = "system"
"""Imported when it is asked for: it brings the whole controller along, which packets do without."""


class _ScenarioFirst(click.Group):
    """A group whose word need not be a command: then it is the scenario to run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted([*super().list_commands(ctx), SYSTEM])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, imported where that takes long."""
        if cmd_name != SYSTEM:
            return super().get_command(ctx, cmd_name)
        from aipaging.apps.simulate.system import system  # noqa: PLC0415

        return system

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the command first, `run` where none is named."""
        named = next((each for each in args if each in self.list_commands(ctx)), None)
        if named is not None:
            place = args.index(named)
            args = [named, *args[:place], *args[place + 1 :]]
        elif args and not {"-h", "--help"} & set(args):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=_ScenarioFirst,
    epilog=examples(
        "aipaging simulate scenario.toml",
        "aipaging simulate run scenario.toml --packets 100000000 --executor processes --json",
        "aipaging simulate run scenario.toml --precision 0.05 --precise-at p99.9",
        "aipaging simulate rare scenario.toml --tenant a --target-ms 100",
        "aipaging simulate sweep sweep.toml --out results",
        "aipaging simulate kinds                        what a scenario may hold",
    ),
)
def simulate() -> None:
    """Simulate packets through domains: `aipaging simulate SCENARIO.toml` is `aipaging simulate run SCENARIO.toml`.

    A file that is called like a command is given as `./kinds`.
    """


@simulate.command(
    epilog=examples(
        "aipaging simulate run scenario.toml --seed 7 --packets 2000000 --json",
        "aipaging simulate run scenario.toml --precision 0.05 --precise-at p99.9",
    )
)
@click.argument("scenario", type=click.Path(path_type=Path))
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The result depends on it alone."
)
@click.option("--packets", type=click.IntRange(1, tables.PACKETS_MAX), help="Packets to count, in place of the file's.")
@click.option("--replications", type=click.IntRange(2, tables.REPLICATIONS_MAX), help="In place of the file's.")
@click.option("--allow-overload", is_flag=True, help="Run an unstable scenario too; its delays have no law.")
@click.option(
    "--precision",
    type=click.FloatRange(0.0, 1.0, min_open=True, max_open=True),
    help="Go on until the 95 % interval is this narrow: half-width over estimate, for every tenant.",
)
@click.option(
    "--precise-at",
    default="p99",
    show_default=True,
    help="Where: mean, p50, p90, p99, p99.9, or targets (all of them).",
)
@click.option("--executor", default="auto", show_default=True, help=EXECUTOR_HELP)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON document here too (or .parquet)."
)
@json_option
def run(*, scenario: Path, seed: int, allow_overload: bool, executor: str, as_json: bool, **options: Any) -> None:
    """Run SCENARIO, a TOML file: delays over the whole route of every tenant, with 95 % intervals.

    The same scenario and seed give the same result, however many workers there are.
    """
    require_numba()
    from aipaging.apps.simulate.shown import document, rows, show  # noqa: PLC0415 - needs the extra
    from aipaging.simulation.executors import opened, place_of  # noqa: PLC0415
    from aipaging.simulation.run import Precision  # noqa: PLC0415
    from aipaging.simulation.run import simulate as simulated  # noqa: PLC0415

    given = options["precision"]
    precision = None if given is None else Precision(relative=given, at=options["precise_at"])
    place_of(executor)  # a mistake in it is found before the traces are read
    checked = read(scenario, options["packets"], options["replications"])
    place = place_of(executor, checked.packets // checked.replications)
    with located(scenario), opened(place) as pool, progress() as on_progress:
        outcome = simulated(
            checked, seed=seed, allow_overload=allow_overload, executor=pool, precision=precision,
            on_progress=on_progress,
        )  # fmt: skip
    result = document(outcome)
    if options["out"] is not None:
        if options["out"].suffix == ".parquet":
            write_parquet(options["out"], rows(outcome))
        else:
            write(options["out"], result)
    if as_json:
        write_json(result)
    else:
        show(outcome)


@simulate.command(
    epilog=examples(
        "aipaging simulate rare scenario.toml --tenant a --target-ms 100",
        "aipaging simulate rare scenario.toml --tenant a --target-ms 100 --precision 0.05 --json",
    )
)
@click.argument("scenario", type=click.Path(path_type=Path))
@click.option("--tenant", required=True, help="Whose delay.")
@click.option("--target-ms", type=float, required=True, help="The delay whose exceedance is rare.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The result depends on it alone."
)
@click.option(
    "--method",
    type=click.Choice(["auto", "twisting", "splitting"]),
    default="auto",
    show_default=True,
    help="How rare delays are made frequent: importance sampling, or multilevel splitting.",
)
@click.option(
    "--precision",
    type=click.FloatRange(0.0, 1.0, min_open=True, max_open=True),
    help="Go on until the half-width of the 95 % interval is this share of the estimate; without it 0.3 is tried for.",
)
@click.option("--executor", default="auto", show_default=True, help=EXECUTOR_HELP)
@json_option
def rare(*, scenario: Path, tenant: str, target_ms: float, as_json: bool, **options: Any) -> None:
    """Estimate how rarely a tenant's delay in SCENARIO is above a target: 1e-9 and below within seconds.

    Importance sampling, twisted by theta* of the network calculus, for a single domain; multilevel splitting for a
    line of several. The domains must serve in the order of arrival.
    """
    require_numba()
    from aipaging.simulation.executors import opened, place_of  # noqa: PLC0415 - needs the extra
    from aipaging.simulation.rare.estimate import Effort, rare_exceedance  # noqa: PLC0415

    place = place_of(options.pop("executor"))
    checked = read(scenario)
    with located(scenario), opened(place) as pool, progress() as on_progress:
        found = rare_exceedance(
            checked, tenant, target_ms, seed=options["seed"], executor=pool,
            effort=Effort(method=options["method"], precision=options["precision"], on_progress=on_progress),
        )  # fmt: skip
    result = {
        "tenant": found.tenant,
        "target_ms": found.target_ms,
        "probability": found.probability.value,
        "low": found.probability.low,
        "high": found.probability.high,
        "method": found.method,
        "decay_per_ms": found.decay_per_ms,
        "levels_ms": list(found.levels_ms),
        "precision": found.precision if math.isfinite(found.precision) else None,
        "precise": found.precise,
        "replications": found.replications,
        "events": found.events,
        "seconds": found.seconds,
        "seed": options["seed"],
    }
    if as_json:
        write_json(result)
        return
    say(
        f"P(delay of {tenant} > {target_ms:g} ms) = {found.probability.value:.4g}, 95 % interval "
        f"{found.probability.low:.4g} .. {found.probability.high:.4g}; {found.method}, {found.replications} "
        f"replications, {found.events:,} events, {found.seconds:.1f} s"
    )
    if not found.precise:
        note(f"warning: not precise enough: {_wide(found.precision)}; ask for more with --precision", style="yellow")


def _wide(precision: float) -> str:
    if math.isinf(precision):
        return "the target was never exceeded, so the interval says nothing"
    return f"the interval reaches {precision:.0%} to a side"


@simulate.command(
    epilog=examples(
        "aipaging simulate sweep sweep.toml --out results",
        "aipaging simulate sweep sweep.toml --out results --executor dask://10.0.0.1:8786",
    )
)
@click.argument("sweep", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the results.")
@click.option("--executor", default="auto", show_default=True, help=EXECUTOR_HELP)
@json_option
def sweep(*, sweep: Path, out: Path, executor: str, as_json: bool) -> None:
    """Run a scenario over a grid of values: results.json and results.parquet in a folder.

    A run that was killed goes on where it was when the same command is given again; no replication is lost or counted
    twice.
    """
    require_numba()
    from aipaging.apps.simulate.shown import document, rows  # noqa: PLC0415 - needs the extra
    from aipaging.simulation.executors import opened, place_of  # noqa: PLC0415
    from aipaging.simulation.sweep import read_sweep, run_sweep  # noqa: PLC0415

    place_of(executor)
    planned = read_sweep(sweep)
    place = place_of(executor, planned.points[0].orders[0].packets)
    with opened(place) as pool, progress() as on_progress:
        outcomes = run_sweep(planned, out, executor=pool, on_progress=on_progress)
    points = [
        {"point": point.number, "values": point.values, **document(outcome, timed=False)}
        for point, outcome in zip(planned.points, outcomes, strict=True)
    ]
    result = {"digest": planned.digest, "points": points}
    write(out / "results.json", result)
    flat = [
        {"point": point.number, **point.values, **row}
        for point, outcome in zip(planned.points, outcomes, strict=True)
        for row in rows(outcome)
    ]
    write_parquet(out / "results.parquet", flat)
    if as_json:
        write_json(result)
        return
    shown = [
        (str(row["point"]), str(row["tenant"]), str(row["metric"]), f"{row['value']:.5g}",
         f"{row['low']:.5g} .. {row['high']:.5g}")
        for row in flat
    ]  # fmt: skip
    table(("point", "tenant", "", "estimate", "95 % interval"), shown, right=(3,))


@simulate.command(epilog=examples("aipaging simulate kinds --json"))
@json_option
def kinds(*, as_json: bool) -> None:
    """List every table of a scenario, its keys and what they may be."""
    if as_json:
        write_json(tables.document())
        return
    for part, each in tables.ALL.items():
        say(part, style="bold")
        for name, kind in each.items():
            indent = "  " if name else ""
            if name:
                say(f"  {name}: {kind.meaning}")
            for key, field in kind.fields.items():
                default = "required" if field.required else f"default {field.default}" if field.default else "optional"
                say(f"{indent}  {key:22s} {field.meaning} ({field.allowed.text}; {default})")
