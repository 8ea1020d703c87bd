"""Tampering with stored bytes: which record is named, and by which check."""

from dataclasses import replace
from functools import lru_cache

import pytest
from msgspec import structs

from aipaging.core.evidence.finding import Invariant, Verdict
from aipaging.core.evidence.log import Checkpoint
from aipaging.core.evidence.merkle import EMPTY_TREE
from aipaging.core.evidence.record import SealedEntry
from aipaging.core.evidence.verify import Verifier
from aipaging.testing.evidence import History, Plan, sealed_history

PLAN = Plan(sessions_per_second=2.0, duration_s=25.0)
RECORDS = 300


@lru_cache
def log() -> tuple[SealedEntry, ...]:
    return tuple(sealed_history(History(5, PLAN).take(RECORDS)))


def checkpoint(entries: list[SealedEntry], size: int) -> Checkpoint:
    tree = EMPTY_TREE.extended(entry.leaf_hash for entry in entries[:size])
    return Checkpoint(origin="example.com/log", size=size, root=tree.root())


def witnessed(*sizes: int) -> list[tuple[str, Checkpoint]]:
    return [(f"the checkpoint of {size}", checkpoint(list(log()), size)) for size in sizes]


def verified(entries: list[SealedEntry], *sizes: int, stored: bool = False) -> Verdict:
    verifier = Verifier(witnessed(*sizes))
    for entry in entries:
        verifier.feed(entry.record, stored_hash=entry.leaf_hash if stored else None, leaves=entry.leaves)
    return verifier.verdict()


def edited(place: int, old: bytes = b'"term":1', new: bytes = b'"term":7') -> list[SealedEntry]:
    entries = list(log())
    assert old in entries[place].record
    entries[place] = structs.replace(entries[place], record=entries[place].record.replace(old, new))
    return entries


def test_what_was_not_touched_is_accepted() -> None:
    verdict = verified(list(log()), 0, 1, 64, 255, 256, RECORDS, stored=True)
    assert verdict.ok
    assert verdict.records == RECORDS


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("place", [0, 1, 100, RECORDS - 2])
def test_an_edited_record_is_named(place: int, stored: bool) -> None:
    verdict = verified(edited(place, b'"wall_us":17', b'"wall_us":18'), RECORDS, stored=stored)
    assert (verdict.chain_ok, verdict.tree_ok) == (False, False)
    assert verdict.first_bad is not None
    assert verdict.first_bad.seq in ({place} if stored or place < RECORDS - 2 else {place, place + 1})
    assert verdict.first_bad.type


def test_an_edited_last_record_is_named_by_its_stored_hash_or_the_checkpoint() -> None:
    entries = edited(RECORDS - 1, b'"wall_us":17', b'"wall_us":18')
    for verdict in (verified(entries, RECORDS, stored=True), verified(entries, RECORDS - 1, RECORDS)):
        assert (verdict.chain_ok, verdict.tree_ok) == (True, False)
        assert verdict.first_bad is not None
        assert (verdict.first_bad.seq, verdict.first_bad.invariant) == (RECORDS - 1, Invariant.TREE)


def test_an_edited_prev_is_named() -> None:
    prev = log()[50].record.split(b'"prev":"')[1][:8]
    verdict = verified(edited(50, prev, b"00000000"))
    assert verdict.first_bad is not None
    assert (verdict.first_bad.seq, verdict.chain_ok) == (50, False)


@pytest.mark.parametrize("place", [0, 7, 100])
def test_a_missing_record_is_named(place: int) -> None:
    entries = list(log())
    del entries[place]
    verdict = verified(entries, RECORDS)
    assert not verdict.chain_ok
    assert not verdict.tree_ok
    assert verdict.first_bad is not None
    assert verdict.first_bad.seq == place


def test_swapped_records_are_named() -> None:
    entries = list(log())
    entries[20], entries[21] = entries[21], entries[20]
    verdict = verified(entries)
    assert verdict.first_bad is not None
    assert (verdict.first_bad.seq, verdict.chain_ok) == (20, False)


