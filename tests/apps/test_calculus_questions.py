"""Questions as JSON: every kind of arrival and service, every query, and what is refused."""

import json
from typing import Any

import pytest
from click.testing import CliRunner

from aipaging.apps.calculus.command import calculus
from aipaging.apps.calculus.question import ARRIVALS, SERVICES, answer
from aipaging.core.calculus.bound import RungClass
from aipaging.core.foundation.errors import InvalidInputError

EXPONENTIAL = {"kind": "exponential", "mean": 0.4}
SLOTS = {"kind": "slotted", "work": EXPONENTIAL}
SERVER = {"kind": "constant-rate", "rate": 2.0}
ARRIVAL_EXAMPLES: dict[str, dict[str, Any]] = {
    "poisson": {"rate": 1.0, "work": {"kind": "discrete", "values": [0.1, 1.0], "probabilities": [0.5, 0.5]}},
    "slotted": {"work": EXPONENTIAL},
    "fluid-on-off": {"count": 2, "peak": 1.5, "off_to_on": 0.2, "on_to_off": 1.0},
    "slotted-on-off": {"count": 2, "peak": 1.5, "stay_off": 0.9, "stay_on": 0.5},
    "leaky-buckets": {"count": 3, "burst": 2.0, "rate": 0.2},
    "token-bucket": {"burst": 2.0, "rate": 0.2},
    "exponentially-bounded": {"rate": 0.5, "prefactor": 1.0, "decay": 1.0},
    "markov-slots": {"count": 2, "transition": [[0.9, 0.1], [0.5, 0.5]], "works": [None, EXPONENTIAL]},
    "markov-fluid": {"count": 1, "generator": [[-0.2, 0.2], [1.0, -1.0]], "rates": [0.1, 3.0]},
    "markov-poisson": {
        "count": 1, "generator": [[-0.2, 0.2], [1.0, -1.0]], "rates": [0.5, 2.0], "work": EXPONENTIAL
    },
    "superposition": {"parts": [SLOTS, {"kind": "leaky-buckets", "count": 3, "burst": 2.0, "rate": 0.2}]},
}  # fmt: skip
SERVICE_EXAMPLES: dict[str, dict[str, Any]] = {
    "constant-rate": {"rate": 2.0},
    "rate-latency": {"rate": 2.0, "latency": 1.0},
    "on-off": {"rate": 2.0, "availability": 0.9},
    "impaired-rate-latency": {"rate": 2.0, "latency": 1.0, "prefactor": 1.0, "decay": 2.0},
    "exponential-server": {"rate": 3.0},
    "delay-contract": {"offset": 1.0, "prefactor": 1.0, "decay": 0.5},
    "batching-server": {
        "slots": 4, "base_time": 0.1, "time_per_request": 0.02, "reserved_slots": 2, "tokens_max": 16
    },
    "gps-share": {"rate": 8.0, "latency": 0.0, "weight": 1.0, "weights_total": 4.0},
    "random": {"work": {"kind": "constant", "value": 2.0}},
    "measured": {"delays": [1.0, 5.0], "exceedances": [0.1, 0.01]},
}  # fmt: skip
CONTINUOUS = {"poisson", "fluid-on-off", "markov-fluid", "markov-poisson"}


def ask(arrival: Any, services: list[Any], query: dict[str, float], **more: Any) -> dict[str, Any]:
    domains = [{"name": f"d{i}", "service": s} | more.pop(f"d{i}", {}) for i, s in enumerate(services)]
    return answer({"arrival": arrival, "domains": domains, "query": query} | more, RungClass.SHARP)


def test_every_kind_has_an_example() -> None:
    assert set(ARRIVAL_EXAMPLES) == set(ARRIVALS)
    assert set(SERVICE_EXAMPLES) == set(SERVICES)


