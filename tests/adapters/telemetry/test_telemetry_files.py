"""The three formats say the same, and what is wrong in a file is marked, not dropped."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aipaging.adapters.telemetry import parquet as parquet_adapter
from aipaging.adapters.telemetry.columns import integers
from aipaging.adapters.telemetry.source import TelemetrySource, open_telemetry
from aipaging.core.audit import UNKNOWN, Status
from aipaging.core.audit.telemetry import UNREADABLE
from aipaging.core.foundation.errors import InvalidInputError, UnavailableError

ROWS: list[dict[str, Any]] = [
    {"request_id": "r-1", "start_us": 5, "tenant": "a", "status": "ok", "end_to_end_us": 30, "domain_radio_us": 10},
    {"request_id": "r-22", "start_us": 6, "tenant": "b", "status": "lost", "end_to_end_us": None},
    {"request_id": "r-1", "start_us": 7, "tenant": "a", "status": "timeout", "end_to_end_us": -4, "domain_radio_us": 9},
    {"request_id": None, "start_us": 8, "tenant": None, "status": "new", "end_to_end_us": 2, "domain_radio_us": 2},
]
COLUMNS = ["request_id", "start_us", "tenant", "status", "end_to_end_us", "domain_radio_us"]


def write(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pa.table({name: [row.get(name) for row in rows] for name in COLUMNS}), path)
    return path


def all_ids(source: TelemetrySource) -> list[str]:
    return [name for _, ids in source.identities() for name in ids.take(np.arange(len(ids.missing())))]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_formats_say_the_same(tmp_path: Path, suffix: str) -> None:
    source = open_telemetry(write(tmp_path / f"t{suffix}"))
    assert source.domains == ("radio",)
    assert source.has_tenants
    (batch,) = source.batches(ids=True, tenants=True)
    assert batch.start_us.tolist() == [5, 6, 7, 8]
    assert batch.status.tolist() == [Status.OK, Status.LOST, Status.TIMEOUT, Status.UNKNOWN]
    assert batch.end_to_end_us.tolist() == [30, UNKNOWN, -4, 2]
    assert batch.domains["radio"].tolist() == [10, UNKNOWN, 9, 2]
    assert batch.tenants is not None
    assert [batch.tenant_names[code] for code in batch.tenants] == ["a", "b", "a", ""]
    assert batch.ids is not None
    assert batch.ids.missing().tolist() == [False, False, False, True]
    assert all_ids(source) == ["r-1", "r-22", "r-1", ""]
    hashes = batch.ids.hashes()
    assert hashes[0] == hashes[2] != hashes[1]
    (bare,) = source.batches(ids=False, tenants=False)
    assert bare.ids is None
    assert bare.tenants is None


def test_cells() -> None:
    cells = ["12", "", "12.0", "12.2", "nan", "inf", "x", "-3", "9" * 30, None, 7, 7.5, True, [1], "-" + "9" * 30]
    top = int(np.iinfo(np.int64).max)
    expected = [12, UNKNOWN, 12, 13, UNKNOWN, UNREADABLE, UNREADABLE, -3, top, UNKNOWN, 7, 8]
    assert integers(cells).tolist() == [*expected, UNREADABLE, UNREADABLE, UNREADABLE + 1]
    assert integers(["1", "x"]).tolist() == [1, UNREADABLE]
    assert integers([]).tolist() == []


def test_rows_that_cannot_be_read_are_unknown_requests(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv")
    path.write_bytes(path.read_bytes() + b"too,few\r\n\r\n\xff\xfe,9,a,ok,5,5\r\n" + b"q," * 9 + b"\r\n")
    (batch,) = open_telemetry(path).batches(ids=True, tenants=False)
    assert batch.malformed == 2
    assert len(batch) == 7
    path = write(tmp_path / "t.jsonl")
    path.write_bytes(path.read_bytes() + b'{"broken"\n\n[1]\n')
    (batch,) = open_telemetry(path).batches(ids=True, tenants=False)
    assert batch.malformed == 2
    assert batch.status.tolist()[-2:] == [Status.UNKNOWN, Status.UNKNOWN]


def test_a_field_too_long_for_csv_is_a_malformed_row(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv")
    path.write_text(path.read_text() + "x" * 200_000 + ",1,a,ok,1,1\nr-9,9,a,ok,1,1\n")
    (batch,) = open_telemetry(path).batches(ids=True, tenants=False)
    assert batch.malformed == 1
    assert batch.start_us.tolist()[-1] == 9


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("t.csv", "", "no header"),
        ("t.csv", "request_id,start_us,status\n", "no column end_to_end_us"),
        ("t.csv", "request_id,start_us,status,end_to_end_us,status\n", "two columns status"),
        ("t.jsonl", "nonsense\n", "no line with a JSON object"),
        ("t.jsonl", '{"request_id": "a"}\n', "no column start_us"),
        ("t", '{"request_id": "a", "start_us": 1}\n', "no column status"),
        ("t.parquet", "PAR1 but not really", "not a readable Parquet"),
    ],
)
def test_files_that_cannot_be_audited(tmp_path: Path, name: str, text: str, what: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidInputError, match=what):
        open_telemetry(tmp_path / name)


def test_too_many_domains(tmp_path: Path) -> None:
    columns = ",".join(["request_id,start_us,status,end_to_end_us", *(f"domain_d{n}_us" for n in range(13))])
    (tmp_path / "t.csv").write_text(columns + "\n")
    with pytest.raises(InvalidInputError, match="12 can be audited"):
        open_telemetry(tmp_path / "t.csv")


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot read"):
        open_telemetry(tmp_path / "none.csv")


def test_parquet_of_other_types(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "t.parquet"
    columns = {
        "request_id": pa.array([1, 2, 2]),
        "start_us": pa.array([1, 2, 3], pa.timestamp("ms")),
        "status": pa.array(["ok", "ok", None]).dictionary_encode(),
        "end_to_end_us": pa.array([1.2, float("nan"), float("inf")]),
        "domain_a_us": pa.array(["7", "", None]),
        "domain_b_us": pa.array([True, False, None]),
        "domain_c_us": pa.array([2**64 - 1, 0, None], pa.uint64()),
    }
    parquet.write_table(pa.table(columns), path)
    source = open_telemetry(path)
    (batch,) = source.batches(ids=True, tenants=True)
    assert batch.start_us.tolist() == [1_000, 2_000, 3_000]
    assert batch.status.tolist() == [Status.OK, Status.OK, Status.UNKNOWN]
    assert batch.end_to_end_us.tolist() == [2, UNKNOWN, UNREADABLE]
    assert batch.domains["a"].tolist() == [7, UNKNOWN, UNKNOWN]
    assert batch.domains["b"].tolist() == [UNREADABLE] * 3
    assert batch.domains["c"].tolist() == [2**62, 0, UNKNOWN]
    assert all_ids(source) == ["1", "2", "2"]
    assert batch.tenants is None


def test_a_parquet_file_that_breaks_off(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", ROWS * 5_000)
    content = bytearray(path.read_bytes())
    content[100:2_000] = b"\xff" * 1_900
    path.write_bytes(bytes(content))
    with pytest.raises(InvalidInputError, match="Parquet"):
        list(open_telemetry(path).batches(ids=True, tenants=True))


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise UnavailableError("Parquet needs the package 'pyarrow'", code="EXTRA_MISSING")

    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr(parquet_adapter, "_pyarrow", absent)
    with pytest.raises(UnavailableError):
        open_telemetry(tmp_path / "t.parquet")
