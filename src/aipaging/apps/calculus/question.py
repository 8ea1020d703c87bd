"""One question as JSON: the kinds of arrival and service, and how they become values of the calculus.

A kind is a table row (constructor, fields, line of help), so `kinds` cannot drift from what `bound` accepts.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from aipaging.core.calculus.arrivals import Arrival, CompoundPoisson, SlottedWork, superpose
from aipaging.core.calculus.bound import RungClass, TailBound
from aipaging.core.calculus.deficit import ImpairedRateLatency
from aipaging.core.calculus.deterministic import RateLatency, TokenBucket
from aipaging.core.calculus.domain import (
    CrossFlow,
    Dependence,
    Discipline,
    Domain,
    ExponentialServer,
    Measure,
    OnOffService,
    RandomService,
    Service,
    gps_share,
)
from aipaging.core.calculus.llm import BatchingServer
from aipaging.core.calculus.measured import MeasuredLatency
from aipaging.core.calculus.modulated import MarkovFluid, MarkovPoisson, MarkovSlots
from aipaging.core.calculus.onoff import FluidOnOff, SlottedOnOff
from aipaging.core.calculus.output import output_of_path
from aipaging.core.calculus.path import PathAnswer, backlog_of_path, bound_backlog, bound_path, delay_of_path
from aipaging.core.calculus.regulated import ExponentiallyBounded, LeakyBuckets
from aipaging.core.calculus.risk_budget import DelayContract
from aipaging.core.calculus.work import (
    ConstantWork,
    DiscreteWork,
    ExponentialWork,
    TruncatedLogNormalWork,
    TruncatedParetoWork,
    Work,
)
from aipaging.core.foundation.errors import InvalidInputError

Fields: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind: how it is built from its numbers, and what it means."""

    build: Callable[..., Any]
    fields: Mapping[str, str]
    help: str
    time: str = "any"


def _continuous(build: Callable[..., Any], meaning: str, fields: Mapping[str, str]) -> Kind:
    return Kind(build=build, fields=fields, help=meaning, time="continuous")


def _in_slots(build: Callable[..., Any], meaning: str, fields: Mapping[str, str]) -> Kind:
    return Kind(build=build, fields=fields, help=meaning, time="slotted")


def _slotted(work: Work) -> SlottedWork:
    return SlottedWork(works=(work,))


def _constant_rate(rate: float) -> RateLatency:
    return RateLatency(rate=rate, latency=0.0)


def _contract(offset: float, prefactor: float, decay: float) -> DelayContract:
    return DelayContract(offset_ms=offset, prefactor=prefactor, decay_per_ms=decay)


def _gps(rate: float, latency: float, weight: float, weights_total: float) -> RateLatency:
    others = weights_total - weight
    weights = [weight, others] if others > 0.0 else [weight]
    return gps_share(RateLatency(rate=rate, latency=latency), weights, 0)


def _sum(parts: Sequence[Arrival]) -> Arrival:
    together = superpose(parts)
    if together is None:
        raise InvalidInputError("slots and continuous time do not add", field="parts")
    return together


WORKS: Final[Mapping[str, Kind]] = {
    "constant": Kind(build=ConstantWork, fields={"value": "work per job"}, help="every job alike"),
    "exponential": Kind(build=ExponentialWork, fields={"mean": "mean work"}, help="P(X > x) = exp(-x/mean)"),
    "log-normal": Kind(
        build=TruncatedLogNormalWork,
        fields={"median": "median work", "sigma": "deviation of ln X", "cap": "largest work (max_tokens)"},
        help="log-normal, capped",
    ),
    "pareto": Kind(
        build=TruncatedParetoWork,
        fields={"minimum": "least work", "alpha": "tail index", "cap": "largest work (max_tokens)"},
        help="Pareto, capped",
    ),
    "discrete": Kind(
        build=DiscreteWork,
        fields={"values": "list of values >= 0", "probabilities": "list, sums to 1"},
        help="finitely many values",
    ),
}

_WHOLE: Final[frozenset[str]] = frozenset({"slots", "reserved_slots", "tokens_max", "count"})

_ON_OFF: Final[dict[str, str]] = {"count": "number of independent flows", "peak": "work per unit of time while on"}

