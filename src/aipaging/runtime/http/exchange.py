"""One request and its answer, over ASGI.

The body is read only when a handler asks for it, so who may not ask at all cannot make us hold its bytes.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import parse_qsl

import msgspec

from aipaging.core.foundation.errors import InvalidInputError, RefusedError
from aipaging.runtime.http.documents import decoded, refuse_repetition

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]

BODY_BYTES_MAX: Final = 65_536
"""The largest document of this interface, an intent with every list full, has about 8 kB."""

BODY_S_MAX: Final = 10.0
"""A body that trickles in holds a connection and a task; on any real access 64 kB come in a second."""

QUERY_PARAMETERS_MAX: Final = 16
"""No operation takes more than three."""

JSON: Final = "application/json"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is sent back.

    Attributes:
        status: HTTP status.
        body: Bytes; not sent with 204.
        media_type: Of the body.
        headers: Further headers, names in lower case.
        chunks: Makes a body that is sent as it comes, in place of `body`.
    """

    status: int = 200
    body: bytes = b""
    media_type: str = JSON
    headers: Headers = ()
    chunks: Callable[[], AsyncGenerator[bytes, None]] | None = None


_ENCODER: Final = msgspec.json.Encoder()


def json_answer(document: object, *, status: int = 200, headers: Headers = ()) -> Answer:
    """Return a document as the answer."""
    return Answer(status=status, body=_ENCODER.encode(document), headers=headers)


NO_CONTENT: Final = Answer(status=204)


@dataclass(slots=True, kw_only=True)
class Request:
    """What came in.

    Attributes:
        method: HTTP method.
        path: Undecoded parts are not in it: ASGI has decoded the path.
        headers: Names in lower case; of a repeated header the last.
        query: The undecoded query string.
        parameters: Of the path, by name.
        correlator: `x-correlator`, given or made.
        extensions: Of the ASGI scope: who the peer is.
        address: Of the peer, or "".
        notes: What the log line says beside method, route and status; never a token.
        unread: Whether bytes of the body may still be to come.
    """

    method: str
    path: str
    headers: Mapping[bytes, bytes]
    query: bytes
    parameters: dict[str, str]
    correlator: str
    extensions: Mapping[str, Any]
    address: str = ""
    notes: dict[str, str | int] = field(default_factory=dict)
    receive: Receive
    unread: bool = False

    def header(self, name: bytes) -> str:
        """Return a header's value, or ""."""
        return self.headers.get(name, b"").decode("latin-1")

    async def body(self, *, bytes_max: int = BODY_BYTES_MAX) -> bytes:
        """Return the whole body.

        Raises:
            RefusedError: It is longer than allowed (`PAYLOAD_TOO_LARGE`), took too long (`REQUEST_TIMEOUT`), or the
                client went away (`ABORTED`).
        """
        announced = self.header(b"content-length")
        if announced.isdecimal() and int(announced[:20]) > bytes_max:
            raise _too_large(bytes_max)
        try:
            async with asyncio.timeout(BODY_S_MAX):
                return await self._received(bytes_max)
        except TimeoutError:
            raise RefusedError(
                f"the body did not arrive within {BODY_S_MAX:g} s; send it again", code="REQUEST_TIMEOUT"
            ) from None

    async def _received(self, bytes_max: int) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise RefusedError("the client went away before its body was complete", code="ABORTED")
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > bytes_max:
                raise _too_large(bytes_max)
            if not message.get("more_body", False):
                self.unread = False
                return chunk if not chunks else b"".join((*chunks, chunk))
            chunks.append(chunk)

    async def document(self, decoder: msgspec.json.Decoder[T], *, optional: bool = False) -> T:
        """Return the JSON body as a checked document.

        Args:
            decoder: Of the document's type.
            optional: Whether no body means `{}`.

        Raises:
            RefusedError: It is not JSON by its media type (`UNSUPPORTED_MEDIA_TYPE`), or as `body`.
            InvalidInputError: It does not fit, or says something twice; the error names the field.
        """
        raw = await self.body()
        if optional and not raw:
            raw = b"{}"
        elif self.header(b"content-type").partition(";")[0].strip().lower() != JSON:
            raise RefusedError(f"the body must be {JSON}", code="UNSUPPORTED_MEDIA_TYPE", field="content-type")
        coding = self.header(b"content-encoding")
        if coding and coding != "identity":
            raise RefusedError(
                "the body must not be compressed", code="UNSUPPORTED_MEDIA_TYPE", field="content-encoding"
            )
        found = decoded(decoder, raw)
        refuse_repetition(raw)
        return found

    def parameters_of_query(self, *allowed: str) -> dict[str, str]:
        """Return the query's parameters.

        Raises:
            InvalidInputError: One of them is not among `allowed`, stands twice, or is not UTF-8.
        """
        try:
            pairs = parse_qsl(
                self.query.decode("ascii"),
                keep_blank_values=True,
                strict_parsing=bool(self.query),
                max_num_fields=QUERY_PARAMETERS_MAX,
                errors="strict",
            )
        except ValueError:
            raise InvalidInputError("the query string is malformed: name=value&name=value is expected") from None
        found = dict(pairs)
        unknown = next((name for name in found if name not in allowed), None)
        if unknown is not None:
            raise InvalidInputError(
                f"query parameter {unknown[:64]!r} is not known: allowed are {', '.join(allowed) or 'none'}",
                field=unknown[:64],
            )
        if len(found) != len(pairs):
            raise InvalidInputError("a query parameter stands twice")
        return found


def _too_large(bytes_max: int) -> RefusedError:
    return RefusedError(f"the body is longer than {bytes_max} bytes", code="PAYLOAD_TOO_LARGE")


def integer_of(text: str | None, *, field: str, low: int, high: int, default: int | None = None) -> int:
    """Return a query parameter as an integer.

    Raises:
        InvalidInputError: It is missing without a default, no integer (`INVALID_ARGUMENT`), or outside the range
            (`OUT_OF_RANGE`).
    """
    if text is None:
        if default is None:
            raise InvalidInputError(f"{field} is missing: an integer from {low} to {high} is expected", field=field)
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 19:
        raise InvalidInputError(f"{field} is {text[:40]!r}: an integer from {low} to {high} is expected", field=field)
    number = int(text)
    if not low <= number <= high:
        raise InvalidInputError(f"{field} is {number}: allowed is {low} to {high}", code="OUT_OF_RANGE", field=field)
    return number
