"""`aipaging doctor`: every check, in the order in which a person would repair what they find."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from aipaging.adapters.terminal.guard import examples, failed, json_option
from aipaging.adapters.terminal.output import say, write_json
from aipaging.apps.doctor import certificates, installation, machine, service
from aipaging.apps.doctor.finding import Check, Finding, Situation, wrong
from aipaging.core.foundation.errors import InvalidInputError

CHECKS: Final[Sequence[tuple[str, Check]]] = (
    ("python", machine.python),
    ("kernel", machine.kernel),
    ("extras", machine.extras),
    ("envoy", machine.envoy),
    ("model", machine.model),
    ("clocks", machine.clocks),
    ("limits", machine.limits),
    ("configuration", installation.configuration),
    ("data-directory", installation.data_directory),
    ("disk-space", installation.disk_space),
    ("certificates", certificates.certificates),
    ("journal", installation.journal),
    ("ports", installation.ports),
    ("policies", installation.policies),
    ("key-sets", service.key_sets),
    ("credential", service.credential_file),
    ("controller", service.controller),
)

URL_DEFAULT: Final = "http://127.0.0.1:8080"

CONFIG_TIMEOUT_S: Final = 60

_STYLES: Final = {"ok": "green", "warning": "yellow", "error": "bold red"}


@click.command(
    "doctor",
    epilog=examples(
        "aipaging doctor",
        "aipaging doctor --config aipaging.toml",
        "aipaging doctor --url https://ai.example.net --credential-file operator.secret",
        "aipaging doctor --config aipaging.toml --json | jq '.findings[] | select(.level != \"ok\")'",
    ),
)
@click.option(
    "--config",
    "config_file",
    envvar="AIPAGING_CONFIG",
    type=click.Path(path_type=Path),
    help="The controller's configuration.",
)
@click.option("--url", envvar="AIPAGING_URL", help=f"The controller; of the configuration, or {URL_DEFAULT}.")
@click.option(
    "--credential-file",
    envvar="AIPAGING_CREDENTIAL_FILE",
    type=click.Path(path_type=Path),
    help="File with a client's secret.",
)
@click.option("--ca", envvar="AIPAGING_CA", type=click.Path(path_type=Path), help="PEM of whom to trust.")
@click.option("--quiet", is_flag=True, help="Only what is not well.")
@json_option
def doctor(*, as_json: bool, quiet: bool, **options: Any) -> None:
    """Look for the likely mistakes on this machine, and say who repairs them and how.

    Reads only. Exit status 1: something does not work.
    """
    situation = situation_of(**options)
    found = [(name, finding) for name, check in CHECKS for finding in examined(check, situation)]
    shown = [(name, finding) for name, finding in found if not quiet or finding.level != "ok"]
    broken = any(finding.level == "error" for _, finding in found)
    if as_json:
        findings = [{"check": name, **dataclasses.asdict(finding)} for name, finding in shown]
        write_json({"ok": not broken, "findings": findings})
    else:
        for name, finding in shown:
            _show(name, finding)
    if broken:
        failed()


def examined(check: Check, situation: Situation) -> list[Finding]:
    """Return what a check finds; one that breaks is a finding, and the others go on."""
    try:
        return list(check(situation))
    except Exception as error:  # noqa: BLE001 - a doctor does not die of a patient
        return [
            wrong(
                f"this could not be looked at: {type(error).__name__}: {error}",
                fix="repair what it names, or report it",
            )
        ]


def situation_of(
    *, config_file: Path | None, url: str | None, credential_file: Path | None, ca: Path | None
) -> Situation:
    """Return what the checks look at.

    Raises:
        InvalidInputError: The credential file cannot be read.
    """
    config: Mapping[str, Any] = {}
    problems: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[Mapping[str, Any], ...] = ()
    if config_file is not None:
        config, problems = _configuration(config_file)
        warnings = tuple(_said("check", config_file).get("warnings", ())) if config else ()
    return Situation(
        config_file=config_file,
        config=config,
        config_problems=problems,
        config_warnings=warnings,
        credential_file=credential_file,
        url=(url or (config["northbound"]["public_url"] if config else None) or URL_DEFAULT).rstrip("/"),
        url_given=url is not None,
        credential=_secret(credential_file),
        ca=ca,
    )


def _configuration(file: Path) -> tuple[Mapping[str, Any], tuple[Mapping[str, Any], ...]]:
    """Return the values in force and the mistakes, as the command that knows says them."""
    document = _said("show", file)
    if "error" in document:
        return {}, tuple(document.get("errors") or [document["error"]])
    return document, ()


def _said(command: str, file: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "aipaging.apps.cli", "config", command, str(file), "--json"],
        capture_output=True,
        text=True,
        timeout=CONFIG_TIMEOUT_S,
        check=False,
    )
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _secret(file: Path | None) -> str:
    if file is None:
        return os.environ.get("AIPAGING_CREDENTIAL", "").strip()
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{file} cannot be read: {error}", field="credential-file") from error


def _show(name: str, finding: Finding) -> None:
    say(f"{finding.level:7}  {name:14}  {finding.message}", style=_STYLES[finding.level])
    if finding.fix:
        who = "you" if finding.who == "caller" else f"the {finding.who}"
        say(f"{'':7}  {'':14}  -> {who}: {finding.fix}")
