"""`aipaging policies`: check a policy file, see the schema, and what a running controller has in force."""

from pathlib import Path
from typing import Any

import click

from aipaging.adapters.policy.cedar import CedarPolicies, schema_text
from aipaging.adapters.terminal.guard import examples, json_option
from aipaging.adapters.terminal.output import say, write_json
from aipaging.apps.cli.api import Api, api_options
from aipaging.core.foundation.errors import InvalidInputError


@click.group(
    "policies",
    epilog=examples("aipaging policies check policies.cedar", "aipaging policies schema", "aipaging policies show"),
)
def policies() -> None:
    """Check policies in Cedar, and show those in force."""


@policies.command("check", epilog=examples("aipaging policies check policies.cedar --json"))
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def check(*, file: Path, as_json: bool) -> None:
    """Hold FILE against the schema, as a controller does before it takes it."""
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{file} cannot be read: {error}", field="file") from None
    found = CedarPolicies(text)
    if as_json:
        write_json({"digest": found.digest, "policies": list(found.ids)})
    else:
        say(f"{len(found.ids)} policies, digest {found.digest}: {', '.join(found.ids)}")


@policies.command("schema", epilog=examples("aipaging policies schema > aipaging.cedarschema"))
@json_option
def schema(*, as_json: bool) -> None:
    """Print the schema: what policies may speak of."""
    if as_json:
        write_json({"schema": schema_text()})
    else:
        click.echo(schema_text(), nl=False)


@policies.command("show", epilog=examples("aipaging policies show --json"))
@api_options
@json_option
def show(*, api: Api, as_json: bool) -> None:
    """Show which policies a controller has in force (operators)."""
    answer: dict[str, Any] = api.get("/policies")
    if as_json:
        write_json(answer)
        return
    if not answer["digest"]:
        say("no policies: everything is allowed")
    else:
        say(f"{len(answer['policies'])} policies of {answer['file']}, digest {answer['digest']}")
        for each in answer["policies"]:
            say(f"  {each}")
    if answer.get("error"):
        say(f"the file as it is now is not taken: {answer['error']}")
