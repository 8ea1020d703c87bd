"""AIP 4: what evidence costs, in time and bytes, against less of it and against more.

The same history of sessions is written in four ways, each record a row of SQLite:

* none: the records as JSON, 64 to a sync;
* chain: the same, each with the hash of the one before;
* chain, Merkle tree, one signed checkpoint per 64 records and the encrypted payloads: the controller's own pipeline;
* sign each: the chain, and an Ed25519 signature and a sync for every record.
"""

import hashlib
import sqlite3
import statistics
import time
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aipaging.adapters.journal.sqlite.writer import SqliteJournal
from aipaging.adapters.signing.notes import NoteSigner
from aipaging.apps.evaluate.curves import bars
from aipaging.apps.evaluate.experiment import Experiment, Finding, Measured, Setting
from aipaging.core.evidence.log import Sealer
from aipaging.core.foundation.canonical import canonical_json
from aipaging.testing.evidence import History, Plan, Step

BATCH: Final = 64
PLAN: Final = Plan(sessions_per_second=100.0, duration_s=20.0, anchors=8, anchor_sessions=800, restart_s=600.0)
RECORDS: Final = 12_800
SIGNED_PART: Final = 16
"""Of the records, one in so many is enough to time a sync each."""

ROUNDS: Final = 3
WAYS: Final = {
    "none": "no evidence",
    "chain": "hash chain",
    "full": "chain, Merkle,\nsigned batch",
    "each": "signed and\nsynced each",
}
ORIGIN: Final = "evaluation.example/log"
NODE: Final = "controller-1"
FULL_US_MAX: Final = 100.0
"""1 % of a core at 100 transitions a second: what "overhead" may mean."""


def _batches(steps: Sequence[Step]) -> Iterator[list[Step]]:
    for _, of_boot in groupby(steps, key=lambda step: step.boot):
        while batch := list(islice(of_boot, BATCH)):
            yield batch


class _Rows:
    """Records as rows, with or without a chain and a signature."""

    def __init__(self, path: Path, way: str) -> None:
        self._way = way
        self._key = Ed25519PrivateKey.generate()
        self._prev = ""
        self._connection = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.execute(
            "CREATE TABLE log (seq INTEGER PRIMARY KEY, record BLOB, signature BLOB, payload BLOB)"
        )

    def append(self, batch: Sequence[Step]) -> None:
        """Store a batch; one sync for all, or one for each."""
        each = self._way == "each"
        if not each:
            self._connection.execute("BEGIN")
        for step in batch:
            fields = {**step.draft.fields, "type": step.draft.type, "term": step.term, "wall_us": step.now.wall_us}
            if self._way != "none":
                fields["prev"] = self._prev
            record = canonical_json(fields)
            if self._way != "none":
                self._prev = hashlib.sha256(record).hexdigest()
            signature = self._key.sign(record) if each else None
            row = (record, signature, step.draft.payload or None)
            self._connection.execute("INSERT INTO log (record, signature, payload) VALUES (?, ?, ?)", row)
        if not each:
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file; what is in the log goes into it."""
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()


class _Full:
    """The controller's pipeline."""

    def __init__(self, path: Path) -> None:
        self._signer = NoteSigner(Ed25519PrivateKey.generate(), ORIGIN)
        self._journal = SqliteJournal(path, bytes(32), verifier_keys=[self._signer.verifier.text])
        self._sealer = Sealer(NODE, "", self._journal.open())
        self._boot = ""

    def append(self, batch: Sequence[Step]) -> None:
        """Seal, sign and store a batch."""
        boot = batch[-1].boot
        if boot != self._boot:
            self._sealer, self._boot = Sealer(NODE, boot, self._sealer.head), boot
        entries = [entry for step in batch for entry in self._sealer.seal([step.draft], term=step.term, now=step.now)]
        self._journal.append(entries, self._signer.sign_note(self._sealer.checkpoint_text(ORIGIN)))

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()


