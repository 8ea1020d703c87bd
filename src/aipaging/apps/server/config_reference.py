"""The example that begins a configuration, and the reference of every key."""

import datetime as dt
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from aipaging.apps.server.config_fields import Field, Section
from aipaging.apps.server.config_schema import sections

_INTRODUCTION: Final = """\
# The configuration file

One TOML file. `aipaging config example` prints a commented one, `aipaging config check FILE` tells every mistake with
its line, `aipaging config show FILE` prints the values in force without secrets.

This page is generated from the schema that checks the file: `aipaging config keys`."""

EXAMPLE_VALID_DAYS: Final = 90
"""How long the example's envelopes hold: a quarter, after which somebody has looked at them."""


def example(*, today: dt.date, operator_secret: str, client_secret: str) -> str:
    """Return the commented example; it passes the check."""
    template = files("aipaging.apps.server").joinpath("config_example.toml").read_text()
    until = today + dt.timedelta(days=EXAMPLE_VALID_DAYS)
    return template.format(
        operator_sha256=hashlib.sha256(operator_secret.encode()).hexdigest(),
        client_sha256=hashlib.sha256(client_secret.encode()).hexdigest(),
        valid_from=f"{today}T00:00:00Z",
        valid_until=f"{until}T00:00:00Z",
    )


def reference() -> str:
    """Return the reference of all sections and keys, in Markdown."""
    parts = [_INTRODUCTION]
    for section in sections(Path()):
        parts += ["", *_section(section)]
    return "\n".join(parts) + "\n"


def _section(section: Section) -> list[str]:
    title = f"[[{section.name}]]" if section.many else f"[{section.name}]"
    needed = " Required." if section.required else ""
    rows = [
        f"| `{key}` | {field.about} | {_allowed(field)} | {_default(field)} |" for key, field in section.fields.items()
    ]
    return [
        f"## `{title}`",
        "",
        f"{section.about}{needed}",
        "",
        "| Key | Meaning | Allowed | Default |",
        "|---|---|---|---|",
        *rows,
    ]


def _allowed(field: Field) -> str:
    return field.kind.allowed.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")


def _default(field: Field) -> str:
    if field.required:
        return "required"
    value: Any = field.default
    if value is None or value in ("", ()):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"
