"""What a request meets at a real gateway, and what the anchor gets to see of it."""

import asyncio
import time

import httpx
import pytest

from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import SessionId
from aipaging.core.foundation.time import MS, SECOND
from aipaging.core.steering.grant import Fence, SteeringRenewal
from aipaging.testing.envoy_rig import FAULTS, Answer, EnvoyRig

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

MINUTE_MS = 60_000


async def granted(rig: EnvoyRig, *, lease_ms: int = MINUTE_MS, lifetime_us: int = 3_600 * SECOND) -> SessionId:
    session = rig.session(lifetime_us=lifetime_us)
    await rig.driver.install([rig.grant(session, rig.anchors[0], Epoch(1, 1), lease_ms)])
    return session


async def test_the_anchor_sees_the_receipt_and_no_steering_header_of_the_client(rig: EnvoyRig) -> None:
    session = rig.session()
    grant = rig.grant(session, rig.anchors[0], Epoch(1, 1), MINUTE_MS)
    await rig.driver.install([grant])
    spoofed = {
        "x-aipaging-commit": "forged",
        "x-aipaging-anchor": "anchor:anchor-2",
        "x-aipaging-anything": "1",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-envoy-retry-on": "5xx",
        "x-envoy-original-dst-host": "127.0.0.1:1",
        "x-kept": "yes",
    }
    for _ in range(2):  # a miss, then a hit
        assert await rig.request(session, spoofed) == rig.anchors[0]
        seen = rig.anchor_servers[rig.anchors[0]].received[-1].headers
        assert seen["x-aipaging-commit"] == grant.receipt
        assert seen["authorization"] == f"Bearer {rig.tokens[session]}"
        assert seen["x-kept"] == "yes"
        ours = {"x-aipaging-commit", "x-aipaging-session", "x-envoy-external-address"}  # the last: the client, by Envoy
        assert {name for name in seen if name.startswith(("x-aipaging-", "x-envoy-"))} == ours


NOT_TOKENS = [None, "Basic dTpw", "Bearer", "Bearer a b", "Bearer not.a.token", "Bearer é"]


@pytest.mark.parametrize("authorization", NOT_TOKENS)
async def test_without_a_valid_token_the_answer_is_401(rig: EnvoyRig, authorization: str | None) -> None:
    headers = {} if authorization is None else {"authorization": authorization.encode("latin-1")}
    reply = await rig.client.get(f"{rig.url}/v1/models", headers=headers)
    assert reply.status_code == 401
    assert reply.json()["code"] == "UNAUTHENTICATED"
    assert reply.json()["status"] == 401
    assert reply.headers["content-type"] == "application/json"


async def test_without_a_commit_the_answer_is_403(rig: EnvoyRig) -> None:
    reply = await rig.send(rig.session())
    assert (reply.status_code, reply.json()["code"]) == (403, "NO_COMMIT")


async def test_without_an_answer_of_the_controller_it_is_503(rig: EnvoyRig) -> None:
    session = await granted(rig)
    await rig.answer_malformed("server-error")
    try:
        reply = await rig.send(session)
    finally:
        await rig.answer_malformed(None)
    assert (reply.status_code, reply.json()["code"]) == (503, "UNAVAILABLE")
    assert reply.headers["retry-after"] == "1"


async def test_a_controller_that_may_not_grant_time_steers_nobody(rig: EnvoyRig) -> None:
    session = await granted(rig)
    rig.controller.open = False
    try:
        assert (await rig.send(session)).status_code == 503
    finally:
        rig.controller.open = True
    assert (await rig.send(session)).status_code == 200


@pytest.mark.parametrize(
    "path", ["/aipaging/v1/prepare", "//aipaging/v1/prepare", "/x/../aipaging/v1/prepare", "/%2e/aipaging/v1/health"]
)
async def test_the_controllers_side_of_a_sidecar_is_not_reachable(rig: EnvoyRig, path: str) -> None:
    session = await granted(rig)
    host, port = rig.gateway.listener.host, rig.gateway.listener.port
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {rig.tokens[session]}\r\n\r\n".encode())
    answer = await reader.readline()
    writer.close()
    assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400"))


async def test_a_header_with_underscores_is_refused(rig: EnvoyRig) -> None:
    session = await granted(rig)
    assert (await rig.send(session, headers={"x_aipaging_commit": "forged"})).status_code == 400


async def test_one_look_up_serves_many_requests_and_is_journalled_once(rig: EnvoyRig) -> None:
    session = await granted(rig)
    before = rig.controller.look_ups
    await asyncio.gather(*(rig.request(session) for _ in range(8)))
    for _ in range(20):
        assert await rig.request(session) == rig.anchors[0]
    assert rig.controller.look_ups - before <= 8
    assert rig.controller.installed.count((session, Epoch(1, 1), rig.gateway.gateway)) == 1


