"""Services, domains, anchors and envelopes over HTTP."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from tests.adapters.northbound.conftest import INTENT, Rig

from aipaging.adapters.northbound.documents.envelope import envelope_from_document
from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.foundation.names import AnchorId
from aipaging.core.paging.commands import Heartbeat

ANCHOR: dict[str, Any] = {
    "anchorId": "c",
    "domain": "edge-one",
    "aisi": "aisi://example/embed/minilm",
    "host": "10.0.0.9",
    "port": 9443,
    "capacityPerSecond": 12.5,
}
ENVELOPE: dict[str, Any] = {
    "domain": "edge-one",
    "sequence": 2,
    "contract": {"offsetMs": 20, "prefactor": 1.5, "decayPerMs": 0.1},
    "loss": 1e-6,
    "error": 1e-5,
    "ratePerSecondMax": 100,
    "burstMax": 20,
    "capacityPerSecond": 400.5,
    "validFrom": "2023-11-01T00:00:00Z",
    "validUntil": "2024-10-01T01:00:00+01:00",
    "dependence": "INDEPENDENT",
    "commonCause": "power.grid-1",
}


async def test_clients_read_the_catalogue(app_one: httpx.AsyncClient) -> None:
    services = (await app_one.get("services")).json()["services"]
    assert {service["aisi"] for service in services} == {"aisi://example/embed/minilm", "aisi://example/chat/load"}
    domains = (await app_one.get("domains")).json()["domains"]
    assert {domain["name"] for domain in domains if domain["kind"] == "ACCESS"} == {"access-eu", "access-us"}
    assert "reservedPerSecond" not in domains[0]


async def test_operators_see_what_is_reserved(app_one: httpx.AsyncClient, noc: httpx.AsyncClient) -> None:
    await app_one.post("sessions", json={"intent": INTENT})
    domains = {domain["name"]: domain for domain in (await noc.get("domains")).json()["domains"]}
    assert (domains["metro"]["reservedPerSecond"], domains["edge-two"]["reservedPerSecond"]) == (10, 0)
    anchors = {anchor["anchorId"]: anchor for anchor in (await noc.get("anchors")).json()["anchors"]}
    assert (anchors["a"]["reservedPerSecond"], anchors["a"]["sessions"], anchors["a"]["state"]) == (10, 1, "READY")
    assert anchors["b"]["sessions"] == 0


async def test_an_anchor_is_registered_described_anew_and_removed(rig: Rig, noc: httpx.AsyncClient) -> None:
    made = await noc.post("anchors", json=ANCHOR)
    assert made.status_code == 201
    assert made.json() == {
        **ANCHOR, "tls": True, "inFlightMax": 64, "state": "UNKNOWN", "reservedPerSecond": 0, "sessions": 0,
    }  # fmt: skip
    again = await noc.post("anchors", json={**ANCHOR, "port": 9444})
    assert (again.status_code, again.json()["port"]) == (200, 9444)
    assert (await noc.delete("anchors/c")).status_code == 204
    gone = await noc.delete("anchors/c")
    assert (gone.status_code, gone.json()["code"], gone.json()["field"]) == (404, "NOT_FOUND", "anchorId")
    assert AnchorId("c") not in rig.engine.state.catalogue.anchors


@pytest.mark.parametrize(
    ("changes", "status", "field"),
    [
        ({"domain": "nowhere"}, 404, "domain"),
        ({"aisi": "aisi://example/embed/other"}, 404, "aisi"),
        ({"aisi": "embed"}, 400, "aisi"),
        ({"anchorId": "c\n"}, 400, "anchorId"),
        ({"anchorId": "C"}, 400, "anchorId"),
        ({"host": "evil host"}, 400, "host"),
        ({"host": "10.0.0.9\n"}, 400, "host"),
        ({"port": 0}, 400, "port"),
        ({"capacityPerSecond": 0}, 400, "capacityPerSecond"),
        ({"tls": False}, 400, "tls"),
        ({"state": "READY"}, 400, "state"),
    ],
)
async def test_a_wrong_anchor_is_refused(
    noc: httpx.AsyncClient, changes: dict[str, Any], status: int, field: str
) -> None:
    answer = await noc.post("anchors", json={**ANCHOR, **changes})
    assert (answer.status_code, answer.json()["field"]) == (status, field)


async def test_without_tls_only_loopback(noc: httpx.AsyncClient) -> None:
    assert (await noc.post("anchors", json={**ANCHOR, "host": "127.0.0.1", "tls": False})).status_code == 201


async def test_an_anchor_in_use_is_not_removed(app_one: httpx.AsyncClient, noc: httpx.AsyncClient) -> None:
    await app_one.post("sessions", json={"intent": INTENT})
    answer = await noc.delete("anchors/a")
    assert (answer.status_code, answer.json()["code"]) == (409, "INCOMPATIBLE_STATE")


async def test_a_drained_anchor_loses_its_sessions_and_comes_back(
    rig: Rig, app_one: httpx.AsyncClient, noc: httpx.AsyncClient
) -> None:
    session = (await app_one.post("sessions", json={"intent": INTENT})).json()["sessionId"]
    drained = await noc.post("anchors/a/drain")
    assert (drained.status_code, drained.json()["state"]) == (200, "DRAINING")
    async with asyncio.timeout(60):
        while (await app_one.get(f"sessions/{session}")).json()["anchorId"] == "a":
            rig.clock.passed_us += 1_000
            await asyncio.sleep(0.01)
    moved = (await app_one.get(f"sessions/{session}")).json()
    assert (moved["anchorId"], moved["relocation"]["cause"]) == ("b", "ANCHOR_DRAINING")
    await rig.engine.submit(Heartbeat(anchor=AnchorId("a"), state=AnchorState.READY))
    assert (await noc.get("anchors")).json()["anchors"][0]["state"] == "DRAINING"
    assert (await noc.post("anchors/a/ready")).json()["state"] == "READY"
    wrong = await noc.post("anchors/a/ready")
    assert (wrong.status_code, wrong.json()["code"]) == (409, "INCOMPATIBLE_STATE")
    assert (await noc.post("anchors/nobody/drain")).status_code == 404
    assert (await noc.post("anchors/No/drain")).status_code == 400


async def test_an_envelope_comes_into_force(rig: Rig, noc: httpx.AsyncClient) -> None:
    accepted = await noc.post("envelopes", json=ENVELOPE)
    assert accepted.status_code == 201
    assert accepted.json() == {
        **ENVELOPE,
        "validUntil": "2024-10-01T00:00:00Z",
        "digest": accepted.json()["digest"],
        "state": "IN_FORCE",
        "keyId": accepted.json()["keyId"],
    }
    listed = {found["domain"]: found for found in (await noc.get("envelopes")).json()["envelopes"]}
    assert listed["edge-one"] == accepted.json()
    in_force = rig.engine.state.catalogue.envelopes["edge-one", ""]  # type: ignore[index]
    assert (in_force.contract.prefactor, in_force.capacity_mrps, in_force.common_cause) == (
        1.5,
        400_500,
        "power.grid-1",
    )


async def test_an_envelope_again_is_no_error_and_an_older_one_is(noc: httpx.AsyncClient) -> None:
    for _ in range(2):
        assert (await noc.post("envelopes", json=ENVELOPE)).status_code == 201
    older = await noc.post("envelopes", json={**ENVELOPE, "sequence": 1})
    assert (older.status_code, older.json()["code"]) == (409, "AI_PAGING.ENVELOPE_ROLLED_BACK")
    other = await noc.post("envelopes", json={**ENVELOPE, "loss": 0})
    assert (other.status_code, other.json()["code"]) == (409, "AI_PAGING.ENVELOPE_EQUIVOCATION")


@pytest.mark.parametrize(
    ("changes", "status", "field"),
    [
        ({"domain": "nowhere"}, 404, "domain"),
        ({"contract": {"offsetMs": 1, "prefactor": 1}}, 400, "contract.decayPerMs"),
        ({"contract": {"offsetMs": -1, "prefactor": 1, "decayPerMs": 1}}, 400, "contract.offsetMs"),
        ({"contract": {"offsetMs": 1, "prefactor": 1, "decayPerMs": 0}}, 400, "contract.decayPerMs"),
        ({"loss": 1.1}, 400, "loss"),
        ({"validUntil": "2022-01-01T00:00:00Z"}, 400, "validUntil"),
        ({"validUntil": "2033-01-01T00:00:00"}, 400, "validUntil"),
        ({"capacityPerSecond": 0.0001}, 400, "capacityPerSecond"),
        ({"segment": "embed"}, 400, "segment"),
        ({"dependence": "MAYBE"}, 400, "dependence"),
        ({"signature": "x"}, 400, "signature"),
    ],
)
async def test_a_wrong_envelope_is_refused(
    noc: httpx.AsyncClient, changes: dict[str, Any], status: int, field: str
) -> None:
    answer = await noc.post("envelopes", json={**ENVELOPE, **changes})
    assert (answer.status_code, answer.json()["field"]) == (status, field)


async def test_an_unlimited_envelope_is_told_from_a_tiny_one() -> None:
    document = {**ENVELOPE, "ratePerSecondMax": 0.07, "capacityPerSecond": 0}
    raw = json.dumps(document).encode()
    envelope = envelope_from_document(raw)
    assert (envelope.capacity_mrps, envelope.rate_mrps_max) == (0, 70)


async def test_worse_envelopes_move_sessions_away(app_one: httpx.AsyncClient, noc: httpx.AsyncClient) -> None:
    session = (await app_one.post("sessions", json={"intent": INTENT})).json()["sessionId"]
    worse = {**ENVELOPE, "contract": {"offsetMs": 240, "prefactor": 1, "decayPerMs": 0.1}}
    assert (await noc.post("envelopes", json=worse)).status_code == 201
    resolution = (await app_one.post("intents/resolve", json={"intent": INTENT})).json()
    reasons = {found["anchorId"]: found.get("rejection", {}).get("constraint") for found in resolution["candidates"]}
    assert (reasons["a"], reasons["b"]) == ("DELAY", None)
    assert (await app_one.get(f"sessions/{session}")).status_code == 200
