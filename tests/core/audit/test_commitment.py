"""What was committed to is what is opened, and nothing else; verdicts from openings alone keep their word."""

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipaging.core.audit import (
    END_TO_END,
    UNKNOWN,
    ArrayTable,
    Batch,
    Commitment,
    CommitmentScan,
    Contract,
    Multiplicity,
    Openings,
    Outcome,
    Sampling,
    audit_period,
    beacon_seed,
    bound_scope,
    commitment_from,
    contract_digest,
    hashed,
    is_proven,
    leaf_of,
    leaves,
    needed,
    opening_key,
    opening_order,
    signed_text,
    verdict_record,
    without_commitment,
)
from aipaging.core.audit.record import Circumstances
from aipaging.core.audit.telemetry import UNREADABLE
from aipaging.core.evidence.merkle import leaf_hash, tree_root
from aipaging.core.foundation.errors import InvalidInputError

CONTRACT = Contract(domain=END_TO_END, delay_ms=10.0, epsilon=0.05)


def table(ends: list[int], **columns: Any) -> ArrayTable:
    count = len(ends)
    tenants = columns.get("tenants")
    batch = Batch(
        start_us=np.arange(count, dtype=np.int64),
        status=np.zeros(count, np.uint8),
        end_to_end_us=np.asarray(ends, dtype=np.int64),
        domains={"b": np.arange(count, dtype=np.int64), "a": np.full(count, 3, dtype=np.int64)},
        tenants=None if tenants is None else np.asarray(tenants, dtype=np.int64),
        tenant_names=columns.get("tenant_names", ()),
    )
    return ArrayTable(batch, [f"r{row}" for row in range(count)])


def rows_of(source: ArrayTable) -> list[dict[str, Any]]:
    (batch,) = source.batches(ids=True, tenants=True)
    return [msgspec.json.decode(leaf) for leaf in leaves(batch)]


@given(st.integers(0, 70), st.data())
def test_every_record_of_a_commitment_is_proven_and_no_other(size: int, data: st.DataObject) -> None:
    source = table([1_000 * row for row in range(size)])
    rows = sorted(data.draw(st.sets(st.integers(0, size - 1), max_size=5))) if size else []
    scan = hashed(source, needed(rows, size))
    committed = scan.commitment("o")
    (batch,) = source.batches(ids=True, tenants=True)
    assert committed.root == tree_root(leaf_hash(leaf) for leaf in leaves(batch))
    records = rows_of(source)
    for row in rows:
        proof = scan.proof(row)
        assert is_proven(committed, row, records[row], proof)
        assert not is_proven(committed, row, records[row] | {"end_to_end_us": 1}, proof)
        assert size == 1 or not is_proven(committed, (row + 1) % size, records[row], proof)
        assert not is_proven(replace(committed, root=bytes(32)), row, records[row], proof)


def test_a_leaf_reads_back_as_itself() -> None:
    source = table([5, UNKNOWN, UNREADABLE], tenants=[0, 1, 0], tenant_names=("t\u00e9", ""))
    (batch,) = source.batches(ids=True, tenants=True)
    first, second, third = rows = list(leaves(batch))
    assert [leaf_of(msgspec.json.decode(leaf)) for leaf in rows] == rows
    assert first.startswith(b'{"domain_a_us":3,"domain_b_us":0,"end_to_end_us":5,"request_id":"r0"')
    assert msgspec.json.decode(first)["tenant"] == "t\u00e9"
    assert msgspec.json.decode(second) == msgspec.json.decode(second) | {"end_to_end_us": None, "tenant": None}
    assert msgspec.json.decode(third)["end_to_end_us"] == "unreadable"


def test_the_text_of_a_commitment() -> None:
    committed = Commitment(origin="o.example/x", size=12, root=bytes(range(32)))
    assert commitment_from(committed.text()) == committed


@pytest.mark.parametrize(
    "text", ["", "o\n1\n", "o\n-1\nAAAA\n", "o\n1\n!\n", "\n1\n" + "A" * 43 + "=\n", "o\n²\nAA==\n"]
)
def test_what_is_no_commitment(text: str) -> None:
    with pytest.raises(InvalidInputError, match="checkpoint"):
        commitment_from(text)


def test_too_many_proofs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aipaging.core.audit.commitment.PROVEN_MAX", 2)
    with pytest.raises(InvalidInputError, match="at most 2"):
        needed([1, 2, 3], 9)


def test_a_scan_in_pieces_is_the_scan() -> None:
    (batch,) = table(list(range(11))).batches(ids=True, tenants=False)
    entries = list(leaves(batch))
    whole, pieces = CommitmentScan(), CommitmentScan()
    whole.add(entries)
    pieces.add(entries[:4])
    pieces.add(entries[4:])
    assert whole.commitment("o") == pieces.commitment("o")


