"""Page transactions: over HTTP into a running system, and in process without it, beside etcd and what the disk gives.

Over HTTP: a controller with its Envoy and three anchors on loopback, all of them the installed commands; a page is
answered when its COMMIT is durable and its steering is in force. A client asks, not an operator, each of whose requests
waits for one more record. Latencies are taken at 50 pages a second on a fixed schedule, from when each was due. The
sustained rate is taken with the controller, and the peer, on one core and the load on another.
In process: the real engine with SQLite, both signatures and three candidates, 256 pages under way.

Beside the wall clock stands CPU time, which a busy machine disturbs less: what one core of its own would sustain.
Limits in the same run, on the same disk and the same HTTP layer: a bare SQLite insert with its sync, and `/healthz`.
The peer, where `etcd` is on the PATH: a lease granted and a key put under it, durable, over its HTTP gateway; the two
are measured one after the other and added, as a client that needs the lease for the put has to wait.
"""

import asyncio
import base64
import contextlib
import json
import logging
import os
import shutil
import sqlite3
import statistics
import tempfile
import time
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
import uvloop

from aipaging.apps.bench.engine_stage import engine_stage
from aipaging.apps.bench.interleaved import Goal, against, alone
from aipaging.apps.bench.load import LoadPlan, LoadReport, run_load
from aipaging.apps.bench.result import BenchResult
from aipaging.core.foundation.errors import UnavailableError
from aipaging.core.lease.machine import LeaseTerms
from aipaging.core.paging.settings import Settings
from aipaging.testing.loopback_stack import HOST, BenchAnchor, BenchStack, Times, bench_stack
from aipaging.testing.recording_upstream import recording_upstream
from aipaging.testing.stack import CONTROLLER, free_ports

LOG: Final = logging.getLogger("aipaging.bench")

PEER: Final = "etcd lease grant + put"
ANCHORS: Final = tuple(BenchAnchor(name=name) for name in ("one", "two", "three"))
LEASE_MS: Final = 60_000
SETTINGS: Final = Settings(
    lease=LeaseTerms(lease_ms=LEASE_MS, drift_ppm=500, grace_ms=500, drain_ms_max=LEASE_MS),
    lease_ms_max=LEASE_MS,
    sessions_max=10_000_000,
)
PACED_PER_S: Final = 50.0
CONNECTIONS: Final = 32
AT_ONCE: Final = 256
VALUE_BYTES: Final = 512
"""About what a COMMIT is in the journal."""

