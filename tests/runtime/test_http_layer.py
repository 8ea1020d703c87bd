"""The HTTP layer itself: bodies that never end, routes, log lines."""

import asyncio
import enum
import json
import logging
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
import pytest

from aipaging.core.foundation.errors import AipagingError, InvalidInputError, RefusedError, UnavailableError, Who
from aipaging.runtime.http import exchange
from aipaging.runtime.http.documents import decoded, refuse_repetition
from aipaging.runtime.http.exchange import Answer, Request, integer_of, json_answer
from aipaging.runtime.http.faults import code_of, status_of
from aipaging.runtime.http.routing import HttpApp, Route
from aipaging.runtime.json_log import JsonFormatter


async def echoed(request: Request) -> Answer:
    return json_answer({**request.parameters, "body": (await request.body()).decode()})


async def raising(_request: Request) -> Answer:
    raise AipagingError("the ledger lost count", code="LEDGER_BROKEN", who=Who.BUG)


def app() -> HttpApp:
    return HttpApp(
        [
            Route(method="POST", path="/things/{thing}", name="echo", handler=echoed),
            Route(method="POST", path="/files/{rest*}", name="files", handler=echoed),
            Route(method="GET", path="/broken", name="broken", handler=raising),
        ]
    )


async def call(path: str, messages: Iterator[dict[str, Any]] | None = None, method: str = "POST") -> tuple[int, Any]:
    """Return (status, decoded body)."""
    given = messages or iter([{"type": "http.request", "body": b"x"}])
    said: list[Any] = []

    async def receive() -> Any:
        message = next(given, None)
        if message is None:
            await asyncio.Event().wait()
        return message

    async def send(message: Any) -> None:
        said.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": b""}
    await app()(scope, receive, send)
    return said[0]["status"], json.loads(said[1]["body"])


async def test_parameters_of_a_path() -> None:
    assert await call("/things/a") == (200, {"thing": "a", "body": "x"})
    assert (await call("/things/a/b"))[0] == 404
    assert (await call("/things/"))[0] == 404
    assert (await call("/files/a/b.c"))[1]["rest"] == "a/b.c"
    assert (await call("/files/"))[0] == 404


async def test_a_body_comes_in_pieces() -> None:
    pieces = [{"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.request", "body": b"b"}]
    assert (await call("/things/a", iter(pieces)))[1]["body"] == "ab"


async def test_a_body_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "BODY_S_MAX", 0.01)
    status, fault = await call("/things/a", iter([{"type": "http.request", "body": b"a", "more_body": True}]))
    assert (status, fault["code"]) == (408, "AI_PAGING.REQUEST_TIMEOUT")


async def test_a_client_that_goes_away_is_no_bug() -> None:
    status, fault = await call("/things/a", iter([{"type": "http.disconnect"}]))
    assert (status, fault["code"]) == (409, "ABORTED")


async def test_an_error_that_is_ours_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    status, fault = await call("/broken", method="GET")
    assert (status, fault["code"], fault["who"]) == (500, "INTERNAL", "bug")
    assert "ledger" not in str(fault)
    assert any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidInputError("x", code="SOMETHING_ODD"), 400, "AI_PAGING.SOMETHING_ODD"),
        (RefusedError("x", code="SOMETHING_ELSE"), 409, "AI_PAGING.SOMETHING_ELSE"),
        (UnavailableError("x", code="JOURNAL_LOCKED"), 503, "AI_PAGING.JOURNAL_LOCKED"),
        (UnavailableError("x"), 503, "UNAVAILABLE"),
        (AipagingError("x", code="PEER_ODD", who=Who.PARTNER), 502, "AI_PAGING.PEER_ODD"),
        (AipagingError("x", code="KEY_UNREADABLE", who=Who.OPERATOR), 503, "AI_PAGING.KEY_UNREADABLE"),
    ],
)
def test_every_error_has_a_status(error: AipagingError, status: int, code: str) -> None:
    assert (status_of(error), code_of(error)) == (status, code)


@pytest.mark.parametrize("text", ["", "x", "1.5", "-1", "٣", "9" * 30])
def test_what_is_no_integer(text: str) -> None:
    with pytest.raises(InvalidInputError, match="an integer from 0 to 9 is expected"):
        integer_of(text, field="page", low=0, high=9)


def test_a_log_line_is_a_json_object() -> None:
    record = logging.makeLogRecord(
        {"name": "aipaging.http", "levelname": "INFO", "msg": "answered %d", "args": (3,), "correlator": "c\n1"}
    )
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert {"logger": "aipaging.http", "message": "answered 3", "correlator": "c\n1"}.items() <= json.loads(
        line
    ).items()


def test_a_log_line_holds_the_traceback() -> None:
    try:
        int("odd")
    except ValueError as error:
        record = logging.makeLogRecord({"msg": "bug", "exc_info": (type(error), error, error.__traceback__)})
    assert "ValueError: invalid literal" in json.loads(JsonFormatter().format(record))["error"]


class Colour(enum.Enum):
    RED = "RED"
    BLUE = "BLUE"


class Wall(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    main_colour: Colour | None = None
    size: Literal["large", "small"] = "small"
    others: list[Annotated[Colour, msgspec.Meta(description="More.")]] = []


class House(msgspec.Struct):
    walls: dict[str, Wall]


@pytest.mark.parametrize(
    ("raw", "field", "words"),
    [
        (b'{"walls": {"north": {"mainColour": "red"}}}', "walls[...].mainColour", "RED, BLUE"),
        (b'{"walls": {"north": {"size": "huge"}}}', "walls[...].size", "large, small"),
        (b'{"walls": {"north": {"others": ["RED", "GREEN"]}}}', "walls[...].others[1]", "RED, BLUE"),
    ],
)
def test_a_word_that_is_not_allowed_is_answered_with_those_that_are(raw: bytes, field: str, words: str) -> None:
    with pytest.raises(InvalidInputError, match=f"expected one of {words}") as error:
        decoded(msgspec.json.Decoder(House), raw)
    assert error.value.field == field


@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        b'[1, "a"]',
        b'{"a": {"b": 1}, "c": [{"b": 1}, {"b": 2}], "b": 3}',
        b'{"text": "she said \\"a\\": yes", "a": 1}',
        b'{"a": "a", "b": "a:"}',
    ],
)
def test_what_is_said_once(raw: bytes) -> None:
    refuse_repetition(raw)


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b'{"delayMs": 250, "delayMs": 25000}', "delayMs"),
        (b'{"intent": {"task": "a", "place" : "b", "task": "c"}}', "task"),
        (b'{"a": [{"b": 1, "b": 2}]}', "b"),
        (b'{"delayMs": 250, "delay\\u004ds": 25000}', "delayMs"),
        (b'{"":1,"":2}', ""),
    ],
)
def test_what_is_said_twice_is_refused(raw: bytes, field: str) -> None:
    with pytest.raises(InvalidInputError, match="stands 2 times") as error:
        refuse_repetition(raw)
    assert error.value.field == field
