"""The guardrail of a lease at a real gateway: what arrives at the anchor is counted, nobody is asked."""

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path
from types import MappingProxyType
from typing import Final

import pytest
import pytest_asyncio

from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import SessionId
from aipaging.testing.envoy_rig import EnvoyRig, envoy_rig
from aipaging.testing.recording_anchor import Received

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

MINUTE_MS: Final = 60_000
CLUMPING_MS: Final = 10
"""What the filter lets the way to it push together."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EnvoyRig]:
    async with envoy_rig(tmp_path_factory.mktemp("guardrails"), workers=2) as shared:
        yield shared


async def granted(rig: EnvoyRig, *, rate_rps: float, burst: int, epoch: Epoch | None = None) -> SessionId:
    session = rig.session()
    rig.rate_mrps, rig.burst = int(rate_rps * 1000), burst
    await rig.driver.install([rig.grant(session, rig.anchors[0], epoch or Epoch(1, 1), MINUTE_MS)])
    return session


def arrived(rig: EnvoyRig, session: SessionId) -> list[Received]:
    token = f"Bearer {rig.tokens[session]}"
    return [
        seen
        for server in rig.anchor_servers.values()
        for seen in server.received
        if seen.headers.get("authorization") == token
    ]


async def test_a_burst_over_many_connections_and_two_workers_passes_exactly_the_contract(rig: EnvoyRig) -> None:
    session = await granted(rig, rate_rps=0.01, burst=12)
    for _ in range(3):
        replies = await asyncio.gather(*(rig.send(session) for _ in range(40)))
        assert {reply.status_code for reply in replies} <= {200, 429}
    assert len(arrived(rig, session)) == 12  # not once per worker, and none less
    assert len({seen.headers["x-aipaging-commit"] for seen in arrived(rig, session)}) == 1


async def test_a_refusal_names_the_guardrail_and_when_to_come_back(rig: EnvoyRig) -> None:
    session = await granted(rig, rate_rps=0.05, burst=2)
    replies = [await rig.send(session) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    last = replies[-1]
    assert last.headers["content-type"] == "application/json"
    assert "connection" not in last.headers, "the connection is kept"
    said = last.json()
    assert said["code"] == "GUARDRAIL_EXCEEDED"
    assert said["status"] == 429
    guardrail = MappingProxyType(said["guardrail"])
    assert guardrail["ratePerSecond"] == 0.05
    assert guardrail["burst"] == 2
    assert guardrail["enforcedBy"] == "gateway"
    assert 10_000 < guardrail["retryAfterMs"] <= 20_000
    assert int(last.headers["retry-after"]) == math.ceil(guardrail["retryAfterMs"] / 1000)


async def test_who_comes_back_when_told_is_let_in(rig: EnvoyRig) -> None:
    session = await granted(rig, rate_rps=10, burst=1)
    assert (await rig.send(session)).status_code == 200
    async with asyncio.timeout(60):
        while (refused := await rig.send(session)).status_code == 200:
            continue  # it took a tenth of a second
    assert refused.status_code == 429
    await rig.advance(refused.json()["guardrail"]["retryAfterMs"])
    assert (await rig.send(session)).status_code == 200


async def test_an_offender_is_policed_to_its_rate_and_does_not_pay_for_what_was_refused(rig: EnvoyRig) -> None:
    rate_rps, burst, asked = 1, 5, 80
    session = await granted(rig, rate_rps=rate_rps, burst=burst)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    for _ in range(asked // 8):
        await asyncio.gather(*(rig.send(session) for _ in range(8)))
    seconds = loop.time() - began_s
    passed = len(arrived(rig, session))
    assert passed <= burst + rate_rps * (seconds + CLUMPING_MS / 1000) + 1
    assert passed < asked / 2, "it did not offend"
    # Had it to pay for what was refused, it would be let in after half a minute, and not after a second.
    await rig.advance(1_000 / rate_rps + CLUMPING_MS)
    assert (await rig.send(session)).status_code == 200


async def test_one_session_s_offence_is_not_another_s(rig: EnvoyRig) -> None:
    offender = await granted(rig, rate_rps=0.01, burst=1)
    conforming = await granted(rig, rate_rps=200, burst=2)
    for _ in range(20):
        await asyncio.gather(rig.send(offender), rig.send(offender), return_exceptions=True)
        assert (await rig.send(conforming)).status_code == 200
        await rig.advance(5)
    assert len(arrived(rig, offender)) == 1


async def test_a_new_epoch_is_no_new_burst(rig: EnvoyRig) -> None:
    session = await granted(rig, rate_rps=0.01, burst=3)
    assert [(await rig.send(session)).status_code for _ in range(4)] == [200, 200, 200, 429]
    await rig.driver.install([rig.grant(session, rig.anchors[1], Epoch(1, 2), MINUTE_MS)])
    assert (await rig.send(session)).status_code == 429
    assert len(arrived(rig, session)) == 3


@pytest.mark.asyncio
async def test_an_envoy_that_was_killed_comes_back_with_guardrails_of_its_own(tmp_path: Path) -> None:
    async with envoy_rig(tmp_path, workers=2) as rig:
        session = await granted(rig, rate_rps=0.01, burst=2)
        assert [(await rig.send(session)).status_code for _ in range(3)] == [200, 200, 429]
        before = (rig.gateway.run_directory / "guardrails").read_bytes()
        await rig.supervisor.stop()
        await rig.supervisor.start()
        await rig.connected()
        assert (rig.gateway.run_directory / "guardrails").read_bytes() != before
        assert (await rig.send(session)).status_code == 200
