"""The command `aipaging keys`: the token keys in the data directory of a controller, running or not.

A running controller follows its directory of keys, so what is done here takes effect there within a second of the next
token, and needs neither a restart nor a credential of the interface. Its operations are at `/keys` as well.
"""

import dataclasses
import datetime as dt
import re
import time
from pathlib import Path
from typing import Final

import click

from aipaging.adapters.signing.keys import KeyStore
from aipaging.adapters.signing.rotation import PUBLISHED_AHEAD_US, TokenKeyAge, TokenKeyRing
from aipaging.adapters.terminal.guard import examples, json_option
from aipaging.adapters.terminal.output import note, say, write_json
from aipaging.apps.server.config import load_config
from aipaging.core.foundation.time import MS, SECOND, WallUs

_CONFIG = click.argument("config", type=click.Path(path_type=Path, dir_okay=False))

_LIKE_AN_OPTION: Final = re.compile(r"-[A-Za-z0-9_-]{42}")
"""Ids of keys are 32 bytes in base64url: one in 64 begins with a hyphen."""


class _KeyCommand(click.Command):
    """A command on a key, whose id is never taken for an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Place such ids behind `--`, unless the caller wrote it."""
        ids = [] if "--" in args else [each for each in args if _LIKE_AN_OPTION.fullmatch(each)]
        return super().parse_args(ctx, [*(each for each in args if each not in ids), "--", *ids] if ids else args)


@click.group(
    "keys",
    epilog=examples(
        "aipaging keys list aipaging.toml",
        "aipaging keys rotate aipaging.toml",
        "aipaging keys retire aipaging.toml KEY-ID",
    ),
)
def keys() -> None:
    """List, rotate and retire the keys that sign tokens; no session is lost."""


@keys.command("list", epilog=examples("aipaging keys list aipaging.toml", "aipaging keys list aipaging.toml --json"))
@_CONFIG
@json_option
def list_keys(*, config: Path, as_json: bool) -> None:
    """Say which key signs, since when each is published, and when a newer one took over."""
    ring, _ = _ring(config)
    _tell(ring, as_json=as_json)


@keys.command("rotate", epilog=examples("aipaging keys rotate aipaging.toml"))
@_CONFIG
@json_option
def rotate(*, config: Path, as_json: bool) -> None:
    """Publish a new key; it signs 11 minutes later, when every anchor has fetched it.

    Every key that is present verifies, so tokens and sessions go on. Refused while the last new key does not sign yet.
    """
    ring, _ = _ring(config)
    kid = ring.rotate()
    note(f"{kid} is published and signs in {PUBLISHED_AHEAD_US // SECOND} s")
    _tell(ring, as_json=as_json)


@keys.command(
    "retire",
    cls=_KeyCommand,
    epilog=examples("aipaging keys retire aipaging.toml KEY-ID", "aipaging keys retire aipaging.toml KEY-ID --force"),
)
@_CONFIG
@click.argument("key_id")
@click.option("--force", is_flag=True, help="Although tokens that it signed are in use: it was stolen.")
@json_option
def retire(*, config: Path, key_id: str, force: bool, as_json: bool) -> None:
    """Remove a key: what it signed is refused from then on.

    Refused while it signs, and for as long after as a session may last, unless forced.
    """
    ring, needed_us = _ring(config)
    ring.retire(key_id, needed_us=needed_us, force=force)
    note(f"{key_id} is removed")
    _tell(ring, as_json=as_json)


def _ring(config: Path) -> tuple[TokenKeyRing, int]:
    """Return the keys of a configuration's data directory, and how long a token may be in use."""
    checked = load_config(config, wall_us=_now_us())
    store = KeyStore.open(checked.operator.data_dir / "keys")
    return TokenKeyRing(store, _now_us), checked.settings.duration_s_max * 1000 * MS


def _tell(ring: TokenKeyRing, *, as_json: bool) -> None:
    ages = ring.listed()
    if as_json:
        write_json({"keys": [dataclasses.asdict(age) for age in ages]})
        return
    for age in ages:
        say(f"{age.kid}  {_state(age)}")


def _state(age: TokenKeyAge) -> str:
    if age.signs:
        return f"signs; published {_instant(age.published_us)}"
    if age.replaced_us is not None:
        return f"verifies; replaced {_instant(age.replaced_us)}"
    return f"published {_instant(age.published_us)}; signs from {_instant(age.published_us + PUBLISHED_AHEAD_US)}"


def _instant(wall_us: int) -> str:
    return dt.datetime.fromtimestamp(wall_us // SECOND, tz=dt.UTC).isoformat()


def _now_us() -> WallUs:
    return WallUs(time.time_ns() // 1000)
