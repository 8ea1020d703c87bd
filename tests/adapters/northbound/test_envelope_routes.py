"""Signed envelopes at the door: what comes in, what does not, and what becomes of sessions."""

import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from tests.adapters.northbound.conftest import INTENT, Rig

from aipaging.adapters.signing.envelopes import EnvelopeKeys
from aipaging.core.envelope.document import (
    DelayContractModel,
    EnvelopeDocument,
    Guardrails,
    canonical_bytes,
    digest_of,
    instant_of,
)
from aipaging.core.foundation.names import DomainName
from aipaging.core.foundation.time import SECOND, WallUs
from aipaging.testing.world import WALL_START_US

JOSE = {"content-type": "application/jose"}


def document(sequence: int = 2, *, domain: str = "edge-one", offset_ms: str = "20", **changes: Any) -> EnvelopeDocument:
    fields: dict[str, Any] = {
        "not_before": "2023-11-01T00:00:00Z",
        "not_after": "2024-06-01T00:00:00Z",
        "guardrails": Guardrails(rate_rps="100", burst=20),
        "model": DelayContractModel(offset_ms=offset_ms, prefactor="1", decay_per_ms="0.2"),
    }
    return EnvelopeDocument(version=1, domain=domain, sequence=sequence, **{**fields, **changes})


@pytest.fixture
def keys(tmp_path: Path) -> EnvelopeKeys:
    return EnvelopeKeys.open(tmp_path / "edge-one-keys")


@pytest.fixture
async def edge(noc: httpx.AsyncClient, keys: EnvelopeKeys) -> httpx.AsyncClient:
    """An operator's client; edge-one signs for itself."""
    answer = await noc.put("domains/edge-one/keys", json=keys.jwks())
    assert answer.status_code == 200, answer.text
    return noc


def compact(keys: EnvelopeKeys, payload: bytes, **header: Any) -> bytes:
    """Return a JWS with any header; None leaves a member out."""
    members = {"alg": "ES256", "typ": "ai-envelope+jwt", "kid": keys.keys[-1].kid, **header}
    said = {name: value for name, value in members.items() if value is not None}
    head = urlsafe_b64encode(json.dumps(said, separators=(",", ":")).encode()).rstrip(b"=")
    body = urlsafe_b64encode(payload).rstrip(b"=")
    key = keys.keys[-1].private
    signature = jwt.get_algorithm_by_name("ES256").sign(head + b"." + body, key)
    return head + b"." + body + b"." + urlsafe_b64encode(signature).rstrip(b"=")


async def test_a_signed_envelope_comes_in_by_both_forms(edge: httpx.AsyncClient, keys: EnvelopeKeys) -> None:
    first, second = document(2), document(3)
    accepted = await edge.post("envelopes", content=keys.signed(first).raw, headers=JOSE)
    assert accepted.status_code == 201, accepted.text
    assert accepted.json()["keyId"] == keys.keys[-1].kid
    assert (accepted.json()["state"], accepted.json()["digest"]) == ("IN_FORCE", digest_of(first))
    signed = keys.signed(second).raw.decode()
    assert (await edge.post("envelopes", json={"envelope": signed})).status_code == 201
    original = (await edge.get(f"envelopes/{digest_of(second)}")).json()
    assert (original["signed"], original["newest"], original["state"]) == (signed, True, "IN_FORCE")
    assert original["document"] == json.loads(canonical_bytes(second))
    older = (await edge.get(f"envelopes/{digest_of(first)}")).json()
    assert (older["newest"], older["sequence"]) == (False, 2)
    assert (await edge.get(f"envelopes/{'0' * 64}")).status_code == 404
    assert (await edge.get("envelopes/nothing")).status_code == 400


Forge = Callable[[EnvelopeKeys], bytes]


def wrong_signature(keys: EnvelopeKeys) -> bytes:
    head, _, signature = keys.signed(document()).raw.split(b".")
    other = urlsafe_b64encode(canonical_bytes(document(offset_ms="1"))).rstrip(b"=")
    return b".".join((head, other, signature))


def none_algorithm(keys: EnvelopeKeys) -> bytes:
    return compact(keys, canonical_bytes(document()), alg="none")


def empty_signature(keys: EnvelopeKeys) -> bytes:
    return compact(keys, canonical_bytes(document()), alg="none").rpartition(b".")[0] + b"."


def other_algorithm(keys: EnvelopeKeys) -> bytes:
    return compact(keys, canonical_bytes(document()), alg="EdDSA")


