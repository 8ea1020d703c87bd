"""The processes of the demo: two model servers and a load generator behind three sidecars, and one controller.

Every process is the installed command, started as a user would; nothing here reaches into them. What they write to
stderr goes to files in the demo's folder.
"""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from aipaging.adapters.signing.ca import CertificateAuthority
from aipaging.apps.demo.configuration import DemoAnchor, Ports, configuration
from aipaging.core.foundation.errors import UnavailableError, Who

READY_S_MAX: Final = 60.0
"""Building the model's graph takes two seconds on an idle core, and a busy machine is not idle."""

STOP_S_MAX: Final = 15.0
"""A drain of the gateway takes a few seconds."""

ANCHORS: Final = (
    DemoAnchor(name="paris-1", domain="edge-paris", service="embed/minilm", upstream="model-server"),
    DemoAnchor(name="dublin-1", domain="edge-dublin", service="embed/minilm", upstream="model-server"),
    DemoAnchor(name="paris-2", domain="edge-paris", service="chat/load-generator", upstream="token-server"),
)
"""Two real embedding anchors in two regions, and one token stream."""


@dataclass(slots=True)
class Child:
    """One process."""

    name: str
    process: subprocess.Popen[str]
    ready: dict[str, Any]

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Ask it to end, and insist."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                self.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()


@dataclass(slots=True)
class Stack:
    """The demo's processes and what is needed to talk to them.

    Attributes:
        folder: Where everything lies.
        ports: The ports of this run.
        client_secret: Credential of the demo's client.
        operator_secret: Credential of the demo's operator.
        children: What runs, by name.
    """

    folder: Path
    ports: Ports
    client_secret: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    operator_secret: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    children: dict[str, Child] = field(default_factory=dict)

    @classmethod
    def prepared(cls, folder: Path) -> "Stack":
        """Return a stack in an empty folder, on free ports, with its configuration written."""
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(mode=0o700, parents=True)
        stack = cls(folder=folder, ports=Ports(*_free_ports(5 + 2 * len(ANCHORS))))
        text = configuration(
            data_dir=stack.data_dir,
            ports=stack.ports,
            anchors=ANCHORS,
            digests={
                "demo-client": sha256(stack.client_secret.encode()).hexdigest(),
                "demo-operator": sha256(stack.operator_secret.encode()).hexdigest(),
            },
        )
        stack.config.write_text(text)
        for name, secret in (("client.secret", stack.client_secret), ("operator.secret", stack.operator_secret)):
            path = folder / name
            path.touch(mode=0o600)
            path.write_text(secret)
        authority = CertificateAuthority.open(stack.data_dir / "ca", "demo.example")
        for anchor in ANCHORS:
            authority.write_identity(folder / "anchors" / anchor.name, "anchor", anchor.name, addresses=("127.0.0.1",))
        return stack

    @property
    def data_dir(self) -> Path:
        """The controller's data directory."""
        return self.folder / "controller"

    @property
    def config(self) -> Path:
        """The controller's configuration file."""
        return self.folder / "aipaging.toml"

    @property
    def authority(self) -> Path:
        """The certificate that the gateway's own leads to."""
        return self.data_dir / "ca" / "ca.pem"

    @property
    def journal(self) -> Path:
        """The evidence log."""
        return self.data_dir / "journal.db"

    async def start(self) -> None:
        """Start everything; the slow ones side by side.

        Raises:
            UnavailableError: A process did not come up; its log is named.
        """
        await asyncio.gather(self.start_controller(), *(self._start_upstream(place) for place in range(len(ANCHORS))))
        await asyncio.gather(*(self.start_sidecar(place) for place in range(len(ANCHORS))))

    async def start_controller(self) -> None:
        """Start the controller."""
        await self._start("controller", "serve", str(self.config), "--json")

    async def _start_upstream(self, place: int) -> None:
        anchor = ANCHORS[place]
        listen = f"127.0.0.1:{self.ports.upstream(place)}"
        options = ["--first-token-ms", "20", "--gap-ms", "40", "--tokens", "400"]
        await self._start(
            f"{anchor.name}-upstream",
            anchor.upstream,
            "--listen",
            listen,
            "--json",
            *(options if anchor.upstream == "token-server" else []),
        )

    async def start_sidecar(self, place: int) -> None:
        """Start the sidecar of an anchor."""
        anchor = ANCHORS[place]
        await self._start(
            anchor.name,
            "anchor",
            *("--id", anchor.name),
            *("--upstream", f"http://127.0.0.1:{self.ports.upstream(place)}"),
            *("--controller", f"https://127.0.0.1:{self.ports.southbound}"),
            *("--identity", str(self.folder / "anchors" / anchor.name)),
            *("--listen", f"127.0.0.1:{self.ports.sidecar(place)}"),
            "--json",
        )

    async def _start(self, name: str, *arguments: str) -> None:
        log = (self.folder / f"{name}.log").open("a")
        process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
            [sys.executable, "-m", "aipaging.apps.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        log.close()
        if process.stdout is None:
            raise UnavailableError(f"{name} has no output", who=Who.BUG)
        try:
            async with asyncio.timeout(READY_S_MAX):
                line = await asyncio.to_thread(process.stdout.readline)
            ready = json.loads(line)
        except (TimeoutError, ValueError) as error:
            process.kill()
            raise UnavailableError(
                f"{name} did not come up; its log: {self.folder / (name + '.log')}", code="DEMO_PART_FAILED"
            ) from error
        if "error" in ready:
            raise UnavailableError(f"{name}: {ready['error']['message']}", code="DEMO_PART_FAILED")
        self.children[name] = Child(name=name, process=process, ready=ready)

    def stop(self) -> None:
        """End everything: the controller drains the gateway, then the anchors end."""
        order = sorted(self.children.values(), key=lambda child: child.name != "controller")
        for child in order:
            child.stop()
        self.children.clear()
        self._end_gateway()

    def _end_gateway(self) -> None:
        """End an Envoy that a killed controller left behind."""
        path = self.data_dir / "gateway" / "envoy.pid.json"
        with contextlib.suppress(OSError, ValueError, KeyError):
            os.kill(json.loads(path.read_text())["pid"], signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    """Return free ports of loopback, all different."""
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        for _ in range(count):
            probe = held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
        return ports
