"""`aipaging envelope`: from measured delays to a signed envelope and back, as a user does it."""

import importlib.util
import json
import random
from pathlib import Path

import msgspec
import pytest

from aipaging.adapters.terminal.guard import run
from aipaging.apps.envelope.command import envelope
from aipaging.apps.envelope.shown import reference
from aipaging.core.envelope.document import EnvelopeDocument, document_from

ROOT = Path(__file__).parents[2]
START = "2026-11-22T00:00:00Z"
LATER = "2026-11-23T00:00:00Z"
COLUMNS = ("request_id", "start_us", "tenant", "status", "end_to_end_us", "domain_access_us", "domain_compute_us")


def rows(count: int = 2000) -> list[dict[str, object]]:
    rng = random.Random(1)
    start_us = 1_763_800_000_000_000
    made = []
    for number in range(count):
        start_us += int(rng.expovariate(1 / 50_000))
        access, compute = 2000 + int(rng.expovariate(1 / 1500)), 8000 + int(rng.expovariate(1 / 4000))
        status = {17: "timeout", 3: "lost", 5: "error"}.get(number % 500, "ok")
        values = (f"r{number}", start_us, f"t{number % 2}", status, access + compute, access, compute)
        made.append(dict(zip(COLUMNS, values, strict=True)))
    return made


@pytest.fixture
def telemetry(tmp_path: Path) -> Path:
    lines = [",".join(COLUMNS), *(",".join(map(str, row.values())) for row in rows())]
    path = tmp_path / "delays.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)

    def called(*arguments: object, status: int = 0) -> str:
        found = run(envelope, [str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert found == status, captured
        return captured.out

    return called


def signed(call, telemetry: Path, domain: str, algorithm: str = "ES256") -> tuple[str, str]:
    call("fit", telemetry, "--domain", domain, "--start", START, "--out", f"{domain}.json")
    call("sign", f"{domain}.json", "--key-dir", f"{domain}.keys", "--algorithm", algorithm, "--out", f"{domain}.jws")
    Path(f"{domain}.jwks").write_text(call("keys", f"{domain}.keys"))
    return f"{domain}.jws", f"{domain}={domain}.jwks"


def test_measured_signed_verified_composed(call, telemetry: Path) -> None:
    access, access_keys = signed(call, telemetry, "access")
    compute, compute_keys = signed(call, telemetry, "compute", "EdDSA")
    found = json.loads(call("verify", access, "--keys", access_keys, "--at", LATER, "--json"))
    assert found["verified"] is True
    assert found["sequence"] == 1
    composed = call(
        "compose", access, compute, "--keys", access_keys, "--keys", compute_keys, "--domain", "op",
        "--reshaper", "compute=3", "--at", LATER, "--json",
    )  # fmt: skip
    document = document_from(composed.strip().encode())
    assert [part.domain for part in document.parts] == ["access", "compute"]
    assert document.parts[0].digest == found["digest"]
    assert document.parts[1].reshaper_delay_ms == "3"
    assert "compute" in call("diff", access, compute)
    assert call("diff", access, access) == "no difference\n"
    shown = json.loads(call("show", access, "--json"))
    assert shown["digest"] == found["digest"]
    assert shown["signed"] is True
    assert "not promised" in call("show", "access.json")


def test_a_refusal_has_status_1_and_a_code(call, telemetry: Path) -> None:
    access, access_keys = signed(call, telemetry, "access")
    signed(call, telemetry, "compute")

    def refused(*arguments: object) -> str:
        found = json.loads(call("verify", access, *arguments, "--json", status=1))
        assert found["verified"] is False
        return found["code"]

    assert refused("--keys", access_keys, "--at", "2026-11-21T00:00:00Z") == "ENVELOPE_NOT_YET_VALID"
    assert refused("--keys", access_keys, "--at", "2027-11-21T00:00:00Z") == "ENVELOPE_EXPIRED"
    assert refused("--keys", "access=compute.jwks", "--at", LATER) == "ENVELOPE_KEY_UNKNOWN"
    assert refused("--keys", "mallory=access.jwks", "--at", LATER) == "ENVELOPE_KEY_FOREIGN"
    call("compose", access, "--keys", "mallory=access.jwks", "--domain", "op", "--at", LATER, status=1)
    assert "REFUSED" in call("verify", "access.json", "--keys", access_keys, status=1)


def test_a_memory_refuses_replay_and_rollback(call, telemetry: Path) -> None:
    access, keys = signed(call, telemetry, "access")
    verify = ("verify", access, "--keys", keys, "--at", LATER, "--state", "seen.json", "--json")
    call(*verify)
    assert json.loads(call(*verify, status=1))["code"] == "ENVELOPE_REPLAYED"
    call("fit", telemetry, "--domain", "access", "--start", START, "--sequence", 2, "--out", "two.json")
    call("sign", "two.json", "--key-dir", "access.keys", "--out", "two.jws")
    call("verify", "two.jws", *verify[2:])
    assert json.loads(call(*verify, status=1))["code"] == "ENVELOPE_ROLLED_BACK"
    Path("seen.json").write_text("{}")
    call(*verify, status=2)


def test_a_rotated_key_set_verifies_old_and_new(call, telemetry: Path) -> None:
    access, keys = signed(call, telemetry, "access")
    Path("access.jwks").write_text(call("keys", "access.keys", "--rotate"))
    call("sign", "access.json", "--key-dir", "access.keys", "--out", "new.jws")
    for each in (access, "new.jws"):
        call("verify", each, "--keys", keys, "--at", LATER)


def test_formats_of_telemetry_say_the_same(call, telemetry: Path) -> None:
    Path("delays.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    fit = ("--domain", "compute", "--start", START, "--json")
    assert call("fit", telemetry, *fit) == call("fit", "delays.jsonl", *fit)


def test_what_the_fit_counts(call) -> None:
    measured = [*rows(), rows()[0]]
    measured[7] = {**measured[7], "domain_access_us": None}
    Path("delays.jsonl").write_text("".join(json.dumps(row) + "\n" for row in measured))
    document = document_from(call("fit", "delays.jsonl", "--domain", "access", "--start", START, "--json").encode())
    assert document.calibration is not None
    assert document.calibration.samples == 2000, "a repeated request counts once"
    assert float(document.impairment.loss) > 4 / 2000
    assert float(document.impairment.error) > 9 / 2000, "errors, time-outs, and the unknown one"
    assert document.calibration.confidence == "0.95"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"status": "fine"}, "status"),
        ({"domain_access_us": "fast"}, "fast"),
        ({"domain_access_us": -1}, "delay"),
        ({"start_us": None}, "row 1"),
    ],
)
def test_a_malformed_row_is_named(call, change: dict[str, object], said: str) -> None:
    Path("delays.jsonl").write_text(json.dumps({**rows(1)[0], **change}) + "\n")
    error = json.loads(call("fit", "delays.jsonl", "--domain", "access", "--json", status=2))["error"]
    assert said in error["message"]
    assert "row 1" in error["message"]


