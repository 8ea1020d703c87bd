"""`aipaging audit` as a user runs it: what outside checks rely on, and what is refused."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aipaging.adapters.terminal.guard import run
from aipaging.apps.cli.registry import aipaging

CONTRACT = """
[[contract]]
domain = "end-to-end"
delay_ms = 100.0
epsilon = 0.01
expected_requests = 3000
[[contract]]
domain = "radio"
delay_ms = 40.0
epsilon = 0.01
offset_ms = 2.0
prefactor = 2.0
decay_per_ms = 0.15
[[contract]]
domain = "compute"
delay_ms = 60.0
epsilon = 0.01
offset_ms = 5.0
prefactor = 2.0
decay_per_ms = 0.11
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """Return 3,000 requests whose compute domain is slow for a tenth of the period, and the contract."""
    rng = np.random.default_rng(7)
    radio = 2_000 + rng.exponential(4_000, 3_000).astype(int)
    compute = 5_000 + rng.exponential(6_000, 3_000).astype(int) + 120_000 * (np.arange(3_000) > 2_700)
    lines = ["request_id,start_us,tenant,status,end_to_end_us,domain_radio_us,domain_compute_us"]
    for row in range(3_000):
        if row % 500 == 3:
            lines.append(f"r{row},{row * 1000},t,lost,,,")
        else:
            lines.append(f"r{row},{row * 1000},t,ok,{radio[row] + compute[row]},{radio[row]},{compute[row]}")
    lines.append(lines[1])
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "c.toml").write_text(CONTRACT)
    return str(tmp_path / "t.csv"), str(tmp_path / "c.toml")


