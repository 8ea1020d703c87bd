"""What goes in comes out, byte for byte, watched from outside on real sockets."""

import asyncio
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.adapters.sidecar.conftest import AIST, answer_ok, read_request, receipt, request, sending

from aipaging.adapters.sidecar.framing import chunk

BLOB = random.Random(7).randbytes(3 * 1024 * 1024)


async def test_a_request_and_its_answer(bench) -> None:
    status, fields, body = await bench.ask(
        request(body=b'{"a": 1}', extra="X-Request-Id: 7\r\nX-Dup: 1\r\nX-Dup: 2\r\n")
    )
    assert (status, body) == (200, b'{"a": 1}')
    assert fields["content-type"] == "text/plain"
    queue, inference = fields["server-timing"].split(", ")
    assert queue.startswith("queue;dur=")
    assert inference.startswith("inference;dur=")
    seen = bench.upstream.seen[-1]
    assert seen.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert b"X-Request-Id: 7\r\nX-Dup: 1\r\nX-Dup: 2\r\n" in seen


async def test_neither_token_nor_receipt_reaches_the_upstream_or_the_log(bench) -> None:
    gateways = "X-Forwarded-For: 10.1.2.3\r\nX-Envoy-External-Address: 10.1.2.3\r\nForwarded: for=10.1.2.3\r\n"
    gateways += "x-forwarded-proto: https\r\n"
    await bench.ask(
        request(body=b"secret prompt", extra="X-AIPaging-Anchor: x\r\nProxy-Authorization: p\r\n" + gateways)
    )
    assert b"10.1.2.3" not in bench.upstream.all_bytes
    assert b"forwarded" not in bench.upstream.all_bytes.lower()
    assert b"envoy" not in bench.upstream.all_bytes.lower()
    await bench.ask(request(commit="receipt.forged-material"))
    seen, log = bench.upstream.all_bytes.lower(), "".join(bench.log_lines)
    for secret in ("authorization", AIST[7:], "x-aipaging", receipt()):
        assert secret.lower().encode() not in seen
    for secret in (AIST[7:], "secret prompt", receipt(), "forged-material"):
        assert secret not in log


async def test_the_operators_own_key_and_prefix_are_added(make_bench) -> None:
    bench = await make_bench(prefix="/base/", authorization="Bearer hosted-key")
    await bench.ask(request(target="/v1/models?x=1", body=b""))
    seen = bench.upstream.seen[-1]
    assert seen.startswith(b"POST /base/v1/models?x=1 HTTP/1.1\r\n")
    assert seen.count(b"authorization: Bearer hosted-key\r\n") == 1
    assert "hosted-key" not in "".join(bench.log_lines)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_bodies_pass_unchanged_however_they_are_cut(bench, data) -> None:
    up = [data.draw(st.binary(min_size=1, max_size=2000)) for _ in range(data.draw(st.integers(0, 5)))]
    down = [data.draw(st.binary(min_size=1, max_size=2000)) for _ in range(data.draw(st.integers(0, 5)))]
    chunked = data.draw(st.booleans())
    got: list[bytes] = []
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"".join(map(chunk, down)) + b"0\r\n\r\n"
    step = data.draw(st.integers(1, len(answer)))

    async def script(reader, writer) -> None:
        got.append((await read_request(reader))[1])
        for start in range(0, len(answer), step):
            writer.write(answer[start : start + step])
            await asyncio.sleep(0)
        writer.close()  # the next example has a script of its own
        await writer.wait_closed()

    bench.upstream.script = script
    framing = "Transfer-Encoding: chunked\r\n" if chunked else ""
    body = b"".join(map(chunk, up)) + b"0\r\n\r\n" if chunked else b"".join(up)
    raw = request(body=body, extra=framing)
    client = await bench.client()
    cut = data.draw(st.integers(1, len(raw)))
    for start in range(0, len(raw), cut) if len(raw) / cut < 50 else [0]:
        client.send(raw[start : start + cut] if len(raw) / cut < 50 else raw)
        await asyncio.sleep(0)
    status, _, body_back = await client.response()
    assert (status, body_back) == (200, b"".join(down))
    assert got == [b"".join(up)]


