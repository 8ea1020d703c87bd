"""Every command of `aipaging`, by name: where it lives and what it does in a line.

A command is imported when it is run, never before: `aipaging --help` stays fast, a light install lacks only the
commands whose extra it lacks, and applications do not import one another.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import ClassVar, Final

import click

from aipaging.adapters.terminal.guard import missing_module
from aipaging.core.foundation.errors import AipagingError, UnavailableError, Who


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One command.

    Attributes:
        target: `module:attribute` of the click command.
        summary: The line that `aipaging --help` shows.
    """

    target: str
    summary: str


GROUPS: Final[dict[str, dict[str, Entry]]] = {
    "Run": {
        "demo": Entry(target="aipaging.apps.demo.command:demo", summary="The whole story on this machine."),
        "serve": Entry(target="aipaging.apps.server.command:serve", summary="Run the controller and its gateway."),
        "anchor": Entry(target="aipaging.apps.anchor.command:anchor", summary="Run the sidecar of a model server."),
        "model-server": Entry(
            target="aipaging.apps.model_server.command:model_server", summary="Serve real embeddings, without torch."
        ),
        "token-server": Entry(
            target="aipaging.apps.token_server.command:token_server",
            summary="Generate token streams with a given timing (not a model).",
        ),
    },
    "Use": {
        "page": Entry(target="aipaging.apps.cli.page:page", summary="Turn an intent into a session."),
        "ask": Entry(target="aipaging.apps.cli.ask:ask", summary="Read free text into a structured intent."),
        "resolve": Entry(target="aipaging.apps.cli.page:resolve", summary="Show what an intent would get, and why."),
        "sessions": Entry(target="aipaging.apps.cli.sessions:sessions", summary="List and show sessions."),
        "events": Entry(target="aipaging.apps.cli.events:events", summary="Hear what happens, live or from a place."),
        "extend": Entry(target="aipaging.apps.cli.sessions:extend", summary="Let a session last longer."),
        "relocate": Entry(target="aipaging.apps.cli.sessions:relocate", summary="Move a session to another anchor."),
        "release": Entry(target="aipaging.apps.cli.sessions:release", summary="End a session."),
    },
    "Operate": {
        "services": Entry(target="aipaging.apps.cli.catalogue:services", summary="List what is on offer."),
        "anchors": Entry(
            target="aipaging.apps.cli.catalogue:anchors", summary="List, add, drain, enrol, remove anchors."
        ),
        "tenants": Entry(target="aipaging.apps.cli.tenants:tenants", summary="Show tenants, set quotas and classes."),
        "policies": Entry(target="aipaging.apps.cli.policies:policies", summary="Check and show policies in Cedar."),
        "switch": Entry(target="aipaging.apps.cli.switches:switch", summary="Kill a tenant, service, anchor, or all."),
        "config": Entry(
            target="aipaging.apps.server.config_command:config", summary="Check, show, begin a configuration."
        ),
        "reload": Entry(
            target="aipaging.apps.cli.reload:reload", summary="Let a controller read its configuration anew."
        ),
        "keys": Entry(
            target="aipaging.apps.server.keys_command:keys", summary="List, rotate, retire the keys that sign tokens."
        ),
        "doctor": Entry(target="aipaging.apps.doctor.command:doctor", summary="Find what is wrong on this machine."),
    },
    "Envelopes": {
        "envelope": Entry(
            target="aipaging.apps.envelope.command:envelope", summary="Measure, sign, verify, compose envelopes."
        ),
        "envelopes": Entry(
            target="aipaging.apps.cli.envelopes:envelopes", summary="Add, show, suspect envelopes of a controller."
        ),
    },
    "Prove": {
        "evidence": Entry(target="aipaging.apps.evidence.command:evidence", summary="Verify and read evidence logs."),
        "usage": Entry(target="aipaging.apps.evidence.usage:usage", summary="Sum what tenants used, from evidence."),
        "audits": Entry(target="aipaging.apps.cli.audits:audits", summary="List and show what a controller audits."),
        "audit": Entry(target="aipaging.apps.audit.command:audit", summary="Judge telemetry against contracts."),
        "calculus": Entry(target="aipaging.apps.calculus.command:calculus", summary="Compute bounds on tail delays."),
        "simulate": Entry(
            target="aipaging.apps.simulate.command:simulate",
            summary="Simulate packets through domains, with intervals.",
        ),
        "evaluate": Entry(
            target="aipaging.apps.evaluate.command:evaluate", summary="Measure what the papers claim, and report."
        ),
        "bench": Entry(target="aipaging.apps.bench.command:bench", summary="Measure, against peers in the same run."),
    },
}
"""The commands in the order and the groups of `aipaging --help`."""

COMMANDS: Final[dict[str, Entry]] = {name: entry for group in GROUPS.values() for name, entry in group.items()}

NAME_WIDTH: Final = max(map(len, COMMANDS))
"""One column of names for all groups, so that the summaries line up."""


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for; commands that are simply there come first."""

    entries: ClassVar[Mapping[str, Mapping[str, Entry]]] = {}
    """Commands to import, by title and name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the help."""
        return [*super().list_commands(ctx), *(name for group in self.entries.values() for name in group)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command, imported.

        Raises:
            UnavailableError: It, or a package that it needs, is not installed.
        """
        for group in self.entries.values():
            if cmd_name in group:
                return _imported(cmd_name, group[cmd_name].target)
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the groups from the entries alone."""
        there = {name: self.commands[name].get_short_help_str(limit=80) for name in super().list_commands(ctx)}
        for title, entries in self.entries.items():
            rows = there | {name: entry.summary for name, entry in entries.items()}
            with formatter.section(title or "Commands"):
                formatter.write_dl([(name.ljust(NAME_WIDTH), summary) for name, summary in rows.items()])
            there = {}


class AllCommands(LazyGroup):
    """The group of everything."""

    entries = GROUPS


def _imported(name: str, target: str) -> click.Command:
    module_name, _, attribute = target.partition(":")
    try:
        command: object = getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise UnavailableError(
                f"this build of aipaging has no command {name!r} (there is no {error.name})", code="COMMAND_MISSING"
            ) from error
        raise missing_module(error) from error
    if not isinstance(command, click.Command):
        raise AipagingError(f"{target} is not a command", code="INTERNAL", who=Who.BUG)
    return command


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"aipaging {version('aipaging')}")
        ctx.exit()


@click.group(
    "aipaging",
    cls=AllCommands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="""\b
Examples:
  aipaging demo                                   see everything work
  aipaging config example > aipaging.toml         begin a configuration
  aipaging serve aipaging.toml                    run the controller
  aipaging page --task embeddings --delay 250ms --place access-eu --credential-file client.secret
Every command takes --json. Exit status: 0 done, 1 a check failed, 2 invalid input, 3 refused, 4 not available.
""",
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Show the version."
)
def aipaging() -> None:
    """AI as a managed network service: intents in, sessions with provable tail delays out."""
