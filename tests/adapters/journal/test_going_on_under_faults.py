"""The process is killed, and a call fails, at every call that going on in another file makes: nothing is lost by it.

A small library, compiled here, stands between a program and its files; see `stopping.c` and
`going_on_under_faults.py`.
"""

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.real

HERE = Path(__file__).parent
CALLS_MIN = 40
"""Fewer would not be all of them: the file alone has fifteen pages."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler to build what stands between a process and its files")
    built = tmp_path_factory.mktemp("stopping") / "stopping.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(built), str(HERE / "stopping.c"), "-ldl"], check=True
    )
    return built


FAULTS = {"killed": (0, 0), "one call fails": (errno.EIO, 0), "the disk is full from then on": (errno.ENOSPC, 1)}
"""The errno that a call fails with, 0 for a kill instead of it; and whether all later ones fail, too."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory, where there is one: its calls are the same, and a sync takes no time."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as made:
        yield Path(made)


def test_nothing_is_lost_at_any_call(library: Path, folder: Path) -> None:
    with contextlib.ExitStack() as ends:
        begun: dict[str, subprocess.Popen[str]] = {}
        for place, (name, fault) in enumerate(FAULTS.items()):
            begun[name] = ends.enter_context(program(library, folder / str(place), *fault))
            ends.callback(begun[name].kill)
        told = {name: process.communicate(timeout=200) for name, process in begun.items()}
    for name, (out, errors) in told.items():
        assert begun[name].returncode == 0, (name, errors)
        *stopped, whole = out.splitlines()
        assert whole.endswith("whole 3 files"), name
        assert len(stopped) >= CALLS_MIN, name
        assert all("stopped" in line for line in stopped), name


def program(library: Path, folder: Path, number: int, ever: int) -> "subprocess.Popen[str]":
    folder.mkdir()
    told = folder / "told"
    told.write_bytes(bytes(12))
    return subprocess.Popen(
        [sys.executable, str(HERE / "going_on_under_faults.py"), str(folder), str(number), str(ever)],
        env=os.environ | {"LD_PRELOAD": str(library), "STOPPING": str(told)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
