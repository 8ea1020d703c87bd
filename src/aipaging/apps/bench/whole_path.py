"""The whole path against a plain one: Envoy with leases, mutual TLS, sidecar, upstream beside plain Envoy, upstream.

Both gateways are the same binary with one worker and the same listener, in plain text; both end at the same upstream
process, and are measured in turns. Ours is the real system: a controller that renews and answers look-ups meanwhile, a
sidecar that is the installed command. The anchor `plain` is the same without TLS between gateway and sidecar, to tell
what TLS costs.

Placement on CPUs decides such a ratio, so it is part of a metric's name, and is the same for both sides:
`free`: nobody is told where to run; on two cores, what a request costs in all decides, load generator included.
`apart`: gateways have the first core for themselves; sidecar, upstream and load generator share the last one, as a
sidecar shares the anchor's host.
`one_core`: the worst case; gateway and sidecar share the first core, so that all that leases add is paid from what the
plain gateway has for itself.
The controller runs wherever there is room. The goal is about `free` and `apart`. Beside the rates stands the CPU time
per request of gateway and sidecar together, which a busy machine disturbs least, and that of the busier of the two:
where each has a core of its own, that one decides the rate.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncGenerator, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aipaging.adapters.steering.envoy.resources import endpoint_cluster, http_upstream
from aipaging.adapters.steering.envoy.supervisor import envoy_binary
from aipaging.apps.bench.interleaved import Goal, against, alone
from aipaging.apps.bench.load import LoadPlan, LoadReport, run_load
from aipaging.apps.bench.result import BenchResult
from aipaging.core.foundation.errors import UnavailableError, Who
from aipaging.testing.loopback_stack import HOST, BenchAnchor, Times, bench_stack
from aipaging.testing.stack import free_ports

PEER: Final = "plain envoy 1.40 + upstream"
RUNS: Final = 9
RUNS_QUICK: Final = 3
SECONDS: Final = 0.8
SECONDS_QUICK: Final = 0.5
"""Many short turns rather than few long ones: a disturbance spoils a turn, and the median of the ratios forgets it."""

CONNECTIONS: Final = (1, 16)
TIMES: Final = Times(lease_ms=10_000)
"""The default: a look-up every five seconds is part of the path."""

ANCHORS: Final = (BenchAnchor(name="tls"), BenchAnchor(name="plain", plain_text=True))
PLACEMENTS_OF_GOAL: Final = frozenset({"free", "apart"})
LISTENS_S_MAX: Final = 15.0

RATIO: Final = Goal(text=">= 0.4", least=0.4, of_ratio=True)
STATED: Final = Goal(text="stated")
NONE: Final = Goal(text="0", most=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """One way to the upstream.

    Attributes:
        port: Of its gateway.
        token: What the gateway is shown.
        gateway: The gateway's process.
        sidecar: The sidecar's, if there is one.
    """

    port: int
    token: str
    gateway: int
    sidecar: int | None = None

    @property
    def processes(self) -> tuple[int, ...]:
        """Return what stands between client and upstream."""
        return (self.gateway,) if self.sidecar is None else (self.gateway, self.sidecar)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """One turn: what the load generator saw, and the CPU time per request of each process on the way."""

    report: LoadReport
    cpu_us: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """What is compared: `anchor` names the way, `placement` the cores."""

    anchor: str
    placement: str
    connections: int

    @property
    def name(self) -> str:
        """Return what metrics of it are called."""
        return f"{'' if self.anchor == 'tls' else 'without_tls_'}{self.placement}_c{self.connections}"


CASES: Final = tuple(
    _Case(anchor=anchor, placement=placement, connections=connections)
    for anchor, placement in (("tls", "free"), ("tls", "apart"), ("tls", "one_core"), ("plain", "free"))
    for connections in CONNECTIONS
)


@dataclass(slots=True)
class _Ways:
    """All ways to the upstream.

    Attributes:
        upstream: The process at their end.
        plain: The peer.
        ours: By anchor.
    """

    upstream: int
    plain: _Side
    ours: dict[str, _Side] = field(default_factory=dict)


def run(*, quick: bool, seed: int) -> list[BenchResult]:
    """Measure; the seed changes nothing, since every request is the same."""
    del seed
    runs, seconds = (RUNS_QUICK, SECONDS_QUICK) if quick else (RUNS, SECONDS)
    return asyncio.run(measure(runs=runs, seconds=seconds))


async def measure(*, runs: int, seconds: float) -> list[BenchResult]:
    """Measure every case `runs` times, ours and the peer in turns, and return the results."""
    samples: dict[_Case, list[tuple[_Sample, _Sample]]] = defaultdict(list)
    async with _ways() as ways:
        for turn in range(runs):
            for case in CASES:
                ours = ways.ours[case.anchor]
                _place(ways, case)
                sides = (ours, ways.plain) if turn % 2 else (ways.plain, ours)
                pair = {side.port: await _measured(side, case, seconds=seconds) for side in sides}
                samples[case].append((pair[ours.port], pair[ways.plain.port]))
    return [result for case, pairs in samples.items() for result in _results(case, pairs)]


def _results(case: _Case, pairs: Sequence[tuple[_Sample, _Sample]]) -> list[BenchResult]:
    rates = [(ours.report.requests_per_s, theirs.report.requests_per_s) for ours, theirs in pairs]
    costs = [(sum(ours.cpu_us), sum(theirs.cpu_us)) for ours, theirs in pairs]
    busiest = [(max(ours.cpu_us), max(theirs.cpu_us)) for ours, theirs in pairs]
    delays = [(ours.report.p50_us / 1e3, theirs.report.p50_us / 1e3) for ours, theirs in pairs]
    failures = sum(ours.report.failures + theirs.report.failures for ours, theirs in pairs)
    goal = RATIO if case.anchor == "tls" and case.placement in PLACEMENTS_OF_GOAL else STATED
    return [
        against(f"requests_per_s_{case.name}", "requests/s", rates, peer=PEER, goal=goal),
        against(f"cpu_us_per_request_{case.name}", "us", costs, peer=PEER, goal=STATED),
        against(f"cpu_us_of_busiest_process_{case.name}", "us", busiest, peer=PEER, goal=STATED),
        against(f"p50_ms_{case.name}", "ms", delays, peer=PEER, goal=STATED),
        alone(f"failures_{case.name}", "requests", [failures], NONE),
    ]


async def _measured(side: _Side, case: _Case, *, seconds: float) -> _Sample:
    body = b'{"input":"hello"}'
    head = (
        f"POST /v1/embeddings HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {side.token}\r\nuser-agent: bench\r\n"
        f"accept: */*\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    before_us = [_cpu_us(pid) for pid in side.processes]
    report = await run_load(
        LoadPlan(
            host=HOST,
            port=side.port,
            request=head.encode() + body,
            connections=case.connections,
            seconds=seconds,
            cpu=None if case.placement == "free" else max(os.sched_getaffinity(0)),
        )
    )
    used_us = [_cpu_us(pid) - before for pid, before in zip(side.processes, before_us, strict=True)]
    return _Sample(report=report, cpu_us=tuple(each / max(1, report.requests) for each in used_us))


@contextlib.asynccontextmanager
async def _ways() -> AsyncGenerator[_Ways]:
    """Start the upstream, the system and the plain gateway."""
    with tempfile.TemporaryDirectory(prefix="aipaging-bench-") as name, _upstream() as (upstream, upstream_port):
        folder = Path(name)
        async with bench_stack(folder / "stack", ANCHORS, TIMES, upstream_port=upstream_port) as stack:
            gateway = stack.processes.gateway_pid()
            if gateway is None:
                raise UnavailableError("the gateway's process is not found", who=Who.BUG)
            sessions = {anchor.name: await stack.page(anchor=anchor.name) for anchor in ANCHORS}
            document = json.loads((stack.processes.data_dir / "gateway" / "envoy.json").read_text())
            token = sessions["tls"]["aist"]
            with _plain(document, folder / "plain.json", upstream_port, token) as plain:
                await _until_listening(plain.port)
                yield _Ways(
                    upstream=upstream,
                    plain=plain,
                    ours={
                        anchor: _Side(
                            port=stack.gateway_port,
                            token=session["aist"],
                            gateway=gateway,
                            sidecar=stack.processes.children[anchor].process.pid,
                        )
                        for anchor, session in sessions.items()
                    },
                )


@contextlib.contextmanager
def _upstream() -> Generator[tuple[int, int]]:
    command = [sys.executable, "-m", "aipaging.apps.bench.upstream"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None  # noqa: S101
            yield process.pid, int(process.stdout.readline())
        finally:
            process.terminate()


@contextlib.contextmanager
def _plain(document: dict[str, Any], path: Path, upstream_port: int, token: str) -> Generator[_Side]:
    """Run an Envoy with the configuration of ours, a fixed route, and nothing of leases."""
    (port,) = free_ports(1)
    path.write_text(json.dumps(_without_leases(document, port, upstream_port)))
    command = [str(envoy_binary()), "-c", str(path), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield _Side(port=port, token=token, gateway=process.pid)
        finally:
            process.terminate()


def _without_leases(document: dict[str, Any], port: int, upstream_port: int) -> dict[str, Any]:
    listener = document["static_resources"]["listeners"][0]
    listener["address"]["socket_address"]["port_value"] = port
    connection_manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    del connection_manager["rds"], connection_manager["early_header_mutation_extensions"]
    connection_manager["http_filters"] = connection_manager["http_filters"][-1:]
    route = {"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "0s"}}
    connection_manager["route_config"] = {
        "name": "plain",
        "virtual_hosts": [{"name": "every-host", "domains": ["*"], "routes": [route]}],
    }
    cluster = endpoint_cluster("upstream", HOST, upstream_port)
    cluster["typed_extension_protocol_options"] = http_upstream(http2=False)
    return {
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
        "overload_manager": document["overload_manager"],
    }


async def _until_listening(port: int) -> None:
    async with asyncio.timeout(LISTENS_S_MAX):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(HOST, port)
                writer.close()
                return
            await asyncio.sleep(0.02)


def _place(ways: _Ways, case: _Case) -> None:
    """Put every process where the placement says."""
    cores = os.sched_getaffinity(0)
    first, last = (cores, cores) if case.placement == "free" else ({min(cores)}, {max(cores)})
    for side in (ways.plain, *ways.ours.values()):
        _pin(side.gateway, first)
        if side.sidecar is not None:
            _pin(side.sidecar, first if case.placement == "one_core" else last)
    _pin(ways.upstream, last)


def _pin(pid: int, cores: set[int]) -> None:
    """Put a process on cores, with all its threads."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


def _cpu_us(pid: int) -> float:
    """Return the CPU time that a process has used, finer than clock ticks."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text(encoding="ascii").split()[0]) for thread in threads) / 1e3
