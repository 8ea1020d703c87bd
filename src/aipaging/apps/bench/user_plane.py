"""The gateway with leases against plain Envoy: same binary, same upstream, same host, one worker, in turns.

All Envoys run on one core; the load generator and the upstream share the other ones, so that what is compared is
the gateway. Beside the wall-clock numbers stands the CPU time per request, which a busy machine disturbs least.

Three gateways take turns: plain Envoy, ours without its access log, and ours as it ships. The first two say what leases
cost, the last two what the audit's access log does.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import httpx

from aipaging.adapters.steering.envoy.bootstrap import bootstrap
from aipaging.adapters.steering.envoy.resources import endpoint_cluster, http_upstream
from aipaging.adapters.steering.envoy.supervisor import envoy_binary
from aipaging.apps.bench.interleaved import Goal, against, alone
from aipaging.apps.bench.load import LoadPlan, LoadReport, run_load
from aipaging.apps.bench.result import BenchResult
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import AnchorId
from aipaging.core.steering.grant import AnchorEndpoint
from aipaging.testing.envoy_rig import EnvoyRig, envoy_rig
from aipaging.testing.recording_anchor import HOST
from aipaging.testing.stack import free_ports

PEER: Final = "envoy 1.40"
UNLOGGED: Final = "the gateway without its access log"
RUNS: Final = 21
RUNS_QUICK: Final = 9
SECONDS: Final = 0.6
SECONDS_QUICK: Final = 0.35
"""Many short turns rather than few long ones: a disturbance spoils a turn, and the median of the ratios forgets it."""

CONNECTIONS: Final = (1, 16)
LEASE_MS: Final = 3_600_000
"""As long as a benchmark may take: what is measured is a hit in the cache, the look-ups have their own benchmark."""

ANCHOR: Final = AnchorId("bench")
SHAPES: Final = {"json": ("POST", "/v1/embeddings"), "sse": ("GET", "/stream")}

RATIO: Final = Goal(text=">= 0.85", least=0.85, of_ratio=True)
ADDED: Final = Goal(text="<= 50", most=50.0)
STATED: Final = Goal(text="stated")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """One of the gateways."""

    port: int
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    report: LoadReport
    cpu_us: float


Turn: TypeAlias = tuple[_Sample, _Sample, _Sample]
"""Ours, plain Envoy, ours without its access log."""


def run(*, quick: bool, seed: int) -> list[BenchResult]:
    """Measure; the seed changes nothing, since every request is the same."""
    del seed
    return asyncio.run(_run(RUNS_QUICK if quick else RUNS, SECONDS_QUICK if quick else SECONDS))


async def _run(runs: int, seconds: float) -> list[BenchResult]:
    samples: dict[tuple[str, int], list[Turn]] = defaultdict(list)
    async with _all() as (sides, token):
        for turn in range(runs):
            for shape, (method, path) in SHAPES.items():
                request = _request(method, path, token)
                for connections in CONNECTIONS:
                    order = sides[turn % 3 :] + sides[: turn % 3]
                    found = {
                        side.pid: await _measure(side, request, connections=connections, seconds=seconds)
                        for side in order
                    }
                    ours, theirs, unlogged = (found[side.pid] for side in sides)
                    samples[shape, connections].append((ours, theirs, unlogged))
    return _results(samples)


def _results(samples: dict[tuple[str, int], list[Turn]]) -> list[BenchResult]:
    results: list[BenchResult] = []
    for (shape, connections), turns in samples.items():
        name = f"{shape}_c{connections}"
        pairs = [(unlogged, theirs) for _, theirs, unlogged in turns]
        failures = sum(side.report.failures for turn in turns for side in turn)
        rates = [(ours.report.requests_per_s, theirs.report.requests_per_s) for ours, theirs in pairs]
        costs = [(ours.cpu_us, theirs.cpu_us) for ours, theirs in pairs]
        results.append(against(f"requests_per_s_{name}", "requests/s", rates, peer=PEER, goal=RATIO))
        results.append(against(f"cpu_us_per_request_{name}", "us", costs, peer=PEER, goal=STATED))
        if connections == 1:
            added = [ours.report.p50_us - theirs.report.p50_us for ours, theirs in pairs]
            results.append(alone(f"added_p50_us_{name}", "us", added, ADDED))
        results += _of_log(name, [(ours, unlogged) for ours, _, unlogged in turns])
        whole = [(ours.report.requests_per_s, theirs.report.requests_per_s) for ours, theirs, _ in turns]
        results.append(against(f"with_access_log_requests_per_s_{name}", "requests/s", whole, peer=PEER, goal=STATED))
        results.append(alone(f"failures_{name}", "requests", [failures], Goal(text="0", most=0)))
    return results


def _of_log(name: str, pairs: list[tuple[_Sample, _Sample]]) -> list[BenchResult]:
    """Return what the access log costs at the gateway."""
    rates = [(ours.report.requests_per_s, theirs.report.requests_per_s) for ours, theirs in pairs]
    medians = [(ours.report.p50_us, theirs.report.p50_us) for ours, theirs in pairs]
    costs = [(ours.cpu_us, theirs.cpu_us) for ours, theirs in pairs]
    return [
        against(f"access_log_requests_per_s_{name}", "requests/s", rates, peer=UNLOGGED, goal=STATED),
        against(f"access_log_p50_us_{name}", "us", medians, peer=UNLOGGED, goal=STATED),
        against(f"access_log_cpu_us_per_request_{name}", "us", costs, peer=UNLOGGED, goal=STATED),
    ]


def _request(method: str, path: str, token: str) -> bytes:
    body = b'{"input":"hello"}' if method == "POST" else b""
    head = (
        f"{method} {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {token}\r\nuser-agent: bench\r\n"
        f"accept: */*\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _measure(side: _Side, request: bytes, *, connections: int, seconds: float) -> _Sample:
    before = _cpu_us(side.pid)
    report = await run_load(
        LoadPlan(
            host=HOST, port=side.port, request=request, connections=connections, seconds=seconds, cpu=_other_core()
        )
    )
    return _Sample(report=report, cpu_us=(_cpu_us(side.pid) - before) / max(1, report.requests))


@contextlib.asynccontextmanager
async def _all() -> AsyncGenerator[tuple[tuple[_Side, ...], str]]:
    """Start the upstream and the gateways; give ours, plain Envoy, ours without log, and the token that opens ours."""
    messages: deque[int] = deque(maxlen=1)
    with tempfile.TemporaryDirectory(prefix="aipaging-bench-") as name, _upstream() as upstream_port:
        directory = Path(name)
        async with envoy_rig(directory, log=lambda message: messages.append(len(message))) as rig:
            await rig.driver.place_anchors(
                [AnchorEndpoint(anchor=ANCHOR, host=HOST, port=upstream_port, tls=False, in_flight_max=1024)]
            )
            session = rig.session()
            await rig.driver.install([rig.grant(session, ANCHOR, Epoch(1, 1), LEASE_MS)])
            health = await rig.supervisor.health()
            if health.pid is None:
                raise RuntimeError("the gateway did not start")
            _pin(health.pid)
            ours, token = _Side(port=rig.gateway.listener.port, pid=health.pid), rig.tokens[session]
            plain, unlogged = free_ports(2)
            with (
                _beside(directory / "plain", plain_configuration(rig, plain, upstream_port), plain) as theirs,
                _beside(directory / "unlogged", unlogged_configuration(rig, unlogged), unlogged) as without,
            ):
                await _answers(theirs.port)
                await _steers(without.port, token)
                yield (ours, theirs, without), token
            if not messages:
                raise RuntimeError("the gateway's access log said nothing")


@contextlib.contextmanager
def _upstream() -> Generator[int]:
    command = [sys.executable, "-m", "aipaging.apps.bench.upstream", str(_other_core())]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None  # noqa: S101
            yield int(process.stdout.readline())
        finally:
            process.terminate()


@contextlib.contextmanager
def _beside(directory: Path, configuration: dict[str, Any], port: int) -> Generator[_Side]:
    """Run the same Envoy with another configuration."""
    directory.mkdir()
    path = directory / "envoy.json"
    path.write_text(json.dumps(configuration), encoding="utf-8")
    command = [str(envoy_binary()), "-c", str(path), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    nowhere = subprocess.DEVNULL
    # A session of its own, as our gateway's: on a busy machine the kernel shares out cores by session.
    with subprocess.Popen(command, stdout=nowhere, stderr=nowhere, cwd=directory, start_new_session=True) as process:
        try:
            _pin(process.pid)
            yield _Side(port=port, pid=process.pid)
        finally:
            process.terminate()


def unlogged_configuration(rig: EnvoyRig, port: int) -> dict[str, Any]:
    """Return our own bootstrap without the access log: another gateway of the same controller."""
    document = bootstrap(rig.gateway)
    listener = document["static_resources"]["listeners"][0]
    listener["address"]["socket_address"]["port_value"] = port
    del listener["filter_chains"][0]["filters"][0]["typed_config"]["access_log"]
    return document


def plain_configuration(rig: EnvoyRig, port: int, upstream_port: int) -> dict[str, Any]:
    """Return our own bootstrap with everything that leases need taken out of it."""
    document = bootstrap(rig.gateway)
    listener = document["static_resources"]["listeners"][0]
    listener["address"]["socket_address"]["port_value"] = port
    connection_manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    for ours in ("rds", "early_header_mutation_extensions", "access_log"):
        del connection_manager[ours]
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


async def _answers(port: int) -> None:
    """Return when something listens on the port."""
    async with asyncio.timeout(15):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(HOST, port)
                writer.close()
                return
            await asyncio.sleep(0.02)


async def _steers(port: int, token: str) -> None:
    """Return when a gateway has its route, and has answered a request."""
    async with asyncio.timeout(15), httpx.AsyncClient(headers={"authorization": f"Bearer {token}"}) as client:
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = await client.post(f"http://{HOST}:{port}/v1/embeddings", json={"input": "hello"})
                if answer.status_code == 200:
                    return
            await asyncio.sleep(0.02)


def _pin(pid: int) -> None:
    """Put a gateway on the first core, with all its threads."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {_cores()[0]})


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def _other_core() -> int:
    return _cores()[-1]


def _cpu_us(pid: int) -> float:
    """Return the CPU time of a process with its threads, as the scheduler counts it: ticks are too long for a turn."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text(encoding="ascii").split()[0]) for thread in threads) / 1e3
