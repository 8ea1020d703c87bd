"""`aipaging calculus`: the acceptance rule of the reference cases, and questions in and out."""

import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from aipaging.apps.calculus.cases import answer_row, answer_rows
from aipaging.apps.calculus.command import calculus
from aipaging.apps.calculus.question import kinds
from aipaging.core.calculus.bound import RungClass
from aipaging.core.foundation.errors import InvalidInputError, RefusedError

NOT_PEERS = {"exact", "simulation", "prototype"}
DELAY_CASES = ("C13", "C14")


def reference_rows(shared_dir: Path) -> list[dict[str, Any]]:
    rows = json.loads((shared_dir / "cases" / "snc_reference_cases.json").read_text())["rows"]
    return [row for row in rows if row["case"] != "C14_SNCMeister_sample"]


def floor(row: dict[str, Any]) -> float:
    """Return what the answer must not be below, 0 where the row is no floor."""
    probability, kind = row["probability"], row["bound_type"]
    if row["peer"] == "exact" and "sojourn>d" not in kind and "upper" not in kind:
        return probability * (1 - 1e-9)
    enough = row["peer"] == "simulation" and probability * row.get("samples", 1e8) >= 1000
    if enough and "FIFO" not in kind and not row["case"].startswith("C8"):
        return 0.6 * probability
    return 0.0


@pytest.mark.parametrize("rung_class", list(RungClass))
def test_the_acceptance_rule_holds_on_every_row(shared_dir: Path, rung_class: RungClass) -> None:
    rows = reference_rows(shared_dir)
    for row, answer in zip(rows, answer_rows(rows, rung_class), strict=True):
        peer = row["peer"] not in NOT_PEERS
        if row["case"].startswith(DELAY_CASES):
            if peer:
                assert answer["delay"] <= row["delay"] * (1 + 1e-6), row
            elif row["peer"] == "exact" and "workload" in row["bound_type"]:
                assert answer["delay"] >= row["delay"] * (1 - 1e-9), row
            continue
        ceiling = min(1.0, math.inf if row["probability"] is None else row["probability"]) if peer else 1.0
        assert floor(row) <= answer["probability"] <= ceiling * (1 + 1e-6), (row, answer)


def test_prototypes_are_reached(shared_dir: Path) -> None:
    rows = [r for r in reference_rows(shared_dir) if r["case"].startswith(("C15", "C16", "C9", "C10"))]
    for row, answer in zip(rows, answer_rows(rows, RungClass.SHARP), strict=True):
        if row["peer"] == "prototype":
            assert answer["probability"] <= 1.05 * min(1.0, row["probability"])


SCALES: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    # case: (rates per time, amounts of work, reciprocals of work)
    "C1_MM1": (("lam", "C"), ("C",), ("mu",)),
    "C2_MD1": (("lam", "C"), ("C", "size"), ()),
    "C3_DM1": ((), ("C",), ("lamb",)),
    "C4_MMOO_disc": ((), ("C", "peak"), ()),
    "C5_MMOO_fluid": (("C", "peak", "off_to_on", "on_to_off"), ("C", "peak"), ()),
    "C6b_tandem_distinct": ((), ("C",), ("lam_foi", "lam_x")),
    "C8_leaky_bucket": ((), ("C", "rho", "sigma"), ()),
    "C9_hoelder": ((), ("C",), ("lam_foi", "lam_x")),
    "C10_EBB": ((), ("C", "rho"), ("decay",)),
    "C16_SP_MMOO": ((), ("C", "peak"), ()),
}


def scaled(params: dict[str, Any], names: tuple[str, ...], factor: float) -> dict[str, Any]:
    def times(value: Any) -> Any:
        return [v * factor for v in value] if isinstance(value, list) else value * factor

    return {name: times(value) if name in names else value for name, value in params.items()}


@pytest.mark.parametrize("case", SCALES)
@pytest.mark.parametrize("factor", [1e-6, 0.1, 1e6])
def test_units_do_not_matter(shared_dir: Path, case: str, factor: float) -> None:
    row = next(r for r in reference_rows(shared_dir) if r["case"] == case and r["delay"] > 2)
    rates, amounts, reciprocals = SCALES[case]
    ours = answer_row(row, RungClass.SHARP)["probability"]
    work = scaled(scaled(row["params"], amounts, factor), reciprocals, 1.0 / factor)
    assert answer_row(row | {"params": work}, RungClass.SHARP)["probability"] == pytest.approx(ours, rel=1e-6)
    if rates:
        faster = row | {"params": scaled(row["params"], rates, factor), "delay": row["delay"] / factor}
        assert answer_row(faster, RungClass.SHARP)["probability"] == pytest.approx(ours, rel=1e-6)


