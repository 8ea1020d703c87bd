"""The Python client, against the real interface over ASGI and against a transport that loses answers."""

import asyncio
import ssl
from collections.abc import Callable
from urllib.parse import parse_qs

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from aipaging.client import AsyncClient, Client, ClientSecret, RefusedWithReasonsError
from aipaging.client.calls import ATTEMPTS_MAX, Call, Received, pause_s
from aipaging.client.credentials import PrivateKey
from aipaging.core.foundation.errors import InvalidInputError, RefusedError, UnavailableError

SESSION = {
    "sessionId": "3f1c2a54-7f0e-4c5e-9b1d-0a4f6d2b8e11",
    "status": "AVAILABLE",
    "tenant": "acme",
    "clientId": "app",
    "aisi": "aisi://op/embed/minilm",
    "gatewayUrl": "https://gateway.example",
    "intent": {"task": "embeddings", "place": "access-eu", "delayMs": 250, "durationS": 600},
    "durationS": 600,
    "startedAt": "2026-01-01T00:00:00Z",
    "expiresAt": "2026-01-01T00:10:00Z",
    "aist": "token-1",
}
FIELDS = {"task": "embeddings", "place": "access-eu", "delay_ms": 250.0}


def client(answer: Callable[[httpx.Request], httpx.Response], **options: object) -> Client:
    made = Client("https://control.example", credential=options.pop("credential", "secret"))  # type: ignore[arg-type]
    made._http = httpx.Client(base_url="https://control.example", transport=httpx.MockTransport(answer))
    return made


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr("aipaging.client.blocking.time.sleep", waits.append)
    return waits


def test_a_lost_answer_is_asked_for_again_under_the_same_key(no_waiting: list[float]) -> None:
    keys: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["idempotency-key"])
        if len(keys) < 3:
            raise httpx.ReadError("lost")
        return httpx.Response(201, json=SESSION)

    with client(answer) as control:
        session = control.page(**FIELDS)
    assert session.id == SESSION["sessionId"]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert len(no_waiting) == 2


