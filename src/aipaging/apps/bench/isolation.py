"""Two tenants at one anchor: what a tenant that sends ten times its contract does to the other's tail.

The running system: controller, Envoy, two sidecars before one upstream with a fixed service time. At one anchor
reservations are enforced; at the other the sidecar runs `--without-reservations` (first come, first served) and the
sessions' contracts are so wide that the gateway limits nobody. Same load, in turns. The peer is the second anchor.

The bound is that of the fair queue (docs/background/user-plane.md): the victim sends within its reservation, so it
waits at most (T - 1) L/D + L for its slot, and is served within L. L is what a lone request took at the 99.9th
percentile in the same run, gateway and network included; T = 2 tenants, D slots.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aipaging.apps.bench.interleaved import Goal, against, alone
from aipaging.apps.bench.load import LoadPlan, LoadReport, run_load
from aipaging.apps.bench.result import BenchResult
from aipaging.core.foundation.errors import UnavailableError
from aipaging.testing.loopback_stack import HOST, BenchAnchor, BenchStack, Contract, Times, bench_stack

PEER: Final = "the same system without reservations"
ROUNDS: Final = 3
SECONDS: Final = 20.0
SECONDS_QUICK: Final = 10.0
"""At 95 requests/s, 950 requests stand behind a 99.9th percentile: it is the largest. Of the long run, 1,900 each."""

SERVICE_MS: Final = 20
SLOTS: Final = 8
"""D/L is 400 requests/s less what timers and sockets take; the contracts sum to 250."""

VICTIM: Final = Contract(tenant="bench", rate_rps=100.0, burst=10)
OFFENDER: Final = Contract(tenant="other", rate_rps=150.0, burst=8)
VICTIM_SENDS_RPS: Final = 95.0
TIMES_OVER: Final = 10
OFFENDER_CONNECTIONS: Final = 192
"""What waits at most in the one line; the offender has no patience for more."""

VICTIM_CONNECTIONS: Final = 64
TENANTS: Final = 2
CLUMPING_S: Final = 0.01
"""What the gateway's guardrail allows beyond the contract."""

LEASE: Final = Times(lease_ms=10_000)
KEPT: Final = "reserved"
NOT_KEPT: Final = "unreserved"
OPTIONS: Final = ("--concurrency", str(SLOTS), "--queue", "1024")
ANCHORS: Final = (
    BenchAnchor(name=KEPT, plain_text=True, options=OPTIONS),
    BenchAnchor(name=NOT_KEPT, plain_text=True, options=(*OPTIONS, "--without-reservations")),
)

