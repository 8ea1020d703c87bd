"""Each experiment of the evaluation, tiny: what it measures, what it concludes from that, and its figure."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aipaging.adapters.terminal.picture import picture
from aipaging.apps.evaluate import catalogue, tre_budget, tre_compliance, tre_isolation
from aipaging.apps.evaluate.experiment import Experiment, Setting

pytest.importorskip("numba")
pytest.importorskip("matplotlib")

SIMULATED = ("TRE1", "TRE2", "TRE3", "TRE4", "TRE5", "AIP4")
Changed = Callable[[dict[str, Any]], None]


def setting(folder: Path, scale: float = 0.01) -> Setting:
    (folder / "work").mkdir(exist_ok=True)
    return Setting(scale=scale, seed=3, folder=folder / "parts", work=folder / "work")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in SIMULATED:
        experiment = catalogue.experiment(name)
        found[name] = experiment.measure(setting(tmp_path_factory.mktemp(name)))
    return found


@pytest.mark.parametrize("name", SIMULATED)
def test_a_finding_follows_from_plain_numbers_alone(name: str, measured: dict[str, dict[str, Any]]) -> None:
    experiment, found = catalogue.experiment(name), measured[name]
    finding = experiment.conclude(json.loads(json.dumps(found)))
    assert finding == experiment.conclude(found)
    assert finding.sentence.endswith(".")
    assert not re.search(r"\b(nan|inf)\b", finding.sentence)
    assert finding.numbers


@pytest.mark.parametrize("name", SIMULATED)
def test_a_figure_is_the_same_bytes_for_the_same_numbers(
    name: str, measured: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    experiment = catalogue.experiment(name)
    for file in ("one.svg", "two.svg"):
        with picture(tmp_path / file, width=9.0, height=experiment.height) as figure:
            experiment.draw(figure, measured[name])
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def _late(found: dict[str, Any]) -> None:
    for point in found["points"]:
        point["late"]["tre"] = {"value": 0.01, "low": 0.009, "high": 0.011}


def _moved(found: dict[str, Any]) -> None:
    found["by_correlation"]["reserved"][-1] = {"value": 99.0, "low": 90.0, "high": 110.0}


def _untrue(found: dict[str, Any]) -> None:
    found["points"][0]["true"] = {"value": 0.5, "low": 0.4, "high": 0.6}


def _dear(found: dict[str, Any]) -> None:
    found["costs"]["any"]["optimal"] = 1e9


def _missed(found: dict[str, Any]) -> None:
    next(iter(found["blame"].values()))["radio"][0] = {"share": 0.0, "first": 0.0}


def _slow(found: dict[str, Any]) -> None:
    found["ways"]["full"]["cpu_us"] = 1e6


@pytest.mark.parametrize(
    ("name", "worsen"),
    list(zip(SIMULATED, (_late, _moved, _untrue, _dear, _missed, _slow), strict=True)),
)
def test_numbers_that_contradict_a_claim_do_not_confirm_it(
    name: str, worsen: Changed, measured: dict[str, dict[str, Any]]
) -> None:
    worse = copy.deepcopy(measured[name])
    worsen(worse)
    assert not catalogue.experiment(name).conclude(worse).confirmed


def test_the_envelope_admits_more_than_token_buckets_and_less_than_mean_rates() -> None:
    counts = tre_compliance.let_in(tre_compliance.TENANTS_MAX)
    assert counts["deterministic"] < counts["tre"] < counts["mean"] < counts["none"]
    assert counts["tre"] == tre_compliance.provable()[0]


def test_one_tenant_more_than_was_proven_is_not_provable() -> None:
    tenants, contract = tre_compliance.provable()
    assert contract.exceedance(tre_compliance.DELAY_MS) <= tre_compliance.EPSILON
    worse = tre_compliance.contract_for(tenants + 1)
    assert worse is None or worse.exceedance(tre_compliance.DELAY_MS) > tre_compliance.EPSILON


def test_the_core_says_why_the_next_tenant_is_refused() -> None:
    tenants, contract = tre_compliance.provable()
    count, why = tre_compliance.admitted(tre_compliance.envelope_of(contract, 5), 8)
    assert (count, why.partition(":")[0]) == (5, "CAPACITY")
    assert tenants > count


def test_the_victims_bound_is_that_of_a_queue_of_its_own() -> None:
    # M/D/1 at half its load, service 5 ms: p99.9 between a few services and the exponential bound of M/M/1.
    assert 20.0 < tre_isolation.bound_ms() < 50.0


def test_without_splitting_the_risk_is_never_more() -> None:
    for clause in tre_budget.CLAUSES.values():
        found = tre_budget.risks(140.0, clause)
        assert found["not split"] <= found["optimal"] <= min(found["equal"], found["proportional"])


def test_every_experiment_says_its_claim_and_how_it_is_measured() -> None:
    for name in catalogue.HOMES:
        experiment = catalogue.experiment(name)
        assert isinstance(experiment, Experiment)
        assert experiment.name == name
        assert re.match(r"^[^.]+$", experiment.title)
        assert experiment.claim
        assert experiment.method.endswith(".")
