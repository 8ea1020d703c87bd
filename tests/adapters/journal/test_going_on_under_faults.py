"""The process is killed, and a call fails, at every call that going on in another file makes: nothing is lost by it.

A small library, compiled here, stands between a program and its files; see `stopping.c` and
`going_on_under_faults.py`.
"""

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


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory, where there is one: its calls are the same, and a sync takes no time."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as made:
        yield Path(made)


@pytest.mark.parametrize(
    ("number", "ever"),
    [(0, False), (errno.EIO, False), (errno.ENOSPC, True)],
    ids=["killed", "one-call-fails", "the-disk-is-full-from-then-on"],
)
def test_nothing_is_lost_at_any_call(library: Path, folder: Path, number: int, *, ever: bool) -> None:
    told = folder / "told"
    told.write_bytes(bytes(12))
    done = subprocess.run(
        [sys.executable, str(HERE / "going_on_under_faults.py"), str(folder), str(number), str(int(ever))],
        env=os.environ | {"LD_PRELOAD": str(library), "STOPPING": str(told)},
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *stopped, whole = done.stdout.splitlines()
    assert whole.endswith("whole 3 files")
    assert len(stopped) >= CALLS_MIN
    assert all("stopped" in line for line in stopped)
