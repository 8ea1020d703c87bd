"""Signals that come before a controller is ready, to the real command."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest

from aipaging.apps.server.command import HangUps
from aipaging.testing.stack import free_ports

SECRET = "a-secret-of-the-operator"
WAIT_S = 60.0


class SlowKeys:
    """A server of key sets that says when it is asked, and answers when it may: start-up waits for it."""

    def __init__(self) -> None:
        self.asked, self.may_answer = Event(), Event()
        keys = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                keys.asked.set()
                keys.may_answer.wait(WAIT_S)
                self.send_response(503)
                self.end_headers()

            def log_message(self, *_arguments: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.may_answer.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def slow_keys() -> Iterator[SlowKeys]:
    keys = SlowKeys()
    yield keys
    keys.close()


def configuration(ports: list[int], keys_port: int) -> str:
    return f"""
operator = {{ name = "hup", trust_domain = "hup.example", data_dir = "data" }}
northbound = {{ listen = "127.0.0.1:{ports[0]}" }}
southbound = {{ listen = "127.0.0.1:{ports[1]}", ads_listen = "127.0.0.1:{ports[2]}" }}
gateway = {{ driver = "memory", listen = "127.0.0.1:{ports[3]}" }}
journal = {{ reserve_mb = 4 }}
[[client]]
client_id = "root"
tenant = "op"
role = "operator"
secret_sha256 = "{sha256(SECRET.encode()).hexdigest()}"
[[domain]]
name = "edge"
kind = "compute"
region = "here"
jurisdiction = "eu"
keys_url = "http://127.0.0.1:{keys_port}/keys.json"
"""


@pytest.mark.real
def test_a_hang_up_during_the_start_reloads_once_it_is_over(tmp_path: Path, slow_keys: SlowKeys) -> None:
    config, log = tmp_path / "aipaging.toml", tmp_path / "log"
    text = configuration(free_ports(4), slow_keys.server.server_address[1])
    config.write_text(text)
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "aipaging.apps.cli", "serve", str(config), "--json"],
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    try:
        assert slow_keys.asked.wait(WAIT_S), log.read_text()
        config.write_text(text + '[[tenant]]\nname = "acme"\nsessions_max = 3\n')
        process.send_signal(signal.SIGHUP)
        slow_keys.may_answer.set()
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline() or b"{}")
        assert "northbound" in ready, (process.poll(), log.read_text())
        headers = {"authorization": f"Bearer {SECRET}"}
        base = f"{ready['northbound']}/ai-paging/v0.1"
        deadline_s = time.monotonic() + WAIT_S
        while httpx.get(f"{base}/tenants/acme", headers=headers).status_code != 200:
            assert time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.05)
        assert httpx.get(f"{base}/configuration", headers=headers).json()["applied"] == ["tenant"]
        usage = httpx.get(f"{base}/usage", headers=headers)
        assert (usage.status_code, usage.json()["usage"]) == (200, []), usage.text
        assert (tmp_path / "data" / "usage.db").stat().st_mode & 0o077 == 0, "the operator's alone"
    finally:
        process.terminate()
        process.wait(WAIT_S)
        if process.stdout is not None:
            process.stdout.close()


def test_hang_ups_before_it_is_ready_are_kept_as_one_and_later_ones_are_not() -> None:
    done: list[int] = []
    hang_ups = HangUps()
    hang_ups.heard()
    hang_ups.heard()
    hang_ups.ready(lambda: done.append(1))
    assert len(done) == 1
    hang_ups.heard()
    hang_ups.heard()
    assert len(done) == 3
    quiet = HangUps()
    quiet.ready(lambda: done.append(1))
    assert len(done) == 3
