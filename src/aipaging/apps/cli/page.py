"""`aipaging page` and `aipaging resolve`: an intent, and what the network answers to it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from aipaging.adapters.terminal.errors import ExplainedRefusalError
from aipaging.adapters.terminal.guard import examples, json_option
from aipaging.adapters.terminal.output import note, write_json
from aipaging.apps.cli.api import Api, api_options
from aipaging.apps.cli.intent_options import intent_of, intent_options
from aipaging.apps.cli.shown import show_candidates, show_session
from aipaging.core.foundation.errors import InvalidInputError


@click.command(
    "page",
    epilog=examples(
        "aipaging page --task embeddings --place access-eu --delay 250ms --percentile p99.9 --rate 40 --burst 5",
        "aipaging page --intent intent.json --duration 10m --json | jq -r .aist",
        "aipaging page --intent intent.json --dry-run      what it would get, and why not more",
    ),
)
@intent_options
@click.option("--dry-run", is_flag=True, help="Commit to nothing: as `aipaging resolve`.")
@click.option("--token-file", type=click.Path(path_type=Path), help="Write the session's token there (mode 0600).")
@api_options
@json_option
def page(*, api: Api, as_json: bool, dry_run: bool, token_file: Path | None, **options: Any) -> None:
    """Turn an intent into a session: a service, an anchor, a token, and the bound that admitted it.

    Needs at least --task, --place and --delay, or an --intent that says them. Exit status 3: refused, with the reason
    of every candidate.
    """
    intent = intent_of(options)
    if dry_run:
        _resolve(api, intent, as_json=as_json)
        return
    try:
        session: dict[str, Any] = api.post("/sessions", {"intent": intent})
    except ExplainedRefusalError as refusal:
        if not as_json:
            show_candidates(refusal.details.get("candidates", ()))
        raise
    if token_file is not None:
        _write_token(token_file, session.pop("aist"))
        note(f"the session's token is in {token_file}")
    if as_json:
        write_json(session)
    else:
        show_session(session)


@click.command(
    "resolve",
    epilog=examples(
        "aipaging resolve --task embeddings --place access-eu --delay 250ms --percentile p99.9",
        "aipaging resolve --intent intent.json --json | jq '.candidates[] | {anchorId, rejection}'",
    ),
)
@intent_options
@api_options
@json_option
def resolve(*, api: Api, as_json: bool, **options: Any) -> None:
    """Show every candidate for an intent, with its bound, or with the constraint that it fails.

    Nothing is reserved. Exit status 3: no candidate is eligible.
    """
    _resolve(api, intent_of(options), as_json=as_json)


def _resolve(api: Api, intent: Mapping[str, Any], *, as_json: bool) -> None:
    resolution: dict[str, Any] = api.post("/intents/resolve", {"intent": intent})
    candidates: list[dict[str, Any]] = resolution["candidates"]
    refused = not any(candidate["eligible"] for candidate in candidates)
    if as_json and not refused:
        write_json(resolution)
        return
    if not as_json:
        show_candidates(candidates)
    if refused:
        message = "no candidate is eligible" if candidates else "there is no anchor at all"
        message += _would_preempt(resolution.get("preemption"))
        raise ExplainedRefusalError(message, code="ADMISSION_REFUSED", details=resolution)


def _would_preempt(preemption: Mapping[str, Any] | None) -> str:
    if preemption is None:
        return ""
    where, wait_s = preemption["anchorId"], preemption["retryAfterS"]
    if not preemption["sessions"]:
        return f"; {where} is about to have room: a page would keep it, to be asked again in {wait_s} s"
    count, highest = preemption["sessions"], preemption["highestClass"]
    return f"; a page would preempt {count} sessions up to class {highest} at {where}, to be asked again in {wait_s} s"


def _write_token(file: Path, token: str) -> None:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            os.fchmod(descriptor, 0o600)
            stream.write(token + "\n")
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be written: {error.strerror}", field="token-file") from error
