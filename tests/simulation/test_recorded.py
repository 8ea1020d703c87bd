"""Recorded arrivals and delays: the public formats, holes, and the data sets themselves."""

import gzip
import math
import re
from pathlib import Path

import numpy as np
import pytest

from aipaging.simulation.traces import TraceError, read_delays, read_trace

AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8\n"
)
MOONCAKE = '{"timestamp": 0, "output_length": 5}\n{"timestamp": 30, "output_length": 7}\n'
SERVEGEN = "0,0.02,1.5,Gamma,0.5,100\n600,0,0,,0,0\n1200,0.01,2,Weibull,0.6,3\n"


def test_named_formats_know_their_columns_and_units(tmp_path) -> None:
    (tmp_path / "azure.csv").write_text(AZURE)
    trace = read_trace(tmp_path / "azure.csv", format="azure-llm", work_column="GeneratedTokens")
    assert trace.instants_ms == pytest.approx([0.0, 52.0])
    assert trace.works.tolist() == [10.0, 8.0]
    with gzip.open(tmp_path / "m.jsonl.gz", "wt") as file:
        file.write(MOONCAKE)
    trace = read_trace(tmp_path / "m.jsonl.gz", format="mooncake", work_column="output_length")
    assert trace.instants_ms.tolist() == [0.0, 30.0]
    (tmp_path / "s.csv").write_text(SERVEGEN)
    trace = read_trace(tmp_path / "s.csv", format="servegen")
    assert len(trace.instants_ms) == 12 + 6
    assert np.all(np.diff(trace.instants_ms) >= 0.0)
    gaps = np.diff(trace.instants_ms)
    assert gaps.max() > 500_000.0, "nothing is sent in an idle window"


def test_idle_windows_at_the_ends_are_part_of_the_circle(tmp_path) -> None:
    rows = ["0,0,0,,0,0", "600,0.02,1.5,Gamma,0.5,100", "1200,0.01,2,Weibull,0.6,3", "1800,0,0,,0,0", "2400,0,0,,0,0"]
    (tmp_path / "s.csv").write_text("\n".join(rows) + "\n")
    trace = read_trace(tmp_path / "s.csv", format="servegen")
    assert trace.period_ms == 5 * 600_000.0
    assert trace.rate_per_ms == pytest.approx((12 + 6) / 3_000_000.0)


def test_a_unit_is_read_off_the_name_of_the_column(tmp_path) -> None:
    (tmp_path / "t.csv").write_text("sent_s,delay_us\n1,500\n2,1500\n")
    assert read_trace(tmp_path / "t.csv", "sent_s").instants_ms.tolist() == [0.0, 1000.0]
    assert read_delays(tmp_path / "t.csv", "delay_us").delays_ms == pytest.approx([0.5, 1.5])
    with pytest.raises(TraceError, match="in us by its name, and delay_unit says ms"):
        read_delays(tmp_path / "t.csv", "delay_us", "ms")


def test_bursts_of_a_trace_make_the_warm_up_longer(build, tmp_path) -> None:
    even, rng = np.arange(4_000) * 10.0, np.random.default_rng(1)
    bursts = np.sort(np.concatenate([k * 10_000.0 + 100.0 * rng.random(1_000) for k in range(4)]))
    warm_up = []
    for instants in (even, bursts):
        (tmp_path / "t.csv").write_text("arrival_ms\n" + "\n".join(map(str, instants.tolist())))
        tenant = build.tenant(arrivals={"kind": "trace", "file": "t.csv"}, work={"kind": "constant", "value": 4.0})
        found = build.ran([build.domain()], [tenant], packets=200_000, folder=tmp_path)
        assert any("replayed 50 times" in warning for warning in found.warnings)
        warm_up.append(found.load.warm_up_ms)
    assert warm_up[1] > 20.0 * warm_up[0]


WRONG = [
    ("csv", "arrival_ms\n1\n2\n9000\n", 4, "arrival_ms", "a hole"),
    ("json-lines", '{"arrival_ms": 1}\n{"arrival": 2}\n', 2, "time_column", "there are: arrival"),
    ("json-lines", '{"arrival_ms": 1}\n[3]\n', 2, "file", "JSON object"),
    ("json-lines", '{"arrival_ms": 1}\nx\n', 2, "file", "not JSON"),
    ("mooncake", '{"timestamp": true}\n', 1, "timestamp", "finite number"),
    ("azure-llm", "TIMESTAMP\nyesterday\n", 2, "TIMESTAMP", "date and time"),
    ("azure-llm", "TIMESTAMP\n2023-11-16 18:17:03\n2023-11-16 18:17:02\n", 3, "TIMESTAMP", "before the one above"),
    ("servegen", "0,1,1\n", 1, "file", "six are needed"),
    ("servegen", "0,1,1,Gamma,1,1\n300,1,1,Gamma,1,1\n", 2, "start_s", "before the last one ends"),
    ("servegen", "0,1,1,Normal,1,1\n", 1, "family", "Weibull or Gamma"),
    ("servegen", "0,1,1,Gamma,0,1\n", 1, "shape", "above 0"),
    ("servegen", "0,-1,1,Gamma,1,1\n", 1, "rate", "negative"),
    ("servegen", "0,0,0,,0,0\n", None, "file", "two packets"),
]


