"""AIP 1: how long an AI-Paging transaction takes, by phase, with 1, 10 and 100 clients at once.

A transaction of one client: page (intent in, session with AIST and bound out: resolved, admitted, journalled, synced),
then the first answer through the gateway (look-up, STEER_INSTALLED on disk, mutual TLS to the sidecar, its question for
remaining time, inference). Beside them a later answer of the same session, which is what the data path and the model
take without any of that. Clients are one process on the same machine, and their time is part of what is measured.
"""

import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import Generator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import httpx

from aipaging.apps.evaluate.curves import quantile, steps
from aipaging.apps.evaluate.experiment import WIDE_FROM, Experiment, Finding, Measured, Setting
from aipaging.apps.evaluate.stack import require_envoy
from aipaging.core.foundation.errors import UnavailableError
from aipaging.testing.loopback_stack import HOST, BenchAnchor, BenchStack, Times, bench_stack
from aipaging.testing.recording_upstream import recording_upstream
from aipaging.testing.stack import Processes, free_ports

CLIENTS: Final = (1, 10, 100)
TRANSACTIONS: Final = {1: 60, 10: 200, 100: 400}
TRANSACTIONS_FULL: Final = {1: 500, 10: 2_000, 100: 5_000}
PHASES: Final = {
    "page": "page (admitted, on disk)",
    "first": "first answer (steered, installed)",
    "whole": "whole transaction",
    "later": "a later answer",
}
BOUND_MS: Final = 1_000.0
"""What counts as prompt: a person waits so long without losing the thread (Nielsen, 1993)."""

PROMPT_AT: Final = 10
LEASE: Final = Times(lease_ms=10_000)
ANSWER_S_MAX: Final = 30.0
OK: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """What answers behind the anchor.

    Attributes:
        name: What it is.
        port: Where it listens.
        path: What clients ask for.
        body: With which body.
    """

    name: str
    port: int
    path: str
    body: bytes


def _started(processes: Processes, port: int) -> bool:
    """Start the model's server, unless the wheel with the model is missing."""
    with contextlib.suppress(UnavailableError):
        asyncio.run(processes.start("model", "model-server", "--listen", f"{HOST}:{port}", "--queue", "1000", "--json"))
        return True
    return False


@contextlib.contextmanager
def upstream(work: Path) -> Generator[Upstream]:
    """Run the embedding model, or where it is not installed an upstream that answers at once."""
    if find_spec("onnxruntime") is not None:
        port = free_ports(1)[0]
        processes = Processes(folder=work, data_dir=work / "none")
        try:
            if _started(processes, port):
                body = json.dumps({"model": "all-MiniLM-L6-v2", "input": "Make before break."}).encode()
                yield Upstream(name="all-MiniLM-L6-v2", port=port, path="/v1/embeddings", body=body)
                return
        finally:
            processes.stop()
    with recording_upstream(work / "upstream.json") as port:
        yield Upstream(name="an upstream that answers at once (no model is installed)", port=port, path="/json/0",
                       body=b'{"input":"hello"}')  # fmt: skip


async def transactions(stack: BenchStack, behind: Upstream, *, clients: int, count: int) -> dict[str, Any]:
    """Run so many transactions by so many clients; return the milliseconds of each phase, and the failures."""
    found: dict[str, Any] = {phase: [] for phase in PHASES} | {"failed": 0}
    left = iter(range(count))
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    url = f"http://{HOST}:{stack.gateway_port}{behind.path}"

    async with httpx.AsyncClient(timeout=ANSWER_S_MAX, limits=limits) as gateway:

        async def ask(token: str) -> tuple[float, bool]:
            headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
            began = time.perf_counter()
            try:
                answer = await gateway.post(url, content=behind.body, headers=headers)
            except httpx.HTTPError:
                return 0.0, False
            return (time.perf_counter() - began) * 1e3, answer.status_code == OK

        async def client() -> None:
            for _ in left:
                began = time.perf_counter()
                session = await stack.page()
                paged_ms = (time.perf_counter() - began) * 1e3
                first_ms, first_ok = await ask(session["aist"])
                later_ms, later_ok = await ask(session["aist"])
                await stack.call("DELETE", f"/sessions/{session['sessionId']}")
                if not (first_ok and later_ok):
                    found["failed"] += 1
                    continue
                for phase, spent_ms in (
                    ("page", paged_ms), ("first", first_ms), ("whole", paged_ms + first_ms), ("later", later_ms)
                ):  # fmt: skip
                    found[phase].append(spent_ms)

        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client())
    return found


