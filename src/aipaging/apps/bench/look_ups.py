"""Steering look-ups answered by one controller process on one core, over mutual TLS as gateways send them."""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Generator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvloop

from aipaging.adapters.signing.ca import CertificateAuthority
from aipaging.adapters.signing.keys import KeyStore
from aipaging.adapters.signing.tokens import JwtSigner, JwtVerifier
from aipaging.adapters.steering.envoy.steering_endpoint import LOOK_UP_PATH, SteeringEndpoint
from aipaging.adapters.steering.envoy.table import SteeringTable
from aipaging.apps.bench.interleaved import Goal, alone
from aipaging.apps.bench.load import LoadPlan, LoadReport, run_load
from aipaging.apps.bench.result import BenchResult
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import AnchorId, ClientId, GatewayId, ServiceUri, SessionId, TenantId
from aipaging.core.foundation.time import SECOND, WallUs
from aipaging.core.identity.claims import AistClaims
from aipaging.core.steering.grant import SteeringGrant
from aipaging.runtime.peer_identity import IDENTITY
from aipaging.testing.envoy_rig import CONTROLLER, GATEWAY, TRUST_DOMAIN, Controller, system_now
from aipaging.testing.recording_anchor import HOST

RUNS: Final = 5
RUNS_QUICK: Final = 3
SECONDS: Final = 3.0
SECONDS_QUICK: Final = 1.5
CONNECTIONS: Final = 16
PACE_PER_S: Final = 1_000.0
FIRST_LOOK_UPS: Final = 2_000
"""Sessions that are looked up for the first time in one run: a signature to verify and a record to write for each."""

ISSUER: Final = "https://bench.example"
LEASE_US: Final = 3_600 * SECOND
RECEIPT: Final = "e" * 800
"""As long as a signed receipt."""

RATE: Final = Goal(text=">= 5000", least=5_000.0)
LATENCY: Final = Goal(text="<= 5", most=5.0)
STATED: Final = Goal(text="stated")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Server:
    port: int
    directory: Path
    token: str


def run(*, quick: bool, seed: int) -> list[BenchResult]:
    """Measure; the seed changes nothing: look-ups of one session in the table cost what those of another cost."""
    del seed
    runs, seconds = (RUNS_QUICK, SECONDS_QUICK) if quick else (RUNS, SECONDS)
    return asyncio.run(_run(runs, seconds))


async def _run(runs: int, seconds: float) -> list[BenchResult]:
    closed: list[LoadReport] = []
    paced: list[LoadReport] = []
    with tempfile.TemporaryDirectory(prefix="aipaging-bench-") as name, _server(Path(name)) as server:
        for _ in range(runs):
            closed.append(await _load(server, seconds=seconds, rate_per_s=None))
            paced.append(await _load(server, seconds=seconds, rate_per_s=PACE_PER_S))
        first = [await _first_look_ups(Path(name) / "keys") for _ in range(runs)]
    failures = sum(report.failures for report in (*closed, *paced))
    return [
        alone("look_ups_per_s", "requests/s", [report.requests_per_s for report in closed], RATE),
        alone("look_ups_p99_ms_at_1000_per_s", "ms", [report.p99_us / 1e3 for report in paced], LATENCY),
        alone("look_ups_p50_ms_at_1000_per_s", "ms", [report.p50_us / 1e3 for report in paced], STATED),
        alone("first_look_ups_per_s_without_wire", "requests/s", first, STATED),
        alone("failures", "requests", [failures], Goal(text="0", most=0)),
    ]


async def _load(server: _Server, *, seconds: float, rate_per_s: float | None) -> LoadReport:
    head = f"GET {LOOK_UP_PATH} HTTP/1.1\r\nhost: controller\r\nauthorization: Bearer {server.token}\r\n\r\n"
    gateway = server.directory / "gateway"
    return await run_load(
        LoadPlan(
            host=HOST,
            port=server.port,
            request=head.encode(),
            connections=CONNECTIONS,
            seconds=seconds,
            rate_per_s=rate_per_s,
            cpu=max(os.sched_getaffinity(0)),
            certificate=str(gateway / "cert.pem"),
            key=str(gateway / "key.pem"),
            trust=str(gateway / "ca.pem"),
        )
    )