async def test_an_interface_that_does_not_trust_the_certificate_is_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its alert comes after the handshake, as an error of TLS that the transport does not wrap."""
    waits: list[float] = []

    async def waited(delay_s: float) -> None:
        waits.append(delay_s)

    def alert(_: httpx.Request) -> httpx.Response:
        raise ssl.SSLError("tlsv1 alert unknown ca")

    monkeypatch.setattr("aipaging.client.asynchronous.asyncio.sleep", waited)
    async with AsyncClient("https://control.example", credential="secret") as control:
        control._http = httpx.AsyncClient(base_url="https://control.example", transport=httpx.MockTransport(alert))
        with pytest.raises(UnavailableError, match="unknown ca"):
            await control.services()
    assert len(waits) == ATTEMPTS_MAX - 1


@pytest.mark.parametrize("secret", ["s3cret\n", "s3cret\r\n", " s3cret", "s3crét", "s3cret\nx-role: operator"])
def test_a_credential_that_cannot_be_sent_is_said_so_and_not_shown(secret: str, no_waiting: list[float]) -> None:
    with Client("http://127.0.0.1:1", credential=secret) as control, pytest.raises(InvalidInputError) as error:
        control.resolve(**FIELDS)
    assert error.value.field == "credential"
    assert "s3cr" not in str(error.value)
    assert no_waiting == []


def test_a_key_that_cannot_be_sent_is_said_so() -> None:
    with Client("http://127.0.0.1:1", credential="s") as control, pytest.raises(InvalidInputError) as error:
        control.page(**FIELDS, key="order 7\n")
    assert error.value.field == "key"


@pytest.mark.parametrize(
    "url", ["localhost:8080", "control.example", "ftp://control.example", "http://", "http://[::1"]
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_url_that_is_none_is_said_so_before_anything_is_sent(kind: type[Client | AsyncClient], url: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        kind(url, credential="secret")
    assert error.value.field == "url"


def test_what_could_happen_twice_is_not_repeated() -> None:
    sent: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.url.path)
        if request.url.path.endswith("/sessions"):
            return httpx.Response(201, json=SESSION)
        raise httpx.ReadError("lost")

    with client(answer) as control, pytest.raises(UnavailableError) as error:
        control.page(**FIELDS).extend(60)
    assert error.value.code == "CONTROLLER_UNREACHABLE"
    assert sum(path.endswith("/extend") for path in sent) == 1


def test_a_refusal_says_why_each_candidate_was_not_eligible() -> None:
    fault = {
        "status": 422, "code": "AI_PAGING.ADMISSION_REFUSED", "message": "no", "who": "caller",
        "constraint": "DELAY", "candidates": [{"anchorId": "a"}],
    }  # fmt: skip
    with client(lambda _: httpx.Response(422, json=fault)) as control, pytest.raises(RefusedWithReasonsError) as error:
        control.page(**FIELDS)
    assert error.value.code == "AI_PAGING.ADMISSION_REFUSED"
    assert error.value.details["candidates"] == [{"anchorId": "a"}]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "intent"),
        ({"task": "embeddings"}, "place"),
        (FIELDS | {"model": "x"}, "model"),
        ({"intent": {"task": "x"}, **FIELDS}, "intent"),
    ],
)
def test_what_is_no_intent_is_not_sent(arguments: dict[str, object], field: str) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise AssertionError("nothing may be sent")

    with client(answer) as control, pytest.raises(InvalidInputError) as error:
        control.page(**arguments)
    assert error.value.field == field


def test_an_access_token_is_fetched_once_and_replaced_before_it_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("aipaging.client.blocking.time.monotonic", lambda: now[0])
    seen: list[tuple[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.url.path, request.headers.get("authorization", "")))
        if request.url.path == "/oauth2/token":
            return httpx.Response(200, json={"access_token": f"t{len(seen)}", "expires_in": 300})
        return httpx.Response(200, json={"services": []})

    with client(answer, credential=ClientSecret("app", "s:e cret")) as control:
        control.services()
        control.services()
        now[0] += 280
        control.services()
    assert [path for path, _ in seen].count("/oauth2/token") == 2
    assert seen[0][1] == "Basic YXBwOnMlM0FlJTIwY3JldA=="
    assert [bearer for path, bearer in seen if path.endswith("/services")] == ["Bearer t1", "Bearer t1", "Bearer t4"]


def test_a_session_near_its_end_is_extended_before_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("aipaging.client.blocking.time.monotonic", lambda: now[0])

    def answer(request: httpx.Request) -> httpx.Response:
        longer = SESSION | {"durationS": 1200, "aist": "token-2"}
        return httpx.Response(200, json=longer if request.url.path.endswith("/extend") else SESSION)

    with client(answer) as control:
        session = control.page(**FIELDS)
        assert session.token() == "token-1"
        now[0] = 460.0
        assert session.token() == "token-2"
        now[0] = 900.0
        assert session.token() == "token-2", "nothing is extended before it is time"


def test_an_ended_session_is_ended_once_and_says_so() -> None:
    pytest.importorskip("openai")
    methods: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        methods.append(request.method)
        return httpx.Response(204) if request.method == "DELETE" else httpx.Response(201, json=SESSION)

    with client(answer) as control, control.page(**FIELDS) as session:
        official = session.openai(max_retries=0)
        session.end()
        for use in (session.token, official.models.list):
            with pytest.raises(RefusedError, match=f"session {session.id} has been ended"):
                use()
    assert methods == ["POST", "DELETE"]


def test_the_openai_client_always_carries_the_present_token() -> None:
    pytest.importorskip("openai")
    with client(lambda _: httpx.Response(201, json=SESSION)) as control:
        session = control.page(**FIELDS)
        official = session.openai(max_retries=0)
    assert str(official.base_url) == "https://gateway.example/v1/"
    assert official._api_key_provider is not None
    assert official._api_key_provider() == "token-1"


@pytest.mark.parametrize(
    ("method", "key", "status", "repeated"),
    [
        ("GET", "", None, True),
        ("POST", "", None, False),
        ("POST", "k", None, True),
        ("POST", "", 503, False),
        ("POST", "k", 503, True),
        ("POST", "", 429, True),
        ("POST", "k", 500, False),
        ("GET", "", 404, False),
    ],
)
def test_which_calls_are_sent_again(method: str, key: str, status: int | None, repeated: bool) -> None:
    call = Call(method=method, path="/x", key=key)
    received = None if status is None else Received(status=status, content=b"")
    assert (pause_s(call, 1, received, 0.5) is not None) == repeated
    assert pause_s(call, ATTEMPTS_MAX, received, 0.5) is None


def test_a_server_says_when_to_come_back() -> None:
    call = Call(method="GET", path="/x")
    assert pause_s(call, 1, Received(status=503, content=b"", headers={"retry-after": "7"}), 0.0) == 7.0
    assert pause_s(call, 1, Received(status=503, content=b"", headers={"retry-after": "3600"}), 0.0) is None


async def test_the_asynchronous_client_does_the_same() -> None:
    keys: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "DELETE":
            return httpx.Response(204)
        keys.append(request.headers["idempotency-key"])
        return httpx.Response(503) if len(keys) < 2 else httpx.Response(201, json=SESSION)

    async with AsyncClient("https://control.example", credential="secret") as control:
        control._http = httpx.AsyncClient(base_url="https://control.example", transport=httpx.MockTransport(answer))
        async with asyncio.timeout(60), await control.page(**FIELDS) as session:
            assert await session.token() == "token-1"
            pytest.importorskip("openai")
            assert str(session.openai().base_url) == "https://gateway.example/v1/"
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_an_assertion_is_signed_anew_when_its_answer_was_lost() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    assertions: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path != "/oauth2/token":
            return httpx.Response(200, json={"services": []})
        assertions.append(parse_qs(request.content.decode())["client_assertion"][0])
        if len(assertions) == 1:
            raise httpx.ReadError("lost")
        return httpx.Response(200, json={"access_token": "t", "expires_in": 300})

    with client(answer, credential=PrivateKey(client_id="app", private_pem=pem, audience="https://op")) as control:
        control.services()
    ids = {jwt.decode(each, key.public_key(), ["ES256"], audience="https://op")["jti"] for each in assertions}
    assert len(assertions) == len(ids) == 2
