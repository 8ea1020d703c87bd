"""What the commands of the simulator share: reading files with the lines of their mistakes, progress, whole files."""

import contextlib
import importlib.util
import re
import sys
import tomllib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Final

import msgspec

from aipaging.adapters.terminal.errors import InvalidFileError, Problem
from aipaging.adapters.terminal.output import note
from aipaging.apps.simulate.places import field_lines, line_of
from aipaging.core.foundation.errors import InvalidInputError, UnavailableError
from aipaging.simulation.scenario import Scenario

EXECUTOR_HELP: Final = "auto, serial, threads[:N], processes[:N] (N of the machine's, if absent), dask://HOST:PORT."


def require_numba() -> None:
    """Refuse to go on without the compiler, naming the extra that brings it."""
    if importlib.util.find_spec("numba") is None:
        raise UnavailableError(
            "the package 'numba' is not installed: pip install 'aipaging[simulation]' brings it", code="EXTRA_MISSING"
        )


def read(file: Path, packets: int | None = None, replications: int | None = None) -> Scenario:
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


@contextlib.contextmanager
def located(file: Path) -> Generator[None]:
    """Give mistakes that show only when a scenario is run, such as an overload, the line of their table.

    Raises:
        InvalidFileError: The mistake, with file and line.
    """
    try:
        yield
    except InvalidInputError as error:
        if error.field is None or error.field.partition(".")[0] not in {"domain", "tenant"}:
            raise
        line = line_of(field_lines(file.read_text(encoding="utf-8")), error.field)
        problem = Problem(error.message, field=error.field, file=str(file), line=line, code=error.code)
        raise InvalidFileError([problem]) from error


@contextlib.contextmanager
def progress() -> Generator[Callable[[int, int], None] | None]:
    """Show a bar on a terminal; None elsewhere."""
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


def write(file: Path, result: dict[str, Any]) -> None:
    """Write a document so that the file is whole or not there."""
    partial = file.with_name(f".{file.name}.partial")
    try:
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
        partial.replace(file)
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be written: {error}", field="out") from error
    note(f"written: {file}")


def write_parquet(file: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows of plain values as Parquet, so that the file is whole or not there."""
    if importlib.util.find_spec("pyarrow") is None:
        if file.name == "results.parquet":
            note(f"{file} is left out: pip install pyarrow brings Parquet")
            return
        raise UnavailableError("the package 'pyarrow' is not installed: Parquet needs it", code="EXTRA_MISSING")
    import pyarrow as pa  # noqa: PLC0415 - optional
    from pyarrow import parquet  # noqa: PLC0415

    partial = file.with_name(f".{file.name}.partial")
    try:
        parquet.write_table(pa.Table.from_pylist(rows), partial)
        partial.replace(file)
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be written: {error}", field="out") from error
    note(f"written: {file}")