_CHAIN: Final[dict[str, str]] = {
    "count": "number of independent chains",
    "generator": "matrix of rates of change, a row per state, every row sums to 0",
}

ARRIVALS: Final[Mapping[str, Kind]] = {
    "poisson": _continuous(
        CompoundPoisson,
        "Poisson jobs with independent work",
        {"rate": "jobs per unit of time", "work": "a kind of work"},
    ),
    "slotted": _in_slots(
        _slotted,
        "independent work per slot; the slot is the unit of time",
        {"work": "a kind of work, drawn afresh in every slot"},
    ),
    "fluid-on-off": _continuous(
        FluidOnOff,
        "stationary Markov-modulated fluid",
        _ON_OFF | {"off_to_on": "rate of switching on", "on_to_off": "rate of switching off"},
    ),
    "slotted-on-off": _in_slots(
        SlottedOnOff,
        "stationary Markov-modulated slots",
        _ON_OFF | {"stay_off": "probability to stay off", "stay_on": "probability to stay on"},
    ),
    "leaky-buckets": _in_slots(
        LeakyBuckets,
        "independent stationary regulated flows, nothing else known",
        {"count": "number of independent flows", "burst": "of each", "rate": "of each, per slot"},
    ),
    "token-bucket": Kind(
        build=TokenBucket, fields={"burst": "b", "rate": "r"}, help="one regulated flow: deterministic bounds"
    ),
    "exponentially-bounded": _in_slots(
        ExponentiallyBounded,
        "P(A(s,t) > rho (t-s) + x) <= M exp(-b x), nothing else known",
        {"rate": "rho", "prefactor": "M", "decay": "b, per unit of work"},
    ),
    "markov-slots": _in_slots(
        MarkovSlots,
        "any stationary Markov-modulated work per slot",
        {
            "count": "number of independent chains",
            "transition": "matrix of probabilities, a row per state",
            "works": "list of kinds of work, one per state; null sends nothing",
        },
    ),
    "markov-fluid": _continuous(
        MarkovFluid,
        "any stationary Markov-modulated fluid",
        _CHAIN | {"rates": "list, work per unit of time in each state"},
    ),
    "markov-poisson": _continuous(
        MarkovPoisson,
        "Markov-modulated Poisson jobs (MMPP)",
        _CHAIN | {"rates": "list, jobs per unit of time in each state", "work": "a kind of work"},
    ),
    "superposition": Kind(
        build=_sum,
        fields={"parts": "list of kinds of arrival"},
        help="independent arrivals together, alike or not",
    ),
}

SERVICES: Final[Mapping[str, Kind]] = {
    "constant-rate": Kind(
        build=_constant_rate,
        fields={"rate": "work per unit of time"},
        help="constant rate",
    ),
    "rate-latency": Kind(
        build=RateLatency, fields={"rate": "R", "latency": "T"}, help="at least R (t - T)^+ in a busy period"
    ),
    "on-off": Kind(
        build=OnOffService,
        fields={"rate": "work of a slot that is on", "availability": "probability that a slot is on"},
        help="impaired (wireless) slots, independent",
        time="slotted",
    ),
    "impaired-rate-latency": Kind(
        build=ImpairedRateLatency,
        fields={"rate": "R", "latency": "T", "prefactor": "M", "decay": "b, per unit of work"},
        help="P(S(s,t) < R (t-s-T)^+ - x) <= M exp(-b x)",
        time="slotted",
    ),
    "gps-share": Kind(
        build=_gps,
        fields={"rate": "R of the server", "latency": "T", "weight": "phi of the flow", "weights_total": "of all"},
        help="weighted fair share of a rate-latency server, whatever the others send",
    ),
    "random": Kind(
        build=RandomService,
        fields={"work": "a kind of work: what a slot serves, drawn afresh"},
        help="independent random service per slot",
        time="slotted",
    ),
    "exponential-server": Kind(
        build=ExponentialServer,
        fields={"rate": "jobs per unit of time"},
        help="FIFO, exponential service drawn afresh at each server; answers sojourn times",
        time="continuous",
    ),
    "delay-contract": Kind(
        build=_contract,
        fields={"offset": "T", "prefactor": "M", "decay": "eta, per unit of time"},
        help="P(D > T + x) <= M exp(-eta x)",
    ),
    "batching-server": Kind(
        build=BatchingServer,
        fields={
            "slots": "B",
            "base_time": "tau0",
            "time_per_request": "tau1",
            "reserved_slots": "b, of the tenant",
            "tokens_max": "max_tokens",
        },
        help="continuous batching: the token service curve of b reserved slots; work is counted in tokens",
        time="continuous",
    ),
    "measured": Kind(
        build=MeasuredLatency,
        fields={"delays": "rising list", "exceedances": "falling list: P(D > delays[i])"},
        help="measured delays: a step function above their tail, nothing extrapolated",
    ),
}


