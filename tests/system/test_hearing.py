"""How clients hear, over real processes: nothing lost and nothing made up, over a killed controller and hung sinks."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.system.living import BASE, INTENT, Living
from tests.system.upstream import HOST

from aipaging.testing.stack import CONTROLLER

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("system-hearing")]


class Sinks:
    """An HTTP server: `/good` takes what it is sent, `/hung` takes it and never answers."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.heads: list[str] = []
        self.hung = 0
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> asyncio.Server:
        server = await asyncio.start_server(self._take, HOST, 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next(int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:"))
            body = await reader.readexactly(length)
            if "/hung" in head.split("\r\n")[0]:
                self.hung += 1
                await reader.read()  # until the other side has had enough
            else:
                self.heads.append(head)
                self.heard.append(json.loads(body))
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sinks() -> AsyncIterator[Sinks]:
    sinks = Sinks()
    server = await sinks.start()
    yield sinks
    server.close()


@pytest.fixture(scope="module")
def changes(sinks: Sinks) -> dict[str, Any]:
    url = f"http://{HOST}:{sinks.port}/good/noc"
    return {
        "first": 'notification = { allow_networks = ["127.0.0.0/8"] }',
        "last": f'\n[[sink]]\nname = "noc"\nurl = "{url}"\nevents = ["anchor-state-changed"]\n',
    }


async def follow(system: Living, heard: list[dict[str, Any]], after: str) -> None:
    """Hear for ever, taking the stream up again whenever it breaks, by the last id and nothing else."""
    url = f"http://{HOST}:{system.ports.northbound}{BASE}/events"
    while True:
        headers = {"authorization": f"Bearer {system.secrets['user']}", "last-event-id": after}
        with contextlib.suppress(httpx.TransportError):
            async with (
                httpx.AsyncClient(timeout=60, trust_env=False, verify=False) as client,
                client.stream("GET", url, headers=headers) as answer,
            ):
                async for line in answer.aiter_lines():
                    if line.startswith("data: "):
                        heard.append(json.loads(line[6:]))
                    elif line.startswith("id: "):
                        after = line[4:]
        await asyncio.sleep(0.05)


async def until(condition: Any, limit_s: float = 60.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.02)


async def test_streams_and_sinks_hear_all_over_a_killed_controller(mortal: Living, sinks: Sinks) -> None:
    heard: list[dict[str, Any]] = []
    following = asyncio.create_task(follow(mortal, heard, "0"))
    where = f"http://{HOST}:{sinks.port}"
    credential = {"credentialType": "ACCESSTOKEN", "accessToken": "shown-to-the-sink"}
    _, good = await mortal.call(
        "POST", "/sessions",
        {"intent": INTENT, "sink": f"{where}/good/one", "sinkCredential": credential},
    )  # fmt: skip
    _, hung = await mortal.call("POST", "/sessions", {"intent": INTENT, "sink": f"{where}/hung"})
    await until(lambda: any(event.get("subject") == good["sessionId"] for event in sinks.heard))
    await until(lambda: sinks.hung > 0)
    assert "authorization: Bearer shown-to-the-sink" in "".join(sinks.heads)
    assert 'signature-input: aipaging=("@method" "@target-uri"' in sinks.heads[-1]

    mortal.kill(CONTROLLER)
    await mortal.start_controller()
    await mortal.until_ready()
    status, _ = await mortal.call("POST", f"/sessions/{good['sessionId']}/relocate", {})
    assert status == 202
    await until(lambda: any(event["type"].endswith("relocation-switched") for event in heard))
    await mortal.end(good, hung)

    everything = await mortal.heard()
    await until(lambda: heard and heard[-1]["id"] == everything[-1]["id"])
    following.cancel()
    assert heard == everything, "each once, in order, over the restart"
    wanted = [event["id"] for event in everything if event.get("subject") == good["sessionId"]]
    await until(lambda: wanted[-1] in [event["id"] for event in sinks.heard])
    told = [event["id"] for event in sinks.heard if event.get("subject") == good["sessionId"]]
    assert list(dict.fromkeys(told)) == wanted, "each at least once, in order"
    assert [event for event in await mortal.heard(who="stranger") if event.get("subject")] == []

    def of_operator() -> list[dict[str, Any]]:
        return [event for event in sinks.heard if "subject" not in event]

    await until(of_operator)
    assert {event["type"].rpartition(".")[2] for event in of_operator()} == {"anchor-state-changed"}
    assert mortal.verdict()[0] == 0


async def test_nothing_private_is_in_the_log_or_the_ledger(mortal: Living) -> None:
    await mortal.call("GET", "/dead-letters", who="root")
    for path in [*mortal.folder.rglob("*.log"), *mortal.data_dir.glob("notifications.db*")]:
        content = path.read_bytes()
        assert b"shown-to-the-sink" not in content, path
        assert b"/good/one" not in content, path


async def test_ready_says_when_the_gateway_is_gone_and_when_it_is_back(mortal: Living) -> None:
    async def ready() -> tuple[int, dict[str, Any]]:
        async with httpx.AsyncClient(timeout=60, trust_env=False, verify=False) as client:
            answer = await client.get(f"http://{HOST}:{mortal.ports.northbound}/readyz")
            health = await client.get(f"http://{HOST}:{mortal.ports.northbound}/healthz")
        assert health.status_code == 200
        return answer.status_code, answer.json()

    assert (await ready())[0] == 200
    async with asyncio.timeout(60):
        while (said := await ready())[0] == 200:
            pid = mortal.processes.gateway_pid()
            if pid is not None:  # again, if it is back before anybody on a busy machine has asked
                os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.01)
        assert said[1] == {"status": "NOT_READY", "reasons": ["no gateway is connected"]}
        while (await ready())[0] != 200:
            await asyncio.sleep(0.05)
