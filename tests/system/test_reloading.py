"""Configuration and policies read anew under load, from outside: no failed request, and nothing half."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.system.living import BASE, HOST, INTENT, LEASE_MS, Living

from aipaging.testing.stack import CONTROLLER

pytestmark = [
    pytest.mark.real,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("reloading"),
]

ROUNDS = 12
"""Reloads under load: every other one is refused."""

NEW_SECRET = "a-secret-that-came-with-the-reload"
PERMIT = '@id("all")\npermit(principal, action, resource);\n'
FORBID = '@id("none")\nforbid(principal, action == Action::"page", resource);\n'


@pytest_asyncio.fixture(loop_scope="module")
async def reloading(mortal: Living) -> AsyncIterator[Living]:
    """A system whose configuration is put back when the test is over."""
    before = mortal.config.read_text()
    yield mortal
    mortal.config.write_text(before)
    await reload(mortal)


async def reload(system: Living) -> tuple[int, dict[str, Any]]:
    return await system.call("POST", "/configuration/reload", who="root")


async def until(condition: Callable[[dict[str, Any]], bool], system: Living) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            _, status = await system.call("GET", "/configuration", who="root")
            if condition(status):
                return status
            await asyncio.sleep(0.05)


def tenant(sessions_max: int) -> str:
    return f'[[tenant]]\nname = "acme"\nsessions_max = {sessions_max}\n'


async def as_client(system: Living, secret: str) -> int:
    url = f"http://{HOST}:{system.ports.northbound}{BASE}/services"
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        return (await client.get(url, headers={"authorization": f"Bearer {secret}"})).status_code


async def test_what_can_change_changes_and_the_rest_is_named(reloading: Living) -> None:
    system = reloading
    text = system.config.read_text()
    digest = sha256(NEW_SECRET.encode()).hexdigest()
    assert await as_client(system, NEW_SECRET) == 401
    system.config.write_text(
        text.replace("retry_ms = 200", "retry_ms = 300, sessions_max = 2").replace("grace_ms = 100", "grace_ms = 90")
        + tenant(1)
        + f'[[client]]\nclient_id = "late"\ntenant = "acme"\nrole = "client"\nsecret_sha256 = "{digest}"\n'
        + '[[sink]]\nname = "noc"\nurl = "https://noc.example/events"\n'
    )
    status, said = await reload(system)
    assert status == 200
    assert set(said["applied"]) == {"limits.retry_ms", "limits.sessions_max", "tenant", "client", "sink"}
    assert said["needsRestart"] == ["lease.grace_ms"]
    assert said["problems"] == []
    assert await as_client(system, NEW_SECRET) == 200
    held = await system.page()
    refused, why = await system.call("POST", "/sessions", {"intent": INTENT})
    assert (refused, why["code"]) == (429, "QUOTA_EXCEEDED")
    await system.end(held)

    system.config.write_text(text)
    status, said = await reload(system)
    assert (status, said["needsRestart"]) == (200, [])
    assert await as_client(system, NEW_SECRET) == 401
    _, still = await system.call("GET", "/tenants/acme", who="root")
    assert still["quotas"]["sessionsMax"] == 1, "what is not spoken of any more stays as it is"


async def test_leases_change_their_length_while_requests_go_on(reloading: Living) -> None:
    system = reloading
    text = system.config.read_text()

    def with_lease(lease_ms: int) -> str:
        """The longest lease as it was, and another length."""
        return text.replace(f"lease = {{ lease_ms = {LEASE_MS}", f"lease = {{ lease_ms = {lease_ms}")

    async def renewed(lease_ms: int) -> None:
        async with asyncio.timeout(60):
            while (await system.session(session))["commit"]["leaseMs"] != lease_ms:
                await asyncio.sleep(0.05)

    session = await system.page()
    async with system.load(session) as asked:
        for lease_ms in (LEASE_MS // 2, LEASE_MS):
            system.config.write_text(with_lease(lease_ms))
            status, said = await reload(system)
            assert (status, said["applied"], said["needsRestart"]) == (200, ["lease.lease_ms"], [])
            await renewed(lease_ms)
        longer = with_lease(2 * LEASE_MS)
        for name in ("lease_ms_max", "drain_ms_max"):
            longer = longer.replace(f"{name} = {LEASE_MS}", f"{name} = {2 * LEASE_MS}")
        system.config.write_text(longer)
        status, said = await reload(system)
        assert (status, said["applied"]) == (200, []), said
        assert set(said["needsRestart"]) == {"lease.lease_ms", "lease.lease_ms_max", "lease.drain_ms_max"}
        answered = len(asked)
        async with asyncio.timeout(60):
            while len(asked) < answered + 5:
                await asyncio.sleep(0.05)
    assert {each.status for each in asked} == {200}
    assert (await system.session(session))["commit"]["leaseMs"] == LEASE_MS
    changes = [record["lease_ms"] for record in system.verified() if record["type"] == "SETTINGS_CHANGED"]
    assert changes[-2:] == [LEASE_MS // 2, LEASE_MS]
    await system.end(session)


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        ("lease = {{", None),
        ('[[tenant]]\nname = "acme"\nsessions_max = -1\n', "tenant[1].sessions_max"),
        ('policies = { file = "none.cedar" }\n', "policies.file"),
        ('[[sink]]\nname = "noc"\nurl = "https://noc.example/"\ntoken_file = "no.token"\n', None),
    ],
)
async def test_a_bad_file_changes_nothing_and_is_reported(reloading: Living, broken: str, field: str | None) -> None:
    system = reloading
    _, before = await system.call("GET", "/tenants/acme", who="root")
    text = system.config.read_text()
    first = broken if "policies" in broken else ""
    system.config.write_text(first + text + tenant(7).replace("acme", "other") + ("" if first else broken))
    status, refusal = await reload(system)
    assert status == 422, refusal
    assert (refusal["code"], refusal["who"]) == ("AI_PAGING.INVALID_CONFIGURATION", "operator")
    assert field is None or refusal["field"] == field
    assert refusal["problems"]
    _, after = await system.call("GET", "/tenants/acme", who="root")
    assert after["quotas"] == before["quotas"]
    assert (await system.call("GET", "/tenants/other", who="root"))[0] == 404
    _, standing = await system.call("GET", "/configuration", who="root")
    assert standing["problems"] == refusal["problems"]
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        url = f"http://{HOST}:{system.ports.northbound}"
        assert (await client.get(f"{url}/readyz")).status_code == 200, "what was in force is in force"
        metrics = await client.get(f"{url}/metrics", headers={"authorization": f"Bearer {system.secrets['root']}"})
    assert "aipaging_configuration_refused 1.0" in metrics.text
    assert "the configuration file is not taken" in (system.folder / f"{CONTROLLER}.log").read_text()


async def test_an_envelope_changes_with_its_sequence_and_not_without(reloading: Living) -> None:
    system = reloading
    text = system.config.read_text()
    changed = text.replace("offset_ms = 10.0", "offset_ms = 11.0", 1)
    system.config.write_text(changed + tenant(7).replace("acme", "other"))
    status, refusal = await reload(system)
    assert (status, "sequence" in refusal["message"]) == (422, True)
    assert (await system.call("GET", "/tenants/other", who="root"))[0] == 404
    system.config.write_text(changed.replace("offset_ms = 11.0", "offset_ms = 11.0\nsequence = 2", 1))
    status, said = await reload(system)
    assert (status, said["applied"]) == (200, ["envelope"])
    _, found = await system.call("GET", "/envelopes", who="root")
    assert sorted(each["sequence"] for each in found["envelopes"]) == [1, 1, 2]


async def test_the_command_and_the_signal_do_the_same(reloading: Living) -> None:
    system = reloading
    text = system.config.read_text()
    secret = system.folder / "root.secret"
    secret.touch(mode=0o600)
    secret.write_text(system.secrets["root"])
    options = ("--url", f"http://{HOST}:{system.ports.northbound}", "--credential-file", str(secret), "--json")
    system.config.write_text(text + tenant(3))
    done = await asyncio.to_thread(system.command, "reload", *options)
    assert (done.returncode, json.loads(done.stdout)["applied"]) == (0, ["tenant"]), done.stdout
    system.config.write_text(text + "nonsense")
    done = await asyncio.to_thread(system.command, "reload", *options)
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"]["code"] == "AI_PAGING.INVALID_CONFIGURATION"
    done = await asyncio.to_thread(system.command, "reload", "--status", *options)
    assert (done.returncode, len(json.loads(done.stdout)["problems"])) == (0, 1)

    system.config.write_text(text + tenant(4))
    system.processes.children[CONTROLLER].process.send_signal(signal.SIGHUP)
    assert (await until(lambda status: not status["problems"], system))["applied"] == ["tenant"]
    _, found = await system.call("GET", "/tenants/acme", who="root")
    assert found["quotas"]["sessionsMax"] == 4


async def test_reloads_under_load_fail_no_request(reloading: Living) -> None:
    system = reloading
    text = f'policies = {{ file = "{system.folder}/rules.cedar" }}\n' + system.config.read_text()
    rules = system.folder / "rules.cedar"
    rules.write_text(PERMIT)
    sessions = [await system.page() for _ in range(3)]
    paged: list[int] = []
    over = asyncio.Event()

    async def pages() -> None:
        while not over.is_set():
            status, said = await system.call(
                "POST", "/sessions", {"intent": INTENT | {"durationS": 60, "ratePerSecond": 0.1}}
            )
            paged.append(status)
            if status == 201:
                await system.call("DELETE", f"/sessions/{said['sessionId']}")

    answers: list[int] = []
    paging = asyncio.create_task(pages())
    async with system.load(*sessions) as asked:
        for number in range(ROUNDS):
            rules.write_text(PERMIT + f"// {number}\n" if number % 3 else "permit(nonsense")
            broken = "" if number % 2 else "[[tenant]]\n"
            system.config.write_text(text + tenant(1_000 + number) + broken)
            answers.append((await reload(system))[0])
            await asyncio.sleep(0.1)
        over.set()
        await paging
    assert {200, 422} == set(answers)
    assert {each.status for each in asked} == {200}
    assert set(paged) == {201}
    assert len(asked) > ROUNDS
    rules.write_text(PERMIT)
    system.config.write_text(text + tenant(1_000))
    assert (await reload(system))[0] == 200
    await system.end(*sessions)


async def test_a_policy_that_forbids_decides_from_the_reload_on(reloading: Living) -> None:
    system = reloading
    rules: Path = system.folder / "strict.cedar"
    rules.write_text(PERMIT + FORBID)
    system.config.write_text(f'policies = {{ file = "{rules}" }}\n' + system.config.read_text())
    status, said = await reload(system)
    assert (status, said["applied"]) == (200, ["policies"])
    refused, why = await system.call("POST", "/sessions", {"intent": INTENT})
    assert (refused, why["constraint"]) == (422, "POLICY"), why


async def test_a_sink_hears_from_the_reload_on_and_until_the_next(reloading: Living) -> None:
    system = reloading
    heard: list[dict[str, Any]] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:"))
        heard.append(json.loads(await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    async def told(session: str, name: str) -> None:
        async with asyncio.timeout(60):
            while not any(each.get("subject") == session and each["type"].endswith(name) for each in heard):
                await asyncio.sleep(0.05)

    server = await asyncio.start_server(take, HOST, 0)
    async with server:
        text = system.config.read_text()
        url = f"http://{HOST}:{server.sockets[0].getsockname()[1]}/noc"
        before = await system.page()
        system.config.write_text(
            f'notification = {{ allow_networks = ["127.0.0.0/8"] }}\n{text}[[sink]]\nname = "watch"\nurl = "{url}"\n'
        )
        status, said = await reload(system)
        assert (status, set(said["applied"])) == (200, {"sink", "notification.allow_networks"})
        await system.end(before)
        await told(before["sessionId"], "session-ended")
        assert not any(each["type"].endswith("session-available") for each in heard), "that was before"

        system.config.write_text('notification = { allow_networks = ["127.0.0.0/8"] }\n' + text)
        assert (await reload(system))[1]["applied"] == ["sink"]
        own, refused = await system.call(
            "POST", "/sessions", {"intent": INTENT, "sink": url.replace(HOST, "10.0.0.1").replace("http", "https")}
        )
        assert (own, refused["code"]) == (400, "INVALID_SINK")
        after = await system.page()
        status, _ = await system.call("PUT", f"/sessions/{after['sessionId']}/sink", {"sink": url})
        assert status == 204, "a client may name a sink in the networks that are allowed since the reload"
        await system.end(after)
        await told(after["sessionId"], "session-ended")
        assert len([each for each in heard if each.get("subject") == after["sessionId"]]) == len(
            {each["id"] for each in heard if each.get("subject") == after["sessionId"]}
        ), "once, by the client's own sink, and not by the operator's"
