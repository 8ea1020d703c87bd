"""The API under abuse: it answers what is wrong, holds nothing for it, and goes on serving everybody else."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.system.living import BASE, INTENT, Living
from tests.system.upstream import HOST

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("system-doors")]

INVALID: dict[str, tuple[dict[str, Any], str]] = {
    "delay of nothing": ({"delayMs": 0}, "intent.delayMs"),
    "delay backwards": ({"delayMs": -5}, "intent.delayMs"),
    "delay as text": ({"delayMs": "fast"}, "intent.delayMs"),
    "never late": ({"epsilon": 0}, "intent.epsilon"),
    "mostly late": ({"epsilon": 0.9}, "intent.epsilon"),
    "no rate": ({"ratePerSecond": 0}, "intent.ratePerSecond"),
    "absurd rate": ({"ratePerSecond": 1e30}, "intent.ratePerSecond"),
    "no burst": ({"burst": 0}, "intent.burst"),
    "no time": ({"durationS": 0}, "intent.durationS"),
    "for ever": ({"durationS": 10**12}, "intent.durationS"),
    "half a second": ({"durationS": 0.5}, "intent.durationS"),
    "no such class": ({"dataClass": "SECRET-ISH"}, "intent.dataClass"),
    "more trust than there is": ({"trustMin": 99}, "intent.trustMin"),
    "a place that is no name": ({"place": "../../etc"}, "intent.place"),
    "a model by its name": ({"model": "gpt-9"}, "intent.model"),
    "quality without a benchmark": ({"quality": {"scoreMin": 1}}, "intent.quality.benchmark"),
    "a list that is none": ({"regions": "here"}, "intent.regions"),
    "no task": ({"task": None}, "intent.task"),
}

IMPOSSIBLE: dict[str, tuple[dict[str, Any], str]] = {
    "faster than light": ({"delayMs": 1}, "DELAY"),
    "surer than provable": ({"delayMs": 60, "epsilon": 1e-12}, "DELAY"),
    "an unknown task": ({"task": "time-travel"}, "TASK"),
    "an unknown place": ({"place": "the-moon"}, "PATH"),
    "another jurisdiction": ({"jurisdictions": ["atlantis"]}, "PLACE"),
    "another region": ({"regions": ["elsewhere"]}, "PLACE"),
    "more trust": ({"trustMin": 5}, "TRUST"),
    "a language": ({"language": "tlh"}, "LANGUAGE"),
    "a better model": ({"quality": {"benchmark": "everything", "scoreMin": 1}}, "QUALITY"),
    "for nothing": ({"costMax": 0}, "COST"),
    "more than the guardrail": ({"ratePerSecond": 101}, "GUARDRAIL"),
    "a larger burst than the guardrail": ({"burst": 65}, "GUARDRAIL"),
}


async def trickle(living: Living, first: bytes) -> None:
    """Send a head or a body that never ends; return when the server has let the connection go."""
    reader, writer = await asyncio.open_connection(HOST, living.ports.northbound)
    writer.write(first)
    with contextlib.suppress(ConnectionError):
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    if not await reader.read(4096):
                        break
            writer.write(b"z")
    writer.transport.abort()


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def slow_clients(living_of_all: Living) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Ten clients that trickle in from the first test of this module on: none of them may be held up by it."""
    head = b"POST / HTTP/1.1\r\nhost: api\r\nx-slow: "
    body = (
        f"POST {BASE}/sessions HTTP/1.1\r\nhost: api\r\nauthorization: Bearer {living_of_all.secrets['user']}\r\n"
        "content-type: application/json\r\ncontent-length: 1000\r\n\r\n{"
    ).encode()
    slow = [asyncio.create_task(trickle(living_of_all, first)) for first in (head, body) for _ in range(5)]
    yield slow
    for each in slow:
        each.cancel()
    await asyncio.gather(*slow, return_exceptions=True)


async def test_an_impossible_intent_is_told_which_field_is_impossible(living: Living) -> None:
    for name, (change, field) in INVALID.items():
        status, said = await living.call("POST", "/sessions", {"intent": INTENT | change})
        assert (status, said.get("field")) == (400, field), (name, status, said)
        status, said = await living.call("POST", "/intents/resolve", {"intent": INTENT | change})
        assert (status, said.get("field")) == (400, field), (name, status, said)


async def test_a_refused_intent_leaves_evidence_and_holds_nothing(living: Living) -> None:
    await until_free(living)  # what an earlier test ended is held until its last holder has let go
    refusals_before = sum(record["type"] == "SESSION_REFUSED" for record in living.records())
    constraints: dict[str, str] = {}
    for name, (change, _) in IMPOSSIBLE.items():
        status, said = await living.call("POST", "/sessions", {"intent": INTENT | change})
        assert (status, said.get("code")) == (422, "AI_PAGING.ADMISSION_REFUSED"), (name, status, said)
        constraints[name] = said["constraint"]
        assert all(candidate["rejection"]["message"] for candidate in said["candidates"])
    assert constraints == {name: constraint for name, (_, constraint) in IMPOSSIBLE.items()}
    refusals = [record for record in living.records() if record["type"] == "SESSION_REFUSED"][refusals_before:]
    assert len(refusals) == len(IMPOSSIBLE)
    assert {record["constraint"] for record in refusals} == {constraint for _, constraint in IMPOSSIBLE.values()}
    # All the capacity is still there: both anchors take their hundred requests a second, and not one more.
    whole = [await living.page(ratePerSecond=100, burst=1, delayMs=2_000) for _ in range(2)]
    assert {session["anchorId"] for session in whole} == {"one", "two"}
    status, said = await living.call("POST", "/sessions", {"intent": INTENT | {"ratePerSecond": 0.001}})
    assert (status, said["constraint"]) == (422, "CAPACITY")
    await living.end(*whole)
    await until_free(living)