@pytest.mark.parametrize(("form", "text", "line", "field", "message"), WRONG)
def test_a_wrong_line_is_named(tmp_path, form, text, line, field, message) -> None:
    file = tmp_path / "t"
    file.write_text(text)
    with pytest.raises(TraceError, match=message) as caught:
        read_trace(file, format=form, gap_max_ms=5_000.0)
    assert (caught.value.line, caught.value.field, caught.value.file) == (line, field, str(file))


def test_servegen_says_nothing_of_work(tmp_path) -> None:
    with pytest.raises(TraceError, match="nothing of work"):
        read_trace(tmp_path / "none", format="servegen", work_column="x")


def test_a_broken_archive_is_an_error_of_the_file(tmp_path) -> None:
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(AZURE.encode())[:-9])
    with pytest.raises(TraceError, match="cannot be read"):
        read_trace(tmp_path / "t.csv.gz", format="azure-llm")


def test_missing_sequence_numbers_are_losses(build, tmp_path) -> None:
    (tmp_path / "d.csv").write_text("n,delay\n4,2.0\n5,4.0\n7,6.0\n8,8.0\n")
    recorded = read_delays(tmp_path / "d.csv", "delay", "ms", sequence_column="n")
    assert np.isnan(recorded.delays_ms).tolist() == [False, False, True, False, False]
    link = {"name": "air", "discipline": "delay", "file": "d.csv", "delay_column": "delay", "sequence_column": "n"}
    tenant = build.tenant(route=("air", "link"), rate=0.05, work={"kind": "constant", "value": 0.001}, targets_ms=[5.0])
    found = build.ran([link, build.domain()], [tenant], packets=50_000, folder=tmp_path).tenants[0]
    assert found.lost / found.sent == pytest.approx(0.2, abs=1e-3)
    assert found.mean_ms.value == pytest.approx(5.001, rel=1e-3)
    assert found.exceedance[5.0].value == pytest.approx(0.6, abs=2e-3)


@pytest.mark.parametrize(
    ("text", "line", "field"),
    [("n,delay\n1,1\n1,2\n", 3, "n"), ("n,delay\n1,-1\n", 2, "delay"), ("n,d\n", 1, "delay_column"),
     ("n,delay\n", None, "file"),
     ("n,delay\n1.5,1\n", 2, "n"), ("n,delay\n1,1\n9e9,1\n", 3, "n")],
)  # fmt: skip
def test_wrong_delays_are_named(tmp_path, text, line, field) -> None:
    (tmp_path / "d.csv").write_text(text)
    with pytest.raises(TraceError) as caught:
        read_delays(tmp_path / "d.csv", "delay", "us", sequence_column="n")
    assert (caught.value.line, caught.value.field) == (line, field)


PUBLISHED = [
    ("azure_llm_2023/AzureLLMInferenceTrace_code.csv.gz", "azure-llm", "GeneratedTokens", 8_819),
    ("azure_llm_2023/AzureLLMInferenceTrace_conv.csv.gz", "azure-llm", "ContextTokens", 19_366),
    ("mooncake_fast25/conversation_trace.jsonl.gz", "mooncake", "output_length", 12_031),
    ("mooncake_fast25/synthetic_trace.jsonl.gz", "mooncake", "input_length", 3_993),
    *[(f"servegen_sample/m-large_chunk-{k}-trace.csv.gz", "servegen", None, None) for k in (0, 4, 48, 147)],
]


@pytest.mark.parametrize(("name", "form", "column", "packets"), PUBLISHED, ids=lambda each: str(each)[-30:])
def test_the_published_traces_drive_a_model(build, shared_dir, name, form, column, packets) -> None:
    file = Path(shared_dir) / "traces" / name
    trace = read_trace(file, format=form, work_column=column)
    assert packets is None or len(trace.instants_ms) == packets
    arrivals = {"kind": "trace", "file": str(file), "format": form}
    tenant = {"name": "a", "route": ["model"], "arrivals": arrivals, "targets_ms": [1e4]}
    if column:
        arrivals["work_column"] = column
    else:
        tenant["work"] = {"kind": "log-normal", "median": 100.0, "sigma": 1.0, "cap": 2000.0}
    work = float(trace.works.mean()) if column else 160.0
    slots = math.ceil(2.0 * trace.rate_per_ms * (work + 1.0)) + 8
    model = {"name": "model", "discipline": "batching", "slots": slots, "iteration_ms": 1.0}
    found = build.ran([model], [tenant], packets=4_000, replications=4).tenants[0]
    assert found.sent >= 4_000, "packets of one instant are counted together"
    assert found.lost == 0
    assert found.mean_ms.value > 0.0


def test_the_published_delays_are_replayed(build, shared_dir) -> None:
    file = Path(shared_dir) / "traces" / "edaf_5g" / "uplink_delay_decomposition.csv.gz"
    recorded = read_delays(file, "e2e_delay", "ms", sequence_column="seqno")
    known = recorded.delays_ms[~np.isnan(recorded.delays_ms)]
    assert len(known) == 2_710
    link = {
        "name": "air",
        "discipline": "delay",
        "file": str(file),
        "delay_column": "e2e_delay",
        "sequence_column": "seqno",
    }
    tenant = build.tenant(route=("air",), rate=0.1)
    found = build.ran([link], [tenant], packets=60_000).tenants[0]
    assert found.mean_ms.value == pytest.approx(known.mean(), rel=0.01)
    assert found.lost / found.sent == pytest.approx(np.isnan(recorded.delays_ms).mean(), abs=0.005)
    assert re.search("edaf", recorded.file)
