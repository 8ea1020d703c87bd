"""The public interface of a controller, as the commands of a client call it.

What a controller refuses comes back as the same kinds of error that the library raises, so that a command ends with
the same status whether it failed here or there.
"""

import functools
import ipaddress
import os
import ssl
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

import click

from aipaging.adapters.terminal.errors import ExplainedRefusalError
from aipaging.adapters.terminal.output import note
from aipaging.core.foundation.errors import InvalidInputError, RefusedError, UnavailableError

if TYPE_CHECKING:
    import httpx

BASE: Final = "/ai-paging/v0.1"

URL_DEFAULT: Final = "http://127.0.0.1:8080"
"""Where a controller with the default configuration listens."""

TIMEOUT_S: Final = 30.0
"""A page waits for one group commit and one confirmation; a controller that needs longer is not available."""

CREDENTIAL_BYTES_MAX: Final = 4096

WITHOUT_CREDENTIAL: Final = (
    "the controller wants to know who asks: give a secret or an access token with --credential-file, or in "
    "AIPAGING_CREDENTIAL"
)
_UNAUTHENTICATED: Final = 401


class Api:
    """One controller and one credential."""

    def __init__(self, url: str, *, credential: str, ca: Path | None = None) -> None:
        """Take where to call and with what.

        Raises:
            InvalidInputError: The URL is not one, or would carry the credential in plain text over a network.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise InvalidInputError(f"{url!r} is not a URL: expected such as {URL_DEFAULT}", field="url")
        self._local = _is_loopback(parts.hostname)
        if parts.scheme == "http" and not self._local:
            raise InvalidInputError(
                f"{url} would carry the credential in plain text: use https, or http on this machine only", field="url"
            )
        self._url = url.rstrip("/")
        self._credential = credential
        self._ca = ca

    def get(self, path: str) -> Any:
        """Return the document at a path below the interface's base."""
        return self._call("GET", path, None)

    def post(self, path: str, document: Mapping[str, Any] | None = None, *, timeout_s: float = TIMEOUT_S) -> Any:
        """Post a document and return the answer's."""
        return self._call("POST", path, document, timeout_s)

    def put(self, path: str, document: Mapping[str, Any]) -> Any:
        """Put a document and return the answer's."""
        return self._call("PUT", path, document)

    def delete(self, path: str) -> None:
        """Delete what is at the path."""
        self._call("DELETE", path, None)

    def _call(self, method: str, path: str, document: Mapping[str, Any] | None, timeout_s: float = TIMEOUT_S) -> Any:
        import httpx  # noqa: PLC0415 - 60 ms that --help does not pay

        headers = {"authorization": f"Bearer {self._credential}"} if self._credential else {}
        attempt = 0
        try:
            with httpx.Client(verify=self._trust(), timeout=timeout_s, trust_env=not self._local) as client:
                while True:
                    answer = client.request(method, f"{self._url}{BASE}{path}", json=document, headers=headers)
                    attempt += 1
                    wait_s = _told_to_wait_s(answer, attempt)
                    if wait_s is None:
                        return _document(answer, answer.content)
                    note(f"asked too often: the controller is asked again in {wait_s:g} s")
                    time.sleep(wait_s)
        except httpx.TransportError as error:
            raise UnavailableError(
                f"no answer from {self._url} ({error}): is a controller running there? Name another with --url",
                code="CONTROLLER_UNREACHABLE",
            ) from error

    def lines(self, path: str, query: Mapping[str, str]) -> Iterator[str]:
        """Yield the lines of a stream of events; it ends when the controller ends it.

        Raises:
            AipagingError: The controller refuses, or is not there.
        """
        import httpx  # noqa: PLC0415

        headers = {"authorization": f"Bearer {self._credential}"} if self._credential else {}
        given = {key: value for key, value in query.items() if value}
        try:
            with (
                httpx.Client(verify=self._trust(), timeout=TIMEOUT_S, trust_env=not self._local) as client,
                client.stream("GET", f"{self._url}{BASE}{path}", params=given, headers=headers) as answer,
            ):
                if answer.status_code >= 400:
                    _document(answer, answer.read())
                yield from answer.iter_lines()
        except httpx.TransportError as error:
            raise UnavailableError(
                f"no answer from {self._url} ({error}): is a controller running there? Name another with --url",
                code="CONTROLLER_UNREACHABLE",
            ) from error

    def _trust(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=str(self._ca) if self._ca else None)
        except (OSError, ssl.SSLError) as error:
            raise InvalidInputError(f"{self._ca} holds no certificates: {error}", field="ca") from error


