"""The processes of the demo: two model servers and a load generator behind three sidecars, and one controller."""

import asyncio
import json
import secrets
import shutil
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

from aipaging.adapters.signing.ca import CertificateAuthority
from aipaging.adapters.signing.envelopes import EnvelopeKeys
from aipaging.apps.demo.configuration import DOMAINS, DemoAnchor, Ports, configuration
from aipaging.testing.stack import CONTROLLER, Child, Processes, free_ports

ANCHORS: Final = (
    DemoAnchor(name="paris-1", domain="edge-paris", service="embed/minilm", upstream="model-server"),
    DemoAnchor(name="dublin-1", domain="edge-dublin", service="embed/minilm", upstream="model-server"),
    DemoAnchor(name="paris-2", domain="edge-paris", service="chat/load-generator", upstream="token-server"),
)
"""Two real embedding anchors in two regions, and one token stream."""


@dataclass(slots=True)
class Stack:
    """The demo's processes and what is needed to talk to them.

    Attributes:
        folder: Where everything lies.
        ports: The ports of this run.
        client_secret: Credential of the demo's client.
        operator_secret: Credential of the demo's operator.
        processes: What runs.
    """

    folder: Path
    ports: Ports
    client_secret: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    operator_secret: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    processes: Processes = field(init=False)

    def __post_init__(self) -> None:
        self.processes = Processes(folder=self.folder, data_dir=self.data_dir)

    @classmethod
    def prepared(cls, folder: Path) -> "Stack":
        """Return a stack in an empty folder, on free ports, with its configuration written."""
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(mode=0o700, parents=True)
        stack = cls(folder=folder, ports=Ports(*free_ports(5 + 2 * len(ANCHORS))))
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
        for name, *_ in DOMAINS:
            # Each domain has a key of its own; the controller reads the public part, as it would from any partner.
            (folder / f"{name}.jwks").write_text(json.dumps(stack.keys_of(name).jwks()))
        for name, secret in (("client.secret", stack.client_secret), ("operator.secret", stack.operator_secret)):
            path = folder / name
            path.touch(mode=0o600)
            path.write_text(secret)
        authority = CertificateAuthority.open(stack.data_dir / "ca", "demo.example")
        for anchor in ANCHORS:
            authority.write_identity(folder / "anchors" / anchor.name, "anchor", anchor.name, addresses=("127.0.0.1",))
        return stack

    def keys_of(self, domain: str) -> EnvelopeKeys:
        """Return the keys with which a domain of the demo signs."""
        return EnvelopeKeys.open(self.folder / "domains" / domain)

    @property
    def children(self) -> dict[str, Child]:
        """What runs, by name."""
        return self.processes.children

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
        await self.processes.start(CONTROLLER, "serve", str(self.config), "--json")

    async def _start_upstream(self, place: int) -> None:
        anchor = ANCHORS[place]
        listen = f"127.0.0.1:{self.ports.upstream(place)}"
        options = ["--first-token-ms", "20", "--gap-ms", "40", "--tokens", "400"]
        await self.processes.start(
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
        await self.processes.start(
            anchor.name,
            "anchor",
            *("--id", anchor.name),
            *("--upstream", f"http://127.0.0.1:{self.ports.upstream(place)}"),
            *("--controller", f"https://127.0.0.1:{self.ports.southbound}"),
            *("--identity", str(self.folder / "anchors" / anchor.name)),
            *("--listen", f"127.0.0.1:{self.ports.sidecar(place)}"),
            "--json",
        )

    def stop(self) -> None:
        """End everything: the controller drains the gateway, then the anchors end."""
        self.processes.stop()
