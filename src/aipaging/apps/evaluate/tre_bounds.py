"""TRE 3: how far each rung's bound is above the truth, over hops and loads, down to one in 1e9.

For each system and probability the calculus gives a delay; the probability of that delay is then estimated by
simulation: importance sampling twisted by the calculus for a single domain, multilevel splitting for a line of several.
A bound must never be below the truth; how far above it is, is its price.

Over many hops that are shared with other traffic the price is best read in time: there the delay that is proved at
p99.9 stands beside the simulated p99.9. What is asked about is then what an instant finds: probes that bring next to
no work of their own see it.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from aipaging.adapters.terminal.picture import COLOURS
from aipaging.apps.evaluate.curves import MARKERS, curve
from aipaging.apps.evaluate.experiment import FULL, WIDE_FROM, Experiment, Finding, Measured, Setting
from aipaging.apps.evaluate.intervals import least, wider
from aipaging.apps.evaluate.packets import plain, rare, simulated
from aipaging.core.calculus import (
    Arrival,
    CompoundPoisson,
    ConstantWork,
    Discipline,
    Domain,
    ExponentialServer,
    ExponentialWork,
    MarkovPoisson,
    Measure,
    RateLatency,
    RungClass,
    delay_of_path,
)
from aipaging.simulation.executors import opened, place_of

EPSILONS: Final = (1e-2, 1e-3, 1e-6, 1e-9)
EPSILONS_FULL: Final = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
LOADS: Final = (0.5, 0.8)
HOPS: Final = (1, 2, 4)
SLOW: Final = 1.5
HIGHEST: Final = 10.0
"""An interval whose lower end is 0 is drawn up to so many times its estimate."""
ON_MS, OFF_MS = 50.0, 150.0
TENANTS: Final = 5
DEEP_QUICK: Final = 1e-3
"""How far `--quick` follows slow systems: long lines under load, and bursts, whose queues remember long."""

PATHS: Final = (1, 2, 4, 8)
LEVEL: Final = 0.999
PATH_PACKETS: Final = 1_500_000
PROBES, PROBE_WORK = 0.05, 1e-3
"""Per ms, and what each brings: a twenty-thousandth of a domain's capacity."""

OWN: Final = 2.0 * PROBE_WORK
"""What a probe's own work can make of a bound, relatively: e^(theta work), for every theta below two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One system, as the calculus and as the simulator see it.

    Attributes:
        name: What it is called.
        load: Of its capacity.
        hops: Domains on the path.
        arrival: For the calculus.
        domains: For the calculus.
        document: For the simulator; its first tenant is asked about.
        sharp: Whether offline rungs are allowed.
        palm: How much likelier a request may find what an instant finds.
        own_ms: What a request's own work adds to what it finds.
        measure: Whether the calculus bounds a job's sojourn, or the work that an instant finds.
    """

    name: str
    load: float
    hops: int
    arrival: Arrival
    domains: tuple[Domain, ...]
    document: Mapping[str, Any]
    sharp: bool = True
    palm: float = 1.0
    own_ms: float = 0.0
    measure: Measure = Measure.SOJOURN

    @property
    def slow(self) -> bool:
        """Whether rare delays of it take long to simulate."""
        return self.hops * self.load > SLOW or self.bursty

    @property
    def bursty(self) -> bool:
        """Whether requests see more of bursts than instants do."""
        return self.palm > 1.0

    def delay(self, epsilon: float) -> tuple[float, str]:
        """Return the delay in ms that the calculus proves for a probability, and the rung that proves it."""
        rung_class = RungClass.SHARP if self.sharp else RungClass.FAST
        found = delay_of_path(
            self.arrival, self.domains, epsilon / self.palm, measure=self.measure, rung_class=rung_class
        )
        return found.delay + self.own_ms, found.bound.rung


def _document(hops: int, work: Mapping[str, Any], arrivals: Mapping[str, Any], tenants: int = 1) -> dict[str, Any]:
    names = [f"hop-{number + 1}" for number in range(hops)]
    tenant = {"route": names, "arrivals": arrivals, "work": work}
    if hops > 1:
        tenant = {**tenant, "work_at": dict.fromkeys(names[1:], work)}
    return {
        "domain": [{"name": name, "rate_per_ms": 1.0, "discipline": "fifo"} for name in names],
        "tenant": [{"name": f"tenant-{number}", **tenant} for number in range(tenants)],
    }