def written(way: str, work: Path, seed: int, records: int) -> dict[str, float]:
    """Write a history in one way; return what a record costs."""
    steps = list(islice(History(seed, PLAN), records // (SIGNED_PART if way == "each" else 1)))
    path = work / f"{way}-{time.monotonic_ns()}.db"
    log = _Full(path) if way == "full" else _Rows(path, way)
    wall, cpu = time.perf_counter(), time.process_time()
    for batch in _batches(steps):
        log.append(batch)
    spent = {
        "wall_us": (time.perf_counter() - wall) / len(steps) * 1e6,
        "cpu_us": (time.process_time() - cpu) / len(steps) * 1e6,
    }
    log.close()
    return {**spent, "bytes": path.stat().st_size / len(steps)}


def measure(setting: Setting) -> Measured:
    """Write the history in every way, in turns."""
    records = max(640, round(RECORDS * min(setting.scale, 10.0)))
    rounds: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way in WAYS:
            rounds[way].append(written(way, setting.work, setting.seed, records))
    return {
        "records": records,
        "ways": {
            way: {key: statistics.median(one[key] for one in found) for key in found[0]}
            | {f"{key}_low": min(one[key] for one in found) for key in found[0]}
            | {f"{key}_high": max(one[key] for one in found) for key in found[0]}
            for way, found in rounds.items()
        },
    }


def conclude(measured: Measured) -> Finding:
    """Say what a record costs."""
    none, chain, full, each = (measured["ways"][way] for way in WAYS)
    more = full["cpu_us"] - none["cpu_us"]
    sentence = (
        f"Verifiable evidence (chain, Merkle tree, a signature per {BATCH} records, payloads encrypted) costs "
        f"{full['wall_us']:.0f} µs and {full['bytes']:,.0f} bytes per state transition, {more:.0f} µs of processor and "
        f"{full['bytes'] - none['bytes']:,.0f} bytes more than no evidence (a hash chain alone: "
        f"{chain['cpu_us'] - none['cpu_us']:.0f} µs more), against {each['wall_us']:,.0f} µs with a signature and a "
        f"sync each: {each['wall_us'] / full['wall_us']:.1f} times as much."
    )
    return Finding(
        sentence=sentence,
        confirmed=more <= FULL_US_MAX and each["wall_us"] > full["wall_us"],
        numbers={"cpu_us_more": more, "wall_us": full["wall_us"], "bytes": full["bytes"],
                 "sign_each_over_full": each["wall_us"] / full["wall_us"]},
    )  # fmt: skip


def draw(figure: Any, measured: Measured) -> None:
    """Draw time and bytes per record."""
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    names = list(WAYS.values())
    ways = [measured["ways"][way] for way in WAYS]
    bars(left, names, {"elapsed": [w["wall_us"] for w in ways], "processor": [w["cpu_us"] for w in ways]}, text="")
    for offset, key in ((-0.2, "wall_us"), (0.2, "cpu_us")):
        for place, way in enumerate(ways):
            spread = [[way[key] - way[f"{key}_low"]], [way[f"{key}_high"] - way[key]]]
            left.errorbar([place + offset], [way[key]], yerr=spread, color="#0f172a", capsize=2.5, linewidth=1.0)
            left.annotate(
                f"{way[key]:,.0f}", xy=(place + offset, way[f"{key}_high"]), xytext=(0, 3), textcoords="offset points",
                ha="center", fontsize=7.5,
            )  # fmt: skip
    left.set(yscale="log", ylabel="µs per state transition")
    left.margins(y=0.2)
    left.legend(loc="upper left", title=f"median and range of {ROUNDS}", title_fontsize=8)
    left.tick_params(axis="x", labelsize=8)
    bars(right, names, {"stored": [w["bytes"] for w in ways]}, text="{:,.0f}")
    right.set_ylabel("bytes stored per state transition")
    right.tick_params(axis="x", labelsize=7)


AIP4: Final = Experiment(
    name="AIP4",
    title="Overhead of audit evidence",
    claim="audit-evidence overhead",
    method=(
        "A valid history of sessions with renewals, relocations and restarts, written in four ways in turns to one "
        f"disk. Overhead counts as small if it is within {FULL_US_MAX:g} µs of processor per state transition."
    ),
    measure=measure,
    conclude=conclude,
    draw=draw,
)
