"""Where a log is: the files of a journal, a directory of tiles, or a URL that serves them."""

import contextlib
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from aipaging.adapters.journal.errors import journal_corrupt
from aipaging.adapters.journal.sqlite.files import JournalFiles, journal_in
from aipaging.adapters.journal.sqlite.reader import SqliteEvidenceReader
from aipaging.adapters.journal.tiles import FETCHED_BYTES_MAX, Fetch, TileReader, directory_fetch
from aipaging.core.evidence.tiles import CHECKPOINT_PATH
from aipaging.core.foundation.errors import InvalidInputError, RefusedError, UnavailableError
from aipaging.ports.journal import EvidenceReader

FETCH_SECONDS: Final = 30.0
"""How long one file may take."""

WAITS_MAX: Final = 60
"""How often one file is asked for again: a controller lets an operator read so often in a second and no more."""

WAIT_S_MAX: Final = 30.0
"""The longest of these waits."""

_BAD_REQUEST: Final = 400
_NOT_FOUND: Final = 404
_TOO_MANY: Final = 429
_REFUSALS: Final = frozenset({401, 403})


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a log is.

    Attributes:
        where: A path or a URL.
        token_file: For a URL: a file with the access token.
        ca_file: For a URL: the certificates to trust.
    """

    where: str
    token_file: Path | None = None
    ca_file: Path | None = None

    def reader(self) -> EvidenceReader:
        """Return a reader of the log, as `evidence_reader`."""
        return evidence_reader(self.where, token_file=self.token_file, ca_file=self.ca_file)

    def asked(self, query: Mapping[str, str]) -> Any:
        """Return what a controller answers there, as `asked_document`."""
        return asked_document(self.where.rstrip("/"), query, token_file=self.token_file, ca_file=self.ca_file)


def evidence_reader(where: str, *, token_file: Path | None = None, ca_file: Path | None = None) -> EvidenceReader:
    """Return a reader of the log at a path or URL.

    Raises:
        InvalidInputError: There is nothing at the path, or a file cannot be read.
        UnavailableError: The log cannot be reached or read.
    """
    if where.startswith(("http://", "https://")):
        return TileReader(url_fetch(where, token_file=token_file, ca_file=ca_file), where)
    path = Path(where)
    if path.is_dir():
        journal = None
        with contextlib.suppress(OSError):  # what cannot be read is told of the tiles
            journal = None if (path / CHECKPOINT_PATH).exists() else journal_in(path)
        return TileReader(directory_fetch(path), where) if journal is None else SqliteEvidenceReader(journal)
    # The first file of a journal may have been moved away, and its name still is the journal's.
    if not path.exists() and not (path.parent.is_dir() and JournalFiles(path).present()):
        raise InvalidInputError(f"{where}: there is no such file or directory", code="NOT_FOUND", field="source")
    return SqliteEvidenceReader(path)


def url_fetch(base: str, *, token_file: Path | None, ca_file: Path | None) -> Fetch:
    """Return a `Fetch` below a URL, with the token of a file where one is needed; told to wait, it waits."""
    client = _client(base, token_file=token_file, ca_file=ca_file)

    def fetch(path: str) -> bytes | None:
        try:
            for _ in range(WAITS_MAX):
                with client.stream("GET", path) as response:
                    if response.status_code != _TOO_MANY:
                        return _body(response, f"{base}: {path}")
                    wait_s = response.headers.get("retry-after", "")
                time.sleep(min(float(wait_s), WAIT_S_MAX) if wait_s.isdecimal() else 1.0)
        except httpx.HTTPError as error:
            raise UnavailableError(f"{base}: {path} cannot be fetched ({error})", code="NOT_REACHABLE") from error
        raise UnavailableError(f"{base}: {path} is asked for too often, by others as well", code="NOT_REACHABLE")

    return fetch


def asked_document(url: str, query: Mapping[str, str], *, token_file: Path | None, ca_file: Path | None) -> Any:
    """Return the JSON that a controller answers, with the token of a file.

    Raises:
        InvalidInputError: The controller cannot take the question.
        RefusedError: It does not take the token.
        UnavailableError: It does not answer, or not with JSON.
    """
    client = _client(url, token_file=token_file, ca_file=ca_file)
    try:
        with client.stream("GET", url, params=query) as response:
            if response.status_code == _BAD_REQUEST:
                raise InvalidInputError(f"{url}: {_message(response.read())}")
            body = _body(response, url)
    except httpx.HTTPError as error:
        raise UnavailableError(f"{url} cannot be fetched ({error})", code="NOT_REACHABLE") from error
    finally:
        client.close()
    try:
        return msgspec.json.decode(body or b"")
    except msgspec.DecodeError:
        raise UnavailableError(f"{url}: no document is there", code="NOT_REACHABLE") from None


def _message(body: bytes) -> str:
    try:
        return str(msgspec.json.decode(body)["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return "the question was refused"


def _client(base: str, *, token_file: Path | None, ca_file: Path | None) -> httpx.Client:
    headers: dict[str, str] = {}
    if token_file is not None:
        headers["authorization"] = f"Bearer {_text_of(token_file).strip()}"
    trust: ssl.SSLContext | bool = True
    if ca_file is not None:
        try:
            trust = ssl.create_default_context(cafile=str(ca_file))
        except (OSError, ssl.SSLError) as error:
            raise InvalidInputError(f"{ca_file}: not a file of certificates", field="ca-file") from error
    # Redirects are not followed: they would carry the token elsewhere.
    return httpx.Client(
        base_url=base.rstrip("/") + "/", headers=headers, verify=trust, timeout=FETCH_SECONDS, follow_redirects=False
    )


def _body(response: httpx.Response, name: str) -> bytes | None:
    if response.status_code == _NOT_FOUND:
        return None
    if response.status_code in _REFUSALS:
        raise RefusedError(f"{name}: refused with {response.status_code}; is --token-file right?", code="REFUSED")
    if not response.is_success:
        raise UnavailableError(f"{name}: answered {response.status_code}", code="NOT_REACHABLE")
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > FETCHED_BYTES_MAX:
            raise journal_corrupt(name, f"it is longer than {FETCHED_BYTES_MAX} bytes")
    return bytes(body)


def _text_of(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path}: cannot be read", field="token-file") from error
