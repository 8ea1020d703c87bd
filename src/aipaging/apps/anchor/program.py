"""Puts a sidecar together from checked options, and runs it until a signal ends it."""

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from aipaging.adapters.sidecar.clocks import HostClocks
from aipaging.adapters.sidecar.controller import ControllerClient
from aipaging.adapters.sidecar.instruments import Instruments
from aipaging.adapters.sidecar.log import Log
from aipaging.adapters.sidecar.settings import SidecarSettings, Timeouts, parse_listen, parse_upstream, queue_limits
from aipaging.adapters.sidecar.sidecar import Sidecar
from aipaging.adapters.sidecar.watchdog import ServiceManager
from aipaging.adapters.signing.files import read_private
from aipaging.adapters.signing.tokens import JwtVerifier
from aipaging.adapters.tracing.otlp import OtlpTracer
from aipaging.apps.anchor.identity import FolderIdentity
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import AnchorId, checked_name
from aipaging.ports.signing import TokenVerifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line, not yet checked."""

    anchor_id: str
    upstream: str
    controller: str
    identity: Path
    listen: str
    plaintext: bool
    concurrency: int
    waiting_max: int
    slots: tuple[str, ...]
    without_reservations: bool
    authorization_file: Path | None
    health_path: str
    first_byte_s: float
    gap_s: float
    usage_s: float
    otlp_endpoint: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A sidecar that may start."""

    settings: SidecarSettings
    controller: str
    identity: FolderIdentity
    tracer: OtlpTracer | None = None

    @property
    def host(self) -> str:
        """Where it listens."""
        return self.settings.listen_host

    @property
    def scheme(self) -> str:
        """How it is spoken to."""
        return "http" if self.settings.plaintext else "https"


def checked(options: Options) -> Program:
    """Return the program, everything checked before anything starts.

    Raises:
        InvalidInputError: An option is not possible; the error names it.
        AipagingError: A key file is readable by others, or the extra `tracing` is missing where it is asked for.
    """
    anchor = AnchorId(checked_name(options.anchor_id, field="id"))
    if not options.controller.startswith("https://"):
        raise InvalidInputError(
            f"controller is {options.controller[:80]!r}: expected https://host:port", field="controller"
        )
    authorization = None
    if options.authorization_file is not None:
        authorization = read_private(options.authorization_file).decode("utf-8", "replace").strip()
    host, port = parse_listen(options.listen)
    settings = SidecarSettings(
        anchor=anchor,
        upstream=parse_upstream(options.upstream, authorization=authorization, health_path=options.health_path),
        listen_host=host,
        listen_port=port,
        plaintext=options.plaintext,
        queue=queue_limits(concurrency=options.concurrency, waiting_max=options.waiting_max, slots=options.slots),
        timeouts=Timeouts(first_byte_s=options.first_byte_s, gap_s=options.gap_s),
        usage_s=options.usage_s,
        reservations=not options.without_reservations,
    )
    identity = FolderIdentity(options.identity, anchor=anchor, clocks=HostClocks())
    tracer = _tracer(options.otlp_endpoint)
    return Program(settings=settings, controller=options.controller, identity=identity, tracer=tracer)


def _tracer(endpoint: str | None) -> OtlpTracer | None:
    if endpoint is None:
        return None
    if not endpoint.startswith(("http://", "https://")):
        raise InvalidInputError(
            f"the endpoint of traces is {endpoint[:80]!r}: expected OTLP over HTTP, such as "
            "http://127.0.0.1:4318/v1/traces",
            field="otlp_endpoint",
        )
    return OtlpTracer(endpoint, service="aipaging-anchor")


def _raise_file_limit() -> None:
    """Take as many descriptors as the system allows: each request has two connections, and 1,024 is usual."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run(program: Program, ready: Callable[[int], None]) -> None:
    """Run until SIGINT or SIGTERM, then drain; a second signal ends at once."""
    _raise_file_limit()
    uvloop.run(_run(program, ready))


async def _run(program: Program, ready: Callable[[int], None]) -> None:
    clocks = HostClocks()
    log = Log(clocks, anchor=program.settings.anchor)
    instruments = Instruments(clocks=clocks, log=log, spans=program.tracer)

    def verifier(jwks: Mapping[str, Any]) -> TokenVerifier:
        return JwtVerifier({"keys": jwks["keys"]}, f"https://{program.identity.trust_domain}", clocks.wall_us)

    client = ControllerClient(program.controller, program.settings.anchor, program.identity)
    sidecar = Sidecar(program.settings, client, verifier, identity=program.identity, instruments=instruments)
    signalled = [asyncio.Event(), asyncio.Event()]

    def on_signal() -> None:
        signalled[signalled[0].is_set()].set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    telling: asyncio.Task[None] | None = None
    try:
        await sidecar.start()
        ready(sidecar.port)
        manager = ServiceManager.of(os.environ, os.getpid())
        if manager is not None:
            telling = loop.create_task(manager.tell())
        await _first(signalled[0].wait(), sidecar.failed)
        await _first(sidecar.drain(), signalled[1].wait())
    finally:
        await sidecar.close()
        if telling is not None:
            telling.cancel()
        if program.tracer is not None:
            await asyncio.to_thread(program.tracer.close)


async def _first(*awaited: Awaitable[object]) -> None:
    """Return when the first is done, or raise its error; those that are ours to stop are stopped."""
    tasks = [asyncio.ensure_future(one) for one in awaited]
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        if isinstance(task, asyncio.Task):
            task.cancel()
    for task in done:
        task.result()
