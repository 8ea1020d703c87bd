"""`aipaging sessions`, `extend`, `relocate`, `release`: what happens to sessions after they were paged."""

import time
from typing import Any, Final

import click

from aipaging.adapters.terminal.guard import examples, failed, json_option
from aipaging.adapters.terminal.output import note, say, table, write_json
from aipaging.apps.cli.api import Api, api_options, segment
from aipaging.apps.cli.events import watch
from aipaging.apps.cli.quantities import Duration, whole_seconds
from aipaging.apps.cli.shown import show_session
from aipaging.core.foundation.errors import RefusedError, UnavailableError

POLL_S: Final = 0.2
"""A relocation takes a few of these."""

WAIT_S_MAX: Final = 120.0
"""Longer than any drain that is configured by default."""

ERASE_S_MAX: Final = 120.0
"""The controller stores its state first: some seconds for 100,000 sessions."""

_OVER: Final = frozenset({"SWITCHED", "SOURCE_RELEASED", "FAILED"})


@click.group(
    "sessions",
    epilog=examples("aipaging sessions list --status AVAILABLE", "aipaging sessions show SESSION --json | jq .bound"),
)
def sessions() -> None:
    """List and show sessions, and tell that a client has moved."""


@sessions.command(
    "list",
    epilog=examples(
        "aipaging sessions list",
        "aipaging sessions list --anchor embeddings-eu-1 --json | jq -r '.sessions[].sessionId'",
    ),
)
@click.option("--status", type=click.Choice(["REQUESTED", "AVAILABLE", "UNAVAILABLE"]), help="Only those.")
@click.option("--aisi", help="Only those of the service.")
@click.option("--anchor", "anchor_id", help="Only those on the anchor.")
@click.option("--page", type=click.IntRange(1), default=1, show_default=True, help="Which page.")
@click.option("--per-page", type=click.IntRange(1, 1000), default=100, show_default=True, help="How many on one.")
@api_options
@json_option
def list_sessions(*, api: Api, as_json: bool, page: int, per_page: int, **chosen: str | None) -> None:
    """List sessions, the oldest first: a client its own, an operator all."""
    names = {"status": "status", "aisi": "aisi", "anchor_id": "anchorId"}
    wanted = {names[option]: value for option, value in chosen.items() if value is not None}
    answer: dict[str, Any] = api.post("/retrieve-sessions", {"page": page, "perPage": per_page, "filter": wanted})
    if as_json:
        write_json(answer)
        return
    found = answer["sessions"]
    table(
        ("session", "status", "tenant", "service", "anchor", "expires"),
        (
            (
                each["sessionId"],
                each.get("statusInfo") or each["status"],
                each["tenant"],
                each["aisi"],
                each.get("anchorId"),
                each["expiresAt"],
            )
            for each in found
        ),
    )
    note(f"{len(found)} of {answer['pagination']['totalCount']}")


@sessions.command("show", epilog=examples("aipaging sessions show 0c5ab7c6-9d35-4c7f-8a55-5c29b8f4bd54"))
@click.argument("session")
@api_options
@json_option
def show(*, api: Api, as_json: bool, session: str) -> None:
    """Show SESSION with its COMMIT and the bound that admitted it."""
    _result(api.get(f"/sessions/{segment(session)}"), as_json=as_json)


sessions.add_command(watch)


@sessions.command("move", epilog=examples("aipaging sessions move SESSION --place access-us"))
@click.argument("session")
@click.option("--place", required=True, help="The access domain that the client is in now.")
@api_options
@json_option
def move(*, api: Api, as_json: bool, session: str, place: str) -> None:
    """Tell that the client of SESSION is in another access domain; it is relocated if it must be."""
    _result(api.post(f"/sessions/{segment(session)}/move", {"place": place}), as_json=as_json)


@sessions.command("erase", epilog=examples("aipaging sessions erase 0c5ab7c6-9d35-4c7f-8a55-5c29b8f4bd54"))
@click.argument("session")
@api_options
@json_option
def erase(*, api: Api, as_json: bool, session: str) -> None:
    """Erase what is private of SESSION, which is over: its intent, place and sink. Its records stay, and verify."""
    api.post(f"/sessions/{segment(session)}/erase", timeout_s=ERASE_S_MAX)
    if as_json:
        write_json({"sessionId": session, "erased": True})
    else:
        say(f"session {session} is erased")


@click.command("extend", epilog=examples("aipaging extend SESSION --by 10m"))
@click.argument("session")
@click.option("--by", "by_ms", type=Duration(), required=True, help="How much longer, such as 10m.")
@api_options
@json_option
def extend(*, api: Api, as_json: bool, session: str, by_ms: float) -> None:
    """Let SESSION last longer; the whole is capped by the operator. Issues a new token."""
    additional = {"additionalDurationS": whole_seconds(by_ms)}
    _result(api.post(f"/sessions/{segment(session)}/extend", additional), as_json=as_json)


@click.command(
    "relocate",
    epilog=examples("aipaging relocate SESSION --wait", "aipaging relocate SESSION --to embeddings-eu-2   (operators)"),
)
@click.argument("session")
@click.option("--to", "target", help="The anchor; the best other one if left out.")
@click.option("--wait", is_flag=True, help="Until it has switched or failed; status 1 if it failed.")
@api_options
@json_option
def relocate(*, api: Api, as_json: bool, session: str, target: str | None, wait: bool) -> None:
    """Move SESSION to another anchor, make-before-break: if it fails, the session stays where it is."""
    path = f"/sessions/{segment(session)}"
    answer: dict[str, Any] = api.post(f"{path}/relocate", {} if target is None else {"targetAnchorId": target})
    if wait:
        answer = _relocated(api, path)
    _result(answer, as_json=as_json)
    if wait and answer["relocation"]["phase"] == "FAILED":
        failed()


def _relocated(api: Api, path: str) -> dict[str, Any]:
    until = time.monotonic() + WAIT_S_MAX
    while time.monotonic() < until:
        answer: dict[str, Any] = api.get(path)
        if answer["status"] != "AVAILABLE":
            raise RefusedError("the session ended meanwhile", code="INCOMPATIBLE_STATE")
        if answer.get("relocation", {}).get("phase") in _OVER:
            return answer
        time.sleep(POLL_S)
    raise UnavailableError(f"the relocation is still under way after {WAIT_S_MAX:g} s", code="TIMEOUT")


@click.command("release", epilog=examples("aipaging release SESSION"))
@click.argument("session")
@api_options
@json_option
def release(*, api: Api, as_json: bool, session: str) -> None:
    """End SESSION: its COMMIT is revoked and steering to its anchor stops."""
    api.delete(f"/sessions/{segment(session)}")
    if as_json:
        write_json({"sessionId": session, "status": "UNAVAILABLE", "statusInfo": "DELETE_REQUESTED"})
    else:
        say(f"session {session} is released")


def _result(session: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        write_json(session)
    else:
        show_session(session)
