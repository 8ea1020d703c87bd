"""Whether a stream of chat completions is whole, however its bytes arrive."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipaging.adapters.sidecar.event_stream import EventStreamWatch

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