def test_overload_is_one_with_a_reason() -> None:
    row = {"case": "C1_MM1", "params": {"lam": 1.0, "mu": 1.0, "C": 1.0}, "delay": 5.0}
    answer = answer_row(row, RungClass.SHARP)
    assert (answer["probability"], answer["rung"], answer["reason"]["code"]) == (1.0, "unstable", "UNSTABLE")
    quantile = {"case": "C14_SNCMeister_MM1", "params": {"lam": 2.0, "mu": 1.0}, "probability": 1e-3, "delay": 1.0}
    assert answer_row(quantile, RungClass.SHARP)["delay"] is None


@pytest.mark.parametrize(
    "row",
    [
        {"case": "C99_unknown", "params": {}, "delay": 1.0},
        {"case": "C1_MM1", "params": {"lam": 0.5}, "delay": 1.0},
        {"case": "C1_MM1", "params": {"lam": -0.5, "mu": 1.0}, "delay": 1.0},
        {"case": "C1_MM1", "params": {"lam": 0.5, "mu": 1.0}, "delay": -1.0},
        {"case": "C1_MM1", "params": None, "delay": 1.0},
        {"case": "C11_LLM_MG1_truncated", "params": {"dist": "uniform", "smax": 1.0, "lam": 1.0}, "delay": 1.0},
    ],
)
def test_a_bad_row_is_an_error_of_that_row(row: dict[str, Any], tmp_path: Path) -> None:
    good = {"case": "C1_MM1", "params": {"lam": 0.5, "mu": 1.0}, "delay": 5.0}
    file = tmp_path / "cases.json"
    file.write_text(json.dumps({"meta": {}, "rows": [row, good]}))
    result = CliRunner().invoke(calculus, ["cases", str(file), "--json"])
    bad, fine = (json.loads(line) for line in result.output.splitlines())
    assert result.exit_code == 0
    assert set(bad) >= {"case", "error"}
    assert fine["probability"] == pytest.approx(0.5 * math.exp(-2.5))


def test_a_hidden_row_of_every_string_family_is_read() -> None:
    impaired = {"H": 3, "arrival": "iid Exp(1e1)/slot", "service": "each of H domains: C=0.5 per slot w.p. 0.8 else 0"}
    tokens = {"dist": "Pareto(alpha 2.5, xm 50 tok)*10ms, max 1024 tok", "lam": 0.3, "smax": 10.24}
    servers = {"arrival": "iid Exp(2.0) per slot", "servers": [{"R": 1.0, "T": 2.0}, {"R": 0.9, "T": 1.5}]}
    for case, params in (("C15_x", impaired), ("C11_x", tokens), ("C7_rate_latency_tandem", servers)):
        answer = answer_row({"case": case, "params": params, "delay": 30}, RungClass.SHARP)
        assert 0.0 < answer["probability"] < 1e-3


MM1 = {"kind": "poisson", "rate": 0.8, "work": {"kind": "exponential", "mean": 1.0}}
LINK = {"name": "link", "service": {"kind": "constant-rate", "rate": 1.0}}


def ask(question: dict[str, Any]) -> Any:
    result = CliRunner().invoke(calculus, ["bound", "-", "--json"], input=json.dumps(question))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return json.loads(result.output)


def test_a_question_and_its_inverse() -> None:
    there = ask({"arrival": MM1, "domains": [LINK], "query": {"delay": 20.0}})
    assert there["epsilon"] == pytest.approx(0.8 * math.exp(-4.0))
    back = ask({"arrival": MM1, "domains": [LINK], "query": {"epsilon": there["epsilon"]}})
    assert back["delay"] == pytest.approx(20.0, rel=1e-8)
    assert set(there) == {
        "delay",
        "epsilon",
        "rung",
        "assumptions",
        "parameters",
        "per_domain",
        "numeric_error",
        "ladder",
    }


def test_contracts_split_the_risk_by_dependence() -> None:
    def contract(dependence: str) -> dict[str, Any]:
        service = {"kind": "delay-contract", "offset": 1.0, "prefactor": 1.0, "decay": 0.5}
        return {"name": "d", "service": service, "dependence": dependence}

    delays = {
        clause: ask({"domains": [contract(clause)] * 4, "query": {"epsilon": 1e-4}})["delay"]
        for clause in ("any", "conditional")
    }
    assert delays["conditional"] < 0.75 * delays["any"]
    split = ask({"domains": [contract("any")] * 2, "query": {"delay": 90.0}})
    assert split["rung"] in {"union-any-dependence", "dual-any-dependence"}