def test_files_that_are_something_else_are_refused(call, telemetry: Path) -> None:
    Path("delays.txt").write_text("1\n")
    Path("few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(50)))
    for path in ("delays.txt", "few.jsonl"):
        call("fit", path, "--domain", "access", status=2)
    call("fit", telemetry, "--domain", "nowhere", status=2)
    call("show", "delays.txt", status=1)
    call("sign", "delays.txt", "--key-dir", "keys", status=2)
    call("sign", "missing.json", "--key-dir", "keys", status=2)


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is not None, reason="matplotlib is installed")
def test_without_matplotlib_a_picture_names_the_extra(call, telemetry: Path) -> None:
    error = json.loads(call("fit", telemetry, "--plot", "x.svg", "--json", status=4))["error"]
    assert "aipaging[plot]" in error["message"]


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_a_picture_is_drawn(call, telemetry: Path) -> None:
    call("fit", telemetry, "--domain", "access", "--plot", "fit.svg", "--out", "draft.json")
    call("show", "draft.json", "--plot", "show.svg", "--telemetry", telemetry)
    for name in ("fit.svg", "show.svg"):
        assert "<svg" in Path(name).read_text()


def test_the_schema_is_that_of_the_document(call) -> None:
    schema = json.loads(call("schema", "--json"))
    assert schema == json.loads(call("schema"))
    assert schema["$schema"].endswith("2020-12/schema")
    members = schema["$defs"]["EnvelopeDocument"]["properties"]
    assert list(members) == [member.encode_name for member in msgspec.structs.fields(EnvelopeDocument)]


def test_the_reference_lists_every_member(call) -> None:
    page = (ROOT / "docs" / "reference" / "envelope.md").read_text()
    assert page.endswith(reference()), "write it anew with `aipaging envelope schema --markdown`"
    assert call("schema", "--markdown") == reference()
