"""A whole system of real processes, and its user: controller, Envoy, two sidecars, two recording upstreams.

Built from the same parts as the demo. Nothing here asks the controller what it believes: what is true is what reached
an upstream, what a client was answered, and what stands in the files.
"""

import asyncio
import contextlib
import json
import secrets
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import httpx
from tests.system.upstream import HOST, Reached, RecordingUpstream, boot_us

from aipaging.adapters.journal.sqlite.reader import SqliteEvidenceReader
from aipaging.adapters.signing.ca import CertificateAuthority
from aipaging.apps.demo.configuration import Ports
from aipaging.testing.stack import CONTROLLER, Processes, free_ports

BASE = "/ai-paging/v0.1"
TRUST_DOMAIN = "living.example"
LEASE_MS = 3_000
"""Half of it is what a renewal may take on two busy cores; tests that outlive a lease wait for all of it."""

ANCHORS = ("one", "two")

READY_S_MAX = 120.0
"""A busy machine of two cores starts a dozen Pythons slowly."""

INTENT: dict[str, Any] = {
    "task": "embeddings",
    "place": "access",
    "delayMs": 400,
    "epsilon": 0.001,
    "ratePerSecond": 5,
    "burst": 64,
    "durationS": 600,
}


CLIENTS = (
    ("user", "client", "acme"),
    ("stranger", "client", "other"),
    ("rescuer", "client", "rescue"),
    ("root", "operator", "op"),
)
"""Who may ask: credential, role and tenant."""

FIGURES = {
    "lease_ms": LEASE_MS,
    "drain_ms_max": LEASE_MS,
    "reserve_mb": 4,
    "file_mb": 16_384,
    "anchor_lost_ms": 3_000,
    "access_rps": 100,
    "idle_s": 330,
}


