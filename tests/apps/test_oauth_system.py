"""OAuth2 from outside: the real controller as a process, the Python client, and an issuer of its own."""

import asyncio
import json
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from jwt.algorithms import ECAlgorithm

from aipaging.client import AsyncClient, Client, ClientSecret
from aipaging.client.credentials import PrivateKey
from aipaging.core.foundation.errors import RefusedError
from aipaging.testing.stack import free_ports

pytestmark = [pytest.mark.real]

ISSUER = "https://oauth.example"
IDP = "https://idp.example"
KEY = ec.generate_private_key(ec.SECP256R1())
IDP_KEY = ec.generate_private_key(ec.SECP256R1())
SECRET = secrets.token_urlsafe(24)
ROOT_SECRET = secrets.token_urlsafe(24)


class Published(BaseHTTPRequestHandler):
    """The key set of an issuer."""

    def do_GET(self) -> None:
        key = dict(ECAlgorithm.to_jwk(IDP_KEY.public_key(), as_dict=True)) | {"kid": "k"}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"keys": [key]}).encode())

    def log_message(self, *_arguments: Any) -> None:
        return


@dataclass
class Running:
    url: str
    config: Path
    data_dir: Path

    def keys(self, *arguments: str) -> dict[str, Any]:
        command, *rest = arguments
        done = subprocess.run(
            [sys.executable, "-m", "aipaging.apps.cli", "keys", command, str(self.config), *rest, "--json"],
            capture_output=True,
            text=True,
            check=False,
        )
        document: dict[str, Any] = json.loads(done.stdout)
        return document | {"exit": done.returncode}


def configuration(folder: Path, ports: tuple[int, ...], jwks_port: int) -> str:
    pem = folder / "app.pub.pem"
    pem.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return f"""
operator = {{ name = "oauth", trust_domain = "oauth.example", data_dir = "data" }}
northbound = {{ listen = "127.0.0.1:{ports[0]}", static_secrets = false }}
southbound = {{ listen = "127.0.0.1:{ports[1]}", ads_listen = "127.0.0.1:{ports[2]}" }}
gateway = {{ driver = "memory", listen = "127.0.0.1:{ports[3]}" }}
journal = {{ reserve_mb = 4 }}
[[client]]
client_id = "app"
tenant = "acme"
secret_sha256 = "{sha256(SECRET.encode()).hexdigest()}"
keys_file = "app.pub.pem"
[[client]]
client_id = "root"
tenant = "op"
role = "operator"
secret_sha256 = "{sha256(ROOT_SECRET.encode()).hexdigest()}"
[[issuer]]
name = "idp"
issuer = "{IDP}"
jwks_url = "http://127.0.0.1:{jwks_port}/certs"
audience = "aipaging-api"
tenant_claim = "tenant"
role_claim = "roles"
grants = ["ai-user=client"]
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("oauth")
    idp = ThreadingHTTPServer(("127.0.0.1", 0), Published)
    Thread(target=idp.serve_forever, args=(0.01,), daemon=True).start()
    config = folder / "aipaging.toml"
    config.write_text(configuration(folder, tuple(free_ports(4)), idp.server_address[1]))
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "aipaging.apps.cli", "serve", str(config), "--json"], stdout=subprocess.PIPE, stderr=log
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        ready = json.loads(line or b"{}")
        assert "northbound" in ready, (line, (folder / "log").read_text())
        yield Running(url=ready["northbound"], config=config, data_dir=folder / "data")
    finally:
        process.terminate()
        process.wait(60)
        log.close()
        idp.shutdown()
    written = (folder / "log").read_text()
    assert SECRET not in written
    assert not re.search(r"eyJ[\w-]{8,}\.", written), "no token stands in a log"


def private_key() -> PrivateKey:
    pem = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return PrivateKey(client_id="app", private_pem=pem, audience=ISSUER)


def test_the_blocking_client_comes_in_by_secret_and_by_key(running: Running) -> None:
    for credential in (ClientSecret("app", SECRET), private_key()):
        with Client(running.url, credential=credential) as client:
            assert client.services().services == []
            assert list(client.sessions()) == []


async def test_the_asynchronous_client_comes_in_by_secret_and_by_key(running: Running) -> None:
    for credential in (ClientSecret("app", SECRET, scope="ai-paging:services:read"), private_key()):
        async with AsyncClient(running.url, credential=credential) as client:
            assert (await client.services()).services == []


def test_nobody_comes_in_without_proof(running: Running) -> None:
    for credential in (ClientSecret("app", "wrong" * 5), ClientSecret("nobody", SECRET), SECRET):
        with Client(running.url, credential=credential) as client, pytest.raises(RefusedError):
            client.services()


def test_the_tokens_of_a_trusted_issuer_come_in(running: Running) -> None:
    def token(**changes: Any) -> str:
        claims = {"iss": IDP, "aud": "aipaging-api", "client_id": "App One", "tenant": "acme", "roles": ["ai-user"]}
        now_s = int(time.time())
        return jwt.encode(
            claims | {"iat": now_s, "exp": now_s + 60} | changes,
            IDP_KEY,
            "ES256",
            headers={"kid": "k", "typ": "at+jwt"},
        )

    with Client(running.url, credential=token()) as client:
        assert list(client.sessions()) == []
    with Client(running.url, credential=token(aud="other")) as client, pytest.raises(RefusedError):
        client.services()


def test_keys_rotate_in_the_running_controller(running: Running) -> None:
    """The controller's first key has not been known for long, so a second may wait beside it; no token is refused."""
    token = ClientSecret("app", SECRET)
    with Client(running.url, credential=token) as client, httpx.Client(base_url=running.url) as anybody:
        client.services()

        def published() -> set[str]:
            keys = anybody.get("/.well-known/jwks.json").json()["keys"]
            return {key["kid"] for key in keys if key["alg"] == "ES256"}

        before = published()
        rotated = running.keys("rotate")
        assert rotated["exit"] == 0, rotated
        end_s = time.monotonic() + 60  # the controller looks at the directory once a second
        while (after := published()) == before:
            assert time.monotonic() < end_s, "the new key was never published"
            time.sleep(0.1)
        assert before < after
        client.services()
        listed = running.keys("list")["keys"]
        assert {key["kid"] for key in listed} == after
        signing = next(key["kid"] for key in listed if key["signs"])
        refused = running.keys("retire", signing)
        assert (refused["exit"], refused["error"]["code"]) == (3, "INCOMPATIBLE_STATE")
        waiting = next(key["kid"] for key in listed if not key["signs"])
        assert running.keys("retire", waiting, "--force")["exit"] == 0
        client.services()


async def test_a_client_that_is_shut_out_stays_out_until_it_is_reinstated(running: Running) -> None:
    root = ClientSecret("root", ROOT_SECRET)
    with Client(running.url, credential=ClientSecret("app", SECRET)) as app:
        app.services()
        async with AsyncClient(running.url, credential=root) as operator:
            await operator.services()
            bearer = {"authorization": f"Bearer {root.bearer(0.0)}"}
        async with httpx.AsyncClient(base_url=f"{running.url}/ai-paging/v0.1", headers=bearer) as operator:
            assert (await operator.post("/clients/app/shut-out")).status_code == 200
            with pytest.raises(RefusedError):
                await asyncio.to_thread(app.services)
            assert (await operator.post("/clients/app/reinstate")).status_code == 204
    await asyncio.sleep(0)
    with Client(running.url, credential=ClientSecret("app", SECRET)) as app:
        app.services()
