"""The ports to stable storage: the journal, which is the evidence log, and what goes with it.

Everything here *blocks*: the runtime calls it in one thread of its own. Ordering rules: what `append` returned
from is on stable storage; nothing of an append that raised is; a snapshot is a convenience that may vanish at any
time, and evidence never depends on it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from aipaging.core.evidence.log import LogHead
from aipaging.core.evidence.record import SealedEntry
from aipaging.core.foundation.names import SessionId


class Journal(Protocol):
    """One writer's append-only log.

    Errors are `UnavailableError` with one of the codes JOURNAL_FULL (no space: only restrictive records are
    taken), JOURNAL_LOCKED (another process writes it), JOURNAL_IO (storage failed: open it anew), JOURNAL_FILE_MISSING
    (a part of it that is needed was moved away: put it back) and JOURNAL_CORRUPT (what is stored is not what was
    appended: restore a backup or look into it).
    """

    def open(self) -> LogHead:
        """Take the exclusive lock, recover from a crash, check the tail, and return where to go on.

        Raises:
            UnavailableError: It is locked, unreadable, or its tail does not fit its chain or checkpoint.
        """
        ...

    def append(self, entries: Sequence[SealedEntry], checkpoint: str | None, *, restrictive: bool = False) -> None:
        """Store the entries, all or none, and the signed checkpoint; durable on return (one fsync).

        Args:
            entries: They continue the log without a gap.
            checkpoint: A signed note whose size is at most that of the log with these entries.
            restrictive: The entries only take away (revoke, expire, release, end): space is kept aside for them.

        Raises:
            UnavailableError: Nothing was stored.
        """
        ...

    def read(self, first_seq: int) -> Iterator[SealedEntry]:
        """Yield the entries from `first_seq` on, payloads decrypted, None where they were erased.

        Raises:
            UnavailableError: Some are damaged, or were moved away; nothing is left out.
        """
        ...

    def checkpoint(self) -> str | None:
        """Return the newest signed checkpoint."""
        ...

    def close(self) -> None:
        """Release the lock; closing twice does nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenSnapshot:
    """Parts of a snapshot that are stored, and are nobody's yet.

    Attributes:
        name: Where.
        key: What they are encrypted with.
        parts: How many.
    """

    name: str
    key: bytes = field(repr=False)
    parts: int


class SnapshotStore(Protocol):
    """Where the newest snapshot of the engine's state rests, encrypted."""

    def write(self, parts: Iterable[bytes]) -> WrittenSnapshot:
        """Store the parts of a snapshot, so that `save` can make it the newest.

        The one call that may come from another thread while the journal is used.

        Raises:
            OSError: They cannot be stored; nothing is left of them. So it is when `parts` raises.
            UnavailableError: There is too little space.
        """
        ...

    def save(self, seq: int, root_hex: str, written: WrittenSnapshot) -> None:
        """Keep the state after the first `seq` records, whose tree has this root, in place of older ones.

        Raises:
            UnavailableError: It cannot be kept, or was discarded meanwhile; the older one stays.
        """
        ...

    def newest(self) -> tuple[int, str, Iterator[bytes]] | None:
        """Return (seq, root_hex, parts) of the newest snapshot, or None; parts that were altered raise."""
        ...

    def discard(self) -> None:
        """Delete every snapshot."""
        ...


class Eraser(Protocol):
    """Forgets a session, leaving its records verifiable."""

    def erase(self, session: SessionId) -> bool:
        """Delete the key and the salt of a session that the state has forgotten, from the disk itself.

        With them goes every snapshot that is older than the session's last record: it may hold the session.
        A session that was erased already is no error.

        Returns:
            Whether the session was ever stored.

        Raises:
            UnavailableError: The storage cannot be written, or something still reads what was there: ask again.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """A record as a verifier finds it: nothing about it is trusted.

    Attributes:
        record: The bytes.
        leaf_hash: The hash that is stored for it, where one is.
        leaves: The leaves of a batch record; None when they are missing.
    """

    record: bytes
    leaf_hash: bytes | None
    leaves: tuple[bytes, ...] | None


class EvidenceReader(Protocol):
    """The public part of a log, read while its writer runs, from another process or over a network.

    What it yields is as stored: whoever needs to trust it verifies it. A reader is used from one thread at a time.
    What it cannot read because it was moved away raises `UnavailableError` (JOURNAL_FILE_MISSING): no answer is short.
    """

    def records(self, first_seq: int, end_seq: int | None = None) -> Iterator[StoredRecord]:
        """Yield the records first_seq..end_seq-1 (by default to the end that there was when asked)."""
        ...

    def hashes(self, level: int, first: int, count: int) -> list[bytes]:
        """Return hashes of perfect subtrees of 256**level leaves, as many of `count` as there are."""
        ...

    def leaves(self, root: bytes) -> tuple[bytes, ...] | None:
        """Return the leaves of the batch record with this root."""
        ...

    def checkpoints(self, *, newest: bool) -> list[str]:
        """Return the stored checkpoints from the smallest on, or only the newest."""
        ...

    def verifier_keys(self) -> tuple[str, ...]:
        """Return the keys that the log names as its own; trust in them must come from elsewhere."""
        ...
