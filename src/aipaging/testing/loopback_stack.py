"""A whole system on loopback to be measured: one controller with its Envoy, sidecars, one upstream behind them all.

The parts are the installed commands with the configuration below; what is unusual in it is stated here. Clients reach
the gateway in plain text, as they reach the plain Envoy it is compared with; gateway and sidecars speak mutual TLS, as
always, but where an anchor asks for plain text. Envelopes and capacities are wide: nothing is measured of admission.
"""

import asyncio
import contextlib
import json
import logging
import secrets
import shutil
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import httpx

from aipaging.adapters.signing.ca import CertificateAuthority
from aipaging.core.foundation.errors import UnavailableError
from aipaging.testing.stack import COMMAND, CONTROLLER, Processes, free_ports

LOG: Final = logging.getLogger("aipaging.bench")

HOST: Final = "127.0.0.1"
BASE: Final = "/ai-paging/v0.1"
TRUST_DOMAIN: Final = "bench.example"

READY_S_MAX: Final = 60.0
"""A gateway is connected, and anchors have been heard of, within two seconds on an idle machine."""

CALL_S_MAX: Final = 20.0
"""A northbound call takes milliseconds; a machine that does everything at once takes longer."""

BURST: Final = 1_000_000
"""Guardrails stay out of the way: no run sends as many requests in one session."""

IN_FLIGHT_MAX: Final = 4_096
"""No benchmark here measures the bounds of a queue: they are wide at gateway and sidecar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchAnchor:
    """One anchor.

    Attributes:
        name: Its name.
        plain_text: Whether its sidecar listens without TLS.
        options: Further options of `aipaging anchor`.
        domain: Where it stands; empty for a domain of its own, of the same name.
    """

    name: str
    plain_text: bool = False
    options: tuple[str, ...] = ()
    domain: str = ""

    @property
    def stands_in(self) -> str:
        """The name of its domain, which is that of the domain's region."""
        return self.domain or self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """Who pages, and what is reserved."""

    tenant: str = "bench"
    rate_rps: float = 10.0
    burst: int = BURST


WIDE: Final = Contract()


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """The lease's times of a run; the drain lasts as long as a lease, which is the least that is allowed."""

    lease_ms: int
    kept_ms: int = 60_000
    anchor_lost_ms: int = 5_000


_HEAD: Final = """\
[operator]
name = "bench"
trust_domain = "{trust_domain}"
data_dir = {data_dir}

[northbound]
listen = "127.0.0.1:{northbound}"
rate_rps = 0  # one client asks as often as it can: the limit of each is not what is measured
free_text = "keywords"  # no sentence comes: the embeddings would be made ready in the midst of what is measured

[southbound]
listen = "127.0.0.1:{southbound}"
ads_listen = "127.0.0.1:{ads}"

[gateway]
listen = "127.0.0.1:{gateway}"
plain_text = true

[lease]
lease_ms = {lease_ms}
lease_ms_max = {lease_ms}
grace_ms = 100
drain_ms_max = {lease_ms}

# The envelopes here promise what no machine under full load keeps: the audit would, rightly, leave the anchors.
[audit]
enabled = false

[limits]
anchor_lost_ms = {anchor_lost_ms}
kept_ms = {kept_ms}

[[client]]
client_id = "bench"
tenant = "bench"
role = "operator"
secret_sha256 = "{digest}"

[[client]]
client_id = "other"
tenant = "other"
role = "operator"
secret_sha256 = "{other_digest}"

[[client]]
client_id = "user"
tenant = "bench"
role = "client"
secret_sha256 = "{user_digest}"

[[service]]
aisi = "aisi://bench/echo/one"
task = "chat"
model = "echo"
"""

_DOMAIN: Final = """
[[domain]]
name = "{name}"
kind = "{kind}"
region = "{region}"
jurisdiction = "eu"

[[envelope]]
domain = "{name}"
offset_ms = 1.0
prefactor = 1.0
decay_per_ms = 1.0
rate_rps_max = 100000.0
burst_max = 1000000
valid_from = 2020-01-01T00:00:00Z
valid_until = 2100-01-01T00:00:00Z
"""

_PATH: Final = """
[[path]]
access = "access"
compute = "{name}"
"""

_ANCHOR: Final = """
[[anchor]]
id = "{name}"
domain = "{domain}"
aisi = "aisi://bench/echo/one"
address = "127.0.0.1:{port}"
tls = {tls}
capacity_rps = 1000000.0
in_flight_max = {in_flight_max}
"""


