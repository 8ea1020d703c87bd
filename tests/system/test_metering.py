"""What tenants used, as the evidence has it after controller and sidecars were killed: every answer once."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from tests.system.living import READY_S_MAX, Living
from tests.system.upstream import TOKENS

from aipaging.testing.stack import CONTROLLER

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("system-metering")]


@pytest.fixture(scope="module")
def changes() -> dict[str, Any]:
    return {"sidecar_options": ("--usage-s", "0.2")}


def used(system: Living) -> tuple[int, int]:
    """Return requests and tokens as the command sums them."""
    said = system.command("usage", str(system.journal), "--tenant", "acme", "--json")
    rows: list[dict[str, Any]] = json.loads(said.stdout)["tenants"]
    return (rows[0]["requests"], rows[0]["tokens"]) if rows else (0, 0)


async def until_used(system: Living, requests: int) -> None:
    expected = (requests, requests * TOKENS)
    async with asyncio.timeout(READY_S_MAX):
        while (found := used(system)) != expected:
            assert found[0] <= requests, f"{found} were recorded and {requests} served"
            await asyncio.sleep(0.2)


async def served(system: Living, session: dict[str, Any], count: int) -> int:
    """Have requests served, one after the other, and return how many were."""
    before = len([each for each in system.reached if each.target == "/v1/count"])
    async with asyncio.timeout(READY_S_MAX), system.user() as client:
        done = 0
        while done < count:
            done += (await system.ask(session["aist"], "/v1/count", client=client)).served
            await asyncio.sleep(0.02)
    return len([each for each in system.reached if each.target == "/v1/count"]) - before


async def test_every_answer_is_in_the_evidence_once_whoever_was_killed(mortal: Living) -> None:
    session = await mortal.page()
    requests = await served(mortal, session, 5)
    await until_used(mortal, requests)
    for _ in range(3):
        requests += await served(mortal, session, 5)
        mortal.kill(CONTROLLER)  # at any moment of a batch: before it came, recorded but not answered, or after
        await mortal.start_controller()
        await mortal.until_ready()
    await until_used(mortal, requests)
    anchor = (await mortal.session(session))["anchorId"]
    mortal.kill(anchor)  # its counts had been taken; it begins a boot of its own
    await mortal.start_sidecar(anchor)
    await mortal.until_ready()
    requests += await served(mortal, session, 5)
    await until_used(mortal, requests)
    mortal.verified()
    await mortal.end(session)


async def test_a_lying_anchor_is_believed_within_the_contract_only_and_named(mortal: Living) -> None:
    session = await mortal.page(ratePerSecond=5, burst=1, durationS=60)
    identity = mortal.folder / "identities" / f"own-anchor-{session['anchorId']}"
    url = f"{mortal.southbound_url}/anchors/{session['anchorId']}/usage"
    async with httpx.AsyncClient(verify=mortal.trusting(identity), trust_env=False) as liar:

        async def says(batch: int, requests: int, tokens: int) -> list[str]:
            counts = [{"session": session["sessionId"], "requests": requests, "tokens": tokens}]
            answer = await liar.put(url, json={"boot": "liar", "batch": batch, "used": counts})
            assert answer.status_code == 200, answer.text
            return [each["code"] for each in answer.json()["refused"]]

        assert await says(1, 1_000_000, 0) == ["USAGE_IMPLAUSIBLE"]
        assert await says(2, 1, 2**40) == ["USAGE_IMPLAUSIBLE"]
        assert await says(3, 2, 11) == []
    leaves = [
        leaf
        for record in mortal.verified()
        if record["type"] == "SESSIONS_METERED"
        for leaf in record["leaves"]
        if leaf["session"] == session["sessionId"]
    ]
    assert [(leaf["anchor"], leaf["requests"], leaf["tokens"]) for leaf in leaves] == [(session["anchorId"], 2, 11)]
    await mortal.end(session)
