"""Where a log is: a journal file, a directory of tiles, or a URL that serves them."""

import ssl
from pathlib import Path
from typing import Final

import httpx

from aipaging.adapters.journal.errors import journal_corrupt
from aipaging.adapters.journal.sqlite.reader import SqliteEvidenceReader
from aipaging.adapters.journal.tiles import FETCHED_BYTES_MAX, Fetch, TileReader, directory_fetch
from aipaging.core.foundation.errors import InvalidInputError, RefusedError, UnavailableError
from aipaging.ports.journal import EvidenceReader

FETCH_SECONDS: Final = 30.0
"""How long one file may take."""

_NOT_FOUND: Final = 404
_REFUSALS: Final = frozenset({401, 403})


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
        return TileReader(directory_fetch(path), where)
    if not path.exists():
        raise InvalidInputError(f"{where}: there is no such file or directory", code="NOT_FOUND", field="source")
    return SqliteEvidenceReader(path)


def url_fetch(base: str, *, token_file: Path | None, ca_file: Path | None) -> Fetch:
    """Return a `Fetch` below a URL, with the token of a file where one is needed."""
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
    client = httpx.Client(
        base_url=base.rstrip("/") + "/", headers=headers, verify=trust, timeout=FETCH_SECONDS, follow_redirects=False
    )

    def fetch(path: str) -> bytes | None:
        try:
            with client.stream("GET", path) as response:
                return _body(response, f"{base}: {path}")
        except httpx.HTTPError as error:
            raise UnavailableError(f"{base}: {path} cannot be fetched ({error})", code="NOT_REACHABLE") from error

    return fetch


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