@pytest.mark.parametrize("chunked", [False, True])
async def test_large_bodies_pass_both_ways(bench, chunked) -> None:
    body = (
        b"".join(chunk(BLOB[i : i + 50_000]) for i in range(0, len(BLOB), 50_000)) + b"0\r\n\r\n" if chunked else BLOB
    )
    raw = request(body=body, extra="Transfer-Encoding: chunked\r\n" if chunked else "")
    status, _, back = await bench.ask(raw)
    assert status == 200
    assert back == BLOB


async def test_a_slow_reader_holds_the_upstream_back(bench) -> None:
    sent = 0

    async def script(reader, writer) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (24 * 1024 * 1024))
        piece = bytes(64 * 1024)
        for _ in range(384):
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
        await reader.read()

    bench.upstream.script = script
    client = await bench.client()
    client.send(request())
    await client.head()
    client.writer.transport.pause_reading()
    former = -1
    while sent != former:  # until nothing moves any more
        former = sent
        await asyncio.sleep(0.1)
    assert sent < 16 * 1024 * 1024, "the sidecar must not gather what nobody reads"
    client.writer.transport.resume_reading()
    total = 0
    while total < 24 * 1024 * 1024:
        total += len(await client.reader.read(1 << 20))
    assert total == 24 * 1024 * 1024