def test_a_repeated_record_is_named() -> None:
    entries = list(log())
    entries.insert(21, entries[20])
    verdict = verified(entries)
    assert verdict.first_bad is not None
    assert (verdict.first_bad.seq, verdict.chain_ok) == (21, False)


def test_a_cut_tail_is_caught_by_a_witness_and_only_by_it() -> None:
    entries = list(log())[:200]
    assert verified(entries, 128).ok
    verdict = verified(entries, 128, 256)
    assert (verdict.chain_ok, verdict.tree_ok, verdict.invariants_ok) == (True, False, True)
    assert verdict.first_bad is not None
    assert (verdict.first_bad.seq, verdict.first_bad.invariant) == (200, Invariant.TREE)
    assert "cut" in verdict.first_bad.what


def test_a_rewritten_tail_is_caught_by_a_witness() -> None:
    """The forger seals everything from record 150 on anew: chain, schema and invariants are in order."""
    steps = History(5, PLAN).take(RECORDS)
    late = steps[150]
    steps[150] = replace(late, now=structs.replace(late.now, wall_us=late.now.wall_us + 1))
    forged = list(sealed_history(steps))
    assert verified(forged, 128).ok
    verdict = verified(forged, 128, 192, RECORDS)
    assert (verdict.chain_ok, verdict.tree_ok, verdict.invariants_ok) == (True, False, True)
    assert verdict.first_bad is not None
    assert verdict.first_bad.seq == 128
    assert "records 128 to 191" in verdict.first_bad.what


def batch_place() -> int:
    return next(place for place, entry in enumerate(log()) if len(entry.leaves) > 1)


@pytest.mark.parametrize("change", ["altered", "missing", "fewer", "swapped", "not JSON"])
def test_changed_leaves_are_named(change: str) -> None:
    entries, place = list(log()), batch_place()
    leaves = entries[place].leaves
    changed = {
        "altered": (leaves[0].replace(b'"renewal":', b'"renewal":9'), *leaves[1:]),
        "missing": (),
        "fewer": leaves[1:],
        "swapped": leaves[::-1],
        "not JSON": (b"\xff", *leaves[1:]),
    }[change]
    entries[place] = structs.replace(entries[place], leaves=changed)
    verdict = verified(entries, RECORDS)
    assert (verdict.chain_ok, verdict.tree_ok, verdict.invariants_ok) == (True, True, False)
    assert verdict.first_bad is not None
    assert (verdict.first_bad.seq, verdict.first_bad.invariant) == (place, Invariant.SCHEMA)


@pytest.mark.parametrize("record", [b"", b"[]", b"\xff\xfe", b"{}", b'{"a":{}}', b'{"type":"GOSSIP"}', b'{"type":[]}'])
def test_what_is_no_record_is_named(record: bytes) -> None:
    entries = list(log())
    entries[9] = structs.replace(entries[9], record=record)
    verdict = verified(entries)
    assert verdict.first_bad is not None
    assert (verdict.first_bad.seq, verdict.chain_ok, verdict.invariants_ok) == (9, False, False)


def test_a_record_that_is_not_canonical_is_named() -> None:
    verdict = verified(edited(9, b'{"', b'{ "'))
    assert not verdict.invariants_ok
    assert verdict.first_bad is not None
    assert verdict.first_bad.seq == 9


def test_findings_from_outside_count() -> None:
    verifier = Verifier()
    verifier.unsigned("nobody signed it", size=3)
    verifier.unsigned("nor this", size=1)
    assert verifier.verdict().first_bad == replace(verifier.verdict().first_bad, seq=2, invariant=Invariant.SIGNATURE)
    verifier.inconsistent("a tile differs", first=1, end=2)
    verdict = verifier.verdict()
    assert (verdict.signatures_ok, verdict.tree_ok, verdict.first_bad.seq) == (False, False, 1)
