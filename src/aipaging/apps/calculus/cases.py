"""Answers the rows of a reference-case file: which system each family is, and which ladder bounds it.

The families and their conventions are those of the reference cases (discrete time: slot = 1 unless `slot` says
otherwise). A row whose family or parameters are not known is an error of that row only.
"""

import json
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from aipaging.core.calculus.arrivals import CompoundPoisson, SlottedWork
from aipaging.core.calculus.bound import RungClass, TailBound, certain
from aipaging.core.calculus.deterministic import RateLatency, TokenBucket, convolve, horizontal_deviation
from aipaging.core.calculus.errors import UnstableError, overloaded
from aipaging.core.calculus.onoff import FluidOnOff, SlottedOnOff
from aipaging.core.calculus.priority import low_priority_tail
from aipaging.core.calculus.queue_exact import exponential_slots
from aipaging.core.calculus.rate_split import rate_split_tail
from aipaging.core.calculus.regulated import ExponentiallyBounded, LeakyBuckets
from aipaging.core.calculus.rounding import whole_slots
from aipaging.core.calculus.single_hop import backlog_tail
from aipaging.core.calculus.tandem_hop import (
    exponential_cross_bound,
    exponential_onoff_bound,
    exponential_servers_tail,
)
from aipaging.core.calculus.work import (
    CappedWork,
    ConstantWork,
    ExponentialWork,
    TruncatedLogNormalWork,
    TruncatedParetoWork,
    scaled_work,
)
from aipaging.core.foundation.errors import AipagingError, InvalidInputError

Params: TypeAlias = Mapping[str, Any]
Row: TypeAlias = Mapping[str, Any]