def test_a_reserved_rate_isolates() -> None:
    quiet = {**LINK, "discipline": "reserved"}
    noisy = {**quiet, "cross": [{"kind": "poisson", "rate": 99.0, "work": {"kind": "constant", "value": 9.0}}]}
    query = {"query": {"delay": 20.0}, "arrival": MM1}
    assert ask({"domains": [quiet], **query}) == ask({"domains": [noisy], **query})


@pytest.mark.parametrize(
    ("question", "error"),
    [
        ({"domains": [], "query": {"delay": 1}}, InvalidInputError),
        ({"arrival": MM1, "domains": [LINK]}, InvalidInputError),
        ({"arrival": MM1, "domains": [LINK], "query": {"delay": 1, "epsilon": 0.1}}, InvalidInputError),
        ({"arrival": MM1, "domains": [LINK], "query": {"epsilon": 2.0}}, InvalidInputError),
        ({"arrival": {"kind": "poisson"}, "domains": [LINK], "query": {"delay": 1}}, InvalidInputError),
        ({"arrival": {**MM1, "rate": "fast"}, "domains": [LINK], "query": {"delay": 1}}, InvalidInputError),
        ({"domains": [LINK], "query": {"delay": 1}}, InvalidInputError),
        ({"arrival": {**MM1, "rate": 1.0}, "domains": [LINK], "query": {"delay": 1}}, RefusedError),
        (
            {"arrival": MM1, "domains": [{**LINK, "cross": [MM1], "discipline": "blind"}], "query": {"delay": 1}},
            RefusedError,
        ),
    ],
)
def test_nonsense_and_the_unprovable_are_refused(question: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        ask(question)


def test_kinds_are_what_bound_accepts() -> None:
    result = CliRunner().invoke(calculus, ["kinds", "--json"])
    assert json.loads(result.output) == json.loads(json.dumps(kinds()))
    assert "poisson" in CliRunner().invoke(calculus, ["kinds"]).output


def test_a_plot_shows_every_rung_that_applies(tmp_path: Path) -> None:
    question = tmp_path / "question.json"
    tokens = {"kind": "log-normal", "median": 2.0, "sigma": 0.8, "cap": 20.0}
    arrival = {"kind": "poisson", "rate": 0.2, "work": tokens}
    question.write_text(json.dumps({"time_unit": "ms", "arrival": arrival, "domains": [LINK]}))
    picture = tmp_path / "bound.svg"
    asked = ["plot", str(question), "--delay-max", "50", "--output", str(picture), "--json"]
    points = json.loads(CliRunner().invoke(calculus, asked).output)["sharp"]
    drawn = {group.get("id") for group in ET.parse(picture).getroot().iter("{http://www.w3.org/2000/svg}g")}
    assert "rung-lundberg" in drawn
    for point in points[1:]:
        assert point["ladder"].keys() == {"pollaczek-khinchine", "lundberg"}
        assert point["epsilon"] == min(point["ladder"].values()) == point["ladder"][point["rung"]]


def test_a_plot_is_well_formed_and_falls(tmp_path: Path) -> None:
    question = tmp_path / "question.json"
    question.write_text(json.dumps({"time_unit": "ms", "arrival": MM1, "domains": [LINK]}))
    picture = tmp_path / "bound.svg"
    asked = ["plot", str(question), "--delay-max", "50"]
    assert CliRunner().invoke(calculus, [*asked, "--output", str(picture)]).exit_code == 0
    drawn = {group.get("id") for group in ET.parse(picture).getroot().iter("{http://www.w3.org/2000/svg}g")}
    assert drawn >= {"fast", "sharp"}
    again = tmp_path / "again.svg"
    CliRunner().invoke(calculus, [*asked, "--output", str(again)])
    assert again.read_bytes() == picture.read_bytes()
    points = json.loads(CliRunner().invoke(calculus, [*asked, "--json"]).output)
    for of in ("fast", "sharp"):
        falling = [point["epsilon"] for point in points[of]]
        assert sorted(falling, reverse=True) == falling
    # The M/M/1 bound is exact, so the simulation lies around it.
    for point in points["simulated"]:
        exact = next(p["epsilon"] for p in points["sharp"] if math.isclose(p["delay"], point["delay"], abs_tol=1e-9))
        assert point["low"] / 1.5 <= exact <= 1.5 * point["high"]
