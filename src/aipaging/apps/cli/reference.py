"""The reference of the command line, made from the commands themselves: `python -m aipaging.apps.cli.reference`."""

import contextlib
import inspect
import sys
from collections.abc import Iterator
from typing import Final

import click

from aipaging.apps.cli.registry import COMMANDS, GROUPS, aipaging
from aipaging.core.foundation.errors import UnavailableError

INTRODUCTION: Final = """\
# The command line

`aipaging COMMAND --help` says the same. Every command takes `--json`: one JSON document on stdout (or JSON lines, where
it streams), everything else on stderr.

| Exit status | Meaning |
|---|---|
| 0 | done |
| 1 | a check or a verdict failed |
| 2 | usage or invalid input |
| 3 | refused: admission, authorisation |
| 4 | not reachable, not available |

With `--json`, an error is `{"error": {"code", "message", "field"?, "file"?, "line"?, "who"}}` on stdout; `who` must
act: `caller`, `operator`, `partner`, or `bug`. `AIPAGING_DEBUG=1` prints the trace of an error on stderr.

Client commands find the controller by `--url` or `AIPAGING_URL`, and the client's secret in `--credential-file`,
`AIPAGING_CREDENTIAL_FILE` or `AIPAGING_CREDENTIAL`.

This page is generated: `make reference`.
"""


def reference() -> str:
    """Return the reference of every command that is installed, in Markdown."""
    parts = [INTRODUCTION]
    root = click.Context(aipaging, info_name="aipaging")
    for title, entries in GROUPS.items():
        parts.append(f"## {title}\n")
        for name in entries:
            with contextlib.suppress(UnavailableError):
                command = aipaging.get_command(root, name)
                if command is not None:
                    parts += _described(command, click.Context(command, info_name=name, parent=root))
    return "\n".join(parts)


def _described(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"### `{context.command_path}`\n"
    yield _text(command.help or COMMANDS[command.name or ""].summary) + "\n"
    arguments = [each.make_metavar(context) for each in command.params if isinstance(each, click.Argument)]
    options = [each for each in command.params if isinstance(each, click.Option)]
    if not isinstance(command, click.Group):
        usage = " ".join([context.command_path, *(["[OPTIONS]"] if options else []), *arguments])
        yield f"```\n{usage}\n```\n"
    if options:
        rows = "\n".join(f"| {_names(option, context)} | {_meaning(option, context)} |" for option in options)
        yield f"| Option | Meaning |\n|---|---|\n{rows}\n"
    if command.epilog:
        yield f"```\n{_text(command.epilog)}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                yield from _described(inner, click.Context(inner, info_name=name, parent=context))


def _names(option: click.Option, context: click.Context) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    return names if option.is_flag else f"{names} `{option.make_metavar(context)}`".replace("|", "\\|")


def _meaning(option: click.Option, context: click.Context) -> str:
    said = [option.help or ""]
    if option.required:
        said.append("Required.")
    elif option.show_default and not option.is_flag:
        said.append(f"Default: `{option.get_default(context)}`.")
    return " ".join(said).strip().replace("|", "\\|").replace("<", "&lt;")


def _text(text: str) -> str:
    """Return help as it is meant: without click's marks against rewrapping."""
    return "\n".join(line.rstrip() for line in inspect.cleandoc(text.replace("\b\n", "")).splitlines())


if __name__ == "__main__":
    sys.stdout.write(reference())