STATED: Final = Goal(text="stated")
NONE: Final = Goal(text="0", most=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round at one anchor: the victim alone, then beside the offender.

    Attributes:
        alone: What the victim saw by itself.
        beside: What it saw beside the offender.
        offender: What the offender saw.
    """

    alone: LoadReport
    beside: LoadReport
    offender: LoadReport


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tokens:
    victim: str
    offender: str


def run(*, quick: bool, seed: int) -> list[BenchResult]:
    """Measure; the seed changes nothing, since every request is the same."""
    del seed
    rounds = asyncio.run(measured(rounds=1 if quick else ROUNDS, seconds=SECONDS_QUICK if quick else SECONDS))
    return results(rounds)


def bound_ms(alone_ms: float) -> float:
    """Return the bound on the victim's delay, given what a lone request takes."""
    return (TENANTS - 1) * alone_ms / SLOTS + 2 * alone_ms


async def measured(*, rounds: int, seconds: float) -> list[tuple[Round, Round]]:
    """Return the rounds, each as (with reservations, without)."""
    with tempfile.TemporaryDirectory(prefix="aipaging-bench-") as name, _upstream() as upstream_port:
        async with bench_stack(Path(name) / "stack", ANCHORS, LEASE, upstream_port=upstream_port) as stack:
            kept = await _sessions(stack, KEPT, VICTIM, OFFENDER)
            wide = (Contract(tenant=VICTIM.tenant), Contract(tenant=OFFENDER.tenant))
            not_kept = await _sessions(stack, NOT_KEPT, *wide)
            found: list[tuple[Round, Round]] = []
            for turn in range(rounds):
                order = (kept, not_kept) if turn % 2 == 0 else (not_kept, kept)
                pair = {id(tokens): await _round(stack.gateway_port, tokens, seconds) for tokens in order}
                found.append((pair[id(kept)], pair[id(not_kept)]))
            return found


def results(rounds: Sequence[tuple[Round, Round]]) -> list[BenchResult]:
    """Return what is reported: the four tails of the victim, the bound, and who was limited how often."""
    bounds = [bound_ms(kept.alone.p999_us / 1e3) for kept, _ in rounds]
    bound = sorted(bounds)[len(bounds) // 2]
    quiet = [(kept.alone.p999_us / 1e3, other.alone.p999_us / 1e3) for kept, other in rounds]
    loud = [(kept.beside.p999_us / 1e3, other.beside.p999_us / 1e3) for kept, other in rounds]
    within = Goal(text=f"<= the bound, {bound:.1f}", most=bound)
    passed = [(kept.offender.requests, other.offender.requests) for kept, other in rounds]
    allowed = max(OFFENDER.burst + OFFENDER.rate_rps * (kept.offender.seconds + CLUMPING_S) + 1 for kept, _ in rounds)
    unmoved = [other.beside.p999_us / 1e3 for _, other in rounds]
    return [
        against("victim_alone_p999", "ms", quiet, peer=PEER, goal=STATED),
        against("victim_beside_offender_p999", "ms", loud, peer=PEER, goal=within),
        alone("bound_of_victim", "ms", bounds, STATED),
        alone("without_reservations_p999_beyond_bound", "ms", unmoved, Goal(text=f"> {bound:.1f}", least=bound)),
        alone("victim_limited", "429s", [float(_refused(kept)) for kept, _ in rounds], NONE),
        alone("victim_refused_without_reservations", "429s", [float(_refused(other)) for _, other in rounds], STATED),
        alone("offender_limited", "429s", [float(kept.offender.limited) for kept, _ in rounds], STATED),
        against(
            "offender_passed",
            "requests",
            [(float(mine), float(theirs)) for mine, theirs in passed],
            peer=PEER,
            goal=Goal(text=f"<= the contract, {allowed:.0f}", most=allowed),
        ),
    ]


def _refused(each: Round) -> int:
    return each.alone.failures + each.beside.failures


async def _sessions(stack: BenchStack, anchor: str, victim: Contract, offender: Contract) -> _Tokens:
    pages = [await stack.page(anchor=anchor, contract=contract) for contract in (victim, offender)]
    return _Tokens(victim=pages[0]["aist"], offender=pages[1]["aist"])


async def _round(port: int, tokens: _Tokens, seconds: float) -> Round:
    quiet = await run_load(_victim(port, tokens.victim, seconds))
    offending = asyncio.create_task(
        run_load(
            LoadPlan(
                host=HOST,
                port=port,
                request=_request(tokens.offender),
                connections=OFFENDER_CONNECTIONS,
                seconds=seconds,
                rate_per_s=OFFENDER.rate_rps * TIMES_OVER,
            )
        )
    )
    beside, offender = await asyncio.gather(run_load(_victim(port, tokens.victim, seconds)), offending)
    return Round(alone=quiet, beside=beside, offender=offender)


def _victim(port: int, token: str, seconds: float) -> LoadPlan:
    return LoadPlan(
        host=HOST,
        port=port,
        request=_request(token),
        connections=VICTIM_CONNECTIONS,
        seconds=seconds,
        rate_per_s=VICTIM_SENDS_RPS,
    )


def _request(token: str) -> bytes:
    body = json.dumps({"model": "load", "messages": [{"role": "user", "content": "hello"}]}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {token}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@contextlib.contextmanager
def _upstream() -> Generator[int]:
    """Run the token server: one token after a fixed time, never its own limit."""
    command = [
        sys.executable, "-m", "aipaging.apps.cli", "token-server", "--listen", f"{HOST}:0", "--json",
        "--first-token-ms", str(SERVICE_MS), "--gap-ms", "0", "--tokens", "1", "--slots", "4096",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout is not None else ""
            if not line:
                raise UnavailableError("the token server did not start", code="PART_FAILED")
            yield int(str(json.loads(line)["listening"]).rpartition(":")[2])
        finally:
            process.terminate()