def kinds() -> dict[str, Any]:
    """Return every kind with its fields, JSON-ready."""

    def table(of: Mapping[str, Kind]) -> dict[str, Any]:
        return {name: {"fields": dict(k.fields), "help": k.help, "time": k.time} for name, k in of.items()}

    return {
        "arrival": table(ARRIVALS),
        "work": table(WORKS),
        "service": table(SERVICES),
        "discipline": [member.value for member in Discipline],
        "dependence": [member.value for member in Dependence],
        "measure": [member.value for member in Measure],
        "query": {
            "delay": "ask for the probability",
            "epsilon": "ask for the delay",
            "backlog": "ask for the probability of more work inside the path",
            "backlog_epsilon": "ask for the backlog",
            "output_rate": "ask for an exponential envelope of what leaves, of this rate",
        },
        "crossing": {"arrival": "a kind of arrival", "first": "name of a domain", "last": "name of a domain"},
    }


def answer(document: Fields, rung_class: RungClass) -> dict[str, Any]:
    """Return the JSON-ready answer to one question.

    Raises:
        InvalidInputError: The document is not a question.
        RefusedError: Unstable, or nothing is proven for it.
    """
    parts = _list(document, "domains")
    crossing = document.get("crossing") or []
    shared = {name for flow in crossing if isinstance(flow, dict) for name in _between(parts, flow)}
    domains = [_domain(part, f"domains[{i}]", shared) for i, part in enumerate(parts)]
    flows = [_crossing(flow, domains, f"crossing[{i}]") for i, flow in enumerate(crossing)]
    arrival: Arrival | None = _build(ARRIVALS, document["arrival"], "arrival") if document.get("arrival") else None
    measure = _choice(Measure, document.get("measure", "virtual"), "measure")
    query = document.get("query")
    if not isinstance(query, dict) or len(query) != 1 or set(query) - QUERIES:
        raise InvalidInputError(f"query must hold exactly one of {sorted(QUERIES)}", field="query")
    ((asked, value),) = query.items()
    number = _number(value, f"query.{asked}")
    if asked == "delay":
        found = bound_path(arrival, domains, number, crossing=flows, measure=measure, rung_class=rung_class)
        return _report(found, domains)
    if asked == "epsilon":
        found = delay_of_path(arrival, domains, number, crossing=flows, measure=measure, rung_class=rung_class)
        return _report(found, domains)
    if arrival is None:
        raise InvalidInputError("is needed for this query", field="arrival")
    if asked == "output_rate":
        envelope = output_of_path(arrival, domains, rate=number, crossing=flows)
        return {"rate": envelope.rate, "prefactor": envelope.prefactor, "decay": envelope.decay}
    ask = bound_backlog if asked == "backlog" else backlog_of_path
    inside = ask(arrival, domains, number, crossing=flows, rung_class=rung_class)
    finite = inside.backlog != float("inf")
    return {"backlog": inside.backlog if finite else None} | _bound_report(inside.bound)


QUERIES: Final = frozenset({"delay", "epsilon", "backlog", "backlog_epsilon", "output_rate"})


def _between(parts: Sequence[Any], flow: Fields) -> list[str]:
    names = [str(part.get("name", "")) if isinstance(part, dict) else "" for part in parts]
    if flow.get("first") not in names or flow.get("last") not in names:
        raise InvalidInputError(f"first and last must name domains, among {names}", field="crossing")
    return names[names.index(str(flow["first"])) : names.index(str(flow["last"])) + 1]


