"""Records, sealing and checkpoints."""

import base64
from hashlib import sha256

import msgspec
import pytest
import rfc8785

from aipaging.core.evidence.log import (
    EMPTY_LOG,
    Checkpoint,
    LogHead,
    Sealer,
    parse_checkpoint,
    place_of,
    resumed,
)
from aipaging.core.evidence.merkle import leaf_hash, tree_root
from aipaging.core.evidence.record import LEAVES_MAX, RECORD_TYPES, Draft, commitment, record_fault
from aipaging.core.foundation.errors import AipagingError, UnverifiedError
from aipaging.core.foundation.time import BootUs, Now, WallUs

NOW = Now(boot_us=BootUs(7), wall_us=WallUs(1_790_000_000_000_000))
ENDED = Draft(type="SESSION_ENDED", fields={"session": "s", "status_info": "DELETE_REQUESTED"})
LEAF = {"session": "s", "epoch_term": 1, "epoch_n": 1, "renewal": 2, "lease_ms": 3}


def sealer() -> Sealer:
    return Sealer("node-1", "boot-1", EMPTY_LOG)


def test_records_are_canonical_chained_and_in_the_tree() -> None:
    writer = sealer()
    entries = [*writer.seal([ENDED, ENDED], term=1, now=NOW), *writer.seal([ENDED], term=1, now=NOW)]
    prev = "0" * 64
    for place, entry in enumerate(entries):
        decoded = msgspec.json.decode(entry.record)
        assert entry.record == rfc8785.dumps(decoded)
        assert (decoded["seq"], decoded["prev"], entry.seq) == (place, prev, place)
        assert place_of(entry.record) == (place, prev)
        assert record_fault(decoded) is None
        prev = sha256(entry.record).hexdigest()
    assert writer.head.prev == prev
    assert writer.head.tree.root() == tree_root(leaf_hash(entry.record) for entry in entries)
    assert entries[0].session == "s"


def test_a_batch_names_the_root_of_its_leaves() -> None:
    (entry,) = sealer().seal([Draft(type="LEASES_RENEWED", fields={}, leaves=(LEAF, LEAF))], term=1, now=NOW)
    decoded = msgspec.json.decode(entry.record)
    assert decoded["count"] == 2
    assert decoded["root"] == entry.root.hex() == tree_root(leaf_hash(leaf) for leaf in entry.leaves).hex()


BAD = {
    "unknown type": Draft(type="GOSSIP", fields={}),
    "unknown field": Draft(type="SESSION_ENDED", fields={**ENDED.fields, "prompt": "hello"}),
    "missing field": Draft(type="SESSION_ENDED", fields={"session": "s"}),
    "wrong kind": Draft(type="SESSION_ENDED", fields={"session": 7, "status_info": "x"}),
    "negative": Draft(type="SESSION_EXTENDED", fields={"session": "s", "duration_ms": -1}),
    "a boolean": Draft(type="SESSION_EXTENDED", fields={"session": "s", "duration_ms": True}),
    "too big for JSON": Draft(type="SESSION_EXTENDED", fields={"session": "s", "duration_ms": 2**53}),
    "not hex": Draft(type="CLIENT_MOVED", fields={"session": "s", "place_commitment": "Z" * 64}),
    "not an allowed word": Draft(type="ANCHOR_STATE_CHANGED", fields={"anchor": "a", "state": "WELL", "cause": ""}),
    "too long": Draft(type="SESSION_ENDED", fields={"session": "s" * 65_536, "status_info": "x"}),
    "not ASCII": Draft(type="SESSION_ENDED", fields={"session": "s\u00e9", "status_info": "x"}),
    "leaves where none belong": Draft(type="SESSION_ENDED", fields=ENDED.fields, leaves=(LEAF,)),
    "no leaves": Draft(type="LEASES_RENEWED", fields={}),
    "too many leaves": Draft(type="LEASES_RENEWED", fields={}, leaves=(LEAF,) * (LEAVES_MAX + 1)),
    "bad leaf": Draft(type="LEASES_RENEWED", fields={}, leaves=({"session": "s"},)),
    "a field of a batch": Draft(type="LEASES_RENEWED", fields={"session": "s"}, leaves=(LEAF,)),
}


@pytest.mark.parametrize("draft", BAD.values(), ids=BAD.keys())
def test_a_malformed_draft_is_refused_and_the_head_stays(draft: Draft) -> None:
    writer = sealer()
    with pytest.raises(AipagingError) as caught:
        writer.seal([ENDED, draft], term=1, now=NOW)
    assert caught.value.code in {"RECORD_MALFORMED", "NOT_CANONICAL"}
    assert writer.head == EMPTY_LOG


def test_a_draft_cannot_choose_its_place() -> None:
    (entry,) = sealer().seal([Draft(type="SESSION_ENDED", fields={**ENDED.fields, "seq": 9})], term=1, now=NOW)
    assert place_of(entry.record) == (0, "0" * 64)


def test_checkpoint_text_reads_back() -> None:
    writer = sealer()
    writer.seal([ENDED] * 3, term=1, now=NOW)
    text = writer.checkpoint_text("example.com/log")
    assert text == f"example.com/log\n3\n{base64.b64encode(writer.head.tree.root()).decode()}\n"
    assert parse_checkpoint(text) == Checkpoint(origin="example.com/log", size=3, root=writer.head.tree.root())
    assert parse_checkpoint(text).text() == text


@pytest.mark.parametrize(
    "text", ["", "o\n1\n", "o\n1\n!!\n", "o\n01\n" + "A" * 43 + "=\n", "o\n-1\n" + "A" * 43 + "=\n", "o\n1\nAAAA\n",
             "\n1\n" + "A" * 43 + "=\n", "o\n" + "9" * 5000 + "\nAAAA\n"],
)  # fmt: skip
def test_what_is_not_a_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(UnverifiedError, match="not a checkpoint"):
        parse_checkpoint(text)


def stored() -> tuple[list[bytes], LogHead]:
    writer = sealer()
    return [entry.record for entry in writer.seal([ENDED] * 5, term=1, now=NOW)], writer.head


def test_a_log_is_resumed_from_any_head() -> None:
    records, head = stored()
    middle = resumed(EMPTY_LOG, records[:2], None)
    checkpoint = Checkpoint(origin="o", size=4, root=tree_root(leaf_hash(record) for record in records[:4]))
    assert resumed(middle, records[2:], checkpoint) == head


@pytest.mark.parametrize(
    "records",
    [stored()[0][1:], [*stored()[0][:2], *stored()[0][3:]], [b"{}"], [b"not JSON"], [b'{"seq":"0","prev":1}']],
)
def test_a_broken_chain_is_not_resumed(records: list[bytes]) -> None:
    with pytest.raises(UnverifiedError, match="chain"):
        resumed(EMPTY_LOG, records, None)


@pytest.mark.parametrize("size", [3, 6])
def test_a_log_is_not_resumed_past_its_checkpoint(size: int) -> None:
    with pytest.raises(UnverifiedError, match="checkpoint"):
        resumed(EMPTY_LOG, stored()[0], Checkpoint(origin="o", size=size, root=b"r" * 32))


def test_a_commitment_binds_salt_and_value() -> None:
    assert commitment(b"salt", b"value") == commitment(b"salt", b"value")
    assert len({commitment(b"salt", b"value"), commitment(b"saltv", b"alue"), commitment(b"salt", b"other")}) == 3


def test_every_type_can_be_checked() -> None:
    assert all(record_fault({"type": record_type}) for record_type in RECORD_TYPES)
