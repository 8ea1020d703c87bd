"""Usage at the door: who sees whose, periods, pages, JSON and CSV, and sums that are never short."""

import asyncio
import csv
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from tests.adapters.northbound.conftest import INTENT, Rig

from aipaging.adapters.northbound import usage_desk
from aipaging.adapters.northbound.usage_desk import UsageDesk
from aipaging.apps.evidence.usage import usage as usage_command
from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.foundation.names import AnchorId, SessionId
from aipaging.core.foundation.time import SECOND, WallUs
from aipaging.core.paging import commands as c
from aipaging.ports.usage import UsageSums

HOUR_US = 3600 * SECOND


async def used(rig: Rig, *clients: httpx.AsyncClient) -> None:
    """Let each client use something for half a minute."""
    for number, client in enumerate(clients):
        session = (await client.post("sessions", json={"intent": INTENT})).json()["sessionId"]
        await rig.settled()
        rig.clock.passed_us += 10 * SECOND
        counted = ((SessionId(session), number + 1, 100),)
        await rig.engine.submit(c.MeterSessions(anchor=AnchorId("a"), boot="b", batch=number + 1, used=counted))
        rig.clock.passed_us += 20 * SECOND
        for anchor in ("a", "b"):
            await rig.engine.submit(c.Heartbeat(anchor=AnchorId(anchor), state=AnchorState.READY))
        assert (await client.delete(f"sessions/{session}")).status_code == 204
        await rig.settled()


async def usage(client: httpx.AsyncClient, **query: str) -> dict[str, Any]:
    answer = await client.get("usage", params=query)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def test_a_client_sees_its_own_tenant_and_an_operator_everybody(
    rig: Rig, app_one: httpx.AsyncClient, app_two: httpx.AsyncClient, noc: httpx.AsyncClient
) -> None:
    await used(rig, app_one, app_two)
    mine = await usage(app_one)
    assert [(each["tenant"], each["sessions"], each["requests"]) for each in mine["usage"]] == [("tenant-one", 1, 1)]
    assert mine["pagination"]["totalCount"] == 1
    assert (await usage(app_one, tenant="tenant-one"))["usage"] == mine["usage"]
    refused = await app_one.get("usage", params={"tenant": "tenant-two"})
    assert (refused.status_code, refused.json()["code"]) == (404, "NOT_FOUND")
    everybody = (await usage(noc))["usage"]
    assert [each["tenant"] for each in everybody] == ["tenant-one", "tenant-two"]
    assert everybody[0] == mine["usage"][0]
    assert everybody[1] == (await usage(app_two))["usage"][0] == (await usage(noc, tenant="tenant-two"))["usage"][0]
    assert everybody[1]["leaseSeconds"] >= 30
    assert (await noc.get("usage", headers={"authorization": "Bearer none"})).status_code == 401


async def test_it_is_what_the_command_derives_from_the_journal_as_json_and_as_csv(
    rig: Rig, app_one: httpx.AsyncClient, app_two: httpx.AsyncClient, noc: httpx.AsyncClient
) -> None:
    await used(rig, app_one, app_two)
    offline = await asyncio.to_thread(CliRunner().invoke, usage_command, [str(rig.path), "--json"])
    rows = json.loads(offline.stdout)["tenants"]
    for row, each in zip(rows, (await usage(noc))["usage"], strict=True):
        assert list(row.values()) == list(each.values())
    told = await noc.get("usage", headers={"accept": "text/csv, application/json;q=0.5"})
    assert told.headers["content-type"].startswith("text/csv")
    assert told.headers["x-total-count"] == "2"
    printed = await asyncio.to_thread(CliRunner().invoke, usage_command, [str(rig.path), "--csv"])
    assert told.text == printed.stdout
    assert len(list(csv.DictReader(told.text.splitlines()))) == 2
    for accept in ("application/json, text/csv", "*/*", "text/html", "text/csv;q=0"):
        answer = await noc.get("usage", headers={"accept": accept})
        assert answer.headers["content-type"] == "application/json", accept


