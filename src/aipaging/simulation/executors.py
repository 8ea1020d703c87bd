"""Where replications run: in this thread, in threads, in processes, or on a Dask cluster.

Kernels hold no interpreter lock, so threads share one compiled copy and need neither start-up nor copies of traces.
"""

import contextlib
import multiprocessing
import os
import re
from collections.abc import Generator
from concurrent.futures import CancelledError, Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any, Final

from aipaging.core.foundation.errors import InvalidInputError, UnavailableError

DASK_TIMEOUT_S: Final = 10
"""A scheduler that does not answer, or has no worker, by then is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where replications run.

    Attributes:
        kind: `serial`, `threads`, `processes` or `dask`.
        workers: How many, where that is ours to say.
        address: Of the scheduler, for `dask`.
    """

    kind: str
    workers: int = 1
    address: str = ""


THREADED_PACKETS: Final = 100_000
"""Packets per replication from which threads pay for handing it out; below, they get in each other's way."""

SPAWNED_PACKETS: Final = 5_000_000
"""Packets per replication from which processes pay for their start: they share no interpreter lock at all (measured on
two cores: 1.9 times one worker, the machine's own limit, against 1.7 for threads)."""


def place_of(text: str, packets: int = THREADED_PACKETS) -> Place:
    """Return the place that a text such as `processes:4` or `dask://HOST:PORT` names.

    Args:
        text: The text; `auto` is `threads`; `serial` where replications are short, `processes` where they are long.
        packets: Of a replication.

    Raises:
        InvalidInputError: It names none.
    """
    cores = len(os.sched_getaffinity(0))
    if text == "auto":
        long = "processes" if packets >= SPAWNED_PACKETS else "threads"
        text = long if packets >= THREADED_PACKETS else "serial"
    if text == "serial":
        return Place(kind="serial")
    if text.startswith("dask://") and len(text) > len("dask://"):
        return Place(kind="dask", address="tcp://" + text.removeprefix("dask://"))
    if found := re.fullmatch(r"(threads|processes)(?::([1-9]\d{0,3}))?", text):
        return Place(kind=found[1], workers=int(found[2]) if found[2] else cores)
    raise InvalidInputError(
        f"there is no executor {text!r}: allowed are auto, serial, threads[:N], processes[:N], dask://HOST:PORT",
        field="executor",
    )


@contextlib.contextmanager
def opened(place: Place) -> Generator[Executor | None]:
    """Open an executor; None stands for this thread.

    Raises:
        UnavailableError: The cluster does not answer, its client is not installed, or a worker process was killed.
    """
    if place.kind == "serial":
        yield None
        return
    if place.kind == "dask":
        with _dask(place.address) as executor:
            yield executor
        return
    pool: Executor
    if place.kind == "threads":
        pool = ThreadPoolExecutor(place.workers)
    else:
        # Spawned, not forked: a fork copies locks that a thread of ours may hold.
        pool = ProcessPoolExecutor(place.workers, mp_context=multiprocessing.get_context("spawn"))
    with pool:
        try:
            yield pool
        except BrokenProcessPool as error:
            raise UnavailableError("a worker process was killed, probably for want of memory: use fewer") from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextlib.contextmanager
def _dask(address: str) -> Generator[Executor]:
    try:
        distributed: Any = import_module("distributed")
    except ImportError as error:
        raise UnavailableError(
            "the package 'distributed' is not installed: pip install 'aipaging[cluster]' brings it",
            code="EXTRA_MISSING",
        ) from error
    try:
        client = distributed.Client(address, timeout=DASK_TIMEOUT_S, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise UnavailableError(f"no Dask scheduler answers at {address}: {error}") from error
    with client:
        _require_workers(client, address)
        executor: Executor = client.get_executor(pure=False)
        try:
            yield executor
        except CancelledError as error:
            raise UnavailableError(f"the Dask scheduler at {address} went away in the middle of the run") from error


def _require_workers(client: Any, address: str) -> None:
    """Refuse a cluster that would wait for ever: one without workers, or whose workers cannot read what they are sent.

    Raises:
        UnavailableError: It has none, or one of them has no `aipaging` or another version.
    """
    try:
        client.wait_for_workers(1, timeout=DASK_TIMEOUT_S)
    except TimeoutError as error:
        raise UnavailableError(
            f"the Dask scheduler at {address} has no workers: start one with `dask worker {address}`"
        ) from error
    ours = metadata.version("aipaging")
    # A function of the standard library: workers without `aipaging` can read nothing else of ours.
    for worker, theirs in client.run(metadata.version, "aipaging", on_error="return").items():
        if theirs != ours:
            said = "none" if isinstance(theirs, Exception) else str(theirs)
            raise UnavailableError(f"the Dask worker at {worker} needs aipaging {ours} and has {said}")
