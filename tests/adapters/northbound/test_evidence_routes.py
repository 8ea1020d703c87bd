"""Evidence over HTTP, checked as an outsider would."""

import asyncio
import hashlib
from typing import Any

import httpx
import msgspec
import pytest
from tests.adapters.northbound.conftest import INTENT, Rig

from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.evidence.log import noted_checkpoint
from aipaging.core.evidence.merkle import leaf_hash, tree_root, verify_consistency, verify_inclusion
from aipaging.core.evidence.tiles import tiles_of, unbundled
from aipaging.core.foundation.names import AnchorId
from aipaging.core.paging.commands import Heartbeat, Wake


async def checkpointed(rig: Rig, client: httpx.AsyncClient) -> str:
    """Let a checkpoint cover all records so far; return a session that is among them."""
    session = str((await client.post("sessions", json={"intent": INTENT})).json()["sessionId"])
    for _ in range(3):
        rig.clock.passed_us += 200_000
        await client.post("sessions", json={"intent": {**INTENT, "ratePerSecond": 0.001}})
    return session


async def test_a_client_proves_its_own_records(rig: Rig, app_one: httpx.AsyncClient) -> None:
    session = await checkpointed(rig, app_one)
    answer = await app_one.get(f"sessions/{session}/evidence")
    evidence = msgspec.json.decode(answer.content, type=dict[str, Any])
    checkpoint = noted_checkpoint(evidence["checkpoint"])
    assert [found["record"]["type"] for found in evidence["records"]][:2] == ["SESSION_REQUESTED", "COMMIT_GRANTED"]
    assert evidence["pagination"]["totalCount"] == len(evidence["records"])
    for found in evidence["records"]:
        start = answer.content.index(b'{"', answer.content.index(b'"seq":%d,"record":' % found["seq"]) + 10)
        end = answer.content.index(b"}", start) + 1
        raw = answer.content[start:end]
        assert msgspec.json.decode(raw) == found["record"]
        proof = [bytes.fromhex(value) for value in found["proof"]]
        assert verify_inclusion(leaf_hash(raw), found["seq"], size=checkpoint.size, proof=proof, root=checkpoint.root)
        assert not verify_inclusion(
            leaf_hash(raw + b" "), found["seq"], size=checkpoint.size, proof=proof, root=checkpoint.root
        )


async def test_records_come_page_by_page(rig: Rig, app_one: httpx.AsyncClient) -> None:
    session = await checkpointed(rig, app_one)
    everything = (await app_one.get(f"sessions/{session}/evidence")).json()["records"]
    second = (await app_one.get(f"sessions/{session}/evidence?page=2&perPage=1")).json()
    assert [found["seq"] for found in second["records"]] == [everything[1]["seq"]]
    assert (await app_one.get(f"sessions/{session}/evidence?page=99")).json()["records"] == []
    for query, code in (("page=0", "OUT_OF_RANGE"), ("perPage=1001", "OUT_OF_RANGE"), ("page=x", "INVALID_ARGUMENT")):
        answer = await app_one.get(f"sessions/{session}/evidence?{query}")
        assert (answer.status_code, answer.json()["code"]) == (400, code)


async def test_a_refusal_leaves_evidence_for_its_client_only(
    app_one: httpx.AsyncClient, app_two: httpx.AsyncClient, noc: httpx.AsyncClient
) -> None:
    refused = (await app_one.post("sessions", json={"intent": {**INTENT, "delayMs": 31}})).json()["sessionId"]
    record = (await app_one.get(f"sessions/{refused}/evidence")).json()["records"][0]["record"]
    assert (record["type"], record["constraint"]) == ("SESSION_REFUSED", "DELAY")
    assert (await noc.get(f"sessions/{refused}/evidence")).status_code == 200
    assert (await app_two.get(f"sessions/{refused}/evidence")).status_code == 404
    assert (await app_two.get("sessions/3f1c2a54-7f0e-4c5e-9b1d-0a4f6d2b8e11/evidence")).status_code == 404


async def test_evidence_holds_nothing_private(rig: Rig, app_one: httpx.AsyncClient) -> None:
    session = (await app_one.post("sessions", json={"intent": {**INTENT, "regions": ["eu"]}})).json()
    text = (await app_one.get(f"sessions/{session['sessionId']}/evidence")).text
    for private in (
        session["aist"],
        session["commit"]["receipt"],
        '"eu"',
        rig.engine.state.sessions[session["sessionId"]].token_id,
    ):
        assert private not in text


async def test_the_files_rebuild_the_tree(rig: Rig, app_one: httpx.AsyncClient, noc: httpx.AsyncClient) -> None:
    await checkpointed(rig, app_one)
    note = await noc.get("evidence/checkpoint")
    assert note.headers["content-type"].startswith("text/plain")
    checkpoint = noted_checkpoint(note.text)
    hashes: list[bytes] = []
    records: list[bytes] = []
    for tile in tiles_of(0, checkpoint.size):
        answer = await noc.get(f"evidence/{tile.path}")
        assert answer.status_code == 200, tile.path
        if tile.level is None:
            records += unbundled(answer.content)
        elif tile.level == 0:
            hashes += [answer.content[place : place + 32] for place in range(0, len(answer.content), 32)]
    assert [leaf_hash(record) for record in records] == hashes
    assert tree_root(hashes) == checkpoint.root
    assert msgspec.json.decode(records[1])["prev"] == hashlib.sha256(records[0]).hexdigest()


