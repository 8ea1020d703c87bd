"""`aipaging reload`: a running controller reads its configuration file anew."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from aipaging.adapters.terminal.errors import ExplainedRefusalError
from aipaging.adapters.terminal.guard import examples, json_option
from aipaging.adapters.terminal.output import note, say, write_json
from aipaging.apps.cli.api import Api, api_options


@click.command(
    "reload",
    epilog=examples("aipaging config check aipaging.toml && aipaging reload", "aipaging reload --status --json"),
)
@click.option("--status", "only_status", is_flag=True, help="Change nothing: say what is in force.")
@api_options
@json_option
def reload(*, api: Api, only_status: bool, as_json: bool) -> None:
    """Let a controller read its configuration file anew (operators), as SIGHUP does.

    Clients, tenants, services, domains, paths, envelopes, anchors, policies, sinks, rate limits, limits and the length
    of further leases change at once, without a failed request; what needs a restart is named. A file with a mistake
    changes nothing: exit status 3.
    """
    try:
        answer: dict[str, Any] = api.get("/configuration") if only_status else api.post("/configuration/reload")
    except ExplainedRefusalError as error:
        if not as_json:
            _tell_problems(error.details.get("problems", []))
        raise
    if as_json:
        write_json(answer)
        return
    say(f"{answer['file']} is in force since {answer['inForceSince']}")
    for key, words in (
        ("applied", "changed now"),
        ("needsRestart", "waits for a restart"),
        ("left", "is not in the file any more, and stays until it is removed"),
    ):
        if answer[key]:
            say(f"  {words}: {', '.join(answer[key])}")
    if answer["problems"]:
        say("the file as it was read last is not taken:")
        _tell_problems(answer["problems"])


def _tell_problems(problems: Sequence[Mapping[str, Any]]) -> None:
    for problem in problems:
        place = f"line {problem['line']}: " if problem.get("line") else ""
        note(f"  {place}{problem['message']}")
