"""`aipaging anchor`: everything is checked before anything starts, and SIGTERM drains."""

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from aipaging.adapters.signing.ca import CertificateAuthority


@pytest.fixture(scope="module")
def identity(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("anchor")
    authority = CertificateAuthority.open(root / "ca", "operator.example")
    authority.write_identity(root / "gpu-1", "anchor", "gpu-1", addresses=["127.0.0.1"])
    return root / "gpu-1"


def options(folder: Path, /, **changes: str) -> list[str]:
    said = {
        "id": "gpu-1",
        "upstream": "http://127.0.0.1:1",
        "controller": "https://127.0.0.1:1",
        "identity": str(folder),
        "listen": "127.0.0.1:0",
    }
    return [part for name, value in (said | changes).items() if value for part in (f"--{name}", value)]


async def ran(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "aipaging.apps.cli",
        "anchor",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    return process.returncode or 0, output.decode(), errors.decode()


@pytest.mark.real
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"id": "Not A Name"}, "id is"),
        ({"upstream": "nonsense"}, "upstream is"),
        ({"controller": "http://plain:1"}, "controller is"),
        ({"listen": "somewhere"}, "listen is"),
        ({"id": "gpu-2"}, "not of anchor gpu-2"),
        ({"identity": "/nowhere"}, "enrol"),
        ({"concurrency": "0"}, "concurrency is 0"),
        ({"config": "/nowhere.toml"}, "nowhere.toml"),
    ],
)
async def test_what_cannot_work_is_refused_before_anything_starts(identity, changes, named) -> None:
    status, output, errors = await ran(*options(identity, **changes))
    assert status == 2
    assert named in output + errors
    assert "Traceback" not in errors
    assert '"event":"started"' not in errors


@pytest.mark.real
async def test_plain_text_is_refused_beyond_loopback(identity) -> None:
    status, _, errors = await ran(*options(identity, listen="0.0.0.0:0"), "--plaintext")
    assert status == 2
    assert "loopback" in errors


@pytest.mark.real
async def test_a_file_gives_options_and_unknown_ones_are_refused(identity, tmp_path) -> None:
    config = tmp_path / "anchor.toml"
    config.write_text('upstream = "nonsense-from-file"\nqueue = 5\n')
    status, _, errors = await ran(*options(identity, upstream=""), "--config", str(config))
    assert status == 2
    assert "nonsense-from-file" in errors
    config.write_text("concurency = 5\n")
    status, _, errors = await ran(*options(identity), "--config", str(config))
    assert status == 2
    assert "concurency" in errors


@pytest.mark.real
async def test_it_starts_without_its_controller_and_a_signal_ends_it(identity, tmp_path) -> None:
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    manager.setblocking(False)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "aipaging.apps.cli",
        "anchor",
        *options(identity),
        "--json",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"},
    )
    assert process.stdout is not None
    ready = json.loads(await process.stdout.readline())
    assert ready["anchor"] == "gpu-1"
    assert ready["listening"].startswith("https://127.0.0.1:")
    with manager:
        async with asyncio.timeout(60):
            words = [await asyncio.get_running_loop().sock_recv(manager, 64) for _ in range(3)]
    assert words == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
    process.send_signal(signal.SIGTERM)
    _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    events = [json.loads(line)["event"] for line in errors.decode().splitlines() if line.startswith("{")]
    assert events[0] == "started"
    assert events[-2:] == ["draining", "stopped"] or events[-1] == "stopped"
