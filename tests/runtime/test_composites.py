"""A composite that an operator publishes in place of its parts, through the running controller: admitted, kept, lost.

The parts are signed by their own domains, the composite by the operator's: what admission knows of it is the document.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.adapters.northbound.conftest import INTENT, Rig

from aipaging.adapters.signing.envelopes import EnvelopeKeys, EnvelopeSignatures
from aipaging.core.anchor.catalogue import DomainKind
from aipaging.core.anchor.catalogue import Path as Way
from aipaging.core.envelope.admission import session_bound, tail_bound
from aipaging.core.envelope.composition import Composite, Stage, published
from aipaging.core.envelope.document import (
    DelayContractModel,
    DependenceClause,
    EnvelopeDocument,
    Guardrails,
    Impairment,
    Reservation,
    canonical_bytes,
    digest_of,
)
from aipaging.core.envelope.models import RateLatencyModel
from aipaging.core.envelope.path_delay import Hop, path_delay
from aipaging.core.envelope.trust import TrustedEnvelopes, VerifiedEnvelope
from aipaging.core.foundation.names import DomainName
from aipaging.core.foundation.time import WallUs
from aipaging.core.paging import commands as c
from aipaging.testing.world import ACCESS, WALL_START_US, domain

JOSE = {"content-type": "application/jose"}
CARRIER = DomainName("carrier")
WAIT_S = 30.0
EPSILON = 1e-3
"""What the interface takes where an intent says none."""


class Carriers:
    """Two transport domains that sign for themselves, and an operator that publishes one envelope for both."""

    def __init__(self, folder: Path) -> None:
        self.keys = {name: EnvelopeKeys.open(folder / name) for name in ("carrier-a", "carrier-b", CARRIER)}
        self.trusted = TrustedEnvelopes()

    def verified(self, document: EnvelopeDocument) -> VerifiedEnvelope:
        """Return a part as whoever publishes holds it: signed by its domain, and verified."""
        name = document.domain
        signatures = EnvelopeSignatures({DomainName(name): self.keys[name].jwks()})
        checked = signatures.checked(self.keys[name].signed(document))
        self.trusted, verified = self.trusted.accepting(checked, WallUs(WALL_START_US))
        return verified

    def composite(self, sequence: int, *stages: Stage) -> tuple[EnvelopeDocument, bytes]:
        """Return what is published in place of the parts, and its signed bytes."""
        made = published(Composite(stages=stages), domain=CARRIER, sequence=sequence)
        return made, self.keys[CARRIER].signed(made).raw


def part(name: str, sequence: int = 1, *, offset_ms: str = "8", **changes: Any) -> EnvelopeDocument:
    fields: dict[str, Any] = {
        "not_before": "2023-11-01T00:00:00Z",
        "not_after": "2024-06-01T00:00:00Z",
        "guardrails": Guardrails(rate_rps="80", burst=16),
        "model": DelayContractModel(offset_ms=offset_ms, prefactor="1.5", decay_per_ms="0.25"),
        "impairment": Impairment(loss="0.000001"),
        "dependence": DependenceClause(clause="independent"),
        "reservation": Reservation(capacity_rps="25"),
    }
    return EnvelopeDocument(version=1, domain=name, sequence=sequence, **{**fields, **changes})


@pytest.fixture
def carriers(tmp_path: Path) -> Carriers:
    return Carriers(tmp_path)


@pytest.fixture
async def rig(tmp_path: Path, carriers: Carriers) -> AsyncIterator[Rig]:
    """A controller whose only way to edge-one crosses the domain of the composite; edge-two cannot be reached."""
    rig = Rig(tmp_path)
    await rig.start()
    await rig.engine.submit(c.RegisterDomain(domain=domain(CARRIER, DomainKind.TRANSPORT, "eu")))
    nowhere = DomainName("nowhere")
    for compute, transport in (("edge-one", CARRIER), ("edge-two", nowhere)):
        way = Way(access=ACCESS, compute=DomainName(compute), transport=(transport,))
        await rig.engine.submit(c.RegisterPath(path=way))
    async with rig.client("noc") as noc:
        answer = await noc.put(f"domains/{CARRIER}/keys", json=carriers.keys[CARRIER].jwks())
        assert answer.status_code == 200, answer.text
    try:
        yield rig
    finally:
        await rig.stop()


@pytest.fixture
async def noc(rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    async with rig.client("noc") as client:
        yield client


@pytest.fixture
async def app(rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    async with rig.client("app-one") as client:
        yield client


async def until(app: httpx.AsyncClient, session: str, state: str) -> dict[str, Any]:
    async with asyncio.timeout(WAIT_S):
        while True:
            read: dict[str, Any] = (await app.get(f"sessions/{session}")).json()
            if read["contract"]["state"] == state:
                return read
            await asyncio.sleep(0.01)


async def records(app: httpx.AsyncClient, session: str, kind: str) -> list[dict[str, Any]]:
    answer = (await app.get(f"sessions/{session}/evidence")).json()
    return [each["record"] for each in answer["records"] if each["record"]["type"] == kind]


async def put(noc: httpx.AsyncClient, raw: bytes) -> dict[str, Any]:
    answer = await noc.post("envelopes", content=raw, headers=JOSE)
    assert answer.status_code == 201, answer.text
    accepted: dict[str, Any] = answer.json()
    return accepted


def promised(rig: Rig, delay_ms: float, digests: Sequence[str]) -> float:
    """Return the bound over the envelopes with these digests, worked out outside the transaction."""
    found = {envelope.digest: envelope for envelope in rig.engine.state.catalogue.envelopes.values()}
    path = path_delay([Hop(envelope=found[digest]) for digest in digests], None, EPSILON)
    return session_bound(path, delay_ms, EPSILON).epsilon_bound


async def test_a_session_is_admitted_by_a_composite_and_its_evidence_names_it(
    rig: Rig, noc: httpx.AsyncClient, app: httpx.AsyncClient, carriers: Carriers
) -> None:
    refused = await app.post("sessions", json={"intent": INTENT})
    assert refused.status_code == 422, "the domain of the composite has promised nothing yet"
    stages = [
        Stage(verified=carriers.verified(part("carrier-a"))),
        Stage(verified=carriers.verified(part("carrier-b", dependence=DependenceClause())), reshaper_delay_ms=1.5),
    ]
    document, raw = carriers.composite(1, *stages)
    accepted = await put(noc, raw)
    assert (accepted["digest"], accepted["state"]) == (digest_of(document), "IN_FORCE")
    assert accepted.get("dependence", "ANY") == "ANY", "the weakest clause of the parts"

    session = (await app.post("sessions", json={"intent": INTENT})).json()
    assert session["contract"]["state"] == "HELD"
    assert session["envelopes"][1] == digest_of(document)
    assert session["bound"]["budget"][1]["domain"] == CARRIER
    bound = session["bound"]["epsilonBound"]
    assert bound == pytest.approx(promised(rig, INTENT["delayMs"], session["envelopes"]), rel=1e-12)
    catalogue = rig.engine.state.catalogue
    ends = [catalogue.envelopes[ACCESS, ""], catalogue.envelopes[DomainName("edge-one"), ""]]
    by_parts = [ends[0], *(stage.verified.envelope for stage in stages), ends[1]]
    of_parts = tail_bound(by_parts, INTENT["delayMs"] - 1.5).epsilon_bound
    assert of_parts * (1 - 1e-12) <= bound <= EPSILON, "the composite promises no more than parts"

    (granted,) = await records(app, session["sessionId"], "COMMIT_GRANTED")
    assert digest_of(document) in granted["envelopes"]
    original = (await noc.get(f"envelopes/{digest_of(document)}")).json()["document"]
    assert [each["domain"] for each in original["parts"]] == ["carrier-a", "carrier-b"]
    assert original["parts"][0]["digest"] == stages[0].verified.digest


async def test_the_composite_sells_the_narrowest_capacity_and_guardrail_of_its_parts(
    noc: httpx.AsyncClient, app: httpx.AsyncClient, carriers: Carriers
) -> None:
    narrow = part("carrier-b", guardrails=Guardrails(rate_rps="15", burst=9))
    stages = [Stage(verified=carriers.verified(each)) for each in (part("carrier-a"), narrow)]
    await put(noc, carriers.composite(1, *stages)[1])
    fast = await app.post("sessions", json={"intent": {**INTENT, "ratePerSecond": 16}})
    wide = await app.post("sessions", json={"intent": {**INTENT, "burst": 10}})
    assert [answer.status_code for answer in (fast, wide)] == [422, 422]
    taken = [(await app.post("sessions", json={"intent": INTENT})).status_code for _ in range(3)]
    assert taken == [201, 201, 422], "25 requests/s are sold in shares of 10"


async def test_parts_that_say_how_they_serve_are_admitted_as_one(
    rig: Rig, noc: httpx.AsyncClient, app: httpx.AsyncClient, carriers: Carriers
) -> None:
    curve = RateLatencyModel(service_rate_rps="400", latency_ms="2")
    stages = [Stage(verified=carriers.verified(part(name, model=curve))) for name in ("carrier-a", "carrier-b")]
    document, raw = carriers.composite(1, *stages)
    await put(noc, raw)
    session = (await app.post("sessions", json={"intent": INTENT})).json()
    assert session["bound"]["epsilonBound"] <= EPSILON
    # Latencies of 2 + 2 ms, the burst of 16 once at 400/s, and a packet between: what the worst session would need.
    assert 44.0 <= float(document.model.offset_ms) <= 47.0  # type: ignore[union-attr]
    assert promised(rig, INTENT["delayMs"], session["envelopes"]) == pytest.approx(session["bound"]["epsilonBound"])


async def test_an_unsigned_composite_of_a_domain_without_keys_is_signed_by_the_operator(
    rig: Rig, noc: httpx.AsyncClient, app: httpx.AsyncClient, carriers: Carriers
) -> None:
    stages = [Stage(verified=carriers.verified(part(name))) for name in ("carrier-a", "carrier-b")]
    await put(noc, carriers.composite(1, *stages)[1])
    whole = [Stage(verified=carriers.verified(part("carrier-a", 2))), Stage(verified=stages[1].verified)]
    draft = published(Composite(stages=tuple(whole)), domain=DomainName("edge-one"), sequence=2)
    answer = await noc.post("envelopes", content=canonical_bytes(draft), headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["digest"]) == (201, digest_of(draft))
    session = (await app.post("sessions", json={"intent": INTENT})).json()
    assert session["envelopes"][2] == digest_of(draft)
    own = {key["kid"] for key in rig.service.envelopes.keys.own_jwks()["keys"]}
    assert answer.json()["keyId"] in own


async def test_a_composite_superseded_suspected_and_cleared_has_every_session_looked_at(
    rig: Rig, noc: httpx.AsyncClient, app: httpx.AsyncClient, carriers: Carriers
) -> None:
    stages = [Stage(verified=carriers.verified(part(name))) for name in ("carrier-a", "carrier-b")]
    first, raw = carriers.composite(1, *stages)
    await put(noc, raw)
    session = (await app.post("sessions", json={"intent": INTENT})).json()
    name = session["sessionId"]

    slower = Stage(verified=carriers.verified(part("carrier-b", 2, offset_ms="28")))
    second, raw = carriers.composite(2, stages[0], slower)
    await put(noc, raw)
    async with asyncio.timeout(WAIT_S):
        while (rebound := (await app.get(f"sessions/{name}")).json())["envelopes"][1] != digest_of(second):
            await asyncio.sleep(0.01)
    assert rebound["contract"]["state"] == "HELD"
    assert rebound["bound"]["epsilonBound"] > session["bound"]["epsilonBound"]
    assert rebound["bound"]["epsilonBound"] == pytest.approx(promised(rig, INTENT["delayMs"], rebound["envelopes"]))
    (record,) = await records(app, name, "COMMIT_REBOUND")
    assert digest_of(second) in record["envelopes"]
    assert digest_of(first) not in record["envelopes"]

    await noc.post(f"envelopes/{digest_of(second)}/suspect", json={"reason": "a part was found violated"})
    told = await until(app, name, "DEGRADED")
    assert told["contract"]["constraint"] == "ENVELOPE"
    assert "a part was found violated" in told["contract"]["reason"]
    await noc.post(f"envelopes/{digest_of(second)}/clear")
    await until(app, name, "HELD")

    hopeless = Stage(verified=carriers.verified(part("carrier-b", 3, offset_ms="400")))
    await put(noc, carriers.composite(3, stages[0], hopeless)[1])
    told = await until(app, name, "DEGRADED")
    assert told["contract"]["constraint"] == "DELAY"
    replayed = await noc.post("envelopes", content=raw, headers=JOSE)
    assert replayed.json()["code"] == "AI_PAGING.ENVELOPE_ROLLED_BACK"
