"""What a finished run leaves behind: no token, no receipt, no credential, no key and no prompt in any log or record."""

import asyncio
import re
import secrets
import signal
from pathlib import Path

import httpx
import pytest
from tests.system.living import INTENT, Living

from aipaging.testing.stack import CONTROLLER

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("system-secrets")]

JWT = re.compile(rb"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}")
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")


async def lived(system: Living) -> dict[str, bytes]:
    """Put a system through what it may meet; return what must not be found anywhere afterwards."""
    prompt, place = f"prompt-{secrets.token_hex(16)}", f"answer-{secrets.token_hex(16)}"
    session, moved = await system.page(), await system.page()
    tokens = {"token": session["aist"], "receipt": session["commit"]["receipt"], "other token": moved["aist"]}
    async with system.user() as client:
        for path in ("/v1/echo", f"/v1/echo?private={place}"):
            headers = {"authorization": f"Bearer {session['aist']}"}
            assert (await client.post(path, content=prompt.encode(), headers=headers)).status_code == 200
        # What is refused is where logs grow talkative.
        for token in (f"{session['aist'][:-6]}AAAAAA", session["commit"]["receipt"], system.secrets["user"]):
            refused = await client.post(
                "/v1/echo", content=prompt.encode(), headers={"authorization": f"Bearer {token}"}
            )
            assert refused.status_code == 401
    gateway = system.enrol("gateway", "gateway-1")
    async with httpx.AsyncClient(verify=system.trusting(gateway), trust_env=False) as client:
        for receipt in (session["aist"], f"{session['commit']['receipt'][:-6]}AAAAAA"):
            await client.post(
                f"{system.sidecar_url(session['anchorId'])}/v1/echo",
                headers={"x-aipaging-commit": receipt, "authorization": f"Bearer {session['aist']}"},
            )
    await system.call("POST", "/sessions", {"intent": INTENT | {"task": prompt}})
    await system.call("POST", "/sessions", {"intent": INTENT | {"place": place}})
    await system.call("POST", f"/sessions/{moved['sessionId']}/relocate", {}, who="root")
    async with httpx.AsyncClient(trust_env=False) as client:
        url = f"http://127.0.0.1:{system.ports.northbound}/ai-paging/v0.1/sessions"
        await client.get(
            f"{url}?token={session['aist']}", headers={"authorization": f"Bearer x{system.secrets['user']}"}
        )
        await client.get(f"{url}/{session['aist']}", headers={"authorization": f"Bearer {system.secrets['user']}"})
    upstream = system.upstreams[session["anchorId"]]
    upstream.mode = "lies"
    await system.ask(session["aist"])
    upstream.die()
    await system.ask(session["aist"])
    system.kill(CONTROLLER)
    await system.start_controller()
    await system.end(moved)
    private = {"prompt": prompt, "query": place, **tokens}
    private |= {f"credential of {who}": secret for who, secret in system.secrets.items()}
    return {name: value.encode() for name, value in private.items()}


async def test_nothing_secret_is_in_logs_journal_or_exported_evidence(tmp_path: Path) -> None:
    async with Living.running(tmp_path / "system") as system:
        private = await lived(system)
        for name in (CONTROLLER, "one", "two"):
            process = system.processes.children[name].process
            process.send_signal(signal.SIGTERM)
        for name in (CONTROLLER, "one", "two"):
            await asyncio.to_thread(system.processes.children[name].process.wait, 60)
        exported = system.command("evidence", "export", str(system.journal), str(tmp_path / "tiles"))
        assert exported.returncode == 0, exported.stderr
    files = [path for folder in (system.folder, tmp_path / "tiles") for path in folder.rglob("*") if path.is_file()]
    assert [path for path in files if path.suffix == ".log"], "there is no log to look into"
    assert [path for path in files if "tile" in path.parts], "there is no tile to look into"
    found: list[tuple[str, str]] = []
    for path in files:
        raw = path.read_bytes()
        found += [(str(path), name) for name, value in private.items() if value in raw]
        found += [(str(path), "a signed token")] if JWT.search(raw) else []
        if PRIVATE_KEY.search(raw) or path.name.endswith(".key"):
            mode = path.stat().st_mode & 0o777
            assert mode == 0o600, f"{path} is a private key that others may read ({mode:o})"
            assert path.suffix in {".pem", ".key"}, path
    assert found == []
