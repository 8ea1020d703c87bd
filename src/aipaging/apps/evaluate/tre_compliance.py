"""TRE 1: who keeps the promise of p99.9 under overload, and how many tenants each way of admission lets in.

Alike tenants with bursts (Poisson requests in exponential on-times, none in off-times) share one domain in order of
arrival. Each intent says: late with probability 0.001 at most. What is admitted is decided by

* nothing: everybody is let in;
* mean rates: as long as the sum of mean rates is within the capacity;
* deterministic: an envelope whose service model is one queue shared by token buckets, in the real core;
* Tail-Risk Envelope: a delay contract that the calculus proves for a number of tenants, signed with the capacity for
  so many, in the real core: `step` of `core/paging` admits until the ledger is full or the bound does not hold.

Then the packets of those who were admitted are simulated. How many could have been admitted is found by simulation.
"""

import math
from dataclasses import replace
from typing import Any, Final

from aipaging.adapters.terminal.picture import COLOURS
from aipaging.apps.evaluate.curves import MARKERS, bars, limit
from aipaging.apps.evaluate.experiment import WIDE_FROM, Experiment, Finding, Measured, Setting
from aipaging.apps.evaluate.packets import late_share
from aipaging.core.anchor.catalogue import AnchorState, DomainKind, Path, Service
from aipaging.core.anchor.intent import Intent
from aipaging.core.calculus import ConstantWork, DelayContract, Domain, MarkovPoisson, RateLatency, bound_path
from aipaging.core.envelope.envelope import Envelope
from aipaging.core.envelope.service import ServiceModel, SharedRate, Traffic, worst_contract
from aipaging.core.foundation.names import DomainName
from aipaging.core.paging import commands as c
from aipaging.testing import world as w

CAPACITY: Final = 1.0
"""Requests per ms that the domain serves; every request is the same work."""

ON_MS, OFF_MS, ON_RATE = 50.0, 150.0, 0.04
"""A tenant sends 40 requests/s for 50 ms, then nothing for 150 ms, on the average."""

MEAN_RATE: Final = ON_RATE * ON_MS / (ON_MS + OFF_MS)
BUCKET_RATE, BUCKET = 0.02, 12
"""The token bucket of the intent, kept by a policer: 20 requests/s, 12 at once."""

DELAY_MS: Final = 100.0
EPSILON: Final = 1e-3
OWN_MS: Final = 1.0 / CAPACITY
LOADS: Final = (0.3, 0.6, 0.75, 0.85, 0.95, 1.05, 1.2, 1.5)
LOADS_FULL: Final = (0.3, 0.45, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.35, 1.5)
WAYS: Final = {
    "none": "no admission control",
    "mean": "mean-rate admission",
    "deterministic": "deterministic (sigma, rho) admission",
    "tre": "Tail-Risk Envelope admission",
}
TENANTS_MAX: Final = round(LOADS[-1] * CAPACITY / MEAN_RATE)
PACKETS: Final = 400_000
PROVEN_TIMES: Final = 10
"""More packets where the envelope's promise is checked: its exceedances are rare."""

FLOOR: Final = 1e-6
SIDE: Final = 0.008
"""Ways are drawn side by side: their intervals would cover one another."""

CORE: Final = DomainName("edge-one")


def contract_for(tenants: int) -> DelayContract | None:
    """Return a delay contract that holds for requests of so many tenants, or None if they overload the domain.

    The bound is on the work that an instant finds. A request finds what instants find *at which its tenant is on*
    (arrivals are Poisson then), which is at most 1 / P(on) as likely; its own work comes on top.
    """
    flows = MarkovPoisson(
        count=tenants,
        generator=((-1.0 / ON_MS, 1.0 / ON_MS), (1.0 / OFF_MS, -1.0 / OFF_MS)),
        rates=(ON_RATE, 0.0),
        work=ConstantWork(value=1.0),
    )
    if flows.mean_rate >= CAPACITY:
        return None
    found = bound_path(
        flows, [Domain(name="domain", service=RateLatency(rate=CAPACITY, latency=0.0))], DELAY_MS - OWN_MS
    ).bound
    decay = found.parameters["theta"] * CAPACITY
    prefactor = found.probability * math.exp(decay * (DELAY_MS - OWN_MS)) * (ON_MS + OFF_MS) / ON_MS
    return DelayContract(offset_ms=OWN_MS, prefactor=prefactor * (1.0 + 1e-9), decay_per_ms=decay * (1.0 - 1e-9))


def provable() -> tuple[int, DelayContract]:
    """Return the most tenants for which the contract proves the promise, and the contract."""
    best: tuple[int, DelayContract] | None = None
    for tenants in range(1, TENANTS_MAX + 1):
        contract = contract_for(tenants)
        if contract is None or contract.prefactor * math.exp(-contract.decay_per_ms * (DELAY_MS - OWN_MS)) > EPSILON:
            break
        best = (tenants, contract)
    if best is None:
        raise AssertionError("not even one tenant could be promised anything")
    return best


