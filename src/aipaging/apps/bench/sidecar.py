"""The anchor's sidecar against its own upstream, asked directly: what standing in the way costs.

The sidecar has a core to itself; upstream and load generator share another. The receipt is signed for real, and the
leases are asked about (of a controller in memory). Streams are timed by one client that reads both in the same run;
a cut is late by the time from (request sent + lease) to the last byte, which can only overstate it.
"""

import asyncio
import contextlib
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from aipaging.adapters.signing.ca import CertificateAuthority
from aipaging.adapters.signing.keys import KeyStore
from aipaging.adapters.signing.tokens import JwtSigner
from aipaging.apps.bench.interleaved import Goal, against, alone
from aipaging.apps.bench.load import LoadPlan, LoadReport, run_load
from aipaging.apps.bench.result import BenchResult
from aipaging.apps.bench.sidecar_stage import ANCHOR, ISSUER, TRUST_DOMAIN
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import ServiceUri, SessionId, TenantId
from aipaging.core.foundation.time import WallUs
from aipaging.core.identity.claims import CommitClaims

PEER: Final = "the upstream directly"
HOST: Final = "127.0.0.1"
RUNS: Final = 11
RUNS_QUICK: Final = 5
SECONDS: Final = 1.0
SECONDS_QUICK: Final = 0.5
GAP_RUNS: Final = 7
GAP_RUNS_QUICK: Final = 3
STREAMS: Final = 64
CUTS: Final = 256
CUTS_QUICK: Final = 64
LONG_MS: Final = 86_400_000
BODY: Final = b'{"model":"bench","input":"' + b"x" * 380 + b'"}'
"""About as long as a short question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """Ports of what is measured."""

    direct: int
    plain: int
    plain_pid: int
    tls: int
    paced: int
    paced_sidecar: int
    folder: Path
    signer: JwtSigner


def run(*, quick: bool, seed: int) -> list[BenchResult]:
    """Measure; the seed chooses the lengths of the leases that are cut."""
    with _stage() as stage:
        return uvloop.run(_run(stage, quick=quick, dice=random.Random(seed)))  # noqa: S311 no secret


async def _run(stage: _Stage, *, quick: bool, dice: random.Random) -> list[BenchResult]:
    runs, seconds = (RUNS_QUICK, SECONDS_QUICK) if quick else (RUNS, SECONDS)
    results = await _requests(stage, runs, seconds)
    results += await _gaps(stage, GAP_RUNS_QUICK if quick else GAP_RUNS)
    results += await _cuts(stage, CUTS_QUICK if quick else CUTS, dice)
    return results


async def _requests(stage: _Stage, runs: int, seconds: float) -> list[BenchResult]:
    request = _request(stage, "POST", "/v1/embeddings", BODY)
    results: list[BenchResult] = []
    for connections, goal in ((1, _STATED), (16, _RATE), (64, _RATE)):
        pairs: list[tuple[LoadReport, LoadReport]] = []
        per_core: list[float] = []
        for turn in range(runs):
            ports = (stage.plain, stage.direct) if turn % 2 else (stage.direct, stage.plain)
            before_s = _cpu_s(stage.plain_pid)
            by_port = {port: await _load(port, request, connections, seconds) for port in ports}
            per_core.append(by_port[stage.plain].requests / max(_cpu_s(stage.plain_pid) - before_s, 0.01))
            pairs.append((by_port[stage.plain], by_port[stage.direct]))
        rates = [(ours.requests_per_s, theirs.requests_per_s) for ours, theirs in pairs]
        results.append(against(f"requests_per_s_c{connections}", "requests/s", rates, peer=PEER, goal=goal))
        results.append(alone(f"requests_per_cpu_s_c{connections}", "requests/s", per_core, goal))
        if connections == 1:
            added = [ours.p50_us - theirs.p50_us for ours, theirs in pairs]
            results.append(alone("added_p50_us_c1", "us", added, _ADDED))
        failures = [float(sum(ours.failures + theirs.failures for ours, theirs in pairs))]
        results.append(alone(f"failures_c{connections}", "requests", failures, _NONE))
    tls = [(await _load(stage.tls, request, 16, seconds, tls=stage.folder)).requests_per_s for _ in range(runs)]
    results.append(alone("requests_per_s_mutual_tls_c16", "requests/s", tls, _STATED))
    return results


async def _load(port: int, request: bytes, connections: int, seconds: float, *, tls: Path | None = None) -> LoadReport:
    folder = None if tls is None else tls / "gateway"
    return await run_load(
        LoadPlan(
            host=HOST,
            port=port,
            request=request,
            connections=connections,
            seconds=seconds,
            cpu=_OTHER_CORE,
            certificate="" if folder is None else str(folder / "cert.pem"),
            key="" if folder is None else str(folder / "key.pem"),
            trust="" if folder is None else str(folder / "ca.pem"),
        )
    )


async def _gaps(stage: _Stage, runs: int) -> list[BenchResult]:
    """Compare the gaps between events of 64 streams at once, read by the same client."""
    request = _request(stage, "GET", "/stream")
    pairs: list[tuple[float, float]] = []
    for turn in range(runs):
        ports = (stage.paced_sidecar, stage.paced) if turn % 2 else (stage.paced, stage.paced_sidecar)
        by_port = {port: await _gap_p99_ms(port, request) for port in ports}
        pairs.append((by_port[stage.paced_sidecar], by_port[stage.paced]))
    added = [ours - theirs for ours, theirs in pairs]
    return [
        against("event_gap_p99_ms_64_streams", "ms", pairs, peer=PEER, goal=_STATED),
        alone("added_event_gap_p99_ms_64_streams", "ms", added, _GAP),
    ]


async def _gap_p99_ms(port: int, request: bytes) -> float:
    read = await asyncio.gather(*(_arrivals(port, request) for _ in range(STREAMS)))
    gaps = [later - sooner for times in read for sooner, later in itertools.pairwise(times)]
    return statistics.quantiles(gaps, n=100)[98] * 1000


async def _arrivals(port: int, request: bytes) -> list[float]:
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(request)
    await reader.readuntil(b"\r\n\r\n")
    times: list[float] = []
    while b"[DONE]" not in await reader.readuntil(b"\n\n\r\n"):
        times.append(time.perf_counter())
    writer.close()
    return times


async def _cuts(stage: _Stage, count: int, dice: random.Random) -> list[BenchResult]:
    """Let leases of 0.2 to 2 s end in the middle of endless streams."""
    leases_ms = [dice.randrange(200, 2000) for _ in range(count)]
    cuts: list[tuple[float, bool]] = []
    for start in range(0, count, STREAMS):
        cuts += await asyncio.gather(*(_cut_late_ms(stage, each) for each in leases_ms[start : start + STREAMS]))
    late = [late_ms for late_ms, _ in cuts]
    clean = float(sum(not explicit for _, explicit in cuts))
    return [
        alone("stream_cut_late_ms_median", "ms", [statistics.median(late)], _STATED),
        alone("stream_cut_late_ms_max", "ms", [max(late)], _CUT),
        alone("streams_cut_without_error", "streams", [clean], _NONE),
    ]


async def _cut_late_ms(stage: _Stage, lease_ms: int) -> tuple[float, bool]:
    request = _request(stage, "GET", "/forever", lease_ms=lease_ms)
    reader, writer = await asyncio.open_connection(HOST, stage.paced_sidecar)
    sent = time.perf_counter()
    writer.write(request)
    got = b""
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65_536):
            got = (got + piece)[-500:]
    late_ms = (time.perf_counter() - sent) * 1000 - lease_ms
    writer.close()
    return late_ms, b"event: error\ndata: " in got and b"LEASE_ENDED" in got and not got.endswith(b"0\r\n\r\n")


def _cpu_s(pid: int) -> float:
    """Return the processor time of a process: on a busy machine, what it could do with a core of its own."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _request(stage: _Stage, method: str, path: str, body: bytes = b"", *, lease_ms: int = LONG_MS) -> bytes:
    """Return a request as a gateway sends it, with a receipt of its own session."""
    receipt = stage.signer.sign_commit(
        CommitClaims(
            session=SessionId(str(uuid.uuid4())),
            tenant=TenantId("bench"),
            aisi=ServiceUri("aisi://bench/embeddings/small"),
            anchor=ANCHOR,
            epoch=Epoch(1, lease_ms),
            lease_ms=lease_ms,
            rate_mrps=1_000_000_000,
            burst=1_000_000,
            delay_us=100_000,
            epsilon="0.01",
            epsilon_bound="0.009",
            token_id_sha256="0" * 64,
            commit_id=str(uuid.uuid4()),
            issued_us=WallUs(0),
            expires_us=WallUs(4_000_000_000_000_000),
        )
    )
    length = f"content-length: {len(body)}\r\ncontent-type: application/json\r\n" if method == "POST" else ""
    head = (
        f"{method} {path} HTTP/1.1\r\nhost: gateway\r\naccept: */*\r\nuser-agent: bench\r\n"
        f"authorization: Bearer {'a' * 600}\r\nx-aipaging-commit: {receipt}\r\nx-request-id: {uuid.uuid4()}\r\n"
        f"{length}\r\n"
    )
    return head.encode() + body


