"""Evidence to disk, and its verification: against one signature and one sync per record.

Ours is the whole pipeline of the controller: canonical JSON, schema, hash chain, Merkle tree, encryption of the
private payloads, SQLite, one sync per batch, one Ed25519 checkpoint per 64 records. The peer seals the same records
and does for each what a plain signed log does: a signature, an insert, a sync. Both run in turns on one disk.
"""

import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aipaging.adapters.journal.sqlite.files import JournalFiles
from aipaging.adapters.journal.sqlite.reader import SqliteEvidenceReader
from aipaging.adapters.journal.sqlite.writer import SqliteJournal
from aipaging.adapters.signing.notes import NoteSigner, verified_text
from aipaging.apps.bench.interleaved import Goal, against, alone
from aipaging.apps.bench.result import BenchResult
from aipaging.core.evidence.finding import Verdict
from aipaging.core.evidence.log import EMPTY_LOG, Sealer, noted_checkpoint
from aipaging.core.evidence.record import Draft
from aipaging.core.evidence.verify import Verifier
from aipaging.testing.evidence import History, Plan, Step

BATCH: Final = 64
"""The most records that a checkpoint may wait for (min(64 records, 100 ms))."""

PLAN: Final = Plan(sessions_per_second=100.0, duration_s=20.0, anchors=8, anchor_sessions=800, restart_s=600.0)
"""Some 2,000 live sessions with renewals, relocations and ends, as `aipaging.testing.evidence` makes them."""

RECORDS_PER_SECOND_MIN: Final = 10_000
CPU_US_MAX: Final = 25.0
VERIFIED: Final = 1_000_000
VERIFY_SECONDS_MAX: Final = 30.0

_ORIGIN: Final = "bench.example/log"


class _Run(NamedTuple):
    """One measured stretch."""

    records: int
    wall_s: float
    cpu_s: float

    @property
    def per_second(self) -> float:
        return self.records / self.wall_s

    @property
    def cpu_us(self) -> float:
        return self.cpu_s / self.records * 1e6


def run(*, quick: bool, seed: int) -> list[BenchResult]:
    """Measure appending against the peer, then verify what was appended."""
    rounds, ours_each, theirs_each = (5, 6_400, 150) if quick else (7, 32_000, 600)
    verified = 100_000 if quick else VERIFIED
    signer = NoteSigner(Ed25519PrivateKey.generate(), _ORIGIN)
    with tempfile.TemporaryDirectory(prefix="aipaging-bench-") as directory:
        place = Path(directory)
        steps = iter(History(seed, PLAN))
        writer = _Writer(place / "journal.db", signer)
        peer = _SignEach(place / "peer.db")
        ours: list[_Run] = []
        theirs: list[_Run] = []
        for _ in range(rounds):
            ours.append(writer.append(list(islice(steps, ours_each))))
            theirs.append(peer.append(list(islice(History(seed, PLAN), theirs_each))))
        while (left := verified - rounds * BATCH - writer.records) > 0:
            writer.append(list(islice(steps, min(64_000, left))))
        held_up_ms = [writer.go_on(list(islice(steps, BATCH))) for _ in range(rounds)]
        writer.close()
        peer.close()
        files = JournalFiles(place / "journal.db")
        size_bytes = sum(files.path_of(first).stat().st_size for first in files.present()) / writer.records
        verdict, verify_s = _verify(place / "journal.db", signer)
    if not verdict.ok:
        raise AssertionError(f"the benchmark's own log does not verify: {verdict.first_bad}")
    held_up = alone("held_up_by_going_on_in_another_file", "ms", held_up_ms, Goal(text="stated"))
    return [*_append_results(ours, theirs), *_verify_results(verdict.records, verify_s, size_bytes), held_up]


