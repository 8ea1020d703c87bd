"""Anchors that are not what they say: a relocation to one of them fails, and the source goes on as if nothing was."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.system.living import Living
from tests.system.upstream import HOST

from aipaging.adapters.signing.peer import server_context

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("system-liars")]

HEARD_S_MAX = 30.0
OVER = {"FAILED", "SOURCE_RELEASED", "SWITCHED"}


async def relocated(system: Living, session: dict[str, Any]) -> dict[str, Any]:
    """Ask for a relocation and return how it went."""
    status, said = await system.call("POST", f"/sessions/{session['sessionId']}/relocate", {}, who="root")
    assert status == 202, said
    async with asyncio.timeout(60):
        while True:
            relocation: dict[str, Any] = (await system.session(session)).get("relocation", {"phase": "NONE"})
            if relocation["phase"] in OVER:
                return relocation
            await asyncio.sleep(0.05)


async def check_it_fails_and_nothing_is_lost(
    system: Living, session: dict[str, Any], spoil: Callable[[], None] = lambda: None
) -> None:
    """Spoil the target, relocate at once, and look at what came of it."""
    source = (await system.session(session))["anchorId"]
    other = next(name for name in system.upstreams if name != source)
    before = len(system.upstreams[other].reached)
    async with system.load(session) as asked:
        await asyncio.sleep(0.3)
        spoil()
        relocation = await relocated(system, session)
        await asyncio.sleep(0.5)
    assert relocation["phase"] == "FAILED", relocation
    assert [each for each in asked if not each.served] == []
    assert len(system.upstreams[other].reached) == before
    assert (await system.session(session))["anchorId"] == source
    system.verified()


async def test_an_anchor_whose_model_server_has_just_died_is_no_target(mortal: Living) -> None:
    session = await mortal.page()
    other = mortal.upstreams["two" if session["anchorId"] == "one" else "one"]
    # Its sidecar has said READY, and believes it for up to a heartbeat.
    await check_it_fails_and_nothing_is_lost(mortal, session, other.die)
    other.live_again()
    await mortal.until_ready()
    assert (await relocated(mortal, session))["phase"] in {"SWITCHED", "SOURCE_RELEASED"}
    await mortal.end(session)


async def test_an_anchor_that_says_it_is_well_and_answers_502_is_shown_for_what_it_is(mortal: Living) -> None:
    """Nobody can see it before a request fails; then the client is told, and the operator can move the session."""
    session = await mortal.page()
    liar = mortal.upstreams[session["anchorId"]]
    liar.mode = "lies"
    try:
        assert (await mortal.ask(session["aist"])).status == 502, "a failure must not be passed on as a success"
        assert (await relocated(mortal, session))["phase"] in {"SWITCHED", "SOURCE_RELEASED"}
        assert (await mortal.until_served(session["aist"])).served
    finally:
        liar.mode = "well"
    mortal.verified()
    await mortal.end(session)


class Impostor:
    """A sidecar with the right certificate that heartbeats READY and does as it likes with everything else."""

    def __init__(self, system: Living, name: str) -> None:
        self.system = system
        self.name = name
        self.identity = system.folder / "identities" / f"own-anchor-{name}"
        self.prepare: bytes | None = b"204 No Content"  # None: it never answers
        self.asked = 0
        self._server: asyncio.Server | None = None
        self._beating: asyncio.Task[None] | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._heard = asyncio.Event()

    async def start(self, identity: Any = None) -> None:
        port = int(self.system.sidecar_url(self.name).rpartition(":")[2])
        context: ssl.SSLContext = server_context(identity or self.identity)
        self._server = await asyncio.start_server(self._answer, HOST, port, ssl=context)
        self._beating = asyncio.create_task(self._beat())
        # Until then the anchor may be READY by what the sidecar before it has said, and about to be LOST.
        async with asyncio.timeout(HEARD_S_MAX):
            await self._heard.wait()

    async def stop(self) -> None:
        if self._beating is not None and self._server is not None:
            self._beating.cancel()
            self._server.close()
        for writer in self._open:
            writer.transport.abort()

    async def _beat(self) -> None:
        url = f"{self.system.southbound_url}/anchors/{self.name}/heartbeat"
        context = self.system.trusting(self.identity)
        async with httpx.AsyncClient(verify=context, trust_env=False, timeout=60) as client:
            sequence = 0
            while True:
                sequence += 1
                beat = {"state": "READY", "boot": "impostor", "sequence": sequence, "in_flight": 0, "queued": 0}
                with contextlib.suppress(httpx.TransportError):
                    if (await client.put(url, json=beat)).is_success:
                        self._heard.set()
                await asyncio.sleep(0.2)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if b"/prepare" in head:
                    self.asked += 1
                    if self.prepare is None:
                        await asyncio.sleep(30)
                    writer.write(b"HTTP/1.1 %s\r\ncontent-length: 0\r\n\r\n" % (self.prepare or b""))
                else:
                    writer.write(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@pytest_asyncio.fixture(loop_scope="module")
async def impostor(mortal: Living) -> AsyncIterator[Impostor]:
    """An impostor in the place of the second anchor."""
    mortal.kill("two")
    impostor = Impostor(mortal, "two")
    yield impostor
    await impostor.stop()
    await mortal.start_sidecar("two")
    await mortal.until_ready()


@pytest.mark.parametrize("answer", [None, b"503 Busy", b"200 OK", b"302 Found"], ids=["silence", "503", "200", "302"])
async def test_a_target_that_does_not_say_exactly_that_it_is_ready_is_none(
    mortal: Living, impostor: Impostor, answer: bytes | None
) -> None:
    impostor.prepare = answer
    await impostor.start()
    await mortal.until_ready()
    session = await mortal.page()
    if session["anchorId"] == "two":
        pytest.fail("the first anchor ranks first")
    await check_it_fails_and_nothing_is_lost(mortal, session)
    assert impostor.asked == 1
    await mortal.end(session)


async def test_a_target_with_the_certificate_of_another_is_none(mortal: Living, impostor: Impostor) -> None:
    await impostor.start(mortal.enrol("anchor", "somebody"))
    await mortal.until_ready()
    session = await mortal.page()
    await check_it_fails_and_nothing_is_lost(mortal, session)
    await mortal.end(session)