async def test_refresh_ahead_keeps_traffic_going_with_few_look_ups(rig: EnvoyRig) -> None:
    session, lease_ms = rig.session(), 3_000
    await rig.driver.install([rig.grant(session, rig.anchors[0], Epoch(1, 1), lease_ms)])
    assert await rig.request(session) == rig.anchors[0]
    before = rig.controller.look_ups
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    while rig.controller.look_ups - before < 2:
        deadline_us = rig.now().after(lease_ms * MS)
        await rig.driver.renew([SteeringRenewal(session=session, epoch=Epoch(1, 1), deadline_us=deadline_us)])
        assert await asyncio.gather(*(rig.request(session) for _ in range(4))) == [rig.anchors[0]] * 4
    # Only what meets an entry of which half has passed asks again: twice takes twice as long.
    assert loop.time() - began_s > lease_ms / 1000 / 2, "it asked for what it knew"


async def test_a_refresh_that_fails_leaves_the_entry_until_its_deadline(rig: EnvoyRig) -> None:
    session = await granted(rig, lease_ms=5_000)
    assert await rig.request(session) == rig.anchors[0]
    await rig.answer_malformed("server-error")
    try:
        await rig.advance(2_600)
        assert await rig.request(session) == rig.anchors[0]
        await rig.advance(2_450)
        assert await rig.request(session) is None
    finally:
        await rig.answer_malformed(None)


async def test_a_refresh_that_is_refused_ends_the_entry_at_once(rig: EnvoyRig) -> None:
    session = await granted(rig, lease_ms=2_000)
    assert await rig.request(session) == rig.anchors[0]
    await rig.answer_malformed("forbidden")
    try:
        await rig.advance(1_050)
        assert await rig.request(session) is None
    finally:
        await rig.answer_malformed(None)


async def test_an_entry_that_ends_while_a_request_waits_steers_nothing(
    rig: EnvoyRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer that the request waits for is of a lower epoch: the entry that is kept instead is over by then."""
    session = rig.session()
    grant = rig.grant(session, rig.anchors[0], Epoch(1, 2), 1_500)
    await rig.driver.install([grant])
    assert await rig.request(session) == rig.anchors[0]

    def overtaken(headers: dict[bytes, bytes]) -> Answer:
        while rig.now().boot_us <= grant.deadline_us:
            time.sleep(0.001)  # the whole controller side is held up
        lower = {b"x-aipaging-n": b"1", b"x-aipaging-lease-ms": b"60000", b"x-aipaging-commit": b"lower"}
        return 200, headers | lower

    monkeypatch.setitem(FAULTS, "overtaken", overtaken)
    await rig.answer_malformed("overtaken")
    try:
        await rig.advance(1_150)  # past the half, and so near the end that the gateway does not lose patience before
        await rig.send(session)
    finally:
        await rig.answer_malformed(None)
    late = [
        one
        for one in rig.anchor_servers[rig.anchors[0]].received
        if one.headers.get("x-aipaging-commit") == grant.receipt and one.at_us > grant.deadline_us
    ]
    assert late == []


async def test_an_entry_never_outlives_the_token(rig: EnvoyRig) -> None:
    session = await granted(rig, lifetime_us=2 * SECOND)  # `exp` is in whole seconds: 2 to 3 s
    assert await rig.request(session) == rig.anchors[0]
    await rig.advance(3_050)
    assert (await rig.send(session)).status_code in {401, 403}


async def test_a_revocation_overtakes_an_answer_that_waits_for_the_journal(rig: EnvoyRig) -> None:
    session = await granted(rig)
    rig.controller.journal_open.clear()
    waiting = asyncio.create_task(rig.request(session))
    try:
        while not rig.controller.journalling:
            await asyncio.sleep(0.005)
        keep_until_us = rig.now().after(MINUTE_MS * MS)
        await rig.driver.revoke([Fence(session=session, epoch=Epoch(1, 1), keep_until_us=keep_until_us)])
    finally:
        rig.controller.journal_open.set()
    assert await waiting is None


async def test_large_bodies_and_streams_pass_over_tls_and_http2(tls_rig: EnvoyRig) -> None:
    session = await granted(tls_rig)
    headers = {"authorization": f"Bearer {tls_rig.tokens[session]}"}
    big = b"x" * (8 * 1024 * 1024)
    reply = await tls_rig.client.post(f"{tls_rig.url}/v1/files", headers=headers, content=big)
    assert (reply.http_version, reply.json()["bytes"]) == ("HTTP/2", len(big))
    server, events = tls_rig.anchor_servers[tls_rig.anchors[0]], []
    server.go_on.clear()
    async with tls_rig.client.stream("GET", f"{tls_rig.url}/stream", headers=headers) as stream:
        assert stream.headers["content-type"] == "text/event-stream"
        async for line in stream.aiter_lines():
            server.go_on.set()  # the first has come while the rest was not sent: they are not collected
            events += [line] if line else []
    assert len(events) == 10


async def test_http1_clients_are_served_over_tls(tls_rig: EnvoyRig) -> None:
    session = await granted(tls_rig)
    async with httpx.AsyncClient(verify=False, trust_env=False) as client:
        reply = await client.get(
            f"{tls_rig.url}/v1/models", headers={"authorization": f"Bearer {tls_rig.tokens[session]}"}
        )
    assert (reply.http_version, reply.status_code) == ("HTTP/1.1", 200)