P50_MS_MAX, P99_MS_MAX = 3.0, 15.0
HTTP_PER_S_MIN: Final = 1_500
ENGINE_PER_S_MIN: Final = 4_000
ETCD_READY_S_MAX: Final = 20.0
STATED: Final = Goal(text="stated")


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much is measured."""

    rounds: int
    paced_s: float
    closed_s: float
    engine_pages: int


FULL: Final = Extent(rounds=5, paced_s=20.0, closed_s=5.0, engine_pages=20_000)
QUICK: Final = Extent(rounds=2, paced_s=3.5, closed_s=1.0, engine_pages=2_500)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rate:
    """Pages, and what they took."""

    pages: int
    wall_s: float
    cpu_s: float

    @property
    def per_s(self) -> float:
        return self.pages / self.wall_s

    @property
    def per_core_s(self) -> float:
        return self.pages / self.cpu_s


@dataclass(frozen=True, slots=True, kw_only=True)
class _Peer:
    """What is measured beside: its requests by kind, and its processes."""

    requests: dict[str, LoadPlan] = field(default_factory=dict[str, LoadPlan])
    processes: tuple[int, ...] = ()


@dataclass(slots=True)
class _Seen:
    """What was measured over HTTP, by kind, a report a round."""

    paced: dict[str, list[LoadReport]] = field(default_factory=dict[str, list[LoadReport]])
    closed: dict[str, list[LoadReport]] = field(default_factory=dict[str, list[LoadReport]])
    cpu: list[_Rate] = field(default_factory=list[_Rate])


def run(*, quick: bool, seed: int) -> list[BenchResult]:
    """Measure; nothing is random but ids and keys."""
    del seed
    return uvloop.run(measure(QUICK if quick else FULL))


async def measure(extent: Extent) -> list[BenchResult]:
    """Measure in process, then over HTTP, and return the results."""
    if shutil.which("litellm"):
        LOG.warning("litellm is not measured: it keeps keys in PostgreSQL only, and no such server belongs to this run")
    else:
        LOG.warning("litellm is not measured: there is no command `litellm` on the PATH")
    with tempfile.TemporaryDirectory(prefix="aipaging-bench-") as name:
        folder = Path(name)
        syncs_ms = _bare_inserts_ms(folder / "bare.db", 50 * extent.rounds)
        same, different = await _in_process(folder / "engine", extent)
        seen = await _over_http(folder, extent)
    return [*_latencies(seen, syncs_ms), *_rates(seen), *_engine(same, different)]


def _bare_inserts_ms(path: Path, count: int) -> list[float]:
    """Return what inserts took that did nothing but reach the disk."""
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("CREATE TABLE bare (seq INTEGER PRIMARY KEY, value BLOB)")
    took: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        connection.execute("INSERT INTO bare (value) VALUES (?)", (bytes(2 * VALUE_BYTES),))
        took.append((time.perf_counter() - began) * 1_000)
    connection.close()
    return sorted(took)


async def _in_process(folder: Path, extent: Extent) -> tuple[list[_Rate], list[_Rate]]:
    """Return rates of pages that ask for the same, and of pages no two of which do."""
    rates: tuple[list[_Rate], list[_Rate]] = ([], [])
    async with engine_stage(folder, SETTINGS) as stage:
        await stage.pages(AT_ONCE, at_once=AT_ONCE)
        for _ in range(extent.rounds):
            for different in (False, True):
                wall, cpu = time.perf_counter(), time.process_time()
                await stage.pages(extent.engine_pages, at_once=AT_ONCE, different=different)
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
                rates[different].append(_Rate(pages=extent.engine_pages, wall_s=wall, cpu_s=cpu))
    return rates


async def _over_http(folder: Path, extent: Extent) -> _Seen:
    """Run the system and the peer beside it, in turns."""
    seen = _Seen()
    with recording_upstream(folder / "upstream.json") as port:
        async with (
            _etcd(folder / "etcd") as peer,
            bench_stack(folder / "stack", ANCHORS, Times(lease_ms=LEASE_MS), upstream_port=port) as stack,
        ):
            await _measure(seen, stack, peer, extent)
    failed = {
        f"{how} {kind}": count
        for how, of_kind in (("paced", seen.paced), ("closed", seen.closed))
        for kind, reports in of_kind.items()
        if (count := sum(report.failures for report in reports))
    }
    if failed:
        raise UnavailableError(f"requests failed: {failed}", code="BENCH_BROKEN")
    return seen


async def _measure(seen: _Seen, stack: BenchStack, peer: _Peer, extent: Extent) -> None:
    """Take latencies at a given rate, then rates at what one core makes possible, all kinds in turns."""
    pid = stack.processes.children[CONTROLLER].process.pid
    plans = {"page": _page(stack), "bare": _bare(stack), **peer.requests}
    await run_load(_paced(plans["page"], 2.0))  # first connections, first pages
    for _ in range(extent.rounds):
        for kind, plan in plans.items():
            seen.paced.setdefault(kind, []).append(await run_load(_paced(plan, extent.paced_s)))
    for kept in (pid, *peer.processes):
        _keep_on(kept, 0)
    for _ in range(extent.rounds):
        for kind, plan in plans.items():
            before_s = _cpu_s(pid)
            report = await run_load(_closed(plan, extent.closed_s))
            seen.closed.setdefault(kind, []).append(report)
            if kind == "page":
                took_s = _cpu_s(pid) - before_s
                seen.cpu.append(_Rate(pages=report.requests, wall_s=report.seconds, cpu_s=took_s))


def _request(port: int, path: str, document: object, *headers: str, method: str = "POST") -> LoadPlan:
    body = json.dumps(document).encode() if document is not None else b""
    head = [f"{method} {path} HTTP/1.1", f"host: {HOST}", f"content-length: {len(body)}", *headers]
    request = "\r\n".join([*head, "content-type: application/json", "", ""]).encode() + body
    return LoadPlan(host=HOST, port=port, request=request, connections=1, seconds=1.0)


def _page(stack: BenchStack) -> LoadPlan:
    intent = {
        "task": "chat", "place": "access", "delayMs": 1_000.0, "epsilon": 0.01, "ratePerSecond": 0.1, "burst": 1,
        "durationS": 3_600,
    }  # fmt: skip
    path, credential = "/ai-paging/v0.1/sessions", f"authorization: {stack.bearer()}"
    return _request(stack.northbound_port, path, {"intent": intent}, credential)


def _bare(stack: BenchStack) -> LoadPlan:
    return _request(stack.northbound_port, "/healthz", None, method="GET")


def _paced(plan: LoadPlan, seconds: float) -> LoadPlan:
    return LoadPlan(
        host=plan.host,
        port=plan.port,
        request=plan.request,
        connections=CONNECTIONS,
        seconds=seconds,
        rate_per_s=PACED_PER_S,
    )


def _closed(plan: LoadPlan, seconds: float) -> LoadPlan:
    cpu = max(os.sched_getaffinity(0))
    return LoadPlan(
        host=plan.host, port=plan.port, request=plan.request, connections=CONNECTIONS, seconds=seconds, cpu=cpu
    )


def _keep_on(pid: int, core: int) -> None:
    """Keep every thread of a process on one core."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