def _told_to_wait_s(answer: "httpx.Response", attempt: int) -> float | None:
    """Return how long to wait before asking again, or None where that is not what the answer says.

    A quota that is used up is an answer, which whoever waits for the command wants to see.
    """
    from aipaging.client.calls import ATTEMPTS_MAX, RETRY_AFTER_S_MAX, TOO_MANY  # noqa: PLC0415

    told = answer.headers.get("retry-after", "")
    if answer.status_code != TOO_MANY or b'"TOO_MANY_REQUESTS"' not in answer.content or not told.isdecimal():
        return None
    return float(told) if attempt < ATTEMPTS_MAX and float(told) <= RETRY_AFTER_S_MAX else None


def _document(answer: "httpx.Response", content: bytes) -> Any:
    import json  # noqa: PLC0415

    from aipaging.client.calls import ANSWER_BYTES_MAX, Received, RefusedWithReasonsError, error_of  # noqa: PLC0415

    if len(content) > ANSWER_BYTES_MAX:
        raise UnavailableError("the answer is too large to be a controller's", code="ANSWER_MALFORMED")
    if answer.status_code >= 400:
        error = error_of(Received(status=answer.status_code, content=content, headers=answer.headers))
        if answer.status_code == _UNAUTHENTICATED and "authorization" not in answer.request.headers:
            raise RefusedError(WITHOUT_CREDENTIAL, code=error.code)
        if isinstance(error, RefusedWithReasonsError):
            raise ExplainedRefusalError(error.message, code=error.code, field=error.field, details=error.details)
        raise error
    try:
        return json.loads(content) if content else None
    except ValueError:
        raise UnavailableError(
            "the answer is not JSON: is it a controller of aipaging?", code="ANSWER_MALFORMED"
        ) from None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def credential(file: Path | None) -> str:
    """Return the client's secret: from the file, else from AIPAGING_CREDENTIAL, else nothing.

    Raises:
        InvalidInputError: The file cannot be read or holds something else.
    """
    if file is None:
        return os.environ.get("AIPAGING_CREDENTIAL", "").strip()
    try:
        if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            note(f"warning: others may read {file}: chmod 600 it", style="yellow")
        content = file.read_bytes()
        secret = content.decode("ascii").strip()
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be read: {error.strerror}", field="credential-file") from error
    except UnicodeDecodeError:
        secret = ""
    if not secret or len(secret) > CREDENTIAL_BYTES_MAX or len(secret.split()) != 1:
        raise InvalidInputError(f"{file} does not hold a secret: one line is expected", field="credential-file")
    return secret


def api_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of its connection; it receives them as one argument `api`."""

    @click.option(
        "--url", envvar="AIPAGING_URL", default=URL_DEFAULT, show_default=True, help="The controller. [AIPAGING_URL]"
    )
    @click.option(
        "--credential-file",
        envvar="AIPAGING_CREDENTIAL_FILE",
        type=click.Path(path_type=Path),
        help="File with the client's secret. [AIPAGING_CREDENTIAL_FILE; the secret itself in AIPAGING_CREDENTIAL]",
    )
    @click.option(
        "--ca", envvar="AIPAGING_CA", type=click.Path(path_type=Path), help="PEM of whom to trust. [AIPAGING_CA]"
    )
    @functools.wraps(command)
    def connected(*, url: str, credential_file: Path | None, ca: Path | None, **options: Any) -> None:
        command(api=Api(url, credential=credential(credential_file), ca=ca), **options)

    return connected


def segment(text: str) -> str:
    """Return what a person typed as one segment of a path; a slash in it must not lead elsewhere."""
    return quote(text, safe="")