@contextlib.contextmanager
def _server(directory: Path) -> Generator[_Server]:
    """Run the controller side in a process of its own."""
    authority = CertificateAuthority.open(directory / "ca", TRUST_DOMAIN)
    authority.write_identity(directory / "controller", "controller", CONTROLLER, addresses=[HOST])
    authority.write_identity(directory / "gateway", "gateway", GATEWAY, addresses=[HOST])
    KeyStore.open(directory / "keys")
    with subprocess.Popen([sys.executable, "-m", __name__, str(directory)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None  # noqa: S101
            port, token = process.stdout.readline().split()
            yield _Server(port=int(port), directory=directory, token=token.decode())
        finally:
            process.terminate()


async def _serve(directory: Path) -> None:
    """Serve look-ups of one steered session among many; print the port and the session's token."""
    keys = KeyStore.open(directory / "keys")
    controller = Controller.make(directory / "controller")
    await controller.start(_verifier(keys))
    await controller.driver.reconcile(1, [])
    sessions = [SessionId(str(uuid.uuid4())) for _ in range(10_000)]
    await controller.driver.install([_grant(session) for session in sessions])
    print(controller.look_up_port, _token(JwtSigner(keys, ISSUER), sessions[0]), flush=True)
    await asyncio.Event().wait()


async def _first_look_ups(keys_directory: Path) -> float:
    """Return how many sessions a second can be looked up for the first time, without the wire and the journal."""
    keys = KeyStore.open(keys_directory)
    signer, table = JwtSigner(keys, ISSUER), SteeringTable()
    sessions = [SessionId(str(uuid.uuid4())) for _ in range(FIRST_LOOK_UPS)]
    table.begin(1, [_grant(session) for session in sessions])
    scopes = [_scope(_token(signer, session)) for session in sessions]
    endpoint = SteeringEndpoint(
        table,
        generation=lambda: "1.0",
        verifier=_verifier(keys),
        on_installed=_journalled,
        gate=lambda: True,
        clock=system_now,
    )
    statuses: list[int] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        statuses.extend([message["status"]] if "status" in message else [])

    began = time.perf_counter()
    for scope in scopes:
        await endpoint(scope, _nothing, send)
    elapsed = time.perf_counter() - began
    if statuses.count(200) != FIRST_LOOK_UPS:
        raise RuntimeError("look-ups were refused")
    return FIRST_LOOK_UPS / elapsed


async def _journalled(session: SessionId, anchor: AnchorId, epoch: Epoch, gateway: GatewayId) -> None:
    del session, anchor, epoch, gateway


async def _nothing() -> MutableMapping[str, Any]:
    raise RuntimeError("a look-up has no body")


def _scope(token: str) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "GET",
        "path": LOOK_UP_PATH,
        "headers": [(b"authorization", f"Bearer {token}".encode())],
        "extensions": {IDENTITY: ("gateway", GATEWAY)},
    }


def _verifier(keys: KeyStore) -> JwtVerifier:
    return JwtVerifier(keys.jwks(), ISSUER, lambda: system_now().wall_us)


def _token(signer: JwtSigner, session: SessionId) -> str:
    now_us = system_now().wall_us
    return signer.sign_aist(
        AistClaims(
            session=session,
            tenant=TenantId("tenant-1"),
            client=ClientId("client-1"),
            aisi=ServiceUri("aisi://bench/echo/one"),
            token_id=str(uuid.uuid4()),
            issued_us=now_us,
            expires_us=WallUs(now_us + LEASE_US),
        )
    )


def _grant(session: SessionId) -> SteeringGrant:
    now = system_now()
    return SteeringGrant(
        session=session,
        anchor=AnchorId("bench"),
        epoch=Epoch(1, 1),
        deadline_us=now.after(LEASE_US),
        token_expires_us=WallUs(now.wall_us + LEASE_US),
        receipt=RECEIPT,
        rate_mrps=1_000,
        burst=1,
    )


def main() -> None:
    """Serve from the directory that the first argument names, on the first core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    uvloop.run(_serve(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
