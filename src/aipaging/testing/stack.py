"""Processes of a whole system on one machine: what the demo, benchmarks and tests start, kill and clean up alike.

Every process is the installed command (or a module of it), started as a user would, and announces itself with one
line of JSON on stdout; nothing here reaches into them. What they write to stderr goes to files in the folder. Which
processes there are, and with which configuration, is the caller's.
"""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aipaging.core.foundation.errors import UnavailableError, Who

COMMAND: Final = "aipaging.apps.cli"
"""The module that is the command `aipaging`."""

CONTROLLER: Final = "controller"
"""The name of the controller's process: it is ended first, since it drains the gateway."""

READY_S_MAX: Final = 60.0
"""Building a model's graph takes two seconds on an idle core, and a busy machine is not idle."""

STOP_S_MAX: Final = 15.0
"""A drain of the gateway takes a few seconds."""

_GIVEN_PORTS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST_GIVEN_PORT: Final = 32_768
"""Linux's own default, where it does not say."""

_PORT_MIN: Final = 16_384
"""Well-known servers listen below it."""
_PORTS_MIN: Final = 4_096
"""Two that look at once among so many hardly ever find the same."""


@dataclass(slots=True)
class Child:
    """One process.

    Attributes:
        name: What it is called here; its log is `<name>.log`.
        process: The process.
        ready: What it announced.
    """

    name: str
    process: subprocess.Popen[str]
    ready: dict[str, Any]

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Ask it to end, and insist."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                self.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()


@dataclass(slots=True)
class Processes:
    """The processes of one system.

    Attributes:
        folder: Where their logs go.
        data_dir: The controller's data directory, where an Envoy that outlives it is found.
        children: What runs, by name.
    """

    folder: Path
    data_dir: Path
    children: dict[str, Child] = field(default_factory=dict)

    async def start(self, name: str, *arguments: str, module: str = COMMAND) -> dict[str, Any]:
        """Start a process and return what it announces when it is ready.

        Args:
            name: What to call it.
            arguments: Of the command.
            module: What to run instead of the command `aipaging`.

        Raises:
            UnavailableError: It did not come up; its log is named.
        """
        with (self.folder / f"{name}.log").open("a") as log:
            process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        if process.stdout is None:
            raise UnavailableError(f"{name} has no output", who=Who.BUG)
        try:
            async with asyncio.timeout(READY_S_MAX):
                line = await asyncio.to_thread(process.stdout.readline)
            ready: dict[str, Any] = json.loads(line)
        except (TimeoutError, ValueError) as error:
            process.kill()
            process.wait()
            raise UnavailableError(
                f"{name} did not come up; its log: {self.folder / (name + '.log')}", code="PART_FAILED"
            ) from error
        self.children[name] = Child(name=name, process=process, ready=ready)
        if "error" in ready:
            raise UnavailableError(f"{name}: {ready['error']['message']}", code="PART_FAILED")
        return ready

    def stop(self) -> None:
        """End everything: the controller drains the gateway, then the others end."""
        for child in sorted(self.children.values(), key=lambda child: child.name != CONTROLLER):
            child.stop()
        self.children.clear()
        self.end_gateway()

    def gateway_pid(self) -> int | None:
        """Return the process id of the Envoy that the controller supervises, if it runs."""
        directory = self.data_dir / "gateway"
        with contextlib.suppress(OSError, ValueError, KeyError):
            pid = int(json.loads((directory / "envoy.pid").read_text())["pid"])
            # The id may have gone to another process since: ours works in its own directory.
            return pid if Path(f"/proc/{pid}/cwd").resolve() == directory.resolve() else None
        return None

    def end_gateway(self) -> None:
        """End an Envoy that a killed controller left behind."""
        pid = self.gateway_pid()
        if pid is not None:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def free_ports(count: int) -> list[int]:
    """Return free ports of loopback, all different.

    They lie below those that the system gives to whoever asks for any port, connections included: what was free when
    it was looked at is still free when the process that is told of it starts.

    Raises:
        UnavailableError: There are not so many.
    """
    end = _lowest_given_port()
    candidates = range(_PORT_MIN, end if end >= _PORT_MIN + _PORTS_MIN else 65_536)
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        for port in secrets.SystemRandom().sample(candidates, len(candidates)):
            if len(ports) == count:
                return ports
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                ports.append(port)
    raise UnavailableError(f"there are no {count} free ports of loopback", code="PART_FAILED")


def _lowest_given_port() -> int:
    """Return the first port that the system gives away unasked."""
    try:
        return int(_GIVEN_PORTS.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        return _LOWEST_GIVEN_PORT