@pytest.mark.parametrize("kind", ARRIVALS)
def test_every_kind_of_arrival_is_bounded(kind: str) -> None:
    found = ask({"kind": kind} | ARRIVAL_EXAMPLES[kind], [SERVER], {"delay": 12.0})
    assert 0.0 <= found["epsilon"] < 0.1
    json.dumps(found, allow_nan=False)
    inside = ask({"kind": kind} | ARRIVAL_EXAMPLES[kind], [SERVER], {"backlog": 24.0})
    assert 0.0 <= inside["epsilon"] < 0.1


@pytest.mark.parametrize("kind", SERVICES)
def test_every_kind_of_service_is_bounded(kind: str) -> None:
    continuous = SERVICES[kind].time == "continuous"
    arrival = {"kind": "poisson", "rate": 1.0, "work": {"kind": "constant", "value": 1.0}} if continuous else SLOTS
    found = ask(arrival, [{"kind": kind} | SERVICE_EXAMPLES[kind]], {"delay": 30.0})
    assert 0.0 < found["epsilon"] < 0.1


def test_every_query_has_an_answer() -> None:
    delay = ask(SLOTS, [SERVER], {"epsilon": 1e-6})
    assert delay["epsilon"] <= 1e-6
    work = ask(SLOTS, [SERVER], {"backlog_epsilon": 1e-6})
    assert work["epsilon"] <= 1e-6
    assert work["backlog"] <= 2.0 * delay["delay"]
    leaving = ask(SLOTS, [SERVER], {"output_rate": 0.8})
    assert leaving["rate"] == 0.8
    job = {"kind": "poisson", "rate": 0.5, "work": EXPONENTIAL}
    virtual, sojourn = (ask(job, [SERVER], {"delay": 4.0}, measure=m)["epsilon"] for m in ("virtual", "sojourn"))
    assert virtual < sojourn


def test_cross_traffic_may_share_several_domains() -> None:
    crossing = [{"arrival": SLOTS, "first": "d0", "last": "d1"}]
    independent = {f"d{i}": {"dependence": "independent"} for i in range(2)}
    shared = ask(SLOTS, [SERVER] * 2, {"delay": 20.0}, crossing=crossing, **independent)
    assert ask(SLOTS, [SERVER] * 2, {"delay": 20.0})["epsilon"] < shared["epsilon"] < 1.0
    with pytest.raises(InvalidInputError):
        ask(SLOTS, [SERVER], {"delay": 20.0}, crossing=[{"arrival": SLOTS, "first": "d0", "last": "d7"}])


@pytest.mark.parametrize(
    "change",
    [
        {"query": {"delay": 1.0, "epsilon": 0.1}},
        {"query": {"sojourn": 1.0}},
        {"query": {"backlog": 1.0}, "arrival": None},
        {"measure": "mean"},
        {"arrival": {"kind": "slotted-on-off", "count": 1.5, "peak": 1.0, "stay_off": 0.5, "stay_on": 0.5}},
        {"arrival": {"kind": "markov-slots", "count": 1, "transition": 1.0, "works": []}},
        {"arrival": {"kind": "superposition", "parts": [SLOTS, {"kind": "poisson", "rate": 1.0, "work": EXPONENTIAL}]}},
        {"crossing": ["x"]},
    ],
)
def test_nonsense_names_its_field(change: dict[str, Any]) -> None:
    domains = [{"name": "d", "service": SERVER}]
    with pytest.raises(InvalidInputError) as refused:
        answer({"arrival": SLOTS, "domains": domains, "query": {"delay": 1.0}} | change, RungClass.FAST)
    assert refused.value.field


@pytest.mark.parametrize("query", [{"delay": 3.0}, {"backlog": 3.0}, {"output_rate": 0.8}])
def test_people_read_a_formula(query: dict[str, float]) -> None:
    document = {"arrival": SLOTS, "domains": [{"name": "d", "service": SERVER}], "query": query}
    result = CliRunner().invoke(calculus, ["bound", "-"], input=json.dumps(document))
    assert result.exit_code == 0, result.output
    assert "P(" in result.output
