"""TRE 2: what the bursts of others do to a victim, in one line and with reservations.

The victim sends Poisson requests. Nine other tenants share the domain; in every slot each of them sends at a high or a
low rate, and a Gaussian copula says how much their high slots come together. The victim's share is reserved (fluid
processor sharing), or there is one queue for all. The bound is that of the victim alone at its reserved rate: nothing
of the others enters it.
"""

from functools import partial
from typing import Any, Final

from aipaging.apps.evaluate.curves import curve, limit
from aipaging.apps.evaluate.experiment import Experiment, Finding, Measured, Setting
from aipaging.apps.evaluate.packets import plain, simulated
from aipaging.core.calculus import CompoundPoisson, ConstantWork, Domain, Measure, RateLatency, delay_of_path

OTHERS: Final = 9
VICTIM_RATE, RESERVED = 0.1, 0.2
"""Per ms; the domain serves one per ms."""

OTHER_MEAN: Final = 0.06
SLOT_MS: Final = 50.0
HIGH: Final = 0.2
"""Share of slots in which a tenant sends at its high rate."""

LEVEL: Final = 0.999
CORRELATIONS: Final = (0.0, 0.3, 0.6, 0.8, 0.95)
CORRELATIONS_FULL: Final = (0.0, 0.15, 0.3, 0.45, 0.6, 0.7, 0.8, 0.9, 0.95)
INTENSITIES: Final = (1.0, 2.0, 3.0, 4.0, 5.0)
INTENSITIES_FULL: Final = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0)
CORRELATION, INTENSITY = 0.6, 4.0
PACKETS: Final = 1_500_000
QUEUES: Final = {"fifo": "one queue for all", "reserved": "reservations"}
MODEST: Final = 0.05
"""A peak is at least so much above the low rate: two rates of a tenant must differ."""


def bound_ms() -> float:
    """Return the victim's p99.9 by the calculus: Poisson requests of constant work at the reserved rate, alone."""
    arrival = CompoundPoisson(rate=VICTIM_RATE, work=ConstantWork(value=1.0))
    domain = Domain(name="share", service=RateLatency(rate=RESERVED, latency=0.0))
    return delay_of_path(arrival, [domain], 1.0 - LEVEL, measure=Measure.SOJOURN).delay


def victim(setting: Setting, queue: str, correlation: float, intensity: float) -> dict[str, float]:
    """Return the victim's p99.9, simulated."""
    high = OTHER_MEAN * max(intensity, 1.0 + MODEST)
    low = max(0.0, (OTHER_MEAN - HIGH * high) / (1.0 - HIGH))
    work = {"kind": "constant", "value": 1.0}
    other = {
        "route": ["domain"],
        "arrivals": {
            "kind": "correlated", "copula": "common", "rates_per_ms": [low, high], "probabilities": [1.0 - HIGH, HIGH],
        },
        "work": work,
        "reserved_rate_per_ms": (1.0 - RESERVED) / OTHERS,
    }  # fmt: skip
    document = {
        "domain": [{"name": "domain", "rate_per_ms": 1.0, "discipline": queue}],
        "copula": [{"name": "common", "kind": "gaussian", "slot_ms": SLOT_MS, "correlation": correlation}],
        "tenant": [
            {
                "name": "victim", "route": ["domain"], "work": work, "reserved_rate_per_ms": RESERVED,
                "arrivals": {"kind": "poisson", "rate_per_ms": VICTIM_RATE},
            },
            *({"name": f"other-{number}", **other} for number in range(OTHERS)),
        ],
    }  # fmt: skip
    seed = setting.seed_of(f"{queue}-{correlation:g}-{intensity:g}")
    return plain(simulated(document, packets=setting.packets(PACKETS), seed=seed)[0].quantiles[LEVEL])


def measure(setting: Setting) -> Measured:
    """Simulate both queues over correlation and over intensity."""

    def sweep(points: tuple[tuple[float, float], ...]) -> dict[str, list[Any]]:
        return {
            queue: [
                setting.part(f"{queue}-{rho:g}-{peak:g}", partial(victim, setting, queue, rho, peak))
                for rho, peak in points
            ]
            for queue in QUEUES
        }

    correlations = setting.points(CORRELATIONS, CORRELATIONS_FULL)
    intensities = setting.points(INTENSITIES, INTENSITIES_FULL)
    return {
        "bound_ms": bound_ms(),
        "correlations": list(correlations),
        "intensities": list(intensities),
        "by_correlation": sweep(tuple((rho, INTENSITY) for rho in correlations)),
        "by_intensity": sweep(tuple((CORRELATION, peak) for peak in intensities)),
    }


def conclude(measured: Measured) -> Finding:
    """Say by how much the victim was moved."""
    bound = measured["bound_ms"]
    sweeps = [measured["by_correlation"], measured["by_intensity"]]
    kept = [one for sweep in sweeps for one in sweep["reserved"]]
    shared = [one for sweep in sweeps for one in sweep["fifo"]]
    calm = measured["by_intensity"]["fifo"][0]["value"]
    worst = max(one["value"] for one in shared)
    most = max(one["value"] for one in kept)
    inside = all(one["high"] <= bound for one in kept)
    beyond = sum(one["low"] > bound for one in shared)
    sentence = (
        f"With reservations the victim's p99.9 stays between {min(one['value'] for one in kept):.3g} and {most:.3g} ms "
        f"however intense and however correlated the others' bursts, {'within' if inside else 'NOT within'} its bound "
        f"of {bound:.3g} ms; in one queue it rises from {calm:.3g} to {worst:.3g} ms ({worst / most:.1f} times the "
        f"worst with reservations) and is beyond that bound at {beyond} of {len(shared)} points."
    )
    return Finding(
        sentence=sentence,
        confirmed=inside and beyond > 0,
        numbers={"bound_ms": bound, "reserved_ms_max": most, "fifo_ms_max": worst, "ratio": worst / most},
    )


def draw(figure: Any, measured: Measured) -> None:
    """Draw both sweeps with the bound."""
    axes = figure.subplots(1, 2, sharey=True)
    for one, by, label in (
        (axes[0], "correlation", "correlation of the others' bursts"),
        (axes[1], "intensity", "peak rate / mean rate of the others"),
    ):
        points = measured["correlations" if by == "correlation" else "intensities"]
        for place, (queue, name) in enumerate(QUEUES.items()):
            curve(one, points, measured[f"by_{by}"][queue], (1, 0)[place], label=name)
        limit(one, measured["bound_ms"], f"bound with reservations: {measured['bound_ms']:.0f} ms")
        one.set(yscale="log", xlabel=label)
    axes[0].set_title(f"peak {INTENSITY:g} times the mean", fontsize=10)
    axes[1].set_title(f"correlation {CORRELATION:g}", fontsize=10)
    axes[0].set_ylabel("p99.9 of the victim's delay, ms")
    axes[0].legend(loc="upper left")


TRE2: Final = Experiment(
    name="TRE2",
    revision=2,
    title="Isolation of a tenant from correlated bursts",
    claim="robust tenant isolation under correlated burstiness",
    method=(
        f"A victim ({VICTIM_RATE * 1e3:g} requests/s, Poisson; {RESERVED * 1e3:g}/s reserved) and {OTHERS} others "
        f"({OTHERS * OTHER_MEAN * 1e3:g} requests/s together) share a domain that serves 1,000 requests/s. The others' "
        f"rates are drawn every {SLOT_MS:g} ms through a Gaussian copula. The band is the 95 % interval."
    ),
    measure=measure,
    conclude=conclude,
    draw=draw,
)
