"""`aipaging ask`: free text, read into a structured intent, shown, and paged if it is what was meant."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from aipaging.adapters.terminal.errors import ExplainedRefusalError
from aipaging.adapters.terminal.guard import examples, json_option
from aipaging.adapters.terminal.output import note, say, table, write_json
from aipaging.apps.cli.api import Api, api_options
from aipaging.apps.cli.shown import show_session

FIRST_TEXT_S_MAX: Final = 180.0
"""The first text makes a controller read its examples with the model: seconds, and many of them on a busy machine."""


@click.command(
    "ask",
    epilog=examples(
        'aipaging ask "embed English text, EU only, p99.9 under 250 ms, 40 requests/s, from Paris"',
        'aipaging ask "a chatbot, first token within 400 ms" --place access-paris',
        'aipaging ask --page "embeddings from Paris within 250 ms"      shows what was understood, then asks',
    ),
)
@click.argument("text", nargs=-1, required=True)
@click.option("--place", help="The access domain that the client is in, if the text does not say.")
@click.option("--page", "wants_page", is_flag=True, help="Page the intent once it is confirmed.")
@click.option("--yes", is_flag=True, help="With --page: do not ask for confirmation.")
@api_options
@json_option
def ask(*, api: Api, as_json: bool, text: Sequence[str], place: str | None, wants_page: bool, yes: bool) -> None:
    """Read free text into a structured intent, and show where every field came from.

    Nothing is reserved without --page. Exit status 3: something must be asked first, or nothing here matches.
    """
    known = {"place": place} if place else {}
    found: dict[str, Any] = api.post(
        "/intents/interpret", {"text": " ".join(text), "intent": known}, timeout_s=FIRST_TEXT_S_MAX
    )
    if found["status"] != "resolved":
        _open(found, as_json=as_json)
    if not as_json:
        show_interpretation(found)
    if not wants_page:
        if as_json:
            write_json(found)
        return
    if not yes and not click.confirm("Page this intent?", err=True):
        note("nothing was paged")
        return
    session: dict[str, Any] = api.post("/sessions", {"intent": found["intent"]})
    if as_json:
        write_json({"interpretation": found, "session": session})
    else:
        show_session(session)


def _open(found: Mapping[str, Any], *, as_json: bool) -> None:
    """Show what was understood and what was not.

    Raises:
        ExplainedRefusalError: Always.
    """
    if not as_json:
        show_interpretation(found)
    message = (
        "nothing that is offered here matches" if found["status"] == "no_match" else "something must be asked first"
    )
    raise ExplainedRefusalError(message, code=str(found["status"]).upper(), details=found)


def show_interpretation(found: Mapping[str, Any]) -> None:
    """Print every field with its source, then the questions."""
    table(
        ("field", "value", "from", "words"),
        ((one["field"], _shown(one["value"]), one["source"].lower(), one.get("quote")) for one in found["fields"]),
    )
    for question in found["questions"]:
        choices = f" ({', '.join(question['choices'])})" if question.get("choices") else ""
        say(f"? {question['message']}{choices}", style="yellow")


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "any"
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return str(value) if value != "" else "any"