def critical(keys: EnvelopeKeys) -> bytes:
    return compact(keys, canonical_bytes(document()), crit=["b64"], b64=False)


def own_key_in_header(keys: EnvelopeKeys) -> bytes:
    return compact(keys, canonical_bytes(document()), jwk=keys.keys[-1].public_jwk())


def other_type(keys: EnvelopeKeys) -> bytes:
    return compact(keys, canonical_bytes(document()), typ="ai-commit+jwt")


def unknown_key(keys: EnvelopeKeys) -> bytes:
    return compact(keys, canonical_bytes(document()), kid="nobody")


def for_another_domain(keys: EnvelopeKeys) -> bytes:
    return keys.signed(document(domain="edge-two")).raw


def not_canonical(keys: EnvelopeKeys) -> bytes:
    return compact(keys, json.dumps(json.loads(canonical_bytes(document())), indent=1).encode())


def twice_the_same_member(keys: EnvelopeKeys) -> bytes:
    return compact(keys, canonical_bytes(document()).replace(b'"sequence":2', b'"sequence":2,"sequence":3'))


def too_large(keys: EnvelopeKeys) -> bytes:
    return compact(keys, b" " * 30_000)


def deep(keys: EnvelopeKeys) -> bytes:
    return compact(keys, b'{"model":' * 1_000 + b"{}" + b"}" * 1_000)


def another_schema(keys: EnvelopeKeys) -> bytes:
    return compact(keys, b'{"version":2}')


def expired(keys: EnvelopeKeys) -> bytes:
    return keys.signed(document(not_after="2023-11-02T00:00:00Z")).raw


def not_yet(keys: EnvelopeKeys) -> bytes:
    return keys.signed(document(not_before="2024-01-01T00:00:00Z")).raw


@pytest.mark.parametrize(
    ("forge", "status", "code"),
    [
        (wrong_signature, 403, "ENVELOPE_SIGNATURE"),
        (none_algorithm, 400, "ENVELOPE_ALGORITHM"),
        (empty_signature, 400, "ENVELOPE_NOT_SIGNED"),
        (other_algorithm, 400, "ENVELOPE_ALGORITHM"),
        (critical, 400, "ENVELOPE_NOT_SIGNED"),
        (own_key_in_header, 400, "ENVELOPE_NOT_SIGNED"),
        (other_type, 400, "ENVELOPE_NOT_SIGNED"),
        (unknown_key, 403, "ENVELOPE_KEY_UNKNOWN"),
        (for_another_domain, 403, "ENVELOPE_KEY_FOREIGN"),
        (not_canonical, 400, "ENVELOPE_NOT_CANONICAL"),
        (twice_the_same_member, 400, "ENVELOPE_NOT_CANONICAL"),
        (too_large, 413, "ENVELOPE_TOO_LARGE"),
        (deep, 400, "ENVELOPE_MALFORMED"),
        (another_schema, 400, "ENVELOPE_MALFORMED"),
        (expired, 409, "ENVELOPE_EXPIRED"),
        (not_yet, 409, "ENVELOPE_NOT_YET_VALID"),
        (lambda _: b"not a jws", 400, "ENVELOPE_NOT_SIGNED"),
        (lambda _: b"", 400, "ENVELOPE_NOT_SIGNED"),
    ],
)
async def test_a_forged_envelope_is_refused_by_name(
    rig: Rig, edge: httpx.AsyncClient, keys: EnvelopeKeys, forge: Forge, status: int, code: str
) -> None:
    before = dict(rig.engine.state.catalogue.envelopes)
    answer = await edge.post("envelopes", content=forge(keys), headers=JOSE)
    assert (answer.status_code, answer.json()["code"]) == (status, f"AI_PAGING.{code}"), answer.text
    assert rig.engine.state.catalogue.envelopes == before


async def test_replay_rollback_and_equivocation_have_names(edge: httpx.AsyncClient, keys: EnvelopeKeys) -> None:
    signed = keys.signed(document(5)).raw
    assert (await edge.post("envelopes", content=signed, headers=JOSE)).status_code == 201
    for raw, code in (
        (signed, "REPLAYED"),
        (keys.signed(document(5)).raw, "REPLAYED"),
        (keys.signed(document(4)).raw, "ROLLED_BACK"),
        (keys.signed(document(5, offset_ms="21")).raw, "EQUIVOCATION"),
    ):
        answer = await edge.post("envelopes", content=raw, headers=JOSE)
        assert (answer.status_code, answer.json()["code"]) == (409, f"AI_PAGING.ENVELOPE_{code}")


