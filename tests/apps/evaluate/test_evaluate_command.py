"""`aipaging evaluate` as a user runs it: report, resumption, exit statuses; and one experiment on the real stack."""

import json
import re
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from aipaging.adapters.terminal.guard import run
from aipaging.apps.cli.registry import aipaging
from aipaging.apps.evaluate import catalogue, command, experiment, running, tre_budget
from aipaging.apps.evaluate.experiment import Experiment, Finding, Measured, NotRunError, Setting, write_whole
from aipaging.core.foundation.errors import UnavailableError

pytest.importorskip("numba")
pytest.importorskip("matplotlib")

FETCHED = {"src", "srcset", "data", "poster", "action"}


class Fetches(HTMLParser):
    """Collects whatever a browser would fetch, and the ids."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            reference = name in FETCHED or (name in {"href", "xlink:href"} and tag != "a")
            if reference and value and not value.startswith(("#", "data:")):
                self.found.append(value)
        if tag in {"script", "link", "iframe"}:
            self.found.append(tag)


def plain(figure: Any, measured: Measured) -> None:
    """Draw a line: where the figure is not the matter, its second of layout is not waited for."""
    figure.subplots().plot([0.0, float(len(measured))])


def small(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Let TRE4 be the only experiment, with other parts."""

    def changed(_: str) -> Experiment:
        return replace(tre_budget.TRE4, draw=plain, **changes)

    monkeypatch.setattr(command, "experiment", changed)


