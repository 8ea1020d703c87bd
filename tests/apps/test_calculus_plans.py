"""`aipaging calculus budget|frontier|fit`: answers, errors with a place, pictures that are the same twice."""

import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aipaging.adapters.terminal.guard import run
from aipaging.apps.calculus.command import calculus

ACCESS = {"name": "access", "offset_ms": 4, "prefactor": 1.2, "decay_per_ms": 0.6}
COMPUTE = {"name": "compute", "offset_ms": 12, "prefactor": 2.0, "decay_per_ms": 0.35}
RATED = [
    {"name": "access", "offset_ms": 4, "prefactor": 1.2, "decay_per_rate": 0.06, "price": 1},
    {"name": "compute", "offset_ms": 12, "prefactor": 2.0, "decay_per_rate": 0.35, "price": 5, "rate_min": 0.1},
]


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    status = run(calculus, [*arguments, "--json"])
    return status, json.loads(capsys.readouterr().out)


def written(folder: Path, document: object) -> str:
    path = folder / "budget.json"
    path.write_text(json.dumps(document))
    return str(path)


@pytest.mark.parametrize(
    ("question", "shown"),
    [
        ({"delay_ms": 60, "domains": [ACCESS, COMPUTE]}, "log_epsilon_per_ms"),
        ({"minimize": "delay", "epsilon": 1e-3, "dependence": "conditional", "domains": [ACCESS, COMPUTE]}, "ms_per"),
        ({"minimize": "cost", "delay_ms": 60, "epsilon": 1e-4, "domains": RATED}, "cost_per_ms"),
        (
            {"minimize": "cost", "delay_ms": 60, "epsilon": 1e-4, "dependence": "independent", "joint": True,
             "domains": RATED},
            "cost_per_ms",
        ),
    ],
)  # fmt: skip
def test_every_kind_of_budget_is_answered_and_drawn(
    question: dict[str, Any], shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, picture = written(tmp_path, question), tmp_path / "budget.svg"
    status, found = ask(capsys, "budget", file, "--plot", str(picture))
    assert status == 0
    assert [part["name"] for part in found["parts"]] == ["access", "compute"]
    assert found["certificate"]["duality_gap"] <= 1e-6
    if not question.get("joint"):
        assert math.fsum(part["delay_ms"] for part in found["parts"]) <= found["delay_ms"] * (1 + 1e-12)
    if "cost" not in found:
        assert found["joint_epsilon"] <= found["epsilon"]
    again = tmp_path / "again.svg"
    assert run(calculus, ["budget", file, "--plot", str(again)]) == 0
    assert again.read_bytes() == picture.read_bytes()
    printed = capsys.readouterr().out
    assert shown in printed
    assert "off the optimum: at most" in printed


@pytest.mark.parametrize(
    ("question", "status", "field"),
    [
        ({"delay_ms": 60, "epsilon": 1e-9, "domains": [ACCESS, COMPUTE]}, 3, "epsilon"),
        ({"delay_ms": 10, "domains": [ACCESS, COMPUTE]}, 3, "delay_ms"),
        ({"delay_ms": 60, "domains": [ACCESS | {"delay_max_ms": 5, "epsilon_max": 0.1}]}, 3, "delay_max_ms"),
        ({"domains": [ACCESS]}, 2, "delay_ms"),
        ({"minimize": "cost", "delay_ms": 60, "epsilon": 0.1, "domains": [ACCESS]}, 2, "domains.access.decay_per_rate"),
        ({"minimize": "luck", "domains": [ACCESS]}, 2, "minimize"),
        ({"delay_ms": 60, "joint": True, "domains": [ACCESS]}, 2, "joint"),
        ({"delay_ms": 60, "domains": [ACCESS | {"colour": 1}]}, 2, "domains[0]"),
    ],
)
def test_what_cannot_be_split_is_named(
    question: dict[str, Any], status: int, field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, document = ask(capsys, "budget", written(tmp_path, question))
    assert (found, document["error"]["field"]) == (status, field)


def test_fields_are_documented(capsys: pytest.CaptureFixture[str]) -> None:
    status, fields = ask(capsys, "budget", "--fields")
    assert status == 0
    assert "domains[].epsilon_min, .epsilon_max" in fields
    assert run(calculus, ["budget", "--fields"]) == 0
    assert "minimize" in capsys.readouterr().out
    assert run(calculus, ["budget"]) == 2


def test_a_frontier_falls_and_is_lower_for_conditional_contracts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, {"delay_ms": 50, "epsilon": 1e-3, "domains": [ACCESS, COMPUTE]})
    picture = tmp_path / "frontier.png"
    options = ["--delay-max", "60", "--rate-factor", "1", "--rate-factor", "2"]
    status, found = ask(capsys, "frontier", file, *options, "--plot", str(picture))
    assert status == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    risks = {
        (curve["rate_factor"], curve["dependence"]): [point["epsilon"] for point in curve["points"]]
        for curve in found["curves"]
    }
    for values in risks.values():
        assert sorted(values, reverse=True) == values
    assert risks[1.0, "conditional"][-1] < risks[1.0, "any"][-1]
    assert risks[2.0, "any"][-1] < risks[1.0, "any"][-1]
    assert run(calculus, ["frontier", file, *options]) == 0
    assert "conditional, 2x" in capsys.readouterr().out


def poisson_rows(count: int = 4000) -> str:
    rng = np.random.default_rng(3)
    times, works = np.cumsum(rng.exponential(1.0, count)), rng.exponential(1.0, count)
    rows = [f"{time:.9f},{work:.6f}" for time, work in zip(times, works, strict=True)]
    return "\n".join(["time,work", *rows]) + "\n"


@pytest.mark.parametrize(
    ("kind", "work_max"),
    [("token-bucket", None), ("exponentially-bounded", None), ("poisson", 20), ("slotted", 30)],
)
def test_what_is_fitted_can_be_bounded(
    kind: str, work_max: int | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace, picture = tmp_path / "trace.csv.gz", tmp_path / "bursts.svg"
    trace.write_bytes(gzip.compress(poisson_rows().encode()))
    options = ["fit", str(trace), "--kind", kind, "--work-column", "work", "--window", "10"]
    if work_max:
        options += ["--work-max", str(work_max)]
    status, found = ask(capsys, *options, "--plot", str(picture))
    assert status == 0, found
    assert (found["epsilon_floor"] == 0.0) == (work_max is not None)
    question = {
        "arrival": found["arrival"],
        "domains": [{"name": "server", "service": {"kind": "constant-rate", "rate": 12.0}}],
        "query": {"delay": 9.0},
    }
    (tmp_path / "question.json").write_text(json.dumps(question))
    status, bound = ask(capsys, "bound", str(tmp_path / "question.json"))
    assert status == 0, bound
    assert bound["epsilon"] < 0.1
    assert run(calculus, options) == 0
    assert "holds with confidence 0.95" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "field", "said"),
    [
        ("time,work\n1,1\n0.5,1\n", "time", "line 3"),
        ("time,work\n1,1\n-2,1\n", "time", "line 3"),
        ("time,work\n1,1\n2,-1\n", "work", "line 3"),
        ("time,work\n1,1\n2,\n", "work", "it is empty"),
        ("time,work\n1,1\nsoon,1\n", "time", "ISO 8601"),
        ("time,work\n1,1\n2,much\n", "work", "not a number"),
        ("when,work\n1,1\n", "time", "there are when, work"),
        ("time,work\n1,1\n99,1\n", "time", "a gap in the record"),
        ("time,work\n1,1\n", "times", "at least 30"),
    ],
)
def test_a_bad_trace_is_named_by_line_and_field(
    rows: str, field: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(rows)
    status, found = ask(
        capsys, "fit", str(trace), "--kind", "poisson", "--work-column", "work", "--gap-max", "10"
    )  # fmt: skip
    assert (status, found["error"]["field"]) == (2, field)
    assert said in found["error"]["message"]


def test_json_lines_are_read_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [line.split(",") for line in poisson_rows(500).splitlines()[1:]]
    trace = tmp_path / "trace.jsonl"
    trace.write_text("\n".join(json.dumps({"t": float(t), "tokens": float(w)}) for t, w in reversed(rows)))
    options = ["fit", str(trace), "--kind", "poisson", "--time-column", "t", "--work-column", "tokens"]
    status, found = ask(capsys, *options)
    assert (status, found["error"]["code"]) == (2, "TRACE_MALFORMED")
    status, found = ask(capsys, *options, "--sort")
    assert (status, found["arrival"]["kind"]) == (0, "poisson")
    trace.write_text("{not json\n")
    assert ask(capsys, *options)[1]["error"]["message"].endswith("(byte 1)")
    (tmp_path / "trace.txt").write_text("1")
    assert ask(capsys, "fit", str(tmp_path / "trace.txt"), "--kind", "poisson")[0] == 2


def test_a_picture_needs_a_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, {"delay_ms": 60, "domains": [ACCESS]})
    status, found = ask(capsys, "budget", file, "--plot", str(tmp_path / "budget.bmp"))
    assert (status, found["error"]["field"]) == (2, "plot")
