"""Asking sidecars whether they are ready."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from aipaging.adapters.anchors.http import HttpAnchorClient
from aipaging.adapters.signing.ca import CertificateAuthority
from aipaging.adapters.signing.peer import client_context, server_context
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import UnavailableError
from aipaging.core.foundation.names import AnchorId, SessionId
from aipaging.core.steering.grant import AnchorEndpoint

SESSION = SessionId("00000000-0000-4000-8000-000000000001")


class Sidecar:
    """Answers prepare; `answers` says how often on one connection before it breaks that off without an answer."""

    def __init__(self, answers: int) -> None:
        self.answers = answers
        self.asked = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(self.answers):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            self.asked += 1
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await reader.read(1)
        writer.transport.abort()


async def prepared(answers: int, times: int) -> int:
    sidecar = Sidecar(answers)
    server = await asyncio.start_server(sidecar.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    endpoint = AnchorEndpoint(anchor=AnchorId("a"), host="127.0.0.1", port=port, tls=False, in_flight_max=1)
    client = HttpAnchorClient(None, trust_domain="x.example")
    try:
        for _ in range(times):
            await client.prepare(endpoint, SESSION, Epoch(1, 1))
    finally:
        await client.close()
        server.close()
    return sidecar.asked


async def test_a_kept_connection_that_has_died_is_no_answer() -> None:
    """A sidecar that was restarted is ready; the controller's idle connection to the one before it is not."""
    assert await prepared(answers=1, times=3) == 3


async def test_a_sidecar_that_breaks_every_connection_is_not_ready() -> None:
    with pytest.raises(UnavailableError, match="a is not ready"):
        await prepared(answers=0, times=1)


@pytest.fixture
def distrustful(tmp_path: Path) -> Iterator[int]:
    """The port of a sidecar of another authority: it says so after the handshake, and does not hang up at once."""
    for authority, role, name in (("ours", "controller", "c"), ("theirs", "anchor", "a")):
        issuer = CertificateAuthority.open(tmp_path / authority, "x.example")
        issuer.write_identity(tmp_path / name, role, name, addresses=("127.0.0.1",))
    context = server_context(tmp_path / "a")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def refuse() -> None:
            plain, _ = listening.accept()
            with context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False) as secured:
                with pytest.raises(ssl.SSLError):
                    secured.do_handshake()
                while socket.socket.recv(secured, 65_536):
                    pass

        thread = Thread(target=refuse)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(60)


async def test_a_sidecar_that_does_not_trust_the_controller_is_not_ready(tmp_path: Path, distrustful: int) -> None:
    context = client_context(tmp_path / "c")
    context.load_verify_locations(tmp_path / "theirs" / "ca.pem")
    endpoint = AnchorEndpoint(anchor=AnchorId("a"), host="127.0.0.1", port=distrustful, tls=True, in_flight_max=1)
    client = HttpAnchorClient(context, trust_domain="x.example")
    with pytest.raises(UnavailableError, match="SSLError"):
        await client.prepare(endpoint, SESSION, Epoch(1, 1))
    await client.close()
