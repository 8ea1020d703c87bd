"""Who may do what, asked of every operation that there is: nobody, a client, another client, an operator without it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from tests.adapters.northbound.conftest import INTENT, SECRETS, Rig
from tests.adapters.northbound.test_contract import whole

from aipaging.adapters.northbound.credentials import CLIENT_SCOPES, OPERATOR_SCOPES, ClientCredential, StaticCredentials
from aipaging.adapters.northbound.operation import READING, Operation
from aipaging.core.foundation.names import ClientId, TenantId

UNKNOWN = "3f1c2a54-7f0e-4c5e-9b1d-0a4f6d2b8e11"


@pytest.fixture
async def whole_rig(rig: Rig, tmp_path: Path) -> Rig:
    """Everything that the interface can have: authorization server and configuration, too."""
    whole(rig, tmp_path)
    return rig


def guarded(rig: Rig) -> Sequence[Operation]:
    found = [operation for operation in rig.operations() if operation.scope is not None]
    assert len(found) > 45
    return found


def path_of(operation: Operation, session: str = UNKNOWN) -> str:
    path = operation.path.replace("{sessionId}", session).replace("{clientId}", "app-two").replace("{tenant}", "any")
    for name in ("anchorId", "digest", "domain", "keyId", "auditId", "path*"):
        path = path.replace(f"{{{name}}}", "0")
    assert "{" not in path
    return path


async def asked(client: httpx.AsyncClient, operation: Operation, session: str = UNKNOWN) -> httpx.Response:
    query = {"follow": "false"} if operation.name == "streamEvents" else {}
    body = {} if operation.method == "GET" else {"content": json.dumps(operation.request_example or {})}
    headers = {"content-type": operation.request_media}
    url = f"http://test{path_of(operation, session)}"
    return await client.request(operation.method, url, params=query, headers=headers, **body)


async def test_nobody_may_do_anything_that_has_a_scope(whole_rig: Rig) -> None:
    head = whole_rig.engine.head
    async with whole_rig.client(None) as nobody:
        for operation in guarded(whole_rig):
            answer = await asked(nobody, operation)
            assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHENTICATED"), operation.name
    assert whole_rig.engine.head == head


async def test_a_client_does_nothing_that_is_an_operators(whole_rig: Rig) -> None:
    head = whole_rig.engine.head
    refused = [operation for operation in guarded(whole_rig) if operation.scope not in CLIENT_SCOPES]
    async with whole_rig.client("app-one") as client:
        for operation in refused:
            answer = await asked(client, operation)
            assert (answer.status_code, answer.json()["code"]) == (403, "PERMISSION_DENIED"), operation.name
    assert whole_rig.engine.head == head
    assert {"kill", "registerAnchor", "acceptEnvelope", "putTenant", "moveClient", "reloadConfiguration"} <= {
        operation.name for operation in refused
    }


async def test_anothers_session_is_as_one_that_is_not_there(whole_rig: Rig) -> None:
    of_sessions = [
        operation
        for operation in guarded(whole_rig)
        if "{sessionId}" in operation.path and operation.scope in CLIENT_SCOPES
    ]
    assert len(of_sessions) >= 6
    async with whole_rig.client("app-one") as owner, whole_rig.client("app-two") as other:
        session = (await owner.post("sessions", json={"intent": INTENT})).json()["sessionId"]
        before = (await owner.get(f"sessions/{session}")).json()
        for operation in of_sessions:
            theirs, nobodys = await asked(other, operation, session), await asked(other, operation)
            # What is wrong whosever session it is (a target that only operators name, a sink here) may be told first.
            early = {"relocateSession": 403, "setSessionSink": 400}
            assert theirs.status_code == nobodys.status_code == early.get(operation.name, 404), operation.name
            assert theirs.text.replace(session, UNKNOWN) == nobodys.text, operation.name
        after = (await owner.get(f"sessions/{session}")).json()
        assert {**after, "commit": None} == {**before, "commit": None}


async def test_each_operation_opens_by_its_own_scope_and_by_no_other(whole_rig: Rig) -> None:
    rig = whole_rig
    operations = guarded(rig)
    scopes = {operation.scope for operation in operations}
    assert scopes == OPERATOR_SCOPES - {"ai-paging:tokens:introspect"}, "there is no scope that opens nothing"
    credentials = [
        ClientCredential(
            client_id=ClientId(f"without-{number}"),
            tenant=TenantId("operator"),
            role="operator",
            secret_sha256=sha256(scope.encode()).hexdigest(),
            scopes=OPERATOR_SCOPES - {scope},
        )
        for number, scope in enumerate(sorted(scopes))
        if scope
    ]
    rig.service = replace(rig.service, authenticator=StaticCredentials(credentials))
    app = rig.rebuilt()
    for operation in operations:
        transport = httpx.ASGITransport(app=app)
        headers = {"authorization": f"Bearer {operation.scope}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as lacking:
            answer = await asked(lacking, operation)
        assert (answer.status_code, answer.json()["code"]) == (403, "PERMISSION_DENIED"), operation.name
        assert f'scope="{operation.scope}"' in answer.headers["www-authenticate"]


async def test_whatever_an_operator_changes_or_tries_to_is_evidence(whole_rig: Rig) -> None:
    changing = [
        operation
        for operation in guarded(whole_rig)
        if operation.scope is not None and operation.scope.rpartition(":")[2] not in READING
    ]
    told: list[tuple[str, int]] = []
    async with whole_rig.client("noc") as noc:
        for operation in changing:
            answer = await asked(noc, operation)
            assert answer.status_code != 500, operation.name
            told.append((operation.name, answer.status_code))
    records = [json.loads(entry.record) for entry in whole_rig.journal.read(0)]
    acted = [each for each in records if each["type"] == "OPERATOR_ACTION"]
    assert [(each["operation"], each["status"]) for each in acted] == told
    assert {each["client"] for each in acted} == {"noc"}
    assert not any(secret in json.dumps(records) for secret, *_ in SECRETS.values())