def test_the_report_needs_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(aipaging, ["evaluate", "--out", str(tmp_path), "--only", "TRE4", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    page = (tmp_path / "report.html").read_text()
    parser = Fetches()
    parser.feed(page)
    assert not parser.found
    assert not re.search(r"url\((?!#)|@import", page)
    assert len(parser.ids) == len(set(parser.ids))
    (one,) = document["experiments"]
    assert one["verdict"] == "confirmed"
    assert one["sentence"].replace("&", "&amp;") in page
    assert all((tmp_path / file).stat().st_size > 1_000 for file in one["figures"])
    whole = json.loads((tmp_path / "results.json").read_text())
    assert whole["experiments"][0]["measured"]["delays_ms"]
    assert {"python", "numpy"} <= set(whole["made"]["versions"])
    assert whole["made"]["seed"] == 0


def test_a_claim_that_is_not_confirmed_is_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuted(_: Measured) -> Finding:
        return Finding(sentence="It does not hold.", confirmed=False)

    small(monkeypatch, conclude=refuted)
    assert run(aipaging, ["evaluate", "--out", str(tmp_path), "--only", "TRE4"]) == 1
    assert "not confirmed" in capsys.readouterr().out
    assert "It does not hold." in (tmp_path / "report.html").read_text()


def test_what_could_not_run_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(_: Setting) -> dict[str, Any]:
        raise NotRunError("this machine has no gateway", code="EXTRA_MISSING")

    small(monkeypatch, measure=lacking)
    assert run(aipaging, ["evaluate", "--out", str(tmp_path), "--only", "TRE4"]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "Not run: this machine has no gateway" in page
    assert "Not run" in (tmp_path / "figures" / "TRE4.svg").read_text()


def test_what_fails_is_told_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = catalogue.experiment

    def broken(setting: Setting) -> dict[str, Any]:
        setting.part("first", lambda: 1)
        raise UnavailableError("the controller did not come up", code="PART_FAILED")

    def changed(name: str) -> Experiment:
        return replace(real(name), measure=broken) if name == "AIP1" else real(name)

    monkeypatch.setattr(command, "experiment", changed)
    arguments = ["evaluate", "--out", str(tmp_path), "--only", "TRE4,AIP1", "--json"]
    assert run(aipaging, arguments) == 1
    verdicts = {one["experiment"]: one["verdict"] for one in json.loads(capsys.readouterr().out)["experiments"]}
    assert verdicts == {"TRE4": "confirmed", "AIP1": "failed"}
    assert "Failed: the controller did not come up" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "parts" / "AIP1" / "first.json").exists(), "what was measured of it is kept for the next run"


def test_the_report_holds_what_earlier_runs_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = catalogue.experiment

    def changed(name: str) -> Experiment:
        return replace(real("TRE4"), name=name, draw=plain, revision=2 if name == "TRE3" else 1)

    monkeypatch.setattr(command, "experiment", changed)
    for name in ("TRE3", "TRE2", "TRE4"):
        assert run(aipaging, ["evaluate", "--out", str(tmp_path), "--only", name, "--json"]) == 0
        (asked,) = json.loads(capsys.readouterr().out.splitlines()[-1])["experiments"]
        assert asked["experiment"] == name

    def first(name: str) -> Experiment:
        return replace(real("TRE4"), name=name, draw=plain)

    monkeypatch.setattr(command, "experiment", first)
    assert run(aipaging, ["evaluate", "--out", str(tmp_path), "--only", "TRE4", "--json"]) == 0
    reported = [one["experiment"] for one in json.loads((tmp_path / "results.json").read_text())["experiments"]]
    assert reported == ["TRE2", "TRE4"], "what was measured otherwise then is not taken for what is measured now"


def test_a_finished_experiment_is_not_measured_again(tmp_path: Path) -> None:
    seeds: list[int] = []

    def measure(setting: Setting) -> Measured:
        seeds.append(setting.seed)
        return {"runs": len(seeds)}

    one = replace(tre_budget.TRE4, measure=measure)
    for seed in (0, 0, 1):
        running.run(one, tmp_path, scale=1.0, made={"command": "c", "seed": seed, "versions": {}})
    assert seeds == [0, 1]


def test_a_killed_experiment_goes_on_where_it_was(tmp_path: Path) -> None:
    computed: list[str] = []
    made = {"command": "c", "seed": 0, "versions": {}}

    def killed_after(count: int) -> Experiment:
        def measure(setting: Setting) -> dict[str, Any]:
            def compute(key: str) -> str:
                if len(computed) == count:
                    raise KeyboardInterrupt
                computed.append(key)
                return key

            return {key: setting.part(key, partial(compute, key)) for key in ("a", "b", "c")}

        return replace(tre_budget.TRE4, measure=measure)

    with pytest.raises(KeyboardInterrupt):
        running.run(killed_after(2), tmp_path, scale=1.0, made=made)
    result = running.run(killed_after(9), tmp_path, scale=1.0, made=made)
    assert computed == ["a", "b", "c"]
    assert result["measured"] == {"a": "a", "b": "b", "c": "c"}


def test_parts_of_another_seed_are_not_used(tmp_path: Path) -> None:
    write_whole(tmp_path / "parts" / "TRE4" / "key.json", {"scale": 1.0, "seed": 5, "version": "", "revision": 1})
    write_whole(tmp_path / "parts" / "TRE4" / "a.json", "of another seed")

    def measure(setting: Setting) -> Measured:
        return {"a": setting.part("a", lambda: "new")}

    one = replace(tre_budget.TRE4, measure=measure)
    made = {"command": "c", "seed": 0, "versions": {}}
    assert running.run(one, tmp_path, scale=1.0, made=made)["measured"] == {"a": "new"}


@pytest.mark.parametrize(
    ("arguments", "field"),
    [(["--out", "x", "--only", "TRE9"], "only"), ([], "out"), (["--out", __file__], "out")],
)
def test_what_is_wrong_is_named(arguments: list[str], field: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(aipaging, ["evaluate", *arguments, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["field"] == field


def test_the_list_names_every_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(aipaging, ["evaluate", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["experiments"]
    assert [one["name"] for one in listed] == list(catalogue.HOMES)


@pytest.mark.real
@pytest.mark.soak  # half a minute; the benchmarks that it stands on are tested
def test_an_experiment_on_the_real_stack(tmp_path: Path) -> None:
    pytest.importorskip("envoy")
    one = catalogue.experiment("AIP3")
    (tmp_path / "work").mkdir()
    setting = experiment.Setting(scale=0.05, seed=1, folder=tmp_path / "parts", work=tmp_path / "work")
    finding = one.conclude(one.measure(setting))
    assert finding.numbers["left_late"] == 0
    assert finding.numbers["served_after"] == 0
    assert finding.numbers["sent_after"] > 0
