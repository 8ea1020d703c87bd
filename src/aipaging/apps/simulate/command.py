"""`aipaging simulate`: run a scenario, or list the kinds that one may use."""

import contextlib
import importlib.util
import multiprocessing
import os
import re
import sys
import tomllib
from collections.abc import Callable, Generator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import click
import msgspec

from aipaging.adapters.terminal.errors import InvalidFileError, Problem
from aipaging.adapters.terminal.guard import examples, json_option
from aipaging.adapters.terminal.output import note, say, write_json
from aipaging.apps.simulate.places import field_lines, line_of
from aipaging.core.foundation.errors import InvalidInputError, UnavailableError
from aipaging.simulation import kinds as tables
from aipaging.simulation.scenario import Scenario


class _ScenarioFirst(click.Group):
    """A group whose word need not be a command: then it is the scenario to run."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the command first, `run` where none is named."""
        named = next((each for each in args if each in self.commands), None)
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
        "aipaging simulate kinds                        what a scenario may hold",
    ),
)
def simulate() -> None:
    """Simulate packets through domains: `aipaging simulate SCENARIO.toml` is `aipaging simulate run SCENARIO.toml`.

    A file that is called like a command is given as `./kinds`.
    """


@simulate.command()
@click.argument("scenario", type=click.Path(path_type=Path))
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The result depends on it alone."
)
@click.option("--packets", type=click.IntRange(1, tables.PACKETS_MAX), help="Packets to count, in place of the file's.")
@click.option("--replications", type=click.IntRange(2, tables.REPLICATIONS_MAX), help="In place of the file's.")
@click.option("--allow-overload", is_flag=True, help="Run an unstable scenario too; its delays have no law.")
@click.option(
    "--executor", default="serial", show_default=True, help="serial, or processes[:N] (N of the machine's, if absent)."
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON document here too.")
@json_option
def run(*, scenario: Path, seed: int, allow_overload: bool, executor: str, as_json: bool, **options: Any) -> None:
    """Run SCENARIO, a TOML file: delays over the whole route of every tenant, with 95 % intervals.

    The same scenario and seed give the same result, however many processes work on it.
    """
    _require_numba()
    workers = _workers(executor)
    read = _read(scenario, options["packets"], options["replications"])
    from aipaging.apps.simulate.shown import document, show  # noqa: PLC0415 - needs the extra
    from aipaging.simulation.run import simulate as simulated  # noqa: PLC0415

    with _executor(workers) as pool, _progress() as on_progress:
        try:
            outcome = simulated(read, seed=seed, allow_overload=allow_overload, executor=pool, on_progress=on_progress)
        except BrokenProcessPool as error:
            raise UnavailableError("a worker process was killed, probably for want of memory: use fewer") from error
    result = document(outcome)
    if options["out"] is not None:
        _write(options["out"], result)
    if as_json:
        write_json(result)
    else:
        show(outcome)


@simulate.command()
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


def _require_numba() -> None:
    if importlib.util.find_spec("numba") is None:
        raise UnavailableError(
            "the package 'numba' is not installed: pip install 'aipaging[simulation]' brings it", code="EXTRA_MISSING"
        )


def _read(file: Path, packets: int | None, replications: int | None) -> Scenario:
    """Return the scenario in a file.

    Raises:
        InvalidInputError: It cannot be read.
        InvalidFileError: It has mistakes; all of them are named, with their lines.
    """
    from aipaging.simulation.reading import ScenarioError, read_scenario  # noqa: PLC0415 - needs the extra

    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{file} cannot be read: {error}", code="FILE_UNREADABLE", field="scenario") from error
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        line = int(found[1]) if found else None
        problem = Problem(f"not TOML: {error}", field=None, file=str(file), line=line, code="INVALID_SCENARIO")
        raise InvalidFileError([problem]) from error
    try:
        return read_scenario(parsed, folder=file.parent, packets=packets, replications=replications)
    except ScenarioError as error:
        lines = field_lines(text)
        raise InvalidFileError(
            [
                Problem(
                    f"{mistake.field}: {mistake.message}",
                    field=mistake.field,
                    file=mistake.file or str(file),
                    line=mistake.line if mistake.file else line_of(lines, mistake.field),
                    code=error.code,
                )
                for mistake in error.mistakes
            ]
        ) from error


def _workers(executor: str) -> int:
    """Return how many processes are asked for; 0 is this one.

    Raises:
        InvalidInputError: That is no executor.
    """
    if executor == "serial":
        return 0
    found = re.fullmatch(r"processes(?::([1-9]\d{0,3}))?", executor)
    if found is None:
        raise InvalidInputError(
            f"there is no executor {executor!r}: allowed are serial, processes, processes:N", field="executor"
        )
    return int(found[1]) if found[1] else len(os.sched_getaffinity(0))


@contextlib.contextmanager
def _executor(workers: int) -> Generator[Executor | None]:
    if not workers:
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
def _progress() -> Generator[Callable[[int, int], None] | None]:
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("replications", total=None)

        def update(done: int, of: int) -> None:
            bar.update(task, completed=done, total=of)

        yield update


def _write(file: Path, result: dict[str, Any]) -> None:
    """Write a document so that the file is whole or not there."""
    partial = file.with_name(f".{file.name}.partial")
    try:
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
        partial.replace(file)
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be written: {error}", field="out") from error
    note(f"written: {file}")
