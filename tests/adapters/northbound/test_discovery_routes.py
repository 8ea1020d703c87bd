"""What the service says of itself, and the description of the interface against the interface."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from tests.adapters.northbound.conftest import INTENT, Rig

from aipaging.adapters.northbound import discovery
from aipaging.adapters.northbound.app import northbound_app
from aipaging.adapters.northbound.credentials import ClientCredential, StaticCredentials
from aipaging.adapters.northbound.operation import BASE
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import ClientId, TenantId


async def test_ready_only_with_journal_and_gateway(rig: Rig, nobody: httpx.AsyncClient) -> None:
    ready = await nobody.get("http://test/readyz")
    assert (ready.status_code, ready.json()) == (200, {"status": "READY", "reasons": []})
    rig.gateway = False
    rig.engine.ready = False
    answer = await nobody.get("http://test/readyz")
    assert answer.status_code == 503
    assert answer.json() == {
        "status": "NOT_READY",
        "reasons": ["the controller is recovering", "no gateway is connected"],
    }
    assert (await nobody.get("http://test/healthz")).status_code == 200


async def test_a_journal_that_hangs_is_not_ready_and_one_that_comes_back_is(
    rig: Rig, nobody: httpx.AsyncClient, app_one: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "STALLED_S", 0.05)
    answers, append = threading.Event(), rig.journal.append

    def hangs(*arguments: Any, **options: Any) -> None:
        answers.wait(60)
        append(*arguments, **options)

    monkeypatch.setattr(rig.journal, "append", hangs)
    page = asyncio.create_task(app_one.post("sessions", json={"intent": INTENT}))
    try:
        async with asyncio.timeout(60):
            while (told := await nobody.get("http://test/readyz")).status_code == 200:
                await asyncio.sleep(0.01)
        assert "the journal has not answered for" in told.json()["reasons"][0]
        assert not page.done()
    finally:
        answers.set()
    assert (await page).status_code == 201
    await rig.settled()
    assert (await nobody.get("http://test/readyz")).status_code == 200


async def test_metrics_count_answers_and_sessions(app_one: httpx.AsyncClient, noc: httpx.AsyncClient) -> None:
    await app_one.post("sessions", json={"intent": INTENT})
    text = (await noc.get("http://test/metrics")).text
    assert 'aipaging_http_request_seconds_count{operation="createSession",status="201"} 1.0' in text
    assert "aipaging_sessions_live 1.0" in text
    assert 'aipaging_anchors{state="READY"} 3.0' in text
    assert 'aipaging_domain_reserved_requests_per_second{domain="metro"} 10.0' in text
    assert "aipaging_healthy 1.0" in text


async def test_discovery_leads_to_what_is_there(rig: Rig, nobody: httpx.AsyncClient) -> None:
    found = (await nobody.get("http://test/.well-known/ai-paging")).json()
    for url in (found["jwksUri"], found["openapiUrl"]):
        assert (await nobody.get(url.replace("https://control.example", "http://test"))).status_code == 200
    assert found["gatewayUrl"] == "https://gateway.example/v1"
    assert found["apiBaseUrl"].endswith(BASE)
    keys = (await nobody.get("http://test/.well-known/jwks.json")).json()["keys"]
    assert [sorted(key) for key in keys] == [["alg", "crv", "kid", "kty", "use", "x", "y"]]


@pytest.fixture
async def described(nobody: httpx.AsyncClient) -> dict[str, Any]:
    document: dict[str, Any] = (await nobody.get("http://test/openapi.json")).json()
    return document


async def test_the_description_is_openapi(described: dict[str, Any]) -> None:
    assert list(OpenAPIV31SpecValidator(described).iter_errors()) == []


def operations_of(described: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


async def test_every_route_is_described_and_every_description_answers(
    rig: Rig, described: dict[str, Any], nobody: httpx.AsyncClient
) -> None:
    names = [operation["operationId"] for _, _, operation in operations_of(described)]
    assert len(names) == len(set(names)) >= 41
    for path, method, operation in operations_of(described):
        real = path.replace("{sessionId}", "3f1c2a54-7f0e-4c5e-9b1d-0a4f6d2b8e11").replace("{anchorId}", "a")
        answer = await nobody.request(method, "http://test" + real.replace("{path}", "checkpoint"))
        assert answer.status_code == (401 if operation["security"] else 200), path


async def test_every_operation_documents_its_failures(described: dict[str, Any]) -> None:
    for path, _, operation in operations_of(described):
        assert "500" in operation["responses"], path
        if operation["security"]:
            assert {"401", "403"} <= set(operation["responses"]), path
        if "requestBody" in operation:
            assert {"400", "413", "415"} <= set(operation["responses"]), path


def schemas_in(node: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if node.get("type") in {"string", "array", "integer"}:
            yield where, node
        for name, inner in node.items():
            if name not in {"example", "examples", "default"}:
                yield from schemas_in(inner, f"{where}.{name}")
    elif isinstance(node, list):
        for place, inner in enumerate(node):
            yield from schemas_in(inner, f"{where}[{place}]")


async def test_every_string_array_and_integer_is_bounded(described: dict[str, Any]) -> None:
    seen = 0
    for where, schema in schemas_in(described, "$"):
        seen += 1
        if schema["type"] == "string":
            assert "maxLength" in schema or "enum" in schema or "const" in schema, where
        elif schema["type"] == "array":
            assert "maxItems" in schema, where
        else:
            assert "minimum" in schema or "exclusiveMinimum" in schema, where
            assert "maximum" in schema, where
    assert seen > 100


async def test_examples_are_what_they_illustrate(rig: Rig, described: dict[str, Any]) -> None:
    examples = 0
    operations = {operation.name: operation for operation in rig.operations()}
    for operation in operations.values():
        if operation.request_example is not None:
            msgspec.convert(operation.request_example, operation.request)
            examples += 1
        for reply in operation.replies.values():
            if reply.example is not None and reply.document is not None:
                loose = {**reply.example}
                decoded = msgspec.json.decode(msgspec.json.encode(loose), type=reply.document)
                again = msgspec.json.decode(msgspec.json.encode(decoded))
                assert set(again) <= set(loose) | {"statusInfo"}, operation.name
                examples += 1
    assert examples > 25


async def test_the_description_names_the_schemas(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]
    assert schemas["IntentDocument"]["required"] == ["task", "place", "delayMs"]
    assert schemas["IntentDocument"]["additionalProperties"] is False
    assert {"status", "code", "message"} <= set(schemas["ErrorInfo"]["required"])


@pytest.mark.parametrize("digest", ["", "ab", "zz" * 32, "ab" * 33])
def test_a_credential_is_a_sha256(digest: str) -> None:
    with pytest.raises(InvalidInputError, match="not the hex SHA-256"):
        StaticCredentials([credential("a", digest)])


def test_clients_share_neither_id_nor_secret() -> None:
    for two in (
        (credential("a", "11" * 32), credential("a", "22" * 32)),
        (credential("a", "11" * 32), credential("b", "11" * 32)),
    ):
        with pytest.raises(InvalidInputError, match="shares"):
            StaticCredentials(two)


def test_credentials_show_no_digest() -> None:
    assert "11" not in repr(StaticCredentials([credential("a", "11" * 32)]))


def credential(client: str, digest: str) -> ClientCredential:
    return ClientCredential(client_id=ClientId(client), tenant=TenantId("t"), role="client", secret_sha256=digest)


async def test_the_interface_takes_part_in_lifespan(rig: Rig) -> None:
    asked = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    said: list[str] = []

    async def receive() -> Any:
        return next(asked)

    async def send(message: Any) -> None:
        said.append(message["type"])

    await northbound_app(rig.service)({"type": "lifespan"}, receive, send)
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    said.clear()
    await rig.app({"type": "websocket"}, receive, send)
    assert said == ["websocket.close"]
