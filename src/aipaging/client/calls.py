"""What the client says and what it makes of the answers, without sending anything.

A `Call` is one request; a flow is a generator that yields calls and is sent answers, so that the blocking and the
asynchronous client are the same but for how they wait. A call is repeated only where that cannot do anything twice: it
is safe by its method, or it carries an idempotency key.
"""

import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import urlsplit

import msgspec

from aipaging.core.foundation.errors import AipagingError, InvalidInputError, RefusedError, UnavailableError, Who

BASE: Final = "/ai-paging/v0.1"

ATTEMPTS_MAX: Final = 4
"""Four attempts with the delays below span about two seconds: a restart of a controller, not an outage."""

BACKOFF_S: Final = 0.25
"""The first delay; each further one is twice as long, less a random part."""

RETRY_AFTER_S_MAX: Final = 30.0
"""A server that asks for more is not waited for: the caller decides."""

ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
"""A thousand sessions are about two megabytes."""

TOO_MANY: Final = 429
"""Refused before anything was done: it may always be sent again."""

_AGAIN: Final = frozenset({TOO_MANY, 502, 503, 504})
_INVALID: Final = frozenset({400, 404, 405, 406, 410, 413, 414, 415})
_REFUSED: Final = frozenset({401, 403, 409, 422, TOO_MANY})
_FAULT_FIELDS: Final = frozenset({"status", "code", "message", "who", "field"})

_ONE_LINE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")

T = TypeVar("T")


class RefusedWithReasonsError(RefusedError):
    """A refusal that says more than a sentence: for a refused page, why each candidate was not eligible.

    Attributes:
        details: What the answer said beside code and message.
    """

    def __init__(self, message: str, *, code: str, details: Mapping[str, Any], field: str | None = None) -> None:
        super().__init__(message, code=code, field=field)
        self.details = dict(details)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to the controller.

    Attributes:
        method: HTTP method.
        path: Below the interface's base, or from the root if it begins with two slashes.
        document: Body, to be sent as JSON; None for none.
        form: Body, to be sent as a form; None for none.
        key: Idempotency key: the same one never does a thing twice.
        authenticated: Whether the credential is sent along.
    """

    method: str
    path: str
    document: object = None
    form: Mapping[str, str] | None = None
    key: str = ""
    authenticated: bool = True

    @property
    def repeatable(self) -> bool:
        """Whether it may be sent again when nobody knows whether it was carried out."""
        return self.method in {"GET", "DELETE", "PUT"} or bool(self.key) or self.form is not None

    @property
    def url_path(self) -> str:
        """The path from the root of the server."""
        return self.path[1:] if self.path.startswith("//") else BASE + self.path

    def headers(self, bearer: str) -> dict[str, str]:
        """Return the headers that it needs.

        Raises:
            InvalidInputError: The credential or the key cannot be sent in a header.
        """
        headers: dict[str, str] = {}
        if bearer and self.authenticated:
            headers["authorization"] = f"Bearer {_one_line('credential', bearer)}"
        if self.key:
            headers["idempotency-key"] = _one_line("key", self.key)
        if self.document is not None:
            headers["content-type"] = "application/json"
        return headers

    def body(self) -> bytes | None:
        """Return the JSON body, or None."""
        return None if self.document is None else msgspec.json.encode(self.document)


def _one_line(what: str, value: str) -> str:
    if _ONE_LINE.fullmatch(value) is None:
        # Without the value: it may be a secret, and errors are logged.
        raise InvalidInputError(
            f"the {what} is not one line of ASCII characters; was it read from a file, with the line's end?", field=what
        )
    return value


def base_url(url: str) -> str:
    """Return the URL of a controller as paths are appended to it.

    Raises:
        InvalidInputError: It is none.
    """
    try:
        parts = urlsplit(url)
        valid = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise InvalidInputError(f"{url!r} is no URL of a controller, such as https://control.example", field="url")
    return url.rstrip("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One answer."""

    status: int
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


Flow: TypeAlias = Generator[Call, Received, T]
"""Yields calls, is sent their answers, returns the result."""


def fetched(call: Call, answer_type: type[T]) -> Flow[T]:
    """Send one call and return its answer, decoded.

    Raises:
        InvalidInputError: The controller says that something was wrong with the call.
        RefusedError: It refused.
        UnavailableError: It is not there, or answers what no controller answers.
    """
    received = yield call
    if received.status >= 400:
        raise error_of(received)
    if len(received.content) > ANSWER_BYTES_MAX:
        raise UnavailableError("the answer is too large to be a controller's", code="ANSWER_MALFORMED")
    try:
        return msgspec.json.decode(received.content, type=answer_type)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnavailableError(
            f"the answer is not one of a controller of aipaging: {error}", code="ANSWER_MALFORMED"
        ) from None


def sent(call: Call) -> Flow[None]:
    """Send one call whose answer has no body that matters.

    Raises:
        AipagingError: As `fetched`.
    """
    received = yield call
    if received.status >= 400:
        raise error_of(received)


def error_of(received: Received) -> AipagingError:
    """Return the error that an answer is, in the classes that the library raises everywhere."""
    fault = _fault(received.content)
    status = received.status
    code = str(fault.get("code", f"HTTP_{status}"))
    message = str(fault.get("message", f"the controller answered with status {status}"))
    named = None if fault.get("field") is None else str(fault["field"])
    if status in _INVALID:
        return InvalidInputError(message, code=code, field=named)
    if status in _REFUSED:
        details = {name: value for name, value in fault.items() if name not in _FAULT_FIELDS}
        return RefusedWithReasonsError(message, code=code, field=named, details=details)
    if fault.get("who") == Who.BUG.value:
        correlator = received.headers.get("x-correlator", "unknown")
        return AipagingError(f"{message} (correlator {correlator})", code=code, who=Who.BUG)
    return UnavailableError(message, code=code)


def _fault(content: bytes) -> dict[str, Any]:
    try:
        found: object = msgspec.json.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {}
    return {str(name): value for name, value in found.items()} if isinstance(found, dict) else {}


def pause_s(call: Call, attempt: int, received: Received | None, chance: float) -> float | None:
    """Return how long to wait before a call is sent again, or None to take its outcome as it is.

    Args:
        call: The call.
        attempt: How often it has been sent.
        received: Its answer; None if there was none.
        chance: A random number in [0, 1), so that clients do not come back all at once.
    """
    if attempt >= ATTEMPTS_MAX:
        return None
    delay_s = BACKOFF_S * 2 ** (attempt - 1) * (1.0 - 0.5 * chance)
    if received is None:
        return delay_s if call.repeatable else None
    if received.status not in _AGAIN or (received.status != TOO_MANY and not call.repeatable):
        return None
    return _asked_s(received, delay_s)


def _asked_s(received: Received, delay_s: float) -> float | None:
    """Return the delay, or what Retry-After asks for (RFC 9110, section 10.2.3: seconds); None if that is too long."""
    asked = received.headers.get("retry-after", "")
    if not asked.isdigit():
        return delay_s
    return max(delay_s, float(asked)) if float(asked) <= RETRY_AFTER_S_MAX else None
