"""An anchor whose process stands still: its kernel takes connections and requests, and nobody answers them."""

import asyncio
import contextlib
import ctypes
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from aipaging.adapters.sidecar.settings import Timeouts
from aipaging.adapters.steering.envoy import resources
from aipaging.adapters.steering.envoy.bootstrap import IDLE_S
from aipaging.apps.server.config import load_config
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import AnchorId, SessionId
from aipaging.core.steering.grant import AnchorEndpoint
from aipaging.testing.envoy_rig import IN_FLIGHT_MAX, EnvoyRig, Extras, envoy_rig, system_now
from aipaging.testing.recording_anchor import HOST

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

MINUTE_MS = 60_000
SO_ATTACH_FILTER = 26  # asm-generic/socket.h
BPF_RET = 0x06  # linux/bpf_common.h: the verdict is the constant; 0 drops the segment
HUNG = AnchorId("hung")
EVENT = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 0\n\n\r\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EnvoyRig]:
    async with envoy_rig(tmp_path_factory.mktemp("envoy"), extras=Extras(idle_s=1)) as impatient:
        yield impatient


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def patient(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EnvoyRig]:
    """Return a gateway as it is by default: a model may think long."""
    async with envoy_rig(tmp_path_factory.mktemp("patient")) as rig:
        yield rig


@pytest.fixture
def hung() -> Iterator[socket.socket]:
    """Listen, and never accept: all that is left of a process that was stopped."""
    with socket.create_server((HOST, 0)) as listening:
        listening.setblocking(False)
        yield listening


async def placed(rig: EnvoyRig, hung: socket.socket, *, tls: bool = False) -> SessionId:
    """Return a session at the anchor that hangs."""
    there = [*((name, server.port, False) for name, server in rig.anchor_servers.items())]
    there.append((HUNG, hung.getsockname()[1], tls))
    await rig.driver.place_anchors(
        [
            AnchorEndpoint(anchor=name, host=HOST, port=port, tls=secured, in_flight_max=IN_FLIGHT_MAX)
            for name, port, secured in there
        ]
    )
    session = rig.session()
    await rig.driver.install([rig.grant(session, HUNG, Epoch(1, 1), MINUTE_MS)])
    return session


async def accepted(hung: socket.socket) -> socket.socket:
    """Return the connection of the gateway once a request has arrived on it."""
    loop = asyncio.get_running_loop()
    connection, _ = await loop.sock_accept(hung)
    assert b"\r\n\r\n" in await loop.sock_recv(connection, 65_536)
    return connection


async def test_a_request_that_nobody_takes_up_is_answered(rig: EnvoyRig, hung: socket.socket) -> None:
    reply = await rig.send(await placed(rig, hung))
    assert (reply.status_code, reply.json()["code"]) == (504, "ANCHOR_SILENT")


async def test_a_request_that_was_refused_elsewhere_and_is_taken_up_by_nobody_is_answered(
    rig: EnvoyRig, hung: socket.socket
) -> None:
    await placed(rig, hung)
    session = rig.session()
    first = rig.grant(session, rig.anchors[0], Epoch(1, 1), MINUTE_MS)
    await rig.driver.install([first])
    assert await rig.request(session) == rig.anchors[0]
    rig.driver._table.put(rig.grant(session, HUNG, Epoch(1, 2), MINUTE_MS))
    rig.anchor_servers[rig.anchors[0]].stale[first.receipt] = Epoch(1, 1)
    assert (await rig.send(session)).status_code == 504


async def test_a_body_that_nobody_takes_up_is_answered(rig: EnvoyRig, hung: socket.socket) -> None:
    session = await placed(rig, hung)
    body = bytes(32 * 1024 * 1024)  # more than all buffers on the way hold
    authorization = {"authorization": f"Bearer {rig.tokens[session]}"}
    # Envoy's word for a request that did not arrive as a whole; this client hears of it after writing, if it still can.
    with contextlib.suppress(httpx.NetworkError, httpx.RemoteProtocolError):
        reply = await rig.client.post(f"{rig.url}/v1/echo", headers=authorization, content=body)
        assert reply.status_code == 408


async def test_an_answer_that_stands_still_is_broken_off(rig: EnvoyRig, hung: socket.socket) -> None:
    session = await placed(rig, hung)
    asked = asyncio.create_task(rig.send(session, "/stream"))
    with await accepted(hung) as connection:
        await asyncio.get_running_loop().sock_sendall(connection, EVENT)
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
            await asked


async def test_a_handshake_that_nobody_answers_is_given_up(rig: EnvoyRig, hung: socket.socket) -> None:
    reply = await rig.send(await placed(rig, hung, tls=True))
    assert (reply.status_code, reply.json()["code"]) == (503, "ANCHOR_UNREACHABLE")


def vanish(connection: socket.socket) -> None:
    """Let nothing that arrives on a connection be seen or acknowledged any more, as if its host had lost its power."""
    reject = ctypes.create_string_buffer(struct.pack("=HBBI", BPF_RET, 0, 0, 0))
    program = struct.pack("@HP", 1, ctypes.addressof(reject))
    connection.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


async def test_a_request_that_waits_for_a_host_that_is_gone_is_answered(
    patient: EnvoyRig, hung: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for constant in ("KEEPALIVE_TIME_S", "KEEPALIVE_INTERVAL_S", "KEEPALIVE_PROBES"):
        monkeypatch.setattr(resources, constant, 1)
    asked = asyncio.create_task(patient.send(await placed(patient, hung)))
    with await accepted(hung) as connection:
        vanish(connection)
        reply = await asked
    assert (reply.status_code, reply.json()["code"]) == (503, "ANCHOR_UNREACHABLE")


async def test_a_request_that_waits_for_a_process_is_answered_when_it_is_killed(
    patient: EnvoyRig, hung: socket.socket
) -> None:
    """What a service manager does to one that stands still; that it is given up, its anchor removed, ends nothing."""
    session = await placed(patient, hung)
    asked = asyncio.create_task(patient.send(session))
    with await accepted(hung):
        await patient.place()
        assert not asked.done()
    assert (await asked).status_code == 503


async def test_a_sidecar_answers_before_its_gateway_gives_up(tmp_path: Path) -> None:
    """Who waits for a model server knows more of it than who waits for a sidecar."""
    config = tmp_path / "aipaging.toml"
    config.write_text('[operator]\nname = "me"\ndata_dir = "d"\n')
    idle_s = load_config(config, wall_us=system_now().wall_us, environment={}).gateway.idle_s
    assert idle_s == IDLE_S
    waits = Timeouts()
    assert max(waits.first_byte_s, waits.gap_s, waits.body_s, waits.write_s) < idle_s