def systems() -> list[System]:
    """Return the systems, by rung, load and hops."""
    found: list[System] = []
    server = Domain(name="hop-1", service=RateLatency(rate=1.0, latency=0.0))
    constant, exponential = {"kind": "constant", "value": 1.0}, {"kind": "exponential", "mean": 1.0}
    for load in LOADS:
        poisson = {"kind": "poisson", "rate_per_ms": load}
        fixed = CompoundPoisson(rate=load, work=ConstantWork(value=1.0))
        drawn = CompoundPoisson(rate=load, work=ExponentialWork(mean=1.0))
        found += [
            System(name="M/D/1", load=load, hops=1, arrival=fixed, domains=(server,), sharp=sharp,
                   document=_document(1, constant, poisson))
            for sharp in (True, False)
        ]  # fmt: skip
        for hops in HOPS:
            line = tuple(Domain(name=f"hop-{h + 1}", service=ExponentialServer(rate=1.0)) for h in range(hops))
            found.append(
                System(name="M/M/1 in line", load=load, hops=hops, arrival=drawn, domains=line,
                       document=_document(hops, exponential, poisson))
            )  # fmt: skip
        rate = load * (ON_MS + OFF_MS) / ON_MS / TENANTS
        flows = MarkovPoisson(
            count=TENANTS, generator=((-1 / ON_MS, 1 / ON_MS), (1 / OFF_MS, -1 / OFF_MS)), rates=(rate, 0.0),
            work=ConstantWork(value=1.0),
        )  # fmt: skip
        onoff = {"kind": "on-off", "rate_per_ms": rate, "mean_on_ms": ON_MS, "mean_off_ms": OFF_MS}
        found.append(
            System(name=f"{TENANTS} on-off tenants", load=load, hops=1, arrival=flows, domains=(server,),
                   document=_document(1, constant, onoff, TENANTS), palm=(ON_MS + OFF_MS) / ON_MS, own_ms=1.0,
                   measure=Measure.VIRTUAL)
        )  # fmt: skip
    return found


def point(system: System, epsilon: float, seed: int, executor: Executor | None) -> Measured:
    """Return the bound's delay at a probability, and how likely it truly is."""
    delay_ms, rung = system.delay(epsilon)
    true = rare(system.document, "tenant-0", delay_ms, seed=seed, executor=executor)
    return {
        "name": system.name, "load": system.load, "hops": system.hops, "epsilon": epsilon, "delay_ms": delay_ms,
        "rung": rung, "true": true,
    }  # fmt: skip


def shared_path(load: float, hops: int) -> tuple[dict[str, Any], Arrival, tuple[Domain, ...]]:
    """Return a path every hop of which is shared with traffic of its own, for the simulator and for the calculus.

    A hop passes requests on when they are whole, which takes a request's time more than the calculus's server of
    constant rate; the last hop's answer is whole when its last work is done.
    """
    names = [f"hop-{number + 1}" for number in range(hops)]
    whole = {"work": {"kind": "constant", "value": 1.0}, "arrivals": {"kind": "poisson", "rate_per_ms": load / 2.0}}
    probes = {"work": {"kind": "constant", "value": PROBE_WORK}, "arrivals": {"kind": "poisson", "rate_per_ms": PROBES}}
    document = {
        "domain": [{"name": name, "rate_per_ms": 1.0, "discipline": "fifo"} for name in names],
        "tenant": [
            {"name": "probes", "route": names, **probes},
            {"name": "through", "route": names, **whole},
            *({"name": f"across-{name}", "route": [name], **whole} for name in names),
        ],
    }
    flow = CompoundPoisson(rate=load / 2.0, work=ConstantWork(value=1.0))
    domains = tuple(
        Domain(name=name, service=RateLatency(rate=1.0, latency=0.0 if name == names[-1] else 1.0), cross=(flow,),
               discipline=Discipline.FIFO)
        for name in names
    )  # fmt: skip
    return document, flow, domains


