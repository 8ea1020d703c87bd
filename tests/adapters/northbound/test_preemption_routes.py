"""Room for a higher class over HTTP: what the one who asks is told, what the one who makes room is told, and when."""

import json
from typing import Any

import httpx
from tests.adapters.northbound.conftest import INTENT, Rig

from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.foundation.names import AnchorId, SessionId
from aipaging.core.paging import commands as c

ANCHOR_RPS = 50
WHOLE: dict[str, Any] = {"intent": {**INTENT, "ratePerSecond": ANCHOR_RPS, "regions": ["eu"], "durationS": 900}}


async def both(rig: Rig, app_one: httpx.AsyncClient, noc: httpx.AsyncClient) -> str:
    """Let a low tenant fill an anchor that a high one will want; return the session."""
    await noc.put("tenants/tenant-one", json={"priority": "BACKGROUND"})
    await noc.put("tenants/tenant-two", json={"priority": "EMERGENCY", "preempts": True})
    created = await app_one.post("sessions", json=WHOLE)
    assert created.status_code == 201, created.text
    await rig.settled()
    return str(created.json()["sessionId"])


async def data_of(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    text = (await client.get("events", params={"follow": "false", "lastEventId": "0"})).text
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


async def test_room_is_made_and_kept_and_both_clients_are_told(
    rig: Rig, app_one: httpx.AsyncClient, app_two: httpx.AsyncClient, noc: httpx.AsyncClient
) -> None:
    victim = await both(rig, app_one, noc)
    headers = {"idempotency-key": "one"}
    first = await app_two.post("sessions", json=WHOLE, headers=headers)
    assert (first.status_code, first.json()["code"]) == (503, "AI_PAGING.PREEMPTING"), first.text
    wait_s = int(first.headers["retry-after"])
    assert 60 <= wait_s <= 62, "a lease of a minute, its drift and its grace"
    await rig.settled()
    ended = (await app_one.get(f"sessions/{victim}")).json()
    assert (ended["status"], ended["statusInfo"]) == ("UNAVAILABLE", "PREEMPTED")
    assert rig.steering.route(SessionId(victim)) is None
    again = await app_two.post("sessions", json=WHOLE, headers=headers)
    assert (again.status_code, again.json()["code"]) == (503, "AI_PAGING.PREEMPTING")
    assert (await app_one.post("sessions", json=WHOLE)).status_code == 422
    told = [each for each in await data_of(app_one) if each.get("subject") == victim]
    assert [each["type"].rpartition(".")[2] for each in told[-3:]] == [
        "session-preempted",
        "commit-revoked",
        "session-ended",
    ]
    assert told[-3]["data"] == {"session": victim, "priority": 0, "byPriority": 3}, "whose request it was is not told"
    assert told[-1]["data"]["statusInfo"] == "PREEMPTED"
    assert "tenant-two" not in json.dumps(await data_of(app_one))
    rig.clock.passed_us += wait_s * 1_000_000
    await rig.engine.submit(c.Heartbeat(anchor=AnchorId("a"), state=AnchorState.READY))
    while rig.engine.state.ledger.anchor_mrps(AnchorId("a")):
        await rig.settled()
    taken = await app_two.post("sessions", json=WHOLE, headers=headers)
    assert taken.status_code == 201, taken.text
    assert (await app_two.post("sessions", json=WHOLE, headers=headers)).json()["sessionId"] == taken.json()[
        "sessionId"
    ]
    evidence = (await noc.get(f"sessions/{victim}/evidence")).text
    assert "SESSION_PREEMPTED" in evidence


async def everything_shown(rig: Rig, client: httpx.AsyncClient, session: str) -> dict[str, str]:
    """Return what a client reads of everything that is there to be read, and of a page of its own."""
    shown = {}
    for operation in rig.operations():
        path = operation.path.replace("{sessionId}", session).replace("{tenant}", "tenant-one")
        if operation.method == "GET" and operation.scope is not None:
            query = {"follow": "false", "lastEventId": "0"} if operation.name == "streamEvents" else {}
            shown[operation.name] = (await client.get(f"http://test{path}", params=query)).text
    shown["retrieveSessions"] = (await client.post("retrieve-sessions", json={})).text
    shown["resolveIntent"] = (await client.post("intents/resolve", json=WHOLE)).text
    shown["createSession"] = (await client.post("sessions", json=WHOLE)).text
    return shown


async def test_nothing_that_a_client_reads_names_another_tenant(
    rig: Rig, app_one: httpx.AsyncClient, app_two: httpx.AsyncClient, noc: httpx.AsyncClient
) -> None:
    victim = await both(rig, app_one, noc)
    assert (await app_two.post("sessions", json=WHOLE)).status_code == 503
    beside = await app_two.post("sessions", json={"intent": {**INTENT, "regions": ["us"]}})
    assert beside.status_code == 201, beside.text
    await rig.settled()
    killed = await noc.post("switches/kill", json={"kind": "TENANT", "name": "tenant-two", "reason": "tenant-two"})
    assert killed.status_code == 200, killed.text
    await rig.settled()
    shown = await everything_shown(rig, app_one, victim)
    for name in ("getSession", "getSessionEvidence", "streamEvents", "retrieveSessions"):
        assert victim in shown[name], f"{name} shows something"
    for name, text in shown.items():
        for secret in ("tenant-two", "app-two", beside.json()["sessionId"]):
            assert secret not in text, f"{name} names {secret}"
    everybodys = json.dumps(await data_of(noc))
    assert "tenant-two" in everybodys, "the operator sees for whom room was made"


async def test_a_resolution_says_what_a_page_would_displace_and_displaces_nobody(
    rig: Rig, app_one: httpx.AsyncClient, app_two: httpx.AsyncClient, noc: httpx.AsyncClient
) -> None:
    victim = await both(rig, app_one, noc)
    resolved = (await app_two.post("intents/resolve", json=WHOLE)).json()
    assert resolved["preemption"] == {
        "anchorId": "a",
        "sessions": 1,
        "highestClass": "BACKGROUND",
        "retryAfterS": resolved["preemption"]["retryAfterS"],
    }
    assert "preemption" not in (await app_one.post("intents/resolve", json=WHOLE)).json()
    elsewhere = {"intent": {**WHOLE["intent"], "regions": ["us"]}}
    assert "preemption" not in (await app_two.post("intents/resolve", json=elsewhere)).json()
    assert (await app_one.get(f"sessions/{victim}")).json()["status"] == "AVAILABLE"
