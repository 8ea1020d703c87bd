"""Whether a stream of chat completions is whole, however its bytes arrive."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipaging.adapters.sidecar.event_stream import EVENT_BYTES_MAX, EventStreamWatch, ends_with_done

CHUNK = b'data: {"object":"chat.completion.chunk","choices":[]}\n\n'


def watched(stream: bytes, step: int) -> EventStreamWatch:
    watch = EventStreamWatch()
    for start in range(0, len(stream), step):
        watch.see(stream[start : start + step])
    return watch


@given(step=st.integers(1, 80))
@pytest.mark.parametrize(
    ("stream", "truncated"),
    [
        (CHUNK * 3 + b"data: [DONE]\n\n", False),
        (CHUNK * 3 + b"data:[DONE]\r\n\r\n", False),
        (b": hello\n\n" + CHUNK + b"data: [DONE]\n\n: bye\n\n", False),
        (CHUNK * 3, True),
        (CHUNK * 3 + b"data: [DO", True),
        (CHUNK + b'data: {"content":"data: [DONE]"}\n\n', True),
        (b"data: tick\n\n" * 3, False),
        (b"", False),
    ],
)
def test_only_a_chat_stream_has_to_say_that_it_is_done(stream, truncated, step) -> None:
    assert watched(stream, step).truncated is truncated


@pytest.mark.parametrize(
    ("stream", "separator"),
    [(b"", b""), (b"data: a\n\n", b""), (b"data: a\r\n\r\n", b""), (b"data: a\n", b"\n\n"), (b"data: a", b"\n\n")],
)
def test_an_unfinished_event_is_closed_before_another(stream, separator) -> None:
    assert watched(stream, 3).separator == separator


@given(step=st.integers(1, 80))
@pytest.mark.parametrize(
    ("stream", "malformed"),
    [
        (CHUNK * 3 + b"data: [DONE]\n\n", False),
        (CHUNK + b"data: {\n\n" + CHUNK, True),
        (CHUNK + b": comment\n\nevent: x\ndata:\n\n" + CHUNK, False),
        (CHUNK + b'data: {"a":\r\ndata: 1}\r\n\r\n', False),
        (CHUNK + b"data: \xff\xfe\n\n", True),
        (CHUNK + b"data: [DONE]\n\ndata: behind the end\n\n", False),
        (b"data: tick\n\n" * 3, False),
    ],
)
def test_every_event_of_a_chat_stream_is_json(stream, malformed, step) -> None:
    assert watched(stream, step).malformed is malformed


def test_an_event_too_long_to_hold_passes_unchecked() -> None:
    watch = watched(CHUNK + b"data: {" + b"x" * EVENT_BYTES_MAX, 65_536)
    assert not watch.malformed
    assert len(watch._line) <= EVENT_BYTES_MAX


@pytest.mark.parametrize(
    ("target", "ends"),
    [
        (b"/v1/chat/completions", True),
        (b"/v1/chat/completions?x=y", True),
        (b"/v1/completions", True),
        (b"/v1/responses", False),
        (b"/v1/responses?x=/completions", False),
    ],
)
def test_what_was_asked_for_tells_how_a_stream_ends(target, ends) -> None:
    assert ends_with_done(target) is ends
    assert EventStreamWatch(is_chat=ends_with_done(target)).truncated is ends