def invoke(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = run(aipaging, ["audit", *arguments])
    return status, capsys.readouterr().out


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    status, out = invoke(capsys, *arguments, "--json")
    return status, json.loads(out)


def test_run(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    telemetry, contract = files
    status, found = document(capsys, "run", telemetry, "--contract", contract, "--alpha", "0.05", "--seed", "1")
    assert status == 1
    verdicts = {verdict["domain"]: verdict for verdict in found["verdicts"]}
    assert {name: verdict["verdict"] for name, verdict in verdicts.items()} == {
        "end-to-end": "violated",
        "radio": "compliant",
        "compute": "violated",
    }
    whole = verdicts["end-to-end"]
    assert (whole["requests"], whole["exceedances_low"], whole["exceedances_high"]) == (3_000, 305, 305)
    assert whole["method"] == "census"
    assert whole["sampled"] == 0
    assert whole["epsilon"] == 0.01
    assert whole["alpha"] == 0.05
    assert whole["effective_requests"] < 100
    assert (verdicts["compute"]["exceedances_low"], verdicts["compute"]["exceedances_high"]) == (300, 306)
    assert found["data_quality"]["flaws"]["duplicated_requests"]["count"] == 1
    blame = found["attribution"]
    total = blame["permitted"] + sum(one["blame"] for one in blame["domains"].values()) + blame["unattributed"]
    assert math.isclose(blame["observed"], total, abs_tol=1e-9)
    assert blame["domains"]["radio"]["blame"] == 0
    assert blame["unattributed"] == pytest.approx(6 / 3_000)
    assert blame["domains"]["compute"]["blame"] > 0.08
    assert {one["method"] for one in found["estimates"]} == {
        "order-statistics",
        "block-bootstrap",
        "generalised-pareto",
    }


def test_the_same_seed_gives_the_same_document(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("run", files[0], "--contract", files[1], "--seed", "9")
    assert document(capsys, *arguments) == document(capsys, *arguments)


def test_sampled_run(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    status, found = document(capsys, "run", files[0], "--contract", files[1], "--sample", "2600", "--seed", "3")
    assert status == 1
    assert [one["verdict"] for one in found["verdicts"]] == ["violated", "compliant", "violated"]
    assert {one["alpha_each"] for one in found["verdicts"]} == {0.05 / 3}
    assert found["multiplicity"]["method"] == "alpha-splitting"
    assert found["attribution"] is None
    for one in found["verdicts"]:
        assert one["sampled"] <= 2600
        assert one["decided_at"] <= 2600


def test_watch(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    status, out = invoke(capsys, "watch", files[0], "--contract", files[1], "--window", "50", "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert status == 1
    assert {event["domain"] for event in events if event["event"] == "alarm"} == {"end-to-end", "compute"}
    assert sum(event["event"] == "end" for event in events) == 3
    assert invoke(capsys, "watch", files[0], "--contract", files[1], "--window", "2000")[0] == 0


def test_for_people(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    _, out = invoke(capsys, "run", files[0], "--contract", files[1])
    assert "duplicated_requests" in out
    assert "blame" in out
    assert "ALARM compute" in invoke(capsys, "watch", files[0], "--contract", files[1], "--window", "50")[1]


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "contract"),
        ("contract = 5", "contract"),
        ("[[contract]]\ndomain = 'a'\nepsilon = 0.1", "contract[0].delay_ms"),
        ("[[contract]]\ndomain = 'a'\ndelay_ms = 1\nepsilon = 2", "contract[0].epsilon"),
        ("[[contract]]\ndomain = 'a'\ndelay_ms = 1\nepsilon = 0.1\ncolour = 1", "contract[0].colour"),
        ("[[contract]]\ndomain = 'a'\ndelay_ms = 'x'\nepsilon = 0.1", "contract[0].delay_ms"),
        ("[[contract]]\ndomain = 'a'\ndelay_ms = inf\nepsilon = 0.1", "contract[0].delay_ms"),
        ("[[contract]]\ndomain = 'a'\ndelay_ms = 1\nepsilon = 0.1\nexpected_requests = 1.5", "expected_requests"),
        ("[[contract]]\ndomain = 'a'\ndelay_ms = 1\nepsilon = 0.1\noffset_ms = 1", "contract[0].offset_ms"),
        ("[[contract]]\ndomain = 'a'\ndelay_ms = 1\nepsilon = 0.1\n" * 2, "contract"),
        ("[[contract", "contract"),
    ],
)
def test_contract_files_that_are_none(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str], text: str, field: str
) -> None:
    Path(files[1]).write_text(text)
    status, found = document(capsys, "run", files[0], "--contract", files[1])
    assert status == 2
    assert found["error"]["who"] == "caller"
    assert field in found["error"]["field"]


def test_what_else_is_refused(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert document(capsys, "run", "no-such-file.csv", "--contract", files[1])[0] == 2
    assert document(capsys, "run", files[0], "--contract", "no-such-file.toml")[0] == 2
    assert document(capsys, "run", files[0], "--contract", files[1], "--alpha", "0")[0] == 2
    assert document(capsys, "run", files[0], "--contract", files[1], "--sample", "5", "--root", "xyz")[0] == 2


def test_recheck(files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in ((), ("--sample", "500", "--seed", "5")):
        said = document(capsys, "run", files[0], "--contract", files[1], *options)[1]
        written = tmp_path / "audit.json"
        written.write_text(json.dumps(said))
        assert document(capsys, "recheck", str(written), files[0], "--contract", files[1])[1]["same"]
        said["verdicts"][0]["exceedances_low"] -= 1
        written.write_text(json.dumps(said))
        status, found = document(capsys, "recheck", str(written), files[0], "--contract", files[1])
        assert status == 1
        assert len(found["differences"]) == 1
        assert found["signatures"] == 0
        assert "verdicts[0].exceedances_low" in found["differences"][0]


@pytest.mark.parametrize("text", ["", "[]", '{"provenance": {}}', '{"provenance": {"alpha": "x"}}'])
def test_what_cannot_be_rechecked(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "audit.json").write_text(text)
    assert document(capsys, "recheck", str(tmp_path / "audit.json"), files[0], "--contract", files[1])[0] == 2


def test_report_is_one_file(files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "audit.html"
    assert document(capsys, "report", files[0], "--contract", files[1], "--output", str(page))[0] == 0
    text = page.read_text()
    assert text.count("<svg") == 11
    assert "://" not in text
    assert "<script" not in text
    assert "'nan" not in text
    assert "nan," not in text
    assert document(capsys, "report", files[0], "--contract", files[1], "--output", str(tmp_path))[0] == 2


def test_report_of_sessions_has_their_estimates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    telemetry, contract = of_sessions(tmp_path, "csv")
    page = tmp_path / "audit.html"
    assert invoke(capsys, "report", telemetry, "--contract", contract, "--output", str(page))[0] == 0
    text = page.read_text()
    assert "session bootstrap" in text
    assert "<td>session-bootstrap</td>" in text


def test_report_of_odd_names_escapes_them(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = Path(files[0])
    table.write_text(table.read_text().replace("domain_radio_us", "domain_<b>_us"))
    contract = Path(files[1])
    contract.write_text(contract.read_text().replace('"radio"', '"<b>"'))
    page = tmp_path / "audit.html"
    document(capsys, "report", files[0], "--contract", files[1], "--output", str(page))
    assert "<b>" not in page.read_text()


def test_estimates_and_blame_alone(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert document(capsys, "estimate", files[0], "--contract", files[1])[1]["estimates"]
    assert document(capsys, "attribute", files[0], "--contract", files[1])[1]["attributions"]
    assert "refused" not in invoke(capsys, "attribute", files[0], "--contract", files[1])[1]
    assert "p99.9 by order-statistics" in invoke(capsys, "estimate", files[0], "--contract", files[1])[1]


def of_sessions(tmp_path: Path, form: str) -> tuple[str, str]:
    """Return 6,000 requests of 300 sessions, of which each is slow or fast in its own way, as a file."""
    rng = np.random.default_rng(11)
    session = rng.integers(0, 300, 6_000)
    compute = (5_000 + rng.lognormal(0, 0.8, 300)[session] * rng.exponential(12_000, 6_000)).astype(int)
    columns: dict[str, list[Any]] = {
        "request_id": [f"r{row}" for row in range(6_000)],
        "start_us": list(range(0, 6_000_000, 1_000)),
        "session": [f"session-{one}" for one in session],
        "status": ["ok"] * 6_000,
        "end_to_end_us": compute.tolist(),
        "domain_compute_us": compute.tolist(),
    }
    path = tmp_path / f"t.{form}"
    if form == "parquet":
        arrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(arrow.table(columns), path)
    else:
        rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
        lines = [",".join(columns), *(",".join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines if form == "csv" else [json.dumps(row) for row in rows]) + "\n")
    tail = "offset_ms = 5.0\nprefactor = 2.0\ndecay_per_ms = 0.2\n"
    head = "delay_ms = 40.0\nepsilon = 0.01\n"
    contracts = [f'[[contract]]\ndomain = "{name}"\n{head}' for name in ("end-to-end", "compute")]
    (tmp_path / "c.toml").write_text("".join(contracts) + tail)
    return str(path), str(tmp_path / "c.toml")


def test_sessions_are_resampled_from_every_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found: list[Any] = []
    for form in ("csv", "jsonl", "parquet"):
        telemetry, contract = of_sessions(tmp_path, form)
        status, estimated = document(capsys, "estimate", telemetry, "--contract", contract)
        assert status == 0
        by_method = {(one["domain"], one["method"], one["quantile"]): one for one in estimated["estimates"]}
        one, order = (by_method["compute", method, 0.99] for method in ("session-bootstrap", "order-statistics"))
        assert one["refused"] is None
        assert one["low_ms"] < one["delay_ms"] < one["high_ms"]
        assert one["design_effect"] > 2
        assert "sessions are independent" in one["assumption"]
        assert "design effect" in order["refused"]
        _, blamed = document(capsys, "attribute", telemetry, "--contract", contract, "--resample", "sessions")
        _, windows = document(capsys, "attribute", telemetry, "--contract", contract)
        mine, usual = (each["attributions"][0] for each in (blamed, windows))
        assert (mine["intervals"], usual["intervals"]) == (
            "95 %, sessions resampled", "95 %, windows of time resampled"
        )  # fmt: skip
        assert mine["domains"]["compute"]["blame"] == usual["domains"]["compute"]["blame"] > 0
        wide, narrow = (
            each["domains"]["compute"]["high"] - each["domains"]["compute"]["low"] for each in (mine, usual)
        )
        assert wide > 1.2 * narrow
        found.append((one, mine))
    assert found[0] == found[1] == found[2]


def test_sessions_cannot_be_resampled_where_they_are_not_known(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    telemetry, contract = files
    status, _ = invoke(capsys, "attribute", telemetry, "--contract", contract, "--resample", "sessions")
    assert status == 2
    assert "session-bootstrap" not in invoke(capsys, "estimate", telemetry, "--contract", contract)[1]


@pytest.fixture
def opened(files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Commit, let a beacon decide, open: the arguments of an audit of the openings alone."""
    note, beacon, output = (str(tmp_path / name) for name in ("c.note", "beacon", "opened.jsonl"))
    Path(beacon).write_text("published afterwards")
    said = document(
        capsys, "commit", files[0], "--origin", "p.example/1", "--key", str(tmp_path / "p.pem"), "--output", note
    )[1]
    assert said["size"] == 3_001
    chosen = ["--commitment", note, "--provider-key", said["verifier_key"], "--beacon", beacon]
    status, told = document(capsys, "open", files[0], *chosen, "--sample", "1500", "--output", output)
    assert (status, told["opened"]) == (0, 1_500)
    return [output, "--contract", files[1], *chosen]


def signed(capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str]) -> tuple[Path, dict[str, Any]]:
    said = document(capsys, "run", *arguments, "--key", str(tmp_path / "a.pem"), "--key-name", "auditor.example")[1]
    path = tmp_path / "audit.json"
    path.write_text(json.dumps(said))
    return path, said


def test_openings_are_judged_signed_and_rechecked(
    opened: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, said = signed(capsys, tmp_path, opened)
    assert [one["verdict"] for one in said["verdicts"]] == ["violated", "compliant", "violated"]
    assert said["provenance"]["root_matches"]
    assert said["records"][0]["root"] == said["provenance"]["root"]
    arguments = (str(path), *opened[:5], "--verifier-key", said["verifier_key"])
    status, found = document(capsys, "recheck", *arguments)
    assert (status, found["signatures"]) == (0, 3)
    said["notes"][1] = said["notes"][0]
    path.write_text(json.dumps(said))
    status, found = document(capsys, "recheck", *arguments)
    assert status == 1
    assert found["differences"] == ["notes[1]: what is signed is not what the files say"]
    del said["notes"]
    path.write_text(json.dumps(said))
    assert document(capsys, "recheck", *arguments)[0] == 1


def test_an_opening_that_is_changed_or_left_out_is_named_and_widens(
    opened: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = document(capsys, "run", *opened)[1]
    lines = Path(opened[0]).read_text().splitlines()
    lines[7] = lines[7].replace('"status":"ok"', '"status":"oK"')
    lines[9] = "{"
    lines[11] = lines[11].replace('"proof":["', '"proof":["zz')
    Path(opened[0]).write_text("\n".join(lines[:-1]) + "\n")
    status, after = document(capsys, "run", *opened)
    assert status == 1
    assert after["data_quality"]["flaws"]["unproven_openings"]["count"] == 4
    assert after["verdicts"][0]["exceedances_high"] > before["verdicts"][0]["exceedances_high"]


def test_openings_under_another_seed_give_no_verdict(opened: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status, found = document(capsys, "run", *opened[:-2], "--seed", "5")
    assert status == 1
    assert {one["verdict"] for one in found["verdicts"]} == {"insufficient_evidence"}
    assert "root_mismatch" in found["data_quality"]["flaws"]


def test_telemetry_that_was_changed_after_the_commitment(
    opened: list[str], files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rest = opened[3:]
    fine = document(capsys, "run", files[0], "--contract", files[1], *rest)[1]
    assert fine["provenance"]["root_matches"]
    assert fine["verdicts"][0]["verdict"] == "violated"
    path, said = signed(capsys, tmp_path, [files[0], "--contract", files[1], *rest])
    table = Path(files[0])
    table.write_text(table.read_text().replace(",lost,", ",ok,"))
    status, found = document(capsys, "recheck", str(path), files[0], "--contract", files[1])
    assert status == 1
    assert any("root" in line for line in found["differences"])
    status, found = document(capsys, "run", files[0], "--contract", files[1], "--root", said["provenance"]["root"])
    assert status == 1
    assert {one["verdict"] for one in found["verdicts"]} == {"insufficient_evidence"}
    status, found = document(capsys, "open", files[0], *rest, "--sample", "5", "--output", str(tmp_path / "x"))
    assert (status, found["error"]["code"]) == (1, "ROOT_MISMATCH")


def test_sampling_by_false_discovery_rate(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--sample", "2600", "--seed", "3", "--multiplicity", "e-bh")
    found = document(capsys, "run", files[0], "--contract", files[1], *options)[1]
    assert [one["verdict"] for one in found["verdicts"]] == ["violated", "compliant", "violated"]
    assert found["multiplicity"]["method"] == "e-bh"


def test_what_cannot_be_opened(
    opened: list[str], files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contract = ("--contract", files[1])
    for arguments in (
        ("run", opened[0], *contract),
        ("run", opened[0], *contract, "--commitment", str(tmp_path / "none")),
        ("run", opened[0], *contract, "--commitment", files[0]),
        ("run", files[0], *contract, "--beacon", str(tmp_path / "none")),
        ("run", files[0], *contract, "--commitment", opened[4], "--provider-key", "a+b+c"),
        ("commit", files[0], "--origin", "two words", "--output", str(tmp_path / "x")),
        ("commit", files[0], "--origin", "o", "--output", str(tmp_path)),
        ("open", files[0], "--sample", "5", "--output", str(tmp_path / "x")),
    ):
        assert document(capsys, *arguments)[0] == 2, arguments
    (tmp_path / "p2.pem").write_text("no key")
    assert document(capsys, "run", files[0], *contract, "--key", str(tmp_path / "p2.pem"))[0] != 0


def test_histograms_say_what_the_records_say(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = tmp_path / "metrics.json"
    arguments = (files[0], "--contract", files[1], "--output", str(metrics))
    assert document(capsys, "export", *arguments)[0] == 0
    status, found = document(capsys, "histograms", str(metrics), "--contract", files[1])
    assert status == 1
    exact = document(capsys, "run", files[0], "--contract", files[1])[1]["verdicts"]
    for coarse, fine in zip(found["verdicts"], exact, strict=True):
        assert coarse["exceedances_low"] <= fine["exceedances_low"]
        assert coarse["exceedances_high"] >= fine["exceedances_high"]
        assert coarse["method"] == "census-of-buckets"
    assert [one["verdict"] for one in found["verdicts"]] == ["violated", "compliant", "violated"]
    assert "violated" in invoke(capsys, "histograms", str(metrics), "--contract", files[1])[1]
    text = tmp_path / "metrics.txt"
    assert document(capsys, "export", *arguments[:-1], str(text), "--format", "openmetrics")[0] == 0
    assert 'aipaging_domain="radio"} {count:' in text.read_text()
    assert text.read_text().endswith("# EOF\n")


def histogram_file(path: Path, *points: dict[str, Any], temporality: int = 1) -> str:
    """Write an export of request durations in seconds, each with one request at 0.5 s and one at 3 s."""
    bounds = {"explicitBounds": [0.1, 1.0], "bucketCounts": ["0", "1", "1"]}
    kind = {"aggregationTemporality": temporality, "dataPoints": [bounds | point for point in points]}
    metric = {"name": "gen_ai.server.request.duration", "unit": "s", "histogram": kind}
    other = {"name": "http.server.request.duration", "unit": "s", "histogram": kind | {"dataPoints": [bounds]}}
    path.write_text(json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric, other]}]}]}))
    return str(path)


def test_histograms_of_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contract = tmp_path / "c.toml"
    contract.write_text("[[contract]]\ndomain = 'end-to-end'\ndelay_ms = 1000\nepsilon = 0.5\nperiod_start_us = 1000\n")
    failed = [{"key": "error.type", "value": {"stringValue": "timeout"}}]
    inside, before = {"startTimeUnixNano": "2000000", "timeUnixNano": "9000000"}, {"timeUnixNano": "1000000"}
    metrics = histogram_file(
        tmp_path / "m.json",
        inside,
        inside | {"attributes": failed},
        before | {"startTimeUnixNano": "500000"},
        inside | {"startTimeUnixNano": "500000"},
        {},
    )
    found = document(capsys, "histograms", metrics, "--contract", str(contract))[1]
    (verdict,) = found["verdicts"]
    assert (verdict["requests"], verdict["exceedances_low"], verdict["exceedances_high"]) == (8, 3, 7)
    flaws = {name: one["count"] for name, one in found["data_quality"]["flaws"].items()}
    assert flaws == {
        "other_metrics": 1,
        "points_outside_period:end-to-end": 1,
        "straddling_points:end-to-end": 1,
        "points_without_time:end-to-end": 1,
    }
    later = inside | {"timeUnixNano": "9500000"}
    metrics = histogram_file(tmp_path / "m.json", inside, later, temporality=2)
    found = document(capsys, "histograms", metrics, "--contract", str(contract))[1]
    assert found["verdicts"][0]["requests"] == 2
    assert found["data_quality"]["flaws"]["superseded_points"]["count"] == 1
    assert document(capsys, "histograms", str(tmp_path / "none"), "--contract", str(contract))[0] == 2


def test_a_scrape_of_prometheus_is_judged(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Native histograms as `export` writes them, and classic ones as everybody does."""
    telemetry, contract = files
    native, form = str(tmp_path / "native.txt"), ("--format", "openmetrics")
    assert invoke(capsys, "export", telemetry, "--contract", contract, *form, "--output", native)[0] == 0
    _, found = document(capsys, "histograms", native, "--contract", contract)
    assert {one["domain"]: one["verdict"] for one in found["verdicts"]} == {
        "end-to-end": "violated", "radio": "compliant", "compute": "violated",
    }  # fmt: skip
    name, labels = "aipaging_domain_duration_microseconds_bucket", r'tenant="a\\b",domain="compute",error=""'
    buckets = [("10000.0", 900), ("40000.0", 950), ("60000.0", 950), ("100000.0", 980), ("+Inf", 1_000)]
    lines = [f'{name}{{{labels},le="{edge}"}} {count}' for edge, count in buckets]
    lines += [
        f'gen_ai_server_request_duration_seconds_bucket{{error_type="client",le="{edge}"}} {count}'
        for edge, count in (("0.1", 10), ("+Inf", 12))
    ]
    classic = tmp_path / "classic.txt"
    classic.write_text(
        "\n".join(["# TYPE x histogram", *lines, 'other_seconds_bucket{le="+Inf"} 3', "other 7.0 17", ""])
    )
    _, found = document(capsys, "histograms", str(classic), "--contract", contract)
    verdicts = {one["domain"]: one for one in found["verdicts"]}
    compute, whole = verdicts["compute"], verdicts["end-to-end"]
    assert (compute["requests"], compute["exceedances_low"], compute["exceedances_high"]) == (1_000, 50, 50)
    # Twelve clients went away: two after the service was late, and of the others nobody knows.
    assert (whole["observed_requests"], whole["exceedances_low"]) == (12, 2)
    assert whole["exceedances_high"] >= 12
    unending = 'aipaging_domain_duration_seconds_bucket{domain="compute",le="1"} 5\n'
    for broken in ("no sample at all {\n", 'x_seconds_bucket{le="1"\n', unending):
        classic.write_text(broken)
        assert invoke(capsys, "histograms", str(classic), "--contract", contract)[0] == 2


def test_progress_is_shown_to_people_alone(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    status, found = document(capsys, "run", files[0], "--contract", files[1])
    assert status == 1
    assert len(found["verdicts"]) == 3


def test_keys_that_are_none(files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("run", files[0], "--contract", files[1])
    bad = tmp_path / "bad.pem"
    bad.touch(mode=0o600)
    bad.write_text("no key")
    assert document(capsys, *arguments, "--key", str(bad))[1]["error"]["who"] == "operator"
    note = tmp_path / "c.note"
    said = document(
        capsys, "commit", files[0], "--origin", "p", "--key", str(tmp_path / "p.pem"), "--output", str(note)
    )
    key = tmp_path / "provider.key"
    key.write_text(said[1]["verifier_key"])
    fine = (*arguments, "--commitment", str(note), "--provider-key", str(key))
    assert document(capsys, *fine)[1]["provenance"]["root_matches"]
    key.write_text("")
    assert document(capsys, *fine)[0] == 2
    key.write_text(said[1]["verifier_key"])
    note.write_text(note.read_text().replace("3001", "3000"))
    assert document(capsys, *fine)[1]["error"]["code"] == "NOTE_SIGNATURE"