async def until_free(living: Living) -> None:
    """Wait until what was released is no longer held: a lease, its drift and the grace after its end."""
    async with asyncio.timeout(60):
        while True:
            status, said = await living.call("POST", "/intents/resolve", {"intent": INTENT | {"ratePerSecond": 100}})
            assert status == 200
            if sum(candidate["eligible"] for candidate in said["candidates"]) == 2:
                return
            await asyncio.sleep(0.1)


async def test_the_sessions_of_others_are_not_there(living: Living) -> None:
    session = await living.page()
    name = session["sessionId"]
    operations = [
        ("GET", f"/sessions/{name}", None),
        ("DELETE", f"/sessions/{name}", None),
        ("POST", f"/sessions/{name}/extend", {"additionalDurationS": 60}),
        ("POST", f"/sessions/{name}/relocate", {}),
        ("GET", f"/sessions/{name}/evidence", None),
    ]
    absent = "00000000-0000-4000-8000-000000000000"
    for method, path, body in operations:
        status, said = await living.call(method, path, body, who="stranger")
        assert (status, said["code"]) == (404, "NOT_FOUND"), (method, path, said)
        status, nobody = await living.call(method, path.replace(name, absent), body, who="stranger")
        assert (status, nobody["code"]) == (404, "NOT_FOUND")
        # An absent session and another's must not be told apart by what is said of them.
        assert said["message"].replace(name, absent) == nobody["message"]
    _, listed = await living.call("POST", "/retrieve-sessions", {}, who="stranger")
    assert listed["sessions"] == []
    assert (await living.ask(session["aist"])).served
    await living.end(session)


async def test_operators_routes_are_not_for_clients(living: Living) -> None:
    for method, path, body in (
        ("POST", "/anchors", {}),
        ("DELETE", "/anchors/one", None),
        ("PUT", "/anchors/one/state", {"state": "DRAINING"}),
        ("POST", "/envelopes", {}),
    ):
        status, said = await living.call(method, path, body)
        assert status in {403, 404, 405}, (method, path, status, said)
    _, anchors = await living.call("GET", "/anchors", who="root")
    assert {anchor["state"] for anchor in anchors["anchors"]} == {"READY"}


async def raw(living: Living, request: bytes, *, limit_s: float = 60) -> bytes:
    reader, writer = await asyncio.open_connection(HOST, living.ports.northbound)
    with contextlib.suppress(ConnectionError):
        writer.write(request)
        await writer.drain()
    answer = b""
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(limit_s):
            while piece := await reader.read(65_536):
                answer += piece
                if b'"code"' in answer:
                    break
    writer.transport.abort()
    return answer


async def test_bodies_too_large_too_deep_or_no_bodies_at_all_are_named(living: Living) -> None:
    head = (
        f"POST {BASE}/sessions HTTP/1.1\r\nhost: api\r\nauthorization: Bearer {living.secrets['user']}\r\n"
        "content-type: application/json\r\n"
    ).encode()
    deep = b'{"intent":' + b"[" * 30_000 + b"]" * 30_000 + b"}"
    wide = json.dumps({"intent": INTENT | {"regions": [f"r{n}" for n in range(5_000)]}}).encode()
    cases = {
        "announced too long": (b"content-length: 10000000000\r\n\r\n", b"413"),
        "too long": (b"content-length: 200000\r\n\r\n" + b"x" * 200_000, b"413"),
        "too long in chunks": (b"transfer-encoding: chunked\r\n\r\n" + b"8000\r\n" + b"x" * 0x8000 + b"\r\n", b"413"),
        "deep": (b"content-length: %d\r\n\r\n%s" % (len(deep), deep), b"400"),
        "wide": (b"content-length: %d\r\n\r\n%s" % (len(wide), wide), b"400"),
        "no JSON": (b"content-length: 4\r\n\r\nnope", b"400"),
        "not UTF-8": (b'content-length: 5\r\n\r\n"\xff\xfe"}', b"400"),
        "empty": (b"content-length: 0\r\n\r\n", b"4"),
        "a number of no end": (b"content-length: 30011\r\n\r\n" + b'{"intent":' + b"9" * 30_000 + b"}", b"400"),
        "twice the length": (b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}", b"400"),
    }
    for name, (rest, status) in cases.items():
        request = head + (rest if name != "too long in chunks" else rest + (rest.partition(b"\r\n\r\n")[2]) * 3)
        answer = await raw(living, request)
        assert answer.split(b" ")[1].startswith(status), (name, answer[:200])
        assert len(answer) < 4_096, f"{name}: the answer reflects the body"
    endless = b"GET / HTTP/1.1\r\n" + b"x: " + b"y" * 500_000
    assert not (await raw(living, endless)).startswith(b"HTTP/1.1 2")
    assert (await living.call("GET", "/services"))[0] == 200


async def test_the_command_lines_of_our_processes_tell_no_secret(living: Living) -> None:
    for child in living.processes.children.values():
        for what in ("cmdline", "environ"):
            told = Path(f"/proc/{child.process.pid}/{what}").read_bytes()
            for who, secret in living.secrets.items():
                assert secret.encode() not in told, (child.name, what, who)


async def test_slow_clients_are_let_go_and_hold_up_nobody(
    living: Living, slow_clients: list[asyncio.Task[None]]
) -> None:
    """Heads and bodies that trickle in for ever hold a connection for ten seconds; the other tests ran beside them."""
    session = await living.page()
    assert (await living.ask(session["aist"])).served
    await living.end(session)
    async with asyncio.timeout(120):
        await asyncio.gather(*slow_clients)
