"""The decorator of every kernel: machine code, compiled once per user and version of the kernels.

Numba's own cache looks at the file of the function alone and would keep a caller whose callee has changed; so the
folder of the cache is named after a digest of all kernels.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numba
from numba.core import config as numba_config

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def _cache_folder() -> str:
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    base = os.environ.get("XDG_CACHE_HOME") or str(Path("~").expanduser() / ".cache")
    return str(Path(base) / "aipaging" / f"simulation-{digest.hexdigest()[:16]}")


CACHE_FOLDER: Final = os.environ.get("NUMBA_CACHE_DIR") or _cache_folder()
"""Where compiled kernels are kept; Numba's own variable wins."""


def compiled(function: Kernel) -> Kernel:
    """Return `function` compiled on its first call and kept in the user's cache.

    Division by zero gives an infinity as in NumPy: a check in every iteration would cost more than the arithmetic.
    """
    config: Any = numba_config
    before = config.CACHE_DIR
    # Numba picks the folder while it decorates; other users of Numba in this process keep theirs.
    config.CACHE_DIR = CACHE_FOLDER
    try:
        return cast("Kernel", numba.njit(cache=True, error_model="numpy", nogil=True)(function))
    finally:
        config.CACHE_DIR = before
