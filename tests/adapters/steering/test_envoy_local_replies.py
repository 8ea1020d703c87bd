"""What clients read when Envoy itself answers: a code and a sentence in JSON, and nothing of what lies behind it."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio

from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import AnchorId, SessionId
from aipaging.core.steering.grant import AnchorEndpoint
from aipaging.testing.envoy_rig import EnvoyRig, Extras, envoy_rig
from aipaging.testing.recording_anchor import HOST

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

MINUTE_MS = 60_000
LISTENER = AnchorId("listener")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EnvoyRig]:
    async with envoy_rig(tmp_path_factory.mktemp("envoy"), extras=Extras(idle_s=1)) as impatient:
        yield impatient


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((HOST, 0)) as listening:
        listening.setblocking(False)
        yield listening


async def placed(rig: EnvoyRig, port: int, *, tls: bool = False, in_flight_max: int = 100) -> SessionId:
    """Return a session at an anchor that listens at a port."""
    anchor = AnchorEndpoint(anchor=LISTENER, host=HOST, port=port, tls=tls, in_flight_max=in_flight_max)
    await rig.driver.place_anchors([anchor])
    session = rig.session()
    await rig.driver.install([rig.grant(session, LISTENER, Epoch(1, 1), MINUTE_MS)])
    return session


def check(reply: httpx.Response, status: int, code: str, *, again: bool = False) -> None:
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers.get("retry-after") == ("1" if again else None)
    document = reply.json()
    assert (reply.status_code, document["status"], document["code"]) == (status, status, code)
    assert not {"upstream", "cluster", "reset", HOST} & set(document["message"].split())


async def test_an_anchor_that_is_not_there(rig: EnvoyRig, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    check(await rig.send(await placed(rig, port)), 503, "ANCHOR_UNREACHABLE", again=True)


async def test_an_anchor_that_does_not_finish_its_handshake(rig: EnvoyRig, listener: socket.socket) -> None:
    session = await placed(rig, listener.getsockname()[1], tls=True)
    check(await rig.send(session), 503, "ANCHOR_UNREACHABLE", again=True)


async def test_an_anchor_that_is_removed_while_its_session_is_steered_there(
    rig: EnvoyRig, listener: socket.socket
) -> None:
    session = await placed(rig, listener.getsockname()[1])
    await rig.driver.place_anchors([])
    check(await rig.send(session), 503, "ANCHOR_UNREACHABLE", again=True)


async def test_an_anchor_that_breaks_off(rig: EnvoyRig, listener: socket.socket) -> None:
    session = await placed(rig, listener.getsockname()[1])
    asked = asyncio.create_task(rig.send(session))
    loop = asyncio.get_running_loop()
    connection, _ = await loop.sock_accept(listener)
    with connection:
        assert b"\r\n\r\n" in await loop.sock_recv(connection, 65_536)
    check(await asked, 503, "ANCHOR_UNREACHABLE", again=True)


async def test_an_anchor_that_is_silent(rig: EnvoyRig, listener: socket.socket) -> None:
    check(await rig.send(await placed(rig, listener.getsockname()[1])), 504, "ANCHOR_SILENT")


async def test_an_anchor_that_is_busy(rig: EnvoyRig, listener: socket.socket) -> None:
    session = await placed(rig, listener.getsockname()[1], in_flight_max=1)
    replies = await asyncio.gather(*(rig.send(session) for _ in range(6)))
    busy = [reply for reply in replies if reply.status_code == 503]
    assert len(busy) >= 3, "one is under way, and one waits for its connection"
    for reply in busy:
        check(reply, 503, "ANCHOR_BUSY", again=True)
    for reply in set(replies) - set(busy):
        check(reply, 504, "ANCHOR_SILENT")


async def test_a_body_that_stands_still(rig: EnvoyRig, listener: socket.socket) -> None:
    session = await placed(rig, listener.getsockname()[1])
    headers = f"authorization: Bearer {rig.tokens[session]}\r\nhost: gateway\r\ncontent-length: 100"
    reader, writer = await asyncio.open_connection(HOST, httpx.URL(rig.url).port)
    writer.write(f"POST /v1/echo HTTP/1.1\r\n{headers}\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    fields = dict(line.decode().split(": ", 1) for line in head.split(b"\r\n")[1:])
    status = int(head.split()[1])
    check(httpx.Response(status, headers=fields, content=body), 408, "REQUEST_TIMEOUT")


async def test_what_the_filter_refuses_is_as_it_was(rig: EnvoyRig) -> None:
    refused = await rig.client.post(f"{rig.url}/v1/echo")
    assert (refused.status_code, refused.json()["code"]) == (401, "UNAUTHENTICATED")
    assert refused.headers["www-authenticate"] == "Bearer"
