"""`aipaging switch`: stop a tenant, a service, an anchor, or everything, at once."""

from typing import Any, Final

import click

from aipaging.adapters.terminal.guard import examples, json_option
from aipaging.adapters.terminal.output import note, say, table, write_json
from aipaging.apps.cli.api import Api, api_options
from aipaging.core.foundation.errors import InvalidInputError

_KINDS: Final = click.Choice(["tenant", "service", "anchor", "all"])
_reason = click.option("--reason", required=True, help="Why; it stands in refusals and in the evidence.")


@click.group(
    "switch",
    epilog=examples(
        "aipaging switch kill tenant acme --reason 'credentials leaked'",
        "aipaging switch kill all --reason 'fire drill'",
        "aipaging switch restore tenant acme --reason 'rotated'",
        "aipaging switch list",
    ),
)
def switch() -> None:
    """Throw and take back kill switches (operators)."""


@switch.command("kill", epilog=examples("aipaging switch kill anchor edge-one-a --reason 'compromised'"))
@click.argument("kind", type=_KINDS)
@click.argument("name", required=False, default="")
@_reason
@api_options
@json_option
def kill(*, api: Api, as_json: bool, kind: str, name: str, reason: str) -> None:
    """Stop KIND (tenant, service, anchor, all) NAME: its sessions end, its steering is revoked, none is admitted.

    An anchor or service that nobody knows is refused: nothing would stop. A tenant need not be known yet.
    """
    _throw(api, "kill", _document(kind, name, reason), as_json=as_json)


@switch.command("restore", epilog=examples("aipaging switch restore anchor edge-one-a --reason 'reinstalled'"))
@click.argument("kind", type=_KINDS)
@click.argument("name", required=False, default="")
@_reason
@api_options
@json_option
def restore(*, api: Api, as_json: bool, kind: str, name: str, reason: str) -> None:
    """Let KIND NAME be paged again; what was ended stays ended."""
    _throw(api, "restore", _document(kind, name, reason), as_json=as_json)


@switch.command("list", epilog=examples("aipaging switch list --json"))
@api_options
@json_option
def list_switches(*, api: Api, as_json: bool) -> None:
    """List the switches that are thrown."""
    _show(api.get("/switches"), as_json=as_json)


def _document(kind: str, name: str, reason: str) -> dict[str, str]:
    if (kind == "all") == bool(name):
        raise InvalidInputError("all has no name" if name else f"which {kind}? its name is expected", field="name")
    return {"kind": kind.upper(), "name": name, "reason": reason}


def _throw(api: Api, what: str, document: dict[str, str], *, as_json: bool) -> None:
    _show(api.post(f"/switches/{what}", document), as_json=as_json)


def _show(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        write_json(answer)
        return
    if answer.get("note"):
        note(f"note: {answer['note']}", style="yellow")
    if not answer["switches"]:
        say("no switch is thrown")
        return
    table(
        ("kind", "name", "since", "reason"),
        ((each["kind"], each["name"], each["killedAt"], each["reason"]) for each in answer["switches"]),
    )