async def test_proofs(rig: Rig, app_one: httpx.AsyncClient, noc: httpx.AsyncClient) -> None:
    await checkpointed(rig, app_one)
    checkpoint = noted_checkpoint((await noc.get("evidence/checkpoint")).text)
    entries = unbundled((await noc.get(f"evidence/tile/entries/000.p/{checkpoint.size}")).content)
    found = (await noc.get(f"evidence/proofs/inclusion?seq=3&size={checkpoint.size}")).json()
    proof = [bytes.fromhex(value) for value in found["proof"]]
    assert verify_inclusion(leaf_hash(entries[3]), 3, size=checkpoint.size, proof=proof, root=checkpoint.root)
    grown = (await noc.get(f"evidence/proofs/consistency?from=5&to={checkpoint.size}")).json()
    old = tree_root(leaf_hash(entry) for entry in entries[:5])
    assert (grown["from"], grown["to"]) == (5, checkpoint.size)
    steps = [bytes.fromhex(value) for value in grown["proof"]]
    assert verify_consistency((5, old), (checkpoint.size, checkpoint.root), steps)


@pytest.mark.parametrize(
    ("query", "code", "field"),
    [
        ("inclusion", "INVALID_ARGUMENT", "seq"),
        ("inclusion?seq=5&size=5", "OUT_OF_RANGE", "seq"),
        ("inclusion?seq=1&size=999999", "OUT_OF_RANGE", "seq"),
        ("inclusion?seq=-1&size=5", "INVALID_ARGUMENT", "seq"),
        ("consistency?from=9&to=3", "OUT_OF_RANGE", "from"),
        ("consistency?from=3&to=999999", "OUT_OF_RANGE", "from"),
        ("consistency?from=3&to=5&x=1", "INVALID_ARGUMENT", "x"),
    ],
)
async def test_an_impossible_proof_is_refused(noc: httpx.AsyncClient, query: str, code: str, field: str) -> None:
    answer = await noc.get(f"evidence/proofs/{query}")
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (400, code, field)


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/000",
        "tile/0/0",
        "tile/9/000",
        "tile/entries/999",
        "leaves/" + "0" * 64,
        "leaves/x",
        "keys",
        "../journal.db",
        "tile/0/000.p/257",
        "%2e%2e/journal.db",
    ],
)
async def test_a_file_that_is_not_there(noc: httpx.AsyncClient, path: str) -> None:
    answer = await noc.get(f"evidence/{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")


async def test_leaves_of_renewals_and_the_logs_own_keys(
    rig: Rig, app_one: httpx.AsyncClient, noc: httpx.AsyncClient
) -> None:
    await app_one.post("sessions", json={"intent": INTENT})
    async with asyncio.timeout(60):
        while not any(b"LEASES_RENEWED" in entry.record for entry in rig.journal.read(0)):
            rig.clock.passed_us += 1_000_000  # never so much at once that anchors could be lost
            for name in ("a", "b", "t"):
                await rig.engine.submit(Heartbeat(anchor=AnchorId(name), state=AnchorState.READY))
            await rig.engine.submit(Wake())
            await rig.settled()
    entries = unbundled((await noc.get(f"evidence/tile/entries/000.p/{rig.engine.head.seq}")).content)
    roots = [record["root"] for record in map(msgspec.json.decode, entries) if record["type"] == "LEASES_RENEWED"]
    leaves = unbundled((await noc.get(f"evidence/leaves/{roots[0]}")).content)
    assert tree_root(leaf_hash(leaf) for leaf in leaves).hex() == roots[0]
    assert (await noc.get("evidence/verifier-keys")).text.startswith("control.example/log+")


async def test_what_was_moved_away_is_a_problem_and_what_is_there_is_answered(
    rig: Rig, app_one: httpx.AsyncClient, noc: httpx.AsyncClient
) -> None:
    old = await checkpointed(rig, app_one)
    while rig.engine.head.seq < 300 or not rig.journal.go_on():  # where a checkpoint covers all of it
        await checkpointed(rig, app_one)
    new = await checkpointed(rig, app_one)
    size = noted_checkpoint((await noc.get("evidence/checkpoint")).text).size
    rig.journal._sealing.wait()
    away = rig.path.with_name("away")
    rig.path.rename(away)
    lost = (f"sessions/{old}/evidence", f"evidence/leaves/{'0' * 64}", "usage", "evidence/tile/entries/000")
    lost += ("evidence/tile/0/000", f"evidence/proofs/inclusion?seq=20&size={size}")
    lost += (f"evidence/proofs/consistency?from=20&to={size}", "sessions/00000000-0000-4000-8000-00000000000f/evidence")
    there = (
        f"sessions/{new}/evidence",
        f"evidence/proofs/inclusion?seq={size - 1}&size={size}",
        "evidence/tile/1/000.p/1",
    )
    there += (f"evidence/tile/entries/001.p/{size - 256}", f"evidence/proofs/consistency?from={size - 5}&to={size}")
    for place in lost:
        answer = await (app_one if place.startswith("sessions/") else noc).get(place)
        assert (answer.status_code, answer.json()["code"]) == (503, "AI_PAGING.JOURNAL_FILE_MISSING"), place
        assert answer.json()["who"] == "operator"
        assert "journal.db no longer stands" in answer.json()["message"]
        assert str(rig.path.parent) not in answer.text, "where files lie is nobody else's business"
    for place in there:
        assert (await (app_one if place.startswith("sessions/") else noc).get(place)).status_code == 200, place
    away.rename(rig.path)
    for place in (*lost[:1], *lost[2:-1], *there):
        assert (await (app_one if place.startswith("sessions/") else noc).get(place)).status_code == 200, place
    for place in (lost[1], lost[-1]):
        assert (await (app_one if place.startswith("sessions/") else noc).get(place)).status_code == 404, place
