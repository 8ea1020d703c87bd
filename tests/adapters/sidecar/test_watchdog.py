"""What a sidecar says to the service manager that started it."""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from aipaging.adapters.sidecar.watchdog import WORDS_IN_PERIOD, ServiceManager

PID = 4711


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """Listen as systemd does; both of its kinds of address."""
    name = f"@aipaging-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0", 1))
        listening.setblocking(False)
        yield name, listening


async def test_it_says_that_it_serves_and_then_that_it_moves_on(manager: tuple[str, socket.socket]) -> None:
    name, listening = manager
    told = ServiceManager.of({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "60000", "WATCHDOG_PID": str(PID)}, PID)
    assert told is not None
    assert told.silence_s == pytest.approx(0.06)
    telling = asyncio.create_task(told.tell())
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(30):
            words = [await loop.sock_recv(listening, 64) for _ in range(2 + WORDS_IN_PERIOD)]
    finally:
        telling.cancel()
    assert words == [b"READY=1", *[b"WATCHDOG=1"] * (1 + WORDS_IN_PERIOD)]


@pytest.mark.parametrize(
    "watchdog", [{}, {"WATCHDOG_USEC": "60000", "WATCHDOG_PID": str(PID + 1)}, {"WATCHDOG_USEC": "soon"}]
)
async def test_without_a_watchdog_of_ours_it_says_that_it_serves_and_no_more(
    manager: tuple[str, socket.socket], watchdog: dict[str, str]
) -> None:
    name, listening = manager
    told = ServiceManager.of({"NOTIFY_SOCKET": name, **watchdog}, PID)
    assert told is not None
    await told.tell()
    assert listening.recv(64) == b"READY=1"
    with pytest.raises(BlockingIOError):
        listening.recv(64)


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
def test_nobody_who_can_be_told_is_nobody(environment: dict[str, str]) -> None:
    assert ServiceManager.of(environment | {"WATCHDOG_USEC": "60000"}, PID) is None


async def test_a_manager_that_is_not_there_ends_nothing(tmp_path: Path) -> None:
    await ServiceManager(address=str(tmp_path / "nobody")).tell()