def path(setting: Setting, load: float, hops: int, *, shared: bool) -> Measured:
    """Return the p99.9 of a path as the calculus proves it and as it is simulated."""
    if shared:
        document, flow, domains = shared_path(load, hops)
        found = delay_of_path(flow, domains, (1.0 - LEVEL) / (1.0 + OWN))
    else:
        document = _document(hops, {"kind": "exponential", "mean": 1.0}, {"kind": "poisson", "rate_per_ms": load})
        flow = CompoundPoisson(rate=load, work=ExponentialWork(mean=1.0))
        domains = tuple(Domain(name=d["name"], service=ExponentialServer(rate=1.0)) for d in document["domain"])
        found = delay_of_path(flow, domains, 1.0 - LEVEL, measure=Measure.SOJOURN)
    seed = setting.seed_of(f"path-{load:g}-{hops}-{shared:d}")
    first = simulated(document, packets=setting.packets(PATH_PACKETS), seed=seed)[0]
    return {
        "load": load, "hops": hops, "shared": shared, "rung": found.bound.rung,
        "delay_ms": found.delay + PROBE_WORK * hops * shared, "simulated": plain(first.quantiles[LEVEL]),
    }  # fmt: skip


def measure(setting: Setting) -> Measured:
    """Ask the calculus, then the simulator, at every point."""
    with opened(place_of("processes" if setting.scale >= FULL else "serial")) as pool:
        points = _points(setting, pool)
    hops = [int(count) for count in setting.points(tuple(map(float, PATHS)))]
    paths = [
        setting.part(f"path-{load:g}-{count}-{shared:d}", partial(path, setting, load, count, shared=shared))
        for load in LOADS for count in hops for shared in (False, True)
    ]  # fmt: skip
    return {"points": points, "paths": paths}


def _points(setting: Setting, pool: Executor | None) -> list[Measured]:
    chosen = systems() if setting.scale >= WIDE_FROM else systems()[:3]
    points: list[Any] = []
    for place, system in enumerate(chosen):
        for epsilon in setting.points(EPSILONS, EPSILONS_FULL):
            if (
                setting.scale < FULL
                and system.slow
                and (epsilon < DEEP_QUICK or (system.bursty and system.load > LOADS[0]))
            ):
                continue
            key = f"{place}-{epsilon:g}"
            points.append(setting.part(key, partial(point, system, epsilon, setting.seed_of(key), pool)))
    return points


def _seen(point: Measured) -> bool:
    return bool(point["true"]["value"] > 0.0 and math.isfinite(point["delay_ms"]))


def conclude(measured: Measured) -> Finding:
    """Say whether any bound was below the truth, and what they cost."""
    points = [point for point in measured["points"] if _seen(point)]
    paths = measured["paths"]
    factor = wider(len(points) + len(paths))
    below = [point for point in points if least(point["true"], factor) > point["epsilon"]]
    late = [one for one in paths if least(one["simulated"], factor) > one["delay_ms"]]
    price: dict[str, list[float]] = {}
    for one in points:
        price.setdefault(one["rung"], []).append(one["epsilon"] / one["true"]["value"])
    medians = {rung: statistics.median(values) for rung, values in price.items()}
    rarest = min(one["true"]["value"] for one in points)
    told = ", ".join(f"{rung} {value:.3g}" for rung, value in sorted(medians.items(), key=lambda item: item[1]))
    dear = {
        shared: [one["delay_ms"] / one["simulated"]["value"] for one in paths if one["shared"] is shared]
        for shared in (False, True)
    }
    longest = max(one["hops"] for one in paths)
    sentence = (
        f"At {len(points) - len(below)} of {len(points)} points, down to a simulated probability of {rarest:.1g}, the "
        f"bound is not below what simulation finds; the bound over the simulated probability is, by rung (median): "
        f"{told}; the proven p99.9 is not below the simulated one on {len(paths) - len(late)} of {len(paths)} paths of "
        f"1 to {longest} hops, and is {min(dear[False]):.2f} to {max(dear[False]):.2f} times it where the path is the "
        f"tenant's own, {min(dear[True]):.2f} to {max(dear[True]):.2f} times where every hop is shared."
    )
    numbers = {f"median_bound_over_truth {rung}": value for rung, value in medians.items()}
    return Finding(
        sentence=sentence,
        confirmed=not below and not late and len(points) == len(measured["points"]),
        numbers={
            "points": len(points) + len(paths),
            "below_truth": len(below) + len(late),
            "delay_over_truth_own_max": max(dear[False]),
            "delay_over_truth_shared_max": max(dear[True]),
            **numbers,
        },
    )