_NUMBER: Final = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A probability at a delay, or a delay at a probability, and the rung behind it."""

    delay: float
    bound: TailBound


def answer_rows(rows: Iterable[Row], rung_class: RungClass) -> Iterator[dict[str, Any]]:
    """Yield one JSON-ready answer per row, in order; rows of the same point share theirs."""
    known: dict[str, dict[str, Any]] = {}
    for row in rows:
        point = json.dumps([row.get("case"), row.get("params"), row.get("delay"), row.get("probability")
                            if str(row.get("case")).startswith(_DELAY_FAMILIES) else None], sort_keys=True)  # fmt: skip
        if point not in known:
            known[point] = answer_row(row, rung_class)
        yield known[point]


def answer_row(row: Row, rung_class: RungClass) -> dict[str, Any]:
    """Return the answer to one row, or its error."""
    case, params = str(row.get("case")), row.get("params")
    echo: dict[str, Any] = {"case": case, "params": params}
    started = time.perf_counter()
    try:
        found = _solve(case, row, rung_class)
    except UnstableError as unstable:
        wants_delay = case.startswith(_DELAY_FAMILIES)
        return echo | {
            "delay": None if wants_delay else row.get("delay"),
            "probability": row.get("probability") if wants_delay else 1.0,
            "seconds": time.perf_counter() - started,
            "rung": "unstable",
            "class": rung_class.value,
            "assumptions": [],
            "reason": {"code": unstable.code, "message": unstable.message, "who": unstable.who.value},
        }
    except AipagingError as refused:
        return echo | {"error": {"code": refused.code, "message": refused.message, "who": refused.who.value}}
    except (KeyError, TypeError, ValueError, ArithmeticError) as broken:
        message = f"the row's parameters are not those of its family: {type(broken).__name__}: {broken}"
        return echo | {"error": {"code": "INVALID_ARGUMENT", "message": message, "who": "caller"}}
    return echo | {
        "delay": found.delay,
        "probability": found.bound.probability,
        "seconds": time.perf_counter() - started,
        "rung": found.bound.rung,
        "class": rung_class.value,
        "assumptions": list(found.bound.assumptions),
    }


def _solve(case: str, row: Row, rung_class: RungClass) -> Answer:
    params = row["params"]
    if not isinstance(params, dict):
        raise InvalidInputError("params must be an object", field="params")
    for prefix, solve in _DELAY_SOLVERS.items():
        if case.startswith(prefix):
            probability = float(row["probability"])
            delay, rung = solve(params, probability)
            return Answer(
                delay=delay, bound=TailBound(probability=probability, rung=rung, assumptions=_DELAY_ASSUMPTIONS[prefix])
            )
    for prefix, solver in _SOLVERS.items():
        if case.startswith(prefix):
            delay = float(row["delay"])
            if not 0.0 <= delay < math.inf:
                raise InvalidInputError("delay must be finite and >= 0", field="delay")
            return Answer(delay=delay, bound=solver(params, delay, rung_class))
    if case.startswith("C14_SNCMeister_sample"):
        raise InvalidInputError(
            "this family records how long a peer's whole run took: its row names a file of that peer and holds no "
            "rates, sizes or capacities, so there is no system to bound",
            field="params",
        )
    raise InvalidInputError(f"unknown case family {case!r}", field="case")


def _slot(params: Params) -> float:
    return float(params.get("slot", 1.0))


def _mm1(params: Params, delay: float, rung_class: RungClass) -> TailBound:
    arrival = CompoundPoisson(rate=float(params["lam"]), work=ExponentialWork(mean=1.0 / float(params["mu"])))
    capacity = float(params.get("C", 1.0))
    return backlog_tail(arrival, capacity, capacity * delay, rung_class)


def _md1(params: Params, delay: float, rung_class: RungClass) -> TailBound:
    arrival = CompoundPoisson(rate=float(params["lam"]), work=ConstantWork(value=float(params.get("size", 1.0))))
    capacity = float(params.get("C", 1.0))
    return backlog_tail(arrival, capacity, capacity * delay, rung_class)


def _dm1(params: Params, delay: float, rung_class: RungClass) -> TailBound:
    arrival = SlottedWork(works=(ExponentialWork(mean=1.0 / float(params["lamb"])),))
    capacity = float(params["C"])
    return backlog_tail(arrival, capacity * _slot(params), capacity * delay, rung_class)


def _slotted_onoff(params: Params, count: str) -> SlottedOnOff:
    return SlottedOnOff(
        count=int(params[count]),
        stay_off=float(params["stay_off"]),
        stay_on=float(params["stay_on"]),
        peak=float(params["peak"]),
    )


def _mmoo_slotted(params: Params, delay: float, rung_class: RungClass) -> TailBound:
    capacity = float(params["C"])
    return backlog_tail(_slotted_onoff(params, "n"), capacity * _slot(params), capacity * delay, rung_class)


def _mmoo_fluid(params: Params, delay: float, rung_class: RungClass) -> TailBound:
    flows = FluidOnOff(
        count=int(params["n"]),
        off_to_on=float(params["off_to_on"]),
        on_to_off=float(params["on_to_off"]),
        peak=float(params["peak"]),
    )
    capacity = float(params["C"])
    return backlog_tail(flows, capacity, capacity * delay, rung_class)


def _per_hop(value: Any, hops: int) -> list[float]:
    values = [float(x) for x in value] if isinstance(value, list) else [float(value)] * hops
    if len(values) != hops:
        raise InvalidInputError("give one number, or one per hop", field="params")
    return values


def _tandem(params: Params, delay: float, rung_class: RungClass) -> TailBound:
    slot, hops = _slot(params), int(params["H"])
    capacities = [c * slot for c in _per_hop(params["C"], hops)]
    cross = [1.0 / x for x in _per_hop(params["lam_x"], hops)]
    slots = whole_slots(delay / slot)
    return exponential_cross_bound(
        1.0 / float(params["lam_foi"]), cross, capacities, delay=slots, rung_class=rung_class
    )


def _rate_latency(params: Params, delay: float, rung_class: RungClass) -> TailBound:
    servers = [RateLatency(rate=float(s["R"]), latency=float(s["T"])) for s in params["servers"]]
    slot, whole = _slot(params), convolve(servers)
    arrival = SlottedWork(works=(ExponentialWork(mean=1.0 / _exponential_rate(params)),))
    slots = slot * whole_slots(delay / slot)
    if overloaded(arrival.mean_rate, whole.rate * slot):
        raise UnstableError
    if slots < whole.latency * (1.0 - 1e-12):
        return certain(1.0, "trivial", ())
    backlog = whole.rate * max(0.0, slots - whole.latency)
    return backlog_tail(arrival, whole.rate * slot, backlog, rung_class)


def _exponential_rate(params: Params) -> float:
    for name in ("lam", "lamb", "lam_foi"):
        if name in params:
            return float(params[name])
    found = re.search(r"Exp\(\s*" + _NUMBER, str(params["arrival"]))
    if not found:
        raise InvalidInputError("the arrival does not say Exp(rate)", field="params.arrival")
    return float(found[1])


def _leaky(params: Params, delay: float, rung_class: RungClass) -> TailBound:
    slot, capacity = _slot(params), float(params["C"])
    flows = LeakyBuckets(count=int(params["n"]), burst=float(params["sigma"]), rate=float(params["rho"]) * slot)
    return backlog_tail(flows, capacity * slot, capacity * delay, rung_class)


def _any_dependence(params: Params, delay: float, rung_class: RungClass) -> TailBound:
    del rung_class  # One rung, of the fast class.
    slot = _slot(params)
    own, cross = 1.0 / float(params["lam_foi"]), 1.0 / float(params["lam_x"])
    value, share = rate_split_tail(
        lambda c: exponential_slots(own, c),
        lambda c: exponential_slots(cross, c),
        means=(own, cross),
        capacity=float(params["C"]) * slot,
        delay=whole_slots(delay / slot),
    )
    assumptions = ("independent-slots-per-flow", "stationary", "any-dependence-between-flows")
    return TailBound(probability=value, rung="rate-split", assumptions=assumptions, parameters={"share": share})


def _ebb(params: Params, delay: float, rung_class: RungClass) -> TailBound:
    slot, capacity = _slot(params), float(params["C"])
    flow = ExponentiallyBounded(
        rate=float(params["rho"]) * slot, prefactor=float(params["M"]), decay=float(params["decay"])
    )
    return backlog_tail(flow, capacity * slot, capacity * delay, rung_class)


def _llm(params: Params, delay: float, rung_class: RungClass) -> TailBound:
    tokens = _tokens(str(params["dist"]))
    work = scaled_work(tokens, float(params["smax"]) / tokens.largest)
    return backlog_tail(CompoundPoisson(rate=float(params["lam"]), work=work), 1.0, delay, rung_class)


def _tokens(text: str) -> CappedWork:
    cap = _named(r"max\s+" + _NUMBER, text)
    if re.match(r"\s*pareto", text, re.IGNORECASE):
        return TruncatedParetoWork(
            minimum=_named(r"xm\s+" + _NUMBER, text), alpha=_named(r"alpha\s+" + _NUMBER, text), cap=cap
        )
    if re.match(r"\s*lognormal", text, re.IGNORECASE):
        return TruncatedLogNormalWork(
            median=_named(r"median\s+" + _NUMBER, text), sigma=_named(r"sigma\s+" + _NUMBER, text), cap=cap
        )
    raise InvalidInputError("dist must be a capped Pareto or lognormal", field="params.dist")


def _named(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    if not found:
        raise InvalidInputError(f"{text!r} has no number where {pattern!r} looks", field="params")
    return float(found[1])


def _jackson(params: Params, delay: float, rung_class: RungClass) -> TailBound:
    del rung_class  # Exact in closed form.
    scale, hops = float(params.get("time_unit_scale", 1.0)), int(params["H"])
    rates = [mu * scale for mu in _per_hop(params["mu"], hops)]
    return exponential_servers_tail(float(params["lam"]) * scale, rates, delay / scale)


def _impaired(params: Params, delay: float, rung_class: RungClass) -> TailBound:
    slot, text = _slot(params), str(params.get("service", ""))
    capacity = float(params["C"]) if "C" in params else _named(r"C\s*=\s*" + _NUMBER, text)
    availability = _named(r"w\.p\.\s*" + _NUMBER, text)
    mean = 1.0 / _exponential_rate(params)
    services = [(capacity * slot, availability)] * int(params["H"])
    return exponential_onoff_bound(mean, services, delay=whole_slots(delay / slot), rung_class=rung_class)


def _priority(params: Params, delay: float, rung_class: RungClass) -> TailBound:
    slot = _slot(params)
    own, cross = _slotted_onoff(params, "n_foi"), _slotted_onoff(params, "n_cross")
    slots = whole_slots(delay / slot)
    return low_priority_tail(own, cross, capacity=float(params["C"]) * slot, delay=slots, rung_class=rung_class)


def _deterministic(params: Params, probability: float) -> tuple[float, str]:
    del probability  # A worst case: no probability exceeds it.
    hops = int(params["H"])
    rates, latencies = _per_hop(params["R"], hops), _per_hop(params["T"], hops)
    servers = [RateLatency(rate=r, latency=t) for r, t in zip(rates, latencies, strict=True)]
    if params.get("cross"):
        cross = TokenBucket(burst=float(params["cross"]["b"]), rate=float(params["cross"]["r"]))
        servers = [server.leftover(cross) for server in servers]
    own = TokenBucket(burst=float(params["foi"]["b"]), rate=float(params["foi"]["r"]))
    return horizontal_deviation(own, convolve(servers)), "deterministic"


def _mm1_quantile(params: Params, probability: float) -> tuple[float, str]:
    arrival, service = float(params["lam"]), float(params["mu"])
    if overloaded(arrival, service):
        raise UnstableError
    if not 0.0 < probability < 1.0:
        raise InvalidInputError("probability must lie strictly between 0 and 1", field="probability")
    delay = max(0.0, math.log(arrival / service / probability) / (service - arrival))
    return delay * (1.0 + 1e-12), "mm1-exact"


_Solver: TypeAlias = Callable[[Params, float, RungClass], TailBound]

_SOLVERS: Final[Mapping[str, _Solver]] = {
    "C10": _ebb, "C11": _llm, "C12": _jackson, "C15": _impaired, "C16": _priority,
    "C1_": _mm1, "C2_": _md1, "C3_": _dm1, "C4_": _mmoo_slotted, "C5_": _mmoo_fluid,
    "C6": _tandem, "C7": _rate_latency, "C8_": _leaky, "C9_": _any_dependence,
}  # fmt: skip

_DELAY_SOLVERS: Final[Mapping[str, Callable[[Params, float], tuple[float, str]]]] = {
    "C13": _deterministic,
    "C14_SNCMeister_MM1": _mm1_quantile,
}
_DELAY_FAMILIES: Final = tuple(_DELAY_SOLVERS)
_DELAY_ASSUMPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "C13": ("regulated", "strict-service-curves"),
    "C14_SNCMeister_MM1": ("poisson-arrivals", "independent-work", "stationary"),
}
