"""How often operators may change what leaves evidence, and that nothing of theirs holds up what protects."""

import json
from pathlib import Path

import httpx
import pytest
from tests.adapters.northbound.conftest import SECRETS, Rig
from tests.adapters.northbound.test_contract import whole

from aipaging.adapters.northbound.credentials import OPERATOR_SCOPES, Caller
from aipaging.adapters.northbound.operation import READING
from aipaging.adapters.northbound.rate_limits import OPERATOR_CHANGES, OPERATOR_PROTECTION, Limits, OperatorRates, Use
from aipaging.core.foundation.errors import RefusedError
from aipaging.core.foundation.names import ClientId, TenantId
from aipaging.core.paging.switching import SWITCHES_MAX
from aipaging.runtime.http.rates import CallerRates, RateLimit

NOC = Caller(client=ClientId("noc"), tenant=TenantId("operator"), scopes=OPERATOR_SCOPES, operator=True)
KILL = {"kind": "TENANT", "name": "tenant-one", "reason": "its credentials leaked"}
QUOTAS = {"quotas": {"sessionsMax": 1}}
DIGEST = "0" * 64
KEY = "A" * 43


def actions_of(rig: Rig) -> list[tuple[str, int]]:
    records = [json.loads(entry.record) for entry in rig.journal.read(0)]
    return [(each["operation"], each["status"]) for each in records if each["type"] == "OPERATOR_ACTION"]


@pytest.fixture
async def whole_rig(rig: Rig, tmp_path: Path) -> Rig:
    whole(rig, tmp_path)
    return rig


async def test_changes_that_come_too_often_leave_one_record_and_hold_up_nothing_that_protects(whole_rig: Rig) -> None:
    whole_rig.service.operator_rates.changes.limit = RateLimit(per_second=0.001, burst=3)
    async with whole_rig.client("noc") as noc:

        async def changed() -> list[httpx.Response]:
            return [
                await noc.post("anchors/nowhere/drain"),
                await noc.post("anchors", json={"no": "anchor"}),
                await noc.put("tenants/acme", json=QUOTAS),
            ]

        assert [answer.status_code for answer in await changed()] == [404, 400, 200], "what fails counts as well"
        for _ in range(3):
            for answer in await changed():
                assert (answer.status_code, answer.json()["code"]) == (429, "TOO_MANY_REQUESTS")
                assert int(answer.headers["retry-after"]) > 1
        done = [("drainAnchor", 404), ("registerAnchor", 400), ("putTenant", 200), ("drainAnchor", 429)]
        protecting = [
            await noc.post("switches/kill", json=KILL),
            await noc.post("clients/app-two/shut-out"),
            await noc.post(f"envelopes/{DIGEST}/suspect", json={"reason": "violated"}),
            await noc.post(f"keys/{KEY}/retire"),
        ]
        assert [answer.status_code for answer in protecting] == [200, 200, 404, 404]
        assert (await noc.get("anchors")).status_code == 200, "nor what reads"
        assert (await noc.post("switches/restore", json=KILL)).status_code == 429
    async with whole_rig.client(None) as nobody:
        form = {"client_id": "noc", "client_secret": SECRETS["noc"][0], "token": "never-issued"}
        assert (await nobody.post("http://test/oauth2/revoke", data=form)).status_code == 200
    async with whole_rig.client("app-one") as client:
        assert (await client.get("services")).status_code == 200, "nor anybody else"
    done += [("kill", 200), ("shutClientOut", 200), ("suspectEnvelope", 404), ("retireTokenKey", 404)]
    assert actions_of(whole_rig)[: len(done)] == done


async def test_what_protects_has_a_limit_of_its_own(whole_rig: Rig) -> None:
    whole_rig.service.operator_rates.protection.limit = RateLimit(per_second=0.001, burst=2)
    async with whole_rig.client("noc") as noc:
        answers = [(await noc.post("switches/kill", json=KILL)).status_code for _ in range(5)]
        assert answers == [200, 200, 429, 429, 429]
        assert (await noc.post("clients/app-two/shut-out")).status_code == 429
        form = {"client_id": "noc", "client_secret": SECRETS["noc"][0], "token": "never-issued"}
        assert (
            await noc.post("http://test/oauth2/revoke", data=form, headers={"authorization": ""})
        ).status_code == 429
        assert (await noc.post("switches/restore", json=KILL)).status_code == 200
        assert (await noc.put("tenants/acme", json=QUOTAS)).status_code == 200
    assert actions_of(whole_rig) == [("kill", 200), ("kill", 200), ("kill", 429), ("restore", 200), ("putTenant", 200)]


async def test_only_what_takes_away_protects(whole_rig: Rig) -> None:
    protecting = [operation for operation in whole_rig.operations() if operation.protects]
    assert {operation.name for operation in protecting} == {
        "kill", "shutClientOut", "retireTokenKey", "suspectEnvelope"
    }  # fmt: skip
    assert all(str(operation.scope).rpartition(":")[2] not in READING for operation in protecting)


def test_no_honest_bulk_of_changes_meets_the_limit() -> None:
    still = [0.0]
    rates = OperatorRates(
        changes=CallerRates(OPERATOR_CHANGES, clock=lambda: still[0]),
        protection=CallerRates(OPERATOR_PROTECTION, clock=lambda: still[0]),
    )
    limits = Limits(CallerRates(RateLimit(per_second=0.001, burst=1)), rates)
    for _ in range(10_000):
        limits.take(NOC, Use.CHANGE)
    for _ in range(SWITCHES_MAX):
        limits.take(NOC, Use.PROTECT)
    with pytest.raises(RefusedError) as refused:
        limits.take(NOC, Use.CHANGE)
    assert refused.value.retry_after_s == 1


def test_that_an_operator_asks_too_often_is_notable_once_a_minute() -> None:
    now = [0.0]
    rates = OperatorRates(refusals=CallerRates(OperatorRates().refusals.limit, clock=lambda: now[0]))
    limits = Limits(CallerRates(RateLimit(per_second=0.001, burst=1)), rates)
    assert [limits.notable(NOC) for _ in range(3)] == [True, False, False]
    other = Caller(client=ClientId("audit"), tenant=NOC.tenant, scopes=NOC.scopes, operator=True)
    assert limits.notable(other)
    now[0] = 59.0
    assert not limits.notable(NOC)
    now[0] = 61.0
    assert [limits.notable(NOC) for _ in range(2)] == [True, False]
    client = Caller(client=ClientId("app"), tenant=NOC.tenant, scopes=frozenset(), operator=False)
    assert not limits.notable(client), "what a client does leaves records of its own"
