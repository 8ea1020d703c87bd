"""Arrivals fitted to a trace, as a member of a question that `aipaging calculus bound` takes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aipaging.adapters.terminal.picture import COLOURS, picture
from aipaging.core.calculus.arrivals import Arrival, CompoundPoisson, SlottedWork
from aipaging.core.calculus.deterministic import TokenBucket
from aipaging.core.calculus.fit_arrival import (
    FittedArrival,
    Trace,
    burst_curve,
    fit_compound_poisson,
    fit_exponentially_bounded,
    fit_on_off,
    fit_slotted,
    fit_token_bucket,
)
from aipaging.core.calculus.onoff import SlottedOnOff
from aipaging.core.calculus.regulated import ExponentiallyBounded
from aipaging.core.calculus.work import ConstantWork, DiscreteWork, Work
from aipaging.core.foundation.errors import InvalidInputError

RATES_OF_CURVE: Final = (1.05, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 2.5, 3.0)
"""Multiples of the mean rate at which the burst is shown."""

RATE_FACTOR: Final = 1.5
"""The sustained rate, as a multiple of the mean, where none is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """What a fit may be told.

    Attributes:
        rate: The sustained rate; None is 1.5 times the mean.
        window: Length of the windows; None is a 200th of the trace.
        slot: Length of a slot.
        work_max: Work of an arrival, or of a slot, that a guardrail enforces.
        confidence: That the envelope holds.
    """

    rate: float | None
    window: float | None
    slot: float
    work_max: float | None
    confidence: float

    def windows_of(self, trace: Trace) -> dict[str, float]:
        """Return the rate and the window."""
        return {
            "rate": trace.mean_rate * RATE_FACTOR if self.rate is None else self.rate,
            "window": trace.span / 200.0 if self.window is None else self.window,
            "confidence": self.confidence,
        }


KINDS: Final[Mapping[str, Callable[[Trace, FitOptions], FittedArrival]]] = {
    "token-bucket": lambda trace, o: fit_token_bucket(trace, **o.windows_of(trace)),
    "exponentially-bounded": lambda trace, o: fit_exponentially_bounded(trace, **o.windows_of(trace)),
    "slotted": lambda trace, o: fit_slotted(trace, slot=o.slot, work_max=o.work_max, confidence=o.confidence),
    "poisson": lambda trace, o: fit_compound_poisson(trace, work_max=o.work_max, confidence=o.confidence),
    "slotted-on-off": lambda trace, o: fit_on_off(trace, slot=o.slot, work_max=o.work_max, confidence=o.confidence),
}


def document_of(kind: str, fitted: FittedArrival, trace: Trace, options: FitOptions) -> dict[str, Any]:
    """Return the JSON-ready fit."""
    document: dict[str, Any] = {
        "arrival": arrival_of(fitted.arrival),
        "mean_rate": fitted.mean_rate,
        "arrivals": len(trace.times),
        "span": trace.span,
        "samples": fitted.samples,
        "confidence": fitted.confidence,
        "epsilon_floor": fitted.epsilon_floor,
        "assumption": fitted.assumption,
        "p_value": fitted.p_value,
    }
    if kind == "token-bucket":
        document["curve"] = [
            {"rate": rate, "burst": burst, "epsilon": epsilon} for rate, burst, epsilon in curve_of(trace, options)
        ]
    return document


def curve_of(trace: Trace, options: FitOptions) -> tuple[tuple[float, float, float], ...]:
    """Return (rate, burst, epsilon) at several rates, all holding together."""
    window = options.windows_of(trace)["window"]
    rates = [trace.mean_rate * factor for factor in RATES_OF_CURVE]
    return burst_curve(trace, rates, window=window, confidence=options.confidence)


def arrival_of(arrival: Arrival) -> dict[str, Any]:
    """Return an arrival as a question names it."""
    match arrival:
        case TokenBucket():
            return {"kind": "token-bucket", "burst": arrival.burst, "rate": arrival.rate}
        case ExponentiallyBounded():
            bound = {"rate": arrival.rate, "prefactor": arrival.prefactor, "decay": arrival.decay}
            return {"kind": "exponentially-bounded", **bound}
        case SlottedWork():
            return {"kind": "slotted", "work": _work(arrival.works[0])}
        case CompoundPoisson():
            return {"kind": "poisson", "rate": arrival.rate, "work": _work(arrival.work)}
        case SlottedOnOff():
            chain = {"stay_off": arrival.stay_off, "stay_on": arrival.stay_on, "peak": arrival.peak}
            return {"kind": "slotted-on-off", "count": arrival.count, **chain}
        case _:
            raise InvalidInputError(f"{type(arrival).__name__} is not fitted", field="kind")


def _work(work: Work) -> dict[str, Any]:
    if isinstance(work, DiscreteWork):
        return {"kind": "discrete", "values": list(work.values), "probabilities": list(work.probabilities)}
    if isinstance(work, ConstantWork):
        return {"kind": "constant", "value": work.value}
    raise InvalidInputError(f"{type(work).__name__} is not fitted", field="kind")


def plot_curve(trace: Trace, options: FitOptions, path: Path) -> None:
    """Draw the burst that the windows of a trace need over the sustained rate."""
    curve = curve_of(trace, options)
    window = options.windows_of(trace)["window"]
    with picture(path) as figure:
        axis = figure.subplots()
        axis.plot([rate for rate, _, _ in curve], [burst for _, burst, _ in curve], marker="o", color=COLOURS[0])
        axis.axvline(trace.mean_rate, color="#94a3b8", linestyle="--")
        axis.annotate(
            "mean rate", (trace.mean_rate, 0.0), xytext=(4, 6), textcoords="offset points", color="#475569", fontsize=9
        )
        axis.set_ylim(bottom=0.0)
        axis.set_xlabel("sustained rate (work per unit of time)")
        axis.set_ylabel("burst (work)")
        axis.set_title(
            f"windows of {window:.4g} stay within, except with P ≤ {curve[0][2]:.3g} "
            f"({options.confidence:.0%} confidence)",
            fontsize=10,
        )
