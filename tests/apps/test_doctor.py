"""The doctor finds what was broken on purpose, and says who repairs it."""

import dataclasses
import datetime as dt
import fcntl
import json
import os
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aipaging.adapters.journal.sqlite.writer import SqliteJournal
from aipaging.adapters.signing.ca import CertificateAuthority
from aipaging.adapters.terminal.guard import run
from aipaging.apps.cli.api import URL_DEFAULT
from aipaging.apps.cli.registry import aipaging
from aipaging.apps.doctor import certificates, command, installation, machine, service
from aipaging.apps.doctor.finding import Check, Finding, Situation
from aipaging.core.evidence.log import Sealer
from aipaging.core.foundation.time import BootUs, Now, WallUs
from aipaging.testing.journal import moved, unsigned


def found(check: Check, situation: Situation) -> dict[str, list[Finding]]:
    by_level: dict[str, list[Finding]] = {"ok": [], "warning": [], "error": []}
    for finding in check(situation):
        by_level[finding.level].append(finding)
        assert bool(finding.fix) == bool(finding.who) == (finding.level != "ok")
    return by_level


@pytest.fixture
def situation(tmp_path: Path) -> Situation:
    return Situation(
        config_file=tmp_path / "c.toml",
        config={
            "operator": {"data_dir": str(tmp_path / "data")},
            "journal": {"path": str(tmp_path / "data" / "journal.db"), "reserve_bytes": 0, "file_bytes": 0},
            "northbound": {"listen": "127.0.0.1:0", "tls": None, "public_url": None},
            "southbound": {"listen": "127.0.0.1:0", "ads_listen": "127.0.0.1:0"},
            "gateway": {"listen": "127.0.0.1:0", "tls": None, "driver": "envoy", "public_url": None},
        },
    )


def test_a_machine_that_runs_the_tests_has_no_error() -> None:
    for check in (machine.python, machine.kernel, machine.extras, machine.clocks, machine.limits):
        assert not found(check, Situation())["error"]


def test_a_fresh_installation_is_fine(situation: Situation) -> None:
    for check in (installation.data_directory, installation.disk_space, installation.journal, installation.ports):
        levels = found(check, situation)
        assert levels["ok"]
        assert not levels["error"], levels


def test_a_data_directory_open_to_others(situation: Situation) -> None:
    directory = situation.data_dir
    assert directory is not None
    (directory / "keys").mkdir(parents=True)
    directory.chmod(0o755)
    (directory / "keys" / "journal.key").write_bytes(b"k")
    (directory / "keys" / "journal.key").chmod(0o644)
    messages = [finding.fix for finding in found(installation.data_directory, situation)["error"]]
    assert any(fix.startswith("chmod 700") for fix in messages)
    assert any(fix.startswith("chmod 600") for fix in messages)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_taken_port_names_who_has_it(situation: Situation, taken: int) -> None:
    situation.config["gateway"]["listen"] = f"127.0.0.1:{taken}"
    [error] = found(installation.ports, situation)["error"]
    assert f"(process {os.getpid()})" in error.message
    assert "gateway.listen" in error.fix


def test_a_running_controller_may_have_its_ports(situation: Situation, taken: int) -> None:
    situation.config["gateway"]["listen"] = f"127.0.0.1:{taken}"
    lock = Path(situation.config["journal"]["path"] + ".lock")
    lock.parent.mkdir(mode=0o700)
    lock.write_text(f"{os.getpid()}\n")
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert not found(installation.ports, situation)["error"]


def test_a_damaged_journal(situation: Situation) -> None:
    path = Path(situation.config["journal"]["path"])
    path.parent.mkdir()
    path.write_bytes(b"not a database, by any means" * 100)
    [error] = found(installation.journal, situation)["error"]
    assert "evidence verify" in error.fix
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (a)")
    connection.close()
    assert not found(installation.journal, situation)["error"]


def test_certificates_that_end(situation: Situation, tmp_path: Path) -> None:
    def authority(name: str, made: dt.timedelta) -> Path:
        moment = WallUs(int((dt.datetime.now(dt.UTC) - made).timestamp() * 1_000_000))
        CertificateAuthority.open(tmp_path / name, "trust.example", clock=lambda: moment)
        return tmp_path / name

    year = dt.timedelta(days=365)
    for name, made, level in (
        ("fresh", 0 * year, "ok"),
        ("old", 10 * year - dt.timedelta(days=7), "warning"),
        ("over", 11 * year, "error"),
    ):
        folder = authority(name, made)
        levels = {"ok": 0, "warning": 0, "error": 0}
        for finding in certificates._expiry(folder / "ca.pem", "it"):
            levels[finding.level] += 1
        assert [each for each in levels if levels[each]] == [level]
    situation.config["gateway"]["tls"] = {"certificate": str(tmp_path / "none"), "key": str(tmp_path / "none")}
    assert found(certificates.certificates, situation)["error"]