async def test_periods_and_pages(
    rig: Rig, app_one: httpx.AsyncClient, app_two: httpx.AsyncClient, noc: httpx.AsyncClient
) -> None:
    await used(rig, app_one)
    rig.clock.passed_us += HOUR_US
    for anchor in ("a", "b"):
        await rig.engine.submit(c.Heartbeat(anchor=AnchorId(anchor), state=AnchorState.READY))
    await used(rig, app_two)
    hour_s = rig.clock.now().wall_us // HOUR_US * 3600
    moment = datetime.fromtimestamp(hour_s, UTC)
    middle = moment.isoformat().replace("+00:00", "Z")
    before, after = await usage(noc, periodEnd=middle), await usage(noc, periodStart=middle)
    assert [each["tenant"] for each in before["usage"]] == ["tenant-one"]
    assert [each["tenant"] for each in after["usage"]] == ["tenant-two"]
    assert (before["periodEnd"], after["periodStart"], "periodStart" in before) == (middle, middle, False)
    second = await usage(noc, page="2", perPage="1")
    assert [each["tenant"] for each in second["usage"]] == ["tenant-two"]
    assert second["pagination"] == {"page": 2, "perPage": 1, "totalCount": 2, "totalPages": 2}
    assert (await usage(noc, page="99"))["usage"] == []


@pytest.mark.parametrize(
    "query",
    [
        {"periodStart": "yesterday"},
        {"periodStart": "2026-11-01"},
        {"periodStart": "2026-11-01T00:00:00"},
        {"periodStart": "2026-11-01T00:00:01Z"},
        {"periodStart": "2026-11-01T00:07:00Z"},
        {"periodStart": "0001-01-01T00:00:00+14:00"},
        {"periodStart": "1969-12-31T00:00:00Z"},
        {"periodStart": "2026-11-02T00:00:00Z", "periodEnd": "2026-11-01T00:00:00Z"},
        {"periodStart": "2026-11-02T00:00:00Z", "periodEnd": "2026-11-02T00:00:00Z"},
        {"tenant": "Not A Name"},
        {"perPage": "0"},
        {"since": "2026-11-01T00:00:00Z"},
    ],
)
async def test_what_is_no_period_is_refused(noc: httpx.AsyncClient, query: dict[str, str]) -> None:
    answer = await noc.get("usage", params=query)
    assert answer.status_code == 400, answer.text
    assert answer.json()["who"] == "caller"


async def test_a_period_of_another_zone_is_taken(noc: httpx.AsyncClient) -> None:
    kathmandu = await usage(noc, periodStart="2026-11-01T00:00:00+05:45")
    assert kathmandu["periodStart"] == "2026-10-31T18:15:00Z"


class Behind:
    """Sums that never come to the end of the log."""

    def __init__(self) -> None:
        self.taken = 0
        self.behind = True

    def take(self) -> bool:
        self.taken += 1
        return self.behind

    def between(self, _from_us: WallUs, _to_us: WallUs, _tenant: str | None) -> UsageSums:
        return UsageSums(tenants={}, accounted_us=WallUs(0))

    def close(self) -> None:
        return


async def test_sums_that_are_behind_are_not_told_and_the_loop_is_free_meanwhile(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_desk, "CATCH_UP_S", 0.05)
    behind = Behind()
    rig.service = replace(rig.service, usage=UsageDesk(behind))
    rig.app = rig.rebuilt()
    async with rig.client("noc") as noc:
        asked = asyncio.create_task(noc.get("usage"))
        assert (await noc.get("services")).status_code == 200
        answer = await asked
        assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "UNAVAILABLE", "10")
        behind.behind = False
        monkeypatch.setattr(usage_desk, "CATCH_UP_S", 60.0)
        assert (await noc.get("usage")).status_code == 200
    rig.service.usage.close()


async def test_sums_follow_the_log_without_being_asked_and_over_errors(
    rig: Rig, app_one: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(usage_desk, "FOLLOW_S", 0.01)
    await used(rig, app_one)
    whole, rig.path = rig.path, rig.path.with_name("moved.db")
    following = asyncio.create_task(rig.usage.keep_current())
    try:
        async with asyncio.timeout(30):
            while "usage cannot be summed" not in caplog.messages:
                await asyncio.sleep(0.01)
            rig.path = whole
            while not rig.usage._account.between(WallUs(0), WallUs(2**53 - 1), None).tenants:
                await asyncio.sleep(0.01)
    finally:
        following.cancel()