async def test_a_slow_upstream_holds_the_client_back(bench) -> None:
    go_on = asyncio.Event()

    async def script(reader, writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()
        await go_on.wait()
        writer.transport.resume_reading()
        total = 0
        while total < 24 * 1024 * 1024:
            total += len(await reader.read(1 << 20))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await reader.read()

    bench.upstream.script = script
    client = await bench.client()
    client.send(request(body=b"", extra="").replace(b"Content-Length: 0", b"Content-Length: %d" % (24 * 1024 * 1024)))
    piece, left = bytes(64 * 1024), 384
    while left and client.writer.transport.get_write_buffer_size() < 4 * 1024 * 1024:
        client.send(piece)
        left -= 1
        await asyncio.sleep(0)
    assert left, "the whole body was swallowed while nobody took it"
    go_on.set()
    client.send(piece * left)
    assert (await client.response())[2] == b"ok"


async def test_pipelined_requests_are_answered_in_order(bench) -> None:
    client = await bench.client()
    client.send(b"".join(request(body=b"number %d" % n) for n in range(40)))
    for n in range(40):
        assert (await client.response())[2] == b"number %d" % n
    assert bench.upstream.connections == 2, "one for the health probe, one for all requests"


async def test_events_arrive_one_by_one_and_untouched(bench) -> None:
    events = [b'data: {"n":%d}\n\n' % n for n in range(5)]
    go_on = asyncio.Event()

    async def script(reader, writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for event in events:
            writer.write(chunk(event))
            await go_on.wait()
            go_on.clear()
        writer.write(b"0\r\n\r\n")
        await reader.read()

    bench.upstream.script = script
    client = await bench.client()
    client.send(request(target="/v1/events"))
    status, fields = await client.head()
    assert (status, fields["content-type"]) == (200, "text/event-stream")
    for event in events:
        assert await client.reader.readexactly(len(chunk(event))) == chunk(event)
        go_on.set()
    assert await client.reader.readexactly(5) == b"0\r\n\r\n"


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_answers_without_a_body_keep_the_connection_in_step(bench, status) -> None:
    bench.upstream.script = sending(b"HTTP/1.1 " + status + b"\r\netag: x\r\n\r\n", then="on")
    client = await bench.client()
    for _ in range(2):
        client.send(request("GET", "/x"))
        assert (await client.response())[0] == int(status[:3])


async def test_head_has_no_body_whatever_its_length_says(bench) -> None:
    bench.upstream.script = sending(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n", then="on")
    client = await bench.client()
    for _ in range(2):
        client.send(request("HEAD", "/x"))
        status, fields, _ = await client.response(bodyless=True)
        assert (status, fields["content-length"]) == (200, "500")


async def test_continue_is_said_when_the_request_is_admitted(bench) -> None:
    client = await bench.client()
    whole = request(body=b"late body", extra="Expect: 100-continue\r\n")
    client.send(whole[: -len(b"late body")])
    assert (await client.head())[0] == 100
    client.send(b"late body")
    assert (await client.response())[2] == b"late body"
    assert b"expect" not in bench.upstream.all_bytes.lower()


async def test_continue_is_not_said_to_who_is_refused(bench) -> None:
    client = await bench.client()
    client.send(request(commit=None, body=b"0123456789", extra="Expect: 100-continue\r\n")[:-10])
    assert (await client.response())[0] == 403
    assert await client.until_closed() == b"", "nobody can tell what would come next"


async def test_interim_answers_of_the_upstream_are_not_passed_on(bench) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    bench.upstream.script = sending(interim + b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", then="on")
    status, fields, body = await bench.ask(request())
    assert (status, body) == (200, b"ok")
    assert "link" not in fields


async def test_a_body_until_close_is_told_from_a_cut(bench) -> None:
    bench.upstream.script = sending(b"HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\nto the end")
    status, fields, body = await bench.ask(request())
    assert (status, body, fields["transfer-encoding"]) == (200, b"to the end", "chunked")


async def test_trailers_of_an_answer_pass_and_those_of_a_request_do_not(bench) -> None:
    bench.upstream.script = sending(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n", then="on"
    )
    client = await bench.client()
    client.send(request(body=b"2\r\nhi\r\n0\r\nauthorization: x\r\n\r\n", extra="Transfer-Encoding: chunked\r\n"))
    await client.head()
    assert await client.reader.readexactly(22) == b"2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n"
    assert b"authorization" not in bench.upstream.all_bytes


async def test_connection_fields_do_not_pass_in_either_direction(bench) -> None:
    bench.upstream.script = sending(
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nkeep-alive: timeout=5\r\nconnection: x-hop\r\nx-hop: 1\r\n"
        b"x-aipaging-anchor: liar\r\n\r\nok",
        then="on",
    )
    _, fields, _ = await bench.ask(request(extra="Connection: keep-alive, X-Named\r\nX-Named: 1\r\nTE: trailers\r\n"))
    assert not {"keep-alive", "connection", "x-hop", "x-aipaging-anchor"} & fields.keys()
    seen = bench.upstream.seen[-1].lower()
    assert not any(name in seen for name in (b"x-named", b"connection:", b"te:"))


async def test_a_client_that_closes_after_the_answer_is_told_so(bench) -> None:
    client = await bench.client()
    client.send(request(extra="Connection: close\r\n"))
    _, fields, _ = await client.response()
    assert fields["connection"] == "close"
    assert await client.until_closed() == b""


async def test_an_early_answer_passes_and_the_connection_stays_in_step(bench) -> None:
    async def script(reader, writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
        await reader.read()

    bench.upstream.script = script
    client = await bench.client()
    whole = request(body=b"x" * 1000)
    client.send(whole[:-500])
    assert (await client.response())[0] == 413
    bench.upstream.script = answer_ok
    client.send(whole[-500:] + request(body=b"next"))
    assert (await client.response())[2] == b"next"


async def test_a_client_that_leaves_takes_its_request_with_it(bench) -> None:
    there, gone = asyncio.Event(), asyncio.Event()

    async def script(reader, writer) -> None:
        await read_request(reader)
        there.set()
        await reader.read()
        gone.set()

    bench.upstream.script = script
    client = await bench.client()
    client.send(request())
    await there.wait()  # a client that left earlier would have nothing to take with it
    client.close()
    await gone.wait()
    assert bench.sidecar.path.queue.in_service == 0
    assert bench.sidecar.path.gate.open_work == 0