def test_a_beacon_decides_a_seed_of_63_bits() -> None:
    seeds = {beacon_seed(f"round {number}".encode()) for number in range(200)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert beacon_seed(b"a") == beacon_seed(b"a")


def openings_of(source: ArrayTable, ends: list[int], *, seed: int, count: int) -> tuple[ArrayTable, Commitment]:
    committed = hashed(source).commitment("o")
    order = opening_order(opening_key(seed, committed.root), committed.size, count)
    (batch,) = source.batches(ids=True, tenants=True)
    chosen = Batch(
        start_us=batch.start_us[order],
        status=batch.status[order],
        end_to_end_us=np.asarray(ends, dtype=np.int64)[order],
        domains={name: column[order] for name, column in batch.domains.items()},
        tenants=None if batch.tenants is None else batch.tenants[order],
        tenant_names=batch.tenant_names,
    )
    return ArrayTable(chosen, [f"r{row}" for row in order]), committed


def test_openings_alone_say_what_the_telemetry_says() -> None:
    ends = [30_000] * 200 + [1_000] * 1_800
    source = table(ends)
    opened, committed = openings_of(source, ends, seed=3, count=600)
    alone = audit_period(opened, [CONTRACT], alpha=0.05, committed=committed).verdicts[0]
    sampling = Sampling(count=600, seed=3, root=committed.root)
    whole = audit_period(source, [CONTRACT], alpha=0.05, sampling=sampling).verdicts[0]
    assert alone.outcome is whole.outcome is Outcome.VIOLATED
    assert alone.finding == whole.finding
    assert (alone.requests, alone.sampled) == (2_000, 600)


def test_records_that_are_due_and_missing_from_the_period_widen() -> None:
    ends = [1_000] * 2_000
    opened, committed = openings_of(table(ends), ends, seed=3, count=600)
    contract = replace(CONTRACT, expected_requests=2_500)
    verdict = audit_period(opened, [contract], alpha=0.05, committed=committed).verdicts[0]
    assert verdict.outcome is Outcome.INSUFFICIENT_EVIDENCE
    assert verdict.missing == 500
    assert verdict.exceedances_high >= 500


@pytest.mark.parametrize(("late", "outcome"), [(400, Outcome.VIOLATED), (0, Outcome.COMPLIANT)])
def test_a_tenants_share_of_a_commitment(late: int, outcome: Outcome) -> None:
    """Of 4,000 records 1,000 are the tenant's; nobody says how many before they are opened."""
    ends = [30_000 if row % 4 == 0 and row < 4 * late else 1_000 for row in range(4_000)]
    source = table(ends, tenants=[row % 4 for row in range(4_000)], tenant_names=("a", "b", "c", "d"))
    opened, committed = openings_of(source, ends, seed=4, count=2_000)
    contracts = [replace(CONTRACT, tenant="a"), replace(CONTRACT, tenant="a", period_start_us=0, period_end_us=3_000)]
    for verdict in audit_period(opened, contracts, alpha=0.05, committed=committed).verdicts:
        assert verdict.outcome is outcome
        assert verdict.observed <= 1_000
        assert verdict.exceedances_low <= late


def test_bounds_of_a_scope_hold_over_all_runs_together() -> None:
    rng = np.random.default_rng(6)
    size, mine, late = 3_000, 900, 60
    wrong = 0
    for _ in range(200):
        order = rng.permutation(size)[:1_000]
        inside, exceeding = int(np.sum(order < mine)), int(np.sum(order < late))
        bounds = bound_scope(
            Openings(committed=size, opened=1_000, mine=inside, certain=exceeding, possible=exceeding),
            epsilon=0.05,
            alpha=0.05,
        )
        (few, many), (low, high) = bounds.records, bounds.exceedances
        wrong += not (few <= mine <= many and low <= late <= high)
    assert wrong <= 10


def test_other_records_than_committed_give_no_verdict() -> None:
    audit = without_commitment(audit_period(table([30_000] * 10), [CONTRACT], alpha=0.05))
    assert audit.verdicts[0].outcome is Outcome.INSUFFICIENT_EVIDENCE
    assert "not those" in audit.verdicts[0].reason
    assert audit.scan.flaws.counts["root_mismatch"] == 1


def test_the_false_discovery_rate_decides_more_than_a_split() -> None:
    ends = [30_000] * 200 + [1_000] * 1_800
    contracts = [replace(CONTRACT, delay_ms=10.0 + index) for index in range(12)]
    decided: dict[Multiplicity, int] = {}
    for multiplicity in Multiplicity:
        audit = audit_period(
            table(ends), contracts, alpha=0.05, sampling=Sampling(count=200, seed=9), multiplicity=multiplicity
        )
        decided[multiplicity] = sum(verdict.outcome is Outcome.VIOLATED for verdict in audit.verdicts)
        assert audit.multiplicity is multiplicity
    assert decided == {Multiplicity.SPLIT: 0, Multiplicity.E_BH: 12}


def test_e_bh_needs_e_values() -> None:
    ends = [1_000] * 100
    opened, committed = openings_of(table(ends, tenants=[0] * 100, tenant_names=("a",)), ends, seed=1, count=50)
    with pytest.raises(InvalidInputError, match="e-BH"):
        audit_period(
            opened,
            [replace(CONTRACT, tenant="a")],
            alpha=0.05,
            committed=committed,
            multiplicity=Multiplicity.E_BH,
        )


def test_a_record_holds_what_is_needed_and_its_text_is_ascii() -> None:
    contract = replace(CONTRACT, tenant="caf\u00e9", delay_ms=10, expected_requests=5, period_start_us=0)
    verdict = audit_period(table([30_000] * 4), [contract], alpha=0.05, sampling=Sampling(count=4, seed=1)).verdicts[0]
    how = Circumstances(software="s", seed="1", root="ab", committed=4, multiplicity="alpha-splitting", family=1)
    record = verdict_record(verdict, how)
    assert record["tenant"] == "caf\\xe9"
    assert record["contract"] == contract_digest(replace(contract, delay_ms=10.0))
    assert record["contract"] != contract_digest(replace(contract, epsilon=0.06))
    assert float(str(record["log_e_violated"])) == verdict.finding.log_e_violated  # type: ignore[union-attr]
    assert {"seed", "root", "committed", "method", "alpha", "software", "period_start_us", "estimand"} <= record.keys()
    head, body, end = signed_text(record).split("\n")
    assert (head, end) == ("aipaging-audit-verdict/1", "")
    assert msgspec.json.decode(body) == record
