"""What must not pass does not pass: nothing of it reaches the upstream, and the answer says why."""

import asyncio
import json

import pytest
from tests.adapters.sidecar.conftest import GATEWAYS, receipt, request, sending, session_id

from aipaging.core.foundation.epoch import Epoch


def code_of(body: bytes) -> str:
    return json.loads(body)["error"]["code"]


async def refused(bench, raw: bytes) -> tuple[int, str]:
    """Send `raw`; return status and code after making sure that the upstream saw nothing."""
    before = bench.upstream.all_bytes
    client = await bench.client()
    client.send(raw)
    status, _, body = await client.response()
    assert bench.upstream.all_bytes == before
    return status, code_of(body)


@pytest.mark.parametrize(
    "commit",
    [
        None,
        "garbage",
        "forged." + receipt().partition(".")[2],
        receipt(anchor="gpu-2"),
        "x" * 5000,
        receipt() + "\u00e9",
        "",
    ],
    ids=["none", "garbage", "forged", "foreign", "long", "not-ascii", "empty"],
)
async def test_without_a_valid_receipt_for_this_anchor_nothing_passes(bench, commit) -> None:
    raw = request(commit=commit) if commit != "" else request(commit=None, extra="x-aipaging-commit:\r\n")
    assert await refused(bench, raw) == (403, "NO_COMMIT")
    assert not bench.controller.asked, "the controller is not asked about what is not signed"


async def test_two_receipts_are_one_too_many(bench) -> None:
    assert (await refused(bench, request(extra=f"x-aipaging-commit: {receipt()}\r\n")))[0] == 400


async def test_a_refused_request_leaves_the_connection_in_step(bench) -> None:
    client = await bench.client()
    client.send(request(commit=None, body=b"GET /smuggled HTTP/1.1\r\n\r\n" * 50) + request(body=b"mine"))
    assert (await client.response())[0] == 403
    assert (await client.response())[2] == b"mine"
    assert b"smuggled" not in bench.upstream.all_bytes


SMUGGLING = {
    "length and coding": "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
    "coding and length": "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    "two lengths": "Content-Length: 4\r\nContent-Length: 4\r\n",
    "two different lengths": "Content-Length: 4\r\nContent-Length: 5\r\n",
    "length list": "Content-Length: 4, 4\r\n",
    "signed length": "Content-Length: +4\r\n",
    "hexadecimal length": "Content-Length: 0x4\r\n",
    "negative length": "Content-Length: -1\r\n",
    "huge length": "Content-Length: 99999999999999999999\r\n",
    "two codings": "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "gzip, chunked": "Transfer-Encoding: gzip, chunked\r\n",
    "chunked, identity": "Transfer-Encoding: chunked, identity\r\n",
    "xchunked": "Transfer-Encoding: xchunked\r\n",
    "tab before colon": "Transfer-Encoding\t: chunked\r\n",
    "space before colon": "Content-Length : 4\r\n",
    "vertical tab": "Transfer-Encoding: \x0bchunked\r\n",
    "folded": "X: a\r\n Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    "bare line feed": "X: a\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    "bare carriage return": "X: a\rTransfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    "nul": "X: a\x00b\r\nContent-Length: 4\r\n",
}


@pytest.mark.parametrize("fields", SMUGGLING.values(), ids=SMUGGLING.keys())
async def test_a_body_whose_end_is_in_doubt_is_refused_and_the_connection_closed(bench, fields) -> None:
    raw = f"POST /v1/x HTTP/1.1\r\nHost: a\r\nx-aipaging-commit: {receipt()}\r\n{fields}\r\n".encode("latin-1")
    client = await bench.client()
    before = bench.upstream.all_bytes
    client.send(raw + b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
    status, answered, _ = await client.response()
    assert status in {400, 501}
    assert answered["connection"] == "close"
    assert await client.until_closed() == b"", "what follows is not read as a request"
    assert bench.upstream.all_bytes == before


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /x HTTP/1.0\r\n\r\n", 505),
        (b"GET /x HTTP/2.0\r\n\r\n", 505),
        (b"GET /x\r\n\r\n", 505),
        (b"GET http://other/x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", 501),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n", 501),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nExpect: a-miracle\r\n\r\n", 417),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET /x HTTP/1.1\r\nX: " + b"x" * 70_000, 431),
    ],
)
async def test_requests_of_a_kind_that_is_not_served(bench, raw, status) -> None:
    before = bench.upstream.all_bytes
    client = await bench.client()
    client.send(raw)
    assert (await client.response())[0] == status
    assert bench.upstream.all_bytes == before
    assert await client.until_closed() == b""


