"""A sweep: one scenario over a grid of values, resumable after a kill without losing or counting twice a replication.

Every finished replication is one line of `replications.jsonl`, flushed to disk before it counts. A run that finds
lines of an earlier one reads them, forgets a last line that was torn, and runs only what is missing; since a
replication is a function of point, seed and number alone, the result is the same as without the interruption.
"""

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import re
import tomllib
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from aipaging.core.foundation.errors import InvalidInputError
from aipaging.simulation.counts import Counted
from aipaging.simulation.reading import Records, read_scenario
from aipaging.simulation.replication import Order, replicate
from aipaging.simulation.run import Outcome, compile_kernels, conclude, plan

POINTS_MAX: Final = 10_000
"""Some kilobytes each in memory, and a hundred thousand replications and more; their counts stay in the journal."""

WAITING_MAX: Final = 64
"""Replications handed to the executor at once: enough for its workers, few enough to hold."""

KEYS: Final = ("scenario", "seed", "allow_overload", "vary")
JOURNAL: Final = "replications.jsonl"
IDENTITY: Final = "sweep.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One point of the grid.

    Attributes:
        number: Its place.
        values: What was put into the scenario, by field.
        orders: Its replications.
    """

    number: int
    values: dict[str, Any]
    orders: tuple[Order, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A grid of scenarios.

    Attributes:
        points: The points.
        digest: Of everything that decides the results.
    """

    points: tuple[Point, ...]
    digest: str


def read_sweep(file: Path) -> Sweep:
    """Return the sweep that a TOML file describes.

    Raises:
        InvalidInputError: It cannot be read, contradicts itself, or a point of it is wrong or unstable.
    """
    document = _toml(file)
    for key in document:
        if key not in KEYS:
            raise InvalidInputError(f"unknown key; allowed are {', '.join(KEYS)}", field=key)
    name, seed = document.get("scenario"), document.get("seed", 0)
    if not isinstance(name, str):
        raise InvalidInputError("must be the name of a scenario file, beside the sweep", field="scenario")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise InvalidInputError(f"must be a whole number, at least 0, not {seed!r}", field="seed")
    base_file = file.parent / name
    base = _toml(base_file)
    points: list[Point] = []
    files: set[Path] = set()
    # A trace is read once, however many points replay it.
    recorded: Records = {}
    for number, values in enumerate(_grid(document.get("vary", []))):
        changed = json.loads(json.dumps(base))
        for field, value in values.items():
            _put(changed, field, value)
        try:
            scenario = read_scenario(changed, folder=base_file.parent, recorded=recorded)
            orders = plan(scenario, seed=seed, allow_overload=bool(document.get("allow_overload", False)))
        except InvalidInputError as error:
            at = ", ".join(f"{field} = {value!r}" for field, value in values.items())
            raise InvalidInputError(
                f"point {number} ({at}): {error.message}", code=error.code, field=error.field
            ) from error
        points.append(Point(number=number, values=values, orders=tuple(orders)))
        files |= _traces(changed, base_file.parent)
    # A trace that changed, or another version of the simulator, is another sweep.
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files)]
    said = json.dumps([base, document, digests, version("aipaging")], sort_keys=True, default=str)
    return Sweep(points=tuple(points), digest=hashlib.sha256(said.encode()).hexdigest())


