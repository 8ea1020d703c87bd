"""`aipaging bench admission`: how long it takes to decide whether a session can be promised its tail, and where.

A decision is one `step` of a page: every anchor looked at, the paths bounded, the cheapest feasible chosen, its budget
and its effect on the sessions in shared queues checked, the events made. 100 anchors stand behind paths of three
domains; 1,000 sessions are live. Where `line-solver` is installed, its bound of a path of three hops, taken once for
every candidate, is timed in turns with our whole decision.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from itertools import count
from typing import Any, Final

import numpy as np
from msgspec import structs

from aipaging.apps.bench.interleaved import Goal, against, alone
from aipaging.apps.bench.result import BenchResult
from aipaging.core.anchor.catalogue import Anchor, AnchorState, Catalogue, Domain, DomainKind, Path, Service
from aipaging.core.anchor.intent import DataClass, Intent
from aipaging.core.calculus.risk_budget import DelayContract
from aipaging.core.envelope.envelope import Dependence, Envelope
from aipaging.core.envelope.service import OnOffSlots, ReservedRate, ServiceModel, SharedRate, worst_contract
from aipaging.core.envelope.service import Traffic as Bucket
from aipaging.core.foundation.names import AnchorId, ClientId, DomainName, ServiceUri, SessionId, TenantId
from aipaging.core.foundation.time import BootUs, Now, WallUs
from aipaging.core.paging.commands import Admitted, Page, Refused
from aipaging.core.paging.state import State
from aipaging.core.paging.step import evolve, step

ANCHORS: Final = 100
SESSIONS: Final = 1_000
TENANTS: Final = 20
EVER: Final = WallUs(2**52)
NOW: Final = Now(boot_us=BootUs(10**9), wall_us=WallUs(10**15))
SERVICE: Final = ServiceUri("aisi://bench/embed/one")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What is on offer in a run.

    Attributes:
        computes: How many compute domains the anchors stand in; so many paths differ.
        served: Whether domains say how they serve (slots, a shared queue, reserved rates) or promise contracts alone.
    """

    computes: int
    served: bool


def run(*, quick: bool, seed: int) -> list[BenchResult]:
    """Measure complete decisions, and what a refusal costs that explains itself.

    Args:
        quick: Fewer repetitions.
        seed: Of the envelopes' numbers.
    """
    runs, inner = (7, 20) if quick else (15, 60)
    worlds = {
        "decision": World(computes=ANCHORS, served=False),
        "decision_one_compute_domain": World(computes=1, served=False),
        "decision_service_models": World(computes=ANCHORS, served=True),
    }
    states = {name: populated(world, seed) for name, world in worlds.items()}
    results: list[BenchResult] = []
    times: list[float] = []
    for name, state in states.items():
        decide = partial(_admitted, state, intent(300.0))
        times = [_microseconds(decide, inner) for _ in range(runs)]
        results.append(alone(name, "us", times, Goal(text="<= 1000", most=1000.0)))
        if name == "decision":
            rates = [ANCHORS / spent * 1e6 for spent in times]
            results.append(alone("candidates_decided", "1/s", rates, Goal(text=">= 100000", least=1e5)))
    first = partial(_admitted_anew, states["decision_service_models"], count(1))
    spent = [_microseconds(first, 3) for _ in range(runs)]
    results.append(alone("decision_first_of_its_traffic_class", "us", spent, Goal(text="<= 5000", most=5_000.0)))
    refuse = partial(_refused, states["decision"], intent(31.0))
    spent = [_microseconds(refuse, 3) for _ in range(runs)]
    results.append(alone("refusal_of_all_with_reasons", "us", spent, Goal(text="<= 50000", most=50_000.0)))
    return [*results, *_against_line(states["decision"], runs)]


def _against_line(state: State, runs: int) -> list[BenchResult]:
    if find_spec("line_solver") is None:
        return []
    peer: Any = import_module("line_solver.api.snc")

    def leftover(theta: float) -> tuple[float, float]:
        return 0.0, 3.0 + math.log1p(-min(theta, 1.0 - 1e-12)) / theta

    def three_hops(theta: float) -> tuple[float, float]:
        sigma, rho = leftover(theta)
        for _ in range(2):
            sigma, rho = peer.snc_conv(sigma, rho, *leftover(theta), theta)
        return sigma, rho

    flow = partial(peer.snc_env_poisson, 0.5)

    def every_candidate() -> None:
        for _ in range(ANCHORS):
            peer.snc_bound_delay(flow, three_hops, 20.0, 1.0)

    decide = partial(_admitted, state, intent(300.0))
    times = [(_microseconds(decide, 5), _microseconds(every_candidate, 1)) for _ in range(min(runs, 7))]
    goal = Goal(text="<= 0.1 of the peer", most=0.1, of_ratio=True)
    return [against("decision_against_bounds_one_by_one", "us", times, peer="line-solver", goal=goal)]


