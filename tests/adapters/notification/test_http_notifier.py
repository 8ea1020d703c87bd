"""One notification over real sockets: hostile sinks, checked addresses, signatures that receivers verify."""

import asyncio
import ipaddress
import re
from base64 import b64decode, urlsafe_b64decode
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from aipaging.adapters.notification import http as http_module
from aipaging.adapters.notification.address import Network, SinkForbiddenError, resolved, sink_url
from aipaging.adapters.notification.http import HttpNotifier
from aipaging.adapters.signing.message_key import MessageKey
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.ports.notification import Destination, Taken

LOOPBACK: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"),)
BODY = b'{"specversion":"1.0","id":"1-00000000"}'
Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(behaviour: Behaviour) -> AsyncGenerator[int, None]:
    server = await asyncio.start_server(behaviour, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def request_of(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
    return head[0], headers, await reader.readexactly(int(headers["content-length"]))


def answering(answer: bytes) -> Behaviour:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(answer)
        await writer.drain()
        writer.close()

    return behave


@pytest.fixture
async def notifier(tmp_path: Path) -> AsyncIterator[HttpNotifier]:
    notifier = HttpNotifier(MessageKey.open(tmp_path / "keys"), clock_s=lambda: 1_700_000_000.0, allowed=LOOPBACK)
    yield notifier
    await notifier.close()


async def posted(notifier: HttpNotifier, behaviour: Behaviour, token: str = "") -> Taken:
    async with serving(behaviour) as port:
        url = f"http://127.0.0.1:{port}/hook?a=1"
        return await notifier.post(Destination(key="sink:x", tenant="", url=url, token=token), BODY)


def verify(line: str, headers: dict[str, str], body: bytes, jwk: dict[str, str]) -> None:
    """Verify as a receiver would, by RFC 9421 and RFC 9530 alone; raises if anything does not fit."""
    assert headers["content-digest"] == f"sha-256=:{__import__('base64').b64encode(sha256(body).digest()).decode()}:"
    parameters = headers["signature-input"].removeprefix("aipaging=")
    assert f'keyid="{jwk["kid"]}"' in parameters
    method, target, _ = line.split(" ")
    values = {"@method": method, "@target-uri": f"http://{headers['host']}{target}", **headers}
    covered = re.findall(r'"([^"]+)"', parameters[: parameters.index(")")])
    assert {"@method", "@target-uri", "content-digest"} <= set(covered)
    base = "\n".join([*(f'"{name}": {values[name]}' for name in covered), f'"@signature-params": {parameters}'])
    signature = b64decode(headers["signature"].removeprefix("aipaging=:").rstrip(":"))
    key = Ed25519PublicKey.from_public_bytes(urlsafe_b64decode(jwk["x"] + "=="))
    key.verify(signature, base.encode())


async def test_a_receiver_verifies_what_it_gets_and_nothing_else(tmp_path: Path, notifier: HttpNotifier) -> None:
    seen: list[tuple[str, dict[str, str], bytes]] = []

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await request_of(reader))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    assert await posted(notifier, behave, token="sink-token") == Taken(status=204)
    line, headers, body = seen[0]
    jwk = MessageKey.open(tmp_path / "keys").public_jwk()
    assert body == BODY
    assert headers["authorization"] == "Bearer sink-token"
    assert headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert "created=1700000000" in headers["signature-input"]
    verify(line, headers, body, jwk)
    for change in (
        (line.replace("POST", "PUT"), headers, body),
        (line.replace("a=1", "a=2"), headers, body),
        (line, {**headers, "host": "other.example"}, body),
        (line, headers, body + b" "),
        (line, {**headers, "signature-input": headers["signature-input"].replace("17", "18", 1)}, body),
    ):
        with pytest.raises((InvalidSignature, AssertionError)):
            verify(*change, jwk)


@pytest.mark.parametrize(
    ("answer", "taken"),
    [
        (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\n\r\n", Taken(status=302, final=True)),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", Taken(status=404, final=True)),
        (b"HTTP/1.1 410 Gone\r\n\r\n", Taken(status=410, final=True)),
        (b"HTTP/1.1 500 Oh\r\n\r\n", Taken(status=500)),
        (b"HTTP/1.1 429 Slow\r\nretry-after: 7\r\n\r\n", Taken(status=429, retry_after_s=7.0)),
        (b"HTTP/1.1 503 Later\r\nretry-after: 999999\r\n\r\n", Taken(status=503, retry_after_s=60.0)),
        (b"HTTP/1.1 503 Later\r\nretry-after: Wed, 21 Oct\r\n\r\n", Taken(status=503)),
        (b"\x00\x01 what is this\r\n\r\n", Taken(reason="BAD_ANSWER")),
        (b"", Taken(reason="BAD_ANSWER")),
    ],
)
async def test_what_a_sink_answers_becomes_one_of_three_outcomes(
    notifier: HttpNotifier, answer: bytes, taken: Taken
) -> None:
    assert await posted(notifier, answering(answer)) == taken


async def test_a_huge_answer_is_not_read(notifier: HttpNotifier) -> None:
    sent = 0

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000000\r\n\r\n")
        try:
            while sent < 500_000_000:
                writer.write(bytes(65_536))
                await writer.drain()
                sent += 65_536
        except OSError:
            pass

    assert await posted(notifier, behave) == Taken(status=200)
    assert sent < 50_000_000


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 200 OK\r\nx: "])
async def test_a_sink_that_hangs_or_trickles_is_left(
    notifier: HttpNotifier, monkeypatch: pytest.MonkeyPatch, says: bytes
) -> None:
    monkeypatch.setattr(http_module, "ATTEMPT_S_MAX", 0.2)
    done = asyncio.Event()

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        while says and not done.is_set():
            writer.write(b"x")
            await asyncio.sleep(0.01)
        await done.wait()
        writer.close()

    try:
        assert await posted(notifier, behave) == Taken(reason="TIMEOUT")
    finally:
        done.set()


async def test_nobody_there_is_tried_again(notifier: HttpNotifier) -> None:
    async with serving(answering(b"")) as port:
        pass
    taken = await notifier.post(Destination(key="x", tenant="", url=f"http://127.0.0.1:{port}/"), BODY)
    assert taken == Taken(reason="UNREACHABLE")


FORBIDDEN = (
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "[::1]", "[::]", "[fe80::1]", "[fd00::1]", "[::ffff:10.0.0.1]", "[64:ff9b::a00:1]", "[2002:a00:1::]",
    "255.255.255.255",
)  # fmt: skip


@pytest.mark.parametrize("host", FORBIDDEN)
def test_private_addresses_are_not_called(host: str) -> None:
    with pytest.raises(SinkForbiddenError):
        sink_url(f"https://{host}/")


@pytest.mark.parametrize(
    "url",
    [
        "http://events.example/", "ftp://events.example/", "https://", "https://u:p@events.example/", "events.example",
        "https://events.example/#x", "https://events.example/\n", "https://ev ents.example/", "https://e.example:99999/",
        "https://" + "a" * 3000,
    ],
)  # fmt: skip
def test_only_https_urls_are_sinks(url: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        sink_url(url)
    assert raised.value.code == "INVALID_SINK"


async def test_a_name_is_checked_where_it_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    """One private address among public ones is enough: the resolver's order is not ours."""
    answers: dict[str, list[str]] = {"mixed": ["8.8.8.8", "10.0.0.1"], "public": ["8.8.8.8"], "local": ["127.0.0.1"]}

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        return [(2, 1, 6, "", (address, port)) for address in answers[host]]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo, raising=False)
    for host in ("mixed", "local"):
        with pytest.raises(SinkForbiddenError):
            await resolved(sink_url(f"https://{host}/"))
    assert str(await resolved(sink_url("https://public/"))) == "8.8.8.8"


async def test_a_name_that_turns_private_after_it_was_taken_is_a_dead_letter(tmp_path: Path) -> None:
    notifier = HttpNotifier(MessageKey.open(tmp_path / "keys"), clock_s=lambda: 0.0)
    taken = await notifier.post(Destination(key="x", tenant="", url="https://localhost/"), BODY)
    assert taken == Taken(reason="ADDRESS_FORBIDDEN", final=True)
    await notifier.close()


def test_the_key_stays_and_is_its_owners(tmp_path: Path) -> None:
    first = MessageKey.open(tmp_path / "keys")
    assert MessageKey.open(tmp_path / "keys").public_jwk() == first.public_jwk()
    assert (tmp_path / "keys" / "notifications.pem").stat().st_mode & 0o777 == 0o600
    assert "d" not in first.public_jwk()
