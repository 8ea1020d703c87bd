"""A refused gateway asks again: the client of a stale gateway is served, and nobody is asked twice for nothing."""

import pytest

from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import SessionId
from aipaging.testing.envoy_rig import EnvoyRig

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

MINUTE_MS = 60_000


async def left_behind(rig: EnvoyRig, *, target: int = 1) -> SessionId:
    """Return a session that the gateway knows by epoch 1.1 at the first anchor, which has seen 1.2."""
    session = rig.session()
    first = rig.grant(session, rig.anchors[0], Epoch(1, 1), MINUTE_MS)
    await rig.driver.install([first])
    assert await rig.request(session) == rig.anchors[0]
    # The push that would tell the gateway is lost: only the table, from which look-ups are answered, knows.
    rig.driver._table.put(rig.grant(session, rig.anchors[target], Epoch(1, 2), MINUTE_MS))
    rig.anchor_servers[rig.anchors[0]].stale[first.receipt] = Epoch(1, 1)
    return session


@pytest.mark.parametrize("target", [0, 1])
async def test_the_request_itself_is_served_under_the_new_epoch(rig: EnvoyRig, target: int) -> None:
    session = await left_behind(rig, target=target)
    asked = rig.controller.look_ups
    for _ in range(3):
        assert await rig.request(session) == rig.anchors[target]
    assert rig.controller.look_ups == asked + 1, "one look-up: the entry was replaced"
    last = rig.anchor_servers[rig.anchors[target]].received[-1].headers
    assert "," not in last["x-aipaging-commit"], "one receipt"
    assert "x-aipaging-refused" not in last


async def test_a_body_is_sent_again(rig: EnvoyRig) -> None:
    session = await left_behind(rig)
    reply = await rig.client.post(
        f"{rig.url}/v1/echo", headers={"authorization": f"Bearer {rig.tokens[session]}"}, content=b"x" * 50_000
    )
    assert (reply.status_code, reply.json()) == (200, {"anchor": rig.anchors[1], "bytes": 50_000})


async def test_a_repetition_is_not_charged_twice(rig: EnvoyRig) -> None:
    wide, (rig.rate_mrps, rig.burst) = (rig.rate_mrps, rig.burst), (1, 3)
    try:
        session = await left_behind(rig)  # the first request
        statuses = [(await rig.send(session)).status_code for _ in range(3)]
    finally:
        rig.rate_mrps, rig.burst = wide
    assert statuses == [200, 200, 429]


async def test_who_is_refused_again_is_answered(rig: EnvoyRig) -> None:
    session = rig.session()
    grant = rig.grant(session, rig.anchors[0], Epoch(1, 1), MINUTE_MS)
    await rig.driver.install([grant])
    rig.anchor_servers[rig.anchors[0]].stale[grant.receipt] = Epoch(1, 1)
    seen = len(rig.anchor_servers[rig.anchors[0]].received)
    assert (await rig.send(session)).status_code == 409
    assert len(rig.anchor_servers[rig.anchors[0]].received) == seen + 2


async def test_a_client_cannot_play_the_refused_gateway(rig: EnvoyRig) -> None:
    session = rig.session()
    await rig.driver.install([rig.grant(session, rig.anchors[0], Epoch(1, 1), MINUTE_MS)])
    assert await rig.request(session) == rig.anchors[0]
    asked = rig.controller.look_ups
    assert await rig.request(session, {"x-aipaging-refused": "1.1"}) == rig.anchors[0]
    assert rig.controller.look_ups == asked
    assert "x-aipaging-refused" not in rig.anchor_servers[rig.anchors[0]].received[-1].headers


async def test_a_large_body_passes_on_a_miss(rig: EnvoyRig) -> None:
    session = rig.session()
    await rig.driver.install([rig.grant(session, rig.anchors[0], Epoch(1, 1), MINUTE_MS)])
    reply = await rig.client.post(
        f"{rig.url}/v1/echo", headers={"authorization": f"Bearer {rig.tokens[session]}"}, content=b"x" * 900_000
    )
    assert (reply.status_code, reply.json()["bytes"]) == (200, 900_000)
