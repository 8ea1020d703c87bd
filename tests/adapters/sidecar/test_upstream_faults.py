"""A model server that fails: its failure is passed on as one, and never as an answer that ended well."""

import asyncio
import json

import pytest
from tests.adapters.sidecar.conftest import EVENT, SSE_HEAD, cut_event, decoded, read_request, request, sending

from aipaging.adapters.sidecar.framing import chunk

CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = chunk(b"data: [DONE]\n\n")


def sending_apart(head: bytes, rest: bytes):
    """Return a script that sends the head, and in a piece of its own the rest."""

    async def script(reader, writer) -> None:
        await read_request(reader)
        for piece in (head, rest):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.05)
        writer.close()

    return script


async def stream(bench) -> tuple[bytes, bool]:
    client = await bench.client()
    client.send(request())
    await client.head()
    return decoded(await client.until_closed())


@pytest.mark.parametrize("then", ["reset", "close"])
async def test_a_stream_that_breaks_off_ends_in_an_error_event(bench, then) -> None:
    bench.upstream.script = sending(SSE_HEAD + chunk(EVENT) * 10, then=then)
    body, ended = await stream(bench)
    assert body.startswith(EVENT * 10)
    assert cut_event(body, "UPSTREAM_BROKEN")
    assert not ended


@pytest.mark.parametrize(
    "head", [SSE_HEAD, b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"], ids=["chunked", "until close"]
)
async def test_a_chat_stream_without_its_end_is_truncated_however_cleanly_it_ends(bench, head) -> None:
    events = EVENT * 3 if b"1.0" in head else chunk(EVENT) * 3 + b"0\r\n\r\n"
    bench.upstream.script = sending(head + events)
    body, ended = await stream(bench)
    assert body.startswith(EVENT * 3)
    assert cut_event(body, "UPSTREAM_BROKEN")
    assert not ended


@pytest.mark.parametrize("events", [chunk(EVENT) * 3 + DONE, chunk(b"data: tick\n\n") * 3], ids=["chat", "other"])
async def test_streams_that_are_whole_end_well(bench, events) -> None:
    bench.upstream.script = sending(SSE_HEAD + events + b"0\r\n\r\n", then="on")
    client = await bench.client()
    client.send(request(target="/v1/responses" if b"tick" in events else "/v1/chat/completions") * 2)
    for _ in range(2):
        assert (await client.response())[0] == 200


MALFORMED = chunk(EVENT) * 2 + chunk(b"data: {no json\n\n") + chunk(EVENT) + DONE + b"0\r\n\r\n"


@pytest.mark.parametrize("at_once", [True, False], ids=["in one piece", "in pieces"])
async def test_an_event_that_is_no_json_breaks_the_stream_before_its_end_is_passed_on(bench, at_once) -> None:
    bench.upstream.script = sending(SSE_HEAD + MALFORMED) if at_once else sending_apart(SSE_HEAD, MALFORMED)
    client = await bench.client()
    client.send(request())
    if at_once:
        status, _, body = await client.response()
        assert (status, json.loads(body)["error"]["code"]) == (502, "UPSTREAM_BROKEN")
        return
    await client.head()
    body, ended = decoded(await client.until_closed())
    assert b"[DONE]" not in body
    assert not ended


@pytest.mark.parametrize("apart", [True, False])
async def test_a_chat_stream_of_a_known_length_without_its_end_is_never_whole(bench, apart) -> None:
    events = EVENT * 3
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(events)
    bench.upstream.script = sending_apart(head, events) if apart else sending(head + events)
    client = await bench.client()
    client.send(request())
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await client.response()


@pytest.mark.parametrize("framing", [b"content-length: 0\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n"])
async def test_a_chat_stream_without_any_event_is_no_answer(bench, framing) -> None:
    bench.upstream.script = sending(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n" + framing)
    client = await bench.client()
    client.send(request())
    answer = await client.until_closed() if b"chunked" in framing else b"%d" % (await client.response())[0]
    assert answer == b"502" or cut_event(decoded(answer.partition(b"\r\n\r\n")[2])[0], "UPSTREAM_BROKEN")


@pytest.mark.parametrize(
    "answer",
    [
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"5\r\nhel",
        CHUNKED + b"5\r\nhello\r\n0\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello",
    ],
)
async def test_other_answers_that_break_off_are_broken_off(bench, answer) -> None:
    bench.upstream.script = sending(answer)
    client = await bench.client()
    client.send(request())
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await client.response()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"\x00\x01\x02\x03garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nhello",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000,
        b"HTTP/1.1 200 OK\r\nx: y\r\n",
        b"",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 20,
        CHUNKED + b"5\r\nhello\r\nzz\r\n",
    ],
)
async def test_what_is_no_answer_becomes_an_error(bench, answer) -> None:
    bench.upstream.script = sending(answer)
    client = await bench.client()
    client.send(request())
    status, _, body = await client.response()
    assert (status, json.loads(body)["error"]["code"]) == (502, "UPSTREAM_BROKEN")
    assert bench.sidecar.path.queue.in_service == 0