def _cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.asynccontextmanager
async def _etcd(folder: Path) -> AsyncGenerator[_Peer]:
    """Run an etcd of one member and yield it; an empty peer where it is not installed."""
    binary = shutil.which("etcd")
    if binary is None:
        LOG.warning("etcd is not measured: there is no command `etcd` on the PATH (Debian: etcd-server)")
        yield _Peer()
        return
    port, peer_port = free_ports(2)
    client_url, peer_url = f"http://{HOST}:{port}", f"http://{HOST}:{peer_port}"
    process = await asyncio.create_subprocess_exec(
        binary,
        *("--data-dir", str(folder), "--log-level", "error"),
        *("--listen-client-urls", client_url, "--advertise-client-urls", client_url),
        *("--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url),
        *("--initial-cluster", f"default={peer_url}"),
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=DEVNULL,
    )
    try:
        lease = await _first_lease(client_url)
        key, value = (base64.b64encode(raw).decode() for raw in (b"session", os.urandom(VALUE_BYTES)))
        requests = {
            "grant": _request(port, "/v3/lease/grant", {"TTL": 600}),
            "put": _request(port, "/v3/kv/put", {"key": key, "value": value, "lease": lease}),
        }
        yield _Peer(requests=requests, processes=(process.pid,))
    finally:
        process.terminate()
        await process.wait()


async def _first_lease(url: str) -> str:
    """Return a lease as soon as etcd grants one.

    Raises:
        UnavailableError: It does not come up.
    """
    async with httpx.AsyncClient(base_url=url) as client:
        end_s = time.monotonic() + ETCD_READY_S_MAX
        while time.monotonic() < end_s:
            with contextlib.suppress(httpx.HTTPError, KeyError, ValueError):
                return str((await client.post("/v3/lease/grant", json={"TTL": 3_600})).json()["ID"])
            await asyncio.sleep(0.05)
    raise UnavailableError(f"etcd did not grant a lease within {ETCD_READY_S_MAX:g} s", code="PART_FAILED")


def _latencies(seen: _Seen, syncs_ms: Sequence[float]) -> list[BenchResult]:
    results: list[BenchResult] = []
    for name, most in (("p50", P50_MS_MAX), ("p99", P99_MS_MAX)):
        ours, bare, grants, puts = (
            [getattr(report, f"{name}_us") / 1_000 for report in seen.paced.get(kind, ())]
            for kind in ("page", "bare", "grant", "put")
        )
        metric, goal = f"http_page_ms_{name}_at_50_per_s", Goal(text=f"<= {most:g}", most=most)
        if grants:
            theirs = [grant + put for grant, put in zip(grants, puts, strict=True)]
            results.append(against(metric, "ms", list(zip(ours, theirs, strict=True)), peer=PEER, goal=goal))
        else:
            results.append(alone(metric, "ms", ours, goal))
        results.append(alone(f"bare_http_ms_{name}_at_50_per_s", "ms", bare, STATED))
        rank = 0.5 if name == "p50" else 0.99
        results.append(alone(f"bare_sync_ms_{name}", "ms", [syncs_ms[int(rank * (len(syncs_ms) - 1))]], STATED))
    return results


def _rates(seen: _Seen) -> list[BenchResult]:
    ours = [report.requests_per_s for report in seen.closed["page"]]
    goal = Goal(text=f">= {HTTP_PER_S_MIN}", least=HTTP_PER_S_MIN)
    metric = f"http_pages_per_s_one_core_c{CONNECTIONS}"
    if "grant" in seen.closed:
        grants, puts = ([report.requests_per_s for report in seen.closed[kind]] for kind in ("grant", "put"))
        theirs = [1 / (1 / grant + 1 / put) for grant, put in zip(grants, puts, strict=True)]
        first = against(metric, "1/s", list(zip(ours, theirs, strict=True)), peer=PEER, goal=goal)
    else:
        first = alone(metric, "1/s", ours, goal)
    return [
        first,
        alone("http_pages_per_core_second", "1/s", [rate.per_core_s for rate in seen.cpu], STATED),
        alone(
            f"bare_http_per_s_one_core_c{CONNECTIONS}", "1/s",
            [report.requests_per_s for report in seen.closed["bare"]], STATED,
        ),
        alone("http_pages_measured", "pages", [sum(report.requests for report in seen.closed["page"])], STATED),
    ]  # fmt: skip


def _engine(same: Sequence[_Rate], different: Sequence[_Rate]) -> list[BenchResult]:
    goal = Goal(text=f">= {ENGINE_PER_S_MIN}", least=ENGINE_PER_S_MIN)
    middle = statistics.median(rate.cpu_s / rate.pages for rate in same)
    return [
        alone("engine_pages_per_s", "1/s", [rate.per_s for rate in same], goal),
        alone("engine_pages_per_core_second", "1/s", [rate.per_core_s for rate in same], STATED),
        alone("engine_cpu_us_per_page", "us", [middle * 1e6], STATED),
        alone("engine_pages_per_s_all_different", "1/s", [rate.per_s for rate in different], STATED),
        alone("engine_pages_per_core_second_all_different", "1/s", [rate.per_core_s for rate in different], STATED),
    ]
