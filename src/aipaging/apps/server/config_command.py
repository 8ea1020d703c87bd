"""The command `aipaging config`: check, show, begin."""

import dataclasses
import datetime as dt
import enum
import json
import secrets
import time
from pathlib import Path
from typing import Any

import click

from aipaging.adapters.terminal.errors import error_fields
from aipaging.adapters.terminal.guard import examples, json_option
from aipaging.adapters.terminal.output import note, say, write_json
from aipaging.apps.server.config import ServerConfig, load_config
from aipaging.apps.server.config_fields import HostPort
from aipaging.apps.server.config_reference import example as commented_example
from aipaging.apps.server.config_reference import reference as key_reference
from aipaging.core.foundation.time import WallUs


@click.group(
    "config",
    epilog=examples(
        "aipaging config example > aipaging.toml",
        "aipaging config check aipaging.toml",
        "aipaging config check aipaging.toml --json | jq '.errors[] | {line, message}'",
        "aipaging config show aipaging.toml",
    ),
)
def config() -> None:
    """Check, show or begin the configuration of a controller."""


@config.command(
    "check",
    epilog=examples("aipaging config check aipaging.toml", "aipaging config check /etc/aipaging.toml --json"),
)
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def check(*, file: Path, as_json: bool) -> None:
    """Tell every mistake in FILE, with its line; exit status 2 if there is one.

    Nothing is started and nothing is written. Files that hold secrets are read, to see that they can be.
    """
    checked = load_config(file, wall_us=_now_us())
    if as_json:
        warnings = [error_fields(problem) for problem in checked.warnings]
        write_json({"ok": True, "file": str(file), "warnings": warnings})
        return
    for problem in checked.warnings:
        note(f"{problem.place}: warning: {problem.message}", style="yellow")
    say(f"{file}: {_summary(checked)}")


@config.command(
    "show",
    epilog=examples("aipaging config show aipaging.toml", "aipaging config show aipaging.toml | jq .settings.lease"),
)
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def show(*, file: Path, as_json: bool) -> None:
    """Print the values in force after defaults, as JSON, without secrets and their digests."""
    _ = as_json  # the values are a document in either case; only the layout differs
    document = effective(load_config(file, wall_us=_now_us()))
    if as_json:
        write_json(document)
        return
    say(json.dumps(document, indent=2, ensure_ascii=False))


@config.command(
    "example",
    epilog=examples("aipaging config example > aipaging.toml", "aipaging config example --json | jq -r .toml"),
)
@json_option
def example(*, as_json: bool) -> None:
    """Print a complete, commented configuration that passes the check.

    Its two clients get new secrets, which are told once, on stderr: only their digests stand in the file.
    """
    made = {"operator-console": secrets.token_urlsafe(24), "example-client": secrets.token_urlsafe(24)}
    text = commented_example(
        today=dt.datetime.now(dt.UTC).date(),
        operator_secret=made["operator-console"],
        client_secret=made["example-client"],
    )
    if as_json:
        write_json({"toml": text, "secrets": made})
        return
    click.echo(text, nl=False)
    for client, secret in made.items():
        note(f"secret of {client}, told only now: {secret}")


@config.command(
    "keys",
    epilog=examples("aipaging config keys"),
)
@json_option
def keys(*, as_json: bool) -> None:
    """Print the reference of every section and key, in Markdown."""
    text = key_reference()
    if as_json:
        write_json({"markdown": text})
        return
    click.echo(text, nl=False)


def effective(checked: ServerConfig) -> dict[str, Any]:
    """Return the values in force as plain JSON, without secrets and without their digests."""
    catalogue = checked.catalogue
    document: dict[str, Any] = {
        "file": checked.file,
        "operator": checked.operator,
        "northbound": checked.northbound,
        "southbound": checked.southbound,
        "gateway": checked.gateway,
        "settings": checked.settings,
        "journal": checked.journal,
        "audit": checked.audit,
        "clients": [{"client": each.client, "tenant": each.tenant, "role": each.role} for each in checked.clients],
        "tenants": list(checked.tenants),
        "policies": checked.policies,
        "services": list(catalogue.services.values()),
        "domains": list(catalogue.domains.values()),
        "paths": list(catalogue.paths.values()),
        "key_sources": dict(checked.key_sources),
        "envelopes": list(catalogue.envelopes.values()),
        "anchors": list(catalogue.anchors.values()),
    }
    return {key: _plain(value) for key, value in document.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, HostPort | Path):
        return str(value)
    if isinstance(value, enum.Enum):
        return value.name
    if dataclasses.is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def _summary(checked: ServerConfig) -> str:
    catalogue = checked.catalogue
    counts = (
        (len(checked.clients), "client"),
        (len(catalogue.services), "service"),
        (len(catalogue.domains), "domain"),
        (len(catalogue.envelopes), "envelope"),
        (len(catalogue.anchors), "anchor"),
    )
    said = ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts)
    return f"no mistakes: {said}"


def _now_us() -> WallUs:
    return WallUs(time.time_ns() // 1000)
