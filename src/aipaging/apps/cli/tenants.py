"""`aipaging tenants`: who reservations belong to, and the most that each may hold."""

from typing import Any, Final

import click

from aipaging.adapters.terminal.guard import examples, json_option
from aipaging.adapters.terminal.output import table, write_json
from aipaging.apps.cli.api import Api, api_options, segment

_CLASSES: Final = click.Choice(["BACKGROUND", "STANDARD", "URGENT", "EMERGENCY"])


@click.group(
    "tenants",
    epilog=examples(
        "aipaging tenants list",
        "aipaging tenants set acme --sessions 100 --requests 500 --spend 50000000 --period 86400",
        "aipaging tenants show acme --json",
    ),
)
def tenants() -> None:
    """Show tenants, set quotas and classes (operators)."""


@tenants.command("list", epilog=examples("aipaging tenants list --json"))
@api_options
@json_option
def list_tenants(*, api: Api, as_json: bool) -> None:
    """List the registered tenants, and how much of their quotas they use."""
    answer = api.get("/tenants")
    if as_json:
        write_json(answer)
    else:
        _table(answer["tenants"])


@tenants.command("show", epilog=examples("aipaging tenants show acme"))
@click.argument("tenant")
@api_options
@json_option
def show(*, api: Api, as_json: bool, tenant: str) -> None:
    """Show TENANT."""
    _one(api.get(f"/tenants/{segment(tenant)}"), as_json=as_json)


@tenants.command("set", epilog=examples("aipaging tenants set acme --sessions 100 --priority URGENT --preempts"))
@click.argument("tenant")
@click.option("--sessions", type=int, default=0, help="Sessions at one time; 0: no limit.")
@click.option("--requests", type=float, default=0.0, help="Requests per second of all of them; 0: no limit.")
@click.option("--reserved", type=float, default=0.0, help="Likewise, with what ended sessions still hold.")
@click.option("--spend", type=int, default=0, help="Millionths of the currency in a period; 0: no limit.")
@click.option("--period", type=int, default=86_400, show_default=True, help="Seconds.")
@click.option("--priority", type=_CLASSES, default="STANDARD", show_default=True, help="The class of its sessions.")
@click.option("--preempts", is_flag=True, help="Where there is no room, its pages displace sessions of a lower class.")
@api_options
@json_option
def set_tenant(*, api: Api, as_json: bool, tenant: str, priority: str, preempts: bool, **quotas: Any) -> None:
    """Register TENANT, or describe it anew; what is left out is as if it had never been said."""
    document = {
        "quotas": {
            "sessionsMax": quotas["sessions"],
            "requestsPerSecondMax": quotas["requests"],
            "reservedPerSecondMax": quotas["reserved"],
            "spendMax": quotas["spend"],
            "periodS": quotas["period"],
        },
        "priority": priority,
        "preempts": preempts,
    }
    _one(api.put(f"/tenants/{segment(tenant)}", document), as_json=as_json)


def _one(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        write_json(answer)
    else:
        _table([answer])


def _used(used: object, most: object) -> str:
    return f"{used} of {most}" if most else str(used)


def _table(found: list[dict[str, Any]]) -> None:
    table(
        ("tenant", "class", "sessions", "requests/s", "reserved/s", "spent", "period ends"),
        (
            (
                each["tenant"],
                each["priority"],
                _used(each["holds"]["sessions"], each["quotas"]["sessionsMax"]),
                _used(each["holds"]["requestsPerSecond"], each["quotas"]["requestsPerSecondMax"]),
                _used(each["holds"]["reservedPerSecond"], each["quotas"]["reservedPerSecondMax"]),
                _used(each["holds"]["spent"], each["quotas"]["spendMax"]),
                each["holds"]["periodEndsAt"],
            )
            for each in found
        ),
    )