def _microseconds(call: Callable[[], object], inner: int) -> float:
    call()
    started = time.perf_counter()
    for _ in range(inner):
        call()
    return (time.perf_counter() - started) / inner * 1e6


def _page(wanted: Intent, name: str, tenant: int) -> Page:
    return Page(
        session=SessionId(name),
        tenant=TenantId(f"tenant-{tenant}"),
        client=ClientId("bench"),
        token_id=name,
        salt=b"0" * 16,
        intent=wanted,
    )


def _admitted(state: State, wanted: Intent) -> None:
    reply = step(state, _page(wanted, "session-new", 0), NOW).reply
    if not isinstance(reply, Admitted):
        raise TypeError(reply)


def _admitted_anew(state: State, numbers: Iterator[int]) -> None:
    """Decide for an epsilon that nobody had before, so that no contract of a service model is remembered."""
    _admitted(state, structs.replace(intent(300.0), epsilon=1e-3 * (1.0 + 1e-9 * next(numbers))))


def _refused(state: State, wanted: Intent) -> None:
    reply = step(state, _page(wanted, "session-new", 0), NOW).reply
    if not isinstance(reply, Refused):
        raise TypeError(reply)


def intent(delay_ms: float) -> Intent:
    """Return a modest intent."""
    return Intent(
        task="embeddings",
        modality="text",
        place=DomainName("access"),
        delay_ms=delay_ms,
        epsilon=1e-3,
        rate_rps=2.0,
        burst=2,
        duration_s=60,
    ).checked()


def populated(world: World, seed: int) -> State:
    """Return a state with 1,000 live sessions of 20 tenants, admitted one by one."""
    state = State(catalogue=_catalogue(world, seed))
    wanted = intent(300.0)
    for i in range(SESSIONS):
        decision = step(state, _page(wanted, f"session-{i}", i % TENANTS), NOW)
        for event in decision.events:
            evolve(state, event)
    if state.live != SESSIONS:
        raise RuntimeError(f"only {state.live} sessions were admitted")
    return state


def _catalogue(world: World, seed: int) -> Catalogue:
    rng = np.random.default_rng(seed)
    computes = [DomainName(f"compute-{i}") for i in range(world.computes)]
    kinds = {DomainName("access"): DomainKind.ACCESS, DomainName("metro"): DomainKind.TRANSPORT}
    kinds.update(dict.fromkeys(computes, DomainKind.COMPUTE))
    catalogue = Catalogue(
        services={SERVICE: Service(aisi=SERVICE, task="embeddings", modality="text", model="one", price=1)},
        domains={name: _domain(name, kind) for name, kind in kinds.items()},
        paths={
            (DomainName("access"), name): Path(
                access=DomainName("access"), compute=name, transport=(DomainName("metro"),)
            )
            for name in computes
        },
    )
    for name, kind in kinds.items():
        catalogue.envelopes[name, ""] = _envelope(name, _model(kind) if world.served else None, rng)
    for i in range(ANCHORS):
        anchor = AnchorId(f"anchor-{i:03d}")
        catalogue.anchors[anchor] = Anchor(
            anchor=anchor,
            domain=computes[i % len(computes)],
            aisi=SERVICE,
            host="127.0.0.1",
            port=9000,
            tls=True,
            capacity_mrps=2_500_000,
            in_flight_max=64,
            state=AnchorState.READY,
        )
    return catalogue


def _domain(name: DomainName, kind: DomainKind) -> Domain:
    return Domain(
        name=name,
        kind=kind,
        region="eu",
        jurisdiction="eu",
        trust=3,
        data_class_max=DataClass.RESTRICTED,
        capacity_mrps=0,
    )


def _model(kind: DomainKind) -> ServiceModel:
    if kind is DomainKind.ACCESS:
        return OnOffSlots(slot_ms=1.0, requests_per_slot=1.0, availability=0.9)
    if kind is DomainKind.TRANSPORT:
        return SharedRate(rate_per_ms=100.0, latency_ms=2.0, burst_total_max=10_000)
    return ReservedRate(rate_per_ms=0.05, latency_ms=5.0)


def _envelope(name: DomainName, model: ServiceModel | None, rng: np.random.Generator) -> Envelope:
    contract = DelayContract(
        offset_ms=10.0, prefactor=float(rng.uniform(0.5, 2.0)), decay_per_ms=float(rng.uniform(0.1, 0.3))
    )
    if model is not None:
        worst = worst_contract(model, Bucket.of(10_000, 10), 1e-6)
        contract = worst if worst is not None else contract
    return Envelope(
        domain=name,
        segment="",
        sequence=1,
        contract=contract,
        loss=1e-6,
        error=1e-6,
        rate_mrps_max=10_000,
        burst_max=10,
        capacity_mrps=0,
        valid_from_us=WallUs(0),
        valid_until_us=EVER,
        dependence=Dependence.ANY,
        common_cause="",
        digest=sha256(name.encode()).hexdigest(),
        service=model,
    )
