"""`aipaging simulate`: scenario files in, documents out, mistakes with their lines."""

import importlib.util
import json

import pytest

from aipaging.adapters.terminal.guard import run
from aipaging.apps.simulate.command import simulate
from aipaging.apps.simulate.places import field_lines, line_of

MINIMAL = """\
packets = 40_000
[[domain]]
name = "link"
rate_per_ms = 1.0              # work units per ms
discipline = "fifo"            # fifo | priority | reserved
latency_ms = 0.0
[[tenant]]
name = "a"
route = ["link"]
arrivals = { kind = "poisson", rate_per_ms = 0.8 }
work = { kind = "exponential", mean = 1.0 }     # or { kind = "constant", value = 1.0 }
priority = 0                   # lower number first, for discipline = "priority"
reserved_rate_per_ms = 0.5     # for discipline = "reserved"
targets_ms = [5.0, 20.0]
"""


@pytest.fixture
def scenario(tmp_path):
    def write(text=MINIMAL):
        file = tmp_path / "scenario.toml"
        file.write_text(text)
        return str(file)

    return write


def document(capsys, *arguments):
    status = run(simulate, [*arguments, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_the_minimal_scenario_gives_the_agreed_document(scenario, capsys) -> None:
    status, found = document(capsys, scenario())
    assert status == 0
    assert {"seed", "packets", "seconds", "packets_per_second", "tenants"} <= set(found)
    (tenant,) = found["tenants"]
    assert tenant["name"] == "a"
    assert tenant["sent"] == found["packets"] == 40_000
    assert tenant["lost"] == 0
    assert list(tenant["quantiles"]) == ["0.5", "0.9", "0.99", "0.999"]
    assert tenant["quantiles"]["0.5"]["low"] < tenant["quantiles"]["0.5"]["value"] < tenant["quantiles"]["0.5"]["high"]
    assert [each["target_ms"] for each in tenant["exceedance"]] == [5.0, 20.0]
    assert set(tenant["exceedance"][0]) == {"target_ms", "probability", "low", "high"}
    assert 4.0 < tenant["mean_ms"] < 6.0


@pytest.mark.parametrize("discipline", ["priority", "reserved"])
def test_the_minimal_scenario_with_the_other_disciplines(scenario, capsys, discipline) -> None:
    status, found = document(capsys, scenario(MINIMAL.replace('"fifo"', f'"{discipline}"')), "--seed", "4")
    assert status == 0
    assert found["seed"] == 4
    assert 4.0 < found["tenants"][0]["mean_ms"] < 6.0


def test_options_stand_before_or_behind_and_override(scenario, capsys) -> None:
    _, one = document(capsys, scenario(), "--packets", "5000", "--replications", "10")
    _, two = document(capsys, "--packets", "5000", "--replications", "10", scenario())
    assert one["tenants"] == two["tenants"]
    assert one["packets"] == 5000
    assert one["method"]["replications"] == 10


def test_processes_give_the_same(scenario, capsys) -> None:
    _, alone = document(capsys, scenario())
    status, side_by_side = document(capsys, scenario(), "--executor", "processes:2")
    assert status == 0
    assert side_by_side["tenants"] == alone["tenants"]


def test_an_overload_is_refused_and_runs_on_demand(scenario, capsys) -> None:
    file = scenario(MINIMAL.replace("0.8", "1.2"))
    status, found = document(capsys, file)
    assert status == 2
    assert found["error"]["code"] == "UNSTABLE"
    assert "'link' (utilisation 1.2)" in found["error"]["message"]
    assert (found["error"]["field"], found["error"]["file"], found["error"]["line"]) == ("domain.link", file, 2)
    status, found = document(capsys, file, "--allow-overload")
    assert status == 0
    assert found["warnings"]


def test_mistakes_have_their_lines(scenario, capsys) -> None:
    file = scenario(MINIMAL.replace("rate_per_ms = 1.0 ", "rate_per_s = 1.0 ").replace("mean = 1.0", "mean = -1.0"))
    status, found = document(capsys, file)
    assert status == 2
    assert {(each["field"], each["line"]) for each in found["errors"]} == {
        ("domain[0].rate_per_s", 4), ("domain[0].rate_per_ms", 2), ("tenant[0].work.mean", 11)
    }  # fmt: skip
    assert found["error"]["file"] == file


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (("--executor", "clouds"), 2, "INVALID_ARGUMENT"),
        (("--packets", "0"), 2, "USAGE"),
        (("--packets", "3"), 2, "INVALID_SCENARIO"),
        (("--seed", "-1"), 2, "USAGE"),
    ],
)
def test_wrong_options(scenario, capsys, arguments, status, code) -> None:
    found = document(capsys, scenario(), *arguments)
    assert (found[0], found[1]["error"]["code"]) == (status, code)