def configuration(
    data_dir: Path, ports: Ports, secrets_of: Mapping[str, str], *, first: str = "", last: str = "", **figures: int
) -> str:
    """Return the configuration: two anchors of one service in two domains, 100 requests/s each.

    Args:
        data_dir: The controller's.
        ports: Where everybody listens.
        secrets_of: The clients' credentials.
        first: Lines before all others.
        last: Lines after them.
        figures: What is to differ from `FIGURES`.
    """
    figures = FIGURES | figures
    text = f"""\
{first}
operator = {{ name = "living", trust_domain = "{TRUST_DOMAIN}", data_dir = {json.dumps(str(data_dir))} }}
northbound = {{ listen = "{HOST}:{ports.northbound}" }}
southbound = {{ listen = "{HOST}:{ports.southbound}", ads_listen = "{HOST}:{ports.ads}" }}
gateway = {{ listen = "{HOST}:{ports.gateway}", idle_s = {figures["idle_s"]} }}
journal = {{ reserve_mb = {figures["reserve_mb"]}, file_mb = {figures["file_mb"]} }}
lease = {{ lease_ms = {figures["lease_ms"]}, lease_ms_max = {figures["lease_ms"]}, grace_ms = 100, \
drain_ms_max = {figures["drain_ms_max"]} }}
limits = {{ anchor_lost_ms = {figures["anchor_lost_ms"]}, retry_ms = 200, prepare_ms_max = 1000 }}
"""
    for name, role, tenant in CLIENTS:
        digest = sha256(secrets_of[name].encode()).hexdigest()
        text += f'[[client]]\nclient_id = "{name}"\ntenant = "{tenant}"\nrole = "{role}"\nsecret_sha256 = "{digest}"\n'
    text += """
[[service]]
aisi = "aisi://living/echo/one"
task = "embeddings"
model = "echo"
languages = ["en"]
price = 1
"""
    for name, kind in (("access", "access"), *((f"site-{anchor}", "compute") for anchor in ANCHORS)):
        text += f"""
[[domain]]
name = "{name}"
kind = "{kind}"
region = "{name}"
jurisdiction = "eu"
trust = 3
data_class_max = "confidential"
[[envelope]]
domain = "{name}"
offset_ms = 10.0
prefactor = 1.0
decay_per_ms = 0.2
rate_rps_max = {float(figures["access_rps"] if kind == "access" else 100)}
burst_max = 64
valid_from = 2020-01-01T00:00:00Z
valid_until = 2100-01-01T00:00:00Z
"""
    for place, anchor in enumerate(ANCHORS):
        text += f"""
[[path]]
access = "access"
compute = "site-{anchor}"
[[anchor]]
id = "{anchor}"
domain = "site-{anchor}"
aisi = "aisi://living/echo/one"
address = "{HOST}:{ports.sidecar(place)}"
capacity_rps = 100.0
"""
    return text + last


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request by way of the gateway, as its client saw it; times on the boot clock."""

    token: str = field(repr=False)
    mark: str
    began_us: int
    ended_us: int
    status: int
    body: str

    @property
    def served(self) -> bool:
        return self.status == 200


@dataclass(slots=True)
class Living:
    """The processes, and how to talk to them."""

    folder: Path
    data_dir: Path
    ports: Ports
    secrets: dict[str, str]
    upstreams: dict[str, RecordingUpstream]
    processes: Processes
    sidecar_options: dict[str, tuple[str, ...]] = field(default_factory=dict)
    opened: dict[str, str] = field(default_factory=dict)
    """Sessions that were paged and not ended since, and whose they are."""
    _contexts: dict[str, ssl.SSLContext] = field(default_factory=dict)

    @classmethod
    @contextlib.asynccontextmanager
    async def running(
        cls, folder: Path, *, sidecar_options: Sequence[str] = (), **changes: Any
    ) -> AsyncGenerator[Self]:
        """Run a system until the block ends; `changes` are of the configuration and of `prepared`."""
        system = cls.prepared(folder, **changes)
        system.sidecar_options = dict.fromkeys(ANCHORS, tuple(sidecar_options))
        try:
            await system.start()
            yield system
        finally:
            system.stop()

    @classmethod
    def prepared(cls, folder: Path, *, data_dir: Path | None = None, **changes: Any) -> Self:
        """Return a system whose files are written and whose upstreams run; `changes` are of the configuration."""
        folder.mkdir(parents=True, exist_ok=True)
        upstreams = {name: RecordingUpstream(name) for name in ANCHORS}
        for upstream in upstreams.values():
            upstream.start()
        data_dir = data_dir or folder / "controller"
        living = cls(
            folder=folder,
            data_dir=data_dir,
            ports=Ports(*free_ports(5 + 2 * len(ANCHORS))),
            secrets={name: secrets.token_urlsafe(32) for name, *_ in CLIENTS},
            upstreams=upstreams,
            processes=Processes(folder=folder, data_dir=data_dir),
        )
        living.data_dir.mkdir(mode=0o700, exist_ok=True)
        living.config.write_text(configuration(living.data_dir, living.ports, living.secrets, **changes))
        for name in ANCHORS:
            living.enrol("anchor", name)
        return living

    @property
    def config(self) -> Path:
        return self.folder / "aipaging.toml"

    @property
    def journal(self) -> Path:
        return self.data_dir / "journal.db"

    @property
    def gateway_url(self) -> str:
        return f"https://{HOST}:{self.ports.gateway}"

    @property
    def southbound_url(self) -> str:
        return f"https://{HOST}:{self.ports.southbound}"

    def sidecar_url(self, name: str) -> str:
        return f"https://{HOST}:{self.ports.sidecar(ANCHORS.index(name))}"

    def enrol(self, role: Any, name: str, *, authority: Path | None = None) -> Path:
        """Return a folder with an identity of the system's authority, or of another one."""
        folder = self.folder / "identities" / f"{authority.name if authority else 'own'}-{role}-{name}"
        issuer = CertificateAuthority.open(authority or self.data_dir / "ca", TRUST_DOMAIN)
        issuer.write_identity(folder, role, name, addresses=(HOST,))
        return folder

    # -- processes

    async def start(self) -> None:
        await asyncio.gather(self.start_controller(), *(self.start_sidecar(name) for name in ANCHORS))
        await self.until_ready()

    async def start_controller(self) -> None:
        await self.processes.start(CONTROLLER, "serve", str(self.config), "--json")

    async def start_sidecar(self, name: str) -> None:
        await self.processes.start(
            name,
            "anchor",
            *("--id", name),
            *("--upstream", f"http://{HOST}:{self.upstreams[name].port}"),
            *("--controller", self.southbound_url),
            *("--identity", str(self.folder / "identities" / f"own-anchor-{name}")),
            *("--listen", f"{HOST}:{self.ports.sidecar(ANCHORS.index(name))}"),
            *self.sidecar_options.get(name, ()),
            "--json",
        )

    def kill(self, name: str) -> int:
        """End a process as a crash would; return when, on the boot clock."""
        self.processes.children[name].kill()
        return boot_us()

    async def until_ready(self) -> None:
        """Return when a gateway is connected and every anchor has been heard of."""
        async with asyncio.timeout(READY_S_MAX):
            while not await self._is_ready():
                await asyncio.sleep(0.1)

    async def _is_ready(self) -> bool:
        try:
            _, said = await self.call("GET", "/anchors", who="root")
            status, _ = await self._request("GET", "/readyz", "root", None)
        except httpx.TransportError:
            return False
        return status == 200 and [each["state"] for each in said.get("anchors", [])] == ["READY"] * len(ANCHORS)

    async def heal(self) -> None:
        """Bring back what a test broke and give back what it held, so that its failure is nobody else's."""
        for upstream in self.upstreams.values():
            if upstream.mode == "dead":
                upstream.live_again()
            upstream.mode = "well"
        for name in (CONTROLLER, *ANCHORS):
            if self.processes.children[name].process.poll() is not None:
                await (self.start_controller() if name == CONTROLLER else self.start_sidecar(name))
        await self.until_ready()
        for name, who in self.opened.items():
            await self.call("DELETE", f"/sessions/{name}", who=who)
        self.opened.clear()

    def stop(self) -> None:
        """End everything that was started here, without ceremony: a test that wants a clean stop does it itself."""
        for child in self.processes.children.values():
            child.kill()
        self.processes.stop()
        for upstream in self.upstreams.values():
            upstream.stop()

    # -- northbound

    async def _request(self, method: str, path: str, who: str, body: Any, key: str = "") -> tuple[int, Any]:
        headers = {"authorization": f"Bearer {self.secrets[who]}"} | ({"idempotency-key": key} if key else {})
        url = f"http://{HOST}:{self.ports.northbound}{path}"
        async with httpx.AsyncClient(timeout=60, trust_env=False, verify=False) as client:  # plain text
            response = await client.request(method, url, json=body, headers=headers)
        return response.status_code, response.json() if response.content else {}

    async def call(
        self, method: str, path: str, body: Any = None, *, who: str = "user", key: str = ""
    ) -> tuple[int, Any]:
        """Return status and document of a northbound call."""
        return await self._request(method, BASE + path, who, body, key)

    async def page(self, *, who: str = "user", **changes: Any) -> dict[str, Any]:
        """Return the session of an intent that must be admitted."""
        status, said = await self.call("POST", "/sessions", {"intent": INTENT | changes}, who=who)
        assert status == 201, said
        self.opened[said["sessionId"]] = who
        return said

    async def session(self, session: Mapping[str, Any]) -> dict[str, Any]:
        name = session["sessionId"]
        return (await self.call("GET", f"/sessions/{name}", who=self.opened.get(name, "user")))[1]

    async def end(self, *sessions: Mapping[str, Any]) -> None:
        for session in sessions:
            who = self.opened.pop(session["sessionId"], "user")
            status, said = await self.call("DELETE", f"/sessions/{session['sessionId']}", who=who)
            assert status == 204, said

    async def heard(self, *, who: str = "user", after: str = "0") -> list[dict[str, Any]]:
        """Return every event since a place, as `aipaging events` would."""
        url = f"http://{HOST}:{self.ports.northbound}{BASE}/events"
        headers = {"authorization": f"Bearer {self.secrets[who]}"}
        query = {"lastEventId": after, "follow": "false"}
        async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
            answer = await client.get(url, params=query, headers=headers)
        assert answer.status_code == 200, answer.text
        return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]

    # -- user plane

    def trusting(self, identity: Path | None = None) -> ssl.SSLContext:
        """Return a context that trusts this system's authority, and shows an identity if one is given."""
        key = str(identity)
        if key not in self._contexts:
            context = ssl.create_default_context(cafile=str(self.data_dir / "ca" / "ca.pem"))
            if identity is not None:
                context.load_cert_chain(identity / "cert.pem", identity / "key.pem")
            self._contexts[key] = context
        return self._contexts[key]

    def user(self, *, http2: bool = False, limits: httpx.Limits | None = None) -> httpx.AsyncClient:
        """Return a client of the gateway."""
        limits = limits or httpx.Limits()
        return httpx.AsyncClient(
            base_url=self.gateway_url, verify=self.trusting(), http2=http2, timeout=60, trust_env=False, limits=limits
        )

    async def ask(
        self, token: str, path: str = "/v1/echo", *, client: httpx.AsyncClient | None = None, **headers: str
    ) -> Asked:
        """Send one request; status 0 where no answer came at all."""
        mark = secrets.token_hex(8)
        async with contextlib.AsyncExitStack() as own:
            used = client or await own.enter_async_context(self.user())
            began_us = boot_us()
            try:
                response = await used.post(
                    path,
                    headers={
                        "authorization": f"Bearer {token}",
                        "x-mark": mark,
                        **{name.replace("_", "-"): value for name, value in headers.items()},
                    },
                    content=b"a secret prompt",
                )
                status, body = response.status_code, response.text
            except httpx.HTTPError as error:
                status, body = 0, type(error).__name__
            return Asked(token=token, mark=mark, began_us=began_us, ended_us=boot_us(), status=status, body=body)

    async def until_served(self, token: str, limit_s: float = 60.0) -> Asked:
        """Ask until a request is served."""
        end_s = time.monotonic() + limit_s
        while True:
            asked = await self.ask(token)
            if asked.served:
                return asked
            assert time.monotonic() < end_s, f"not served again within {limit_s:g} s: {asked}"
            await asyncio.sleep(0.05)

    @contextlib.asynccontextmanager
    async def load(self, *sessions: Mapping[str, Any], pause_s: float = 0.2) -> AsyncGenerator[list[Asked]]:
        """Send requests of the sessions, one client each, until the block ends; so few that no guardrail is met."""
        asked: list[Asked] = []
        over = asyncio.Event()

        async def one(token: str) -> None:
            async with self.user() as client:
                while not over.is_set():
                    asked.append(await self.ask(token, client=client))
                    await asyncio.sleep(pause_s)

        async with asyncio.TaskGroup() as group:
            for session in sessions:
                group.create_task(one(session["aist"]))
            try:
                yield asked
            finally:
                over.set()

    @property
    def reached(self) -> list[Reached]:
        """Everything that reached an upstream."""
        return [each for upstream in self.upstreams.values() for each in upstream.reached]

    def reached_by(self, marks: Iterable[str]) -> list[Reached]:
        wanted = set(marks)
        return [each for each in self.reached if each.mark in wanted]

    # -- evidence

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of ours to its end."""
        command = [sys.executable, "-m", "aipaging.apps.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)

    def verdict(self, path: Path | None = None) -> tuple[int, dict[str, Any]]:
        """Return exit status and document of `aipaging evidence verify`."""
        done = self.command("evidence", "verify", str(path or self.journal), "--json")
        return done.returncode, json.loads(done.stdout)

    def records(self) -> list[dict[str, Any]]:
        """Return the evidence as it stands in the file."""
        return list(records_of(self.journal))

    def verified(self) -> list[dict[str, Any]]:
        """Return the evidence after it was verified."""
        status, verdict = self.verdict()
        assert (status, verdict["first_bad"]) == (0, None), verdict
        return self.records()

    def spans(self) -> dict[str, list[tuple[int, int]]]:
        """Return for each session when, at most, something could be steered by it: boot clock, from the evidence."""
        spans: dict[str, list[tuple[int, int]]] = {}
        for record in self.records():
            for lease in [record, *record["leaves"]]:
                if record["type"] in {"COMMIT_GRANTED", "LEASES_RENEWED", "LEASES_REGRANTED"} and "lease_ms" in lease:
                    until_us = record["boot_us"] + lease["lease_ms"] * 1000
                    spans.setdefault(lease["session"], []).append((record["boot_us"], until_us))
        return spans

    def outside_leases(self, session: Mapping[str, Any], asked: Iterable[Asked]) -> list[Asked]:
        """Return the requests that were served although no COMMIT was live at any moment of theirs."""
        spans = self.spans()[session["sessionId"]]
        return [
            each
            for each in asked
            if each.served
            and each.token == session["aist"]
            and not any(begin <= each.ended_us and each.began_us <= end for begin, end in spans)
        ]


def records_of(journal: Path) -> Iterable[dict[str, Any]]:
    """Yield every record of a journal file as a map, its leaves beside it."""
    reader = SqliteEvidenceReader(journal)
    try:
        for stored in reader.records(0):
            yield {**json.loads(stored.record), "leaves": [json.loads(leaf) for leaf in stored.leaves]}
    finally:
        reader.close()