async def _all(setting: Setting, behind: Upstream) -> dict[str, Any]:
    anchors = [BenchAnchor(name="east")]
    counts = TRANSACTIONS_FULL if setting.scale > WIDE_FROM else TRANSACTIONS
    found: dict[str, Any] = {}
    async with bench_stack(setting.work / "stack", anchors, LEASE, upstream_port=behind.port) as stack:
        await transactions(stack, behind, clients=4, count=8)  # connections, caches: as in a system that runs
        for clients in CLIENTS:
            count = counts[clients] if setting.scale >= WIDE_FROM else 2 * min(clients, 5)
            found[str(clients)] = await transactions(stack, behind, clients=clients, count=count)
        found["sound"] = await stack.evidence_holds()
    return found


def measure(setting: Setting) -> Measured:
    """Run all transactions on one stack."""
    require_envoy()
    with upstream(setting.work) as behind:
        found = asyncio.run(_all(setting, behind))
    return {"upstream": behind.name, "sound": found.pop("sound"), "clients": found}


def conclude(measured: Measured) -> Finding:
    """Say how long it takes."""
    by = measured["clients"]
    failed = sum(one["failed"] for one in by.values())
    count = sum(len(one["whole"]) for one in by.values())
    told = "; ".join(
        f"{clients} client{'s' if clients != '1' else ''}: median {statistics.median(one['whole']):.0f} ms, p99 "
        f"{quantile(one['whole'], 0.99):.0f} ms, of which the page {statistics.median(one['page']):.0f} ms"
        for clients, one in by.items()
        if one["whole"]
    )
    at = by[str(PROMPT_AT)]["whole"]
    prompt = quantile(at, 0.99)
    sentence = (
        f"From intent to first answer ({measured['upstream']}): {told}; {failed} of {count + failed} transactions "
        f"failed, and the p99 with {PROMPT_AT} clients is {'below' if prompt <= BOUND_MS else 'NOT below'} the "
        f"{BOUND_MS:g} ms within which a person keeps the thread ({prompt / BOUND_MS:.0%} of it)."
    )
    numbers = {
        f"whole_ms_p50_{clients}": statistics.median(one["whole"]) for clients, one in by.items() if one["whole"]
    }
    return Finding(
        sentence=sentence,
        confirmed=failed == 0 and prompt <= BOUND_MS and bool(measured["sound"]),
        numbers={**numbers, f"whole_ms_p99_{PROMPT_AT}": prompt, "failed": failed},
    )


def draw(figure: Any, measured: Measured) -> None:
    """Draw the distribution of each phase, by clients."""
    axes = figure.subplots(1, len(CLIENTS), sharex=True, sharey=True)
    for one, (clients, phases) in zip(axes, measured["clients"].items(), strict=True):
        for place, (phase, name) in enumerate(PHASES.items()):
            if phases[phase]:
                steps(one, phases[phase], place, name)
        one.set(xscale="log", xlabel="ms", ylim=(0.0, 1.0))
        one.set_title(
            f"{clients} client{'s' if clients != '1' else ''}: {len(phases['whole'])} transactions", fontsize=9.5
        )
        one.axhline(0.5, color="#94a3b8", linewidth=0.8, linestyle=":")
    axes[0].set_ylabel("share of transactions that took less")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(PHASES))


AIP1: Final = Experiment(
    name="AIP1",
    title="Transaction latency by phase",
    claim="transaction latency: from an intent to the first answer",
    method=(
        "Controller with synced journal, Envoy, one sidecar, a real embedding model where it is installed, and all "
        "clients on one machine, over loopback. Every client pages, asks twice, and ends its session, again and again."
    ),
    measure=measure,
    conclude=conclude,
    draw=draw,
)
