"""The sixteen fault scenarios of the public failoverbench (catalogue v0.1), through gateway, Envoy and sidecar.

A client is answered completely, or is told explicitly that it was not; nothing is ever taken for a whole answer that is
none. Each scenario is asked twice: by the official client, which repeats what was not begun to be answered, and by a
lenient reader which repeats nothing and skips whatever it cannot read, as careless clients do. What the model server
does is written in a header of each attempt.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pytest
import pytest_asyncio
from tests.system.living import Living

from aipaging.testing.stack import Processes

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("system-faults")]

WORDS = "alfa bravo charlie delta echo foxtrot golf hotel india juliett"
MESSAGES: Any = [{"role": "user", "content": "ten words"}]
FAULT = "x-load-generator-fault"

Seen = Literal["complete", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One scenario.

    Attributes:
        name: Its number and title in the catalogue.
        faults: What happens to the first attempts, in turn; the last stays.
        once: What a client sees that repeats nothing.
        official: What the official client sees; it repeats as often as faults change, and at least once.
        attempts_max: Attempts of the official client.
    """

    name: str
    faults: tuple[str, ...]
    once: Seen
    official: Seen
    attempts_max: int = 3


SCENARIOS = (
    Scenario(name="S01 429 with Retry-After, once", faults=("429", ""), once="error", official="complete"),
    Scenario(name="S02 429 for ever", faults=("429",), once="error", official="error"),
    Scenario(name="S03 500 once", faults=("500", ""), once="error", official="complete"),
    Scenario(name="S04 503 for ever", faults=("503",), once="error", official="error"),
    Scenario(name="S05 reset before the head, once", faults=("refuse", ""), once="error", official="complete"),
    Scenario(name="S06 no answer at all", faults=("silent",), once="error", official="error"),
    Scenario(name="S07 slow first token", faults=("late",), once="complete", official="complete", attempts_max=1),
    Scenario(name="S08 stream cut", faults=("truncate:7",), once="error", official="error", attempts_max=1),
    Scenario(name="S09 stream stalls", faults=("stall:3",), once="error", official="error", attempts_max=1),
    Scenario(name="S10 malformed event", faults=("malformed:5",), once="error", official="error", attempts_max=1),
    Scenario(name="S11 no [DONE]", faults=("no-done",), once="error", official="error", attempts_max=1),
    Scenario(name="S12 context too long", faults=("400",), once="error", official="error", attempts_max=1),
    Scenario(name="S13 content filtered", faults=("400",), once="error", official="error", attempts_max=1),
    Scenario(name="S14 stream cut, asked again", faults=("truncate:7", ""), once="error", official="error"),
    Scenario(name="S15 down, then up", faults=("503", "503", ""), once="error", official="complete"),
    Scenario(name="S16 503 before another serves", faults=("503", ""), once="error", official="complete"),
    # Beyond the catalogue: what the issue trackers of gateways tell of.
    Scenario(name="reset in the stream", faults=("reset:4",), once="error", official="error", attempts_max=1),
    Scenario(name="429 in the stream", faults=("429:4",), once="error", official="error", attempts_max=1),
    Scenario(name="garbage and a clean end", faults=("garbage:4",), once="error", official="error", attempts_max=1),
    Scenario(name="garbage alone", faults=("garbage:0",), once="error", official="error"),
    Scenario(name="a stream without events", faults=("empty",), once="error", official="error"),
    Scenario(name="bytes behind the end", faults=("trailing",), once="complete", official="complete", attempts_max=1),
    # Its client has all of it by [DONE], and does not wait for the hundred bytes that never come.
    Scenario(name="length too long", faults=("too-short",), once="error", official="complete", attempts_max=1),
    Scenario(name="length too short", faults=("too-long",), once="error", official="error"),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def load_generator(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    folder = tmp_path_factory.mktemp("tokens")
    own = Processes(folder=folder, data_dir=folder)
    try:
        said = await own.start(
            "tokens",
            *("token-server", "--listen", "127.0.0.1:0", "--json"),
            *("--first-token-ms", "1", "--gap-ms", "5", "--tokens", "10"),
        )
        yield said["listening"]
    finally:
        own.stop()


@pytest.fixture(scope="module")
def changes(load_generator: str) -> dict[str, Any]:
    """A system before a load generator; its sidecars lose patience soon."""
    upstream = ("--upstream", load_generator, "--upstream-health-path", "/healthz")
    patience = ("--first-byte-s", "2", "--gap-s", "3")
    return {"lease_ms": 10_000, "drain_ms_max": 10_000, "sidecar_options": (*upstream, *patience)}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long the official client waits before it repeats is its own affair."""
    monkeypatch.setattr(openai.AsyncOpenAI, "_calculate_retry_timeout", lambda *_, **__: 0.01)


class InTurn(httpx.AsyncBaseTransport):
    """Names the fault of each attempt, and counts them."""

    def __init__(self, below: httpx.AsyncBaseTransport, faults: tuple[str, ...]) -> None:
        self.below = below
        self.faults = faults
        self.attempts = 0
        self.why = ""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        fault = self.faults[min(self.attempts, len(self.faults) - 1)]
        self.attempts += 1
        if fault:
            request.headers[FAULT] = fault
        return await self.below.handle_async_request(request)


def in_turn(system: Living, faults: tuple[str, ...]) -> InTurn:
    return InTurn(httpx.AsyncHTTPTransport(verify=system.trusting()), faults)


async def seen_by_the_official_client(system: Living, token: str, turns: InTurn, *, stream: bool) -> Seen:
    async with httpx.AsyncClient(transport=turns, trust_env=False, timeout=60) as below:
        client = openai.AsyncOpenAI(
            base_url=f"{system.gateway_url}/v1",
            api_key=token,
            max_retries=max(1, len(turns.faults) - 1),
            http_client=below,
            timeout=60,
        )
        try:
            text = "".join([piece async for piece in pieces_of(client, stream=stream)])
        except (openai.APIError, httpx.HTTPError, ValueError):
            return "error"
    assert text.strip() == WORDS, f"a broken answer passed for a whole one: {text!r}"
    return "complete"


async def pieces_of(client: openai.AsyncOpenAI, *, stream: bool) -> AsyncGenerator[str]:
    if not stream:
        whole = await client.chat.completions.create(model="any", messages=MESSAGES)
        yield whole.choices[0].message.content or ""
        return
    chunks = await client.chat.completions.create(model="any", messages=MESSAGES, stream=True)
    async for chunk in chunks:
        if chunk.choices:
            yield chunk.choices[0].delta.content or ""


async def seen_by_a_lenient_reader(system: Living, token: str, turns: InTurn) -> Seen:
    """Take for an answer whatever ends without being called an error; skip what is no JSON; do not wait for [DONE]."""
    text, told = "", False
    async with httpx.AsyncClient(transport=turns, base_url=system.gateway_url, trust_env=False, timeout=60) as client:
        asking = client.stream(
            "POST",
            "/v1/chat/completions",
            json={"model": "any", "messages": MESSAGES, "stream": True},
            headers={"authorization": f"Bearer {token}"},
        )
        try:
            async with asking as answer:
                if answer.status_code != 200:
                    turns.why = f"{answer.status_code} {(await answer.aread()).decode()}"
                    assert '"code"' in turns.why
                    return "error"
                async for line in answer.aiter_lines():
                    event = parsed(line)
                    told |= "error" in event
                    turns.why += line if "error" in event else ""
                    for choice in event.get("choices", []):
                        text += choice.get("delta", {}).get("content") or ""
        except httpx.HTTPError as error:
            turns.why += repr(error)
            return "error"
    if told:
        return "error"
    assert text.strip() == WORDS, f"a broken answer passed for a whole one: {text!r}"
    return "complete"


def parsed(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line.removeprefix("data:"))
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
async def test_answers_are_complete_or_an_explicit_error(mortal: Living, scenario: Scenario) -> None:
    session = await mortal.page()
    token = session["aist"]
    try:
        once, turns = in_turn(mortal, scenario.faults), in_turn(mortal, scenario.faults)
        # Beside one another: what they wait for is the patience of the sidecar.
        seen = await asyncio.gather(
            seen_by_a_lenient_reader(mortal, token, once),
            seen_by_the_official_client(mortal, token, turns, stream=True),
        )
        assert seen == [scenario.once, scenario.official], once.why
        assert once.attempts == 1
        assert turns.attempts <= scenario.attempts_max
        # Whoever is poisoned by it would fail the next one.
        after = in_turn(mortal, ("",))
        assert await seen_by_a_lenient_reader(mortal, token, after) == "complete", after.why
    finally:
        await mortal.end(session)


@pytest.mark.soak  # beyond the sixteen, half a minute
@pytest.mark.parametrize("fault", ["truncate", "reset", "too-short", "too-long", "garbage", "refuse", "500", "stall"])
async def test_whole_answers_are_whole_or_an_explicit_error(mortal: Living, fault: str) -> None:
    session = await mortal.page()
    turns = in_turn(mortal, (fault,))
    assert await seen_by_the_official_client(mortal, session["aist"], turns, stream=False) == "error"
    assert await seen_by_the_official_client(mortal, session["aist"], in_turn(mortal, ("",)), stream=False)
    await mortal.end(session)


async def test_the_catalogue_is_told_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "bad-days.md").read_text()
    for scenario in SCENARIOS[:16]:
        row = next((line for line in page.splitlines() if line.startswith(f"| {scenario.name.split()[0]} ")), None)
        assert row is not None, scenario.name
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[-2:] == [scenario.once, scenario.official], row