@dataclass(slots=True)
class BenchStack:
    """The processes of one run, and a client of its API.

    Attributes:
        folder: Where everything lies.
        anchors: The anchors.
        times: Of the leases.
        processes: What runs.
    """

    folder: Path
    anchors: Sequence[BenchAnchor]
    times: Times
    processes: Processes = field(init=False)
    _ports: list[int] = field(init=False)
    _secrets: dict[str, str] = field(
        default_factory=lambda: {client: secrets.token_urlsafe(32) for client in ("bench", "other", "user")}, repr=False
    )
    _api: httpx.AsyncClient = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._ports = free_ports(4 + len(self.anchors))
        self.processes = Processes(folder=self.folder, data_dir=self.folder / "controller")
        self._api = httpx.AsyncClient(
            base_url=f"http://{HOST}:{self._ports[0]}",
            timeout=CALL_S_MAX,
            headers={"authorization": f"Bearer {self._secrets['bench']}"},
        )

    @property
    def gateway_port(self) -> int:
        """Where clients send their AI traffic."""
        return self._ports[3]

    @property
    def northbound_port(self) -> int:
        """Where the API answers."""
        return self._ports[0]

    def bearer(self) -> str:
        """Return what a client that is no operator says in `authorization`."""
        return f"Bearer {self._secrets['user']}"

    @property
    def journal(self) -> Path:
        """The evidence log."""
        return self.processes.data_dir / "journal.db"

    async def start(self, upstream_port: int) -> None:
        """Start controller, gateway and sidecars, and wait until all are ready.

        Raises:
            UnavailableError: A part did not come up.
        """
        self._write()
        config = str(self.folder / "aipaging.toml")
        await self.processes.start(CONTROLLER, "serve", config, "--json")
        for anchor, port in zip(self.anchors, self._ports[4:], strict=True):
            await self.processes.start(
                anchor.name,
                "anchor",
                *("--id", anchor.name),
                *("--upstream", f"http://{HOST}:{upstream_port}"),
                *("--controller", f"https://{HOST}:{self._ports[1]}"),
                *("--identity", str(self.folder / "anchors" / anchor.name)),
                *("--listen", f"{HOST}:{port}"),
                *("--concurrency", "2048"),
                *("--queue", "2048"),
                *(["--plaintext"] if anchor.plain_text else []),
                *anchor.options,
                "--json",
            )
        await self._until_ready()

    def _write(self) -> None:
        """Write configuration and identities."""
        self.folder.mkdir(mode=0o700, parents=True)
        text = _HEAD.format(
            trust_domain=TRUST_DOMAIN,
            data_dir=json.dumps(str(self.processes.data_dir)),
            northbound=self._ports[0],
            southbound=self._ports[1],
            ads=self._ports[2],
            gateway=self._ports[3],
            lease_ms=self.times.lease_ms,
            kept_ms=self.times.kept_ms,
            anchor_lost_ms=self.times.anchor_lost_ms,
            digest=sha256(self._secrets["bench"].encode()).hexdigest(),
            other_digest=sha256(self._secrets["other"].encode()).hexdigest(),
            user_digest=sha256(self._secrets["user"].encode()).hexdigest(),
        )
        text += _DOMAIN.format(name="access", kind="access", region="access")
        authority = CertificateAuthority.open(self.processes.data_dir / "ca", TRUST_DOMAIN)
        for name in dict.fromkeys(anchor.stands_in for anchor in self.anchors):
            text += _DOMAIN.format(name=name, kind="compute", region=name) + _PATH.format(name=name)
        for anchor, port in zip(self.anchors, self._ports[4:], strict=True):
            tls = "false" if anchor.plain_text else "true"
            text += _ANCHOR.format(
                name=anchor.name, domain=anchor.stands_in, port=port, tls=tls, in_flight_max=IN_FLIGHT_MAX
            )
            authority.write_identity(self.folder / "anchors" / anchor.name, "anchor", anchor.name, addresses=(HOST,))
        (self.folder / "aipaging.toml").write_text(text)

    async def _until_ready(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S_MAX):
                while not await self._is_ready():  # noqa: ASYNC110 - other processes set no event
                    await asyncio.sleep(0.05)
                return
        raise UnavailableError(f"gateway and anchors were not ready in {READY_S_MAX:g} s", code="PART_FAILED")

    async def _is_ready(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            if (await self._api.get("/readyz")).status_code == 200:
                _, document = await self.call("GET", "/anchors")
                return all(anchor["state"] == "READY" for anchor in document["anchors"])
        return False

    async def call(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, tenant: str = "bench"
    ) -> tuple[int, dict[str, Any]]:
        """Return the status and the document of a northbound call, made as an operator."""
        credential = {"authorization": f"Bearer {self._secrets[tenant]}"}
        response = await self._api.request(method, BASE + path, json=body, headers=credential)
        return response.status_code, response.json() if response.content else {}

    async def page(self, *, anchor: str = "", duration_s: int = 3_600, contract: Contract = WIDE) -> dict[str, Any]:
        """Page a session, in the domain of the named anchor if one is named, and return its document.

        Raises:
            UnavailableError: It was refused.
        """
        intent = {
            "task": "chat",
            "place": "access",
            "delayMs": 1_000.0,
            "epsilon": 0.01,
            "ratePerSecond": contract.rate_rps,
            "burst": contract.burst,
            "durationS": duration_s,
            "regions": [anchor] if anchor else [],
        }
        status, document = await self.call("POST", "/sessions", {"intent": intent}, tenant=contract.tenant)
        if status != 201:
            raise UnavailableError(f"a page was answered {status}: {document}", code="PAGE_REFUSED")
        return document

    async def evidence_holds(self) -> bool:
        """Return whether the journal, as it is now, passes `aipaging evidence verify`."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            COMMAND,
            "evidence",
            "verify",
            str(self.journal),
            "--json",
            stdout=PIPE,
            stderr=DEVNULL,
        )
        verdict, _ = await process.communicate()
        if process.returncode:
            LOG.warning("the evidence does not hold: %s", verdict.decode("utf-8", "replace")[:1_000])
        return process.returncode == 0

    async def stop(self) -> None:
        """End everything."""
        await self._api.aclose()
        await asyncio.to_thread(self.processes.stop)


@contextlib.asynccontextmanager
async def bench_stack(
    folder: Path, anchors: Sequence[BenchAnchor], times: Times, *, upstream_port: int
) -> AsyncGenerator[BenchStack]:
    """Run a system in an empty folder; delete the folder at the end.

    Args:
        folder: Where everything lies.
        anchors: The anchors; all have the same upstream.
        times: Of the leases.
        upstream_port: Where the upstream listens.
    """
    stack = BenchStack(folder=folder, anchors=anchors, times=times)
    try:
        await stack.start(upstream_port)
        yield stack
    finally:
        await stack.stop()
        shutil.rmtree(folder, ignore_errors=True)
