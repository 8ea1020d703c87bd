"""`aipaging events` and `aipaging sessions watch`: what happens, as it becomes durable; and what sinks did not take."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import click

from aipaging.adapters.terminal.guard import examples, json_option
from aipaging.adapters.terminal.output import note, say, table, write_json
from aipaging.apps.cli.api import Api, api_options, segment
from aipaging.core.foundation.errors import UnavailableError

RECONNECT_S: Final = 2.0
"""How soon a stream that ended is taken up again."""

RECONNECTS_MAX: Final = 30
"""How often in a row without hearing anything: a controller that restarts is back within a minute."""

_PREFIX: Final = "org.aipaging.ai-paging.v0."
_OVER: Final = f"{_PREFIX}session-ended"


@click.group(
    "events",
    invoke_without_command=True,
    epilog=examples(
        "aipaging events                              what happened, as far back as the controller tells it",
        "aipaging events --follow --json | jq -r .type",
        "aipaging events --after 1204-5ad1c9e0 --follow",
        "aipaging events dead-letters",
    ),
)
@click.option("--follow", is_flag=True, help="Go on with what happens from now on, over restarts of the controller.")
@click.option("--after", default="", help="Begin after the event with this id; with --follow: from now on.")
@click.option("--session", default="", help="Of this session only.")
@api_options
@json_option
def events(*, api: Api, as_json: bool, follow: bool, after: str, session: str) -> None:
    """Print events: a client's own sessions', an operator's everything. One CloudEvent a line with --json."""
    if click.get_current_context().invoked_subcommand is not None:
        return
    start = after if after or follow else "0"
    for event in _told(api, {"sessionId": session}, after=start, follow=follow):
        _show(event, as_json=as_json)


@click.command("watch", epilog=examples("aipaging sessions watch 0c5ab7c6-9d35-4c7f-8a55-5c29b8f4bd54"))
@click.argument("session")
@api_options
@json_option
def watch(*, api: Api, as_json: bool, session: str) -> None:
    """Print what happens to SESSION, from its beginning, until it ends."""
    api.get(f"/sessions/{segment(session)}")
    for event in _told(api, {"sessionId": session}, after="0", follow=True):
        _show(event, as_json=as_json)
        if event.get("type") == _OVER:
            return


@events.command("dead-letters", epilog=examples("aipaging events dead-letters --json | jq '.deadLetters[].reason'"))
@click.option("--page", type=click.IntRange(1), default=1, show_default=True, help="Which page.")
@click.option("--per-page", type=click.IntRange(1, 1000), default=100, show_default=True, help="How many on one.")
@api_options
@json_option
def dead_letters(*, api: Api, as_json: bool, page: int, per_page: int) -> None:
    """List the notifications that sinks did not take (operators)."""
    answer = api.get(f"/dead-letters?page={page}&perPage={per_page}")
    if as_json:
        write_json(answer)
        return
    found: list[dict[str, Any]] = answer["deadLetters"]
    table(
        ["given up", "destination", "event", "type", "attempts", "reason"],
        (
            [
                letter["givenUpAt"], letter["destination"], letter["eventId"],
                letter["eventType"].removeprefix(_PREFIX), letter["attempts"], letter["reason"],
            ]
            for letter in found
        ),
    )  # fmt: skip
    note(f"{len(found)} of {answer['pagination']['totalCount']}")


def _told(api: Api, query: Mapping[str, str], *, after: str, follow: bool) -> Iterator[dict[str, Any]]:
    """Yield events; a stream that ends is taken up again where it was.

    Raises:
        UnavailableError: It cannot be taken up again.
    """
    silent = 0
    while True:
        try:
            for place, event in frames(api.lines("/events", {**query, "lastEventId": after, "follow": _word(follow)})):
                after, silent = place or after, 0
                if event is not None:
                    yield event
        except UnavailableError:
            if not follow or not after or silent >= RECONNECTS_MAX:
                raise
        if not follow:
            return
        silent += 1
        time.sleep(RECONNECT_S)


def _word(truth: bool) -> str:
    return "true" if truth else "false"


def frames(lines: Iterable[str]) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Yield (id, document) of each server-sent event; without data, only the place that was reached."""
    place, data = "", ""
    for line in lines:
        name, _, value = line.partition(":")
        if name == "id":
            place = value.removeprefix(" ")
        elif name == "data":
            data = value.removeprefix(" ")
        elif not line and (place or data):
            yield place, json.loads(data) if data else None
            data = ""


def _show(event: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        write_json(event)
        return
    told = {key: value for key, value in event.get("data", {}).items() if key != "session"}
    about = " ".join(f"{key}={value}" for key, value in told.items())
    say(f"{event['time']}  {str(event['type']).removeprefix(_PREFIX):<26} {event.get('subject', ''):<36}  {about}")
