"""A sidecar that stands still under a service manager, and a model server that does: who waits for them is told."""

import asyncio
import contextlib
import signal
import socket
import threading
from pathlib import Path

import httpx
import pytest
from tests.system.living import Living

pytestmark = [pytest.mark.real, pytest.mark.soak, pytest.mark.asyncio(loop_scope="module")]

SILENCE_S = 2.0
ALIVE = "curl --silent --insecure --output /dev/null --max-time 5 {url}/; test $? -ne 28"
"""As `docs/how-to/bad-days.md` says it."""


async def ended_when_silent(listening: socket.socket, system: Living, name: str) -> None:
    """Do what systemd does with `WatchdogSec=2` and `WatchdogSignal=SIGKILL`."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(TimeoutError):
        while True:
            await asyncio.wait_for(loop.sock_recv(listening, 64), SILENCE_S)
    system.kill(name)


async def test_who_waits_for_a_sidecar_that_stands_still_is_told_when_its_manager_ends_it(
    mortal: Living, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    session = await mortal.page()
    source = session["anchorId"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        mortal.kill(source)
        with monkeypatch.context() as started:
            started.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
            started.setenv("WATCHDOG_USEC", str(int(SILENCE_S * 1e6)))
            await mortal.start_sidecar(source)
        session = await mortal.page(regions=[f"site-{source}"])
        await mortal.until_served(session["aist"])  # over a connection that is kept
        async with mortal.user() as user:
            head = {"authorization": f"Bearer {session['aist']}"}
            async with user.stream("POST", "/stream?events=9000&gap_ms=50", headers=head, content=b"x") as answer:
                assert answer.status_code == 200
                watching = asyncio.create_task(ended_when_silent(listening, mortal, source))
                mortal.processes.children[source].process.send_signal(signal.SIGSTOP)
                waiting = [asyncio.create_task(mortal.ask(session["aist"])) for _ in range(3)]
                with pytest.raises(httpx.RemoteProtocolError):
                    await answer.aread()
        await watching
        assert [each.status for each in await asyncio.gather(*waiting)] == [503] * 3
    assert mortal.processes.children[source].process.returncode == -signal.SIGKILL


async def test_a_model_server_that_stands_still_is_left_and_who_waits_for_it_is_told(mortal: Living) -> None:
    session = await mortal.page()
    await mortal.until_served(session["aist"])
    source = session["anchorId"]
    go_on = threading.Event()
    mortal.upstreams[source]._loop.call_soon_threadsafe(go_on.wait)
    try:
        waiting = [asyncio.create_task(mortal.ask(session["aist"])) for _ in range(3)]
        await mortal.until_served(session["aist"])
        assert (await mortal.session(session))["anchorId"] != source
        for each in await asyncio.gather(*waiting):
            assert each.status == 503, "worth repeating: the session is served elsewhere"
            assert "LEASE_ENDED" in each.body
    finally:
        go_on.set()


async def test_a_probe_tells_a_sidecar_that_stands_still_from_one_that_refuses(mortal: Living) -> None:
    async def alive() -> bool:
        probe = await asyncio.create_subprocess_shell(ALIVE.format(url=mortal.sidecar_url("two")))
        return await probe.wait() == 0

    sidecar = mortal.processes.children["two"].process
    assert await alive()
    sidecar.send_signal(signal.SIGSTOP)
    try:
        assert not await alive()
    finally:
        sidecar.send_signal(signal.SIGCONT)
    assert await alive()
