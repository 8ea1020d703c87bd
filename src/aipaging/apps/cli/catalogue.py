"""`aipaging services` and `aipaging anchors`: what is on offer, and where it runs."""

from typing import Any, Final

import click

from aipaging.adapters.terminal.guard import examples, json_option
from aipaging.adapters.terminal.output import say, table, write_json
from aipaging.apps.cli.api import Api, api_options, segment
from aipaging.apps.cli.registry import Entry, LazyGroup
from aipaging.core.foundation.errors import InvalidInputError


@click.command("services", epilog=examples("aipaging services", "aipaging services --json | jq -r '.services[].aisi'"))
@api_options
@json_option
def services(*, api: Api, as_json: bool) -> None:
    """List the services that intents may resolve to."""
    answer: dict[str, Any] = api.get("/services")
    if as_json:
        write_json(answer)
        return
    table(
        ("service", "task", "modality", "model", "languages", "licence", "price"),
        (
            (
                each["aisi"],
                each["task"],
                each["modality"],
                each["model"],
                ", ".join(each["languages"]) or "any",
                each["licence"],
                each["price"],
            )
            for each in answer["services"]
        ),
        right=(6,),
    )


ENROL: Final = Entry(target="aipaging.apps.server.enrol:enrol", summary="Issue the identity of an anchor's sidecar.")


class AnchorGroup(LazyGroup):
    """The group of anchors; `enrol` belongs to the controller, whose authority it opens."""

    entries = {"": {"enrol": ENROL}}  # noqa: RUF012 - a constant of the class


@click.group(
    "anchors",
    cls=AnchorGroup,
    epilog=examples("aipaging anchors list", "aipaging anchors drain embeddings-eu-1", "aipaging anchors enrol --help"),
)
def anchors() -> None:
    """List, add, drain, enrol and remove anchors (operators)."""


@anchors.command(
    "list", epilog=examples("aipaging anchors list", "aipaging anchors list --json | jq '.anchors[].state'")
)
@api_options
@json_option
def list_anchors(*, api: Api, as_json: bool) -> None:
    """List the anchors with their state and load."""
    answer: dict[str, Any] = api.get("/anchors")
    if as_json:
        write_json(answer)
    else:
        _show(answer["anchors"])


@anchors.command(
    "add",
    epilog=examples(
        "aipaging anchors add embeddings-eu-2 --domain compute-eu --aisi aisi://op/embeddings/minilm-l6 \\",
        "    --address 192.0.2.7:9101 --capacity 100",
    ),
)
@click.argument("anchor")
@click.option("--domain", required=True, help="The compute domain that it stands in.")
@click.option("--aisi", required=True, help="The service that it executes.")
@click.option("--address", required=True, metavar="HOST:PORT", help="Where its sidecar listens.")
@click.option("--capacity", "capacity", type=float, required=True, help="Requests/s that may be reserved at it.")
@click.option("--in-flight", type=int, default=64, show_default=True, help="Requests under way at it, at most.")
@click.option("--plain-text", is_flag=True, help="Without TLS; on loopback only.")
@api_options
@json_option
def add(*, api: Api, as_json: bool, anchor: str, address: str, **options: Any) -> None:
    """Register ANCHOR, or describe it anew; it takes sessions once its sidecar is heard."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise InvalidInputError(f"{address!r}: expected HOST:PORT, such as 127.0.0.1:9101", field="address")
    answer = api.post(
        "/anchors",
        {
            "anchorId": anchor,
            "domain": options["domain"],
            "aisi": options["aisi"],
            "host": host.strip("[]"),
            "port": int(port),
            "capacityPerSecond": options["capacity"],
            "inFlightMax": options["in_flight"],
            "tls": not options["plain_text"],
        },
    )
    _result(answer, as_json=as_json)


@anchors.command("drain", epilog=examples("aipaging anchors drain embeddings-eu-1"))
@click.argument("anchor")
@api_options
@json_option
def drain(*, api: Api, as_json: bool, anchor: str) -> None:
    """Let ANCHOR take nothing new, and move its sessions away, make-before-break."""
    _result(api.post(f"/anchors/{segment(anchor)}/drain"), as_json=as_json)


@anchors.command("ready", epilog=examples("aipaging anchors ready embeddings-eu-1"))
@click.argument("anchor")
@api_options
@json_option
def ready(*, api: Api, as_json: bool, anchor: str) -> None:
    """Let a drained ANCHOR take sessions again."""
    _result(api.post(f"/anchors/{segment(anchor)}/ready"), as_json=as_json)


@anchors.command("remove", epilog=examples("aipaging anchors remove embeddings-eu-1"))
@click.argument("anchor")
@api_options
@json_option
def remove(*, api: Api, as_json: bool, anchor: str) -> None:
    """Take ANCHOR out of the catalogue; refused while sessions are on it: drain it first."""
    api.delete(f"/anchors/{segment(anchor)}")
    if as_json:
        write_json({"anchorId": anchor, "removed": True})
    else:
        say(f"anchor {anchor} is removed")


def _result(anchor: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        write_json(anchor)
    else:
        _show([anchor])


def _show(found: list[dict[str, Any]]) -> None:
    table(
        ("anchor", "state", "domain", "service", "address", "reserved", "capacity", "sessions"),
        (
            (
                each["anchorId"],
                each["state"],
                each["domain"],
                each["aisi"],
                f"{each['host']}:{each['port']}",
                f"{each['reservedPerSecond']:g}/s",
                f"{each['capacityPerSecond']:g}/s",
                each["sessions"],
            )
            for each in found
        ),
        right=(5, 6, 7),
    )