class _Writer:
    """The controller's way to the disk: batches of 64, each with a signed checkpoint."""

    def __init__(self, path: Path, signer: NoteSigner) -> None:
        self._journal = SqliteJournal(path, bytes(32), verifier_keys=[signer.verifier.text])
        self._signer = signer
        self._sealer = Sealer("controller-1", "", self._journal.open())
        self._boot = ""

    @property
    def records(self) -> int:
        return self._sealer.head.seq

    def append(self, steps: Sequence[Step]) -> _Run:
        """Seal, sign and store the steps in batches; what made them is not measured."""
        batches = list(_batches(steps))
        wall, cpu = time.perf_counter(), time.process_time()
        for batch in batches:
            step = batch[-1]
            if step.boot != self._boot:
                self._sealer, self._boot = Sealer("controller-1", step.boot, self._sealer.head), step.boot
            entries = [entry for part, drafts in _instants(batch) for entry in
                       self._sealer.seal(drafts, term=part.term, now=part.now)]  # fmt: skip
            note = self._signer.sign_note(self._sealer.checkpoint_text(_ORIGIN))
            self._journal.append(entries, note)
        return _Run(len(steps), time.perf_counter() - wall, time.process_time() - cpu)

    def go_on(self, steps: Sequence[Step]) -> float:
        """Go on in another file, and store a batch there; return for how many milliseconds nothing else could be."""
        wall = time.perf_counter()
        if not self._journal.go_on():
            raise AssertionError("the journal does not go on in another file")
        held_up_s = time.perf_counter() - wall
        self.append(steps)
        return 1000 * held_up_s

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()


def _batches(steps: Sequence[Step]) -> Iterator[list[Step]]:
    """Yield batches of at most 64 steps of one boot."""
    for _, of_boot in groupby(steps, key=lambda step: step.boot):
        while batch := list(islice(of_boot, BATCH)):
            yield batch


def _instants(batch: Sequence[Step]) -> Iterator[tuple[Step, list[Draft]]]:
    """Yield the drafts of each instant: what the engine decides at one `now` is sealed together."""
    for _, group in groupby(batch, key=lambda step: step.now):
        same = list(group)
        yield same[0], [step.draft for step in same]


class _SignEach:
    """The peer: each record sealed, signed by itself, inserted and synced."""

    def __init__(self, path: Path) -> None:
        self._key = Ed25519PrivateKey.generate()
        self._connection = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.execute("CREATE TABLE log (seq INTEGER PRIMARY KEY, record BLOB, signature BLOB)")

    def append(self, steps: Sequence[Step]) -> _Run:
        """Seal, sign, store and sync each step."""
        wall, cpu = time.perf_counter(), time.process_time()
        sealer = Sealer("peer", "boot", EMPTY_LOG)
        for step in steps:
            (entry,) = sealer.seal([step.draft], term=step.term, now=step.now)
            row = (entry.record, self._key.sign(entry.record))
            self._connection.execute("INSERT INTO log (record, signature) VALUES (?, ?)", row)
        return _Run(len(steps), time.perf_counter() - wall, time.process_time() - cpu)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _verify(path: Path, signer: NoteSigner) -> tuple[Verdict, float]:
    """Verify the log as the command does: every signature, the chain, the tree, the invariants."""
    wall = time.perf_counter()
    reader = SqliteEvidenceReader(path)
    notes = reader.checkpoints(newest=False)
    checkpoints = [noted_checkpoint(note) for note in notes]
    verifier = Verifier((f"checkpoint {checkpoint.size}", checkpoint) for checkpoint in checkpoints)
    for note in notes:
        verified_text(note, [signer.verifier])
    for stored in reader.records(0):
        verifier.feed(stored.record, stored_hash=stored.leaf_hash, leaves=stored.leaves)
    verdict = verifier.verdict()
    reader.close()
    return verdict, time.perf_counter() - wall


def _append_results(ours: Sequence[_Run], theirs: Sequence[_Run]) -> list[BenchResult]:
    runs = list(zip(ours, theirs, strict=True))
    peer = "one Ed25519 signature and one sync per record"
    speed = Goal(text=f">= {RECORDS_PER_SECOND_MIN}", least=RECORDS_PER_SECOND_MIN)
    cost = Goal(text=f"<= {CPU_US_MAX:g}", most=CPU_US_MAX)
    speeds = [(mine.per_second, other.per_second) for mine, other in runs]
    costs = [(mine.cpu_us, other.cpu_us) for mine, other in runs]
    return [
        against("records_appended_per_second", "1/s", speeds, peer=peer, goal=speed),
        against("cpu_per_record", "us", costs, peer=peer, goal=cost),
    ]


def _verify_results(records: int, seconds: float, size_bytes: float) -> list[BenchResult]:
    name = "verify_1000000_records" + ("" if records == VERIFIED else f"_extrapolated_from_{records}")
    goal = Goal(text=f"<= {VERIFY_SECONDS_MAX:g}", most=VERIFY_SECONDS_MAX)
    return [
        alone(name, "s", [seconds * VERIFIED / records], goal),
        alone("bytes_stored_per_record", "B", [size_bytes], Goal(text="stated")),
    ]