def envelope_of(contract: DelayContract, tenants: int) -> Envelope:
    """Return the domain's envelope: the contract, sold to so many tenants."""
    base = w.envelope(CORE)
    return replace(
        base, contract=contract, loss=0.0, error=0.0, capacity_mrps=tenants * round(BUCKET_RATE * 1e6),
        rate_mrps_max=round(BUCKET_RATE * 1e6), burst_max=BUCKET,
    )  # fmt: skip


def envelope_served(model: ServiceModel) -> Envelope:
    """Return the domain's envelope that says how it serves, and nothing of tails."""
    worst = worst_contract(model, Traffic(rate_per_ms=BUCKET_RATE, burst=BUCKET), EPSILON)
    if worst is None:
        raise AssertionError("the token bucket does not fit the model")
    base = envelope_of(worst, 0)
    return replace(base, capacity_mrps=round(CAPACITY * 1e6), service=model)


def admitted(envelope: Envelope, offered: int) -> tuple[int, str]:
    """Return how many of the offered intents the real core admits, and what it says to the next."""
    world = w.World()
    access = replace(
        w.envelope(w.ACCESS), contract=DelayContract(offset_ms=0.0, prefactor=0.0, decay_per_ms=1.0), loss=0.0,
        error=0.0,
    )  # fmt: skip
    anchor = replace(w.anchor("a", CORE, capacity_rps=1_000_000))
    for command in (
        c.StartTerm(settings=world.settings, software="evaluation"),
        c.RegisterService(service=Service(aisi=w.EMBED, task="embeddings", modality="text", model="m", price=1)),
        c.RegisterDomain(domain=w.domain(w.ACCESS, DomainKind.ACCESS, "eu")),
        c.RegisterDomain(domain=w.domain(CORE, DomainKind.COMPUTE, "eu")),
        c.RegisterPath(path=Path(access=w.ACCESS, compute=CORE, transport=())),
        w.accept(access),
        w.accept(envelope),
        c.RegisterAnchor(anchor=anchor),
        c.Heartbeat(anchor=anchor.anchor, state=AnchorState.READY),
    ):
        world.do(command)
    wanted: Intent = w.intent(
        delay_ms=DELAY_MS, epsilon=EPSILON, rate_rps=BUCKET_RATE * 1e3, burst=BUCKET, duration_s=3_600
    )
    for count in range(offered):
        reply = world.page(wanted).reply
        if isinstance(reply, c.Refused):
            return count, f"{reply.constraint}: {reply.message}"
    return offered, ""


def let_in(offered: int) -> dict[str, int]:
    """Return how many of the offered tenants each way lets in."""
    tenants, contract = provable()
    shared = SharedRate(rate_per_ms=CAPACITY, latency_ms=0.0, burst_total_max=math.floor(DELAY_MS * CAPACITY))
    return {
        "none": offered,
        "mean": min(offered, math.floor(CAPACITY / MEAN_RATE + 1e-9)),
        "deterministic": admitted(envelope_served(shared), offered)[0],
        "tre": admitted(envelope_of(contract, tenants), offered)[0],
    }


def lateness(setting: Setting, tenants: int, more: int) -> dict[str, float]:
    """Return how often requests of so many tenants are late, simulated."""
    tenant = {
        "route": ["domain"],
        "arrivals": {"kind": "on-off", "rate_per_ms": ON_RATE, "mean_on_ms": ON_MS, "mean_off_ms": OFF_MS},
        "work": {"kind": "constant", "value": 1.0},
        "regulator": {"kind": "policer", "rate_per_ms": BUCKET_RATE, "burst": float(BUCKET)},
        "targets_ms": [DELAY_MS],
    }
    document = {
        "domain": [{"name": "domain", "rate_per_ms": CAPACITY, "discipline": "fifo"}],
        "tenant": [{"name": f"tenant-{number}", **tenant} for number in range(tenants)],
    }
    return late_share(
        document, DELAY_MS, packets=setting.packets(PACKETS) * more, seed=setting.seed_of(f"late-{tenants}")
    )


def measure(setting: Setting) -> Measured:
    """Simulate every way at every load."""
    proven, _ = provable()

    def late(tenants: int) -> Any:
        more = PROVEN_TIMES if tenants == proven else 1
        return setting.part(f"late-{tenants}", lambda: lateness(setting, tenants, more))

    points: list[Measured] = []
    for load in setting.points(LOADS, LOADS_FULL):
        counts = let_in(round(load * CAPACITY / MEAN_RATE))
        points.append({"load": load, "tenants": counts, "late": {way: late(count) for way, count in counts.items()}})
    low, high = points[-1]["tenants"]["tre"], points[-1]["tenants"]["mean"]
    while high - low > 1 and setting.scale >= WIDE_FROM:
        middle = (low + high) // 2
        low, high = (middle, high) if late(middle)["value"] <= EPSILON else (low, middle)
    return {"points": points, "most": low, "delay_ms": DELAY_MS, "epsilon": EPSILON}


