"""Events and sinks over the public interface."""

import asyncio
from typing import Any

import httpx
import msgspec
import pytest
from tests.adapters.northbound.conftest import INTENT, SECRETS, Rig

from aipaging.adapters.northbound import events as events_module
from aipaging.adapters.northbound.operation import BASE
from aipaging.core.foundation.names import SessionId


def parsed(text: str) -> list[dict[str, Any]]:
    """Return the events of a stream: id, name and document."""
    found: list[dict[str, Any]] = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            found.append({"id": fields["id"], "event": fields["event"], **msgspec.json.decode(fields["data"])})
    return found


async def told(client: httpx.AsyncClient, after: str = "0", **query: str) -> list[dict[str, Any]]:
    answer = await client.get("events", params={"lastEventId": after, "follow": "false", **query})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream"
    return parsed(answer.text)


async def test_a_client_hears_of_its_own_sessions_and_an_operator_of_all(rig: Rig) -> None:
    async with rig.client("app-one") as one, rig.client("app-two") as two, rig.client("noc") as noc:
        mine = (await one.post("sessions", json={"intent": INTENT})).json()["sessionId"]
        other = (await two.post("sessions", json={"intent": INTENT})).json()["sessionId"]
        await one.delete(f"sessions/{mine}")
        heard = await told(one)
        assert [event["type"].rpartition(".")[2] for event in heard] == [
            "session-available", "commit-revoked", "session-ended",
        ]  # fmt: skip
        assert {event["subject"] for event in heard} == {mine}
        assert all(event["id"] == event["id"] and event["specversion"] == "1.0" for event in heard)
        everything = await told(noc)
        assert {mine, other} <= {event.get("subject") for event in everything}
        assert any(event["type"].endswith("term-started") for event in everything) or everything[0]["id"] > "0"
        assert [event["id"] for event in heard] == [e["id"] for e in everything if e.get("subject") == mine]
        assert await told(two, sessionId=mine) == []


async def test_going_on_after_each_event_gives_the_rest(rig: Rig, app_one: httpx.AsyncClient) -> None:
    for _ in range(3):
        await app_one.post("sessions", json={"intent": INTENT})
    everything = await told(app_one)
    for place, event in enumerate(everything):
        assert await told(app_one, after=event["id"]) == everything[place + 1 :]


async def test_a_place_of_another_history_is_a_gap(app_one: httpx.AsyncClient) -> None:
    await app_one.post("sessions", json={"intent": INTENT})
    (gap,) = await told(app_one, after="3-00000000")
    assert gap["type"].endswith("events-gap")
    assert gap["data"]["reason"] == "HISTORY_CHANGED"


async def test_so_is_a_place_that_a_restored_backup_has_not_reached(app_one: httpx.AsyncClient) -> None:
    await app_one.post("sessions", json={"intent": INTENT})
    last = (await told(app_one))[-1]["id"]
    assert await told(app_one, after=last) == []
    number, _, mark = last.partition("-")
    for lost in (f"{int(number) + 1000}-{mark}", f"{number}-{int(mark, 16) ^ 1:08x}"):
        (gap,) = await told(app_one, after=lost)
        assert gap["data"]["reason"] == "HISTORY_CHANGED"
        assert await told(app_one, after=gap["id"]) == []


@pytest.mark.parametrize(
    "given",
    [
        {"sink": "https://events.example/hook-of-mine" + "a" * 2048},
        {"sink": ["hook-of-mine"]},
        {"sink": "https://events.example/", "sinkCredential": "Bearer of-mine"},
        {"sink": "https://events.example/", "sinkCredential": ["of-mine"]},
        {
            "sink": "https://events.example/",
            "sinkCredential": {"credentialType": "ACCESSTOKEN", "accessToken": "Bearer of-mine"},
        },
    ],
)
async def test_a_sink_that_does_not_fit_is_named_and_not_repeated(
    app_one: httpx.AsyncClient, given: dict[str, Any]
) -> None:
    answer = await app_one.post("sessions", json={"intent": INTENT, **given})
    assert answer.status_code == 400
    assert answer.json()["field"].startswith("sink")
    assert "expected" in answer.json()["message"]
    assert "of-mine" not in answer.text


@pytest.mark.parametrize("query", [{"lastEventId": "x"}, {"follow": "maybe"}, {"sessionId": "x"}, {"type": "x"}])
async def test_what_is_asked_is_checked(app_one: httpx.AsyncClient, query: dict[str, str]) -> None:
    assert (await app_one.get("events", params=query)).status_code == 400


