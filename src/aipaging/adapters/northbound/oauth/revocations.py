"""What was taken back before it expired: access tokens, and clients. Kept in a small file, over restarts too.

A client that takes back token after token fills no memory: beyond `TOKENS_OF_CLIENT_MAX`, everything that was issued to
it so far is taken back at once.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from aipaging.core.foundation.errors import AipagingError, UnavailableError, Who
from aipaging.core.foundation.names import ClientId
from aipaging.core.foundation.time import SECOND, WallUs
from aipaging.core.identity.claims import AccessClaims

TOKENS_OF_CLIENT_MAX: Final = 64
"""Single tokens remembered of one client; clients hold one at a time."""


class _Kept(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The file: ids of tokens with their `exp`, by client; instants before which nothing of a client is good."""

    clients: list[str] = []
    tokens: dict[str, dict[str, int]] = {}
    issued_before: dict[str, int] = {}


class Revocations:
    """Says what is not good any more."""

    def __init__(self, path: Path, clock: Callable[[], WallUs]) -> None:
        """Read what was kept.

        Raises:
            AipagingError: The file is there and cannot be read: nobody knows what was taken back.
        """
        self._path = path
        self._clock = clock
        self._writing = asyncio.Lock()
        self._kept = _read(path)

    @property
    def clients(self) -> frozenset[ClientId]:
        """The clients that were taken back."""
        return frozenset(map(ClientId, self._kept.clients))

    def covers(self, claims: AccessClaims) -> bool:
        """Tell whether a token, or its client, was taken back."""
        kept = self._kept
        return (
            claims.client in kept.clients
            or claims.token_id in kept.tokens.get(claims.client, ())
            or self.covers_issued(claims.client, claims.issued_us)
        )

    def covers_issued(self, client: str, issued_us: WallUs) -> bool:
        """Tell whether everything that a client was issued up to then was taken back."""
        return issued_us <= self._kept.issued_before.get(client, -1)

    def covers_client(self, client: str) -> bool:
        """Tell whether a client was taken back."""
        return client in self._kept.clients

    def good_from_us(self, client: str) -> int:
        """Return the first whole second whose tokens are good: `iat` has no finer grain, and must tell them apart."""
        return (self._kept.issued_before.get(client, -SECOND) // SECOND + 1) * SECOND

    async def take_back_token(self, claims: AccessClaims) -> None:
        """Take one token back; in force at once, and durable when this returns.

        Raises:
            UnavailableError: It could not be written; it is in force until the next restart.
        """
        now_us = self._clock()
        tokens = self._kept.tokens
        mine = {jti: until for jti, until in tokens.get(claims.client, {}).items() if until > now_us}
        mine[claims.token_id] = claims.expires_us
        if len(mine) > TOKENS_OF_CLIENT_MAX:
            mine = {}
            self._kept.issued_before[claims.client] = now_us
        tokens[claims.client] = mine
        await self._write()

    async def take_back_client(self, client: str) -> None:
        """Take a client back, with all its tokens.

        Raises:
            UnavailableError: It could not be written; it is in force until the next restart.
        """
        if client not in self._kept.clients:
            self._kept.clients.append(client)
        self._kept.issued_before[client] = self._clock()
        self._kept.tokens.pop(client, None)
        await self._write()

    async def reinstate(self, client: str) -> None:
        """Let a client come back; what it was issued before stays taken back.

        Raises:
            UnavailableError: It could not be written; it is out again after the next restart.
        """
        with contextlib.suppress(ValueError):
            self._kept.clients.remove(client)
        await self._write()

    async def _write(self) -> None:
        async with self._writing:
            content = msgspec.json.encode(self._kept)
            try:
                await asyncio.to_thread(_replaced, self._path, content)
            except OSError as error:
                raise UnavailableError(
                    f"what is taken back cannot be written to {self._path}: {error.strerror}", code="UNAVAILABLE"
                ) from None


def _read(path: Path) -> _Kept:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Kept)
    except FileNotFoundError:
        return _Kept()
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        raise AipagingError(
            f"{path} cannot be read: it says which tokens and clients were taken back; repair or restore it",
            code="REVOCATIONS_UNREADABLE",
            who=Who.OPERATOR,
        ) from None


def _replaced(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