def conclude(measured: Measured) -> Finding:
    """Say who kept the promise in overload."""
    points, most = measured["points"], measured["most"]
    over = [point for point in points if point["load"] > 1.0]
    worst = {way: max(point["late"][way]["value"] for point in over) for way in WAYS}
    upper = max(point["late"]["tre"]["high"] for point in points)
    kept = all(point["late"]["tre"]["high"] <= EPSILON for point in points)
    broken = all(point["late"]["none"]["low"] > EPSILON for point in over)
    told = {way: "beyond the promise" if worst[way] > EPSILON else "within the promise" for way in ("none", "mean")}
    sure = all(point["late"]["deterministic"]["high"] <= EPSILON for point in points)
    tenants = over[-1]["tenants"]
    gain = tenants["tre"] / max(1, tenants["deterministic"])
    sentence = (
        f"In overload ({over[0]['load']:g} to {over[-1]['load']:g} of the capacity) with Tail-Risk Envelope admission "
        f"{worst['tre']:.2g} of the requests are later than {DELAY_MS:g} ms (95 % interval: up to {upper:.1g}; "
        f"promise: {EPSILON:g}), against {worst['none']:.2g} without admission control ({told['none']}) "
        f"and {worst['mean']:.2g} with mean-rate admission ({told['mean']}); deterministic admission "
        f"{'keeps it too' if sure else 'does NOT keep it'}, for {tenants['deterministic']} tenants against "
        f"{tenants['tre']} ({gain:.1f} times as many), of about {most} that simulation finds possible."
    )
    return Finding(
        sentence=sentence,
        confirmed=kept and broken and gain > 1.0,
        numbers={
            "late_tre_max": worst["tre"],
            "late_tre_upper": upper,
            "late_none_max": worst["none"],
            "late_mean_max": worst["mean"],
            "tenants_tre": tenants["tre"],
            "tenants_deterministic": tenants["deterministic"],
            "tenants_possible": most,
            "tenants_tre_over_deterministic": gain,
        },
    )


def draw(figure: Any, measured: Measured) -> None:
    """Draw lateness against load, and who was let in at the highest."""
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    points = measured["points"]
    loads = [point["load"] for point in points]
    for place, (way, name) in enumerate(WAYS.items()):
        late = [point["late"][way] for point in points]
        values = [max(one["value"], FLOOR) for one in late]
        spread = [
            [value - max(FLOOR, min(one["low"], value)) for value, one in zip(values, late, strict=True)],
            [max(0.0, one["high"] - value) for value, one in zip(values, late, strict=True)],
        ]
        left.errorbar(
            [load + SIDE * (place - 1.5) for load in loads], values, yerr=spread, color=COLOURS[place],
            marker=MARKERS[place], markersize=4.5, capsize=2.5, linewidth=1.4, label=name,
        )  # fmt: skip
    left.set(yscale="log", ylim=(FLOOR / 1.5, 3.0), xlabel="offered load / capacity (markers at the bottom: none seen)")
    left.set_ylabel(f"share of admitted requests later than {DELAY_MS:g} ms")
    limit(left, EPSILON, "promised: p99.9")
    left.legend(loc="upper left", fontsize=7.5)
    tenants = points[-1]["tenants"]
    names = ["none", "mean\nrate", "deter-\nministic", "envelope", "possible"]
    counts = [*(tenants[way] for way in WAYS), measured["most"]]
    bars(right, names, {"tenants": counts}, text="{:.0f}")
    kept = [*(points[-1]["late"][way]["high"] <= EPSILON for way in WAYS), True]
    for bar, good in zip(right.patches, kept, strict=True):
        bar.set_color(COLOURS[2] if good else COLOURS[4])
    right.set_ylabel(f"tenants admitted at load {points[-1]['load']:g}")
    right.set_title("green: the promise is kept; red: it is not", fontsize=9)
    right.tick_params(axis="x", labelsize=8)


TRE1: Final = Experiment(
    name="TRE1",
    revision=2,
    title="Compliance under overload, by admission",
    claim="improved p99.9 compliance under overload via admission control",
    method=(
        f"Alike tenants (on-off, {MEAN_RATE * 1e3:g} requests/s on average, {ON_RATE * 1e3:g} while on) share one "
        f"domain that serves {CAPACITY * 1e3:g} requests/s in order of arrival. Every intent asks for {DELAY_MS:g} ms "
        "at p99.9. The envelope and the deterministic admission are decisions of the real core; the packets of who "
        "was admitted are then simulated. Bars are 95 % intervals."
    ),
    measure=measure,
    conclude=conclude,
    draw=draw,
)
