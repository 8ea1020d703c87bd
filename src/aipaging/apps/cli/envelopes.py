"""`aipaging envelopes`: the envelopes that a running controller believes, and the keys that they are held against."""

import sys
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from aipaging.adapters.terminal.guard import examples, json_option
from aipaging.adapters.terminal.output import say, table, write_json
from aipaging.apps.cli.api import Api, api_options, segment
from aipaging.core.foundation.errors import InvalidInputError

FILE_BYTES_MAX: Final = 65_536
"""Longer than any envelope or key set that a controller takes."""

_file = click.Path(path_type=Path, allow_dash=True)


@click.group(
    "envelopes",
    epilog=examples(
        "aipaging envelopes list",
        "aipaging envelopes add transport.jws",
        "aipaging envelopes suspect 4f2a... --reason 'audit: violated'",
        "aipaging envelopes keys transport-fr --set transport.jwks",
    ),
)
def envelopes() -> None:
    """Add, show, suspect and clear envelopes of a running controller (operators)."""


@envelopes.command(
    "list",
    epilog=examples(
        "aipaging envelopes list",
        "aipaging envelopes list --json | jq '.envelopes[] | select(.state != \"IN_FORCE\")'",
    ),
)
@api_options
@json_option
def list_envelopes(*, api: Api, as_json: bool) -> None:
    """List the newest envelope of every domain and segment, and how it stands."""
    answer: dict[str, Any] = api.get("/envelopes")
    if as_json:
        write_json(answer)
    else:
        _table(answer["envelopes"])


@envelopes.command(
    "add",
    epilog=examples("aipaging envelopes add transport.jws", "aipaging envelopes add draft.json", "… add - < a.jws"),
)
@click.argument("file", type=_file)
@api_options
@json_option
def add(*, api: Api, as_json: bool, file: Path) -> None:
    """Put the envelope in FILE into force: a signed one, or an unsigned document of a domain without keys."""
    content = _content(file)
    document = _json(content, file) if content.startswith(b"{") else {"envelope": content.decode("ascii", "replace")}
    _result(api.post("/envelopes", document), as_json=as_json)


@envelopes.command("show", epilog=examples("aipaging envelopes show 4f2a...", "… show 4f2a... --json | jq -r .signed"))
@click.argument("digest")
@api_options
@json_option
def show(*, api: Api, as_json: bool, digest: str) -> None:
    """Show the signed original with DIGEST, as the evidence names it; the first digits of one in force are enough."""
    answer: dict[str, Any] = api.get(f"/envelopes/{_whole(api, digest)}")
    if as_json:
        write_json(answer)
        return
    say(f"{answer['domain']} {answer['sequence']}  {answer.get('state') or 'superseded'}  key {answer['keyId']}")
    say(msgspec.json.format(msgspec.json.encode(answer["document"]), indent=2).decode())


@envelopes.command("suspect", epilog=examples("aipaging envelopes suspect 4f2a... --reason 'audit: violated'"))
@click.argument("digest")
@click.option("--reason", required=True, help="Why; it stands in the evidence.")
@api_options
@json_option
def suspect(*, api: Api, as_json: bool, digest: str, reason: str) -> None:
    """Do not believe the envelope with DIGEST any more: its sessions are moved, or told that they are degraded."""
    _result(api.post(f"/envelopes/{_whole(api, digest)}/suspect", {"reason": reason}), as_json=as_json)


@envelopes.command("clear", epilog=examples("aipaging envelopes clear 4f2a..."))
@click.argument("digest")
@api_options
@json_option
def clear(*, api: Api, as_json: bool, digest: str) -> None:
    """Believe a suspect envelope again."""
    _result(api.post(f"/envelopes/{_whole(api, digest)}/clear"), as_json=as_json)


@envelopes.command(
    "keys",
    epilog=examples("aipaging envelopes keys transport-fr", "aipaging envelopes keys transport-fr --set new.jwks"),
)
@click.argument("domain")
@click.option("--set", "key_set", type=_file, help="Register or rotate: the JWK Set that counts from now on.")
@api_options
@json_option
def keys(*, api: Api, as_json: bool, domain: str, key_set: Path | None) -> None:
    """Show, register or rotate the key set of DOMAIN."""
    path = f"/domains/{segment(domain)}/keys"
    answer: dict[str, Any] = (
        api.get(path) if key_set is None else api.put(path, {"keys": _json(_content(key_set), key_set).get("keys")})
    )
    if as_json:
        write_json(answer)
        return
    say(f"{answer['domain']}: {len(answer['keyIds'])} keys from {answer['source']}, digest {answer['digest']}")
    for key_id in answer["keyIds"]:
        say(f"  {key_id}")


def _whole(api: Api, digest: str) -> str:
    """Return a digest of which the first digits were given, where that is clear."""
    if len(digest) >= 64:
        return segment(digest)
    found = [each["digest"] for each in api.get("/envelopes")["envelopes"] if each["digest"].startswith(digest)]
    if len(found) != 1:
        what = "no envelope in force begins" if not found else f"{len(found)} envelopes in force begin"
        raise InvalidInputError(f"{what} with {digest!r}", field="digest")
    return str(found[0])


def _content(file: Path) -> bytes:
    try:
        content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be read: {error.strerror}", field="file") from None
    if len(content) > FILE_BYTES_MAX:
        raise InvalidInputError(f"{file} has more than {FILE_BYTES_MAX} bytes", field="file")
    return content.strip()


def _json(content: bytes, file: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise InvalidInputError(f"{file} is not a JSON object", field="file") from None


def _result(envelope: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        write_json(envelope)
    else:
        _table([envelope])


def _table(found: list[dict[str, Any]]) -> None:
    table(
        ("domain", "segment", "sequence", "state", "valid until", "key", "digest"),
        (
            (
                each["domain"],
                each.get("segment") or "all traffic",
                each["sequence"],
                each["state"] + (f": {each['reason']}" if each.get("reason") else ""),
                each["validUntil"],
                each["keyId"][:12],
                each["digest"][:16],
            )
            for each in found
        ),
        right=(2,),
    )