def test_a_full_disk(situation: Situation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1_000_000}))
    assert found(installation.disk_space, situation)["error"]


LOST = {"anchorId": "a", "state": "LOST"}
SWITCH = {"kind": "TENANT", "name": "acme", "reason": "abuse", "killedAt": "2026-03-01T12:00:00Z"}
ANSWERS: list[tuple[dict[str, tuple[int, Any]], str, str]] = [
    ({"/healthz": (0, "refused")}, "warning", "no controller answers"),
    ({"/readyz": (503, {"reasons": ["no gateway is connected"]})}, "error", "no gateway is connected"),
    ({"/ai-paging/v0.1/services": (401, {})}, "error", "does not know the credential"),
    ({"/ai-paging/v0.1/services": (403, {})}, "ok", "its scopes do not let it see"),
    ({"/ai-paging/v0.1/services": (429, {"message": "wait 18 s"})}, "warning", "knows the credential: wait 18 s"),
    ({"/ai-paging/v0.1/services": (503, {"message": "it recovers"})}, "error", "status 503: it recovers"),
    ({"/ai-paging/v0.1/anchors": (200, {"anchors": []})}, "warning", "no anchor is registered"),
    (
        {"/ai-paging/v0.1/anchors": (200, {"anchors": [{"anchorId": "a", "state": "LOST"}]})},
        "warning",
        "anchor a is LOST",
    ),
    ({"/ai-paging/v0.1/anchors": (403, {})}, "ok", "operators only"),
    ({}, "ok", "anchor a is READY"),
    ({}, "warning", "no envelope is in force"),
    ({"/ai-paging/v0.1/anchors": (200, {"anchors": [{**LOST, "state": "DRAINING"}]})}, "warning", "is DRAINING"),
    ({"/ai-paging/v0.1/switches": (200, {"switches": [SWITCH]})}, "warning", "tenant acme is stopped"),
    (
        {"/ai-paging/v0.1/configuration": (200, {"problems": [{"message": "no"}], "needsRestart": []})},
        "error",
        "was not taken at the last reload: no",
    ),
    (
        {"/ai-paging/v0.1/configuration": (200, {"problems": [], "needsRestart": ["gateway"]})},
        "warning",
        "wait for a restart: gateway",
    ),
]


@pytest.mark.parametrize(("answers", "level", "words"), ANSWERS)
def test_what_a_controller_says(
    monkeypatch: pytest.MonkeyPatch, answers: dict[str, tuple[int, Any]], level: str, words: str
) -> None:
    usual = {
        "/healthz": (200, {"status": "UP"}),
        "/readyz": (200, {"status": "READY", "reasons": []}),
        "/ai-paging/v0.1/services": (200, {"services": []}),
        "/ai-paging/v0.1/anchors": (200, {"anchors": [{"anchorId": "a", "state": "READY"}]}),
        "/ai-paging/v0.1/envelopes": (200, {"envelopes": []}),
        "/ai-paging/v0.1/switches": (200, {"switches": []}),
        "/ai-paging/v0.1/configuration": (200, {"problems": [], "needsRestart": []}),
    }
    monkeypatch.setattr(service, "_asked", lambda _, path: (usual | answers)[path])
    levels = found(service.controller, Situation(url="http://127.0.0.1:1", credential="secret"))
    assert any(words in finding.message for finding in levels[level]), levels


