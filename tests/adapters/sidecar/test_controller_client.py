"""What the sidecar asks the controller, and that what does not decode counts as no answer."""

import json

import httpx
import pytest

from aipaging.adapters.sidecar import controller as module
from aipaging.adapters.sidecar.controller import ControllerClient, Heartbeat
from aipaging.adapters.sidecar.usage import UsageBatch
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import UnavailableError
from aipaging.core.foundation.names import AnchorId, SessionId
from aipaging.core.lease.holder import HolderState, LeaseAnswer, LeaseQuestion

S = SessionId("11111111-1111-4111-8111-111111111111")
QUESTION = LeaseQuestion(session=S, epoch=Epoch(1, 2))
LEASE = {
    "session": S,
    "term": 1,
    "n": 2,
    "remaining_ms": 500,
    "state": "ACTIVE",
    "current_term": 1,
    "current_n": 3,
}


class NoIdentity:
    def __init__(self) -> None:
        self.stored: list[bytes] = []

    def client_context(self):
        return True

    def store(self, chain: bytes) -> None:
        self.stored.append(chain)


def client_for(handler, identity=None) -> ControllerClient:
    transport = httpx.MockTransport(handler)
    return ControllerClient("https://c:1", AnchorId("gpu-1"), identity or NoIdentity(), transport=transport)


def answering(document: object, status: int = 200):
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return httpx.Response(status, content=body)

    return client_for(handler), seen


async def test_what_remains() -> None:
    client, seen = answering({"leases": [LEASE]})
    assert await client.remaining([QUESTION]) == [
        LeaseAnswer(session=S, asked=Epoch(1, 2), state=HolderState.ACTIVE, remaining_ms=500, current=Epoch(1, 3))
    ]
    assert (seen[0].method, seen[0].url.path) == ("POST", "/steering/v1/remaining")
    assert json.loads(seen[0].content) == {"leases": [{"session": S, "term": 1, "n": 2}]}


async def test_revocations_since() -> None:
    client, seen = answering({"term": 2, "sequence": 7, "entries": [{"session": S, "term": 1, "n": 2}], "reset": True})
    said = await client.revocations(1, 6)
    assert (said.term, said.sequence, said.reset, said.entries[0].n) == (2, 7, True, 2)
    assert dict(seen[0].url.params) == {"after": "1.6", "wait_ms": "20000"}


async def test_a_heartbeat() -> None:
    client, seen = answering({"interval_ms": 2500})
    beat = Heartbeat(state="READY", boot="b", sequence=1, in_flight=2, queued=3)
    assert (await client.heartbeat(beat)).interval_s == 2.5
    assert (seen[0].method, seen[0].url.path) == ("PUT", "/anchors/gpu-1/heartbeat")
    assert json.loads(seen[0].content) == {"state": "READY", "boot": "b", "sequence": 1, "in_flight": 2, "queued": 3}


async def test_a_batch_of_counts() -> None:
    client, seen = answering({"refused": [{"session": S, "code": "USAGE_IMPLAUSIBLE", "message": "too many"}]})
    refused = await client.usage("b", UsageBatch(number=3, used={S: (2, 70)}))
    assert [(each.session, each.code) for each in refused] == [(S, "USAGE_IMPLAUSIBLE")]
    assert (seen[0].method, seen[0].url.path) == ("PUT", "/anchors/gpu-1/usage")
    counts = [{"session": S, "requests": 2, "tokens": 70}]
    assert json.loads(seen[0].content) == {"boot": "b", "batch": 3, "used": counts}


async def test_a_renewal_goes_on_with_the_new_certificate() -> None:
    identity = NoIdentity()
    client = client_for(lambda request: httpx.Response(200, content=b"chain of " + request.content), identity)
    former = client._client
    await client.renew_identity(b"request")
    assert identity.stored == [b"chain of request"]
    assert former.is_closed
    assert client._client is not former


@pytest.mark.parametrize(
    "document",
    [
        b"not json",
        b"",
        {"leases": [LEASE | {"state": "FOREVER"}]},
        {"leases": [LEASE | {"remaining_ms": "long"}]},
        {"leases": [{"session": S}]},
        {},
    ],
)
async def test_malformed_answers_are_no_answers(document) -> None:
    client, _ = answering(document)
    with pytest.raises(UnavailableError) as error:
        await client.remaining([QUESTION])
    assert error.value.code == "ANSWER_MALFORMED"


@pytest.mark.parametrize("status", [301, 403, 500, 503])
async def test_refusals_are_no_answers(status) -> None:
    client, _ = answering({"leases": [LEASE]}, status)
    with pytest.raises(UnavailableError, match=str(status)):
        await client.remaining([QUESTION])


async def test_an_answer_without_end_is_given_up(monkeypatch) -> None:
    monkeypatch.setattr(module, "ANSWER_BYTES_MAX", 1000)
    client, _ = answering(b"x" * 2000)
    with pytest.raises(UnavailableError, match="too long"):
        await client.keys()


@pytest.mark.parametrize("error", [httpx.ConnectError("no"), httpx.ReadTimeout("slow"), OSError(104, "reset")])
async def test_faults_of_the_network_are_no_answers(error) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(UnavailableError):
        await client_for(handler).keys()
