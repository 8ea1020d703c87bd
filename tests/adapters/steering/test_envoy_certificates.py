"""Tokens that are bound to a client certificate, at a real gateway: the handshake decides, and nothing else."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from aipaging.adapters.signing.ca import CertificateAuthority
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import SessionId
from aipaging.testing.envoy_rig import EnvoyRig, Extras, envoy_rig

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

MINUTE_MS = 60_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EnvoyRig]:
    directory = tmp_path_factory.mktemp("certificates")
    enrolled(directory, "clients", "one")
    enrolled(directory, "clients", "two")
    async with envoy_rig(
        directory, tls=True, extras=Extras(client_authority=directory / "clients" / "ca.pem")
    ) as shared:
        yield shared


def enrolled(directory: Path, authority: str, name: str) -> Path:
    """Return the folder of a certificate; what it says of its holder is of no matter here."""
    folder = directory / f"{authority}-{name}"
    CertificateAuthority.open(directory / authority, "clients.example").write_identity(folder, "anchor", name)
    return folder


def digest(folder: Path) -> str:
    pem = (folder / "cert.pem").read_text()
    end = "-----END CERTIFICATE-----"
    return sha256(ssl.PEM_cert_to_DER_cert(pem[: pem.index(end) + len(end)])).hexdigest()


async def bound(rig: EnvoyRig, certificate: str = "") -> SessionId:
    session = rig.session(certificate=certificate)
    await rig.driver.install([rig.grant(session, rig.anchors[0], Epoch(1, 1), MINUTE_MS)])
    return session


async def asked(rig: EnvoyRig, session: SessionId, shown: Path | None, *, http2: bool = False) -> list[httpx.Response]:
    """Return the answers to a miss and a hit on one connection that shows a certificate, or none."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if shown is not None:
        context.load_cert_chain(shown / "cert.pem", shown / "key.pem")
    headers = {
        "authorization": f"Bearer {rig.tokens[session]}",
        "x-forwarded-client-cert": f"Hash={digest(rig.directory / 'clients-one')}",
        "x-aipaging-certificate": digest(rig.directory / "clients-one"),
    }
    async with httpx.AsyncClient(verify=context, http2=http2, trust_env=False, timeout=10) as client:
        return [await client.post(f"{rig.url}/v1/echo", headers=headers, content=b"x") for _ in range(2)]


@pytest.mark.parametrize("http2", [False, True])
async def test_a_bound_token_is_served_with_its_certificate_only(rig: EnvoyRig, *, http2: bool) -> None:
    own, other = rig.directory / "clients-one", rig.directory / "clients-two"
    session = await bound(rig, digest(own))
    for shown in (None, other):  # a thief, before the token is in the gateway's memory and after
        for reply in await asked(rig, session, shown, http2=http2):
            assert (reply.status_code, reply.json()["code"]) == (401, "CERTIFICATE_MISMATCH")
            assert reply.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    before = len(rig.anchor_servers[rig.anchors[0]].received)
    assert [reply.status_code for reply in await asked(rig, session, own, http2=http2)] == [200, 200]
    for reply in await asked(rig, session, other, http2=http2):
        assert reply.status_code == 401
    assert len(rig.anchor_servers[rig.anchors[0]].received) == before + 2


async def test_a_token_that_is_bound_to_nothing_is_served_with_any_certificate_and_with_none(rig: EnvoyRig) -> None:
    session = await bound(rig)
    for shown in (None, rig.directory / "clients-one", rig.directory / "clients-two"):
        assert [reply.status_code for reply in await asked(rig, session, shown)] == [200, 200]


async def test_a_certificate_that_nobody_vouches_for_opens_no_connection(rig: EnvoyRig) -> None:
    stranger = enrolled(rig.directory, "strangers", "one")
    session = await bound(rig, digest(stranger))
    with pytest.raises((httpx.TransportError, ssl.SSLError)):  # by when the alert comes
        await asked(rig, session, stranger)


async def test_a_resumed_connection_still_shows_its_certificate(rig: EnvoyRig) -> None:
    own = rig.directory / "clients-one"
    session = await bound(rig, digest(own))
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # there, the client has the session when the handshake is over
    context.load_cert_chain(own / "cert.pem", own / "key.pem")
    request = (
        f"POST /v1/echo HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {rig.tokens[session]}\r\ncontent-length: 0\r\n\r\n"
    )

    def exchange(resumed: ssl.SSLSession | None) -> tuple[bytes, bool, ssl.SSLSession | None]:
        listener = rig.gateway.listener
        with (
            socket.create_connection((listener.host, listener.port), timeout=10) as plain,
            context.wrap_socket(plain, session=resumed) as secured,
        ):
            secured.sendall(request.encode())
            return secured.recv(12), bool(secured.session_reused), secured.session

    first, reused, session_of_tls = await asyncio.to_thread(exchange, None)
    assert (first, reused) == (b"HTTP/1.1 200", False)
    second, reused, _ = await asyncio.to_thread(exchange, session_of_tls)
    assert (second, reused) == (b"HTTP/1.1 200", True)


async def test_a_gateway_without_tls_serves_no_bound_token(tmp_path: Path) -> None:
    async with envoy_rig(tmp_path) as plain:
        session = await bound(plain, "ab" * 32)
        reply = await plain.send(session)
        assert (reply.status_code, reply.json()["code"]) == (401, "CERTIFICATE_MISMATCH")
