"""Findings at the door: who sees which, filters, pages, and what one says."""

import httpx
from tests.adapters.northbound.conftest import Rig

from aipaging.core.foundation.time import WallUs
from aipaging.core.paging.standing import Finding, RecordFinding
from aipaging.testing.audit_worlds import finding_record


def finding(name: str, tenant: str, verdict: str, *, domain: str = "edge-one", account: str = "") -> Finding:
    return Finding(
        finding=name, kind="VERDICT", domain=domain, tenant=tenant, verdict=verdict, envelope="",
        fields=finding_record(domain, tenant, verdict), account=account, wall_us=WallUs(1_700_000_000_000_000),
    )  # fmt: skip


async def test_clients_see_their_own_and_operators_all(
    rig: Rig, app_one: httpx.AsyncClient, noc: httpx.AsyncClient
) -> None:
    for number, (tenant, verdict) in enumerate((("tenant-one", "violated"), ("tenant-two", "compliant"))):
        await rig.engine.submit(RecordFinding(finding=finding(f"{number:x}", tenant, verdict)))
    mine = (await app_one.get("audits")).json()
    assert [(each["auditId"], each["verdict"]) for each in mine["audits"]] == [("0", "violated")]
    assert (await app_one.get("audits/1")).status_code == 404
    everybodys = (await noc.get("audits")).json()
    assert [each["auditId"] for each in everybodys["audits"]] == ["1", "0"]
    assert (await noc.get("audits/1")).json()["record"]["verdict"] == "compliant"


async def test_filters_and_pages(rig: Rig, noc: httpx.AsyncClient) -> None:
    account = '{"observed":0.5,"permitted":0.1,"domains":{},"unattributed":0.4}'
    for number in range(5):
        domain = "edge-one" if number % 2 else "end-to-end"
        found = finding(f"{number:x}", "tenant-one", "violated", domain=domain, account=account)
        await rig.engine.submit(RecordFinding(finding=found))
    listed = (await noc.get("audits?domain=end-to-end&perPage=2&page=2")).json()
    assert [each["auditId"] for each in listed["audits"]] == ["0"]
    assert listed["pagination"]["totalCount"] == 3
    assert (await noc.get("audits?verdict=guilty")).status_code == 400
    assert (await noc.get("audits/0")).json()["attribution"]["unattributed"] == 0.4


async def test_a_violation_takes_trust_once_for_each_verdict(rig: Rig, noc: httpx.AsyncClient) -> None:
    before = next(each for each in (await noc.get("domains")).json()["domains"] if each["name"] == "edge-one")["trust"]
    await rig.engine.submit(RecordFinding(finding=finding("a", "tenant-one", "violated")))
    after = next(each for each in (await noc.get("domains")).json()["domains"] if each["name"] == "edge-one")["trust"]
    assert after == max(0, before - 1)
