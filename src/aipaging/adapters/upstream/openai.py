"""The wire habits of OpenAI-compatible servers: bodies in, errors out."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from starlette.types import Receive, Send

BODY_BYTES_MAX: Final = 4 * 1024 * 1024
"""More than the longest batch that either server takes, and little enough to hold for every open connection."""

JSON_HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = ((b"content-type", b"application/json"),)


class ClientGoneError(Exception):
    """The client closed the connection before it had sent its request."""


class RefusedRequestError(Exception):
    """A request that is answered with an error in OpenAI's form.

    Attributes:
        status: HTTP status.
        message: What was wrong and what is allowed; never a part of the input.
        code: Stable name.
        param: The parameter that it is about, if it is about one.
        retry_after_s: Seconds until another attempt makes sense, if it does.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str = "invalid_value",
        param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s

    def body(self) -> bytes:
        """Return the JSON that OpenAI's clients turn into their own exceptions."""
        kind = {429: "rate_limit_error", 500: "server_error", 503: "server_error"}.get(
            self.status, "invalid_request_error"
        )
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers of the answer."""
        headers: list[tuple[bytes, bytes]] = [*JSON_HEADERS]
        if self.retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % self.retry_after_s))
        return headers


async def read_object(receive: Receive) -> dict[str, Any]:
    """Return the JSON object in the body of a request.

    Raises:
        RefusedRequestError: The body is too long or not a JSON object.
        ClientGoneError: The client left.
    """
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > BODY_BYTES_MAX:
            raise RefusedRequestError(
                f"the body is longer than {BODY_BYTES_MAX} bytes", status=413, code="request_too_large"
            )
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        document = None
    if not isinstance(document, dict):
        raise RefusedRequestError("the body is not a JSON object", code="invalid_json")
    return document


async def until_gone(receive: Receive) -> None:
    """Return when the client has closed the connection; call it once the whole body was read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def answer(send: Send, status: int, body: bytes, *, headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Send a whole answer."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


def unknown_route(method: str, path: str, routes: Mapping[str, str]) -> RefusedRequestError:
    """Return the 404 or 405 for a method and path that `routes` (path to method) does not hold."""
    if path in routes:
        return RefusedRequestError(
            f"{path} answers {routes[path]}, not {method[:16]}", status=405, code="method_not_allowed"
        )
    return RefusedRequestError(
        f"there is nothing here; this server answers {', '.join(routes)}", status=404, code="not_found"
    )