def test_the_command_reports_a_broken_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[operator]\nname = "me"\ndata_dir = "d"\n[lease]\nlease_ms = 0\n')
    status = run(aipaging, ["doctor", "--config", str(file), "--url", "http://127.0.0.1:9", "--quiet", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert status == 1
    assert document["ok"] is False
    errors = {finding["check"]: finding["message"] for finding in document["findings"] if finding["level"] == "error"}
    assert f"{file}:5: lease.lease_ms: 0 is not allowed" in errors["configuration"]
    assert "no controller answers" in errors["controller"]
    assert all(finding["level"] != "ok" for finding in document["findings"])


def test_a_configuration_that_is_not_there_has_no_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "nothing.toml"
    assert run(aipaging, ["doctor", "--config", str(missing), "--quiet", "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    [message] = [each["message"] for each in findings if each["check"] == "configuration"]
    assert message == f"{missing}: the configuration cannot be read: No such file or directory"


def test_a_check_that_breaks_is_a_finding_itself() -> None:
    [finding] = command.examined(lambda _: 1 / 0, Situation())  # type: ignore[arg-type, return-value]
    assert finding.level == "error"
    assert "ZeroDivisionError" in finding.message


def test_the_default_url_is_that_of_the_other_commands() -> None:
    assert command.URL_DEFAULT == URL_DEFAULT


def test_envelopes_that_end_and_key_sets_that_are_missing_are_found(tmp_path: Path) -> None:
    now = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    one = {"domain": "d", "digest": "ab" * 32, "validUntil": "2026-03-01T05:00:00Z", "state": "IN_FORCE"}
    found = [
        finding.level
        for envelope in (
            one,
            {**one, "state": "EXPIRED"},
            {**one, "state": "SUSPECT", "reason": "audit"},
            {**one, "validUntil": "2026-05-01T00:00:00Z"},
        )
        for finding in service._envelopes([envelope], now)
    ]
    assert found == ["warning", "error", "error", "ok"]
    good = tmp_path / "good.jwks"
    good.write_text('{"keys": [{"kid": "k"}]}')
    (tmp_path / "empty.jwks").write_text('{"keys": []}')
    sources = {
        "a": {"file": str(good), "url": None},
        "b": {"file": str(tmp_path / "none.jwks"), "url": None},
        "c": {"file": str(tmp_path / "empty.jwks"), "url": None},
        "d": {"file": None, "url": "http://127.0.0.1:9/keys.json"},
    }
    levels = [each.level for each in service.key_sets(Situation(config={"key_sources": sources}))]
    assert levels == ["ok", "error", "error", "error"]


def test_a_certificate_with_another_key_or_another_name(situation: Situation, tmp_path: Path) -> None:
    authority = CertificateAuthority.open(tmp_path / "ca", "trust.example")
    for name in ("one", "two"):
        authority.write_identity(tmp_path / name, "gateway", name, dns_names=["api.example"])
    pair = {"certificate": str(tmp_path / "one" / "cert.pem"), "key": str(tmp_path / "one" / "key.pem")}
    situation.config["northbound"] |= {"tls": pair, "public_url": "https://api.example:8443"}
    assert not found(certificates.certificates, situation)["error"]
    situation.config["northbound"]["public_url"] = "https://other.example"
    [error] = found(certificates.certificates, situation)["error"]
    assert "is not for other.example" in error.message
    pair["key"] = str(tmp_path / "two" / "key.pem")
    [error] = found(certificates.certificates, situation)["error"]
    assert "is not the key of" in error.message


def test_a_policy_file_that_does_not_fit(situation: Situation, tmp_path: Path) -> None:
    file = tmp_path / "rules.cedar"
    situation.config["policies"] = str(file)
    [error] = found(installation.policies, situation)["error"]
    assert "no controller starts with it" in error.fix
    file.write_text("permit(principal, action, resource) when { context.colour == 1 };")
    assert found(installation.policies, situation)["error"]
    file.write_text('@id("all")\npermit(principal, action, resource);')
    assert found(installation.policies, situation)["ok"]


def test_a_secret_that_others_may_read(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("s")
    file.chmod(0o644)
    [error] = found(service.credential_file, Situation(credential_file=file))["error"]
    assert error.who == "caller"
    file.chmod(0o600)
    assert not found(service.credential_file, Situation(credential_file=file))["error"]


def test_a_configuration_that_probably_means_something_else(situation: Situation) -> None:
    warning = {"file": "c.toml", "line": 3, "message": "service[0]: no [[anchor]] executes aisi://a/b/c"}
    patient = dataclasses.replace(situation, config_warnings=(warning,))
    [doubt] = found(installation.configuration, patient)["warning"]
    assert doubt.message == "c.toml:3: service[0]: no [[anchor]] executes aisi://a/b/c"
    [doubt] = found(installation.configuration, Situation())["warning"]
    assert "no configuration was named" in doubt.message


MACHINES: list[tuple[Check, object, str, Any, str]] = [
    (machine.python, machine.sys, "version_info", (3, 10, 0), "Python"),
    (machine.kernel, machine.platform, "release", lambda: "3.10.0-1160", "too old"),
    (machine.kernel, machine.platform, "system", lambda: "Darwin", "not Linux"),
    (machine.limits, machine.resource, "getrlimit", lambda _: (1024, 4096), "may open 1,024 files"),
    (machine.limits, machine.os, "sched_getaffinity", lambda _: {0}, "one core"),
    (machine.extras, machine, "_missing", lambda module: module == "openai", "[demo] is not installed"),
    (machine.clocks, machine, "_clock_state", lambda: 5, "not known to be synchronised"),
    (machine.clocks, machine.time, "clock_gettime", lambda clock: 90.0 if clock == 7 else 1.0, "suspended for 89 s"),
]


@pytest.mark.parametrize(("check", "where", "what", "instead", "words"), MACHINES)
def test_a_machine_that_does_not_fit(
    monkeypatch: pytest.MonkeyPatch, check: Check, where: object, what: str, instead: Any, words: str
) -> None:
    monkeypatch.setattr(where, what, instead)
    seen = list(check(Situation()))
    monkeypatch.undo()
    assert any(words in finding.message for finding in seen if finding.level != "ok"), seen


@pytest.mark.parametrize(("has_it", "wants_it"), [(False, True), (True, True), (False, False)])
def test_traces_without_what_sends_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, has_it: bool, wants_it: bool
) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[tracing]\notlp_endpoint = "http://127.0.0.1:4318/v1/traces"\n' if wants_it else "[tracing]\n")
    monkeypatch.setattr(machine, "_missing", lambda module: module == "opentelemetry.sdk" and not has_it)
    errors = [finding.message for finding in machine.extras(Situation(config_file=file)) if finding.level == "error"]
    assert errors == (
        ["[tracing] names a collector, and opentelemetry.sdk is missing: no controller starts so"]
        if wants_it and not has_it
        else []
    )


def test_a_gateway_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def unable(*_: Any, **__: Any) -> Any:
        raise OSError("Exec format error")

    monkeypatch.setattr(machine.subprocess, "run", unable)
    [error] = found(machine.envoy, Situation())["error"]
    assert "Exec format error" in error.message


def test_weights_that_are_not_the_pinned_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from aipaging.adapters.minilm import weights

    (tmp_path / "model.safetensors").write_bytes(b"others")
    monkeypatch.setattr(weights, "model_directory", lambda: tmp_path)
    [error] = found(machine.model, Situation())["error"]
    assert "not the pinned file" in error.message


def test_the_page_of_mistakes_names_every_check() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "operate.md").read_text()
    rows = [row.split(" | ") for row in page.splitlines() if row.startswith("| ") and row[2].isdigit()]
    assert [int(row[0].strip("| ")) for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) >= 20
    assert {row[-1].strip("`| ") for row in rows} == {name for name, _ in command.CHECKS}


def test_older_files_of_a_journal_are_told_and_which_may_be_moved_away(situation: Situation) -> None:
    path = Path(situation.config["journal"]["path"])
    path.parent.mkdir()
    journal = SqliteJournal(path, bytes(32), ballast_bytes=0)
    sealer = Sealer("node-1", "boot-1", journal.open())
    for _ in range(3):
        entries = sealer.seal([moved()] * 300, term=1, now=Now(boot_us=BootUs(1), wall_us=WallUs(1)))
        journal.append(entries, unsigned(sealer))
        assert journal.go_on()
    journal.close()
    said = [finding.message for finding in found(installation.journal, situation)["ok"]]
    assert any("3 older files" in each and each.endswith("may be moved away: none yet") for each in said)

    journal.open()
    journal.save(700, "aa" * 32, journal.write([b"state"]))
    journal.close()
    said = [finding.message for finding in found(installation.journal, situation)["ok"]]
    assert any(each.endswith(f"may be moved away: journal.db, journal.db.{300:016}") for each in said)
    away = path.parent / "away"
    path.rename(away)
    levels = found(installation.journal, situation)
    assert not levels["error"]
    assert any("moved away: journal.db;" in finding.message for finding in levels["ok"])

    older = path.with_name(f"journal.db.{300:016}")
    whole = older.read_bytes()
    older.write_bytes(b"not a database, not any more" + whole[28:])
    [error] = found(installation.journal, situation)["error"]
    assert "older file" in error.message
    older.write_bytes(whole)
    head = path.with_name(f"journal.db.{900:016}")
    head.rename(path.parent / "head")
    [error] = found(installation.journal, situation)["error"]
    assert head.name in error.message
    assert "put it back" in error.fix
