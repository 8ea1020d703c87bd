"""Framers pass on every byte of a body, find its end, and take nothing that could be read in two ways."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipaging.adapters.sidecar.framing import (
    CHUNK_LINE_BYTES_MAX,
    TRAILER_BYTES_MAX,
    ChunkedFramer,
    FramingError,
    LengthFramer,
    UntilCloseFramer,
    chunk,
)


def pieces_of(whole: bytes, cuts: list[int]) -> list[bytes]:
    """Cut `whole` at these places (taken modulo its length)."""
    places = sorted({cut % (len(whole) + 1) for cut in cuts} | {0, len(whole)})
    return [whole[a:b] for a, b in itertools.pairwise(places)] or [b""]


def dechunked(wire: bytes) -> tuple[bytes, bool]:
    """Decode by another way than the framer's: return the body so far and whether it ended."""
    body, position = b"", 0
    while True:
        line_end = wire.find(b"\r\n", position)
        if line_end < 0:
            return body, False
        size = int(wire[position:line_end].partition(b";")[0], 16)
        if not size:
            return body, True
        body += wire[line_end + 2 : line_end + 2 + size]
        position = line_end + 2 + size + 2


bodies = st.lists(st.binary(min_size=1, max_size=80), max_size=8)
cuts = st.lists(st.integers(0, 10_000), max_size=30)
trailers = st.sampled_from([b"", b"X-Sum: 1\r\n", b"A: b\r\nC: d\r\n"])


@given(chunks=bodies, cuts=cuts, trailer=trailers, rest=st.binary(max_size=20))
def test_a_chunked_body_passes_unchanged_however_it_arrives(chunks, cuts, trailer, rest) -> None:
    wire = b"".join(map(chunk, chunks)) + b"0\r\n" + trailer + b"\r\n"
    tapped: list[bytes] = []
    framer = ChunkedFramer(tapped.append)
    out = b""
    for piece in pieces_of(wire + rest, cuts):
        if framer.done:
            framer.rest += piece
        else:
            out += framer.feed(piece)
    assert framer.done
    assert out + framer.terminator == wire
    assert framer.rest == rest
    assert b"".join(tapped) == b"".join(chunks)


@given(chunks=bodies, cuts=cuts, stop=st.integers(0, 400), text=st.binary(min_size=1, max_size=200))
def test_a_text_can_be_put_into_a_chunked_body_wherever_it_stands(chunks, cuts, stop, text) -> None:
    wire = b"".join(map(chunk, chunks))
    framer = ChunkedFramer()
    out = b"".join(framer.feed(piece) for piece in pieces_of(wire[:stop], cuts))
    got, ended = dechunked(out + (framer.injected(text) or b""))
    assert not ended
    assert got == dechunked(out)[0] + text


@given(length=st.integers(0, 300), rest=st.binary(max_size=20), cuts=cuts)
def test_a_counted_body_passes_unchanged(length, rest, cuts) -> None:
    body = bytes(range(256)) * 2
    wire = body[:length]
    framer = LengthFramer(length)
    out = b""
    for piece in pieces_of(wire + rest, cuts):
        if framer.done:
            framer.rest += piece
        else:
            out += framer.feed(piece)
    assert (out, framer.rest, framer.done) == (wire, rest, True)
    assert framer.injected(b"x") is None, "one byte more would pass for the body's own"


@given(pieces=st.lists(st.binary(max_size=50), max_size=8))
def test_a_body_until_close_gets_chunks_of_its_own(pieces) -> None:
    framer = UntilCloseFramer()
    out = b"".join(map(framer.feed, pieces))
    assert dechunked(out + framer.terminator) == (b"".join(pieces), True)


def test_a_whole_piece_is_not_copied() -> None:
    piece = chunk(b"x" * 1000) * 3
    assert ChunkedFramer().feed(piece) is piece
    assert LengthFramer(10_000).feed(piece) is piece


@pytest.mark.parametrize(
    "wire",
    [
        b"-1\r\n",
        b"+5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"5_0\r\nhello\r\n",
        b"\r\n5\r\nhello\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"5\r\nhello\n\n0\r\n\r\n",
        b"5;a=\x01b\r\nhello\r\n",
        b"5;a\nb\r\nhello\r\n",
        b"ffffffffffffffff1\r\n",
        b"5" + b";" + b"a" * CHUNK_LINE_BYTES_MAX,
        b"0\r\n" + b"A: " + b"b" * TRAILER_BYTES_MAX + b"\r\n",
    ],
)
def test_doubtful_chunks_are_refused(wire) -> None:
    with pytest.raises(FramingError):
        ChunkedFramer().feed(wire)
    framer = ChunkedFramer()
    with pytest.raises(FramingError):
        _ = [framer.feed(bytes([byte])) for byte in wire]
