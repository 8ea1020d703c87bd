"""The heads of requests and responses: parsed strictly, rewritten, never repaired.

llhttp (through httptools) does the parsing, in its strict mode; it is given exactly one head, up to the empty line that
we found, and has to agree that the head ends there. It refuses Content-Length beside Transfer-Encoding, a repeated
Content-Length, bare CR or LF, spaces before colons and folded lines; we refuse on top of that every transfer coding
but `chunked`, and every version but 1.1 (an HTTP/1.0 client could not tell a cut answer from a finished one).

What never passes: connection-level fields (RFC 9110, 7.6.1), the AIST (`authorization`), `x-aipaging-*`, and what tells
of gateways and clients' addresses (`x-envoy-*`, `x-forwarded-*`, `forwarded`): a model server has no business with it,
and a hosted one least of all.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

import httptools

from aipaging.adapters.sidecar.answers import REPEAT_STATUS, Refusal

HEAD_BYTES_MAX: Final = 64 * 1024
"""Envoy's default for request headers is 60 KiB."""

FIELDS_MAX: Final = 128
"""Envoy's default is 100."""

HEAD_END: Final = b"\r\n\r\n"

BODY_BYTES_MAX: Final = 1 << 50
"""A Content-Length beyond it is nonsense."""

COMMIT_FIELD: Final = b"x-aipaging-commit"
REFUSED_FIELD: Final = b"x-aipaging-refused"
_OWN_FIELDS: Final = (b"x-aipaging-", b"x-envoy-", b"x-forwarded-")

_BODYLESS: Final = frozenset({204, 304})
_NEVER_NAMED: Final = frozenset({b"", b"close", b"keep-alive", b"transfer-encoding", b"content-length"})