def draw(figure: Any, measured: Measured) -> None:
    """Draw the simulated probability against the bound's, by rung, at each load."""
    points = [point for point in measured["points"] if _seen(point)]
    loads = sorted({point["load"] for point in points})
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.25, 1.0))
    _long(lower, measured["paths"])
    axes = upper.subplots(1, len(loads), sharey=True, squeeze=False)[0]
    kinds = sorted({(point["name"], point["rung"], point["hops"]) for point in points})
    for one, load in zip(axes, loads, strict=True):
        for place, kind in enumerate(kinds):
            drawn = [p for p in points if (p["name"], p["rung"], p["hops"]) == kind and p["load"] == load]
            _price(one, drawn, place, kind)
        one.axhline(1.0, color="#0f172a", linestyle="--", linewidth=1.2)
        one.annotate(
            "below the dashed line a bound would be untrue", xy=(0.02, 0.02), xycoords="axes fraction",
            va="bottom", fontsize=8,
        )  # fmt: skip
        one.set(xscale="log", yscale="log", xlabel="probability that the bound proves")
        one.set_title(f"load {load:g}", fontsize=10)
        one.set_ylim(bottom=0.3)
        one.invert_xaxis()
    axes[0].set_ylabel("bound / simulated probability")
    upper.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", fontsize=8, ncols=3)


def _long(figure: Any, paths: Sequence[Measured]) -> None:
    """Draw the proven and the simulated p99.9 over hops, at each load."""
    axes = figure.subplots(1, len(LOADS), squeeze=False)[0]
    for one, load in zip(axes, LOADS, strict=True):
        for place, shared in enumerate((False, True)):
            drawn = [p for p in paths if p["load"] == load and p["shared"] is shared]
            hops, name = [p["hops"] for p in drawn], "every hop shared" if shared else "the tenant's own path"
            rungs = ", ".join(dict.fromkeys(p["rung"] for p in drawn))
            curve(one, hops, [p["simulated"] for p in drawn], place, label=f"{name}: simulated")
            one.plot(hops, [p["delay_ms"] for p in drawn], "--", color=COLOURS[place], marker="x", markersize=5,
                     linewidth=1.3, label=f"{name}: proven ({rungs})")  # fmt: skip
        one.set(xscale="log", yscale="log", xlabel="hops")
        one.set_title(f"load {load:g}", fontsize=10)
        one.set_xticks(list(PATHS), [str(count) for count in PATHS])
        one.minorticks_off()
    axes[0].set_ylabel("p99.9 over the path, ms")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", fontsize=8, ncols=2)


def _price(axes: Any, drawn: Sequence[Measured], place: int, kind: tuple[str, str, int]) -> None:
    """Draw how far above the simulated probability a bound is, in one kind of system."""
    name, rung, hops = kind
    ratios = [p["epsilon"] / p["true"]["value"] for p in drawn]
    spread = [
        [max(0.0, ratio - p["epsilon"] / p["true"]["high"]) for ratio, p in zip(ratios, drawn, strict=True)],
        [
            max(0.0, p["epsilon"] / max(p["true"]["low"], p["true"]["value"] / HIGHEST) - ratio)
            for ratio, p in zip(ratios, drawn, strict=True)
        ],
    ]
    axes.errorbar(
        [p["epsilon"] for p in drawn], ratios, yerr=spread, color=COLOURS[place % len(COLOURS)],
        marker=MARKERS[place % len(MARKERS)], markersize=4.5, capsize=2.5, linewidth=1.3,
        label=f"{name}{f', {hops} hops' if hops > 1 else ''}: {rung}",
    )  # fmt: skip


TRE3: Final = Experiment(
    name="TRE3",
    title="Bounds against simulated tails, by rung",
    claim="a tail promise is a theorem: the bound is never below the truth",
    method=(
        "For each probability the calculus gives a delay; how likely that delay truly is, is simulated by importance "
        "sampling (one domain) or multilevel splitting (several). Over 1 to 8 hops the proven p99.9 stands beside the "
        "simulated one, alone and with as much other traffic at every hop. Bars and bands are 95 % intervals; for the "
        "verdict they are widened so that all of them hold together with 95 %. A quick run leaves out the slowest "
        "points."
    ),
    measure=measure,
    conclude=conclude,
    draw=draw,
    height=7.6,
    revision=3,
)
