"""`aipaging envelopes` against a controller that really runs: files of keys, rotation, restart, suspicion."""

import contextlib
import io
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from aipaging.adapters.signing.envelopes import EnvelopeKeys
from aipaging.adapters.terminal.guard import run
from aipaging.apps.cli.registry import aipaging
from aipaging.core.envelope.document import DelayContractModel, EnvelopeDocument, Guardrails, instant_of
from aipaging.core.foundation.time import SECOND, WallUs
from aipaging.testing.stack import free_ports

pytestmark = pytest.mark.real

CONFIG = """\
[operator]
name = "op"
data_dir = "data"
[northbound]
listen = "127.0.0.1:{north}"
[southbound]
listen = "127.0.0.1:{south}"
ads_listen = "127.0.0.1:{ads}"
[gateway]
driver = "memory"
listen = "127.0.0.1:{gateway}"
[[client]]
client_id = "noc"
tenant = "op"
role = "operator"
secret_sha256 = "{secret}"
[[domain]]
name = "access"
kind = "access"
region = "here"
jurisdiction = "eu"
[[domain]]
name = "edge"
kind = "compute"
region = "here"
jurisdiction = "eu"
keys_file = "edge.jwks"
[[envelope]]
domain = "access"
offset_ms = 5.5
prefactor = 1.0
decay_per_ms = 0.2
rate_rps_max = 100.0
burst_max = 64
valid_from = 2020-01-01T00:00:00Z
valid_until = 2100-01-01T00:00:00Z
"""


class Running:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secret = secrets.token_urlsafe(24)
        self.keys = EnvelopeKeys.open(folder / "edge-keys")
        ports = free_ports(4)
        self.url = f"http://127.0.0.1:{ports[0]}"
        digest = sha256(self.secret.encode()).hexdigest()
        names = dict(zip(("north", "south", "ads", "gateway"), ports, strict=True))
        (folder / "aipaging.toml").write_text(CONFIG.format(**names, secret=digest))
        (folder / "edge.jwks").write_text(json.dumps(self.keys.jwks()))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "aipaging.apps.cli", "serve", str(self.folder / "aipaging.toml"), "--json"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        assert self.process.stdout is not None
        assert self.process.stdout.readline(), (self.folder / "log").read_text()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=60)
            assert self.process.stdout is not None
            self.process.stdout.close()

    def say(self, *arguments: str, status: int = 0) -> Any:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("AIPAGING_URL", self.url)
            environment.setenv("AIPAGING_CREDENTIAL", self.secret)
            told = io.StringIO()
            with contextlib.redirect_stdout(told):
                ended = run(aipaging, ["envelopes", *arguments, "--json"])
        assert ended == status, (arguments, told.getvalue(), (self.folder / "log").read_text()[-2000:])
        return json.loads(told.getvalue())

    def signed(self, sequence: int, keys: EnvelopeKeys | None = None) -> str:
        now = WallUs(time.time_ns() // 1000)
        document = EnvelopeDocument(
            version=1,
            domain="edge",
            sequence=sequence,
            not_before=instant_of(WallUs(now - 60 * SECOND)),
            not_after=instant_of(WallUs(now + 3_600 * SECOND)),
            guardrails=Guardrails(rate_rps="100", burst=8),
            model=DelayContractModel(offset_ms="40", prefactor="1", decay_per_ms="0.1"),
        )
        file = self.folder / f"edge-{sequence}.jws"
        file.write_bytes((keys or self.keys).signed(document).raw)
        return str(file)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    controller = Running(tmp_path)
    controller.start()
    yield controller
    controller.stop()


def test_an_envelope_lives_with_its_controller(running: Running) -> None:
    [plain] = running.say("list")["envelopes"]
    assert (plain["domain"], plain["state"], plain["contract"]["offsetMs"]) == ("access", "IN_FORCE", 5.5)
    added = running.say("add", running.signed(1))
    assert (added["domain"], added["keyId"]) == ("edge", running.keys.keys[-1].kid)
    again = str(running.folder / "edge-1.jws")
    assert running.say("add", again, status=3)["error"]["code"] == "AI_PAGING.ENVELOPE_REPLAYED"

    # A key is rotated: the file is read anew, and the new key signs.
    newer = running.keys.rotated()
    file = running.signed(2, newer)
    assert running.say("add", file, status=3)["error"]["code"] == "AI_PAGING.ENVELOPE_KEY_UNKNOWN"
    (running.folder / "edge.jwks").write_text(json.dumps(newer.jwks()))
    end_s = time.monotonic() + 60
    while len(running.say("keys", "edge")["keyIds"]) < 2:
        assert time.monotonic() < end_s
        time.sleep(0.1)
    second = running.say("add", file)

    shown = running.say("show", second["digest"][:12])
    assert (shown["state"], shown["document"]["sequence"]) == ("IN_FORCE", 2)
    assert running.say("suspect", second["digest"], "--reason", "audit: violated")["state"] == "SUSPECT"
    assert running.say("keys", "edge", "--set", str(running.folder / "edge.jwks"), status=3)
    before = running.say("list")

    running.stop()
    running.start()
    assert running.say("list") == before  # nothing was signed twice, nothing forgotten
    assert running.say("clear", second["digest"])["state"] == "IN_FORCE"
    assert running.say("show", added["digest"])["newest"] is False
    rolled_back = running.say("add", running.signed(1), status=3)["error"]
    assert rolled_back["code"] == "AI_PAGING.ENVELOPE_ROLLED_BACK"
    running.stop()
    verify = [sys.executable, "-m", "aipaging.apps.cli", "evidence", "verify", str(running.folder / "data/journal.db")]
    assert subprocess.run(verify, capture_output=True, check=False).returncode == 0


def test_a_source_that_is_gone_trusts_nobody_and_takes_nothing_plain(tmp_path: Path) -> None:
    controller = Running(tmp_path)
    (tmp_path / "edge.jwks").unlink()
    controller.start()
    try:
        assert controller.say("keys", "edge")["keyIds"] == []
        refused = controller.say("add", controller.signed(1), status=3)["error"]
        assert refused["code"] == "AI_PAGING.ENVELOPE_KEY_UNKNOWN"
    finally:
        controller.stop()