def run_sweep(
    sweep: Sweep,
    folder: Path,
    *,
    executor: Executor | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Outcome]:
    """Run what is missing of a sweep; returns the outcomes of all points.

    Args:
        sweep: The sweep.
        folder: Where its journal is kept; made if it is not there.
        executor: Where replications run; in this thread if it is None.
        on_progress: Called with the replications that are done, and their number.

    Raises:
        InvalidInputError: The folder belongs to another sweep, or another run works in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        _claim(folder, sweep.digest)
        found = _journal(folder / JOURNAL)
        missing = [
            (point.number, order)
            for point in sweep.points
            for order in point.orders
            if (point.number, order.number) not in found
        ]
        total = len(found) + len(missing)
        if missing:
            compile_kernels(missing[0][1].scenario, missing[0][1].load)
        with (folder / JOURNAL).open("ab") as journal:
            for key, counted in _finished(missing, executor):
                line = {"point": key[0], "replication": key[1], "tenants": [_plain(each) for each in counted]}
                place = journal.seek(0, os.SEEK_END)
                journal.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
                journal.flush()
                os.fsync(journal.fileno())
                found[key] = place
                if on_progress is not None:
                    on_progress(len(found), total)
        # Point by point, so that the counts of one point are in memory and not those of all.
        with (folder / JOURNAL).open("rb") as journal:
            return [
                conclude(point.orders, [_read(journal, found[point.number, order.number]) for order in point.orders])
                for point in sweep.points
            ]


def _finished(
    missing: Sequence[tuple[int, Order]], executor: Executor | None
) -> Generator[tuple[tuple[int, int], list[Counted]]]:
    if executor is None:
        for point, order in missing:
            yield (point, order.number), replicate(order)
        return
    left = iter(missing)
    waiting: dict[Future[list[Counted]], tuple[int, int]] = {}
    while True:
        for point, order in itertools.islice(left, WAITING_MAX - len(waiting)):
            waiting[executor.submit(replicate, order)] = point, order.number
        if not waiting:
            return
        done, _ = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            yield waiting.pop(future), future.result()


def _plain(counted: Counted) -> dict[str, Any]:
    return {**asdict(counted), "cells": counted.cells.tolist(), "counts": counted.counts.tolist()}


def _counted(plain: Mapping[str, Any]) -> Counted:
    numbers: dict[str, Any] = {**plain, "above": tuple(plain["above"])}
    for key in ("cells", "counts"):
        numbers[key] = np.array(plain[key], np.int64)
    return Counted(**numbers)


def _read(journal: IO[bytes], place: int) -> list[Counted]:
    journal.seek(place)
    return [_counted(each) for each in json.loads(journal.readline())["tenants"]]


def _journal(file: Path) -> dict[tuple[int, int], int]:
    """Return where the replications of a journal are, each once; a torn last line is cut off."""
    found: dict[tuple[int, int], int] = {}
    if not file.exists():
        return found
    whole = 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                entry = json.loads(line)
                _ = [_counted(each) for each in entry["tenants"]]
                found.setdefault((entry["point"], entry["replication"]), whole)
            except (ValueError, KeyError, TypeError) as error:
                raise InvalidInputError(
                    f"{file}, line {number} is damaged: {error}; remove the folder and run the sweep anew", field="out"
                ) from error
            whole += len(line)
    os.truncate(file, whole)
    return found


@contextlib.contextmanager
def _locked(folder: Path) -> Generator[None]:
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InvalidInputError(f"another run works in {folder}", field="out") from error
        yield


def _claim(folder: Path, digest: str) -> None:
    """Mark a folder as this sweep's, or check that it is."""
    file = folder / IDENTITY
    if file.exists():
        if json.loads(file.read_text(encoding="utf-8")).get("digest") != digest:
            raise InvalidInputError(
                f"{folder} holds another sweep, or this one before its scenario, values or seed changed: give another "
                "folder",
                field="out",
            )
        return
    partial = folder / f".{IDENTITY}"
    partial.write_text(json.dumps({"digest": digest}), encoding="utf-8")
    partial.replace(file)


def _grid(vary: Any) -> list[dict[str, Any]]:
    if not isinstance(vary, list) or not all(isinstance(each, dict) for each in vary):
        raise InvalidInputError("write it as [[vary]], once for each field", field="vary")
    for place, each in enumerate(vary):
        if set(each) != {"field", "values"} or not isinstance(each["field"], str):
            raise InvalidInputError("a [[vary]] has `field` and `values`", field=f"vary[{place}]")
        if not isinstance(each["values"], list) or not each["values"]:
            raise InvalidInputError("must be a list of values, one at least", field=f"vary[{place}].values")
    count = int(np.prod([len(each["values"]) for each in vary], dtype=float))
    if count > POINTS_MAX:
        raise InvalidInputError(f"{count} points; at most {POINTS_MAX} are allowed", field="vary")
    fields = [each["field"] for each in vary]
    return [dict(zip(fields, values, strict=True)) for values in itertools.product(*(each["values"] for each in vary))]


def _put(document: dict[str, Any], field: str, value: Any) -> None:
    """Put a value at a path such as `tenant[0].arrivals.rate_per_ms`, or `tenant[a].work.mean` by name."""
    place: Any = document
    *way, last = re.findall(r"[^.\[\]]+|\[[^\]]*\]", field)
    for step in way:
        try:
            place = place[step] if not step.startswith("[") else _element(place, step[1:-1])
        except (KeyError, IndexError, TypeError) as error:
            raise InvalidInputError(f"the scenario has no {field!r}: nothing at {step!r}", field="vary") from error
    if not isinstance(place, dict) or last.startswith("["):
        raise InvalidInputError(f"{field!r} does not name a key of the scenario", field="vary")
    place[last] = value


def _element(tables: Any, which: str) -> Any:
    if which.isdigit():
        return tables[int(which)]
    for table in tables:
        if table.get("name") == which:
            return table
    raise KeyError(which)


def _traces(document: Mapping[str, Any], folder: Path) -> set[Path]:
    """Return the files that a scenario names."""
    names = [tenant["arrivals"].get("file") for tenant in document["tenant"]]
    names += [domain.get("file") for domain in document["domain"]]
    return {folder / name for name in names if name is not None}


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{file} cannot be read: {error}", code="FILE_UNREADABLE", field="sweep") from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError(f"{file} is not TOML: {error}", field="sweep") from error
