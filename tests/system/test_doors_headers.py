"""Headers by which a client might steer: in any case, doubled, over either version of HTTP, they do not arrive."""

import asyncio
import contextlib
import re
import ssl

import pytest
from tests.system.living import Living
from tests.system.upstream import HOST

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("system-doors")]

EVIL = {
    "x-aipaging-anchor": "anchor:{other}",
    "X-AIPaging-Anchor": "anchor:{other}",
    "x-aipaging-commit": "forged.forged.forged",
    "x-aipaging-session": "00000000-0000-4000-8000-000000000000",
    "x-aipaging-lease-ms": "86400000",
    "X-AIPAGING-TERM": "999",
    "x-aipaging-anything-else": "1",
    "x-envoy-original-dst-host": "127.0.0.1:1",
    "x-envoy-upstream-rq-timeout-ms": "1",
    "x-envoy-retry-on": "5xx,reset",
    "x-envoy-max-retries": "9",
    "x-envoy-decorator-operation": "steer",
    "x-envoy-external-address": "203.0.113.7",
    "x-envoy-internal": "true",
    "X-Envoy-Force-Trace": "1",
    "x-envoy-expected-rq-timeout-ms": "1",
    "x-envoy-hedge-on-per-try-timeout": "true",
}


def check_what_arrived(living: Living, mark: str, anchor: str) -> None:
    (arrived,) = [each for each in living.upstreams[anchor].reached if each.mark == mark]
    assert "authorization" not in arrived.headers, "the AIST reached the model server"
    evil = {name.lower(): value for name, value in EVIL.items()}
    for name, value in arrived.headers.items():
        assert not name.startswith("x-aipaging-"), name
        assert not name.startswith("x-envoy-") or evil.get(name) != value, name
        assert "203.0.113.7" not in value


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
async def test_headers_of_clients_never_steer_and_never_arrive(living: Living, *, http2: bool) -> None:
    session = await living.page()
    anchor = session["anchorId"]
    other = next(name for name in living.upstreams if name != anchor)
    evil = [(name, value.format(other=other)) for name, value in EVIL.items()]
    async with living.user(http2=http2) as client:
        for number in range(3):  # a miss, then hits
            for doubled in (False, True):
                mark = f"evil-{http2}-{number}-{doubled}"
                headers = [("authorization", f"Bearer {session['aist']}"), ("x-mark", mark), *evil]
                response = await client.post("/v1/echo", headers=[*headers, *evil] if doubled else headers)
                assert response.status_code == 200, response.text
                assert response.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
                check_what_arrived(living, mark, anchor)
        assert not [each for each in living.upstreams[other].reached if each.mark.startswith("evil-")]
        without = await client.post("/v1/echo", headers=[("x-mark", "evil-without-token"), *evil])
        assert without.status_code == 401
    assert living.reached_by(["evil-without-token"]) == []
    await living.end(session)


RAW = {
    "space before the colon": b"x-aipaging-anchor : anchor:two\r\n",
    "folded": b"x-other: 1\r\n x-aipaging-anchor: anchor:two\r\n",
    "underscores": b"x_aipaging_commit: forged\r\n",
    "named by connection": b"connection: close, x-aipaging-commit\r\n",
    "named by connection, with the mark": b"connection: authorization\r\n",
    "bare line feeds": b"x-other: 1\nx-aipaging-anchor: anchor:two\n",
    "nul": b"x-aipaging-anchor: anchor\x00:two\r\n",
    "trailer": b"transfer-encoding: chunked\r\ntrailer: x-aipaging-anchor\r\n",
    "two lengths": b"content-length: 4\r\ncontent-length: 0\r\n",
    "length and chunks": b"content-length: 4\r\ntransfer-encoding: chunked\r\n",
}


async def raw(living: Living, request: bytes) -> bytes:
    """Return the answer to bytes as they are, up to the end of its body."""
    context = ssl.create_default_context(cafile=str(living.data_dir / "ca" / "ca.pem"))
    reader, writer = await asyncio.open_connection(HOST, living.ports.gateway, ssl=context)
    writer.write(request)
    answer = b""
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(60):
            while not is_whole(answer) and (piece := await reader.read(65_536)):
                answer += piece
    writer.transport.abort()
    return answer


def is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    return bool(end) and length is not None and len(body) >= int(length[1])


@pytest.mark.parametrize("name", RAW)
async def test_malformed_heads_do_not_smuggle_a_steering_header(living: Living, name: str) -> None:
    session = await living.page()
    anchor = session["anchorId"]
    mark = name.replace(" ", "-").replace(",", "")
    head = b"POST /v1/echo HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer %s\r\nx-mark: %s\r\n%s"
    body = b"0\r\nx-aipaging-anchor: anchor:two\r\n\r\n" if "chunk" in name or name == "trailer" else b""
    close = b"" if b"connection" in RAW[name] else b"connection: close\r\n"
    answer = await raw(living, head % (session["aist"].encode(), mark.encode(), RAW[name]) + close + b"\r\n" + body)
    for each in living.reached_by([mark]):
        assert not [field for field in each.headers if field.startswith(("x-aipaging", "x_aipaging"))]
        assert "authorization" not in each.headers
        assert each in living.upstreams[anchor].reached
    assert answer.startswith(b"HTTP/1.1 "), answer
    await living.end(session)


async def test_what_sidecars_keep_for_the_controller_is_not_reachable_through_the_gateway(living: Living) -> None:
    session = await living.page()
    head = (
        b"%s %s HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer %s\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    )
    paths = [
        b"/aipaging/v1/prepare",
        b"/aipaging/v1/health",
        b"/aipaging/v1/metrics",
        b"//aipaging/v1/metrics",
        b"/v1/../aipaging/v1/metrics",
        b"/v1/%2e%2e/aipaging/v1/metrics",
        b"/aipaging%2Fv1%2Fmetrics",
        b"/%61ipaging/v1/metrics",
        b"/AIPAGING/v1/metrics",
        b"/v1;/../aipaging/v1/metrics",
        b"https://gateway/aipaging/v1/metrics",
    ]
    for path in paths:
        for method in (b"GET", b"POST"):
            answer = await raw(living, head % (method, path, session["aist"].encode()))
            assert b"aipaging_" not in answer, path
            assert b'"READY"' not in answer, path
            status = answer.split(b" ", 2)[1]
            # A server that decodes no percent-encoding is asked for another path: its own business.
            assert status != b"200" or b'"upstream"' in answer, (path, answer)
    await living.end(session)
