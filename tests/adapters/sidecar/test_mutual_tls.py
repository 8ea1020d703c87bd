"""Who may speak to a sidecar, and whom it listens to: certificates of one authority, each in its role."""

import asyncio
import ssl

import pytest
from tests.adapters.sidecar.conftest import (
    ANCHOR,
    Client,
    ReadingVerifier,
    ScriptedController,
    ScriptedUpstream,
    request,
)

from aipaging.adapters.sidecar.clocks import HostClocks
from aipaging.adapters.sidecar.controller import ControllerClient
from aipaging.adapters.sidecar.instruments import Instruments
from aipaging.adapters.sidecar.log import Log
from aipaging.adapters.sidecar.settings import SidecarSettings, parse_upstream
from aipaging.adapters.sidecar.sidecar import Sidecar
from aipaging.adapters.signing.ca import CertificateAuthority
from aipaging.adapters.signing.peer import client_context, server_context
from aipaging.apps.anchor.identity import FolderIdentity
from aipaging.core.foundation.errors import InvalidInputError, UnavailableError

PREPARE = b'{"session":"11111111-1111-4111-8111-111111111111","term":1,"n":1}'


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory):
    """Folders with identities of one authority, and one of a stranger's."""
    root = tmp_path_factory.mktemp("identities")
    for authority, names in (
        ("ours", [("anchor", ANCHOR), ("gateway", "gw-1"), ("controller", "c-1"), ("anchor", "gpu-2")]),
        ("strange", [("gateway", "gw-1")]),
    ):
        issuer = CertificateAuthority.open(root / authority, "operator.example")
        for role, name in names:
            issuer.write_identity(root / f"{authority}-{role}-{name}", role, name, addresses=["127.0.0.1"])
    return root


@pytest.fixture
async def tls_bench(enrolled):
    upstream = ScriptedUpstream()
    await upstream.start()
    clocks = HostClocks()
    lines: list[str] = []
    sidecar = Sidecar(
        SidecarSettings(
            anchor=ANCHOR,
            upstream=parse_upstream(f"http://127.0.0.1:{upstream.port}"),
            listen_host="127.0.0.1",
            listen_port=0,
        ),
        ScriptedController(),
        lambda _keys: ReadingVerifier(),
        identity=FolderIdentity(enrolled / f"ours-anchor-{ANCHOR}", anchor=ANCHOR, clocks=clocks),
        instruments=Instruments(clocks=clocks, log=Log(clocks, lines.append)),
    )
    await sidecar.start()
    while sidecar.path.gate.verifier is None:
        await asyncio.sleep(0)
    yield sidecar, upstream
    await sidecar.close()
    await upstream.close()


async def status_for(sidecar: Sidecar, raw: bytes, tls: ssl.SSLContext | None) -> int:
    """Return the status, or 0 where the connection is refused."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", sidecar.port, ssl=tls)
    except (ssl.SSLError, ConnectionError):
        return 0
    client = Client(reader, writer)
    try:
        client.send(raw)
        return (await client.response())[0]
    except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
        return 0
    finally:
        client.close()


@pytest.mark.parametrize(
    ("who", "user_plane", "prepare", "health"),
    [
        ("ours-gateway-gw-1", 200, 403, 200),
        ("ours-controller-c-1", 403, 204, 200),
        ("ours-anchor-gpu-2", 0, 0, 0),
        ("strange-gateway-gw-1", 0, 0, 0),
    ],
)
async def test_each_role_may_do_its_own(tls_bench, enrolled, who, user_plane, prepare, health) -> None:
    sidecar, upstream = tls_bench
    tls = client_context(enrolled / who, check_hostname=False)
    if who.startswith("strange"):
        tls.load_verify_locations(enrolled / "ours" / "ca.pem")
    assert await status_for(sidecar, request(), tls) == user_plane
    assert await status_for(sidecar, request(target="/aipaging/v1/prepare", body=PREPARE), tls) == prepare
    assert await status_for(sidecar, request("GET", "/aipaging/v1/health"), tls) == health
    assert upstream.all_bytes.count(b"POST /v1/chat") == (user_plane == 200)


async def test_nobody_enters_without_a_certificate(tls_bench, enrolled) -> None:
    sidecar, _ = tls_bench
    naked = ssl.create_default_context(cafile=enrolled / "ours" / "ca.pem")
    assert await status_for(sidecar, request("GET", "/aipaging/v1/health"), naked) == 0
    assert await status_for(sidecar, request("GET", "/aipaging/v1/health"), None) == 0


async def test_only_a_controller_is_listened_to(enrolled) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{"keys":[]}')
        await writer.drain()
        writer.close()

    identity = FolderIdentity(enrolled / f"ours-anchor-{ANCHOR}", anchor=ANCHOR, clocks=HostClocks())
    for who, accepted in (("ours-controller-c-1", True), ("ours-gateway-gw-1", False), ("ours-anchor-gpu-2", False)):
        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server_context(enrolled / who))
        client = ControllerClient(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", ANCHOR, identity)
        if accepted:
            assert await client.keys() == {"keys": []}
        else:
            with pytest.raises(UnavailableError, match="not a controller"):
                await client.keys()
        await client.close()
        server.close()


def test_an_identity_of_another_anchor_is_refused(enrolled) -> None:
    with pytest.raises(InvalidInputError, match="not of anchor"):
        FolderIdentity(enrolled / "ours-anchor-gpu-2", anchor=ANCHOR, clocks=HostClocks())


def test_plain_text_is_for_loopback_only() -> None:
    for host, allowed in (("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("10.0.0.1", False), ("h", False)):
        try:
            SidecarSettings(
                anchor=ANCHOR,
                upstream=parse_upstream("http://u"),
                listen_host=host,
                listen_port=0,
                plaintext=True,
            )
        except InvalidInputError:
            assert not allowed
        else:
            assert allowed