def _crossing(flow: Any, domains: Sequence[Domain], where: str) -> CrossFlow:
    if not isinstance(flow, dict):
        raise InvalidInputError("must be an object", field=where)
    names = [domain.name for domain in domains]
    arrival: Arrival = _build(ARRIVALS, flow.get("arrival"), f"{where}.arrival")
    return CrossFlow(arrival=arrival, first=names.index(str(flow["first"])), last=names.index(str(flow["last"])))


def _bound_report(bound: TailBound) -> dict[str, Any]:
    return {
        "epsilon": bound.probability,
        "rung": bound.rung,
        "assumptions": list(bound.assumptions),
        "parameters": dict(bound.parameters),
        "numeric_error": bound.numeric_error,
        "ladder": dict(bound.ladder or ((bound.rung, bound.probability),)),
    }


def _report(found: PathAnswer, domains: Sequence[Domain]) -> dict[str, Any]:
    finite = found.delay != float("inf")
    return {
        "delay": found.delay if finite else None,
        **_bound_report(found.bound),
        "per_domain": [
            {
                "name": domain.name,
                "delay": part.delay_ms if part else None,
                "epsilon": part.epsilon if part else None,
            }
            for domain, part in zip(domains, found.parts, strict=True)
        ],
    }


def _domain(part: Any, where: str, shared: Collection[str]) -> Domain:
    if not isinstance(part, dict):
        raise InvalidInputError("a domain must be an object", field=where)
    service: Service = _build(SERVICES, part.get("service"), f"{where}.service")
    cross = [_build(ARRIVALS, flow, f"{where}.cross[{i}]") for i, flow in enumerate(part.get("cross") or [])]
    name = str(part.get("name", where))
    default = Discipline.BLIND if cross or name in shared else Discipline.RESERVED
    return Domain(
        name=name,
        service=service,
        cross=tuple(cross),
        discipline=_choice(Discipline, part.get("discipline", default.value), f"{where}.discipline"),
        dependence=_choice(Dependence, part.get("dependence", "any"), f"{where}.dependence"),
    )


def _choice(of: Any, value: Any, where: str) -> Any:
    try:
        return of(value)
    except ValueError:
        raise InvalidInputError(f"must be one of {[m.value for m in of]}, not {value!r}", field=where) from None


def _build(table: Mapping[str, Kind], spec: Any, where: str) -> Any:
    if not isinstance(spec, dict) or spec.get("kind") not in table:
        raise InvalidInputError(f'needs a "kind", one of {sorted(table)}', field=where)
    kind = table[spec["kind"]]
    given = {name: value for name, value in spec.items() if name != "kind"}
    if set(given) != set(kind.fields):
        raise InvalidInputError(f"{spec['kind']!r} takes exactly {sorted(kind.fields)}", field=where)
    return kind.build(**{name: _value(name, value, f"{where}.{name}") for name, value in given.items()})


def _value(name: str, value: Any, where: str) -> Any:
    """Return a field's value: a number, a kind of work, a list of numbers, a matrix, a list of kinds."""
    if name == "work":
        return _build(WORKS, value, where)
    if name in _LISTS:
        if not isinstance(value, list) or not value:
            raise InvalidInputError("must be a list with at least one entry", field=where)
        return tuple(_entry(name, entry, f"{where}[{i}]") for i, entry in enumerate(value))
    number = _number(value, where)
    if name not in _WHOLE:
        return number
    if number != int(number):
        raise InvalidInputError("must be a whole number", field=where)
    return int(number)


def _entry(name: str, value: Any, where: str) -> Any:
    if name in {"transition", "generator"}:
        return _value("rates", value, where)
    if name == "parts":
        return _build(ARRIVALS, value, where)
    if name == "works":
        return None if value is None else _build(WORKS, value, where)
    return _number(value, where)


_LISTS: Final = frozenset(
    {"values", "probabilities", "transition", "generator", "rates", "works", "parts", "delays", "exceedances"}
)


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInputError("must be a number", field=where)
    return float(value)


def _list(document: Fields, name: str) -> list[Any]:
    value = document.get(name)
    if not isinstance(value, list) or not value:
        raise InvalidInputError("must be a list with at least one entry", field=name)
    return value
