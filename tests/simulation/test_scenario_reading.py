"""Every mistake of a scenario is named with its field and what is allowed."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from aipaging.simulation import kinds
from aipaging.simulation.reading import ScenarioError, read_scenario

GOOD: dict[str, Any] = {
    "packets": 1000,
    "domain": [
        {"name": "link", "discipline": "fifo", "rate_per_ms": 1.0},
        {"name": "shared", "discipline": "reserved", "rate_per_ms": 1.0},
    ],
    "tenant": [
        {
            "name": "a",
            "route": ["link", "shared"],
            "arrivals": {"kind": "poisson", "rate_per_ms": 0.5},
            "work": {"kind": "exponential", "mean": 1.0},
            "reserved_rate_per_ms": 0.6,
        }
    ],
}
ABSENT = object()
TRACE = {"kind": "trace", "file": "t.csv"}
MMPP = {"kind": "mmpp", "rates_per_ms": [0.1, 0.2], "jumps_per_ms": [[0.0, 1.0], [1.0, 0.0]]}

MISTAKES = [
    ("packet", 5, "packet", "did you mean packets"),
    ("packets", 0, "packets", "whole number from 1"),
    ("packets", 1e6, "packets", "not 1000000.0"),
    ("packets", 10, "packets", "fewer than the 20 replications"),
    ("replications", 1, "replications", "2 at least"),
    ("domain", [], "domain", "allowed are 1 to"),
    ("tenant", {}, "tenant", r"\[\[tenant\]\]"),
    ("domain.0.name", "shared", "domain[1].name", "unique"),
    ("domain.0.rate_per_s", 4.0, "domain[0].rate_per_s", "did you mean rate_per_ms"),
    ("domain.0.rate_per_ms", -1.0, "domain[0].rate_per_ms", "above 0"),
    ("domain.0.rate_per_ms", float("inf"), "domain[0].rate_per_ms", "above 0"),
    ("domain.0.rate_per_ms", True, "domain[0].rate_per_ms", "above 0"),
    ("domain.0.rate_per_ms", "1", "domain[0].rate_per_ms", "above 0"),
    ("domain.0.rate_per_ms", ABSENT, "domain[0].rate_per_ms", "missing"),
    ("domain.0.discipline", "lifo", "domain[0].discipline", "allowed are fifo, priority, reserved"),
    ("domain.0.discipline", ABSENT, "domain[0].discipline", "missing"),
    ("domain.0.latency_ms", -0.1, "domain[0].latency_ms", "at least 0"),
    ("domain.0.work_conserving", True, "domain[0].work_conserving", "unknown key"),
    ("domain.0", {"name": "link", "discipline": "fifo", "rate_per_ms": 1.0, "servers": 4, "buffer_packets": 2},
     "domain[0].buffer_packets", "4 servers"),
    ("domain.0.impairment", {"kind": "on-off", "mean_good_ms": 1.0}, "domain[0].impairment.mean_bad_ms", "missing"),
    ("domain.0", {"name": "link", "discipline": "batching", "slots": 2}, "domain[0].iteration_ms", "missing"),
    ("domain.0.discipline", "round-robin", "tenant[0].quantum", "round-robin"),
    ("tenant.0.name", " ", "tenant[0].name", "not empty"),
    ("tenant.0.route", ["link", "lnik"], "tenant[0].route", "no domain 'lnik'"),
    ("tenant.0.route", ["link", "link"], "tenant[0].route", "once at most"),
    ("tenant.0.route", "link", "tenant[0].route", "list of names"),
    ("tenant.0.route", [], "tenant[0].route", "one at least"),
    ("tenant.0.arrivals", ABSENT, "tenant[0].arrivals", "missing"),
    ("tenant.0.arrivals.kind", "posson", "tenant[0].arrivals.kind", "allowed are poisson"),
    ("tenant.0.arrivals.rate_per_ms", 0, "tenant[0].arrivals.rate_per_ms", "above 0"),
    ("tenant.0.arrivals", {**MMPP, "rates_per_ms": [0.1]}, "tenant[0].arrivals.rates_per_ms", "one per mode"),
    ("tenant.0.arrivals", {**MMPP, "rates_per_ms": [0.1] * 3}, "tenant[0].arrivals.rates_per_ms", "3 rates for 2"),
    ("tenant.0.arrivals", {**MMPP, "rates_per_ms": [0, 0]}, "tenant[0].arrivals.rates_per_ms", "above 0"),
    ("tenant.0.arrivals", {**MMPP, "jumps_per_ms": [[0, 1], [0, 0]]}, "tenant[0].arrivals.jumps_per_ms", "reachable"),
    ("tenant.0.arrivals", {**MMPP, "jumps_per_ms": [[1, 1], [1, 0]]}, "tenant[0].arrivals.jumps_per_ms", "diagonal"),
    ("tenant.0.arrivals", {"kind": "modulated", "modulator": "m", "rates_per_ms": [0, 1]},
     "tenant[0].arrivals.modulator", "no modulator 'm'"),
    ("tenant.0.arrivals", TRACE, "tenant[0].arrivals.file", "cannot be read"),
    ("tenant.0.work", ABSENT, "tenant[0].work", "missing"),
    ("tenant.0.work", {"kind": "constant", "mean": 1.0}, "tenant[0].work.mean", "unknown key"),
    ("tenant.0.work", {"kind": "uniform", "low": 2.0, "high": 1.0}, "tenant[0].work.high", "above low"),
    ("tenant.0.work", {"kind": "pareto", "minimum": 2.0, "alpha": 1.0, "cap": 1.0}, "tenant[0].work.cap", "at least"),
    ("tenant.0.work", {"kind": "discrete", "values": [1, 2], "probabilities": [0.5, 0.6]},
     "tenant[0].work.probabilities", "add up to 1.1"),
    ("tenant.0.work", {"kind": "discrete", "values": [1, 2], "probabilities": [1.0]},
     "tenant[0].work.probabilities", "1 of them for 2"),
    ("tenant.0.priority", 1.5, "tenant[0].priority", "whole number"),
    ("tenant.0.reserved_rate_per_ms", ABSENT, "tenant[0].reserved_rate_per_ms", "missing for domain 'shared'"),
    ("tenant.0.reserved_rate_per_ms", {"linkk": 0.1}, "tenant[0].reserved_rate_per_ms.linkk", "not on the tenant"),
    ("tenant.0.reserved_rate_per_ms", 1.2, "domain[1].rate_per_ms", "not sold twice"),
    ("tenant.0.targets_ms", [0], "tenant[0].targets_ms", "above 0"),
    ("tenant.0.regulator", {"kind": "policer", "burst": 1.0}, "tenant[0].regulator.rate_per_ms", "missing"),
    ("tenant.0.work", {"kind": "log-normal", "median": 1.0, "sigma": 1.0, "cap": 1e300}, "tenant[0].work.cap", "1e.15"),
    ("tenant.0.arrivals.rate_per_ms", 1e-300, "tenant[0].arrivals.rate_per_ms", "1e-15 to"),
    ("tenant.0.work", {"kind": "constant", "value": 2.0}, "tenant[0].regulator.burst", "all would be lost"),
    ("domain.0.buffer_work", 0.5, "domain[0].buffer_work", "smallest packet of tenant 'a' brings 2"),
    ("domain.0.latency_seconds", 0.1, "domain[0].latency_seconds", "multiply the number by 1000"),
    ("domain.0.rate_per_sec", 0.1, "domain[0].rate_per_sec", "multiply the number by 0.001"),
    ("domain.0", {"name": "link", "discipline": "fifo", "rate_per_ms": 1.0, "retry": {"error_probability": 1.0}},
     "domain[0].retry.error_probability", "below 1"),
    ("domain.0.impairment", {"kind": "gilbert-elliott", "mean_good_ms": 1.0, "mean_bad_ms": 1.0},
     "domain[0].impairment.loss_bad", "missing"),
    ("modulator", [{"name": "m", "jumps_per_ms": [[0]]}], "modulator[0].jumps_per_ms", "square"),
]  # fmt: skip


def changed(path: str, value: Any) -> dict[str, Any]:
    document: Any = copy.deepcopy(GOOD)
    *way, last = path.split(".")
    place = document
    for step in way:
        place = place[int(step)] if step.isdigit() else place[step]
    key: Any = int(last) if last.isdigit() else last
    if value is ABSENT:
        del place[key]
    else:
        place[key] = value
    return document


@pytest.mark.parametrize(("path", "value", "field", "message"), MISTAKES)
def test_a_mistake_is_named(path, value, field, message, tmp_path) -> None:
    document = changed(path, value)
    if message.endswith(("lost", "brings 2")):
        policer = {"kind": "policer", "rate_per_ms": 1.0, "burst": 1.0 if message.endswith("lost") else 2.0}
        document["tenant"][0] |= {"regulator": policer, "work": {"kind": "constant", "value": 2.0}}
    with pytest.raises(ScenarioError) as caught:
        read_scenario(document, folder=tmp_path)
    (found, *_) = [mistake for mistake in caught.value.mistakes if mistake.field == field]
    assert re.search(message, found.message)


def test_the_good_one_is_good() -> None:
    scenario = read_scenario(GOOD, folder=Path())
    assert [domain.name for domain in scenario.domains] == ["link", "shared"]
    assert scenario.tenants[0].reserved_rate_per_ms == {"shared": 0.6}


def test_a_turn_that_sends_nothing_for_thousands_of_rounds_is_refused() -> None:
    document = changed("domain.0.discipline", "round-robin")
    document["tenant"][0]["quantum"] = 1e-4
    with pytest.raises(ScenarioError, match="thousands of turns"):
        read_scenario(document, folder=Path())


def test_several_mistakes_are_named_at_once() -> None:
    document = changed("domain.0.rate_per_ms", 0)
    document["tenant"][0]["work"] = {"kind": "none"}
    with pytest.raises(ScenarioError, match="and 1 more") as caught:
        read_scenario(document, folder=Path())
    assert len(caught.value.mistakes) == 2


def test_routes_in_a_circle_are_refused() -> None:
    document = copy.deepcopy(GOOD)
    document["tenant"].append({**document["tenant"][0], "name": "b", "route": ["shared", "link"],
                               "reserved_rate_per_ms": 0.1})  # fmt: skip
    with pytest.raises(ScenarioError, match=r"circle \((link -> shared -> link|shared -> link -> shared)\)"):
        read_scenario(document, folder=Path())


TRACES = [
    ("", "no column", 1, "time_column"),
    ("t\n1\n2\n", "there are: t", 1, "time_column"),
    ("arrival_ms\n1\n\n3\n2\n", "before the one above", 5, "arrival_ms"),
    ("arrival_ms\n-1\n2\n", "negative", 2, "arrival_ms"),
    ("arrival_ms\n1\nx\n", "not 'x'", 3, "arrival_ms"),
    ("arrival_ms,n\n1,1\n,2\n", "empty", 3, "arrival_ms"),
    ("arrival_ms\n1\n1\n", "two packets at different instants", None, "file"),
    ("arrival_ms,t_us\n1,1\n2,2\n", "in us by its name", None, "time_unit"),
]


@pytest.mark.parametrize(("text", "message", "line", "field"), TRACES)
def test_a_bad_trace_is_named_with_its_line(text, message, line, field, tmp_path) -> None:
    (tmp_path / "t.csv").write_text(text)
    trace = TRACE if field != "time_unit" else {**TRACE, "time_column": "t_us", "time_unit": "s"}
    with pytest.raises(ScenarioError, match=message) as caught:
        read_scenario(changed("tenant.0.arrivals", trace), folder=tmp_path)
    (mistake,) = caught.value.mistakes
    assert mistake.line == line
    assert mistake.field == (field if field == "arrival_ms" else f"tenant[0].arrivals.{field}")
    assert mistake.file == str(tmp_path / "t.csv")


def test_a_trace_with_work_and_a_law_of_work_contradict(tmp_path) -> None:
    (tmp_path / "t.csv").write_text("arrival_ms,n\n1,1\n2,-2\n")
    document = changed("tenant.0.arrivals", {**TRACE, "work_column": "n"})
    with pytest.raises(ScenarioError, match="n: -2 is negative"):
        read_scenario(document, folder=tmp_path)
    (tmp_path / "t.csv").write_text("arrival_ms,n\n1,1\n2,2\n")
    with pytest.raises(ScenarioError, match="leave it out"):
        read_scenario(document, folder=tmp_path)


def test_every_kind_has_a_meaning_for_every_field() -> None:
    for part in kinds.document().values():
        for kind in part.values():
            assert kind["help"]
            assert all(field["help"] and field["allowed"] for field in kind["fields"].values())