def test_files_that_are_not_there_or_not_toml(scenario, capsys, tmp_path) -> None:
    status, found = document(capsys, str(tmp_path / "none.toml"))
    assert (status, found["error"]["code"]) == (2, "FILE_UNREADABLE")
    status, found = document(capsys, scenario("packets = 5\ndomain =\n"))
    assert (status, found["error"]["line"]) == (2, 2)


def test_without_the_compiler_the_extra_is_named(scenario, capsys, monkeypatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "numba" else find(name))
    status, found = document(capsys, scenario())
    assert status == 4
    assert "aipaging[simulation]" in found["error"]["message"]
    assert document(capsys, "kinds")[0] == 0


def test_kinds_and_people(scenario, capsys, tmp_path) -> None:
    status, found = document(capsys, "kinds")
    assert status == 0
    assert {"poisson", "mmpp", "trace"} <= set(found["arrivals"])
    assert run(simulate, ["kinds"]) == 0
    assert "deficit round robin" in capsys.readouterr().out
    out = tmp_path / "result.json"
    assert run(simulate, [scenario(), "--out", str(out)]) == 0
    assert "p99.9" in capsys.readouterr().out
    assert json.loads(out.read_text())["packets"] == 40_000
    assert run(simulate, [scenario(), "--out", str(tmp_path / "none" / "x.json")]) == 2


def test_lines_of_tables_below_tables() -> None:
    lines = field_lines("[[domain]]\nname = 'a'\n[domain.impairment]\nkind = 'on-off'\n[[domain]]\nname = 'b'\n")
    assert lines["domain[0].impairment.kind"] == 4
    assert lines["domain[1].name"] == 6
    assert lines["domain.b"] == 5
    assert line_of(lines, "domain.a.rate_per_ms") == 1
    assert line_of(lines, "domain[0].impairment.mean_bad_ms") == 3
    assert line_of(lines, "packets") is None


def test_a_run_until_it_is_precise(scenario, capsys) -> None:
    status, found = document(capsys, scenario(), "--precision", "0.1", "--precise-at", "mean")
    assert status == 0
    (tenant,) = found["tenants"]
    assert tenant["mean_interval_ms"]["high"] - tenant["mean_interval_ms"]["low"] <= 0.2 * tenant["mean_ms"]
    status, found = document(capsys, scenario(), "--precision", "0.1", "--precise-at", "p12")
    assert (status, found["error"]["field"]) == (2, "precise_at")


def test_a_rare_delay(scenario, capsys) -> None:
    arguments = ("--tenant", "a", "--target-ms", "100")
    status, found = document(capsys, "rare", scenario(), *arguments)
    assert status == 0
    assert found["low"] < 2.061153622438558e-09 * 1.01
    assert found["high"] > 2.061153622438558e-09 * 0.99
    assert found["method"] == "twisting"
    assert found["decay_per_ms"] == pytest.approx(0.2)
    assert run(simulate, ["rare", scenario(), *arguments]) == 0
    assert "P(delay of a > 100 ms)" in capsys.readouterr().out
    status, found = document(capsys, "rare", scenario(MINIMAL.replace('"fifo"', '"priority"')), *arguments)
    assert (status, found["error"]["code"]) == (2, "NOT_RARE_READY")


SWEEP = """\
scenario = "scenario.toml"
[[vary]]
field = "tenant[a].arrivals.rate_per_ms"
values = [0.3, 0.6]
"""


def test_a_sweep_leaves_parquet_and_json(scenario, capsys, tmp_path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    scenario()
    (tmp_path / "sweep.toml").write_text(SWEEP)
    out = tmp_path / "out"
    status, found = document(capsys, "sweep", str(tmp_path / "sweep.toml"), "--out", str(out))
    assert status == 0
    assert [point["values"] for point in found["points"]] == [
        {"tenant[a].arrivals.rate_per_ms": 0.3}, {"tenant[a].arrivals.rate_per_ms": 0.6}
    ]  # fmt: skip
    assert json.loads((out / "results.json").read_text()) == found
    rows = parquet.read_table(out / "results.parquet").to_pylist()
    assert len(rows) == 2 * (2 + 4 + 2)
    means = [row["value"] for row in rows if row["metric"] == "mean_ms"]
    assert means == [point["tenants"][0]["mean_ms"] for point in found["points"]]
    assert run(simulate, ["sweep", str(tmp_path / "sweep.toml"), "--out", str(out)]) == 0
    assert "quantile" in capsys.readouterr().out
    (tmp_path / "sweep.toml").write_text(SWEEP.replace("0.6", "1.6"))
    status, found = document(capsys, "sweep", str(tmp_path / "sweep.toml"), "--out", str(out))
    assert (status, found["error"]["code"]) == (2, "UNSTABLE")


def test_a_run_as_parquet(scenario, tmp_path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "result.parquet"
    assert run(simulate, [scenario(), "--out", str(out)]) == 0
    rows = parquet.read_table(out).to_pylist()
    assert {row["metric"] for row in rows} == {"mean_ms", "loss", "quantile_ms", "exceedance"}
