"""The demo's configuration: a small operator with clients in Paris, an edge there and one in Dublin."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aipaging.core.envelope.document import (
    SCHEMA_VERSION,
    DelayContractModel,
    EnvelopeDocument,
    Guardrails,
    Impairment,
    instant_of,
)
from aipaging.core.foundation.time import SECOND, WallUs

LEASE_MS: Final = 4_000
"""Short, so that a killed controller is seen to matter within seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoAnchor:
    """One anchor of the demo: its name, where it stands, what it serves, and with which command."""

    name: str
    domain: str
    service: str
    upstream: str


class Ports:
    """The ports of one run: API, southbound, discovery, gateway, then a sidecar and an upstream for each anchor."""

    def __init__(self, *ports: int) -> None:
        self.northbound, self.southbound, self.ads, self.gateway, self.spare = ports[:5]
        self._anchors = ports[5:]

    def sidecar(self, place: int) -> int:
        """Return the port of an anchor's sidecar."""
        return self._anchors[2 * place]

    def upstream(self, place: int) -> int:
        """Return the port of an anchor's model server."""
        return self._anchors[2 * place + 1]


HEAD: Final = """\
[operator]
name = "demo"
trust_domain = "demo.example"
data_dir = {data_dir}

[northbound]
listen = "127.0.0.1:{northbound}"

[southbound]
listen = "127.0.0.1:{southbound}"
ads_listen = "127.0.0.1:{ads}"

[gateway]
listen = "127.0.0.1:{gateway}"

[lease]
lease_ms = {lease_ms}
lease_ms_max = {lease_ms}
grace_ms = 200
drain_ms_max = {lease_ms}

[limits]
anchor_lost_ms = 1500
retry_ms = 300

[audit]
alpha = 1e-4
window_requests = 8
allowed = 10
period_s = 120

[[client]]
client_id = "demo-client"
tenant = "acme"
secret_sha256 = "{client}"

[[client]]
client_id = "demo-operator"
tenant = "demo"
role = "operator"
secret_sha256 = "{operator}"

[[service]]
aisi = "aisi://demo/embed/minilm"
task = "embeddings"
model = "all-MiniLM-L6-v2"
languages = ["en"]
licence = "Apache-2.0"
scores = {{ sts-b = 82.0 }}
price = 20

[[service]]
aisi = "aisi://demo/chat/load-generator"
task = "chat"
model = "load-generator"
price = 5
"""

DOMAINS: Final = (
    ("access-paris", "access", "paris", "fr", 4, 5.0, 0.5),
    ("access-dublin", "access", "dublin", "ie", 4, 5.0, 0.5),
    ("backbone", "transport", "eu", "eu", 4, 8.0, 0.5),
    ("edge-paris", "compute", "paris", "fr", 3, 60.0, 0.12),
    ("edge-dublin", "compute", "dublin", "ie", 3, 75.0, 0.12),
)
"""(name, kind, region, jurisdiction, trust, T in ms, eta per ms). Figures of a small virtual machine on loopback: the
edges' are meant to hold for an embedding of a sentence at the guarded rate, not for a busy laptop."""


def promise(name: str, *, sequence: int = 1, offset_ms: float | None = None, now: WallUs) -> EnvelopeDocument:
    """Return what a domain of the demo promises for a day, to be signed with its key."""
    offset, decay = next((offset, decay) for domain, *_, offset, decay in DOMAINS if domain == name)
    return EnvelopeDocument(
        version=SCHEMA_VERSION,
        domain=name,
        sequence=sequence,
        not_before=instant_of(WallUs(now - 60 * SECOND)),
        not_after=instant_of(WallUs(now + 86_400 * SECOND)),
        guardrails=Guardrails(rate_rps="200", burst=64),
        model=DelayContractModel(
            offset_ms=str(offset if offset_ms is None else offset_ms), prefactor="1", decay_per_ms=str(decay)
        ),
        impairment=Impairment(loss="1e-6", error="1e-6"),
    )


def configuration(*, data_dir: Path, ports: Ports, anchors: Sequence[DemoAnchor], digests: Mapping[str, str]) -> str:
    """Return the demo's configuration as TOML."""
    text = HEAD.format(
        data_dir=json.dumps(str(data_dir)),
        northbound=ports.northbound,
        southbound=ports.southbound,
        ads=ports.ads,
        gateway=ports.gateway,
        lease_ms=LEASE_MS,
        client=digests["demo-client"],
        operator=digests["demo-operator"],
    )
    for name, kind, region, jurisdiction, trust, _, _ in DOMAINS:
        text += f"""
[[domain]]
name = "{name}"
kind = "{kind}"
region = "{region}"
jurisdiction = "{jurisdiction}"
trust = {trust}
data_class_max = "confidential"
keys_file = "{name}.jwks"
"""
    for access in ("access-paris", "access-dublin"):
        for compute in ("edge-paris", "edge-dublin"):
            text += f'\n[[path]]\naccess = "{access}"\ncompute = "{compute}"\ntransport = ["backbone"]\n'
    for place, anchor in enumerate(anchors):
        text += f"""
[[anchor]]
id = "{anchor.name}"
domain = "{anchor.domain}"
aisi = "aisi://demo/{anchor.service}"
address = "127.0.0.1:{ports.sidecar(place)}"
capacity_rps = 120.0
"""
    return text
