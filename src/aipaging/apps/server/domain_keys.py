"""Where the key sets of domains come from: files and URLs that the configuration names, read again and again.

A source that cannot be read, or holds no key set, changes nothing: the last good set stays, and the log says why. A
domain whose source was never read trusts nobody: it must not fall back to plain documents because a server is down.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal

import httpx

from aipaging.core.foundation.errors import AipagingError, UnavailableError
from aipaging.core.foundation.names import DomainName
from aipaging.runtime.envelopes import EnvelopeIntake

LOG: Final = logging.getLogger("aipaging.domain_keys")

FILE_S: Final = 2.0
"""How often files are looked at: one read of a few kilobytes."""

URL_S: Final = 300.0
"""How often URLs are fetched: a rotation publishes the new key well before it signs."""

RETRY_S: Final = 2.0
"""A URL that failed is fetched again after so long, then after twice as long each time, up to `URL_S`: a domain must
not trust nobody for minutes because its server came up a moment after this controller."""

OK: Final = 200
FETCH_S_MAX: Final = 5.0
KEY_SET_BYTES_MAX: Final = 65_536
"""Sixteen keys have below 8 kB; nobody makes us hold more."""

_ASKING: Final = {"accept": "application/jwk-set+json, application/json", "accept-encoding": "identity"}

NO_KEYS: Final = b'{"keys":[]}'


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySource:
    """Where one domain's key set is published; exactly one of the two."""

    file: Path | None = None
    url: str | None = None


class KeySources:
    """Keeps the engine's key sets as their sources are."""

    def __init__(self, intake: EnvelopeIntake, sources: Mapping[DomainName, KeySource]) -> None:
        self._intake = intake
        self._sources = sources
        self._seen: dict[DomainName, str] = {}
        self._failures: dict[DomainName, int] = {}
        self._due_s: dict[DomainName, float] = {}

    @property
    def domains(self) -> frozenset[DomainName]:
        """The domains whose keys come from the configuration."""
        return frozenset(self._sources)

    async def exchange(self, sources: Mapping[DomainName, KeySource]) -> None:
        """Read from these sources from now on; a domain that has none any more keeps the keys that it had."""
        self._seen = {
            domain: digest for domain, digest in self._seen.items() if sources.get(domain) == self._sources.get(domain)
        }
        self._failures = {domain: count for domain, count in self._failures.items() if domain in self._seen}
        self._sources = sources
        await self.load()

    async def load(self) -> None:
        """Read every source once; a domain whose source cannot be read keeps what it had, or trusts nobody."""
        await asyncio.gather(*(self._loaded(domain, source) for domain, source in self._sources.items()))

    async def _loaded(self, domain: DomainName, source: KeySource) -> None:
        if not await self._read(domain, source) and not await self._intake.has_keys(domain):
            await self._intake.register_keys(domain, NO_KEYS, source=_kind(source))

    async def keep_current(self) -> None:
        """Read the sources again and again, for as long as this runs; hung ones hold up the others as one does."""
        while True:
            await asyncio.sleep(FILE_S)
            now_s = asyncio.get_running_loop().time()
            due = [each for each in self._sources.items() if self._due_s.get(each[0], now_s) <= now_s]
            await asyncio.gather(*(self._read(domain, source) for domain, source in due))

    async def _read(self, domain: DomainName, source: KeySource) -> bool:
        """Read one source and register what it holds if that is new; tell whether it holds a key set."""
        try:
            raw = await published(source)
            digest = sha256(raw).hexdigest()
            if self._seen.get(domain) != digest:
                await self._intake.register_keys(domain, raw, source=_kind(source))
                self._seen[domain] = digest
            self._failures[domain] = 0
        except AipagingError as error:
            LOG.warning("a domain's key set cannot be read", extra={"domain": domain, "reason": error.message})
            self._failures[domain] = self._failures.get(domain, 0) + 1
        failures = self._failures[domain]
        self._due_s[domain] = asyncio.get_running_loop().time() + next_look_s(source, failures)
        return failures == 0


def next_look_s(source: KeySource, failures: int) -> float:
    """Return after how many seconds a source is looked at again, after so many failures in a row."""
    if source.file is not None:
        return FILE_S
    return min(RETRY_S * 2.0 ** min(failures - 1, 16), URL_S) if failures else URL_S


def _kind(source: KeySource) -> Literal["FILE", "URL"]:
    return "FILE" if source.file is not None else "URL"


async def published(source: KeySource) -> bytes:
    """Return the bytes at a source.

    Raises:
        UnavailableError: It cannot be read, or is too long to be a key set.
    """
    if source.file is not None:
        return await asyncio.to_thread(_content, source.file)
    return await _fetched(source.url or "")


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(KEY_SET_BYTES_MAX + 1)
    except OSError as error:
        raise UnavailableError(f"{path} cannot be read: {error.strerror}", code="KEY_SET_UNREACHABLE") from None
    return _short(content, str(path))


async def _fetched(url: str) -> bytes:
    content = b""
    try:
        async with (
            asyncio.timeout(FETCH_S_MAX),
            httpx.AsyncClient(follow_redirects=False, timeout=FETCH_S_MAX) as client,
            client.stream("GET", url, headers=_ASKING) as answer,
        ):
            if answer.status_code != OK:
                raise UnavailableError(f"{url} answers {answer.status_code}", code="KEY_SET_UNREACHABLE")
            # Never decompressed: a chunk of some kilobytes can be many megabytes of blanks.
            async for chunk in answer.aiter_raw():
                content += chunk
                if len(content) > KEY_SET_BYTES_MAX:
                    break
    except (httpx.HTTPError, OSError, TimeoutError) as error:
        raise UnavailableError(
            f"{url} cannot be fetched: {type(error).__name__} {error}", code="KEY_SET_UNREACHABLE"
        ) from None
    return _short(content, url)


def _short(content: bytes, where: str) -> bytes:
    if len(content) > KEY_SET_BYTES_MAX:
        raise UnavailableError(f"{where} holds more than {KEY_SET_BYTES_MAX} bytes", code="KEY_SET_UNREACHABLE")
    return content
