"""A real anchor becomes slow: the audit finds it from outside, requests go elsewhere, and the log still verifies."""

import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from aipaging.apps.demo import slowness
from aipaging.apps.demo.acts import EMBED
from aipaging.apps.demo.clients import DemoClients
from aipaging.apps.demo.configuration import DOMAINS, promise
from aipaging.apps.demo.slowness import Slowness
from aipaging.apps.demo.stack import ANCHORS, Stack
from aipaging.core.foundation.time import WallUs

pytestmark = pytest.mark.real


async def until_counted(stack: Stack, sent: int) -> int:
    """Return how many requests the audit counted, once the gateway has reported the last of them."""
    counted, end_s = 0, time.monotonic() + 30
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {stack.operator_secret}"}) as operator:
        while counted < sent and time.monotonic() < end_s:
            await asyncio.sleep(0.1)
            metrics = (await operator.get(f"http://127.0.0.1:{stack.ports.northbound}/metrics")).text
            found = re.search(r'aipaging_audit_requests_total\{outcome="counted"\} (\d+)', metrics)
            counted = int(found[1]) if found is not None else 0
    return counted


async def test_a_slow_anchor_is_found_left_and_blamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slowness, "FOUND_S_MAX", 60.0)  # who watches the demo waits no longer; a test does
    stack = Stack.prepared(tmp_path / "stack")
    clients = DemoClients(stack)
    try:
        await stack.start()
        await clients.until_ready(len(ANCHORS), 120.0)
        for name, *_ in DOMAINS:
            await clients.promise(promise(name, now=WallUs(time.time_ns() // 1000)))
        session = await clients.page(**EMBED)
        seen = await Slowness(stack, clients, session).play(EMBED)
        moved = await clients.session(session)
        counted = await until_counted(stack, seen.sent)
    finally:
        await clients.close()
        stack.stop()
    assert seen.alarmed, seen
    assert seen.convicted, seen
    assert (seen.target, seen.pinned_contract) == (moved["anchorId"], "DEGRADED")
    assert seen.target != seen.source
    assert seen.sent == seen.answered
    assert counted >= seen.sent
    verified = subprocess.run(
        [sys.executable, "-m", "aipaging.apps.cli", "evidence", "verify", str(stack.journal)],
        capture_output=True, check=False, text=True,
    )  # fmt: skip
    assert verified.returncode == 0, verified.stdout