async def test_two_posts_at_once_do_not_both_win(edge: httpx.AsyncClient, keys: EnvelopeKeys) -> None:
    raws = [keys.signed(document(7, offset_ms=str(ms))).raw for ms in range(10, 18)]
    answers = await asyncio.gather(*(edge.post("envelopes", content=raw, headers=JOSE) for raw in raws))
    assert sorted(answer.status_code for answer in answers) == [201, *[409] * 7]


async def test_a_domain_that_signs_takes_nothing_plain(edge: httpx.AsyncClient) -> None:
    plain = json.loads(canonical_bytes(document()))
    answer = await edge.post("envelopes", json=plain)
    assert (answer.status_code, answer.json()["code"]) == (403, "AI_PAGING.ENVELOPE_PLAIN")
    other = await edge.post("envelopes", json={**plain, "domain": "edge-two"})
    assert other.status_code == 201
    own = (await edge.get("http://test/.well-known/envelope-keys.json")).json()
    assert other.json()["keyId"] in {key["kid"] for key in own["keys"]}


async def test_the_operators_own_key_signs_for_nobody_who_has_keys(rig: Rig, edge: httpx.AsyncClient) -> None:
    forged = rig.service.envelopes.keys.signed(document())
    answer = await edge.post("envelopes", content=forged.raw, headers=JOSE)
    assert (answer.status_code, answer.json()["code"]) == (403, "AI_PAGING.ENVELOPE_KEY_FOREIGN")


async def test_keys_rotate_and_retire(rig: Rig, edge: httpx.AsyncClient, keys: EnvelopeKeys) -> None:
    newer = keys.rotated()
    early = await edge.post("envelopes", content=newer.signed(document(2)).raw, headers=JOSE)
    assert early.json()["code"] == "AI_PAGING.ENVELOPE_KEY_UNKNOWN"
    assert (await edge.put("domains/edge-one/keys", json=newer.jwks())).status_code == 200
    for each in (keys.signed(document(2)), newer.signed(document(3))):
        assert (await edge.post("envelopes", content=each.raw, headers=JOSE)).status_code == 201
    only_new = {"keys": newer.jwks()["keys"][-1:]}
    shown = (await edge.put("domains/edge-one/keys", json=only_new)).json()
    assert (shown["keyIds"], shown["source"]) == ([newer.keys[-1].kid], "API")
    assert (await edge.get("domains/edge-one/keys")).json() == shown
    late = await edge.post("envelopes", content=keys.signed(document(4)).raw, headers=JOSE)
    assert late.json()["code"] == "AI_PAGING.ENVELOPE_KEY_UNKNOWN"
    in_force = rig.engine.state.catalogue.envelopes[DomainName("edge-one"), ""]
    assert in_force.sequence == 3


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("domains/nowhere/keys", {"keys": []}, 404),
        ("domains/edge-one/keys", {"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "k"}]}, 400),
        ("domains/edge-one/keys", {"keys": [{"kty": "oct", "k": "AA"}]}, 400),
        ("domains/edge-one/keys", {"key": []}, 400),
        ("domains/No/keys", {"keys": []}, 400),
    ],
)
async def test_a_wrong_key_set_is_refused(noc: httpx.AsyncClient, path: str, body: Any, status: int) -> None:
    assert (await noc.put(path, json=body)).status_code == status


async def test_nobody_registers_the_operators_key_nor_a_private_one(
    rig: Rig, noc: httpx.AsyncClient, app_one: httpx.AsyncClient, keys: EnvelopeKeys
) -> None:
    own = rig.service.envelopes.keys.own_jwks()
    assert (await noc.put("domains/edge-one/keys", json=own)).json()["code"] == "AI_PAGING.KEY_SET_INVALID"
    private = jwt.get_algorithm_by_name("ES256").to_jwk(keys.keys[-1].private, as_dict=True)
    answer = await noc.put("domains/edge-one/keys", json={"keys": [{**private, "kid": "k"}]})
    assert answer.json()["code"] == "AI_PAGING.KEY_SET_INVALID"
    assert (await app_one.put("domains/edge-one/keys", json=keys.jwks())).status_code == 403
    rig.configured = frozenset({DomainName("edge-one")})
    configured = await noc.put("domains/edge-one/keys", json=keys.jwks())
    assert configured.json()["code"] == "INCOMPATIBLE_STATE"


