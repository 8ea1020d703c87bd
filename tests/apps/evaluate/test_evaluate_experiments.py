"""Each experiment of the evaluation, tiny: what it measures, what it concludes from that, and its figure."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aipaging.adapters.terminal.picture import picture
from aipaging.apps.evaluate import (
    aip_expiry,
    aip_failures,
    aip_transactions,
    catalogue,
    tre_budget,
    tre_compliance,
    tre_isolation,
)
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


def test_an_interval_just_beside_its_truth_refutes_nothing_among_many(measured: dict[str, dict[str, Any]]) -> None:
    """Of a hundred 95 % intervals some miss the truth: a verdict on all of them must not turn on one."""
    found = copy.deepcopy(measured["TRE3"])
    for point in found["points"]:
        point["true"] = {"value": point["epsilon"], "low": point["epsilon"] * 0.9, "high": point["epsilon"] * 1.1}
    near, clear = copy.deepcopy(found), copy.deepcopy(found)
    epsilon = found["points"][0]["epsilon"]
    near["points"][0]["true"] = {"value": epsilon * 1.11, "low": epsilon * 1.01, "high": epsilon * 1.21}
    clear["points"][0]["true"] = {"value": epsilon * 1.5, "low": epsilon * 1.4, "high": epsilon * 1.6}
    experiment = catalogue.experiment("TRE3")
    assert experiment.conclude(near).confirmed
    assert not experiment.conclude(clear).confirmed


def test_blame_of_who_had_no_part_in_it_refutes_the_claim(measured: dict[str, dict[str, Any]]) -> None:
    worse = copy.deepcopy(measured["TRE5"])
    assert catalogue.experiment("TRE5").conclude(worse).confirmed
    next(iter(worse["pairs"].values()))[0]["innocent"] = 0.4
    assert not catalogue.experiment("TRE5").conclude(worse).confirmed


def _late_path(found: dict[str, Any]) -> None:
    found["paths"][0]["delay_ms"] = 0.5 * found["paths"][0]["simulated"]["low"]


def test_a_path_whose_proven_delay_is_exceeded_too_often_refutes_the_claim(
    measured: dict[str, dict[str, Any]],
) -> None:
    worse = copy.deepcopy(measured["TRE3"])
    _late_path(worse)
    assert not catalogue.experiment("TRE3").conclude(worse).confirmed


def _phases(whole_ms: float, failed: int = 0) -> dict[str, Any]:
    return {phase: [whole_ms] * 20 for phase in aip_transactions.PHASES} | {"failed": failed}


def _transactions(**changes: Any) -> dict[str, Any]:
    clients = {str(count): _phases(50.0) for count in aip_transactions.CLIENTS}
    return {"upstream": "a model", "sound": True, "clients": clients} | changes


def _way(**changes: Any) -> dict[str, Any]:
    found = {"moves": 10, "moves_failed": 0, "interruption_ms": [5.0] * 10, "requests": 100, "requests_failed": 0,
             "streams": 10, "streams_broken": 0}  # fmt: skip
    return found | changes


def _moves(**changes: Any) -> dict[str, Any]:
    worse = _way(requests_failed=7, streams_broken=3, interruption_ms=[60.0] * 10)
    return {"sound": True, "make-before-break": _way(), "break-before-make": worse} | changes


def _mode(**changes: Any) -> dict[str, Any]:
    found = {"requests": 50, "noted_late_ms": [], "sent_after": 9, "served_after": 0, "streams": 2, "streams_uncut": 0,
             "token_late_ms": [-4.0, -9.0], "lost_early_ms": [40.0, 50.0], "left_before_ms": [12.0] * 50}  # fmt: skip
    return found | changes


def _modes(**changes: Any) -> dict[str, Any]:
    return {"modes": {mode: _mode() for mode in aip_expiry.MODES} | changes, "lease_ms": 1_000}


def _failures(**changes: Any) -> dict[str, Any]:
    run = {"recovery_ms": [1500.0] * 3, "never": 0, "requests": 300, "failed": 30, "sound": True} | changes
    return {"sessions": 3, "failures": {name: [dict(run)] for name in aip_failures.FAILURES}}


AIP_CLAIMS: list[tuple[str, dict[str, Any], bool]] = [
    ("AIP1", _transactions(), True),
    ("AIP1", _transactions(sound=False), False),
    ("AIP1", _transactions(clients={str(n): _phases(50.0, failed=1) for n in aip_transactions.CLIENTS}), False),
    ("AIP1", _transactions(clients={str(n): _phases(1_001.0) for n in aip_transactions.CLIENTS}), False),
    ("AIP2", _moves(), True),
    ("AIP2", _moves(sound=False), False),
    ("AIP2", {**_moves(), "make-before-break": _way(requests_failed=1)}, False),
    ("AIP2", {**_moves(), "make-before-break": _way(streams_broken=1)}, False),
    ("AIP2", {**_moves(), "break-before-make": _way()}, False),
    ("AIP3", _modes(), True),
    ("AIP3", _modes(killed=_mode(served_after=1)), False),
    ("AIP3", _modes(paused=_mode(streams_uncut=1)), False),
    ("AIP3", _modes(alive=_mode(token_late_ms=[51.0])), False),
    ("AIP3", _modes(alive=_mode(sent_after=0)), False),
    ("AIP3", _modes(**{"cut off": _mode(left_before_ms=[12.0] * 49 + [-1.0])}), False),
    ("AIP5", _failures(), True),
    ("AIP5", _failures(never=1), False),
    ("AIP5", _failures(sound=False), False),
    ("AIP5", _failures(recovery_ms=[5_001.0]), False),
    ("AIP5", _failures(failed=0, recovery_ms=[0.0]), False),
]
"""What the real stack might have shown, and whether that confirms the claim."""


@pytest.mark.parametrize(("name", "found", "confirmed"), AIP_CLAIMS)
def test_the_claims_on_the_running_system_are_judged_by_their_numbers(
    name: str, found: dict[str, Any], confirmed: bool, tmp_path: Path
) -> None:
    experiment = catalogue.experiment(name)
    finding = experiment.conclude(found)
    assert finding.confirmed is confirmed
    assert finding.sentence.endswith(".")
    with picture(tmp_path / "one.svg", width=9.0, height=experiment.height) as figure:
        experiment.draw(figure, found)
    assert (tmp_path / "one.svg").stat().st_size > 1_000


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