@contextlib.contextmanager
def _stage() -> Generator[_Stage]:
    """Start everything that is measured."""
    with tempfile.TemporaryDirectory(prefix="aipaging-bench-") as name, contextlib.ExitStack() as processes:
        folder = Path(name)
        keys = KeyStore.open(folder / "keys")
        (folder / "jwks.json").write_text(json.dumps(keys.jwks()), encoding="ascii")
        authority = CertificateAuthority.open(folder / "ca", TRUST_DOMAIN)
        authority.write_identity(folder / "anchor", "anchor", ANCHOR, addresses=[HOST])
        authority.write_identity(folder / "gateway", "gateway", "bench-gateway")

        def start(module: str, *arguments: str) -> tuple[int, int]:
            return processes.enter_context(_process(f"aipaging.apps.bench.{module}", *arguments))

        other, own = str(_OTHER_CORE), str(_OWN_CORE)
        direct, _ = start("upstream", *([other] if _OTHER_CORE >= 0 else []))
        paced, _ = start("sidecar_stage", "paced", other)
        plain, plain_pid = start("sidecar_stage", "sidecar", own, str(direct), name, "plain")
        yield _Stage(
            direct=direct,
            paced=paced,
            plain=plain,
            plain_pid=plain_pid,
            tls=start("sidecar_stage", "sidecar", own, str(direct), name, "tls")[0],
            paced_sidecar=start("sidecar_stage", "sidecar", own, str(paced), name, "plain")[0],
            folder=folder,
            signer=JwtSigner(keys, ISSUER),
        )


@contextlib.contextmanager
def _process(module: str, *arguments: str) -> Generator[tuple[int, int]]:
    """Start a process and give its port and id."""
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE)
    try:
        if process.stdout is None:
            raise RuntimeError(f"{module} has no output")
        yield int(process.stdout.readline()), process.pid
    finally:
        process.kill()
        process.wait()


_CORES: Final = sorted(os.sched_getaffinity(0))
_OWN_CORE: Final = _CORES[0] if len(_CORES) > 1 else -1
_OTHER_CORE: Final = _CORES[1] if len(_CORES) > 1 else -1

_RATE: Final = Goal(text=">= 6000", least=6000)
_ADDED: Final = Goal(text="<= 250", most=250)
_GAP: Final = Goal(text="<= 1", most=1.0)
_CUT: Final = Goal(text="<= 50", most=50.0)
_NONE: Final = Goal(text="0", most=0)
_STATED: Final = Goal(text="stated")
