"""Key sets that domains publish at a URL: fetched, rotated, unreachable, slow, forged; over HTTP and HTTPS."""

import asyncio
import contextlib
import gzip
import json
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import jwt
import pytest
from tests.adapters.northbound.conftest import Rig
from tests.adapters.northbound.test_envelope_routes import JOSE, document

from aipaging.adapters.signing.ca import CertificateAuthority
from aipaging.adapters.signing.envelopes import EnvelopeKeys
from aipaging.apps.server import domain_keys
from aipaging.apps.server.domain_keys import KEY_SET_BYTES_MAX, KeySource, KeySources, next_look_s
from aipaging.core.envelope.document import EnvelopeDocument, canonical_bytes
from aipaging.core.foundation.names import DomainName

EDGE = DomainName("edge-one")
WAIT_S = 30.0


class Publisher:
    """A server of one document; what it answers can be changed, and it counts who asked."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.status, self.body, self.headers = 200, b"", dict[str, str]()
        self.asked = 0
        self.hold = Event()
        self.hold.set()
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher.asked += 1
                publisher.hold.wait(WAIT_S)
                with contextlib.suppress(OSError):
                    self.send_response(publisher.status)
                    for name, value in publisher.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(publisher.body)

            def log_message(self, *_arguments: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"http{'s' if context else ''}://127.0.0.1:{self.server.server_port}/keys.json"
        self.thread = Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def publish(self, jwks: object) -> None:
        self.body = json.dumps(jwks).encode()

    def close(self) -> None:
        self.hold.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path)
    await rig.start()
    try:
        yield rig
    finally:
        await rig.stop()


@pytest.fixture
async def noc(rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    async with rig.client("noc") as client:
        yield client


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    made = Publisher()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def keys(tmp_path: Path) -> EnvelopeKeys:
    return EnvelopeKeys.open(tmp_path / "edge-keys")


def sources_of(rig: Rig, url: str) -> KeySources:
    return KeySources(rig.service.envelopes, {EDGE: KeySource(url=url)})


async def offered(noc: httpx.AsyncClient, keys: EnvelopeKeys, made: EnvelopeDocument) -> str:
    """Offer a signed envelope; return its state, or the code of the refusal."""
    answer = (await noc.post("envelopes", content=keys.signed(made).raw, headers=JOSE)).json()
    return str(answer.get("state") or answer["code"].rpartition(".")[2])


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.01)


async def test_keys_are_fetched_and_a_rotation_is_seen_without_a_restart(
    rig: Rig, noc: httpx.AsyncClient, publisher: Publisher, keys: EnvelopeKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domain_keys, "FILE_S", 0.01)
    monkeypatch.setattr(domain_keys, "URL_S", 0.02)
    publisher.publish(keys.jwks())
    sources = sources_of(rig, publisher.url)
    await sources.load()
    shown = (await noc.get(f"domains/{EDGE}/keys")).json()
    assert (shown["keyIds"], shown["source"]) == ([keys.keys[-1].kid], "URL")
    assert await offered(noc, keys, document(2)) == "IN_FORCE"
    following = asyncio.create_task(sources.keep_current())
    try:
        newer = keys.rotated()
        assert await offered(noc, newer, document(3)) == "ENVELOPE_KEY_UNKNOWN"
        publisher.publish(newer.jwks())
        key_sets = rig.engine.state.promises.key_sets
        await until(lambda: len(key_sets[EDGE].key_ids) == 2)
        assert await offered(noc, newer, document(3)) == "IN_FORCE"
        assert await offered(noc, keys, document(4)) == "IN_FORCE", "both keys are in the set"
        publisher.publish({"keys": newer.jwks()["keys"][-1:]})
        await until(lambda: len(key_sets[EDGE].key_ids) == 1)
        assert await offered(noc, keys, document(5)) == "ENVELOPE_KEY_UNKNOWN"
        head, asked = rig.engine.head, publisher.asked
        await until(lambda: publisher.asked >= asked + 3)
        assert rig.engine.head == head, "the same set again leaves no record"
    finally:
        following.cancel()


def private(keys: EnvelopeKeys) -> bytes:
    leaked = jwt.get_algorithm_by_name("ES256").to_jwk(keys.keys[-1].private, as_dict=True)
    return json.dumps({"keys": [{**leaked, "kid": "k"}]}).encode()


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (500, {}, lambda _: b'{"keys":[]}'),
        (404, {}, lambda _: b""),
        (302, {"location": "/elsewhere"}, lambda _: b""),
        (200, {}, lambda _: b"<html>"),
        (200, {}, lambda _: b'{"keys":{}}'),
        (200, {}, private),
        (200, {}, lambda _: b'{"keys":[]' + b" " * KEY_SET_BYTES_MAX + b"}"),
        (200, {"content-encoding": "gzip"}, lambda _: gzip.compress(b" " * 50_000_000)),
    ],
)
async def test_whatever_is_wrong_with_the_source_the_last_good_set_stays(
    rig: Rig,
    noc: httpx.AsyncClient,
    publisher: Publisher,
    keys: EnvelopeKeys,
    caplog: pytest.LogCaptureFixture,
    status: int,
    headers: dict[str, str],
    body: Callable[[EnvelopeKeys], bytes],
) -> None:
    publisher.publish(keys.jwks())
    sources = sources_of(rig, publisher.url)
    await sources.load()
    before = rig.engine.state.promises.key_sets[EDGE]
    publisher.status, publisher.headers, publisher.body = status, headers, body(keys)
    with caplog.at_level(logging.WARNING, "aipaging.domain_keys"):
        await sources.load()
    assert rig.engine.state.promises.key_sets[EDGE] == before
    said = [record.message for record in caplog.records if record.name == "aipaging.domain_keys"]
    assert said == ["a domain's key set cannot be read"]
    assert await offered(noc, keys, document(2)) == "IN_FORCE"
    publisher.status, publisher.headers = 200, {}
    publisher.publish(keys.rotated().jwks())
    await sources.load()
    assert len(rig.engine.state.promises.key_sets[EDGE].key_ids) == 2, "it is read again when it is well"


async def test_with_its_server_down_the_old_keys_stay_and_are_all_that_count(
    rig: Rig, noc: httpx.AsyncClient, keys: EnvelopeKeys
) -> None:
    publisher = Publisher()
    publisher.publish(keys.jwks())
    sources = sources_of(rig, publisher.url)
    await sources.load()
    publisher.close()
    await sources.load()
    assert await offered(noc, keys, document(2)) == "IN_FORCE"
    assert await offered(noc, keys.rotated(), document(3)) == "ENVELOPE_KEY_UNKNOWN"


async def test_a_domain_whose_server_never_answered_trusts_nobody(
    rig: Rig, noc: httpx.AsyncClient, publisher: Publisher, keys: EnvelopeKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domain_keys, "FETCH_S_MAX", 0.05)
    publisher.publish(keys.jwks())
    publisher.hold.clear()
    sources = sources_of(rig, publisher.url)
    await sources.load()
    assert await offered(noc, keys, document(2)) == "ENVELOPE_KEY_UNKNOWN"
    plain = await noc.post("envelopes", json=json.loads(canonical_bytes(document(2))))
    assert plain.json()["code"] == "AI_PAGING.ENVELOPE_PLAIN", "nor does it fall back to what the operator states"
    publisher.hold.set()
    monkeypatch.setattr(domain_keys, "FETCH_S_MAX", WAIT_S)
    await sources.load()
    assert await offered(noc, keys, document(2)) == "IN_FORCE"


async def test_a_server_that_was_down_at_the_start_is_asked_again_soon(
    rig: Rig, noc: httpx.AsyncClient, publisher: Publisher, keys: EnvelopeKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domain_keys, "FILE_S", 0.01)
    monkeypatch.setattr(domain_keys, "RETRY_S", 0.01)
    publisher.status = 503
    sources = sources_of(rig, publisher.url)
    await sources.load()
    following = asyncio.create_task(sources.keep_current())
    try:
        await until(lambda: publisher.asked >= 3)
        publisher.publish(keys.jwks())
        publisher.status = 200
        await until(lambda: rig.engine.state.promises.key_sets[EDGE].key_ids != ())
        assert await offered(noc, keys, document(2)) == "IN_FORCE"
    finally:
        following.cancel()


def test_a_source_that_fails_is_looked_at_ever_more_seldom_and_one_that_is_well_as_always() -> None:
    url, file = KeySource(url="https://edge.example/keys.json"), KeySource(file=Path("keys.json"))
    assert [next_look_s(url, failures) for failures in range(1, 10)] == [2, 4, 8, 16, 32, 64, 128, 256, 300]
    assert next_look_s(url, 10**6) == next_look_s(url, 0) == 300
    assert {next_look_s(file, failures) for failures in range(100)} == {2}


async def test_https_is_believed_with_a_certificate_that_is_trusted_and_with_no_other(
    rig: Rig, noc: httpx.AsyncClient, tmp_path: Path, keys: EnvelopeKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = tmp_path / "identity"
    authority = CertificateAuthority.open(tmp_path / "authority", "edge.example")
    authority.write_identity(identity, "controller", "publisher", addresses=["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity / "cert.pem", identity / "key.pem")
    publisher = Publisher(context)
    try:
        publisher.publish(keys.jwks())
        sources = sources_of(rig, publisher.url)
        await sources.load()
        assert (publisher.asked, rig.engine.state.promises.key_sets[EDGE].key_ids) == (0, ())
        monkeypatch.setenv("SSL_CERT_FILE", str(identity / "ca.pem"))
        await sources.load()
        assert rig.engine.state.promises.key_sets[EDGE].key_ids == (keys.keys[-1].kid,)
        assert await offered(noc, keys, document(2)) == "IN_FORCE"
    finally:
        publisher.close()