async def test_a_suspect_envelope_moves_the_session_and_its_clearing_lets_new_ones_in(
    app_one: httpx.AsyncClient, noc: httpx.AsyncClient
) -> None:
    session = (await app_one.post("sessions", json={"intent": INTENT})).json()
    assert session["contract"]["state"] == "HELD"
    assert len(session["envelopes"]) == 3
    digest = session["envelopes"][-1]
    marked = await noc.post(f"envelopes/{digest}/suspect", json={"reason": "audit: violated"})
    assert (marked.json()["state"], marked.json()["reason"]) == ("SUSPECT", "audit: violated")
    async with asyncio.timeout(60):
        while (await app_one.get(f"sessions/{session['sessionId']}")).json()["anchorId"] == session["anchorId"]:
            await asyncio.sleep(0.01)
    moved = (await app_one.get(f"sessions/{session['sessionId']}")).json()
    assert moved["relocation"]["cause"] == "CONTRACT_UNPROVABLE"
    assert moved["contract"]["state"] == "HELD"
    assert (await noc.post(f"envelopes/{digest}/clear")).json()["state"] == "IN_FORCE"
    assert (await noc.post(f"envelopes/{'0' * 64}/clear")).status_code == 404
    assert (await app_one.post(f"envelopes/{digest}/clear")).status_code == 403


async def test_a_session_that_nothing_carries_is_told_and_restored(
    app_one: httpx.AsyncClient, noc: httpx.AsyncClient
) -> None:
    session = (await app_one.post("sessions", json={"intent": INTENT})).json()["sessionId"]
    digest = next(
        each["digest"] for each in (await noc.get("envelopes")).json()["envelopes"] if each["domain"] == "metro"
    )
    await noc.post(f"envelopes/{digest}/suspect", json={"reason": "measured otherwise"})

    async def until(state: str) -> dict[str, Any]:
        async with asyncio.timeout(60):
            while True:
                contract: dict[str, Any] = (await app_one.get(f"sessions/{session}")).json()["contract"]
                if contract["state"] == state:
                    return contract
                await asyncio.sleep(0.01)

    told = await until("DEGRADED")
    assert told["constraint"] == "ENVELOPE"
    assert "measured otherwise" in told["reason"]
    assert (await app_one.get(f"sessions/{session}")).json()["status"] == "AVAILABLE"
    await noc.post(f"envelopes/{digest}/clear")
    assert "constraint" not in await until("HELD")
    records = (await app_one.get(f"sessions/{session}/evidence")).json()["records"]
    kinds = [each["record"]["type"] for each in records]
    assert (kinds.count("SESSION_DEGRADED"), kinds.count("SESSION_RESTORED")) == (1, 1)


async def test_a_statement_for_ever_is_signed_for_as_long_as_a_signature_may_last(noc: httpx.AsyncClient) -> None:
    plain = {
        "domain": "edge-one", "sequence": 2, "contract": {"offsetMs": 1e-7, "prefactor": 1, "decayPerMs": 123456.789},
        "ratePerSecondMax": 1, "burstMax": 1, "validFrom": "2020-01-01T00:00:00Z", "validUntil": "2100-01-01T00:00:00Z",
    }  # fmt: skip
    first = await noc.post("envelopes", json=plain)
    assert first.status_code == 201
    now = instant_of(WallUs(WALL_START_US))
    later = instant_of(WallUs(WALL_START_US + 400 * 86_400 * SECOND))
    assert first.json()["validFrom"] < now < first.json()["validUntil"] < later
    assert (await noc.post("envelopes", json=plain)).json()["digest"] == first.json()["digest"]
    assert first.json()["contract"] == {"offsetMs": 1e-7, "prefactor": 1, "decayPerMs": 123456.789}


async def test_an_operator_sees_what_each_tenant_has_reserved(
    app_one: httpx.AsyncClient, app_two: httpx.AsyncClient, noc: httpx.AsyncClient
) -> None:
    for client in (app_one, app_one, app_two):
        assert (await client.post("sessions", json={"intent": INTENT})).status_code == 201
    metro = next(each for each in (await noc.get("domains")).json()["domains"] if each["name"] == "metro")
    assert metro["reservedPerSecond"] == 30
    assert metro["tenants"] == [
        {"tenant": "tenant-one", "reservedPerSecond": 20},
        {"tenant": "tenant-two", "reservedPerSecond": 10},
    ]
    seen = next(each for each in (await app_one.get("domains")).json()["domains"] if each["name"] == "metro")
    assert "tenants" not in seen