async def test_broken_chunks_of_a_request_end_the_connection_and_the_upstreams(bench) -> None:
    client = await bench.client()
    client.send(request(body=b"5\r\nhello\r\n", extra="Transfer-Encoding: chunked\r\n"))
    while b"hello" not in bench.upstream.all_bytes:
        await asyncio.sleep(0.001)
    client.send(b"5 \nworld\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n")
    assert (await client.response())[0] == 400
    assert await client.until_closed() == b""
    assert b"smuggled" not in bench.upstream.all_bytes
    assert bench.sidecar.path.gate.open_work == 0


async def test_a_large_refused_body_closes_the_connection(bench) -> None:
    client = await bench.client()
    client.send(request(commit=None, body=b"x" * 3_000_000))
    assert (await client.response())[0] == 403
    await client.until_closed()


@pytest.mark.parametrize(
    ("timeouts", "sent"),
    [
        ({"head_s": 0.0}, b"POST /x HTTP/1.1\r\nHost: a\r\n"),
        ({"body_s": 0.0}, request(body=b"0123456789")[:-5]),
        ({"idle_s": 0.0}, b""),
    ],
    ids=["head", "body", "idle"],
)
async def test_who_says_nothing_is_disconnected(make_bench, timeouts, sent) -> None:
    bench = await make_bench(**timeouts)
    client = await bench.client()
    if sent:
        client.send(sent)
    assert b"200" not in await client.until_closed()
    assert bench.sidecar.path.gate.open_work == 0


async def test_the_head_has_one_deadline_however_often_a_byte_comes(make_bench) -> None:
    bench = await make_bench(head_s=0.3)
    client = await bench.client()
    for byte in b"POST /x HTTP/1.1\r\nHost: a\r\nX-Slow: " + b"x" * 200:
        if client.reader.at_eof() or client.writer.transport.is_closing():
            break
        client.send(bytes([byte]))
        await asyncio.sleep(0.02)
    else:
        pytest.fail("a slow-loris kept its connection")
    await client.until_closed()  # with a reset, if a byte was under way


@pytest.mark.parametrize("head", [b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n", request("HEAD", "/x", commit=None)])
async def test_requests_without_a_body_are_refused_too(bench, head) -> None:
    client = await bench.client()
    client.send(head)
    status, _, _ = await client.response(bodyless=head.startswith(b"HEAD"))
    assert status == 403


async def fenced(bench) -> str:
    """Let the sidecar see a second epoch; return the receipt of the first."""
    bench.controller.current[session_id(1)] = Epoch(1, 2)
    assert (await bench.ask(request(commit=receipt(1, n=2))))[0] == 200
    return receipt(1, n=1)


async def test_a_gateway_is_told_to_look_up_again_and_repeat(bench) -> None:
    stale = await fenced(bench)
    before = bench.upstream.all_bytes
    status, fields, body = await bench.ask(request(target="/v1/x?y=1", commit=stale, extra=GATEWAYS))
    assert status == 308
    assert fields["location"] == "https://gateway.example/v1/x?y=1"
    assert fields["x-aipaging-refused"] == "1.1"
    assert json.loads(body)["error"]["code"] == "FENCED"
    assert bench.upstream.all_bytes == before


async def test_what_was_repeated_is_refused_for_good(bench) -> None:
    stale = await fenced(bench)
    status, _, body = await bench.ask(request(commit=stale, extra=GATEWAYS + "x-aipaging-refused: 1.1\r\n"))
    assert status == 409
    assert json.loads(body)["error"]["code"] == "FENCED"


async def test_only_whole_and_short_requests_are_repeated(bench) -> None:
    stale = await fenced(bench)
    client = await bench.client()
    whole = request(commit=stale, body=b"x" * 1000, extra=GATEWAYS)
    client.send(whole[:-10])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await client.reader.readexactly(1)
    client.send(whole[-10:])
    assert (await client.response())[0] == 308
    client.send(request("GET", "/v1/models", commit=receipt(1, n=2)))
    assert (await client.response())[0] == 200, "the connection is in step"
    assert (await bench.ask(request(commit=stale, body=b"x" * 70_000, extra=GATEWAYS)))[0] == 409
    assert (await bench.ask(request(commit=stale, body=b"xx", extra=GATEWAYS + "Expect: 100-continue\r\n")))[0] == 308


async def test_a_model_server_s_308_is_not_taken_for_ours(bench) -> None:
    whole = b"HTTP/1.1 308 Permanent Redirect\r\nlocation: http://elsewhere/\r\nx-aipaging-refused: 1.1\r\n"
    bench.upstream.script = sending(whole + b"content-length: 0\r\n\r\n")
    status, fields, _ = await bench.ask(request())
    assert status == 307
    assert "x-aipaging-refused" not in fields
