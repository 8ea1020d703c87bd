"""Sessions over HTTP: paged, refused, read, listed, extended, relocated, moved, ended."""

from typing import Any

import httpx
import pytest
from tests.adapters.northbound.conftest import INTENT, ISSUER, Rig

from aipaging.core.foundation.errors import UnavailableError
from aipaging.core.paging.commands import Wake
from aipaging.core.steering.grant import SteeringGrant

SOME_SESSION = "3f1c2a54-7f0e-4c5e-9b1d-0a4f6d2b8e11"


async def paged(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    answer = await client.post("sessions", json={"intent": {**INTENT, **changes}})
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def phase(client: httpx.AsyncClient, session: str) -> str:
    relocation = (await client.get(f"sessions/{session}")).json().get("relocation", {})
    return str(relocation.get("phase"))


async def test_a_page_answers_all_that_the_client_needs(rig: Rig, app_one: httpx.AsyncClient) -> None:
    answer = await app_one.post("sessions", json={"intent": INTENT})
    session = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/ai-paging/v0.1/sessions/{session['sessionId']}"
    assert (session["status"], session["anchorId"], session["aisi"]) == (
        "AVAILABLE",
        "a",
        "aisi://example/embed/minilm",
    )
    assert (session["tenant"], session["clientId"]) == ("tenant-one", "app-one")
    assert session["gatewayUrl"] == "https://gateway.example/v1"
    assert session["commit"]["epoch"] == {"term": 1, "n": 1}
    assert session["commit"]["leaseMs"] == 60_000
    assert session["commit"]["ratePerSecond"] == 10
    assert session["bound"]["epsilonBound"] <= session["bound"]["epsilon"] == 0.001
    assert [part["domain"] for part in session["bound"]["budget"]] == ["access-eu", "metro", "edge-one"]
    assert session["intent"]["modality"] == "text"
    assert session["startedAt"] < session["expiresAt"]
    assert "statusInfo" not in session
    assert rig.steering.route(session["sessionId"]) == "a"


async def test_the_tokens_of_a_page_verify_and_belong_to_it(rig: Rig, app_one: httpx.AsyncClient) -> None:
    session = await paged(app_one)
    aist = rig.verifier.verify_aist(session["aist"])
    receipt = rig.verifier.verify_commit(session["commit"]["receipt"])
    assert (aist.session, aist.client, aist.tenant) == (session["sessionId"], "app-one", "tenant-one")
    assert (receipt.session, receipt.anchor, str(receipt.epoch)) == (session["sessionId"], "a", "1.1")


async def test_the_token_is_handed_out_once(app_one: httpx.AsyncClient) -> None:
    session = await paged(app_one)
    read = (await app_one.get(f"sessions/{session['sessionId']}")).json()
    assert "aist" not in read
    assert read["commit"]["receipt"]
    del session["aist"]
    session["commit"].pop("receipt")
    read["commit"].pop("receipt")
    assert read == session


async def test_a_refused_page_names_every_candidate_and_its_reason(app_one: httpx.AsyncClient) -> None:
    answer = await app_one.post("sessions", json={"intent": {**INTENT, "delayMs": 31}})
    refusal = answer.json()
    assert answer.status_code == 422
    assert (refusal["status"], refusal["code"], refusal["who"]) == (422, "AI_PAGING.ADMISSION_REFUSED", "caller")
    assert refusal["constraint"] == "DELAY"
    reasons = {found["anchorId"]: found["rejection"]["constraint"] for found in refusal["candidates"]}
    assert reasons == {"a": "DELAY", "b": "DELAY", "t": "TASK"}
    assert (await app_one.get(f"sessions/{refusal['sessionId']}")).status_code == 404


async def test_places_are_named_in_either_case(app_one: httpx.AsyncClient) -> None:
    sessions = [await paged(app_one, jurisdictions=places) for places in (["EU", "eu"], ["US"])]
    assert [(session["anchorId"], session["intent"]["jurisdictions"]) for session in sessions] == [
        ("a", ["eu"]),
        ("b", ["us"]),
    ]


async def test_resolving_explains_and_commits_to_nothing(rig: Rig, app_one: httpx.AsyncClient) -> None:
    before = rig.engine.head.seq
    resolution = (await app_one.post("intents/resolve", json={"intent": {**INTENT, "regions": ["us"]}})).json()
    assert [(found["anchorId"], found["eligible"]) for found in resolution["candidates"]] == [
        ("b", True),
        ("a", False),
        ("t", False),
    ]
    assert resolution["candidates"][1]["rejection"]["constraint"] == "PLACE"
    assert resolution["intent"]["prefer"] == "COST"
    assert rig.engine.head.seq == before


async def test_sold_capacity_is_refused(app_one: httpx.AsyncClient) -> None:
    for _ in range(2):
        await paged(app_one, ratePerSecond=50)
    refusal = (await app_one.post("sessions", json={"intent": {**INTENT, "ratePerSecond": 50}})).json()
    assert refusal["constraint"] == "CAPACITY"


async def test_steering_that_fails_is_not_a_session(rig: Rig, app_one: httpx.AsyncClient) -> None:
    async def broken(_grants: list[SteeringGrant]) -> None:
        raise UnavailableError("no gateway answers")

    rig.steering.install = broken  # type: ignore[assignment,method-assign]
    answer = await app_one.post("sessions", json={"intent": INTENT})
    assert (answer.status_code, answer.json()["code"]) == (503, "AI_PAGING.STEERING_FAILED")
    assert answer.headers["retry-after"] == "1"


async def test_another_clients_session_does_not_exist(app_one: httpx.AsyncClient, app_two: httpx.AsyncClient) -> None:
    session = (await paged(app_one))["sessionId"]
    missing = await app_two.get(f"sessions/{SOME_SESSION}")
    for answer in (
        await app_two.get(f"sessions/{session}"),
        await app_two.delete(f"sessions/{session}"),
        await app_two.post(f"sessions/{session}/extend", json={"additionalDurationS": 60}),
        await app_two.post(f"sessions/{session}/relocate", json={}),
    ):
        assert answer.status_code == 404
        assert answer.json() == {
            **missing.json(),
            "message": missing.json()["message"].replace(SOME_SESSION, session),
        }
    evidence = await app_two.get(f"sessions/{session}/evidence")
    assert (evidence.status_code, evidence.json()["code"]) == (404, "NOT_FOUND")
    assert (await app_one.get(f"sessions/{session}")).json()["status"] == "AVAILABLE"


async def test_an_operator_sees_and_ends_every_session(app_one: httpx.AsyncClient, noc: httpx.AsyncClient) -> None:
    session = (await paged(app_one))["sessionId"]
    assert (await noc.get(f"sessions/{session}")).json()["clientId"] == "app-one"
    assert (await noc.delete(f"sessions/{session}")).status_code == 204
    ended = (await app_one.get(f"sessions/{session}")).json()
    assert (ended["status"], ended["statusInfo"]) == ("UNAVAILABLE", "DELETE_REQUESTED")


async def test_ending_stops_steering_and_may_be_repeated(rig: Rig, app_one: httpx.AsyncClient) -> None:
    session = (await paged(app_one))["sessionId"]
    for _ in range(2):
        answer = await app_one.delete(f"sessions/{session}")
        assert (answer.status_code, answer.content) == (204, b"")
    assert rig.steering.route(session) is None
    read = (await app_one.get(f"sessions/{session}")).json()
    assert read["commit"]["remainingMs"] == 0
    assert "receipt" not in read["commit"]


async def test_extending_is_capped_and_brings_a_longer_token(rig: Rig, app_one: httpx.AsyncClient) -> None:
    session = await paged(app_one)
    answer = await app_one.post(f"sessions/{session['sessionId']}/extend", json={"additionalDurationS": 300})
    extended = answer.json()
    assert (answer.status_code, extended["durationS"]) == (200, 900)
    before, after = (rig.verifier.verify_aist(token["aist"]) for token in (session, extended))
    assert after.expires_us - before.expires_us == 300_000_000
    assert after.token_id == before.token_id
    capped = await app_one.post(f"sessions/{session['sessionId']}/extend", json={"additionalDurationS": 80_000})
    assert capped.json()["durationS"] == 1_200


async def test_an_ended_session_cannot_be_changed(app_one: httpx.AsyncClient, noc: httpx.AsyncClient) -> None:
    session = (await paged(app_one))["sessionId"]
    await app_one.delete(f"sessions/{session}")
    for answer in (
        await app_one.post(f"sessions/{session}/extend", json={"additionalDurationS": 300}),
        await app_one.post(f"sessions/{session}/relocate"),
        await noc.post(f"sessions/{session}/move", json={"place": "access-us"}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "INCOMPATIBLE_STATE")


async def test_a_client_relocates_its_session(rig: Rig, app_one: httpx.AsyncClient) -> None:
    session = (await paged(app_one))["sessionId"]
    answer = await app_one.post(f"sessions/{session}/relocate")
    assert answer.status_code == 202
    assert answer.json()["relocation"]["cause"] == "CLIENT"
    await rig.settled()
    moved = (await app_one.get(f"sessions/{session}")).json()
    assert moved["anchorId"] == "b"
    assert moved["relocation"]["phase"] in {"SWITCHED", "SOURCE_RELEASED"}
    assert moved["commit"]["epoch"]["n"] == 2
    assert rig.steering.route(session) == "b"


async def test_only_an_operator_names_the_target(rig: Rig, app_one: httpx.AsyncClient, noc: httpx.AsyncClient) -> None:
    session = (await paged(app_one))["sessionId"]
    refused = await app_one.post(f"sessions/{session}/relocate", json={"targetAnchorId": "b"})
    assert (refused.status_code, refused.json()["field"]) == (403, "targetAnchorId")
    accepted = await noc.post(f"sessions/{session}/relocate", json={"targetAnchorId": "b"})
    assert (accepted.status_code, accepted.json()["relocation"]["cause"]) == (202, "OPERATOR")


async def test_a_relocation_without_a_target_fails_and_says_why(app_one: httpx.AsyncClient) -> None:
    session = (await paged(app_one, regions=["eu"]))["sessionId"]
    relocation = (await app_one.post(f"sessions/{session}/relocate")).json()["relocation"]
    assert relocation["phase"] == "FAILED"
    assert "b: PLACE" in relocation["message"]
    assert "targetAnchorId" not in relocation


async def test_a_mobility_event_moves_the_session(rig: Rig, app_one: httpx.AsyncClient, noc: httpx.AsyncClient) -> None:
    session = (await paged(app_one))["sessionId"]
    refused = await app_one.post(f"sessions/{session}/move", json={"place": "access-us"})
    assert (refused.status_code, refused.json()["code"]) == (403, "PERMISSION_DENIED")
    assert (await noc.post(f"sessions/{session}/move", json={"place": "access-us"})).status_code == 202
    await rig.settled()
    moved = (await app_one.get(f"sessions/{session}")).json()
    assert moved["intent"]["place"] == "access-us"
    assert moved["relocation"]["cause"] == "MOBILITY"


async def test_sessions_are_listed_page_by_page(
    app_one: httpx.AsyncClient, app_two: httpx.AsyncClient, noc: httpx.AsyncClient
) -> None:
    mine = [(await paged(app_one, ratePerSecond=1))["sessionId"] for _ in range(5)]
    await paged(app_two, ratePerSecond=1)
    first = (await app_one.post("retrieve-sessions", json={"page": 2, "perPage": 2})).json()
    assert [session["sessionId"] for session in first["sessions"]] == mine[2:4]
    assert first["pagination"] == {"page": 2, "perPage": 2, "totalCount": 5, "totalPages": 3}
    assert "receipt" not in first["sessions"][0]["commit"]
    assert "aist" not in first["sessions"][0]
    beyond = (await app_one.post("retrieve-sessions", json={"page": 9})).json()
    assert beyond["sessions"] == []
    assert (await noc.post("retrieve-sessions")).json()["pagination"]["totalCount"] == 6


async def test_sessions_are_filtered(
    app_one: httpx.AsyncClient, app_two: httpx.AsyncClient, noc: httpx.AsyncClient
) -> None:
    ended = (await paged(app_one, ratePerSecond=1))["sessionId"]
    await paged(app_one, ratePerSecond=1, regions=["us"])
    await paged(app_two, ratePerSecond=1)
    await app_one.delete(f"sessions/{ended}")

    async def total(client: httpx.AsyncClient, **wanted: str) -> int:
        answer = await client.post("retrieve-sessions", json={"filter": wanted})
        return int(answer.json()["pagination"]["totalCount"])

    assert await total(app_one, status="UNAVAILABLE") == 1
    assert await total(app_one, status="AVAILABLE", anchorId="b") == 1
    assert await total(app_one, aisi="aisi://example/chat/load") == 0
    assert await total(noc, clientId="app-two") == 1
    answer = await app_one.post("retrieve-sessions", json={"filter": {"clientId": "app-two"}})
    assert (answer.status_code, answer.json()["field"]) == (403, "filter.clientId")


async def test_a_session_that_ran_out_says_so(rig: Rig, app_one: httpx.AsyncClient) -> None:
    session = (await paged(app_one, durationS=5))["sessionId"]
    rig.clock.passed_us += 6_000_000
    await rig.engine.submit(Wake())
    ended = (await app_one.get(f"sessions/{session}")).json()
    assert ended["statusInfo"] == "DURATION_EXPIRED"


@pytest.mark.parametrize("role", ["client", "operator"])
async def test_identity_comes_from_the_credential_alone(rig: Rig, role: str) -> None:
    async with rig.client("noc" if role == "operator" else "app-one") as client:
        session = await paged(client)
    assert session["clientId"] == ("noc" if role == "operator" else "app-one")
    assert rig.service.issuer == ISSUER


async def test_the_same_key_gives_the_same_session(app_one: httpx.AsyncClient, app_two: httpx.AsyncClient) -> None:
    body, headers = {"intent": INTENT}, {"idempotency-key": "order-17"}
    first = await app_one.post("sessions", json=body, headers=headers)
    again = await app_one.post("sessions", json=body, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["sessionId"] == again.json()["sessionId"]
    assert first.json()["aist"]
    assert again.json()["aist"]
    other = await app_two.post("sessions", json=body, headers=headers)
    assert other.json()["sessionId"] != first.json()["sessionId"]
    reused = await app_one.post("sessions", json={"intent": INTENT | {"burst": 6}}, headers=headers)
    assert (reused.status_code, reused.json()["code"]) == (422, "AI_PAGING.IDEMPOTENCY_KEY_REUSED")
    long = await app_one.post("sessions", json=body, headers={"idempotency-key": "x" * 256})
    assert (long.status_code, long.json()["field"]) == (400, "idempotency-key")
