"""One question as JSON: the kinds of arrival and service, and how they become values of the calculus.

A kind is a table row (constructor, fields, line of help), so `kinds` cannot drift from what `bound` accepts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from aipaging.core.calculus.arrivals import Arrival, CompoundPoisson, SlottedWork
from aipaging.core.calculus.bound import RungClass
from aipaging.core.calculus.deficit import ImpairedRateLatency
from aipaging.core.calculus.deterministic import RateLatency, TokenBucket
from aipaging.core.calculus.llm import BatchingServer
from aipaging.core.calculus.onoff import FluidOnOff, SlottedOnOff
from aipaging.core.calculus.path import (
    Dependence,
    Discipline,
    Domain,
    ExponentialServer,
    OnOffService,
    PathAnswer,
    Service,
    bound_path,
    delay_of_path,
)
from aipaging.core.calculus.regulated import ExponentiallyBounded, LeakyBuckets
from aipaging.core.calculus.risk_budget import DelayContract
from aipaging.core.calculus.work import (
    ConstantWork,
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


def _slotted(work: Work) -> SlottedWork:
    return SlottedWork(works=(work,))


def _constant_rate(rate: float) -> RateLatency:
    return RateLatency(rate=rate, latency=0.0)


def _contract(offset: float, prefactor: float, decay: float) -> DelayContract:
    return DelayContract(offset_ms=offset, prefactor=prefactor, decay_per_ms=decay)


def _batching(**numbers: Any) -> RateLatency:
    return BatchingServer(**numbers).token_service_curve()


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
}

_WHOLE: Final[frozenset[str]] = frozenset({"slots", "reserved_slots", "tokens_max", "count"})

_ON_OFF: Final[dict[str, str]] = {"count": "number of independent flows", "peak": "work per unit of time while on"}

ARRIVALS: Final[Mapping[str, Kind]] = {
    "poisson": Kind(
        build=CompoundPoisson,
        fields={"rate": "jobs per unit of time", "work": "a kind of work"},
        help="Poisson jobs with independent work",
        time="continuous",
    ),
    "slotted": Kind(
        build=_slotted,
        fields={"work": "a kind of work, drawn afresh in every slot"},
        help="independent work per slot; the slot is the unit of time",
        time="slotted",
    ),
    "fluid-on-off": Kind(
        build=FluidOnOff,
        fields=_ON_OFF | {"off_to_on": "rate of switching on", "on_to_off": "rate of switching off"},
        help="stationary Markov-modulated fluid",
        time="continuous",
    ),
    "slotted-on-off": Kind(
        build=SlottedOnOff,
        fields=_ON_OFF | {"stay_off": "probability to stay off", "stay_on": "probability to stay on"},
        help="stationary Markov-modulated slots",
        time="slotted",
    ),
    "leaky-buckets": Kind(
        build=LeakyBuckets,
        fields={"count": "number of independent flows", "burst": "of each", "rate": "of each, per slot"},
        help="independent stationary regulated flows, nothing else known",
        time="slotted",
    ),
    "token-bucket": Kind(
        build=TokenBucket, fields={"burst": "b", "rate": "r"}, help="one regulated flow: deterministic bounds"
    ),
    "exponentially-bounded": Kind(
        build=ExponentiallyBounded,
        fields={"rate": "rho", "prefactor": "M", "decay": "b, per unit of work"},
        help="P(A(s,t) > rho (t-s) + x) <= M exp(-b x), nothing else known",
        time="slotted",
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
        build=_batching,
        fields={
            "slots": "B",
            "base_time": "tau0",
            "time_per_request": "tau1",
            "reserved_slots": "b, of the tenant",
            "tokens_max": "max_tokens",
        },
        help="continuous batching: the token service curve of b reserved slots",
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
        "query": {"delay": "ask for the probability", "epsilon": "ask for the delay"},
    }


def answer(document: Fields, rung_class: RungClass) -> dict[str, Any]:
    """Return the JSON-ready answer to one question.

    Raises:
        InvalidInputError: The document is not a question.
        RefusedError: Unstable, or nothing is proven for it.
    """
    domains = [_domain(part, f"domains[{i}]") for i, part in enumerate(_list(document, "domains"))]
    arrival: Arrival | None = _build(ARRIVALS, document["arrival"], "arrival") if document.get("arrival") else None
    query = document.get("query")
    if not isinstance(query, dict) or len({"delay", "epsilon"} & set(query)) != 1:
        raise InvalidInputError('query must be {"delay": d} or {"epsilon": e}', field="query")
    if "delay" in query:
        found = bound_path(arrival, domains, _number(query["delay"], "query.delay"), rung_class=rung_class)
    else:
        found = delay_of_path(arrival, domains, _number(query["epsilon"], "query.epsilon"), rung_class=rung_class)
    return _report(found, domains)


def _report(found: PathAnswer, domains: Sequence[Domain]) -> dict[str, Any]:
    finite = found.delay != float("inf")
    return {
        "delay": found.delay if finite else None,
        "epsilon": found.bound.probability,
        "rung": found.bound.rung,
        "assumptions": list(found.bound.assumptions),
        "parameters": dict(found.bound.parameters),
        "per_domain": [
            {
                "name": domain.name,
                "delay": part.delay_ms if part else None,
                "epsilon": part.epsilon if part else None,
            }
            for domain, part in zip(domains, found.parts, strict=True)
        ],
        "numeric_error": found.bound.numeric_error,
    }


def _domain(part: Any, where: str) -> Domain:
    if not isinstance(part, dict):
        raise InvalidInputError("a domain must be an object", field=where)
    service: Service = _build(SERVICES, part.get("service"), f"{where}.service")
    cross = [_build(ARRIVALS, flow, f"{where}.cross[{i}]") for i, flow in enumerate(part.get("cross") or [])]
    default = Discipline.BLIND if cross else Discipline.RESERVED
    return Domain(
        name=str(part.get("name", where)),
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
    numbers: dict[str, Any] = {}
    for name, value in given.items():
        if name == "work":
            work: Work = _build(WORKS, value, f"{where}.work")
            numbers[name] = work
        else:
            number = _number(value, f"{where}.{name}")
            numbers[name] = int(number) if name in _WHOLE else number
    return kind.build(**numbers)


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInputError("must be a number", field=where)
    return float(value)


def _list(document: Fields, name: str) -> list[Any]:
    value = document.get(name)
    if not isinstance(value, list) or not value:
        raise InvalidInputError("must be a list with at least one entry", field=name)
    return value
