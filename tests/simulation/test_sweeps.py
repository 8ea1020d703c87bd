"""Sweeps: the grid, the journal, and going on after a stop at any byte."""

import json

import pytest

from aipaging.core.foundation.errors import InvalidInputError
from aipaging.simulation import sweep as sweeps
from aipaging.simulation.sweep import JOURNAL, read_sweep, run_sweep

SCENARIO = """\
packets = 4000
replications = 5
[[domain]]
name = "link"
discipline = "fifo"
rate_per_ms = 1.0
[[tenant]]
name = "a"
route = ["link"]
arrivals = { kind = "poisson", rate_per_ms = 0.5 }
work = { kind = "exponential", mean = 1.0 }
targets_ms = [5.0]
"""
SWEEP = """\
scenario = "scenario.toml"
seed = 3
[[vary]]
field = "tenant[a].arrivals.rate_per_ms"
values = [0.3, 0.6]
[[vary]]
field = "domain[0].latency_ms"
values = [0.0, 1.0]
"""


@pytest.fixture
def sweep(tmp_path):
    def write(text=SWEEP, scenario=SCENARIO):
        (tmp_path / "scenario.toml").write_text(scenario)
        (tmp_path / "sweep.toml").write_text(text)
        return read_sweep(tmp_path / "sweep.toml")

    return write


def means(outcomes):
    return [outcome.tenants[0].mean_ms for outcome in outcomes]


class KilledError(Exception):
    """Stands for a kill."""


def test_every_point_of_the_grid(sweep, tmp_path) -> None:
    planned = sweep()
    assert [tuple(point.values.values()) for point in planned.points] == [
        (0.3, 0.0),
        (0.3, 1.0),
        (0.6, 0.0),
        (0.6, 1.0),
    ]
    found = means(run_sweep(planned, tmp_path / "out"))
    assert found[1].value == pytest.approx(found[0].value + 1.0, rel=1e-9)
    assert found[2].value > found[0].value


@pytest.mark.parametrize("after", [1, 7, 19])
def test_killed_and_resumed_nothing_is_lost_or_counted_twice(sweep, tmp_path, after) -> None:
    planned = sweep()
    whole = means(run_sweep(planned, tmp_path / "whole"))

    def kill(done: int, _all: int) -> None:
        if done == after:
            raise KilledError

    with pytest.raises(KilledError):
        run_sweep(planned, tmp_path / "out", on_progress=kill)
    journal = tmp_path / "out" / JOURNAL
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == after
    journal.write_bytes(b"".join(lines[:-1]) + lines[-1][: len(lines[-1]) // 2])  # the last write was torn
    seen: list[tuple[int, int]] = []
    assert means(run_sweep(planned, tmp_path / "out", on_progress=lambda *each: seen.append(each))) == whole
    assert seen[0] == (after, 20)
    assert seen[-1] == (20, 20)
    keys = [(each["point"], each["replication"]) for each in map(json.loads, journal.read_text().splitlines())]
    assert len(keys) == len(set(keys)) == 20
    seen.clear()
    assert means(run_sweep(planned, tmp_path / "out", on_progress=lambda *each: seen.append(each))) == whole
    assert not seen, "what is complete is not run again"


def test_a_line_that_is_there_twice_counts_once(sweep, tmp_path) -> None:
    planned = sweep()
    whole = means(run_sweep(planned, tmp_path / "out"))
    journal = tmp_path / "out" / JOURNAL
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines, lines[0]]))
    assert means(run_sweep(planned, tmp_path / "out")) == whole


def test_a_folder_belongs_to_one_sweep_and_one_run(sweep, tmp_path) -> None:
    run_sweep(sweep(), tmp_path / "out")
    with pytest.raises(InvalidInputError, match="holds another sweep"):
        run_sweep(sweep(scenario=SCENARIO.replace("mean = 1.0", "mean = 0.9")), tmp_path / "out")
    (tmp_path / "out" / JOURNAL).write_text("{}\n")
    with pytest.raises(InvalidInputError, match="line 1 is damaged"):
        run_sweep(sweep(), tmp_path / "out")

    def again(_done: int, _all: int) -> None:
        run_sweep(sweep(), tmp_path / "other")

    with pytest.raises(InvalidInputError, match="another run works"):
        run_sweep(sweep(), tmp_path / "other", on_progress=again)


def test_a_trace_is_read_once_and_belongs_to_the_sweep_wherever_it_is_named(sweep, tmp_path, monkeypatch) -> None:
    (tmp_path / "one.csv").write_text("arrival_ms\n1\n3\n4\n")
    (tmp_path / "two.csv").write_text("arrival_ms\n1\n5\n6\n")
    traced = SCENARIO.replace('kind = "poisson", rate_per_ms = 0.5', 'kind = "trace", file = "one.csv"')
    varied = SWEEP.replace("tenant[a].arrivals.rate_per_ms", "tenant[a].arrivals.file")
    varied = varied.replace("[0.3, 0.6]", '["one.csv", "two.csv"]').replace(
        "domain[0].latency_ms", "tenant[a].work.mean"
    )
    varied = varied.replace("[0.0, 1.0]", "[0.1, 0.2]")
    planned = sweep(varied, traced)
    first, second, *_ = (point.orders[0].scenario.tenants[0].arrivals for point in planned.points)
    assert first is second
    (tmp_path / "two.csv").write_text("arrival_ms\n1\n5\n7\n")
    assert sweep(varied, traced).digest != planned.digest
    monkeypatch.setattr(sweeps, "version", lambda _name: "another")
    assert sweep(varied, traced).digest != planned.digest


WRONG = [
    (SWEEP.replace('scenario = "scenario.toml"', ""), "scenario", "name of a scenario file"),
    (SWEEP.replace("scenario.toml", "none.toml"), "sweep", "cannot be read"),
    (SWEEP.replace("seed = 3", "seed = -3"), "seed", "at least 0"),
    (SWEEP.replace("seed = 3", "sead = 3"), "sead", "unknown key"),
    (SWEEP.replace("[a]", "[z]"), "vary", "nothing at"),
    (SWEEP.replace("domain[0].latency_ms", "domain[0]"), "vary", "does not name a key"),
    (SWEEP.replace("[0.0, 1.0]", "[]"), "vary[1].values", "one at least"),
    (SWEEP.replace('field = "domain', 'feld = "domain'), "vary[1]", "`field` and `values`"),
    (SWEEP.replace("0.6", "1.6"), "domain.link", r"point 2 .*unstable"),
    (SWEEP.replace("0.6", "-0.6"), "tenant[0].arrivals.rate_per_ms", r"point 2 .*above 0"),
    ("vary = 3\n" + SWEEP.split("[[", maxsplit=1)[0], "vary", r"\[\[vary\]\]"),
    ("not toml", "sweep", "is not TOML"),
]


@pytest.mark.parametrize(("text", "field", "message"), WRONG, ids=lambda each: str(each)[:20])
def test_what_is_wrong_with_a_sweep_is_named(sweep, text, field, message) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        sweep(text)
    assert caught.value.field == field
