"""`aipaging audits`: what the continuous audit of a running controller found."""

from typing import Any
from urllib.parse import urlencode

import click
import msgspec

from aipaging.adapters.terminal.guard import examples, json_option
from aipaging.adapters.terminal.output import say, table, write_json
from aipaging.apps.cli.api import Api, api_options, segment


@click.group(
    "audits",
    epilog=examples("aipaging audits list --verdict violated", "aipaging audits show 01a2053b1e33-d4ca0a552e"),
)
def audits() -> None:
    """List and show alarms and verdicts about the contracts in force."""


@audits.command(
    "list",
    epilog=examples(
        "aipaging audits list",
        "aipaging audits list --domain edge-one --verdict violated",
        "aipaging audits list --json",
    ),
)
@click.option("--domain", help="Of this domain alone, or end-to-end.")
@click.option("--tenant", help="Of this tenant alone.")
@click.option("--verdict", type=click.Choice(["compliant", "violated", "insufficient_evidence"]), help="These alone.")
@click.option("--kind", type=click.Choice(["ALARM", "VERDICT"]), help="These alone.")
@click.option("--page", type=click.IntRange(1), default=1, show_default=True, help="Which page.")
@api_options
@json_option
def list_audits(*, api: Api, as_json: bool, **wanted: Any) -> None:
    """List findings, the latest first."""
    query = urlencode({name: value for name, value in wanted.items() if value is not None})
    answer: dict[str, Any] = api.get(f"/audits?{query}")
    if as_json:
        write_json(answer)
        return
    table(
        ("found", "kind", "domain", "tenant", "verdict", "contract", "reason", "id"),
        (
            (
                each["foundAt"],
                each["kind"],
                each["domain"],
                each["tenant"],
                each["verdict"],
                f"P(> {each['delayMs']:g} ms) <= {each['epsilon']:g}",
                each["reason"],
                each["auditId"],
            )
            for each in answer["audits"]
        ),
    )


@audits.command(
    "show", epilog=examples("aipaging audits show 01a2053b1e33-d4ca0a552e", "… show ID --json | jq .record")
)
@click.argument("audit_id")
@api_options
@json_option
def show(*, api: Api, as_json: bool, audit_id: str) -> None:
    """Show the finding AUDIT_ID: what it was computed from, and who made requests late."""
    answer: dict[str, Any] = api.get(f"/audits/{segment(audit_id)}")
    if as_json:
        write_json(answer)
        return
    say(f"{answer['kind']} {answer['domain']} {answer['tenant']}: {answer['verdict']}, {answer['reason']}")
    for domain, blame in (answer.get("attribution") or {}).get("domains", {}).items():
        say(f"  {domain}: {blame['blame']:.4f} of the requests late by it ({blame['low']:.4f} to {blame['high']:.4f})")
    say(msgspec.json.format(msgspec.json.encode(answer["record"]), indent=2).decode())