@pytest.mark.parametrize(
    "head", [b"429 Too Many Requests\r\nretry-after: 7", b"500 Oops", b"503 Loading", b"400 Bad Request"]
)
async def test_errors_of_the_upstream_pass_as_they_are(bench, head) -> None:
    bench.upstream.script = sending(b"HTTP/1.1 " + head + b"\r\ncontent-length: 4\r\n\r\nwhy?", then="on")
    status, fields, body = await bench.ask(request())
    assert (status, body) == (int(head[:3]), b"why?")
    assert ("retry-after" in fields) == (status == 429)


async def test_bytes_behind_an_answer_never_reach_another_request(bench) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    bench.upstream.script = sending(answer + answer.replace(b"ok", b"no"), then="stall")
    for _ in range(3):
        assert (await bench.ask(request()))[2] == b"ok"
    assert bench.upstream.connections == 4, "such a connection is not used again"


async def test_an_upstream_that_is_not_there(make_bench) -> None:
    bench = await make_bench(url="http://127.0.0.1:1")
    status, _, body = await bench.ask(request())
    assert (status, json.loads(body)["error"]["code"]) == (502, "UPSTREAM_UNREACHABLE")
    assert (await bench.ask(request()))[0] == 502
    assert bench.sidecar.path.queue.in_service == 0


async def test_a_stall_before_and_within_an_answer(make_bench) -> None:
    bench = await make_bench(first_byte_s=1.0, gap_s=0.3)
    bench.upstream.script = sending(b"", then="stall")
    status, _, body = await bench.ask(request())
    assert (status, json.loads(body)["error"]["code"]) == (504, "UPSTREAM_BROKEN")
    bench.upstream.script = sending(SSE_HEAD + chunk(EVENT), then="stall")
    body, ended = await stream(bench)
    assert cut_event(body, "UPSTREAM_BROKEN")
    assert not ended


async def closing_kept_connections(reader, writer) -> None:
    """Answer once, then close as soon as the next request arrives, unanswered."""
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    await reader.read(1)


async def test_a_kept_connection_that_dies_is_replaced_for_what_may_be_repeated(bench) -> None:
    bench.upstream.script = closing_kept_connections
    client = await bench.client()
    for _ in range(4):
        client.send(request("GET", "/v1/models"))
        assert (await client.response())[2] == b"ok"
    assert "3" in await bench.metric("aipaging_anchor_upstream_retries_total")


async def test_what_may_not_be_repeated_is_not(bench) -> None:
    bench.upstream.script = closing_kept_connections
    client = await bench.client()
    statuses = []
    for _ in range(2):
        client.send(request("POST", "/v1/chat/completions"))
        statuses.append((await client.response())[0])
    assert statuses == [200, 502]
    assert bench.upstream.all_bytes.count(b"POST") == 2


async def test_a_connection_that_the_upstream_closed_is_not_written_into(bench) -> None:
    bench.upstream.script = sending(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    client = await bench.client()
    for _ in range(20):
        client.send(request())
        assert (await client.response())[2] == b"ok"


async def test_unused_connections_are_closed_before_the_upstream_does(make_bench) -> None:
    bench = await make_bench(upstream_idle_s=0.0)
    await bench.ask(request())
    while bench.sidecar.path.pool._idle:
        await asyncio.sleep(0.05)
    assert (await bench.ask(request()))[0] == 200
    assert bench.upstream.connections == 3
