"""Quotas, kill switches and rate limits over HTTP: what is refused, what is left, and that nothing races past."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.adapters.northbound.conftest import INTENT, Rig
from tests.adapters.northbound.test_contract import whole

from aipaging.core.foundation.errors import RefusedError, UnavailableError
from aipaging.core.foundation.names import GatewayId, SessionId
from aipaging.core.paging import commands as c
from aipaging.core.paging.tenancy_events import SwitchKind
from aipaging.runtime.http.rates import CALLERS_MAX, CallerRates, RateLimit

SMALL: dict[str, Any] = {**INTENT, "ratePerSecond": 1, "burst": 1, "durationS": 600}
PAGE: dict[str, Any] = {"intent": SMALL}


async def test_racing_pages_never_pass_a_quota(rig: Rig, app_one: httpx.AsyncClient, noc: httpx.AsyncClient) -> None:
    put = await noc.put("tenants/tenant-one", json={"quotas": {"sessionsMax": 5}})
    assert put.status_code == 200, put.text
    answers = await asyncio.gather(*(app_one.post("sessions", json=PAGE) for _ in range(20)))
    refused = [answer for answer in answers if answer.status_code != 201]
    assert len(answers) - len(refused) == 5 == rig.engine.state.live
    assert {(each.status_code, each.json()["code"]) for each in refused} == {(429, "QUOTA_EXCEEDED")}
    assert "5 sessions: 5 are used, 0 are left" in refused[0].json()["message"]
    assert int(refused[0].headers["retry-after"]) == 600
    holds = (await app_one.get("tenants/tenant-one")).json()["holds"]
    assert (holds["sessions"], holds["requestsPerSecond"], holds["reservedPerSecond"]) == (5, 5.0, 5.0)


@pytest.mark.parametrize(
    ("quota", "most", "held", "given_back"),
    [
        ("requestsPerSecondMax", 5, "requestsPerSecond", 2),
        ("reservedPerSecondMax", 5, "reservedPerSecond", 0),  # only when nobody can believe in the lease any more
        ("spendMax", 60, "spent", 2),
    ],
)
async def test_racing_pages_extensions_and_ends_never_pass_any_quota(
    rig: Rig, app_one: httpx.AsyncClient, noc: httpx.AsyncClient, quota: str, most: int, held: str, given_back: int
) -> None:
    """A session sends one request/s for 600 s, and costs twelve: five of them are every quota."""
    quotas = {"quotas": {quota: most, "periodS": 86_400}}
    assert (await noc.put("tenants/tenant-one", json=quotas)).status_code == 200
    page = {"intent": {**SMALL, "regions": ["eu"]}}
    sessions: list[str] = []
    highest = 0.0

    async def asked(answer: Any) -> int:
        nonlocal highest
        status = (await answer).status_code
        highest = max(highest, (await app_one.get("tenants/tenant-one")).json()["holds"][held])
        return int(status)

    async def paged() -> int:
        answer = await app_one.post("sessions", json=page)
        if answer.status_code == 201:
            sessions.append(answer.json()["sessionId"])
        return answer.status_code

    first = await asyncio.gather(*(paged() for _ in range(12)))
    assert sorted(first) == [201] * 5 + [429] * 7
    gone = [asked(app_one.delete(f"sessions/{session}")) for session in sessions[:2]]
    assert await asyncio.gather(*gone) == [204, 204]
    await rig.settled()
    kept = sessions[2:]
    more = {"additionalDurationS": 600}
    again = [asked(app_one.post("sessions", json=page)) for _ in range(6)]
    longer = [asked(app_one.post(f"sessions/{session}/extend", json=more)) for session in kept]
    statuses = await asyncio.gather(*again, *longer)
    assert set(statuses) <= {200, 201, 429}
    assert sum(status == 201 for status in statuses) == given_back, "and no more"
    assert statuses[6:] == [429 if held == "spent" else 200] * 3, "an extension costs, and takes no rate"
    assert highest <= most
    assert (await noc.get("tenants/tenant-one")).json()["holds"][held] <= most


async def test_a_client_reads_its_own_tenant_and_changes_none(
    app_one: httpx.AsyncClient, noc: httpx.AsyncClient
) -> None:
    await noc.put("tenants/tenant-two", json={"priority": "URGENT", "preempts": True})
    assert (await app_one.get("tenants/tenant-two")).status_code == 404
    assert (await app_one.put("tenants/tenant-one", json={})).status_code == 403
    assert (await app_one.get("tenants")).status_code == 403
    listed = (await noc.get("tenants")).json()["tenants"]
    assert [(each["tenant"], each["priority"], each["preempts"]) for each in listed] == [("tenant-two", "URGENT", True)]
    assert (await noc.put("tenants/UPPER", json={})).status_code == 400
    assert (await noc.put("tenants/x", json={"quotas": {"sessionsMax": -1}})).status_code == 400


@pytest.mark.parametrize(
    ("kind", "name"),
    [("TENANT", "tenant-one"), ("SERVICE", "aisi://example/embed/minilm"), ("ANCHOR", "a"), ("ALL", "")],
)
async def test_a_killed_session_is_not_steered_from_the_answer_on(
    rig: Rig, app_one: httpx.AsyncClient, noc: httpx.AsyncClient, kind: str, name: str
) -> None:
    document = {"intent": {**SMALL, "regions": ["eu"]}}
    created = (await app_one.post("sessions", json=document)).json()
    session = SessionId(created["sessionId"])
    assert rig.steering.route(session) is not None
    lease = rig.engine.state.sessions[session].lease
    assert lease is not None
    killed = await noc.post("switches/kill", json={"kind": kind, "name": name, "reason": "a leak"})
    assert killed.status_code == 200, killed.text
    assert rig.steering.route(session) is None, "the very next request is not steered"
    with pytest.raises(RefusedError):
        await rig.engine.submit(
            c.ConfirmInstalled(session=session, anchor=lease.anchor, epoch=lease.epoch, gateway=GatewayId("g"))
        )
    assert (await app_one.get(f"sessions/{session}")).json()["status"] == "UNAVAILABLE"
    refused = await app_one.post("sessions", json=document)
    assert refused.status_code in {403, 422}
    assert "a leak" in refused.text
    listed = (await noc.get("switches")).json()["switches"]
    assert [(each["kind"], each["name"]) for each in listed] == [(kind, name)]
    restored = await noc.post("switches/restore", json={"kind": kind, "name": name, "reason": "rotated"})
    assert restored.json() == {"switches": []}
    again = await noc.post("switches/restore", json={"kind": kind, "name": name, "reason": "rotated"})
    assert again.status_code == 404


async def test_a_kill_names_something_that_can_be(app_one: httpx.AsyncClient, noc: httpx.AsyncClient) -> None:
    for wrong in (
        {"kind": "ALL", "name": "x", "reason": "r"},
        {"kind": "SERVICE", "name": "x", "reason": "r"},
        {"kind": "TENANT", "name": "", "reason": "r"},
        {"kind": "TENANT", "name": "x", "reason": ""},
    ):
        assert (await noc.post("switches/kill", json=wrong)).status_code == 400
    assert (await app_one.post("switches/kill", json={"kind": "ALL", "reason": "r"})).status_code == 403


async def test_a_kill_of_what_does_not_exist_is_refused_and_stops_no_recovery(
    rig: Rig, noc: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    slip = {"kind": "ANCHOR", "name": "c", "reason": "a leak"}
    refused = await noc.post("switches/kill", json=slip)
    assert (refused.status_code, refused.json()["code"], refused.json()["field"]) == (404, "NOT_FOUND", "name")
    assert "nothing is stopped: no anchor c is registered" in refused.json()["message"]
    assert (await noc.get("switches")).json() == {"switches": []}
    broken = UnavailableError("no disk", code="JOURNAL_BROKEN")

    def fail(*_args: object, **_options: object) -> None:
        raise broken

    with monkeypatch.context() as patched:
        patched.setattr(rig.journal, "append", fail)
        assert (await noc.post("switches/kill", json=slip | {"name": "a"})).status_code == 503
        assert (await noc.post("switches/kill", json=slip)).status_code == 503, "its record is not to be had, either"
    rig.clock.passed_us += 5_000_000
    async with asyncio.timeout(60):
        while not rig.engine.healthy:
            await asyncio.sleep(0.01)
    assert [each["name"] for each in (await noc.get("switches")).json()["switches"]] == ["a"]


async def test_a_switch_is_taken_back_although_its_anchor_is_gone(rig: Rig, noc: httpx.AsyncClient) -> None:
    kill = {"kind": "ANCHOR", "name": "b", "reason": "compromised"}
    assert (await noc.post("switches/kill", json=kill)).status_code == 200
    assert (await noc.delete("anchors/b")).status_code == 204
    assert (await noc.post("switches/kill", json=kill)).status_code == 200, "it stands"
    assert (await noc.post("switches/restore", json=kill)).json() == {"switches": []}
    assert (await noc.post("switches/kill", json=kill)).status_code == 404


async def test_a_tenant_that_nobody_knows_is_stopped_before_it_comes(
    rig: Rig, app_one: httpx.AsyncClient, tmp_path: Path
) -> None:
    whole(rig, tmp_path)
    async with rig.client("noc") as noc:
        for name, noted in (("tenant-one", False), ("tenant-onr", True)):
            killed = (await noc.post("switches/kill", json={"kind": "TENANT", "name": name, "reason": "leak"})).json()
            assert ("note" in killed) is noted
            assert name in {each["name"] for each in killed["switches"]}
        assert "Is tenant-one" in killed["note"]
        assert "note" not in (await noc.get("switches")).json()


async def test_a_kill_while_the_journal_fails_cuts_at_once_and_holds_after_the_recovery(
    rig: Rig, app_one: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = (await app_one.post("sessions", json=PAGE)).json()
    session = SessionId(created["sessionId"])
    broken = UnavailableError("no disk", code="JOURNAL_BROKEN")

    def fail(*_args: object, **_options: object) -> None:
        raise broken

    with monkeypatch.context() as patched:
        patched.setattr(rig.journal, "append", fail)
        with pytest.raises(UnavailableError):
            await rig.engine.submit(c.Kill(kind=SwitchKind.TENANT, name="tenant-one", reason="a leak"))
        assert rig.steering.route(session) is None
    rig.clock.passed_us += 5_000_000
    async with asyncio.timeout(60):
        while not rig.engine.healthy:
            await asyncio.sleep(0.01)
    assert not rig.engine.state.sessions[session].available
    assert (await app_one.post("sessions", json=PAGE)).status_code == 403


async def test_a_client_that_asks_too_often_is_told_when_to_come_back(rig: Rig) -> None:
    now = [0.0]
    rates = CallerRates(RateLimit(per_second=0.5, burst=2), clock=lambda: now[0])
    for _ in range(2):
        rates.take("a")
    with pytest.raises(RefusedError) as error:
        rates.take("a")
    assert (error.value.code, error.value.retry_after_s) == ("TOO_MANY_REQUESTS", 3)
    rates.take("b")
    now[0] = 2.0
    rates.take("a")
    for i in range(CALLERS_MAX):
        rates.take(f"c{i}")
    assert len(rates._buckets) == CALLERS_MAX


async def test_the_limit_is_of_clients_and_not_of_operators(
    rig: Rig, app_one: httpx.AsyncClient, app_two: httpx.AsyncClient, noc: httpx.AsyncClient
) -> None:
    rig.service.rates.limit = RateLimit(per_second=0.001, burst=1)
    assert (await app_one.get("services")).status_code == 200
    limited = await app_one.get("services")
    assert (limited.status_code, limited.json()["code"]) == (429, "TOO_MANY_REQUESTS")
    assert int(limited.headers["retry-after"]) > 1
    assert (await app_two.get("services")).status_code == 200
    for _ in range(5):
        assert (await noc.get("services")).status_code == 200