class RequestRefusedError(Exception):
    """The request's head is refused; the connection cannot be trusted to be in step any more.

    Attributes:
        refusal: What to answer before closing.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.refusal = Refusal(status=status, code=code, message=message)


class ResponseBrokenError(Exception):
    """The upstream sent a head that is not HTTP/1, or that we will not pass on."""


@dataclass(slots=True)
class RequestHead:
    """A request's head, ready to be passed on.

    Attributes:
        method: As sent.
        target: Origin form, as sent.
        fields: Header lines that may pass, without framing and host.
        commit: The COMMIT receipt, where there is one.
        length: Content-Length, where there is one.
        chunked: Whether the body is chunked.
        close: Whether the client closes after the answer.
        expects_continue: Whether the client waits for 100 (Continue).
        named: Fields that Connection takes out of the message with itself.
        host: Value of Host.
        scheme: How the client reached the gateway, where a gateway says so.
        refused: Whether the gateway repeats what was refused here.
        traceparent: The request's trace context; empty where there was more than one.
    """

    method: bytes
    target: bytes
    fields: bytes = b""
    commit: bytes | None = None
    length: int | None = None
    chunked: bool = False
    close: bool = False
    expects_continue: bool = False
    named: frozenset[bytes] = frozenset()
    host: bytes = b""
    scheme: bytes = b""
    refused: bool = False
    traceparent: bytes | None = None

    @property
    def has_body(self) -> bool:
        """Whether bytes of a body follow."""
        return self.chunked or bool(self.length)

    @property
    def may_be_repeated(self) -> bool:
        """Whether sending it again changes nothing (RFC 9110, 9.2.1) and needs no byte that is gone."""
        return self.method in {b"GET", b"HEAD", b"OPTIONS"} and not self.has_body


@dataclass(slots=True)
class ResponseHead:
    """A response's head, ready to be passed on.

    Attributes:
        status: The status code.
        start: Status line and header lines that may pass, Content-Length included, without the empty line.
        length: Content-Length where it frames the body; 0 where no body follows.
        chunked: Whether the body is chunked.
        keep_alive: Whether the upstream keeps the connection.
        event_stream: Whether the body is `text/event-stream`.
        json: Whether it is `application/json`.
        encoded: Whether a content coding hides the text of the body.
        named: Fields that Connection takes out of the message with itself.
    """

    status: int
    start: bytes
    length: int | None = None
    chunked: bool = False
    keep_alive: bool = True
    event_stream: bool = False
    json: bool = False
    encoded: bool = False
    named: frozenset[bytes] = frozenset()


class _Collector:
    """What llhttp calls back."""

    __slots__ = ("begun", "complete", "fields", "target")

    def __init__(self) -> None:
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.complete = 0
        self.begun = 0

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))

    def on_headers_complete(self) -> None:
        self.complete += 1


def read_request_head(raw: bytes) -> RequestHead:
    """Return the head of a request; `raw` ends with the empty line.

    Raises:
        RequestRefusedError: It is malformed, ambiguous, or of a kind that is not served.
    """
    seen = _Collector()
    parser: Any = httptools.HttpRequestParser(seen)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        raise RequestRefusedError(501, "UPGRADE_NOT_SUPPORTED", "upgrades and CONNECT are not served here") from None
    except httptools.HttpParserError:
        raise RequestRefusedError(400, "MALFORMED_REQUEST", "the request's head is not strict HTTP/1.1") from None
    if seen.complete != 1 or seen.begun != 1:
        raise RequestRefusedError(400, "MALFORMED_REQUEST", "the request's head does not end where it says")
    if parser.get_http_version() != "1.1":
        raise RequestRefusedError(505, "VERSION_NOT_SUPPORTED", "only HTTP/1.1 is served here")
    if not seen.target.startswith(b"/"):
        raise RequestRefusedError(400, "MALFORMED_REQUEST", "the request target must begin with a slash")
    if len(seen.fields) > FIELDS_MAX:
        raise RequestRefusedError(431, "TOO_MANY_FIELDS", f"at most {FIELDS_MAX} header fields are read")
    head = RequestHead(method=parser.get_method(), target=seen.target)
    _take_request_fields(head, seen.fields)
    head.close = not parser.should_keep_alive()
    return head


def _take_request_fields(head: RequestHead, fields: list[tuple[bytes, bytes]]) -> None:
    passed: list[bytes] = []
    for name, value in fields:
        key = name.lower()
        read = _REQUEST_READ.get(key)
        if read is not None:
            read(head, value)
        elif not key.startswith(_OWN_FIELDS):
            passed.append(name + b": " + value + b"\r\n")
    head.fields = b"".join(_without(passed, head.named) if head.named else passed)


def _drop(head: RequestHead | ResponseHead, value: bytes) -> None:
    """Read nothing; that it has a reader is what keeps a field from passing."""


def _read_commit(head: RequestHead, value: bytes) -> None:
    if head.commit is not None:
        raise RequestRefusedError(400, "MALFORMED_REQUEST", "there is more than one COMMIT receipt")
    head.commit = value


def _read_host(head: RequestHead, value: bytes) -> None:
    head.host = value


def _read_scheme(head: RequestHead, value: bytes) -> None:
    head.scheme = value if value in {b"http", b"https"} else b""


def _read_refused(head: RequestHead, _value: bytes) -> None:
    head.refused = True


def _read_traceparent(head: RequestHead, value: bytes) -> None:
    head.traceparent = value if head.traceparent is None else b""


def _read_length(head: RequestHead, value: bytes) -> None:
    if not value.isdigit() or (length := int(value[:20])) > BODY_BYTES_MAX:
        raise RequestRefusedError(400, "MALFORMED_REQUEST", "Content-Length is not a length")
    head.length = length


def _read_coding(head: RequestHead, value: bytes) -> None:
    if value.lower() != b"chunked":
        raise RequestRefusedError(501, "CODING_NOT_SUPPORTED", "the only transfer coding that is read is chunked")
    head.chunked = True


def _read_expectation(head: RequestHead, value: bytes) -> None:
    if value.lower() != b"100-continue":
        raise RequestRefusedError(417, "EXPECTATION_FAILED", "the only expectation that is met is 100-continue")
    head.expects_continue = True


def _refuse_upgrade(_head: RequestHead, _value: bytes) -> None:
    raise RequestRefusedError(501, "UPGRADE_NOT_SUPPORTED", "upgrades and CONNECT are not served here")


def _read_connection(head: RequestHead | ResponseHead, value: bytes) -> None:
    tokens = {token.strip(b" \t").lower() for token in value.split(b",")}
    head.named |= tokens - _NEVER_NAMED
    if isinstance(head, ResponseHead):
        head.keep_alive = b"close" not in tokens and (head.keep_alive or b"keep-alive" in tokens)


def _without(lines: list[bytes], names: frozenset[bytes]) -> list[bytes]:
    return [line for line in lines if line.partition(b":")[0].lower() not in names]


_REQUEST_READ: Final[Mapping[bytes, Callable[[RequestHead, bytes], None]]] = MappingProxyType(
    {
        COMMIT_FIELD: _read_commit,
        b"authorization": _drop,
        b"proxy-authorization": _drop,
        REFUSED_FIELD: _read_refused,
        b"x-forwarded-proto": _read_scheme,
        b"host": _read_host,
        b"forwarded": _drop,
        b"traceparent": _read_traceparent,
        b"content-length": _read_length,
        b"transfer-encoding": _read_coding,
        b"expect": _read_expectation,
        b"upgrade": _refuse_upgrade,
        b"connection": _read_connection,
        b"keep-alive": _drop,
        b"proxy-connection": _drop,
        b"te": _drop,
        b"trailer": _drop,
    }
)
"""Fields that are read here and do not pass."""


def read_response_head(raw: bytes, request_method: bytes) -> ResponseHead:
    """Return the head of a response; `raw` ends with the empty line.

    Raises:
        ResponseBrokenError: It is malformed or ambiguous, or switches protocols.
    """
    seen = _Collector()
    parser: Any = httptools.HttpResponseParser(seen)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        raise ResponseBrokenError("the upstream switched protocols") from None
    except httptools.HttpParserError:
        raise ResponseBrokenError("the upstream's answer is not HTTP/1") from None
    if seen.complete != 1 or seen.begun != 1 or len(seen.fields) > FIELDS_MAX:
        raise ResponseBrokenError("the upstream's head does not end where it says")
    status = parser.get_status_code()
    version = parser.get_http_version()
    if version not in {"1.1", "1.0"} or not 200 <= status <= 599:
        raise ResponseBrokenError("the upstream's version or status is not one we pass on")
    head = ResponseHead(status=status, start=b"", keep_alive=version == "1.1")
    line_end = raw.index(b"\r\n")
    status_line = b"HTTP/1.1" + raw[8 : line_end + 2]
    if status == REPEAT_STATUS:
        status_line = b"HTTP/1.1 307 Temporary Redirect\r\n"  # a gateway would take it for ours
        head.status = HTTPStatus.TEMPORARY_REDIRECT
    _take_response_fields(head, seen.fields, status_line)
    if request_method == b"HEAD" or status in _BODYLESS:
        head.length, head.chunked = 0, False
    return head


def _take_response_fields(head: ResponseHead, fields: list[tuple[bytes, bytes]], status_line: bytes) -> None:
    passed: list[bytes] = []
    for name, value in fields:
        key = name.lower()
        read = _RESPONSE_READ.get(key)
        if read is not None:
            read(head, value)
            if key not in _RESPONSE_PASSED:
                continue
        elif key.startswith(_OWN_FIELDS):
            continue
        passed.append(name + b": " + value + b"\r\n")
    head.start = status_line + b"".join(_without(passed, head.named) if head.named else passed)


def _read_response_coding(head: ResponseHead, value: bytes) -> None:
    if value.lower() != b"chunked":
        raise ResponseBrokenError("the upstream's transfer coding is not chunked")
    head.chunked = True


def _read_response_length(head: ResponseHead, value: bytes) -> None:
    head.length = int(value)  # llhttp has made sure that it is a number, and the only one


def _read_media_type(head: ResponseHead, value: bytes) -> None:
    kind = value[:17].lower()
    head.event_stream = kind == b"text/event-stream"
    head.json = kind.startswith(b"application/json")


def _read_content_coding(head: ResponseHead, value: bytes) -> None:
    head.encoded = value.lower() != b"identity"


_RESPONSE_PASSED: Final = frozenset({b"content-length", b"content-type", b"content-encoding"})

_RESPONSE_READ: Final[Mapping[bytes, Callable[[ResponseHead, bytes], None]]] = MappingProxyType(
    {
        b"content-length": _read_response_length,
        b"content-type": _read_media_type,
        b"content-encoding": _read_content_coding,
        b"transfer-encoding": _read_response_coding,
        b"connection": _read_connection,
        b"keep-alive": _drop,
        b"proxy-connection": _drop,
        b"proxy-authenticate": _drop,
        b"te": _drop,
        b"trailer": _drop,
        b"upgrade": _drop,
    }
)
"""Fields that are read here; but for those in `_RESPONSE_PASSED` they do not pass."""