class Stream:
    """A reader of the live stream that takes what it is sent when it wants to."""

    def __init__(self, rig: Rig, client: str, headers: dict[str, str] | None = None) -> None:
        self.sent: list[dict[str, Any]] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self.gone = asyncio.Event()
        given = {"authorization": f"Bearer {SECRETS[client][0]}", **(headers or {})}
        scope = {
            "type": "http", "method": "GET", "path": f"{BASE}/events", "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        }  # fmt: skip
        self.task = asyncio.create_task(rig.app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        await self.reading.wait()
        self.sent.append(message)

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent).decode()

    async def until(self, name: str) -> None:
        async with asyncio.timeout(60):
            while name not in self.text:
                await asyncio.sleep(0.001)


async def test_a_live_stream_tells_what_happens_and_ends_when_its_reader_goes(
    rig: Rig, app_one: httpx.AsyncClient
) -> None:
    stream = Stream(rig, "app-one")
    await stream.until("retry")
    await app_one.post("sessions", json={"intent": INTENT})
    await stream.until("session-available")
    stream.gone.set()
    async with asyncio.timeout(60):
        await stream.task
    assert [event["event"] for event in parsed(stream.text)] == ["org.aipaging.ai-paging.v0.session-available"]


async def test_a_reader_that_does_not_read_is_cut_and_goes_on_without_loss(
    rig: Rig, app_one: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aipaging.runtime.http.streaming.SEND_S_MAX", 0.05)
    stream = Stream(rig, "app-one")
    await stream.until("retry")
    stream.reading.clear()
    await app_one.post("sessions", json={"intent": INTENT})
    async with asyncio.timeout(60):
        await stream.task
    assert parsed(stream.text) == []
    again = Stream(rig, "app-one", {"last-event-id": "0"})
    await again.until("session-available")
    again.gone.set()
    await again.task


async def test_streams_are_limited_and_given_back(
    rig: Rig, app_one: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "STREAMS_PER_CLIENT_MAX", 1)
    stream = Stream(rig, "app-one")
    await stream.until("retry")
    answer = await app_one.get("events")
    assert (answer.status_code, answer.json()["code"]) == (429, "TOO_MANY_REQUESTS")
    stream.gone.set()
    await stream.task
    assert await told(app_one) == []


async def test_silence_is_filled_and_the_end_of_the_hub_ends_streams(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "HEARTBEAT_S", 0.01)
    stream = Stream(rig, "app-one")
    await stream.until("still here")
    rig.hub.close()
    async with asyncio.timeout(60):
        await stream.task
    assert stream.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


class Allowing:
    """Notifications that take every sink."""

    def check(self, url: str) -> None:
        self.seen = url

    async def dead_letters(self, first: int, count: int) -> tuple[int, tuple[()]]:
        return 0, ()


SINK = {
    "sink": "https://events.client.example/secret-path",
    "sinkCredential": {
        "credentialType": "ACCESSTOKEN", "accessToken": "very-secret-token", "accessTokenType": "bearer",
        "accessTokenExpiresUtc": "2030-01-01T00:00:00Z",
    },
}  # fmt: skip


async def test_a_sink_is_kept_and_never_shown(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    object.__setattr__(rig.service, "notifications", Allowing())
    rig.app = rig.rebuilt()
    caplog.set_level("DEBUG")
    async with rig.client("app-one") as one, rig.client("noc") as noc:
        answer = await one.post("sessions", json={"intent": INTENT, **SINK})
        assert answer.status_code == 201
        session = answer.json()["sessionId"]
        held = rig.engine.state.sessions[SessionId(session)].sink
        assert held is not None
        assert (held.url, held.token) == (SINK["sink"], "very-secret-token")
        evidence = (await one.get(f"sessions/{session}/evidence")).text
        assert '"type":"SINK_SET"' in evidence
        read = (await one.get(f"sessions/{session}")).text
        listed = (await noc.post("retrieve-sessions", json={})).text
        events = str(await told(noc))
        for text in (answer.text, evidence, read, listed, events, caplog.text, repr(held)):
            assert "very-secret" not in text
            assert "secret-path" not in text
        assert (await one.put(f"sessions/{session}/sink", json={"sink": None})).status_code == 204
        assert rig.engine.state.sessions[SessionId(session)].sink is None


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"sink": "https://x.example"}, "INVALID_SINK"),
        ({"sinkCredential": SINK["sinkCredential"]}, "AI_PAGING.INVALID_CREDENTIAL"),
        ({"sink": 1}, "INVALID_ARGUMENT"),
    ],
)
async def test_a_bad_sink_is_refused_before_anything_is_granted(
    rig: Rig, app_one: httpx.AsyncClient, body: dict[str, Any], code: str
) -> None:
    answer = await app_one.post("sessions", json={"intent": INTENT, **body})
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert rig.engine.state.live == 0


async def test_dead_letters_are_for_operators(rig: Rig, app_one: httpx.AsyncClient) -> None:
    assert (await app_one.get("dead-letters")).status_code == 403
